"""The rendezvous of many fits: each waits with its jobs until all do, then all are trained together.

A fit runs in a thread. When it hands over its jobs it waits, and gives up its right to run. When every thread that
could still bring jobs waits, one of them trains all jobs and wakes the others with their results.

The thread of a task is *live* from the moment it is started until it ends, except while it waits here, or waits for
tasks of its own (a search inside a search). Threads that somebody else started, say for Optuna's trials, are known only
by the jobs they bring: the gathering waits a moment for their like, and a little longer for those it has met before.
And if nothing happens although some thread should be at work, that thread is taken to wait for something that only a
training can release, a lock that a waiting fit holds or threads of its own: then those who wait are trained.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import torch

from skdl.data.table import ComparableTable, Table
from skdl.engine.device import resolve_device
from skdl.engine.dispatch import Route, routed_here
from skdl.engine.job import Job, Result
from skdl.engine.train import CancelledError, StackReport, train
from skdl.model_selection.permits import LOOK_SECONDS, IdleClock, Permits

#: Seconds without a new job after which a gathering that threads of somebody else take part in is closed, if all such
#: threads that came before are there again.
FOREIGN_PAUSE = 0.02
#: Seconds without a new job after which it is closed although some of them, still alive, are not there.
FOREIGN_PATIENCE = 0.25
#: Seconds after which threads of tasks, and those that hand tasks out, are taken to be waiting if they do not work,
#: although the process does.
TASK_PATIENCE = 2.0
#: Seconds that the end of the process waits for each task.
END_SECONDS = 10
#: Bytes of a level in an encoded table.
CODE_BYTES = 8
#: Bytes of the text that it stands for in the rows that the table came from, about.
TEXT_BYTES = 64


@dataclass(eq=False)
class _Task:
    """A task of a search."""

    #: Does the work and returns what reports it, to be called when the data is let go.
    run: Callable[[], Callable[[], None]]
    #: Tells whoever waits that it never will be run.
    abandon: Callable[[], None]
    #: The outermost search that it belongs to.
    owner: object
    #: In how many other tasks it lies.
    depth: int
    #: Whether nobody waits for it any more.
    is_called_off: bool = False


@dataclass(eq=False)
class _Waiting:
    """A fit that waits for its results."""

    jobs: list[Job]
    thread: threading.Thread
    #: Notified when there is something to do for it.
    called: threading.Condition
    #: Whose task the thread works on, if any.
    owner: object = None
    results: list[Result] | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.results is not None or self.error is not None


@dataclass
class Limits:
    """What a gathering may use.

    ``max_models`` bounds the models of a stack and the tasks that hold data at once; ``max_bytes`` what a stack's step
    works on and what that data takes; ``device`` is where all jobs are trained, if not where they say.
    """

    max_models: int
    max_bytes: int
    n_workers: int
    device: str | torch.device | None = None


#: Threads of tasks that are done, but have not let their data go yet. A thread's own end takes it out again.
_ending: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def join_ending() -> None:
    """Wait for the threads that are on their way out."""
    for thread in list(_ending):
        thread.join(END_SECONDS)


class Gathering:
    """Threads that bring jobs, and the engine that trains them."""

    def __init__(self, limits: Limits, on_stack: Callable[[StackReport], None]) -> None:
        self.limits = limits
        self.on_stack = on_stack
        #: The process that all this belongs to: a forked one has none of its threads.
        self.pid = os.getpid()
        #: Guards all that follows.
        self._lock = threading.RLock()
        #: Tasks that have not begun, by depth.
        self._queue: defaultdict[int, deque[_Task]] = defaultdict(deque)
        self._tasks: dict[threading.Thread, _Task] = {}
        #: Tasks that hold data, by depth: those that have begun, and have not returned yet.
        self._n_holding: Counter[int] = Counter()
        #: Those of them that wait for tasks of their own.
        self._n_waiting_for_own = 0
        #: Live threads: those that may still bring a job before they wait.
        self._n_live = 0
        #: Threads that are handing out tasks.
        self._dispatching: list[threading.Thread] = []
        #: Those who wait; the first one looks after the gathering and trains it when it is complete.
        self._waiting: list[_Waiting] = []
        self._idle = IdleClock(TASK_PATIENCE)
        #: Those whose jobs are being trained, and whether that is to end.
        self._trained: list[_Waiting] = []
        self._is_cancelled = False
        self._foreign_threads: set[threading.Thread] = set()
        self._last_arrival = 0.0
        self._bytes_per_task = 0
        #: The tables that fits have brought since the last training, by a sample of their numbers.
        self._tables: defaultdict[Hashable, list[ComparableTable]] = defaultdict(list)
        self._comparing = threading.Lock()
        self._permits = Permits(limits.n_workers)

    # --- tasks -----------------------------------------------------------------------------------------------------

    def start_task(
        self, run: Callable[[], Callable[[], None]], abandon: Callable[[], None], owner: object, depth: int = 0
    ) -> None:
        """Run a task in a thread of its own, as soon as there is room for its data.

        Raises
        ------
        CancelledError
            If this is part of a task that was called off.
        RuntimeError
            If no thread can be started and there is none whose end could be waited for.
        """
        with self._lock:
            self._refuse_called_off()
            self._queue[depth].append(_Task(run, abandon, owner, depth))
            self._start_queued()

    def _room(self) -> int:
        """How many tasks of a depth may hold data at once."""
        if self._bytes_per_task == 0:
            # Nobody has shown yet how large a task is.
            return self.limits.n_workers
        by_memory = self.limits.max_bytes // self._bytes_per_task
        return max(min(by_memory, self.limits.max_models), self.limits.n_workers)

    def _has_room(self, depth: int) -> bool:
        """Whether one more task of a depth may hold data."""
        room = self._room()
        return self._n_holding[depth] < room and self._n_holding.total() - self._n_waiting_for_own < room

    def _start_queued(self) -> None:
        # A task that waits for tasks of its own goes on holding data until those are done: the inner ones go first.
        for depth, tasks in sorted(self._queue.items(), reverse=True):
            while tasks and self._has_room(depth):
                task = tasks.popleft()
                thread = threading.Thread(target=self._run_task, args=(task,), daemon=True, name="skdl-task")
                self._begin(task, thread)
                try:
                    thread.start()
                except RuntimeError:
                    # There are too many threads: the task begins when one has ended.
                    self._n_holding[depth] -= 1
                    self._end(thread)
                    if not self._tasks:
                        raise
                    tasks.appendleft(task)
                    return

    def _begin(self, task: _Task, thread: threading.Thread) -> None:
        self._tasks[thread] = task
        self._n_holding[task.depth] += 1
        self._n_live += 1

    def _end(self, thread: threading.Thread) -> None:
        del self._tasks[thread]
        self._n_live -= 1

    def _run_task(self, task: _Task) -> None:
        try:
            try:
                # A task that outlives the context keeps this gathering's permits and route.
                with self._permits, routed_here(Route(self.run, self.share)):
                    report = task.run()
            finally:
                self._make_room(task)
            # The report may make joblib hand out more tasks, so this thread counts as live until then.
            report()
        finally:
            _ending.add(threading.current_thread())
            with self._lock:
                self._end(threading.current_thread())
                self._look()

    def _make_room(self, task: _Task) -> None:
        """A task holds no data any more: others may begin."""
        try:
            with self._lock:
                self._n_holding[task.depth] -= 1
                self._start_queued()
        except RuntimeError:
            # Not one thread can be started any more, and nobody else is left to run the rest.
            self.cancel_tasks()

    def begin_dispatch(self) -> None:
        """Close no gathering before this thread has handed out its tasks, or waits itself."""
        with self._lock:
            self._dispatching.append(threading.current_thread())

    def end_dispatch(self) -> None:
        with self._lock:
            self._dispatching.remove(threading.current_thread())
            self._look()

    @contextmanager
    def waiting_for_own_tasks(self) -> Iterator[None]:
        """A task that waits for tasks of its own brings no job meanwhile, and needs neither room nor slot."""
        if threading.current_thread() not in self._tasks:
            yield
            return
        with self._permits.lent():
            self._count_waiting_for_own(+1)
            try:
                yield
            finally:
                self._count_waiting_for_own(-1)

    def _count_waiting_for_own(self, change: int) -> None:
        with self._lock:
            self._n_waiting_for_own += change
            self._n_live -= change
            self._start_queued()
            self._look()

    def cancel(self, owner: object) -> None:
        """Forget the tasks of an owner that have not begun, and end the others as soon as they bring jobs or wait."""
        self._cancel(lambda other: other is owner)

    def cancel_tasks(self) -> None:
        """The same for all tasks; fits that belong to none, of threads that somebody else started, go on."""
        self._cancel(lambda owner: owner is not None)

    def cancel_all(self) -> None:
        """The same for all tasks, and for fits that belong to none."""
        self._cancel(lambda owner: True)

    def _cancel(self, is_meant: Callable[[object], bool]) -> None:
        with self._lock:
            abandoned: list[_Task] = []
            for depth, tasks in self._queue.items():
                abandoned += [task for task in tasks if is_meant(task.owner)]
                self._queue[depth] = deque(task for task in tasks if not is_meant(task.owner))
            for task in self._tasks.values():
                task.is_called_off |= is_meant(task.owner)
            cancelled = [waiting for waiting in self._waiting if is_meant(waiting.owner)]
            self._waiting = [waiting for waiting in self._waiting if waiting not in cancelled]
            self._wake(cancelled, error=CancelledError())
            # A training that is of use to somebody else goes on; one that was called off stays so.
            self._is_cancelled |= all(is_meant(waiting.owner) for waiting in self._trained)
        # Searches inside other tasks may wait for tasks that were dropped.
        for task in abandoned:
            task.abandon()

    def _refuse_called_off(self) -> None:
        task = self._tasks.get(threading.current_thread())
        if task is not None and task.is_called_off:
            raise CancelledError("An error elsewhere ended the search.")

    def end(self) -> None:
        """Forget everything, and wait for the tasks that are in the middle of something."""
        if self.pid != os.getpid():
            return
        self.cancel_all()
        for thread in list(self._tasks):
            thread.join(END_SECONDS)

    # --- jobs --------------------------------------------------------------------------------------------------------

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Wait with the jobs of one fit until they are trained."""
        thread = threading.current_thread()
        owner = self._tasks[thread].owner if thread in self._tasks else None
        waiting = _Waiting(self._on_device(jobs), thread, threading.Condition(self._lock), owner)
        with self._permits.lent():
            self._wait(waiting)
        if waiting.error is not None:
            raise waiting.error
        assert waiting.results is not None
        return waiting.results

    def _on_device(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs on the gathering's device."""
        if self.limits.device is None:
            return list(jobs)
        device = resolve_device(self.limits.device)
        # The networks of a fit that cannot be stacked are known by sharing one plan.
        plans = {id(job.plan): replace(job.plan, device=device) for job in jobs}
        return [replace(job, plan=plans[id(job.plan)]) for job in jobs]

    def share(self, table: Table) -> Table:
        """The table, or one of equal content that another fit has brought already."""
        if not isinstance(table, ComparableTable):
            return table
        # To compare large tables takes a while: that is no reason for others to wait.
        with self._comparing:
            alike = self._tables[table.fingerprint()]
            known = next((other for other in alike if table.equals(other)), None)
            if known is None:
                alike.append(table)
            return table if known is None else known

    def _wait(self, waiting: _Waiting) -> None:
        with self._lock:
            self._refuse_called_off()
            self._waiting.append(waiting)
            self._last_arrival = time.monotonic()
            self._bytes_per_task = max(self._bytes_per_task, task_bytes(waiting.jobs))
            if waiting.thread in self._tasks:
                self._n_live -= 1
            elif waiting.thread is not threading.main_thread():
                self._foreign_threads.add(waiting.thread)
            self._start_queued()
            self._look()
            try:
                while not waiting.is_done:
                    if self._waiting[:1] != [waiting]:
                        waiting.called.wait()
                    elif self._is_complete():
                        self._train()
                    else:
                        waiting.called.wait(FOREIGN_PAUSE if self._has_foreign() else LOOK_SECONDS)
            finally:
                # Ctrl-C in the main thread breaks its wait off.
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
                    self._look()

    def _look(self) -> None:
        """Something has happened: have it seen to."""
        self._idle.reset()
        if self._waiting:
            self._waiting[0].called.notify()

    def _has_foreign(self) -> bool:
        return any(waiting.thread in self._foreign_threads for waiting in self._waiting)

    def _is_complete(self) -> bool:
        """Whether no thread can bring another job before the waiting ones have their results."""
        if self._trained:
            # A scorer that is asked during the training may itself wait for threads that fit.
            return self._idle.is_idle()
        here = {waiting.thread for waiting in self._waiting}
        if self._n_live > 0 or not here.issuperset(self._dispatching):
            return self._idle.is_idle([*self._tasks, *self._dispatching])
        if not self._has_foreign():
            return True
        pause = time.monotonic() - self._last_arrival
        self._foreign_threads = {thread for thread in self._foreign_threads if thread.is_alive()}
        return pause >= (FOREIGN_PAUSE if self._foreign_threads <= here else FOREIGN_PATIENCE)

    def _train(self) -> None:
        """Train the jobs of all who wait, with the lock let go meanwhile, and wake them."""
        gathered, self._waiting = self._waiting, []
        # What was called off stays so while another training begins inside it.
        self._is_cancelled &= bool(self._trained)
        self._trained = self._trained + gathered
        self._lock.release()
        results: list[Result] = []
        error: BaseException | None = None
        try:
            results = train(
                [job for waiting in gathered for job in waiting.jobs],
                max_models=self.limits.max_models,
                max_bytes=self.limits.max_bytes,
                n_workers=self.limits.n_workers,
                on_stack=self.on_stack,
                is_cancelled=lambda: self._is_cancelled,
            )
        except BaseException as raised:
            error = raised
        finally:
            self._lock.acquire()
            self._trained = [waiting for waiting in self._trained if waiting not in gathered]
            self._tables.clear()
            self._wake(gathered, results, error)
            self._look()

    def _wake(
        self, gathered: list[_Waiting], results: Sequence[Result] = (), error: BaseException | None = None
    ) -> None:
        remaining = iter(results)
        for waiting in gathered:
            waiting.error = error
            waiting.results = list(islice(remaining, len(waiting.jobs)))
            # It is live from now on, so that no gathering is closed before it has moved on.
            self._n_live += waiting.thread in self._tasks
            waiting.called.notify()


def task_bytes(jobs: Sequence[Job]) -> int:
    """About what the data of a task takes: its encoded table, and as much again for the rows that it came from.

    Of an embedded column the table has a level a row, and the rows a text.
    """
    table = jobs[0].train.table
    of_row = 2 * table.n_columns * jobs[0].plan.dtype.itemsize + table.n_embedded * (CODE_BYTES + TEXT_BYTES)
    return len(table) * of_row + 1
