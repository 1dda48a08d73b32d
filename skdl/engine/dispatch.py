"""Dispatch of jobs: straight to the engine, or to a gathering of many fits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from skdl.data.table import Table
from skdl.engine.job import Job, Result
from skdl.engine.train import is_training, train


class Route(NamedTuple):
    """Where jobs are sent, and who knows of tables that other fits hold already."""

    submit: Callable[[Sequence[Job]], list[Result]]
    share: Callable[[Table], Table] = lambda table: table


_routes: list[Route] = [Route(train)]
#: The route of this thread alone, if it has one.
_here = threading.local()


def _route() -> Route:
    # A fit that a scorer or a callback makes while it is asked during training cannot wait for that training.
    if is_training():
        return _routes[0]
    return getattr(_here, "route", None) or _routes[-1]


def submit(jobs: Sequence[Job]) -> list[Result]:
    """Train the jobs of one fit; results in their order."""
    return _route().submit(jobs)


def shared(table: Table) -> Table:
    """The table, or one of equal content that another fit has brought already: then this one's memory is free."""
    return _route().share(table)


@contextmanager
def routed_through(route: Route) -> Iterator[None]:
    """Send the jobs and the tables of every fit of this process elsewhere."""
    _routes.append(route)
    try:
        yield
    finally:
        _routes.remove(route)


@contextmanager
def routed_here(route: Route) -> Iterator[None]:
    """Send the jobs and the tables of this thread's fits elsewhere, wherever those of the process go."""
    outer = getattr(_here, "route", None)
    _here.route = route
    try:
        yield
    finally:
        _here.route = outer


def unroute_here() -> None:
    """Send this thread's fits where those of the process go."""
    _here.route = None
