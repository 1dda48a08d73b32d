"""Permits to run for so many threads at a time, and how to tell that all of those threads wait for something else."""

from __future__ import annotations

import threading
import time

#: Seconds without work after which all threads are taken to be waiting, and how often that is looked at.
IDLE_SECONDS, LOOK_SECONDS = 0.3, 0.1
#: Share of a processor below which a process does not work.
IDLE_SHARE = 0.05


class IdleClock:
    """Tells when this process has not worked for a while.

    A thread that waits for a lock or for another thread cannot be told from one that is at work, but the time that
    the process spends on a processor can.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Something has happened."""
        self._busy = self._looked = time.monotonic()
        self._worked = time.process_time()

    def is_idle(self) -> bool:
        """To be asked every :data:`LOOK_SECONDS` or so."""
        now, worked = time.monotonic(), time.process_time()
        if worked - self._worked > IDLE_SHARE * (now - self._looked):
            self._busy = now
        self._looked, self._worked = now, worked
        return now - self._busy >= IDLE_SECONDS


class Permits:
    """The right to run, for so many threads at a time.

    When the threads that have it only wait, perhaps for one that wants it, another one gets it on top.
    """

    def __init__(self, n_permits: int) -> None:
        self._n_free = n_permits
        self._freed = threading.Condition()

    def acquire(self) -> None:
        with self._freed:
            clock = IdleClock()
            while self._n_free <= 0 and not clock.is_idle():
                self._freed.wait(LOOK_SECONDS)
            self._n_free -= 1

    def release(self) -> None:
        with self._freed:
            self._n_free += 1
            self._freed.notify()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
