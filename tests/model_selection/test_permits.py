"""The right to run, and how to tell that nobody makes use of it."""

import threading
import time

import pytest

from skdl.model_selection import permits
from skdl.model_selection.permits import IdleClock, Permits, _seconds_of


@pytest.fixture
def clocks(monkeypatch):
    """The time, and the time on a processor, as the test sets them."""
    times = {"monotonic": 100.0, "process_time": 7.0}
    for name in times:
        monkeypatch.setattr(permits.time, name, lambda name=name: times[name])
    return times


def test_idle__when_the_process_has_not_worked_for_a_while__then_so(clocks):
    clock = IdleClock()
    for _ in range(2):
        clocks["monotonic"] += 0.1
        assert not clock.is_idle()
    clocks["monotonic"] += 0.15
    assert clock.is_idle()


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_idle__when_the_process_works__then_not(clocks, share):
    clock = IdleClock()
    for _ in range(50):
        clocks["monotonic"] += 0.1
        clocks["process_time"] += 0.1 * share
        assert not clock.is_idle()


def test_idle__when_work_ends_or_something_happens__then_the_wait_begins_anew(clocks):
    clock = IdleClock()
    clocks["monotonic"] += 0.25
    clocks["process_time"] += 0.2
    assert not clock.is_idle()
    clocks["monotonic"] += 0.2
    assert not clock.is_idle()
    clock.reset()
    clocks["monotonic"] += 0.2
    assert not clock.is_idle()
    clocks["monotonic"] += 0.2
    assert clock.is_idle()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_idle__when_the_process_works_but_the_threads_do_not__then_after_some_patience(clocks, monkeypatch, share):
    seconds = {"worked": 3.0}
    monkeypatch.setattr(permits, "_seconds_of", lambda threads: seconds["worked"])
    clock = IdleClock(patience=0.95)
    idle = []
    for _ in range(15):
        clocks["monotonic"] += 0.1
        clocks["process_time"] += 0.1
        seconds["worked"] += 0.1 * share
        idle.append(clock.is_idle([]))
        assert not IdleClock(patience=0.95).is_idle()
    # What the threads had worked before the first look is seen as work.
    assert idle == ([False] * 10 + [True] * 5 if share == 0 else [False] * 15)


def test_seconds_of_threads_are_those_that_they_work():
    begun, ended = threading.Event(), threading.Event()

    def work():
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            sum(range(1000))
        begun.set()
        ended.wait(10)

    working, waiting = threading.Thread(target=work), threading.Thread(target=ended.wait, args=(10,))
    for thread in (working, waiting):
        thread.start()
    begun.wait(10)
    assert _seconds_of([working]) >= 0.1 > _seconds_of([waiting])
    ended.set()
    for thread in (working, waiting):
        thread.join()
    assert _seconds_of([working, waiting]) == 0


def test_slots__when_lent__then_the_threads_own_comes_back_and_no_other():
    taken = Permits(1)
    with taken:
        with taken.lent(), taken:
            pass
        assert taken._holders == {threading.current_thread()}
    with taken.lent():
        pass
    assert taken._holders == set()


def test_slots__when_all_are_taken_by_one_that_works__then_the_next_waits_for_its_end():
    taken, order = Permits(1), []

    def work():
        with taken:
            order.append("next")

    with taken:
        thread = threading.Thread(target=work)
        thread.start()
        end = time.process_time() + 0.6
        while time.process_time() < end:
            sum(range(1000))
        order.append("first")
    thread.join(5)
    assert order == ["first", "next"]


def test_slots__when_the_one_who_has_it_only_waits__then_another_gets_one_on_top():
    taken, done = Permits(1), threading.Event()

    def work():
        with taken:
            done.set()

    with taken:
        threading.Thread(target=work).start()
        assert done.wait(5)
    with taken:
        pass
