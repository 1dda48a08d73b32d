"""What a fit leaves behind: attributes, early stopping, going on from a fit, randomness, and training that fails."""

import contextlib
import copy
import gc
import random
import weakref
from itertools import count

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import cross_val_predict, cross_val_score

from skdl import CNNClassifier, DeepImputer, MLPClassifier, MLPEstimator, MLPRegressor, RNNClassifier
from skdl.engine.optimizers import RULES

SMALL = {
    "hidden_layer_sizes": (8, 5),
    "max_epochs": 6,
    "learning_rate": 0.01,
    "early_stopping": False,
    "n_members": 1,
    "numeric_embedding": None,
    "random_state": 0,
}
PLAIN = SMALL | {"dropout": 0.0, "weight_decay": 0.0, "lr_schedule": "constant", "dtype": "float64"}


@pytest.fixture(scope="module")
def labelled():
    return make_classification(100, 6, n_informative=4, n_classes=3, class_sep=2.0, random_state=0)


@pytest.fixture(scope="module")
def valued():
    return make_regression(100, 6, n_informative=3, random_state=0)


# --- attributes ------------------------------------------------------------------------------------------------------


def test_fitted_attributes_of_a_classifier(labelled):
    X, y = labelled
    model = MLPClassifier(**SMALL).fit(X, np.array(["low", "mid", "top"])[y])
    assert_array_equal(model.classes_, ["low", "mid", "top"])
    assert (model.n_features_in_, model.n_outputs_, model.n_layers_, model.out_activation_) == (6, 3, 4, "softmax")
    assert [w.shape for w in model.coefs_] == [(6, 8), (8, 5), (5, 3)]
    assert [b.shape for b in model.intercepts_] == [(8,), (5,), (3,)]
    assert model.n_iter_ == len(model.loss_curve_) == len(model.history_) == 6
    assert model.t_ == 600
    assert model.loss_ == model.loss_curve_[-1] and model.best_loss_ == min(model.loss_curve_)
    assert model.validation_scores_ is None and model.best_validation_score_ is None
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize(("n_classes", "n_outputs", "activation"), [(2, 1, "logistic"), (1, 1, "softmax")])
def test_two_classes_take_one_output(labelled, n_classes, n_outputs, activation):
    X, y = labelled
    model = MLPClassifier(**SMALL).fit(X, y % n_classes)
    assert (model.n_outputs_, model.out_activation_) == (n_outputs, activation)
    assert model.predict_proba(X).shape == (100, n_classes)


def test_fitted_attributes_of_a_regressor(valued):
    X, y = valued
    model = MLPRegressor(**SMALL).fit(pd.DataFrame(X, columns=list("abcdef")), np.stack([y, -y], axis=1))
    assert (model.n_outputs_, model.out_activation_) == (2, "identity")
    assert_array_equal(model.feature_names_in_, list("abcdef"))
    assert not hasattr(model, "classes_")


def test_coefs_of_periodic_columns_stand_behind_the_others(labelled):
    X, y = labelled
    model = MLPClassifier(**SMALL | {"numeric_embedding": "periodic"}).fit(X, y)
    width = model.network_.periodic.projection.shape[1]
    assert [w.shape for w in model.coefs_] == [(6 + 6 * width, 8), (8, 5), (5, 3)]


def test_waves_are_learned_with_a_periodic_embedding_alone():
    X = np.random.RandomState(0).uniform(-1, 1, size=(400, 2))
    y = np.sin(8 * X[:, 0]) + np.cos(6 * X[:, 1])
    # No hidden layer: what is not a straight line is the embedding's doing.
    settings = SMALL | {"hidden_layer_sizes": (), "max_epochs": 100, "learning_rate": 0.03}
    assert MLPRegressor(**settings).fit(X, y).score(X, y) < 0.3
    assert MLPRegressor(**settings | {"numeric_embedding": "periodic"}).fit(X, y).score(X, y) > 0.95


def test_coefs_and_network_compute_the_predictions(labelled):
    X, y = labelled
    model = MLPClassifier(**PLAIN, numeric_scaling=None, activation="tanh").fit(X, y)
    h = X
    for weights, bias in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        h = np.tanh(h @ weights + bias)
    logits = h @ model.coefs_[-1] + model.intercepts_[-1]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_allclose(model.predict_proba(X), p, rtol=1e-9)
    with torch.no_grad():
        assert_allclose(model.network_(torch.tensor(X)).numpy(), logits, rtol=1e-9)


def test_network_is_a_plain_module_in_eval_mode(labelled):
    model = MLPClassifier(**SMALL).fit(*labelled)
    assert isinstance(model.network_, torch.nn.Module) and not model.network_.training
    assert sum(p.numel() for p in model.network_.parameters()) == 6 * 8 + 8 + 8 * 5 + 5 + 5 * 3 + 3


@pytest.mark.parametrize("n_members", [1, 3])
def test_ensemble_averages_its_members(valued, n_members):
    X, y = valued
    model = MLPRegressor(**SMALL | {"n_members": n_members}, numeric_scaling=None).fit(X, y)
    with torch.no_grad():
        outputs = model.network_(torch.tensor(X, dtype=torch.float32)).reshape(n_members, 100).numpy()
    assert_allclose(model.predict(X), outputs.astype(float).mean(axis=0) * y.std() + y.mean(), rtol=1e-5)
    assert model.t_ == n_members * 600


def test_coefs_of_an_ensemble_are_refused_with_the_way_to_them(valued):
    model = MLPRegressor(**SMALL | {"n_members": 2}).fit(*valued)
    assert not hasattr(model, "coefs_")
    with pytest.raises(AttributeError, match=r"network_\.members"):
        _ = model.intercepts_


def test_history_is_a_table_with_a_row_an_epoch(labelled):
    history = MLPClassifier(**SMALL | {"early_stopping": True}).fit(*labelled).history_
    names = ["epoch", "loss", "validation_loss", "validation_score", "learning_rate", "seconds"]
    assert list(history.dtype.names) == names and list(pd.DataFrame(history)) == names
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert_allclose(history["validation_score"], -history["validation_loss"])
    assert np.all(history["seconds"] > 0)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step", "exponential", "plateau"])
def test_history_shows_the_schedule(labelled, schedule):
    rates = MLPClassifier(**SMALL | {"max_epochs": 12}, lr_schedule=schedule).fit(*labelled).history_["learning_rate"]
    assert rates.max() <= 0.01 + 1e-12 and np.all(rates > 0)
    assert (np.ptp(rates) == 0) == (schedule in ("constant", "plateau"))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_prediction_before_fit_is_refused(labelled, method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(MLPClassifier(), method)(labelled[0])


def test_estimator_has_the_methods_of_its_task(valued):
    assert hasattr(MLPEstimator(), "predict_proba") and hasattr(MLPEstimator(), "predict_log_proba")
    regressor = MLPEstimator(task="regression", **SMALL)
    assert not hasattr(regressor, "predict_proba") and not hasattr(regressor, "predict_log_proba")
    X, y = valued
    assert regressor.fit(X, y).score(X, y) == r2_score(y, regressor.predict(X))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_estimator_of_both_tasks_equals_the_estimator_of_one(labelled, task):
    same = {"classification": MLPClassifier, "regression": MLPRegressor}[task](**SMALL).fit(*labelled)
    model = MLPEstimator(task=task, **SMALL).fit(*labelled)
    assert_array_equal(model.predict(labelled[0]), same.predict(labelled[0]))


@pytest.mark.parametrize(("task", "rate"), [("classification", 0.05), ("regression", 0.0)])
def test_auto_dropout_is_for_classification(labelled, task, rate):
    auto = MLPEstimator(task=task, **SMALL).fit(*labelled)
    same = MLPEstimator(task=task, dropout=rate, **SMALL).fit(*labelled)
    assert_array_equal(auto.predict(labelled[0]), same.predict(labelled[0]))


@pytest.mark.parametrize(("stops", "n_rows", "epochs"), [(True, 4000, 160), (True, 10**7, 12), (True, 100, 640)])
def test_auto_epochs_under_early_stopping(stops, n_rows, epochs):
    assert MLPRegressor()._auto_max_epochs(n_rows, stops) == epochs


@pytest.mark.parametrize(("n_rows", "epochs"), [(4000, 26), (16_000, 13), (10**7, 12), (10, 64)])
def test_auto_epochs_without_early_stopping(n_rows, epochs):
    assert MLPRegressor()._auto_max_epochs(n_rows, False) == epochs


def test_a_change_of_task_leaves_no_attribute_of_the_other(labelled, valued):
    model = MLPEstimator(**SMALL).fit(*labelled)
    model.set_params(task="regression").fit(*valued)
    assert not hasattr(model, "classes_")


@pytest.mark.parametrize("loss", ["poisson", "quantile", "huber", "absolute_error", "squared_error"])
def test_a_loss_of_the_other_task_is_refused(labelled, loss):
    with pytest.raises(ValueError, match=f"loss='{loss}' is not a loss for classification"):
        MLPEstimator(**SMALL, loss=loss).fit(*labelled)


# --- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [["no", "yes"], [False, True], [-1, 1], [2.0, 5.0], np.array(["a", "b"], dtype=object)],
    ids=["str", "bool", "int", "float", "object"],
)
def test_labels_come_back_as_they_were(labelled, names):
    X, y = labelled
    labels = np.asarray(names)[y % 2]
    model = MLPClassifier(**SMALL).fit(X, labels)
    assert model.classes_.dtype == labels.dtype == model.predict(X).dtype
    assert set(model.predict(X).tolist()) <= set(labels.tolist())


@pytest.mark.parametrize("container", [np.array, pd.DataFrame, sp.csr_array])
def test_multilabel_targets(labelled, container):
    X, y = labelled
    Y = np.stack([y == 0, y > 0, X[:, 0] > 0], axis=1).astype(int)
    model = MLPClassifier(**SMALL | {"max_epochs": 60}).fit(X, container(Y))
    p = model.predict_proba(X)
    assert p.shape == (100, 3) and model.out_activation_ == "logistic"
    assert_array_equal(model.predict(X), (p > 0.5).astype(int))
    assert [roc_auc_score(Y[:, j], p[:, j]) > 0.9 for j in range(3)] == [True] * 3
    assert_allclose(np.exp(model.predict_log_proba(X)), p, rtol=1e-6)


def test_small_probabilities_have_finite_logarithms():
    X = np.array([[-1.0], [1.0]] * 20)
    model = MLPClassifier(
        **SMALL | {"max_epochs": 300, "hidden_layer_sizes": (), "learning_rate": 5.0}, numeric_scaling=None
    ).fit(X, X[:, 0] > 0)
    far = np.array([[-1000.0], [1000.0]])
    log_p = model.predict_log_proba(far)
    assert np.all(np.isfinite(log_p)) and log_p.min() < -1000


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_targets_of_any_scale_are_learned(valued, scale):
    X, y = valued
    model = MLPRegressor(**SMALL | {"max_epochs": 100}).fit(X, scale * y)
    assert_allclose(
        model.predict(X) / scale, MLPRegressor(**SMALL | {"max_epochs": 100}).fit(X, y).predict(X), rtol=1e-3
    )


def test_constant_target_is_predicted_exactly(valued):
    assert_allclose(
        MLPRegressor(**SMALL | {"max_epochs": 100}).fit(valued[0], np.full(100, 7.5)).predict(valued[0]), 7.5, atol=0.2
    )


def test_a_column_of_targets_warns_and_is_flattened(valued):
    X, y = valued
    with pytest.warns(match="A column-vector y was passed"):
        column = MLPRegressor(**SMALL).fit(X, y[:, None])
    assert_array_equal(column.predict(X), MLPRegressor(**SMALL).fit(X, y).predict(X))


# --- early stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_members", [1, 4])
def test_patience_is_counted_in_epochs(labelled, n_members):
    # A score that only falls is best in the first epoch.
    settings = SMALL | {"early_stopping": True, "max_epochs": 50, "n_members": n_members}
    calls = count()
    model = MLPClassifier(**settings, n_iter_no_change=7, scoring=lambda estimator, X, y: -next(calls))
    assert model.fit(*labelled).n_iter_ == 8


@pytest.mark.parametrize(
    ("make", "best", "n_iter"),
    [(MLPClassifier, 1, 5), (MLPClassifier, 50, 90), (RNNClassifier, 1, 8), (RNNClassifier, 30, 50)],
)
def test_auto_patience_grows_with_the_best_epoch(labelled, make, best, n_iter):
    epochs = count(1)
    model = make(max_epochs=100, n_members=1, early_stopping=True, scoring=lambda *given: -abs(next(epochs) - best))
    assert model.fit(*labelled).n_iter_ == n_iter


def test_tol_is_what_a_score_must_rise_by(labelled):
    def rising():
        scores = iter(np.arange(1, 100) / 100)
        return lambda estimator, X, y: next(scores)

    settings = SMALL | {"early_stopping": True, "max_epochs": 30, "n_iter_no_change": 4}
    assert MLPClassifier(**settings, scoring=rising(), tol=0.005).fit(*labelled).n_iter_ == 30
    # 0.05 more takes five epochs.
    assert MLPClassifier(**settings, scoring=rising(), tol=0.045).fit(*labelled).n_iter_ == 5


def test_auto_tol_stops_where_classes_are_told_apart_without_error():
    X, y = np.random.default_rng(0).normal(size=(200, 2)), np.arange(200) % 2 == 0
    X[y] += 5
    settings = SMALL | {"early_stopping": True, "max_epochs": 400}
    stopped = MLPClassifier(**settings).fit(X, y)
    assert stopped.n_iter_ == MLPClassifier(**settings, tol=1e-4).fit(X, y).n_iter_
    assert stopped.n_iter_ < MLPClassifier(**settings, tol=0.0).fit(X, y).n_iter_
    regressor = MLPRegressor(**settings).fit(X, y.astype(float))
    assert regressor.n_iter_ == MLPRegressor(**settings, tol=0.0).fit(X, y.astype(float)).n_iter_


@pytest.mark.parametrize("settings", [{}, {"n_members": 3, "validation_fraction": 0.3}])
def test_rows_of_a_group_are_held_out_together(settings):
    groups = np.repeat(np.arange(30), 5)
    rng = np.random.default_rng(0)
    # Each group has a target of its own, which its number tells of and nothing else does.
    X, y = np.eye(30)[groups], rng.normal(size=30)[groups]
    settings = {"max_epochs": 60, "learning_rate": 0.03, "random_state": 0, "early_stopping": True} | settings
    shares = []
    for given in (None, groups, [f"group {g}" for g in groups], pl.Series(groups)):
        unseen = MLPRegressor(**settings).fit(X, y, groups=given).out_of_fold_
        known = np.isfinite(unseen)
        assert len(set(groups[known])) == 30 or "validation_fraction" in settings
        shares.append(np.mean((unseen - y)[known] ** 2) / y.var())
    assert shares[0] < 0.3 and min(shares[1:]) > 0.7
    assert shares[1] == shares[2] == shares[3]


def test_few_groups_have_few_networks():
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60.0)
    model = MLPRegressor(max_epochs=2, early_stopping=True).fit(X, y, groups=np.arange(60) % 3)
    assert len(model.network_.members) == 3
    with pytest.raises(ValueError, match=r"n_members=4 networks that hold out different groups.*n_groups=3"):
        model.set_params(n_members=4).fit(X, y, groups=np.arange(60) % 3)
    with pytest.raises(ValueError, match=r"needs groups to train on and groups to hold out; n_groups=1"):
        model.set_params(n_members="auto").fit(X, y, groups=np.zeros(60))


def test_a_lone_group_is_trained_on_as_a_whole_unless_early_stopping_is_asked_for():
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60.0)
    model = MLPRegressor(max_epochs=2, random_state=0).fit(X, y, groups=np.zeros(60))
    assert model.out_of_fold_ is None and model.n_iter_ == 2


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.zeros(3), r"groups has the shape \(3,\), but X has 20 rows"),
        (np.zeros((20, 2)), r"groups has the shape \(20, 2\)"),
        ([None] * 20, "groups contains missing values"),
    ],
)
def test_groups_are_one_for_each_row(groups, message):
    with pytest.raises(ValueError, match=message):
        MLPRegressor(**SMALL).fit(np.zeros((20, 2)), np.zeros(20), groups=groups)


@pytest.mark.parametrize("best", [1, 3, 6])
def test_parameters_of_the_best_epoch_are_kept(labelled, best):
    X, y = labelled
    scores = iter([1.0 if epoch == best else 0.0 for epoch in range(1, 7)])
    model = MLPClassifier(**PLAIN | {"early_stopping": True}, n_iter_no_change=6, scoring=lambda e, X, y: next(scores))
    model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    short = MLPClassifier(**PLAIN | {"max_epochs": best}).fit(X[:60], y[:60])
    assert_array_equal(model.predict_proba(X), short.predict_proba(X))
    assert model.best_validation_score_ == 1 and model.loss_ == model.loss_curve_[best - 1]


def test_a_score_that_is_not_a_number_is_never_the_best(labelled):
    X, y = labelled
    scores = iter([0.5, np.nan, 0.4, np.nan, 0.3, np.nan])
    model = MLPClassifier(**PLAIN | {"early_stopping": True}, scoring=lambda e, X, y: next(scores))
    model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    first = MLPClassifier(**PLAIN | {"max_epochs": 1}).fit(X[:60], y[:60])
    assert_array_equal(model.predict_proba(X), first.predict_proba(X))
    assert model.best_validation_score_ == 0.5


def test_scores_that_a_fold_has_no_answer_to_are_named_with_the_remedy(labelled):
    X, y = labelled[0], np.where(np.arange(100) < 3, 9, labelled[1])
    model = MLPClassifier(**SMALL | {"early_stopping": True, "n_members": 4}, scoring="neg_log_loss")
    with pytest.raises(ValueError, match=r"scoring failed on the \d+ validation rows .* fewer n_members"):
        model.fit(X, y)


def test_scores_that_are_never_a_number_are_not_silent(labelled):
    X, y = labelled
    model = MLPClassifier(**PLAIN | {"early_stopping": True}, scoring=lambda e, X, y: np.nan)
    with pytest.warns(UserWarning, match=r"NaN in every epoch.* loss is kept: epoch 6\. Hold out more rows"):
        model.fit(X, y)
    assert np.isnan(model.best_validation_score_) and model.n_iter_ == 6


@pytest.mark.parametrize("score", [None, {"accuracy": 1.0}, "high", np.ones(2)])
def test_scores_are_one_number(labelled, score):
    with pytest.raises(TypeError, match="scoring must be a scorer that gives one number"):
        MLPClassifier(**SMALL | {"early_stopping": True}, scoring=lambda e, X, y: score).fit(*labelled)


def test_validation_data_are_not_trained_on(labelled):
    X, y = labelled
    alone = MLPClassifier(**SMALL).fit(X[:60], y[:60])
    validated = MLPClassifier(**SMALL).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert_array_equal(validated.predict_proba(X), alone.predict_proba(X))
    assert len(validated.validation_scores_) == 6 and validated.best_loss_ is None


def test_histories_and_scores_agree_where_only_some_epochs_are_validated(labelled):
    X, y = labelled
    model = MLPClassifier(**SMALL | {"max_epochs": 2}).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    best = model.best_validation_score_
    assert best == max(model.validation_scores_)
    model.partial_fit(X, y)
    assert_array_equal(model.validation_scores_, model.history_["validation_score"])
    assert np.isnan(model.validation_scores_).tolist() == [False, False, True]
    # The network is not the one that was scored any more.
    assert model.best_validation_score_ is None and model.best_loss_ is None


def test_poisoned_validation_data_change_nothing_but_the_scores(labelled):
    X, y = labelled
    frame = pd.DataFrame(X).assign(text=np.array(list("abcd"))[np.arange(100) % 4])
    frame.columns = frame.columns.astype(str)
    poison = frame.iloc[60:].assign(text="poison")
    poison["0"] = 1e30
    poison.loc[poison.index[::2], "1"] = np.nan
    settings = SMALL | {"numeric_embedding": "piecewise_linear"}
    clean = MLPClassifier(**settings).fit(frame[:60], y[:60], X_val=frame[60:], y_val=y[60:])
    poisoned = MLPClassifier(**settings).fit(frame[:60], y[:60], X_val=poison, y_val=y[60:])
    assert_array_equal(poisoned.predict_proba(frame), clean.predict_proba(frame))
    assert poisoned.validation_scores_ != clean.validation_scores_


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
def test_held_out_rows_leave_no_trace_in_the_encoding(Estimator, labelled):
    X, y = labelled
    settings = SMALL | {"early_stopping": True, "max_epochs": 1, "numeric_embedding": "piecewise_linear"}
    held_out = []
    spy = Estimator(**settings, scoring=lambda e, X, y: held_out.append(X.copy()) or 0.0).fit(X, y)
    is_held_out = (X[:, None] == held_out[0][None]).all(axis=2).any(axis=1)
    assert is_held_out.sum() == 10
    poisoned = X.copy()
    poisoned[is_held_out] = np.where(np.arange(6) % 2, 1e30, np.nan)
    again = Estimator(**settings, scoring=lambda e, X, y: 0.0).fit(poisoned, y)
    for weights, others in zip(spy.coefs_, again.coefs_, strict=True):
        assert_array_equal(weights, others)


@pytest.mark.parametrize(
    ("n_members", "fraction", "size"), [(1, 0.3, 30), (1, "auto", 10), (2, 0.3, 30), (5, "auto", 20)]
)
def test_share_of_the_rows_held_out(labelled, n_members, fraction, size):
    seen = []
    MLPClassifier(
        **SMALL | {"early_stopping": True, "max_epochs": 1, "n_members": n_members},
        validation_fraction=fraction,
        scoring=lambda e, X, y: seen.append(y) or 0.0,
    ).fit(*labelled)
    assert [len(y) for y in seen] == [size] * n_members
    # Stratified: 100 rows of three classes.
    assert all(np.ptp(np.bincount(y) / size - np.bincount(labelled[1]) / 100) < 0.12 for y in seen)


def test_a_long_life_of_partial_fits(labelled):
    model = MLPClassifier(**SMALL).partial_fit(*labelled)
    # As many samples as a stream may bring.
    model.t_ = 2**32
    assert model.partial_fit(*labelled).t_ == 2**32 + 100


def test_members_hold_out_every_row_once(labelled):
    X, y = labelled
    seen = []
    MLPClassifier(
        **SMALL | {"early_stopping": True, "max_epochs": 1, "n_members": 4},
        scoring=lambda e, X, y: seen.append(X) or 0.0,
    ).fit(X, y)
    assert_array_equal(np.sort(np.concatenate(seen), axis=0), np.sort(X, axis=0))


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc_ovr", "neg_log_loss"])
def test_named_scores(labelled, scoring):
    from sklearn.metrics import get_scorer

    X, y = labelled
    model = MLPClassifier(**SMALL | {"early_stopping": True, "max_epochs": 1}, scoring=scoring)
    model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert_allclose(model.validation_scores_, get_scorer(scoring)(model, X[60:], y[60:]), rtol=1e-6)


def test_a_scorer_may_look_at_part_of_the_rows(valued):
    X, y = valued
    model = MLPRegressor(
        **SMALL | {"early_stopping": True, "max_epochs": 1},
        scoring=lambda e, X, y: -np.abs(e.predict(X[5:]) - y[5:]).max(),
    ).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert_allclose(model.validation_scores_, -np.abs(model.predict(X[65:]) - y[65:]).max(), rtol=1e-6)


def test_regression_scores_are_in_the_units_of_y(valued):
    X, y = valued
    model = MLPRegressor(**SMALL | {"early_stopping": True, "max_epochs": 1}, scoring="neg_mean_absolute_error")
    model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert_allclose(model.validation_scores_, -np.abs(model.predict(X[60:]) - y[60:]).mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X_val": [[0.0] * 6]}, "X_val and y_val go together"),
        ({"y_val": [0]}, "X_val and y_val go together"),
        ({"sample_weight_val": [1.0]}, "sample_weight_val was given without"),
        ({"X_val": [[0.0] * 5], "y_val": [0]}, "X has 5 features, but MLPClassifier is expecting 6"),
        ({"X_val": [[0.0] * 6], "y_val": [0, 1]}, "inconsistent numbers of samples"),
        ({"X_val": [[0.0] * 6], "y_val": [9]}, "y_val contains labels that the model does not know"),
        ({"X_val": [[0.0] * 6], "y_val": [None]}, "Input y_val contains NaN"),
        ({"X_val": [[0.0] * 6], "y_val": [0], "sample_weight_val": [-1.0]}, "Negative values"),
    ],
)
def test_bad_validation_data(labelled, arguments, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**SMALL).fit(*labelled, **arguments)


def test_unknown_score_is_refused_whether_or_not_rows_are_held_out(labelled):
    with pytest.raises(ValueError, match="scoring"):
        MLPClassifier(**SMALL, scoring="no such score").fit(*labelled)


def test_a_fit_leaves_nothing_to_the_garbage_collector(labelled):
    gc.collect()
    gc.disable()
    try:
        model = MLPClassifier(**SMALL).fit(*labelled)
        network = weakref.ref(model.network_)
        del model
        assert network() is None
    finally:
        gc.enable()


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", [None, "periodic"])
@pytest.mark.parametrize("optimizer", RULES)
def test_warm_start_goes_on_where_the_last_fit_ended(valued, optimizer, embedding):
    X, y = valued
    settings = PLAIN | {"batch_size": 100, "optimizer": optimizer, "numeric_embedding": embedding}
    model = MLPRegressor(**settings | {"warm_start": True, "max_epochs": 3}).fit(X, y).fit(X, y)
    # With the whole table in a step the order of rows does not matter, so two halves make a whole.
    assert_allclose(model.predict(X), MLPRegressor(**settings).fit(X, y).predict(X), rtol=1e-9)
    assert (model.n_iter_, model.t_, len(model.loss_curve_)) == (3, 600, 3)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
@pytest.mark.parametrize("validation_fraction", ["auto", 0.2])
def test_warm_start_holds_out_the_same_rows_again(random_state, validation_fraction):
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    settings = PLAIN | {"n_members": 4, "early_stopping": True, "learning_rate": 1e-9}
    model = MLPRegressor(
        **settings | {"random_state": random_state}, validation_fraction=validation_fraction, warm_start=True
    )
    first = model.fit(X, y).out_of_fold_
    # Networks that do not move say the same of the same rows.
    assert_allclose(model.fit(X, y).out_of_fold_, first, atol=1e-6)
    # Another fit that begins anew holds out others.
    assert not np.allclose(model.set_params(warm_start=False).fit(X, y).out_of_fold_, first, atol=1e-3)


@pytest.mark.parametrize("change", [{"learning_rate": 1e300}, {"batch_size": 2**70}], ids=str)
def test_numbers_beyond_those_of_torch_are_as_good_as_large_ones(valued, change):
    X, y = valued
    if "learning_rate" in change:
        with pytest.raises(ValueError, match="Lower learning_rate"):
            MLPRegressor(**SMALL | change).fit(X, y)
    else:
        whole = MLPRegressor(**SMALL | {"batch_size": 100}).fit(X, y)
        assert_array_equal(MLPRegressor(**SMALL | change).fit(X, y).predict(X), whole.predict(X))


def test_tensors_with_gradients_are_numbers(labelled):
    X, y = labelled
    tensor = torch.tensor(X, requires_grad=True)
    model = MLPClassifier(**SMALL).fit(tensor, y)
    assert_array_equal(model.predict_proba(tensor), MLPClassifier(**SMALL).fit(X, y).predict_proba(X))
    half = MLPRegressor(**SMALL).fit(tensor.bfloat16(), tensor[:, 0])
    assert np.isfinite(half.predict(tensor.bfloat16())).all()


@pytest.mark.parametrize("cells", [[True, False], [0, 1]])
def test_labels_of_the_wrong_type_of_array_are_told_the_right_one(labelled, cells):
    X, y = labelled[0], np.array([cells[i % 2] for i in range(100)], dtype=object)
    with pytest.raises(ValueError, match=rf"y.astype\({type(cells[0]).__name__}\)"):
        MLPClassifier(**SMALL).fit(X, y)


def test_best_score_of_several_networks_is_the_mean_of_their_own(labelled):
    X, y = labelled
    settings = SMALL | {"n_members": 3, "early_stopping": True, "max_epochs": 8}
    # A loss without calibration, which would come after the scores.
    model = MLPClassifier(**settings, loss="focal", scoring="accuracy").fit(X, y)
    # What they kept, on folds of like sizes.
    held_out = (model.out_of_fold_.argmax(axis=1) == y).mean()
    assert abs(model.best_validation_score_ - held_out) < 0.01


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor, RNNClassifier])
@pytest.mark.parametrize("n_members", [1, 3])
def test_scores_of_several_networks_for_tables_are_robust(labelled, make, n_members):
    X, y = labelled
    history = make(n_members=n_members, early_stopping=True, max_epochs=4, random_state=0).fit(X, y).history_
    is_plain = np.allclose(history["validation_score"], -history["validation_loss"])
    assert is_plain == (n_members == 1 or make is RNNClassifier)


def test_without_warm_start_a_fit_begins_anew(valued):
    X, y = valued
    model = MLPRegressor(**SMALL).fit(X[:50], 3 * y[:50])
    assert_array_equal(model.fit(X, y).predict(X), MLPRegressor(**SMALL).fit(X, y).predict(X))
    assert model.t_ == 600


@pytest.mark.parametrize("n_members", [1, 2])
def test_warm_start_keeps_encoding_and_labels(labelled, n_members):
    X, y = labelled
    model = MLPClassifier(**SMALL | {"warm_start": True, "n_members": n_members}).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(learning_rate=1e-12).fit(100 * X[:50], y[:50] * 0)
    assert_array_equal(model.classes_, [0, 1, 2])
    assert_allclose(model.predict_proba(X), before, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_layer_sizes": (9,)}, "architecture was changed"),
        ({"normalization": "batch"}, "architecture was changed"),
        ({"normalization": "layer"}, "architecture was changed"),
        ({"n_members": 2}, r"continues with 1 network\(s\), but n_members=2\. Set warm_start=False, or restore"),
    ],
)
def test_warm_start_refuses_another_architecture(labelled, change, message):
    model = MLPClassifier(**SMALL | {"warm_start": True}).fit(*labelled)
    with pytest.raises(ValueError, match=message):
        model.set_params(**change).fit(*labelled)


@pytest.mark.parametrize("first", ["batch", "layer"])
@pytest.mark.parametrize("then", [None, "batch", "layer"])
def test_warm_start_leaves_no_normalization_out(labelled, first, then):
    model = MLPClassifier(**SMALL | {"warm_start": True, "normalization": first}).fit(*labelled)
    model.set_params(normalization=then)
    if then == first:
        assert model.fit(*labelled).n_iter_ == 6
        return
    with pytest.raises(ValueError, match="architecture was changed"):
        model.fit(*labelled)


@pytest.mark.parametrize(
    "change",
    [{"optimizer": "sgd"}, {"optimizer": "rmsprop"}, {"dtype": "float64"}, {"batch_size": 7}, {"dropout": 0.3}],
)
@pytest.mark.parametrize("first", ["adamw", "sgd"])
def test_warm_start_takes_other_settings_of_the_training(labelled, first, change):
    X, y = labelled
    model = MLPClassifier(**SMALL | {"warm_start": True, "optimizer": first}).fit(X, y)
    assert np.isfinite(model.set_params(**change).fit(X, y).predict_proba(X)).all()


def test_warm_start_takes_another_loss(valued):
    X, y = valued
    model = MLPRegressor(**PLAIN | {"warm_start": True, "learning_rate": 1e-9}).fit(X, y)
    model.set_params(loss="absolute_error").fit(X, y)
    mean_error = np.abs(model.predict(X) - y).mean() / y.std()
    assert_allclose(model.loss_curve_[-1], mean_error, rtol=1e-5)


@pytest.mark.parametrize(("first", "second"), [("squared_error", "poisson"), ("poisson", "huber")])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_going_on_refuses_a_loss_that_reads_the_output_otherwise(valued, method, first, second):
    X, y = valued[0], np.abs(valued[1])
    model = MLPRegressor(**SMALL, warm_start=True, loss=first).fit(X, y)
    with pytest.raises(ValueError, match=f"loss='{second}' cannot continue a fit with loss='{first}'"):
        getattr(model.set_params(loss=second), method)(X, y)
    assert np.isfinite(model.set_params(loss=first).fit(X, y).predict(X)).all()


def test_going_on_refuses_a_loss_of_another_number_of_outputs(labelled):
    X, y = labelled
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, y > 0)
    own = torch.nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ValueError, match="two outputs under a callable loss"):
        model.set_params(loss=own).fit(X, y > 0)
    # More classes have an output each under either.
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, y)
    assert np.isfinite(model.set_params(loss=own).fit(X, y).predict_proba(X)).all()


def test_going_on_refuses_another_task(labelled):
    X, y = labelled
    model = MLPEstimator(**SMALL, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="task was changed"):
        model.set_params(task="regression").fit(X, y)


def test_partial_fit_takes_another_precision_and_loss(valued):
    X, y = valued
    model = MLPRegressor(**SMALL).partial_fit(X, y)
    model.set_params(dtype="float64", loss="absolute_error", learning_rate=1e-9).partial_fit(X, y)
    assert model.network_.linear_layers[0].weight.dtype == torch.float64
    assert_allclose(model.loss_, np.abs(model.predict(X) - y).mean() / y.std(), rtol=1e-5)


def test_warm_start_with_defaults_takes_more_rows_than_before():
    # Defaults that follow the number of rows are no change of the user's.
    X, y = make_classification(300, 5, random_state=0)
    model = MLPClassifier(hidden_layer_sizes=(4,), max_epochs=2, warm_start=True, random_state=0)
    assert model.fit(X[:60], y[:60]).fit(X, y).n_iter_ == 2


def test_warm_start_refuses_unknown_labels(labelled):
    X, y = labelled
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match=r"does not know: \[3\]"):
        model.fit(X, y + 1)


@pytest.mark.parametrize("embedding", [None, "periodic"])
@pytest.mark.parametrize("n_members", [1, 2])
def test_partial_fit_is_an_epoch_of_a_constant_fit(valued, n_members, embedding):
    X, y = valued
    settings = PLAIN | {"batch_size": 100, "n_members": n_members, "numeric_embedding": embedding}
    first = MLPRegressor(**settings).partial_fit(X, y)
    parts = clone(first).partial_fit(X, y)
    for _ in range(5):
        parts.partial_fit(X, y)
    assert (parts.n_iter_, parts.t_) == (6, 600 * n_members)
    # With the whole table in a step, six epochs from the same weights are six epochs.
    going_on = copy.deepcopy(first).set_params(warm_start=True, max_epochs=5).fit(X, y)
    assert_allclose(parts.predict(X), going_on.predict(X), rtol=1e-9)


def share_of_ones(weight=None, class_weight=None):
    """What a classifier of noise expects of label 1 after parts that have one label each."""
    rng = np.random.RandomState(0)
    model = MLPClassifier(**SMALL | {"optimizer": "sgd", "momentum": 0.0, "nesterov": False}, class_weight=class_weight)
    for part in range(60):
        X = rng.normal(size=(20, 3))
        of_part = weight and [weight[part % 2]] * 20
        model.partial_fit(X, [part % 2] * 20, sample_weight=of_part, classes=[0, 1])
    return model.predict_proba(rng.normal(size=(50, 3)))[:, 1].mean()


@pytest.mark.parametrize("of_samples", [True, False])
def test_partial_fit_weighs_parts_against_each_other(of_samples):
    shares = [
        share_of_ones(weight=[1, w]) if of_samples else share_of_ones(class_weight={0: 1, 1: w}) for w in (0.1, 1, 10)
    ]
    assert shares[0] < shares[1] - 0.05 and shares[1] + 0.05 < shares[2]
    assert share_of_ones() == shares[1] == share_of_ones(weight=[4, 4])


def test_partial_fit_that_fails_leaves_no_weight_behind(valued):
    X, y = valued
    model, same = (MLPRegressor(**SMALL).partial_fit(X, y) for _ in range(2))
    with pytest.raises(ZeroDivisionError):
        model.set_params(loss=lambda output, target: 1 / 0).partial_fit(X, y, sample_weight=np.full(100, 1e9))
    model.set_params(loss="squared_error").partial_fit(X, y)
    assert_array_equal(model.predict(X), same.partial_fit(X, y).predict(X))


def test_partial_fit_weighs_its_rows_against_those_of_a_fit(valued):
    X, y = valued
    changes = []
    for weight in (100, 1e-6):
        model = MLPRegressor(**PLAIN | {"optimizer": "sgd", "momentum": 0.0, "nesterov": False})
        before = model.fit(X, y, sample_weight=np.full(100, 100.0)).predict(X)
        changes.append(np.abs(model.partial_fit(X, y, sample_weight=np.full(100, weight)).predict(X) - before).max())
    assert changes[1] < 1e-3 * changes[0]


@pytest.mark.parametrize("constant", [0.0, 1e-6, -3.3, 1e300, 5e-324])
@pytest.mark.parametrize("n_rows", [12, 50])
def test_targets_that_are_constant_are_predicted_exactly(constant, n_rows):
    X = np.random.RandomState(0).normal(size=(n_rows, 3))
    y = np.column_stack([np.full(n_rows, constant), X[:, 0]])
    model = MLPRegressor(**SMALL).fit(X, y)
    assert (model.predict(X)[:, 0] == constant).all()
    assert np.ptp(model.predict(X)[:, 1]) > 0


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_counts_that_are_constant_are_predicted_exactly(constant, valued):
    model = MLPRegressor(**SMALL | {"early_stopping": True, "n_members": 2}, loss="poisson")
    model.fit(valued[0], np.full(100, constant))
    assert (model.predict(valued[0]) == constant).all()
    assert np.ptp(model.partial_fit(valued[0], np.arange(100.0)).predict(valued[0])) > 0


def test_targets_that_were_constant_are_learned_when_they_are_no_longer(valued):
    X, y = valued
    model = MLPRegressor(**SMALL).partial_fit(X[:20], np.full(20, 7.5))
    assert (model.predict(X) == 7.5).all()
    assert np.ptp(model.partial_fit(X, y).predict(X)) > 0


def test_partial_fit_goes_on_with_the_history(labelled):
    model = MLPClassifier(**SMALL).fit(*labelled)
    n_epochs, losses = model.n_iter_, model.loss_curve_
    model.partial_fit(*labelled).partial_fit(*labelled)
    assert model.n_iter_ == n_epochs + 2 == len(model.loss_curve_) and model.loss_curve_[:n_epochs] == losses
    assert_array_equal(model.history_["epoch"], np.arange(1, n_epochs + 3))
    assert model.fit(*labelled).n_iter_ == n_epochs
    assert MLPClassifier(**SMALL).partial_fit(*labelled).n_iter_ == 1


def test_a_loss_of_numpys_functions_is_refused_with_the_remedy(valued):
    with pytest.raises(TypeError, match=r"must use torch operations .* torch\.abs, not np\.abs"):
        MLPRegressor(**SMALL, loss=lambda output, target: np.abs(output - target)).fit(*valued)


def test_partial_fit_learns_labels_that_come_later(labelled):
    X, y = labelled
    order = np.argsort(y, kind="stable")
    model = MLPClassifier(**SMALL)
    model.partial_fit(X[order[:20]], y[order[:20]], classes=[2, 0, 1])
    assert_array_equal(model.classes_, [0, 1, 2])
    assert model.predict_proba(X).shape == (100, 3)
    for _ in range(60):
        model.partial_fit(X, y)
    assert model.score(X, y) > 0.8


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision", "accuracy", "f1_macro"])
def test_several_labels_are_scored_by_scorers_of_scikit_learn(labelled, scoring, n_labels):
    X, y = labelled
    Y = (y[:, np.newaxis] >= np.arange(n_labels)).astype(int)
    Y[::5] = 0
    scores = cross_val_score(MLPClassifier(**SMALL), X, Y, cv=2, scoring=scoring, error_score="raise")
    assert np.isfinite(scores).all()
    model = MLPClassifier(**SMALL | {"early_stopping": True, "scoring": scoring}).fit(X, Y)
    assert model.classes_.tolist() == ([[0, 1], [0, 1]] if n_labels == 2 else [0, 1, 2])
    assert model.partial_fit(X, Y, classes=model.classes_).predict(X).shape == Y.shape


def test_several_labels_are_predicted_out_of_fold(labelled):
    X, y = labelled
    Y = (y[:, np.newaxis] == np.arange(2)).astype(int)
    assert cross_val_predict(MLPClassifier(**SMALL), X, Y, cv=2, method="predict_proba").shape == Y.shape


def test_partial_fit_takes_the_names_of_several_labels_again(labelled):
    X, y = labelled
    Y = np.stack([y == 0, y == 1, y == 2], axis=1).astype(int)
    model = MLPClassifier(**SMALL)
    for _ in range(2):
        model.partial_fit(X, Y, classes=["c", "a", "b"])
    assert model.classes_.tolist() == ["c", "a", "b"]
    with pytest.raises(ValueError, match="not the same as on the last call"):
        model.partial_fit(X, Y, classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"y": [0, 1], "classes": []}, "classes must name all labels"),
        ({"y": [0, 1], "classes": [0, 1, 3]}, r"is not the same as on the last call to partial_fit"),
        ({"y": [0, 3]}, r"does not know: \[3\]"),
        ({"y": ["0", "1"]}, "does not know"),
        ({"y": [[0, 1], [1, 0]]}, "fitted on one label per sample"),
        ({"y": [0, 1], "X": [[0.0], [1.0]]}, "X has 1 features, but MLPClassifier is expecting 6"),
        ({"y": [0, 1], "sample_weight": [1.0, -1.0]}, "Negative values"),
    ],
)
def test_partial_fit_refuses_what_does_not_match(labelled, call, message):
    model = MLPClassifier(**SMALL).partial_fit(*labelled, classes=[0, 1, 2])
    before = model.predict_proba(labelled[0])
    with pytest.raises(ValueError, match=message):
        model.partial_fit(**{"X": labelled[0][:2]} | call)
    assert_array_equal(model.predict_proba(labelled[0]), before)


def test_first_partial_fit_refuses_labels_that_classes_lacks(labelled):
    with pytest.raises(ValueError, match=r"does not know: \[1, 2\]"):
        MLPClassifier(**SMALL).partial_fit(*labelled, classes=[0, 9])


def test_partial_fit_for_regression_needs_no_classes(valued):
    X, y = valued
    model = MLPEstimator(task="regression", **SMALL).partial_fit(X, y, classes=None)
    with pytest.raises(ValueError, match="classes"):
        model.partial_fit(X, y, classes=[0, 1])


def test_partial_fit_goes_on_from_a_fit(labelled):
    X, y = labelled
    model = MLPClassifier(**SMALL | {"max_epochs": 40}).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(learning_rate=1e-6).partial_fit(X, y)
    assert_allclose(model.predict_proba(X), before, atol=1e-3)
    assert np.any(model.predict_proba(X) != before)


# --- randomness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True}, {"n_members": 3}, {"dropout": 0.5, "batch_size": 8}]
)
def test_same_seed_same_result(labelled, settings):
    X, y = labelled
    model = MLPClassifier(**SMALL | settings)
    p = model.fit(X, y).predict_proba(X)
    assert_array_equal(clone(model).fit(X, y).predict_proba(X), p)
    assert_array_equal(model.fit(X, y).predict_proba(X), p)
    assert np.any(clone(model).set_params(random_state=1).fit(X, y).predict_proba(X) != p)


def test_a_generator_moves_on_from_fit_to_fit(labelled):
    X, y = labelled
    state = np.random.RandomState(3)
    first, second, third = (
        MLPClassifier(**SMALL | {"random_state": generator}).fit(X, y).predict_proba(X)
        for generator in (state, state, np.random.RandomState(3))
    )
    assert_array_equal(first, third)
    assert np.any(first != second)


def test_members_differ(valued):
    X, y = valued
    network = MLPRegressor(**SMALL | {"n_members": 2}).fit(X, y).network_
    first, second = (member.linear_layers[0].weight.detach().numpy() for member in network.members)
    assert np.all(first != second)


def levels(n):
    return pd.DataFrame({"level": [f"level {i % 50}" for i in range(n)], "x": np.arange(n, dtype=float)})


@pytest.mark.parametrize("settings", [{}, {"early_stopping": True, "n_members": 2}, {"dropout": 0.5}])
@pytest.mark.parametrize("as_frame", [False, True])
def test_global_random_states_are_left_alone(labelled, settings, as_frame):
    X, y = labelled
    X = levels(100) if as_frame else X
    before = np.random.get_state(), torch.get_rng_state(), random.getstate()
    model = MLPClassifier(**SMALL | settings).fit(X, y)
    model.predict(X)
    model.partial_fit(X, y)
    after = np.random.get_state(), torch.get_rng_state(), random.getstate()
    assert_array_equal(before[0][1], after[0][1])
    assert before[0][2:] == after[0][2:]
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]


@contextlib.contextmanager
def other_default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def other_default_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("surroundings", [other_default_device, other_default_precision, lambda: torch.autocast("cpu")])
@pytest.mark.parametrize("Estimator", [MLPClassifier, CNNClassifier, RNNClassifier, DeepImputer])
def test_fit_and_predict_are_the_same_in_other_surroundings(labelled, Estimator, surroundings):
    X, y = labelled

    def said():
        model = Estimator(max_epochs=2, n_members=2, random_state=0, device="cpu").fit(X, y)
        if Estimator is DeepImputer:
            holes = np.where(np.arange(X.size).reshape(X.shape) % 7 == 0, np.nan, X)
            return model.transform(holes), model.sample(holes, 1, random_state=0)[0], model.imputation_std(holes)
        explained = [model.explain(X[:2])] if hasattr(model, "explain") else []
        return model.predict_proba(X), *explained, model.partial_fit(X, y).predict_proba(X)

    expected = said()
    with surroundings():
        given = said()
    for one, other in zip(expected, given, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_thread_count_is_left_alone(labelled, n_threads):
    def fail(z, t):
        raise RuntimeError

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        model = MLPClassifier(**SMALL).fit(*labelled)
        model.predict(labelled[0])
        assert torch.get_num_threads() == n_threads
        with pytest.raises(RuntimeError):
            MLPClassifier(**SMALL, loss=fail).fit(*labelled)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("settings", [{}, {"normalization": "batch"}, {"activation": torch.sin}, {"n_members": 2}])
def test_default_precision_of_torch_has_no_say(labelled, settings):
    X, y = labelled
    expected = MLPClassifier(**SMALL | settings).fit(X, y).predict_proba(X)
    torch.set_default_dtype(torch.float64)
    try:
        assert_array_equal(MLPClassifier(**SMALL | settings).fit(X, y).predict_proba(X), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_grad_mode_is_left_alone(labelled):
    MLPClassifier(**SMALL).fit(*labelled).predict(labelled[0])
    assert torch.is_grad_enabled()
    with torch.no_grad():
        MLPClassifier(**SMALL, activation=torch.sin).fit(*labelled)
        assert not torch.is_grad_enabled()


def cross_entropies(output, target):
    return torch.nn.functional.cross_entropy(output, target, reduction="none")


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (MLPClassifier(**SMALL, loss=cross_entropies), (6,)),
        (CNNClassifier(max_epochs=2, random_state=0), (6, 6)),
        (RNNClassifier(max_epochs=2, random_state=0), (2, 12)),
        (RNNClassifier(max_epochs=2, random_state=0, loss=cross_entropies), (2, 12)),
    ],
    ids=["mlp", "cnn", "rnn", "rnn with a loss"],
)
def test_networks_are_trained_without_a_callers_gradients(model, shape, mode):
    X, y = np.random.RandomState(0).normal(size=(45, *shape)), np.arange(45) % 3
    expected = clone(model).fit(X, y).predict_proba(X)
    with mode():
        model = clone(model).fit(X, y)
        assert_array_equal(model.predict_proba(X), expected)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        if hasattr(model, "explain"):
            model.explain(X[:2], method="integrated_gradients")
    # What such a fit leaves behind can be trained on.
    assert not any(parameter.is_inference() for parameter in model.network_.parameters())
    model.partial_fit(X, y)


# --- training that fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("settings", [{}, {"n_members": 2}, {"early_stopping": True}])
def test_divergence_in_the_first_epoch_is_an_error(labelled, valued, Estimator, settings):
    data = labelled if Estimator is MLPClassifier else valued
    with pytest.raises(ValueError, match=r"not finite in epoch 1\. Lower learning_rate \(it is 1e\+30\)"):
        Estimator(**SMALL | settings | {"learning_rate": 1e30, "optimizer": "sgd"}).fit(*data)


def test_divergence_keeps_the_last_good_parameters(valued):
    X, y = valued
    calls = []

    def loss(output, target):
        calls.append(len(calls))
        return (output - target) ** 2 * (np.nan if len(calls) > 3 else 1)

    model = MLPRegressor(**PLAIN, loss=loss, batch_size=100)
    with pytest.warns(ConvergenceWarning, match=r"not finite in epoch 4\. The parameters of epoch 3 are kept") as seen:
        model.fit(X, y)
    # It points at the line that called fit.
    assert seen[0].filename == __file__
    short = MLPRegressor(**PLAIN | {"max_epochs": 3}, loss=lambda o, t: (o - t) ** 2, batch_size=100).fit(X, y)
    assert_array_equal(model.predict(X), short.predict(X))


def test_a_last_step_that_blows_up_is_not_silent(valued):
    # The loss of an epoch is taken before its steps, so it does not tell of the last one.
    with pytest.raises(ValueError, match=r"Lower learning_rate \(it is 1e\+30\)"):
        MLPRegressor(**SMALL | {"max_epochs": 1, "learning_rate": 1e30}, batch_size=100).fit(*valued)


def test_a_failed_refit_does_not_leave_half_a_model(labelled, valued):
    model = MLPRegressor(**SMALL).fit(*valued)
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(learning_rate=1e30, optimizer="sgd").fit(valued[0][:, :3], valued[1])
    # Either of the two models would do; a mixture of both would not.
    for n_features in (3, 6):
        with contextlib.suppress(ValueError):
            assert np.isfinite(model.predict(valued[0][:, :n_features])).all()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda o, t: 3, "must return one loss per sample"),
        (lambda o, t: ((o - t) ** 2).mean(), "reduction='none'"),
        (lambda o, t: ((o - t) ** 2)[:5], "must return one loss per sample"),
        (lambda o, t: t * 1.0, "does not depend on its first argument"),
        (lambda o, t: (o > t).long(), "does not depend on its first argument"),
        (torch.nn.MSELoss, r"MSELoss is a class. Pass a function, or an instance such as MSELoss\(reduction='none'\)"),
    ],
)
def test_losses_that_are_none(valued, loss, message):
    with pytest.raises(ValueError, match=message):
        MLPRegressor(**SMALL, loss=loss).fit(*valued)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (torch.nn.ReLU(), "module class"),
        (torch.nn.PReLU, "parameters of its own"),
        (torch.nn.BatchNorm1d, "cannot be created without arguments: .* Pass a class that needs none"),
        (lambda z: 3, "tensor of the shape it was given"),
        (lambda z: z[:, :1], "tensor of the shape it was given"),
        (lambda z: z.detach(), "activation"),
        (np.sin, "activation"),
    ],
)
def test_activations_that_are_none(valued, activation, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MLPRegressor(**SMALL, activation=activation).fit(*valued)


@pytest.mark.parametrize("activation", [torch.sin, torch.nn.Hardswish, torch.nn.functional.softsign])
def test_activations_of_the_user(valued, activation):
    X, y = valued
    model = MLPRegressor(**SMALL | {"max_epochs": 60}, activation=activation).fit(X, y)
    assert model.score(X, y) > 0.8


def test_first_partial_fit_warns_of_few_rows(valued):
    X, y = valued
    with pytest.warns(UserWarning, match="fixes the scales .* n_samples=2. Begin with a batch"):
        MLPRegressor(**SMALL).partial_fit(X[:2], y[:2])


def test_a_class_without_weight_is_a_class(labelled):
    X, y = labelled
    classifier = MLPClassifier(**SMALL | {"max_epochs": 40}).fit(X, y, sample_weight=(y > 0).astype(float))
    assert_array_equal(classifier.classes_, [0, 1, 2])
    assert classifier.predict_proba(X).shape == (len(X), 3)
    assert not np.any(classifier.predict(X) == 0)


@pytest.mark.parametrize("n_rows", [2, 5])
def test_early_stopping_on_few_rows_takes_no_more_members_than_rows(valued, n_rows):
    X, y = valued
    regressor = MLPRegressor(early_stopping=True, max_epochs=2, random_state=0).fit(X[:n_rows], y[:n_rows])
    assert len(regressor.network_.members) == n_rows
