"""Devices, threads and random numbers: what training borrows from its surroundings and gives back."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import lru_cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

P = ParamSpec("P")
R = TypeVar("R")

#: Multiplications of one matrix product, about a millisecond's, below which a second thread brings little, and costs
#: many times as much where other work keeps it from its core.
SMALL_PRODUCT = 50_000_000


@lru_cache
def resolve_device(device: str | torch.device) -> str:
    """The torch device for "auto", "cpu", "cuda", "cuda:1", "mps" or a :class:`torch.device`, by its name.

    Raises
    ------
    ValueError
        If torch does not know the device, or this machine does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = None
    if parsed is None or parsed.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"Unknown device {str(device)!r}. Use 'auto', 'cpu', 'cuda', 'cuda:1', ... or 'mps'.")
    n_devices = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[parsed.type]
    if (parsed.index or 0) >= n_devices:
        raise ValueError(
            f"device={str(device)!r} is not available on this machine, which has {n_devices} {parsed.type} device(s). "
            "Use device='auto' to take what is there."
        )
    # There is one processor, under two names.
    return "cpu" if parsed.type == "cpu" else str(parsed)


if hasattr(os, "register_at_fork"):
    # The threads that torch has started stay behind in the parent process: a forked child would wait for them forever.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@contextmanager
def _changed_threads(wanted: int, before: int) -> Iterator[None]:
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads(wanted: int) -> AbstractContextManager[None]:
    """Run on so many threads, and give the caller's setting back."""
    before = torch.get_num_threads()
    return nullcontext() if wanted == before else _changed_threads(wanted, before)


def threads_for(multiplications: int) -> AbstractContextManager[None]:
    """Run small matrix products, of so many multiplications on average, on one thread.

    Threads of a small product wait for each other by spinning, which next to another process costs many times
    what they bring.
    """
    return _threads(1 if multiplications < SMALL_PRODUCT else torch.get_num_threads())


def one_thread_each(n_workers: int) -> AbstractContextManager[None]:
    """Share the threads out among workers that are started inside: a new thread takes on the setting it finds."""
    return _threads(max(torch.get_num_threads() // n_workers, 1))


class _DefaultPrecision:
    """A region in which new tensors are in single precision by default, in all threads: torch has one setting.

    The previous default is restored when the last thread leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._before = torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._n_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                torch.set_default_dtype(self._before)


_default_precision = _DefaultPrecision()


def with_torch_defaults(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under torch's own defaults: on the CPU, in single precision, without autocast.

    A caller may have set another default device than the CPU, on which tables are prepared wherever the training is, or
    another default precision, or stand inside an autocast region, which changes precisions that the engine chooses by
    itself.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            for device in ("cpu", "cuda", "mps"):
                stack.enter_context(without_autocast(device))
            stack.enter_context(_default_precision)
            return function(*args, **kwargs)

    return run


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Compute on a kind of device in the precision that tensors have."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Have this thread take numbers below the smallest normal one for zero.

    The moments of gradients that have become zero fade into such numbers and stay there, and a processor may be many
    times slower on them.
    """
    before = _flushes_subnormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_subnormals() -> bool:
    # Torch does not tell, but Python computes on the same unit of the processor.
    smallest = sys.float_info.min
    return smallest / 2 == 0


class Streams:
    """The random streams of one job, each of its own, so that a job's draws do not depend on its company."""

    def __init__(self, seed: int, device: str) -> None:
        init, shuffle, noise = (int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64) >> 1)
        self.init = torch.Generator().manual_seed(init)
        self.shuffle = torch.Generator().manual_seed(shuffle)
        # Dropout masks and the like are drawn where they are used.
        self.noise = torch.Generator(device).manual_seed(noise)
