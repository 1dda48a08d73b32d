"""The training loop: ``train(jobs)`` is the one entrance of the engine.

Jobs of equal plans are trained side by side as one stack. Every number that may differ from job to job is a vector
of length K, every job draws from random streams of its own, and a job that stops leaves the stack, so that a job's
result depends on its company by float rounding at most.

Axes: K models, B batch rows, D numbers of one encoded row, E embedded columns, O outputs, P parameters of one network.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import torch

from skdl.engine.batches import DeviceTables, table_ranks
from skdl.engine.device import flush_denormals, one_thread_each, threads_for
from skdl.engine.evaluation import parameters_of
from skdl.engine.job import Epoch, Job, Monitor, Result
from skdl.engine.run import Run, untrained
from skdl.engine.stack import Stack
from skdl.engine.stacking import fits_of, stacks_of


class CancelledError(Exception):
    """Raised when ``is_cancelled`` says that nobody waits for the results any more."""


def train(
    jobs: Sequence[Job],
    *,
    max_models: int | None = None,
    max_bytes: int | None = None,
    n_workers: int = 1,
    on_stack: Callable[[StackReport], None] | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[Result]:
    """Train networks, side by side where their plans are equal.

    Parameters
    ----------
    jobs : sequence of Job
    max_models : int, optional
        Most models of a stack; by default as many as :func:`skdl.engine.stacking.widest_stack` says. The networks of
        one fit are never parted, even if they are more.
    max_bytes : int, optional
        Most bytes that a stack's training step may work on.
    n_workers : int, default=1
        Stacks to train at the same time, each in a thread of its own.
    on_stack : callable, optional
        Told of every stack that was trained.
    is_cancelled : callable, optional
        Asked after every epoch; True ends training with :class:`CancelledError`.

    Returns
    -------
    list of Result
        In the order of the jobs. What went wrong in a job is in its result's ``error``.
    """
    interrupted = threading.Event()

    def train_reported(members: list[Job]) -> list[Result]:
        # Ctrl-C is meant for all that was asked for, not for the stack that happened to be at work.
        if interrupted.is_set():
            return untrained(members)
        started = time.perf_counter()
        trained = train_stack(members, is_cancelled, interrupted.is_set)
        if any(result.reason == "interrupted" for result in trained):
            interrupted.set()
        if on_stack is not None:
            n_epochs = sum(len(result.history) for result in trained)
            plan, seconds = members[0].plan, time.perf_counter() - started
            on_stack(StackReport(plan.architecture.label, plan.device, len(members), n_epochs, seconds))
        return trained

    stacks = stacks_of(jobs, max_models, max_bytes, n_workers)
    parts = [[jobs[i] for i in places] for places in stacks]
    train_part = partial(_trained_or_halved, train=train_reported)
    if n_workers == 1 or len(stacks) == 1:
        trained = [train_part(part) for part in parts]
    else:
        with one_thread_each(n_workers), ThreadPoolExecutor(n_workers) as pool:
            futures: list[Future[list[Result]]] = []
            try:
                for part in parts:
                    futures.append(pool.submit(train_part, part))
                wait(futures)
            except KeyboardInterrupt:
                interrupted.set()
            # Those that were not handed out any more stay untrained.
            trained = [future.result() for future in futures] + list(map(train_part, parts[len(futures) :]))
    results: dict[int, Result] = {}
    for places, of_stack in zip(stacks, trained, strict=True):
        results |= zip(places, of_stack, strict=True)
    return [results[i] for i in range(len(jobs))]


def _trained_or_halved(jobs: list[Job], train: Callable[[list[Job]], list[Result]]) -> list[Result]:
    """Results of a stack; of its halves where it fails, which finds the fit to blame and makes room in memory."""
    try:
        return train(jobs)
    except CancelledError:
        raise
    except Exception as error:
        fits = fits_of(jobs)
        if len(fits) == 1:
            return [Result.failed(error) for _ in jobs]
    # The error is gone here, and with it what its frames held in memory.
    for monitor in {job.monitor for job in jobs}:
        monitor.on_restart()
    results: dict[int, Result] = {}
    for half in (fits[: len(fits) // 2], fits[len(fits) // 2 :]):
        places = [i for fit in half for i in fit]
        results |= zip(places, _trained_or_halved([jobs[i] for i in places], train), strict=True)
    return [results[i] for i in range(len(jobs))]


@dataclass(frozen=True)
class StackReport:
    """One stack that was trained.

    The plan itself is not kept, because it may contain a user's own network.

    Attributes
    ----------
    network : str
        The architecture in a few characters, such as the widths of its layers.
    device : str
        Where it was trained.
    n_models : int
        Networks in the stack.
    n_epochs : int
        Epochs of all of them together.
    seconds : float
        Time of the training.
    """

    network: str
    device: str
    n_models: int
    n_epochs: int
    seconds: float


def train_stack(
    jobs: Sequence[Job],
    is_cancelled: Callable[[], bool] = lambda: False,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> list[Result]:
    """Train jobs of equal plans as one stack; results in the order of the jobs.

    After every epoch it is asked whether that is to end by an error, and whether by Ctrl-C in another thread.
    """
    outermost, _here.is_training = is_training(), True
    try:
        # Tensors of a caller's inference mode could not be differentiated.
        with torch.inference_mode(False):
            return _train_stack(jobs, is_cancelled, is_interrupted)
    finally:
        _here.is_training = outermost


_here = threading.local()


def is_training() -> bool:
    """Whether this thread is in the middle of training a stack."""
    return getattr(_here, "is_training", False)


def _train_stack(
    jobs: Sequence[Job], is_cancelled: Callable[[], bool], is_interrupted: Callable[[], bool]
) -> list[Result]:
    runs = [Run(job) for job in jobs]
    # Falling length lets shorter jobs sit out the last steps; neighbours that share a table read it at once.
    rank = table_ranks(job.train for job in jobs)
    active = sorted(runs, key=lambda run: (-len(run.job.train), rank[id(run.job.train.table)]))
    tables = DeviceTables(jobs[0].plan.device)
    with torch.no_grad(), threads_for(_product_multiplications(jobs)):
        stacks = _stacked(active, tables)
        try:
            while active:
                for monitor in _monitors_of(active):
                    monitor.on_epoch_begin()
                for stack in stacks:
                    _train_epoch(stack)
                _tell_monitors(stacks)
                if is_cancelled():
                    raise CancelledError
                if is_interrupted():
                    raise KeyboardInterrupt
                if any(run.reason for run in active):
                    for stack in stacks:
                        stack.release()
                    active = [run for run in active if run.reason is None]
                    stacks = _stacked(active, tables)
        except KeyboardInterrupt:
            for stack in stacks:
                stack.interrupt()
                stack.release()
    return [run.result() for run in runs]


def _stacked(runs: Sequence[Run], tables: DeviceTables) -> list[Stack]:
    """One stack of all runs, or one of each where they cannot be stacked: these are trained epoch by epoch in turn."""
    if not runs:
        return []
    return [Stack(runs, tables)] if runs[0].job.plan.is_stackable else [Stack([run], tables) for run in runs]


def _monitors_of(runs: Sequence[Run]) -> list[Monitor]:
    """The monitor of each fit, once."""
    return list({run.job.monitor: None for run in runs})


def _tell_monitors(stacks: Sequence[Stack]) -> None:
    """Tell each fit of the epoch that its jobs have ended, and heed its answer."""
    epochs: dict[Monitor, list[tuple[Run, Epoch]]] = defaultdict(list)
    for stack in stacks:
        for k, run in enumerate(stack.runs):
            epoch = Epoch(run.job, run.history, partial(parameters_of, stack.theta_KP, k))
            epochs[run.job.monitor].append((run, epoch))
    for monitor, ended in epochs.items():
        try:
            stops = monitor.on_epoch_end([epoch for _, epoch in ended])
        except Exception as error:
            # The error belongs to the fit whose callback failed.
            for run, _ in ended:
                run.reason, run.error = "failed", error
            continue
        if stops:
            for run, _ in ended:
                run.reason = run.reason or "callback"


def _product_multiplications(jobs: Sequence[Job]) -> int:
    """Multiplications of one matrix product, on average over the forward pass of a training step."""
    architecture, batch_size = jobs[0].plan.architecture, jobs[0].plan.batch_size
    n_rows = sum(min(batch_size, len(job.train)) for job in jobs)
    return architecture.n_multiplications * n_rows // architecture.n_products


def _train_epoch(stack: Stack) -> None:
    """One pass over the rows of every job of the stack, and what is decided after it."""
    started = time.perf_counter()
    stack.begin_epoch()
    losses, noise = stack.losses, stack.noise
    batches = stack.batches.epoch([run.streams.shuffle for run in stack.runs], losses.prepared)
    with flush_denormals():
        for batch, rates in zip(batches, stack.learning_rates(), strict=True):
            active = stack.active(batch.n_models)
            drawn = None if noise is None else noise.draw(batch.start, *batch.x_KBD.shape[:2])
            output, tape = active.networks.forward(batch.x_KBD, batch.codes_KBE, drawn, batch.rows_KB1)
            # Images are mixed on their way through the network.
            grad_KOB = losses.gradient(batch, output, None if noise is None else noise.mixing)
            active.networks.backward(grad_KOB.mul_(batch.weight_K1B), tape)
            active.optimizer.step(active.grad_KP, *rates)
    stack.end_epoch(started)
