"""The way from a fit to the engine: straight, or through whoever gathers the jobs of many fits first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from skdl.engine.job import Job, Result
from skdl.engine.train import is_training, train

Runner = Callable[[Sequence[Job]], list[Result]]

_runners: list[Runner] = [train]


def run(jobs: Sequence[Job]) -> list[Result]:
    """Train the jobs of one fit; results in their order."""
    # A fit that a scorer or a callback makes while it is asked during training cannot wait for that training.
    return train(jobs) if is_training() else _runners[-1](jobs)


@contextmanager
def routed_through(runner: Runner) -> Iterator[None]:
    """Send the jobs of every fit of this process to another runner."""
    _runners.append(runner)
    try:
        yield
    finally:
        _runners.remove(runner)
