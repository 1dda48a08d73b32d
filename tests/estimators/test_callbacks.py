"""scikit-learn's callbacks on a fit: one task per epoch."""

import os
import pickle
import signal

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import make_classification
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from skdl import MLPClassifier, MLPRegressor

SMALL = {
    "hidden_layer_sizes": (8,),
    "max_epochs": 6,
    "learning_rate": 0.02,
    "early_stopping": False,
    "n_members": 1,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def data():
    return make_classification(90, 5, random_state=0)


class Recorder:
    """Notes the tasks of a fit, and at the end of epoch ``last`` does ``then()`` and returns what it gives."""

    def __init__(self, last=None, then=lambda: None):
        self.last, self.then = last, then
        self.begun, self.ended, self.fitted, self.shown = [], [], [], []

    def setup(self, estimator, context):
        self.begun.append("setup")

    def teardown(self, estimator, context):
        self.ended.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.begun.append((context.task_name, context.task_id))
        self.shown.append((X, y, metadata))

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.ended.append((context.task_name, context.task_id))
        if context.task_name != "epoch":
            return None
        self.fitted.append(fitted_estimator)
        return self.then() if context.task_id + 1 == self.last else None


def interrupt():
    # A runner of parallel tests may have switched Ctrl-C off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)


def epochs(tasks):
    return [number for name, number in tasks if name == "epoch"]


def test_every_epoch_is_a_task(data):
    recorder = Recorder()
    weight = np.arange(90) + 1.0
    model = MLPClassifier(**SMALL).set_callbacks(recorder).fit(*data, sample_weight=weight)
    assert recorder.begun[0] == "setup" and recorder.ended[-1] == "teardown"
    assert epochs(recorder.begun[1:]) == epochs(recorder.ended[:-1]) == list(range(model.n_iter_))
    assert recorder.begun[1] == ("fit", 0) and recorder.ended[-2] == ("fit", 0)
    for X, y, metadata in recorder.shown:
        assert X is data[0] and y is data[1] and metadata["sample_weight"] is weight


@pytest.mark.parametrize("settings", [{"early_stopping": True, "learning_rate": 0.5}, {"n_members": 3}])
def test_number_of_epoch_tasks_is_n_iter(data, settings):
    recorder = Recorder()
    settings = SMALL | {"max_epochs": 40, "n_iter_no_change": 2} | settings
    model = MLPClassifier(**settings).set_callbacks(recorder).fit(*data)
    assert epochs(recorder.ended[:-1]) == list(range(model.n_iter_))
    assert model.early_stopping is False or model.n_iter_ < 40


def test_epochs_of_an_ensemble_with_its_own_loss_are_counted_once(data):
    # Networks whose loss is a user's function cannot be trained side by side.
    recorder = Recorder()
    model = MLPClassifier(**SMALL | {"n_members": 2}, loss=lambda z, t: F.cross_entropy(z, t, reduction="none"))
    model.set_callbacks(recorder).fit(*data)
    assert epochs(recorder.ended[:-1]) == list(range(model.n_iter_))


def test_fitted_estimator_of_an_epoch_predicts_as_of_that_epoch(data):
    X, y = data
    recorder = Recorder()
    model = MLPClassifier(**SMALL | {"lr_schedule": "constant"}).set_callbacks(recorder).fit(X, y)
    for n_epochs, fitted in enumerate(recorder.fitted, start=1):
        short = MLPClassifier(**SMALL | {"lr_schedule": "constant", "max_epochs": n_epochs}).fit(X, y)
        assert_array_equal(fitted.predict_proba(X), short.predict_proba(X))
    assert_array_equal(recorder.fitted[-1].predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("last", [1, 4])
def test_a_callback_that_returns_true_stops_the_fit(data, last, n_members):
    X, y = data
    recorder = Recorder(last, lambda: True)
    model = MLPClassifier(**SMALL | {"n_members": n_members}).set_callbacks(recorder).fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == last
    assert_array_equal(model.predict_proba(X), recorder.fitted[-1].predict_proba(X))


def test_a_callback_that_returns_true_stops_an_ensemble_with_its_own_loss(data):
    recorder = Recorder(2, lambda: True)
    model = MLPClassifier(**SMALL | {"n_members": 2}, loss=lambda z, t: F.cross_entropy(z, t, reduction="none"))
    assert model.set_callbacks(recorder).fit(*data).n_iter_ == 2


def test_an_exception_of_a_callback_ends_the_fit_and_is_seen(data):
    def fail():
        raise RuntimeError("from the callback")

    recorder = Recorder(2, fail)
    with pytest.raises(RuntimeError, match="from the callback"):
        MLPClassifier(**SMALL).set_callbacks(recorder).fit(*data)
    assert recorder.ended[-1] == "teardown"


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_ctrl_c_keeps_the_parameters_so_far(data, early_stopping, n_members):
    X, y = data
    recorder = Recorder(3, interrupt)
    model = MLPClassifier(**SMALL | {"early_stopping": early_stopping, "n_members": n_members})
    with pytest.warns(UserWarning, match="interrupted after 3 epochs") as told:
        model.set_callbacks(recorder).fit(X, y)
    assert told[0].filename == __file__
    assert model.n_iter_ == 3
    if not early_stopping:
        assert_array_equal(model.predict_proba(X), recorder.fitted[2].predict_proba(X))
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("n_members", [1, 2])
def test_ctrl_c_within_an_epoch(data, n_members):
    X, y = data
    calls = []

    def loss(z, t):
        calls.append(len(calls))
        if len(calls) == 8:
            raise KeyboardInterrupt
        return F.cross_entropy(z, t, reduction="none")

    model = MLPClassifier(**SMALL | {"n_members": n_members}, loss=loss, batch_size=30)
    # Networks that cannot be stacked are trained in step, an epoch of 3 calls each.
    n_epochs = 2 if n_members == 1 else 1
    with pytest.warns(UserWarning, match=f"interrupted after {n_epochs} epochs"):
        model.fit(X, y)
    # One interrupt ends the whole fit, not the network that happened to be trained.
    assert len(calls) == 8
    assert model.n_iter_ == n_epochs
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_ctrl_c_in_the_first_epoch(data, early_stopping):
    X, y = data

    def loss(z, t):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 0 epochs"):
        model = MLPClassifier(**SMALL | {"early_stopping": early_stopping}, loss=loss).fit(X, y)
    assert model.n_iter_ == 0 and model.loss_curve_ == [] and np.isnan(model.loss_)
    assert not early_stopping or np.isnan(model.best_validation_score_)
    assert np.isfinite(model.predict_proba(X)).all()


def test_scoring_monitor_logs_every_epoch(data):
    X, y = data
    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    weight = np.arange(90) + 1.0
    model = MLPClassifier(**SMALL).set_callbacks(monitor).fit(X, y, sample_weight=weight)
    log = monitor.get_logs().data_as_pandas
    of_epochs = log[log["task_name"] == "epoch"]
    assert of_epochs["task_id"].tolist() == list(range(6))
    assert of_epochs["accuracy"].iloc[-1] == accuracy_score(y, model.predict(X), sample_weight=weight)


def test_scoring_monitor_in_a_pipeline(data):
    X, y = data
    monitor = ScoringMonitor(scoring="neg_log_loss")
    model = MLPClassifier(**SMALL).set_callbacks(monitor)
    make_pipeline(StandardScaler(), model).fit(X, y)
    log = monitor.get_logs().data_as_pandas
    of_epochs = log[log["task_name"] == "epoch"]
    assert len(of_epochs) == 6
    assert of_epochs["neg_log_loss"].is_monotonic_increasing


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_callbacks_of_a_search_reach_every_fit(data, n_jobs):
    X, y = data
    monitor = ScoringMonitor(scoring="accuracy")
    model = MLPClassifier(**SMALL).set_callbacks(monitor)
    search = GridSearchCV(model, {"l2": [0.0, 1e-3]}, cv=2, n_jobs=n_jobs).fit(X, y)
    log = monitor.get_logs().data_as_pandas
    # Two candidates on two folds, and the refit.
    assert (log["task_name"] == "epoch").sum() == 5 * search.best_estimator_.n_iter_


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_bar_over_a_search_of_a_pipeline(data, capsys, n_jobs):
    pytest.importorskip("rich")
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    search = GridSearchCV(pipeline, {"mlpclassifier__l2": [0.0, 1e-3]}, cv=2, n_jobs=n_jobs)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*data)
    shown = capsys.readouterr().out
    assert "MLPClassifier" in shown and "100%" in shown


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
def test_progress_bar_of_a_lone_fit_ends_at_all_epochs(data, capsys, Estimator):
    pytest.importorskip("rich")
    Estimator(**SMALL).set_callbacks(ProgressBar()).fit(*data)
    shown = capsys.readouterr().out
    assert Estimator.__name__ in shown and "100%" in shown


def test_callbacks_change_nothing_in_the_result(data):
    X, y = data
    with_callback = MLPClassifier(**SMALL).set_callbacks(Recorder()).fit(X, y)
    assert_array_equal(with_callback.predict_proba(X), MLPClassifier(**SMALL).fit(X, y).predict_proba(X))


def test_callbacks_survive_clone_and_pickle(data):
    monitor = ScoringMonitor(scoring="accuracy")
    model = pickle.loads(pickle.dumps(clone(MLPClassifier(**SMALL).set_callbacks(monitor))))
    assert len(model._skl_callbacks) == 1
    assert model.fit(*data).n_iter_ == 6


@pytest.mark.parametrize(("verbose", "n_lines"), [(0, 0), (1, 6), (True, 6), (2, 3), (4, 1)])
def test_verbose_prints_a_line_every_so_many_epochs(data, capsys, verbose, n_lines):
    model = MLPClassifier(**SMALL, verbose=verbose).fit(*data)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == n_lines
    if lines:
        epoch = 6 // int(verbose) * int(verbose)
        assert lines[-1].startswith(f"MLPClassifier epoch {epoch}: loss {model.loss_curve_[epoch - 1]:.6g}")


def test_verbose_shows_the_validation_score(data, capsys):
    model = MLPClassifier(**SMALL | {"early_stopping": True}, verbose=1).fit(*data)
    lines = capsys.readouterr().out.splitlines()
    assert [f"score {score:.6g}," in line for line, score in zip(lines, model.validation_scores_, strict=True)] == [
        True
    ] * 6
