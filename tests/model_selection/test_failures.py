"""A candidate that fails fails alone; errors and Ctrl-C leave no thread waiting."""

import threading
import time
import warnings
from dataclasses import dataclass
from multiprocessing import TimeoutError as JoblibTimeoutError
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline
from torch.nn import functional as F

import skdl
from skdl.estimators.monitor import FitMonitor
from skdl.model_selection import gathering

RATES = [0.005, 0.02, 0.1]

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite"),
]


class OwnError(Exception):
    pass


def fails_at_once(output, target):
    raise OwnError("at once")


class FailsLater:
    """A loss that fails in the second epoch."""

    def __init__(self):
        self.n_calls = 0

    def __call__(self, output, target):
        self.n_calls += 1
        if self.n_calls > 4:
            raise OwnError("later")
        return F.cross_entropy(output, target, reduction="none")


@dataclass
class Unhashable:
    """A loss without a hash, as dataclasses are."""

    a: int = 0

    def __call__(self, output, target):
        return F.cross_entropy(output, target, reduction="none")


def failing_activation(x):
    raise OwnError("activation")


def failing_scorer(estimator, X, y):
    raise OwnError("scorer")


class FailingCallback:
    """Fails at the end of an epoch; "begin", "end", "setup"."""

    def __init__(self, where):
        self.where = where

    def setup(self, estimator, context):
        if self.where == "setup":
            raise OwnError("callback")

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        if self.where == "begin" and context.task_name == "epoch":
            raise OwnError("callback")

    def on_fit_task_end(self, estimator, context):
        if self.where == "end" and context.task_name == "epoch":
            raise OwnError("callback")


FAILURES = {
    "parameter of the wrong kind": {"learning_rate": -1.0},
    "two classes in three": {"class_weight": {5: 1.0}},
    "hidden layers": {"hidden_layer_sizes": (0,)},
    "bfloat16 without a GPU": {"dtype": "bfloat16"},
    "too few rows": {"early_stopping": True, "validation_fraction": 0.999},
    "loss at once": {"loss": fails_at_once},
    "loss later": {"loss": FailsLater()},
    "loss without a hash": {"loss": Unhashable()},
    "activation": {"activation": failing_activation},
    "scorer": {"early_stopping": True, "scoring": failing_scorer},
    "diverges at once": {"learning_rate": 1e300},
}


def with_candidate(net, candidate):
    """A grid of sane candidates with another in their midst."""
    grid = [{name: [value] for name, value in {"learning_rate": rate}.items()} for rate in RATES]
    grid.insert(1, {name: [value] for name, value in candidate.items()})
    return GridSearchCV(net(), grid, cv=2, refit=False)


@pytest.mark.parametrize("name", FAILURES)
def test_error_score_nan__when_a_candidate_fails__then_as_without(net, data, name):
    plain = with_candidate(net, FAILURES[name]).fit(*data).cv_results_

    with skdl.train_together():
        together = with_candidate(net, FAILURES[name]).fit(*data).cv_results_

    assert_array_equal(together["mean_test_score"], plain["mean_test_score"])
    assert np.isfinite(together["mean_test_score"][[0, 2, 3]]).all()


@pytest.mark.parametrize("n_cpus", [1, 2])
@pytest.mark.parametrize("where", ["setup", "begin", "end"])
def test_error_score_nan__when_a_callback_fails__then_the_others_have_scores(net, data, where, n_cpus, monkeypatch):
    # On one processor all three fits share a stack.
    monkeypatch.setattr("joblib.cpu_count", lambda *_, **__: n_cpus)
    failing = net(learning_rate=0.02).set_callbacks(FailingCallback(where))
    estimators = [net(learning_rate=0.01), failing, net(learning_rate=0.1)]

    def score(estimator):
        return cross_val_score(estimator, *data, cv=2, error_score=np.nan)

    def run():
        return joblib.Parallel(n_jobs=1)(joblib.delayed(caught(score))(estimator) for estimator in estimators)

    plain = run()
    with skdl.train_together():
        together = run()

    assert [type(outcome) for outcome in together] == [type(outcome) for outcome in plain]
    for one, other in zip(plain, together, strict=True):
        if not isinstance(one, Exception):
            assert_array_equal(other, one)


def caught(function):
    def call(*args):
        try:
            return function(*args)
        except Exception as error:
            return error

    return call


@pytest.mark.parametrize("name", ["parameter of the wrong kind", "loss at once", "loss later", "activation", "scorer"])
def test_error_score_raise__when_a_candidate_fails__then_its_own_error(net, data, name):
    search = with_candidate(net, FAILURES[name]).set_params(error_score="raise")
    with pytest.raises(Exception) as plain:
        search.fit(*data)

    with pytest.raises(plain.type, match=str(plain.value)[:20].replace("(", r"\(")), skdl.train_together():
        search.fit(*data)


def test_error_score_raise__when_caught_inside_the_context__then_it_goes_on(net, data):
    expected = cross_val_score(net(), *data, cv=3)

    with skdl.train_together():
        for name in ["parameter of the wrong kind", "loss at once", "scorer"]:
            with pytest.raises(Exception):  # noqa: B017
                with_candidate(net, FAILURES[name]).set_params(error_score="raise").fit(*data)
            assert_array_equal(cross_val_score(net(), *data, cv=3), expected)


def test_error_score_raise__when_in_a_scorer_of_the_search__then_its_own_error(net, data):
    with pytest.raises(OwnError), skdl.train_together():
        cross_val_score(net(), *data, cv=4, scoring=failing_scorer, error_score="raise")


@pytest.fixture
def restarted(monkeypatch):
    """The fits that have started again, once each time."""
    fits, on_restart = [], FitMonitor.on_restart

    def noted(monitor):
        fits.append(monitor)
        on_restart(monitor)

    monkeypatch.setattr(FitMonitor, "on_restart", noted)
    return fits


def trained_together(*tasks):
    """What functions give in one context, or the errors that they raise."""

    def outcome(task):
        try:
            return task()
        except OwnError as error:
            return error

    with skdl.train_together():
        return joblib.Parallel()(joblib.delayed(outcome)(task) for task in tasks)


class StopsThenFails(FailingCallback):
    """Ends a fit after two epochs, or fails at the begin of the third one."""

    def __init__(self, where):
        super().__init__(where)
        self.begun = []

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch":
            self.begun.append(context.task_id)
            if self.where == "begin" and context.task_id == 2:
                raise OwnError("callback")

    def on_fit_task_end(self, estimator, context):
        return self.where == "stop" and context.task_name == "epoch" and context.task_id == 1


def test_stack_that_breaks__then_a_callback_that_stopped_a_fit_stops_it_again(restarted, net, data):
    def stopped():
        return net(max_epochs=5).set_callbacks(StopsThenFails("stop")).fit(*data)

    def fails():
        return net(max_epochs=5).set_callbacks(StopsThenFails("begin")).fit(*data)

    first, _, second, _ = trained_together(stopped, fails, stopped, fails)
    assert restarted
    assert first.n_iter_ == second.n_iter_ == stopped().n_iter_ == 2


def test_stack_that_breaks__then_a_callback_that_failed_hears_no_epoch_twice(restarted, net, data):
    callback = StopsThenFails("begin")
    failed, *_ = trained_together(
        lambda: net(max_epochs=5).set_callbacks(callback).fit(*data),
        *[lambda: net(max_epochs=5).fit(*data)] * 3,
    )
    assert restarted
    assert str(failed) == "callback"
    assert callback.begun == [0, 1, 2]


def test_stack_that_breaks__then_imputers_hide_the_same_cells_again(restarted):
    X = np.random.default_rng(0).normal(size=(80, 4))
    X[:, 3] = X[:, 0] * X[:, 1]
    X[::3, 3] = np.nan

    def imputer():
        return skdl.DeepImputer(max_epochs=4, hidden_layer_sizes=(8,), n_members=1, random_state=0)

    expected = imputer().fit(X).transform(X)
    imputed, failed, again = trained_together(
        lambda: imputer().fit(X).transform(X),
        lambda: imputer().set_callbacks(StopsThenFails("begin")).fit(X),
        lambda: imputer().fit(X).transform(X),
    )
    assert restarted
    assert isinstance(failed, OwnError)
    assert_allclose(imputed, expected, rtol=1e-5)
    assert_allclose(again, expected, rtol=1e-5)


def test_error_score_nan__when_a_fit_fails_halfway__then_others_callbacks_hear_every_epoch_once(net, data):
    """A stack is trained again without the fit that fails, but the others' callbacks have heard of its epochs."""
    heard = []

    class Recorder(FailingCallback):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch":
                heard.append(context.task_id)

    class FailsInTheScorer:
        n_calls = 0

        def __call__(self, estimator, X, y):
            self.n_calls += 1
            if self.n_calls == 2:
                raise OwnError("scorer")
            return 0.5

    estimators = [
        net(early_stopping=True).set_callbacks(Recorder(None)),
        net(early_stopping=True, scoring=FailsInTheScorer()),
    ]
    with skdl.train_together():
        joblib.Parallel()(joblib.delayed(caught(lambda e: e.fit(*data)))(estimator) for estimator in estimators)

    assert heard == [0, 1, 2]


@pytest.mark.parametrize("rate", [1e6, 1e30, 1e300])
@pytest.mark.parametrize("setting", [{"activation": "relu"}, {"normalization": "batch"}, {"optimizer": "sgd"}], ids=str)
def test_divergence__then_neighbours_are_equal_to_the_last_bits(networks, net, data, rate, setting):
    def fit(rate):
        return net(**setting, max_epochs=5, learning_rate=rate).fit(*data)

    def run(rates):
        with skdl.train_together():
            return joblib.Parallel()(joblib.delayed(caught(fit))(rate) for rate in rates)

    with_diverging = run([0.01, 0.02, rate, 0.03, 0.1])
    with_sane = run([0.01, 0.02, 0.05, 0.03, 0.1])

    for i in [0, 1, 3, 4]:
        (one,), (other,) = networks(with_sane[i]), networks(with_diverging[i])
        # Bit-equal only where the stack keeps its form: a row's place in it decides how its sums are split.
        assert_allclose(other, one, rtol=0, atol=1e-14 * np.abs(one).max())


@pytest.mark.parametrize("error_score", [np.nan, "raise"])
def test_divergence__when_in_a_search__then_as_without(net, data, error_score):
    def run():
        search = GridSearchCV(
            net(optimizer="sgd"), {"learning_rate": [0.01, 1e300, 0.1]}, cv=2, error_score=error_score, refit=False
        )
        return caught(lambda: search.fit(*data).cv_results_["mean_test_score"])()

    plain = run()
    with skdl.train_together():
        together = run()

    if error_score == "raise":
        assert type(together) is type(plain) is ValueError
        assert str(together) == str(plain)
    else:
        assert np.isnan(together[1]) and np.isfinite(together[[0, 2]]).all()
        assert_array_equal(together, plain)


def test_memory_error__then_halves_are_tried_again(monkeypatch, check, net, data):
    from skdl.engine import train as engine

    def runs_out(jobs, *args):
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("no room")
        return train_stack(jobs, *args)

    train_stack = engine.train_stack
    monkeypatch.setattr(engine, "train_stack", runs_out)

    report = check(lambda: GridSearchCV(net(), {"learning_rate": RATES}, cv=3).fit(*data))

    assert sum(stack.n_models for stack in report) == 10
    assert max(stack.n_models for stack in report) <= 2


# --- errors that end everything --------------------------------------------------------------------------------------


class Fits(ClassifierMixin, BaseEstimator):
    """Searches in its fit, or fails in it after the others have begun."""

    def __init__(self, net=None, fails=False):
        self.net, self.fails = net, fails

    def __sklearn_clone__(self):
        return self

    def fit(self, X, y):
        if self.fails:
            # The others' inner tasks stand in the queue by now.
            time.sleep(0.5)
            raise OwnError("fit")
        grid = {"learning_rate": list(np.logspace(-3, -1, 10))}
        self.search_ = GridSearchCV(self.net, grid, cv=3).fit(X, y)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.search_.predict(X)


class Listens:
    """A callback that does nothing."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass


@pytest.mark.parametrize("max_models", [1, 2, 100])
def test_error__when_other_tasks_search_on_their_own__then_their_inner_tasks_are_not_lost(net, data, max_models):
    """An error cancels the queue; those who wait for their queued tasks must hear of it."""
    patient = Fits(net(max_epochs=2))

    with pytest.raises(OwnError), skdl.train_together(max_models=max_models):
        joblib.Parallel()(joblib.delayed(e.fit)(*data) for e in [patient, Fits(fails=True)])
    # Fixture: no thread is left.


class Waits(BaseEstimator):
    """A transformer whose fit goes on when it is told to, or fails as soon as another one waits."""

    waits, goes_on = threading.Event(), threading.Event()

    def __init__(self, fails=False):
        self.fails = fails

    def fit(self, X, y=None):
        if self.fails:
            self.waits.wait(10)
            raise OwnError
        self.waits.set()
        self.goes_on.wait(10)
        return self

    def transform(self, X):
        return X

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.parametrize("inner", [False, True])
def test_error__when_other_tasks_are_at_work__then_they_train_no_more(net, data, inner, task_threads, wait_until):
    endless = net(max_epochs=10**8)
    model = GridSearchCV(endless, {"learning_rate": [0.1]}, cv=2) if inner else endless
    pipeline = Pipeline([("waits", Waits()), ("model", model)])
    rows = np.arange(len(data[1]))
    search = GridSearchCV(pipeline, {"waits__fails": [True, False]}, cv=[(rows, rows)], error_score="raise")
    with pytest.raises(OwnError), skdl.train_together():
        search.fit(*data)

    assert len(task_threads()) == 1
    Waits.goes_on.set()
    assert wait_until(lambda: not task_threads(), 5)
    Waits.waits.clear()
    Waits.goes_on.clear()


def test_error__when_in_the_body_of_the_context__then_it_passes(net, data):
    def body():
        with skdl.train_together():
            net().fit(*data)
            raise OwnError

    with pytest.raises(OwnError):
        body()


def test_error__when_an_inner_search_fails_and_is_caught__then_outer_ones_go_on(net, data):
    def task(i):
        if i % 2:
            caught(lambda: cross_val_score(net(), *data, cv=4, scoring=failing_scorer, error_score="raise"))()
        return cross_val_score(net(), *data, cv=3).tolist()

    expected = task(0)
    with skdl.train_together(max_models=3):
        assert joblib.Parallel()(joblib.delayed(task)(i) for i in range(8)) == [expected] * 8


def test_error__when_in_a_context_of_a_task__then_outer_ones_go_on(net, data):
    """A task that opens a context of its own joins the outer one; an error in it is its own affair."""

    def task(i):
        with skdl.train_together():
            if i % 2:
                caught(lambda: cross_val_score(net(), *data, cv=4, scoring=failing_scorer, error_score="raise"))()
            return cross_val_score(net(), *data, cv=3).tolist()

    expected = cross_val_score(net(), *data, cv=3).tolist()
    with skdl.train_together(max_models=3):
        assert joblib.Parallel()(joblib.delayed(task)(i) for i in range(8)) == [expected] * 8


def test_error__when_the_iterable_of_tasks_fails__then_it_is_raised_and_the_context_goes_on(net, data):
    def tasks():
        for _ in range(3):
            yield joblib.delayed(net().fit)(*data)
        raise OwnError("iterable")

    expected = cross_val_score(net(), *data, cv=3)
    with skdl.train_together():
        with pytest.raises(OwnError):
            joblib.Parallel()(tasks())
        assert_array_equal(cross_val_score(net(), *data, cv=3), expected)


def test_error__when_no_thread_can_be_started__then_it_is_raised_and_the_context_goes_on(monkeypatch, net, data):
    start = threading.Thread.start
    n_tasks = []

    def refuses(thread):
        if thread.name.startswith("skdl-task"):
            n_tasks.append(1)
            if len(n_tasks) == 4:
                raise RuntimeError("can't start new thread")
        return start(thread)

    expected = cross_val_score(net(), *data, cv=6)
    monkeypatch.setattr(threading.Thread, "start", refuses)
    with skdl.train_together():
        caught(lambda: cross_val_score(net(), *data, cv=6))()
        assert_array_equal(cross_val_score(net(), *data, cv=6), expected)


def test_error__when_timeout_of_joblib__then_raised_and_the_context_goes_on(net, data):
    expected = cross_val_score(net(), *data, cv=3)

    with skdl.train_together():
        with pytest.raises(JoblibTimeoutError):
            joblib.Parallel(timeout=0.05)(joblib.delayed(time.sleep)(0.5) for _ in range(2))
        assert_array_equal(cross_val_score(net(), *data, cv=3), expected)


def test_error__when_the_training_itself_breaks__then_every_fit_hears_of_it(monkeypatch, net, data):
    def breaks(jobs, **settings):
        raise OwnError("engine")

    monkeypatch.setattr(gathering, "train", breaks)

    with skdl.train_together(), pytest.raises(ValueError, match="All the 3 fits failed"):
        cross_val_score(net(), *data, cv=3)


# --- nothing is left -------------------------------------------------------------------------------------------------


def test_context__then_thread_counts_of_torch_come_back(two_threads, net, data):
    def counts():
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return [torch.get_num_threads(), *seen]

    before = counts()
    with skdl.train_together():
        GridSearchCV(net(), {"hidden_layer_sizes": [(2,), (4,), (8,)], "learning_rate": RATES}, cv=3).fit(*data)
        inside = counts()
    assert before == inside == counts() == [2, 2]


def test_context__then_gradient_mode_and_backend_come_back(net, data):
    backend = joblib.Parallel()._backend

    with skdl.train_together():
        cross_val_score(net(), *data, cv=3)
        assert torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert type(joblib.Parallel()._backend) is type(backend)


class Quiet(skdl.MLPClassifier):
    """Silences warnings around its fit, as much user code does."""

    def fit(self, X, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            time.sleep(0.002 * (X[0, 0] > 0))
            super().fit(X, y)
            time.sleep(0.002 * (X[0, 1] > 0))
        return self


def test_context__when_tasks_set_warning_filters__then_the_callers_come_back(net, data):
    """``catch_warnings`` is not meant for threads: they give the filters back in another order than they took them."""
    estimator = Quiet(**net().get_params())
    with warnings.catch_warnings():
        before = list(warnings.filters)

        with skdl.train_together():
            for _ in range(4):
                cross_val_score(estimator, *data, cv=8)

        assert list(warnings.filters) == before


@pytest.mark.parametrize("category", [FitFailedWarning, ConvergenceWarning])
def test_warning__when_a_candidate_gives_one__then_as_without(net, data, category):
    rates = [0.01, 1e300] if category is FitFailedWarning else [0.01]
    # Three epochs at a rate that overflows in the second.
    losses = {"loss": [OverflowsLater()]} if category is ConvergenceWarning else {}

    def run():
        with warnings.catch_warnings(record=True) as caught_ones:
            warnings.simplefilter("always")
            GridSearchCV(net(optimizer="sgd"), {"learning_rate": rates, **losses}, cv=2, refit=False).fit(*data)
        return {warning.category for warning in caught_ones}

    plain = run()
    assert category in plain
    with skdl.train_together():
        assert run() == plain


class OverflowsLater:
    def __init__(self):
        self.n_calls = 0

    def __call__(self, output, target):
        self.n_calls += 1
        scale = float("inf") if self.n_calls > 4 else 1.0
        return F.cross_entropy(output, target, reduction="none") * scale


def test_callbacks__when_on_the_estimator__then_every_fit_hears_each_epoch(net, data):
    heard = []

    class Recorder(Listens):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch":
                heard.append(context.task_id)

    def run():
        heard.clear()
        cross_validate(net().set_callbacks(Recorder()), *data, cv=3)
        return sorted(heard)

    plain = run()
    with skdl.train_together():
        assert run() == plain == sorted([0, 1, 2] * 3)


def test_callbacks__when_scikit_learn_is_configured__then_they_and_scorers_know_of_it(net, data):
    heard = []

    class Recorder(Listens):
        def on_fit_task_begin(self, estimator, context):
            heard.append(get_config()["transform_output"])

        def on_fit_task_end(self, estimator, context):
            heard.append(get_config()["transform_output"])

    def scorer(estimator, X, y):
        heard.append(get_config()["transform_output"])
        return 0.5

    networks = {"hidden_layer_sizes": [(3,), (4,), (5,)]}
    search = GridSearchCV(net(early_stopping=True, scoring=scorer).set_callbacks(Recorder()), networks, cv=2)
    with config_context(transform_output="pandas"), skdl.train_together():
        search.fit(*data)

    assert set(heard) == {"pandas"}


@pytest.mark.parametrize("depth", [0, 1, None])
def test_callbacks__when_progress_bar_on_the_search__then_as_without(capsys, check, net, data, depth):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    def run():
        search = GridSearchCV(net(), {"learning_rate": RATES}, cv=2)
        return search.set_callbacks(ProgressBar(max_propagation_depth=depth)).fit(*data)

    check(run)
    assert "GridSearchCV" in capsys.readouterr().out


def test_callbacks__when_one_stops_a_fit__then_others_go_on(check, net, data):
    class Stops(Listens):
        def on_fit_task_end(self, estimator, context):
            return context.task_name == "epoch" and estimator.learning_rate == 0.02 and context.task_id == 0

    check(lambda: GridSearchCV(net().set_callbacks(Stops()), {"learning_rate": RATES}, cv=2).fit(*data))
