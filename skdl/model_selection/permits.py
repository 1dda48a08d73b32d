"""Permits to run for so many threads at a time, and how to tell that all of those threads wait for something else."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

#: Seconds without work of the process after which all threads are taken to be waiting.
IDLE_SECONDS = 0.3
#: Seconds from one look at that to the next.
LOOK_SECONDS = 0.1
#: Share of a processor below which something does not work.
IDLE_SHARE = 0.05
#: Seconds after which threads that have permits and do not work are taken to be waiting although the process works:
#: they may as well wait for threads of a library, and more of those at once take memory.
PERMIT_PATIENCE = 5.0


class LastWork:
    """When the seconds that something spends on a processor last grew."""

    def __init__(self, seconds: float) -> None:
        self._worked_at = self._looked_at = time.monotonic()
        self._seconds = seconds

    def idle_for(self, seconds: float) -> float:
        """Seconds since then, by those that it has spent on a processor until now."""
        now = time.monotonic()
        if seconds - self._seconds > IDLE_SHARE * (now - self._looked_at):
            self._worked_at = now
        self._looked_at, self._seconds = now, seconds
        return now - self._worked_at


class IdleClock:
    """Tells when this process, or some of its threads, have not worked for a while.

    A thread that waits for a lock or for another thread cannot be told from one that is at work, but the time that
    it spends on a processor can.

    Parameters
    ----------
    patience : float
        Seconds after which the threads count as idle, whatever the others do: something may always be at work, such as
        a progress bar.
    """

    def __init__(self, patience: float = math.inf) -> None:
        self.patience = patience
        self.reset()

    def reset(self) -> None:
        """Something has happened."""
        self._process, self._threads = LastWork(time.process_time()), LastWork(0.0)

    def is_idle(self, threads: Iterable[threading.Thread] | None = None) -> bool:
        """To be asked every :data:`LOOK_SECONDS` or so, of the process alone or of threads as well."""
        if self._process.idle_for(time.process_time()) >= IDLE_SECONDS:
            return True
        return threads is not None and self._threads.idle_for(_seconds_of(threads)) >= self.patience


def _seconds_of(threads: Iterable[threading.Thread]) -> float:
    """Seconds that threads have spent on a processor; none of those that have ended, or if the system does not say."""
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    if clock_of is None:
        return 0.0
    return sum(time.clock_gettime(clock_of(thread.ident)) for thread in threads if thread.is_alive())


class Permits:
    """The right to run, for so many threads at a time.

    When the threads that have it only wait, perhaps for one that wants it, another one gets it on top.
    """

    def __init__(self, n_permits: int) -> None:
        self._n_permits = n_permits
        self._holders: set[threading.Thread] = set()
        self._freed = threading.Condition()
        #: One for all who wait, so that they do not all lose patience at once.
        self._clock = IdleClock(PERMIT_PATIENCE)

    def acquire(self) -> None:
        with self._freed:
            while len(self._holders) >= self._n_permits and not self._clock.is_idle(self._holders):
                self._freed.wait(LOOK_SECONDS)
            self._holders.add(threading.current_thread())
            self._clock.reset()

    def release(self) -> None:
        with self._freed:
            self._holders.discard(threading.current_thread())
            self._clock.reset()
            self._freed.notify()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Without this thread's permit, if it has one."""
        is_lent = threading.current_thread() in self._holders
        if is_lent:
            self.release()
        try:
            yield
        finally:
            if is_lent:
                self.acquire()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
