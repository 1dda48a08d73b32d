"""``train_together``: scikit-learn's own searches, trained as stacks of networks."""

from __future__ import annotations

import atexit
import numbers
import os
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import joblib
import torch
from joblib.parallel import FallbackToBackend, ParallelBackendBase, SequentialBackend

from skdl.data.counts import check_counts
from skdl.engine.dispatch import Route, routed_through, unroute_here
from skdl.engine.train import CancelledError, StackReport, is_training
from skdl.model_selection.gathering import Gathering, Limits, join_ending

_PREFIXES = ["", "k", "m", "g", "t"]


def parse_bytes(memory: int | float | str) -> int:
    """A number of bytes from a number, or a text such as "2GB", "500 MB" or "1.5 GiB".

    Raises
    ------
    ValueError
        If the text is not a positive amount of memory.
    """
    if isinstance(memory, numbers.Real) and not isinstance(memory, bool) and 1 <= memory < float("inf"):
        return int(memory)
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?)(i?)b?\s*", str(memory).lower())
    n_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** _PREFIXES.index(match[2])) if match else 0
    if n_bytes < 1:
        raise ValueError(f"max_memory must be a number of bytes or a text such as '2GB'. Got {memory!r} instead.")
    return n_bytes


class _Future:
    """The outcome of a task, as joblib wants to fetch it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        try:
            self._result = function()
        except BaseException as error:
            self._error = error

    def get(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class TogetherBackend(ParallelBackendBase):
    """A joblib backend whose tasks run in threads and meet in a :class:`Gathering` when they fit."""

    uses_threads = True
    supports_sharedmem = True
    supports_retrieve_callback = True
    supports_timeout = True

    def __init__(self, gathering: Gathering, outermost: TogetherBackend | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gathering = gathering
        #: The backend of the search that this one's search lies in, however deep.
        self.outermost = outermost or self
        self._calls = threading.local()
        self._filters: list[warnings.catch_warnings] = []

    def configure(self, n_jobs: int = 1, parallel: Any = None, **kwargs: Any) -> int:
        # A search that a scorer makes while a stack is trained cannot wait for that training.
        if self.gathering.pid != os.getpid() or is_training():
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        return super().configure(n_jobs, parallel, **kwargs)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As many tasks as a stack may hold, whatever the caller asks for."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return max(self.gathering.limits.max_models, 2)

    def submit(self, func: Callable[[], Any], callback: Callable[[_Future], None] | None = None) -> None:
        def run(function: Callable[[], Any] = func) -> Callable[[], None]:
            outcome = _Future(function)
            return partial(callback, outcome) if callback is not None else lambda: None

        def never() -> None:
            raise CancelledError("An error elsewhere ended the search before this task had begun.")

        self.gathering.start_task(run, lambda: run(never)(), owner=self.outermost, depth=self.nesting_level)

    def retrieve_result_callback(self, out: _Future) -> Any:
        return out.get()

    def get_nested_backend(self) -> tuple[TogetherBackend, None]:
        return TogetherBackend(self.gathering, self.outermost, nesting_level=self.nesting_level + 1), None

    def start_call(self) -> None:
        if self.nesting_level == 0 and threading.current_thread() is threading.main_thread():
            # Tasks set filters while others do: scikit-learn gives each those of the caller.
            self._filters.append(warnings.catch_warnings())
            self._filters[-1].__enter__()
        self.gathering.begin_dispatch()
        self._calls.is_dispatching = True

    def _end_dispatch(self) -> None:
        if getattr(self._calls, "is_dispatching", False):
            self._calls.is_dispatching = False
            self.gathering.end_dispatch()

    def stop_call(self) -> None:
        self._end_dispatch()
        if self._filters and threading.current_thread() is threading.main_thread():
            self._filters.pop().__exit__(None, None, None)

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        self._end_dispatch()
        with self.gathering.waiting_for_own_tasks():
            yield

    def abort_everything(self, ensure_ready: bool = True) -> None:
        # A search inside a search must not take the outer one's other tasks with it.
        if self.outermost is self:
            self.gathering.cancel(self)


class Report(list[StackReport]):
    """The stacks that were trained, one after the other; prints as a table."""

    def __str__(self) -> str:
        lines = [f"{'network':<24}{'device':>8}{'models':>8}{'epochs each':>13}{'seconds':>10}{'model-epochs/s':>16}"]
        for stack in self:
            rate = stack.n_epochs / max(stack.seconds, 1e-9)
            lines.append(
                f"{stack.network:<24}{stack.device:>8}{stack.n_models:>8}{stack.n_epochs / stack.n_models:>13.1f}"
                f"{stack.seconds:>10.2f}{rate:>16.1f}"
            )
        lines.append(
            f"{len(self)} stacks, {sum(s.n_models for s in self)} models, {sum(s.n_epochs for s in self)} epochs in all"
        )
        return "\n".join(lines)

    __repr__ = __str__


class TogetherRun:
    """The ``run`` of ``with train_together() as run``.

    Attributes
    ----------
    report_ : list of StackReport
        Every stack that was trained: ``network``, ``device``, ``n_models``, ``n_epochs`` and ``seconds``.
        Printing it shows a table.
    """

    def __init__(self) -> None:
        self.report_ = Report()

    def __repr__(self) -> str:
        return f"TogetherRun\n{self.report_}"


@dataclass
class _Context:
    """The outermost context and those that joined it, perhaps from other threads; it lasts until all have ended."""

    gathering: Gathering
    run: TogetherRun
    route: ExitStack = field(default_factory=ExitStack)
    n_inside: int = 0


_lock = threading.Lock()
_active: list[_Context] = []
#: Those of contexts that have ended live on while one of their threads does.
_gatherings: weakref.WeakSet[Gathering] = weakref.WeakSet()


def train_together(
    *, max_models: int = 256, max_memory: int | float | str = "2GB", device: str | torch.device | None = None
) -> AbstractContextManager[TogetherRun]:
    """Train the networks of a search side by side, in a few large stacks.

    Inside the context, everything that scikit-learn passes to joblib runs in threads, each up to the point where it
    would train a network. When all have reached it, networks of the same shape, batch size and optimiser are trained
    as one stack, whatever their learning rates, penalties, dropout rates, seeds and rows; then the threads continue.
    The results are those of the same search without the context, up to floating-point rounding. Estimators of other
    libraries run as usual.

    Parameters
    ----------
    max_models : int, default=256
        Maximum number of networks in a stack, and of tasks of a search that hold data at the same time, but at least
        one task per processor. The networks of one fit are never parted, even if they are more.
    max_memory : int, float or str, default="2GB"
        Bytes, or a string with a unit: maximum memory for the data of waiting tasks and the working memory of a stack.
    device : str, torch.device or None, default=None
        Device to train on, overriding the estimators' own ``device``.

    Returns
    -------
    context : context manager
        Yields a :class:`TogetherRun`, whose ``report_`` lists the stacks. Inside another ``train_together`` it joins
        that one, whose limits apply.

    Raises
    ------
    ValueError
        If ``max_models`` is not an integer of at least 1, or ``max_memory`` is not positive. A fit inside raises it if
        ``device`` is not available.

    Notes
    -----
    ``n_jobs`` of a search is ignored inside. The fit times in ``cv_results_`` include waiting for other fits.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> import skdl
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = skdl.MLPClassifier(n_members=1, early_stopping=False, max_epochs=5)
    >>> search = GridSearchCV(clf, {"learning_rate": [0.001, 0.01]})
    >>> with skdl.train_together() as run:
    ...     search = search.fit(X, y)
    >>> sum(stack.n_models for stack in run.report_)  # 2 candidates x 5 folds, and the refit
    11
    """
    check_counts(max_models=max_models)
    limits = Limits(int(max_models), parse_bytes(max_memory), joblib.cpu_count(), device)
    return _together(limits)


@contextmanager
def _together(limits: Limits) -> Iterator[TogetherRun]:
    with _lock:
        if not _active:
            run = TogetherRun()
            gathering = Gathering(limits, run.report_.append)
            _gatherings.add(gathering)
            context = _Context(gathering, run)
            context.route.enter_context(routed_through(Route(gathering.run, gathering.share)))
            _active.append(context)
        context = _active[-1]
        context.n_inside += 1
    try:
        with joblib.parallel_config(backend=TogetherBackend(context.gathering)):
            yield context.run
    except BaseException as error:
        if _leave(context):
            # Ctrl-C is meant for all that is at work; an error is no concern of threads that somebody else started.
            if isinstance(error, KeyboardInterrupt):
                context.gathering.cancel_all()
            else:
                context.gathering.cancel_tasks()
        raise
    # Threads that outlive the context go on with what they have begun.
    _leave(context)


def _leave(context: _Context) -> bool:
    """Note that one is out of the context. Returns whether it was the last."""
    with _lock:
        context.n_inside -= 1
        if context.n_inside > 0:
            return False
        _active.remove(context)
        context.route.close()
        return True


def _end_all() -> None:
    """At the end of the process: a thread that is inside torch when the interpreter goes takes it down."""
    for gathering in list(_gatherings):
        gathering.end()
    join_ending()


atexit.register(_end_all)


def _end_in_child() -> None:
    """A forked process has the contexts but none of the threads that wait in them."""
    for context in _active:
        context.route.close()
    _active.clear()
    unroute_here()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_in_child)
