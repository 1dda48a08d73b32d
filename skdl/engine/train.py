"""The training loop: ``train(jobs)`` is the one entrance of the engine.

Axes: K models, P numbers of one network.

Jobs of equal plans are trained side by side as one stack. Every number that may differ from job to job is a vector
of length K, every job draws from random streams of its own, and a job that stops leaves the stack, so that a job's
result depends on its company by float rounding at most.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.engine.batches import Batches, DropoutMasks
from skdl.engine.device import Streams, one_thread_each, threads_for
from skdl.engine.job import Epoch, EpochRecord, Job, Monitor, Plan, Result, Samples, State, StopReason
from skdl.engine.optimizers import RULES, StackedOptimizer
from skdl.engine.schedules import PlateauRule
from skdl.engine.stacking import fits_of, stacks_of
from skdl.nn.dense import DenseStack
from skdl.tasks.losses import LossSettings

#: Rows of one batch when outputs are only looked at.
EVALUATION_ROWS = 1024


class CancelledError(Exception):
    """Training was called off by whoever waits for it."""


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
        Most models of a stack; by default as many as :func:`skdl.engine.stacking.widest_stack` says.
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
    results: dict[int, Result] = {}

    def train_places(places: list[int]) -> None:
        started = time.perf_counter()
        members = [jobs[i] for i in places]
        try:
            trained = train_stack(members, is_cancelled)
        except (torch.OutOfMemoryError, MemoryError) as error:
            fits = fits_of(members)
            if len(fits) == 1:
                results.update((i, Result.failed(error)) for i in places)
                return
            for half in (fits[: len(fits) // 2], fits[len(fits) // 2 :]):
                train_places([places[i] for fit in half for i in fit])
            return
        results.update(zip(places, trained, strict=True))
        if on_stack is not None:
            n_epochs = sum(len(result.history) for result in trained)
            on_stack(StackReport(members[0].plan, len(members), n_epochs, time.perf_counter() - started))

    stacks = stacks_of(jobs, max_models, max_bytes, n_workers)
    if n_workers == 1 or len(stacks) == 1:
        for places in stacks:
            train_places(places)
    else:
        with one_thread_each(n_workers), ThreadPoolExecutor(n_workers) as pool:
            list(pool.map(train_places, stacks))
    return [results[i] for i in range(len(jobs))]


@dataclass(frozen=True)
class StackReport:
    """One stack that was trained: its plan, how many models, their epochs added up, and the seconds it took."""

    plan: Plan
    n_models: int
    n_epochs: int
    seconds: float


def train_stack(jobs: Sequence[Job], is_cancelled: Callable[[], bool] = lambda: False) -> list[Result]:
    """Train jobs of equal plans as one stack; results in the order of the jobs."""
    runs = [Run(job) for job in jobs]
    # Falling length lets shorter jobs sit out the last steps; neighbours that share a table read it at once.
    active = sorted(runs, key=lambda run: (-len(run.job.train), id(run.job.train.table)))
    with torch.no_grad(), threads_for(step_multiplications(jobs)):
        stack = Stack(active)
        try:
            while active:
                train_epoch(stack)
                if is_cancelled():
                    raise CancelledError
                if any(run.reason for run in active):
                    stack.release()
                    active = [run for run in active if run.reason is None]
                    stack = Stack(active) if active else stack
        except KeyboardInterrupt:
            stack.interrupt()
            stack.release()
    return [run.result() for run in runs]


def step_multiplications(jobs: Sequence[Job]) -> int:
    """Multiplications of the forward pass of one training step."""
    plan = jobs[0].plan
    rows = sum(min(plan.batch_size, len(job.train)) for job in jobs)
    return plan.network.n_weights * rows


def train_epoch(stack: Stack) -> None:
    """One pass over the rows of every job of the stack, and what is decided after it."""
    started = time.perf_counter()
    for monitor in stack.monitors:
        monitor.on_epoch_begin()
    learning_rates, rates = stack.learning_rates()
    for step, batch in enumerate(stack.batches.epoch([run.streams.shuffle for run in stack.runs])):
        k, n_rows = batch.weight_KB.shape
        part = stack.first(k)
        masks = None if stack.dropout is None else stack.dropout.masks(batch.start, k, n_rows)
        output, tape = part.network.forward(batch.x_KBD, batch.codes_KBE, masks, batch.rows_KB1)
        loss_KB, grad_output = stack.plan.loss(output, batch.target, part.loss_settings)
        part.network.backward(grad_output.mul_(batch.weight_KB.unsqueeze(-1)), tape)
        stack.optimizer.step(part.grad_KP, learning_rates[step, :k], rates[step, :k])
        part.loss_K.addcmul_((loss_KB * batch.weight_KB).sum(1), stack.batches.step_shares[step, :k])
    stack.end_epoch(started)


class Run:
    """One job's way through training: what the stack does not keep in tensors."""

    def __init__(self, job: Job) -> None:
        plan = job.plan
        self.job = job
        self.streams = Streams(job.seed, plan.device)
        start = job.start or State(plan.network.initial(self.streams.init, plan.dtype))
        n_moments = RULES[plan.optimizer.name].n_moments
        self.theta_P, self.first_step = start.theta_P, start.n_steps
        self.moments = start.moments or [torch.zeros_like(self.theta_P) for _ in range(n_moments)]
        #: The parameters to return if training ended now: of the best epoch, or of the last finite one.
        self.kept_P = self.theta_P.clone()
        self.best_epoch = 0
        self.best_score = -math.inf
        self.score_to_beat = -math.inf
        self.epochs_since_best = 0
        self.plateau = PlateauRule() if job.settings.schedule.kind == "plateau" else None
        self.history: list[EpochRecord] = []
        self.reason: StopReason | None = None
        self.error: Exception | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    def learning_rates(self, n_steps: int) -> NDArray[np.float64]:
        """The learning rate of each of the next epoch's steps."""
        settings = self.job.settings
        factors = settings.schedule.factors(self.epoch * n_steps, n_steps, settings.max_epochs * n_steps)
        return settings.learning_rate * (self.plateau.factor if self.plateau else 1.0) * factors

    def record(self, loss: float, validation: Validation | None, is_finite: bool, seconds: float) -> bool:
        """Note an epoch and decide whether training goes on. Returns whether its parameters are to be kept."""
        settings = self.job.settings
        rate = self.learning_rates(1)[0] if self.epoch < settings.max_epochs else math.nan
        validation_loss, score = (math.nan, math.nan) if validation is None else (validation.loss, validation.score)
        self.history.append(EpochRecord(self.epoch + 1, loss, validation_loss, score, rate, seconds))
        if not is_finite or not math.isfinite(loss):
            self.reason = "diverged"
            return False
        if self.plateau is not None:
            self.plateau.update(loss if validation is None else -score)
        if self.epoch >= settings.max_epochs:
            self.reason = "max_epochs"
        if validation is None:
            self.best_epoch = self.epoch
            return True
        return self._compare(score)

    def _compare(self, score: float) -> bool:
        settings = self.job.settings
        if score > self.score_to_beat + settings.tol:
            self.score_to_beat, self.epochs_since_best = score, 0
        else:
            self.epochs_since_best += 1
        if settings.n_iter_no_change is not None and self.epochs_since_best >= settings.n_iter_no_change:
            self.reason = self.reason or "early_stopping"
        if settings.keep_best and score <= self.best_score and self.best_epoch > 0:
            return False
        self.best_score, self.best_epoch = score, self.epoch
        return True

    def result(self) -> Result:
        assert self.reason is not None
        state = State(self.kept_P.cpu(), [moment.cpu() for moment in self.moments], self.n_steps)
        return Result(state, self.history, self.reason, self.best_epoch, self.error)

    @property
    def n_steps(self) -> int:
        """Optimiser steps taken, those before this training included."""
        return self.first_step + self.epoch * -(-len(self.job.train) // self.job.plan.batch_size)


@dataclass
class Validation:
    """What an epoch's parameters are worth on the validation rows; a larger score is better."""

    loss: float
    score: float


@dataclass
class Part:
    """The first models of a stack: those that have a batch at some step."""

    network: DenseStack
    grad_KP: Tensor
    loss_settings: LossSettings
    loss_K: Tensor


class Stack:
    """The tensors of runs that are trained side by side."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        jobs = [run.job for run in runs]
        #: The monitor of each fit, and the places of its jobs.
        self.monitors: dict[Monitor, list[int]] = defaultdict(list)
        for k, job in enumerate(jobs):
            self.monitors[job.monitor].append(k)
        self.plan = plan = jobs[0].plan
        settings = [job.settings for job in jobs]
        self.theta_KP = torch.stack([run.theta_P for run in runs]).to(plan.device)
        self.grad_KP = torch.zeros_like(self.theta_KP)
        self.kept_KP = torch.stack([run.kept_P for run in runs]).to(plan.device)
        self.optimizer = StackedOptimizer(
            plan.optimizer,
            self.theta_KP,
            [torch.stack(moment).to(plan.device) for moment in zip(*(run.moments for run in runs), strict=True)],
            plan.network.n_weights,
            momentum=[s.momentum for s in settings],
            l1=[s.l1 for s in settings],
            l2=[s.l2 for s in settings],
            weight_decay=[s.weight_decay for s in settings],
            gradient_clip=[s.gradient_clip for s in settings],
        )
        self.loss_settings = loss_settings(jobs)
        self.batches = Batches([job.train for job in jobs], plan.batch_size, plan.device, plan.dtype)
        self.dropout = None
        if plan.network.hidden and any(s.dropout > 0 for s in settings):
            self.dropout = DropoutMasks(
                [run.streams.dropout for run in runs],
                [s.dropout for s in settings],
                self.batches.lengths,
                plan.network.hidden,
                plan.batch_size,
                plan.dtype,
            )
        self.evaluation = Evaluation(jobs) if any(job.validation is not None for job in jobs) else None
        self.loss_K = torch.zeros(len(runs), dtype=plan.dtype, device=plan.device)
        self._parts: dict[int, Part] = {}

    def first(self, k: int) -> Part:
        """The first ``k`` models."""
        if k not in self._parts:
            theta, grad = self.theta_KP[:k], self.grad_KP[:k]
            network = DenseStack(self.plan.network, theta, grad, self.plan.matmul_dtype)
            settings = {name: vector[:k] for name, vector in self.loss_settings.items()}
            self._parts[k] = Part(network, grad, settings, self.loss_K[:k])
        return self._parts[k]

    def learning_rates(self) -> tuple[Tensor, Tensor]:
        """The learning rate of each step and model, ``(steps, K, 1)``, bare and with the rule's correction."""
        n_steps = self.batches.steps
        bare = np.zeros((n_steps[0], len(self.runs), 1))
        corrected = np.zeros_like(bare)
        rule = RULES[self.plan.optimizer.name]
        for k, (run, n) in enumerate(zip(self.runs, n_steps, strict=True)):
            bare[:n, k, 0] = run.learning_rates(n)
            corrected[:n, k, 0] = bare[:n, k, 0] * rule.rate_factors(np.arange(run.n_steps + 1, run.n_steps + n + 1))
        dtype, device = self.plan.dtype, self.plan.device
        return torch.tensor(bare, dtype=dtype, device=device), torch.tensor(corrected, dtype=dtype, device=device)

    def end_epoch(self, started: float) -> None:
        """Validate, record, and keep the parameters that are worth keeping."""
        losses = self.loss_K.tolist()
        self.loss_K.zero_()
        finite = self.theta_KP.sum(1).isfinite().tolist()
        validations = self.evaluation.run(self.theta_KP) if self.evaluation else [None] * len(self.runs)
        seconds = time.perf_counter() - started
        keep = [
            run.record(loss, validation, is_finite, seconds)
            for run, loss, validation, is_finite in zip(self.runs, losses, validations, finite, strict=True)
        ]
        if all(keep):
            self.kept_KP.copy_(self.theta_KP)
        elif any(keep):
            kept = torch.tensor(keep, device=self.theta_KP.device)
            self.kept_KP[kept] = self.theta_KP[kept]
        for monitor, places in self.monitors.items():
            epochs = [Epoch(self.runs[k].job, self.runs[k].history, lambda k=k: self.theta_KP[k].cpu()) for k in places]
            try:
                stops = monitor.on_epoch_end(epochs)
            except Exception as error:
                # The fit whose callback fails is the one to hear of it.
                for k in places:
                    self.runs[k].reason, self.runs[k].error = "failed", error
                continue
            if stops:
                for k in places:
                    self.runs[k].reason = self.runs[k].reason or "callback"

    def release(self) -> None:
        """Hand the runs their rows back, so that another stack can take them on."""
        for k, run in enumerate(self.runs):
            run.theta_P = self.theta_KP[k].clone()
            run.kept_P = self.kept_KP[k].clone()
            run.moments = [moment[k].clone() for moment in self.optimizer.moments]

    def interrupt(self) -> None:
        """End every run at once, with its best parameters so far or, in the first epoch, those of this moment."""
        for k, run in enumerate(self.runs):
            if run.epoch == 0:
                self.kept_KP[k] = self.theta_KP[k]
            run.reason = run.reason or "interrupted"


def row_of(theta_KP: Tensor, k: int) -> Tensor:
    """A copy of one network's parameters, on the CPU."""
    return theta_KP[k].cpu().clone()


def loss_settings(jobs: Sequence[Job]) -> LossSettings:
    """Those settings of the loss that some job uses, ``(K, 1, 1)``."""
    plan = jobs[0].plan
    by_name = {
        "label_smoothing": [job.settings.label_smoothing for job in jobs],
        "quantile": [job.settings.quantile or 0.0 for job in jobs],
    }
    return {
        name: torch.tensor(values, dtype=plan.dtype, device=plan.device).view(-1, 1, 1)
        for name, values in by_name.items()
        if any(values)
    }


class Evaluation:
    """Losses and scores of a stack's networks on their validation rows."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.plan = jobs[0].plan
        validated = [k for k, job in enumerate(jobs) if job.validation is not None]
        self.order = sorted(validated, key=lambda k: (-len(_validation(jobs[k])), id(_validation(jobs[k]).table)))
        self.jobs = [jobs[k] for k in self.order]
        self.n_models = len(jobs)
        self.batches = Batches(
            [_validation(job) for job in self.jobs], EVALUATION_ROWS, self.plan.device, self.plan.dtype
        )
        # A smoothed label is a device of training; a validation row has the label it has.
        self.loss_settings = {k: v for k, v in loss_settings(self.jobs).items() if k != "label_smoothing"}

    def run(self, theta_KP: Tensor) -> list[Validation | None]:
        """The validation of each job of the stack, None for those that have no validation rows."""
        theta_KP = theta_KP[self.order]
        n_jobs = len(self.jobs)
        loss_K, weight_K = (torch.zeros(n_jobs, dtype=theta_KP.dtype, device=theta_KP.device) for _ in range(2))
        wanted = [k for k, job in enumerate(self.jobs) if job.monitor.scores]
        outputs = []
        for batch in self.batches.in_order():
            k = len(batch.weight_KB)
            network = DenseStack(self.plan.network, theta_KP[:k], matmul_dtype=self.plan.matmul_dtype)
            output = network.predict(batch.x_KBD, batch.codes_KBE)
            settings = {name: vector[:k] for name, vector in self.loss_settings.items()}
            loss_KB, _ = self.plan.loss(output, batch.target, settings)
            loss_K[:k] += (loss_KB * batch.weight_KB).sum(1)
            weight_K[:k] += batch.weight_KB.sum(1)
            if wanted:
                outputs.append(output.cpu())
        validations: list[Validation | None] = [None] * self.n_models
        losses = (loss_K / weight_K).tolist()
        for k, (place, job, loss) in enumerate(zip(self.order, self.jobs, losses, strict=True)):
            score = -loss
            if job.monitor.scores and math.isfinite(loss):
                rows = torch.cat([output[k] for output in outputs if len(output) > k])
                outputs_of_job = rows[: self.batches.lengths[k]].numpy()
                score = job.monitor.score(job, outputs_of_job, partial(row_of, theta_KP, k))
            validations[place] = Validation(loss, score)
        return validations


def _validation(job: Job) -> Samples:
    assert job.validation is not None
    return job.validation
