"""What the tests of ``train_together`` share: a hard time limit, a tiny network, and comparison with the plain run."""

import faulthandler
import signal
import sys
import threading
import time
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.datasets import make_classification, make_regression
from torch.nn.utils import parameters_to_vector

import skdl
from skdl.engine import dispatch
from skdl.engine.train import train
from skdl.estimators.base import NetworkEstimator
from skdl.model_selection import together

SECONDS = 30


class HungError(BaseException):
    """Nobody may catch this by ``except Exception``."""


@contextmanager
def _limit(seconds=SECONDS):
    """Break off what takes longer, in the main thread, wherever it waits; again every 5 s if it goes on waiting."""

    def ring(*_):
        faulthandler.dump_traceback(sys.__stderr__)
        raise HungError(f"not done after {seconds} s")

    handler = signal.signal(signal.SIGALRM, ring)
    rest, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if rest:
            signal.setitimer(signal.ITIMER_REAL, max(rest - (time.monotonic() - started), 0.1), 5)


def _task_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("skdl-task")]


def _wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Every test of this folder has a time limit."""
    with _limit():
        return (yield)


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """Every test leaves no runner and no thread."""
    yield
    routes, active = list(dispatch._routes), list(together._active)
    dispatch._routes[1:] = []
    together._active.clear()
    ended = _wait_until(lambda: not _task_threads(), 5)
    for thread in _task_threads():
        thread.name = "left over"
    assert [route.submit for route in routes] == [train]
    assert active == []
    assert ended, "threads are left over"


@pytest.fixture
def limit():
    return _limit


@pytest.fixture
def wait_until():
    return _wait_until


@pytest.fixture
def task_threads():
    return _task_threads


TINY = {
    "hidden_layer_sizes": (8,),
    "max_epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.02,
    "n_members": 1,
    "early_stopping": False,
    "numeric_embedding": None,
    "dtype": "float64",
    "device": "cpu",
    "random_state": 0,
}


@pytest.fixture(scope="session")
def net():
    """Makes a tiny classifier."""
    return lambda **parameters: skdl.MLPClassifier(**{**TINY, **parameters})


@pytest.fixture(scope="session")
def regressor():
    """Makes a tiny regressor."""
    return lambda **parameters: skdl.MLPRegressor(**{**TINY, **parameters})


@pytest.fixture(scope="session")
def data():
    return make_classification(60, 4, n_informative=3, n_redundant=0, random_state=0)


@pytest.fixture(scope="session")
def many_classes():
    return make_classification(60, 4, n_informative=3, n_redundant=0, n_classes=3, n_clusters_per_class=1)


@pytest.fixture(scope="session")
def values():
    return make_regression(60, 4, noise=5.0, random_state=0)


def _networks(thing, found=None, seen=None):
    """The parameters of every fitted network inside."""
    found = [] if found is None else found
    # Kept alive, so that no later thing has the id of an earlier one.
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return found
    seen[id(thing)] = thing
    if isinstance(thing, NetworkEstimator):
        if hasattr(thing, "network_"):
            found.append(parameters_to_vector(thing.network_.parameters()).detach().numpy())
    elif isinstance(thing, BaseEstimator):
        _networks(dict(sorted(vars(thing).items())), found, seen)
    elif isinstance(thing, dict):
        for value in thing.values():
            _networks(value, found, seen)
    elif isinstance(thing, list | tuple) or (isinstance(thing, np.ndarray) and thing.dtype == object):
        for value in thing:
            _networks(value, found, seen)
    return found


def _assert_same(scores, others):
    """Equal to the last bit, in everything but times and what is fitted."""
    assert type(scores) is type(others)
    if isinstance(scores, dict):
        assert scores.keys() == others.keys()
        for key in scores:
            if "time" not in str(key) and key != "estimator":
                _assert_same(scores[key], others[key])
    elif isinstance(scores, list | tuple):
        assert len(scores) == len(others)
        for one, other in zip(scores, others, strict=True):
            _assert_same(one, other)
    elif isinstance(scores, BaseEstimator):
        pass
    else:
        assert_array_equal(scores, others)


def _outcome(thing):
    """Scores and choices of a fitted search, or whatever a function has returned."""
    names = ("cv_results_", "best_params_", "best_index_", "best_score_", "ranking_", "support_", "n_features_")
    if isinstance(thing, BaseEstimator):
        return {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    return thing


def _assert_equal_runs(plain, together, rtol=1e-10):
    _assert_same(_outcome(plain), _outcome(together))
    expected, actual = _networks(plain), _networks(together)
    assert len(expected) == len(actual)
    for one, other in zip(expected, actual, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert_allclose(other, one, rtol=0, atol=rtol * np.abs(one).max())


@pytest.fixture(scope="session")
def networks():
    return _networks


@pytest.fixture(scope="session")
def assert_equal_runs():
    return _assert_equal_runs


@pytest.fixture
def check(assert_equal_runs):
    """Asserts that ``run()`` gives the same plain and together, and returns the stacks that it was trained in."""

    def assert_same_together(run, rtol=1e-10, **limits):
        # No worker processes, which take seconds to start.
        with joblib.parallel_config(backend="sequential"):
            plain = run()
        with skdl.train_together(**limits) as together_run:
            together = run()
        assert_equal_runs(plain, together, rtol)
        return together_run.report_

    return assert_same_together


@pytest.fixture
def in_threads():
    """Runs functions in threads of their own and returns what they give, or raises what one of them raises."""

    def run(*functions, seconds=20):
        outcomes = [None] * len(functions)

        def call(i):
            try:
                outcomes[i] = functions[i]()
            except BaseException as error:
                outcomes[i] = error

        threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(len(functions))]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in threads), "threads wait for ever"
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes

    return run
