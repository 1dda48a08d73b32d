"""The rendezvous of many fits: each waits with its jobs until all do, then all are trained together.

A fit runs in a thread. When it hands over its jobs it waits, and gives up its right to run. When every thread that
could still bring jobs waits, one of them trains all jobs and wakes the others with their results.

A thread is *live* from the moment its task is queued until it ends, except while it waits here, or waits for tasks
of its own (a search inside a search). Threads that somebody else started, say for Optuna's trials, are known only by
the jobs they bring: the gathering waits a moment for their like, and a little longer for those it has met before.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from skdl.data.table import DenseTable, Table
from skdl.engine.device import resolve_device
from skdl.engine.job import Job, Result
from skdl.engine.train import CancelledError, StackReport, train

#: Seconds without a new job before a gathering that threads of somebody else take part in is closed, and seconds
#: that it waits for such threads as came before.
FOREIGN_PAUSE, FOREIGN_PATIENCE = 0.02, 0.25


@dataclass(frozen=True)
class _Task:
    """A task that has not begun: how to run it, how to tell whoever waits that it never will be, and whose it is."""

    run: Callable[[], None]
    abandon: Callable[[], None]
    owner: object


@dataclass(eq=False)
class _Waiting:
    """A fit that waits for its results."""

    jobs: list[Job]
    thread: threading.Thread
    results: list[Result] | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.results is not None or self.error is not None


@dataclass
class Limits:
    """What a gathering may use.

    ``max_models`` bounds the models of a stack and the tasks that are live at once; ``max_bytes`` what a stack's step
    works on and what the data of live tasks takes; ``device`` is where all jobs are trained, if not where they say.
    """

    max_models: int
    max_bytes: int
    n_workers: int
    device: str | None = None


class Gathering:
    """Threads that bring jobs, and the engine that trains them."""

    def __init__(self, limits: Limits, on_stack: Callable[[StackReport], None]) -> None:
        self.limits = limits
        self.on_stack = on_stack
        #: Guards all that follows, and wakes the threads that wait for any of it.
        self._changed = threading.Condition()
        self._queue: deque[_Task] = deque()
        self._tasks: set[threading.Thread] = set()
        #: Tasks that hold data: running or waiting for results, but not for tasks of their own.
        self._n_live = 0
        #: Tasks that may still bring a job before they wait.
        self._n_running = 0
        #: Threads that are handing out tasks.
        self._dispatching: list[threading.Thread] = []
        self._waiting: list[_Waiting] = []
        self._is_training = False
        self._n_cancelled = 0
        self._foreign_threads: set[threading.Thread] = set()
        self._last_arrival = 0.0
        self._bytes_per_task = 0
        self._tables: dict[bytes, Table] = {}
        #: The right to run: as many threads at a time as there are workers.
        self._slots = threading.Semaphore(limits.n_workers)

    # --- tasks -----------------------------------------------------------------------------------------------------

    def start_task(self, run: Callable[[], None], abandon: Callable[[], None], owner: object) -> None:
        """Run a task in a thread of its own, as soon as there is room for its data."""
        with self._changed:
            self._queue.append(_Task(run, abandon, owner))
            self._start_queued()

    def _room(self) -> int:
        """How many tasks may be live at once."""
        if self._bytes_per_task == 0:
            # Nobody has shown yet how large a task is.
            return self.limits.n_workers
        by_memory = self.limits.max_bytes // self._bytes_per_task
        return max(min(by_memory, self.limits.max_models), self.limits.n_workers)

    def _start_queued(self) -> None:
        while self._queue and self._n_live < self._room():
            task = self._queue.popleft()
            self._n_live += 1
            self._n_running += 1
            thread = threading.Thread(target=self._live, args=(task.run,), daemon=True, name="skdl-task")
            self._tasks.add(thread)
            thread.start()

    def _live(self, task: Callable[[], None]) -> None:
        try:
            with self._slots:
                task()
        finally:
            with self._changed:
                self._tasks.discard(threading.current_thread())
                self._n_live -= 1
                self._n_running -= 1
                self._start_queued()
                self._changed.notify_all()

    def begin_dispatch(self) -> None:
        """Close no gathering before this thread has handed out its tasks, or waits itself."""
        with self._changed:
            self._dispatching.append(threading.current_thread())

    def end_dispatch(self) -> None:
        with self._changed:
            self._dispatching.remove(threading.current_thread())
            self._changed.notify_all()

    @contextmanager
    def waiting_for_own_tasks(self) -> Iterator[None]:
        """A task that waits for tasks of its own brings no job meanwhile, and needs neither room nor slot."""
        if threading.current_thread() not in self._tasks:
            yield
            return
        self._count_task(-1)
        self._slots.release()
        try:
            yield
        finally:
            self._count_task(+1)
            self._slots.acquire()

    def _count_task(self, change: int) -> None:
        with self._changed:
            self._n_live += change
            self._n_running += change
            self._start_queued()
            self._changed.notify_all()

    def drop_tasks(self, owner: object) -> None:
        """Forget the tasks of an owner that have not begun."""
        with self._changed:
            self._queue = deque(task for task in self._queue if task.owner is not owner)

    def cancel(self) -> None:
        """Forget all tasks that have not begun, and end every wait with an error."""
        with self._changed:
            abandoned, self._queue = self._queue, deque()
            self._n_cancelled += 1
            if not self._is_training:
                gathered, self._waiting = self._waiting, []
                self._wake(gathered, error=CancelledError())
        # Searches inside other tasks may wait for tasks that were dropped.
        for task in abandoned:
            task.abandon()

    # --- jobs --------------------------------------------------------------------------------------------------------

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Wait with the jobs of one fit until they are trained."""
        waiting = _Waiting(self._prepared(jobs), threading.current_thread())
        is_task = waiting.thread in self._tasks
        if is_task:
            self._slots.release()
        try:
            self._wait(waiting)
        finally:
            if is_task:
                self._slots.acquire()
        if waiting.error is not None:
            raise waiting.error
        assert waiting.results is not None
        return waiting.results

    def _prepared(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs on the gathering's device, with one copy of equal tables."""
        table = self._shared(jobs[0].train.table)
        device = None if self.limits.device is None else resolve_device(self.limits.device)
        prepared = []
        for job in jobs:
            plan = job.plan if device is None else replace(job.plan, device=device)
            samples = replace(job.train, table=table)
            validation = job.validation
            if validation is not None and validation.table is job.train.table:
                validation = replace(validation, table=table)
            prepared.append(replace(job, plan=plan, train=samples, validation=validation))
        return prepared

    def _shared(self, table: Table) -> Table:
        """The table, or one of equal content that another fit has brought already."""
        if not isinstance(table, DenseTable):
            return table
        digest = table.digest()
        with self._changed:
            return self._tables.setdefault(digest, table)

    def _wait(self, waiting: _Waiting) -> None:
        with self._changed:
            self._waiting.append(waiting)
            self._last_arrival = time.monotonic()
            self._bytes_per_task = max(self._bytes_per_task, task_bytes(waiting.jobs))
            if waiting.thread in self._tasks:
                self._n_running -= 1
            elif waiting.thread is not threading.main_thread():
                self._foreign_threads.add(waiting.thread)
            self._start_queued()
            self._changed.notify_all()
            try:
                while not waiting.is_done:
                    if self._is_complete():
                        self._train()
                    else:
                        self._changed.wait(FOREIGN_PAUSE if self._has_foreign() else None)
            finally:
                # Ctrl-C in the main thread breaks its wait off.
                if waiting in self._waiting:
                    self._waiting.remove(waiting)

    def _has_foreign(self) -> bool:
        return any(waiting.thread in self._foreign_threads for waiting in self._waiting)

    def _is_complete(self) -> bool:
        """Whether no thread can bring another job before the waiting ones have their results."""
        here = {waiting.thread for waiting in self._waiting}
        if self._is_training or self._n_running > 0 or not here.issuperset(self._dispatching):
            return False
        if not self._has_foreign():
            return True
        pause = time.monotonic() - self._last_arrival
        self._foreign_threads = {thread for thread in self._foreign_threads if thread.is_alive()}
        return pause >= (FOREIGN_PAUSE if self._foreign_threads <= here else FOREIGN_PATIENCE)

    def _train(self) -> None:
        """Train the jobs of all who wait, with the lock let go meanwhile, and wake them."""
        gathered, self._waiting = self._waiting, []
        n_cancelled = self._n_cancelled
        self._is_training = True
        self._changed.release()
        results: list[Result] = []
        error: BaseException | None = None
        try:
            results = train(
                [job for waiting in gathered for job in waiting.jobs],
                max_models=self.limits.max_models,
                max_bytes=self.limits.max_bytes,
                n_workers=self.limits.n_workers,
                on_stack=self.on_stack,
                is_cancelled=lambda: self._n_cancelled > n_cancelled,
            )
        except BaseException as raised:
            error = raised
        finally:
            self._changed.acquire()
            self._is_training = False
            self._tables.clear()
            self._wake(gathered, results, error)

    def _wake(
        self, gathered: list[_Waiting], results: Sequence[Result] = (), error: BaseException | None = None
    ) -> None:
        remaining = iter(results)
        for waiting in gathered:
            waiting.error = error
            waiting.results = list(islice(remaining, len(waiting.jobs)))
            # It counts as running from now on, so that no gathering is closed before it has moved on.
            self._n_running += waiting.thread in self._tasks
        self._changed.notify_all()


def task_bytes(jobs: Sequence[Job]) -> int:
    """About what the data of a task takes: its encoded table, and as much again for the rows that it came from."""
    table = jobs[0].train.table
    return 2 * len(table) * table.n_columns * jobs[0].plan.dtype.itemsize + 1
