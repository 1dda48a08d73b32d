"""Encoded columns scaled by their correlation with the target, for each network by the rows that it trains on."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_classification, make_friedman1

from skdl import MLPClassifier, MLPRegressor
from skdl.data.table import DenseTable
from skdl.engine.job import Job, Result, Samples, Settings, State
from skdl.estimators.tables import relevance
from skdl.estimators.tables.relevance import FACTOR_BOUNDS, relevance_factors

SETTINGS = {
    "hidden_layer_sizes": (16,),
    "max_epochs": 8,
    "learning_rate": 0.01,
    "numeric_embedding": None,
    "early_stopping": True,
    "n_members": 3,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(3, 2, size=(80, 300))


@pytest.fixture(scope="module")
def labelled():
    return make_classification(120, 6, n_informative=3, n_redundant=0, n_classes=3, n_clusters_per_class=1)


def expected(x, targets):
    squares = np.max([[np.corrcoef(column, target)[0, 1] ** 2 for column in x.T] for target in targets], axis=0)
    squares += 1 / len(x)
    return np.sqrt(squares / squares.mean()).clip(*FACTOR_BOUNDS)


def factors(x, y, weight=None):
    weight = None if weight is None else torch.as_tensor(weight)
    return relevance_factors(torch.as_tensor(x), torch.as_tensor(y), weight).numpy()


# --- factors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_factors_are_of_correlations(x, scale):
    y = x[:, 0] + np.random.default_rng(1).normal(size=80) + 5
    found = factors(x, scale * y)
    assert_allclose(found, expected(x, [y]), rtol=1e-10)
    assert found.argmax() == 0


def test_of_several_targets_the_one_counts_that_a_column_tells_most_of(x):
    y = np.column_stack([x[:, 0], 100 * x[:, 1] - x[:, 2]])
    assert_allclose(factors(x, y), expected(x, y.T))


@pytest.mark.parametrize("n_classes", [2, 5])
def test_labels_are_taken_one_against_the_rest(x, n_classes):
    y = np.random.default_rng(1).integers(n_classes, size=80)
    assert_allclose(factors(x, y), expected(x, [y == label for label in np.unique(y)]))


def test_rows_of_next_to_no_weight_have_no_say(x):
    weight = np.where(np.arange(80) < 40, 1.0, 1e-12)
    y = np.where(np.arange(80) < 40, x[:, 0], x[:, 1])
    assert_allclose(factors(x, y, weight), factors(x[:40], y[:40]), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_columns_of_one_value_say_nothing(value):
    x = np.full((1000, 30), value)
    x[:, 0] = np.arange(1000) % 2
    found = factors(x, np.arange(1000) % 2)
    assert_allclose(found[0], FACTOR_BOUNDS[1])
    assert_allclose(found[1:], FACTOR_BOUNDS[0])


def test_a_target_of_one_value_makes_no_difference(x):
    assert_allclose(factors(x, np.full(80, 0.1)), 1)
    assert_allclose(factors(x, np.zeros(80, dtype=int)), 1)


# --- fits ------------------------------------------------------------------------------------------------------------


def test_columns_that_say_more_are_learned_first():
    rng = np.random.default_rng(0)
    X, X_test = rng.normal(size=(2, 400, 200))
    y, y_test = (np.sign(X[:, 0] + X[:, 1] + X[:, 2]) for X in (X, X_test))
    scores = [
        MLPClassifier(**SETTINGS | {"max_epochs": 40}, relevance_scaling=scales).fit(X, y).score(X_test, y_test)
        for scales in (False, True)
    ]
    assert scores[1] > scores[0] + 0.05


def test_noise_is_not_predicted_for_rows_that_are_held_out():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 200)), rng.integers(2, size=300)
    model = MLPClassifier(**SETTINGS | {"max_epochs": 30}, relevance_scaling=True).fit(X, y)
    # A standard error is 0.03. Correlations that knew of held-out rows as well would lift it further.
    assert np.mean(model.out_of_fold_.argmax(axis=1) == y) < 0.59


@pytest.mark.parametrize("hidden", [(16,), ()])
def test_networks_take_encoded_rows_as_they_are(labelled, hidden):
    X, y = labelled
    seen = []
    model = MLPClassifier(**SETTINGS | {"hidden_layer_sizes": hidden}, relevance_scaling=True)
    model.fit(X, y)
    of_members = np.stack([model._task.probabilities(outputs) for outputs in model._member_outputs(X)])
    # What training saw of each held-out row is what the finished network says of it.
    seen = np.isclose(of_members, model.out_of_fold_, atol=1e-5).all(axis=2)
    assert seen.any(axis=0).all()
    assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


def test_scorers_and_the_finished_fit_see_the_same_networks(labelled):
    X, y = labelled
    settings = SETTINGS | {"n_members": 1, "max_epochs": 1}
    weights = []

    def scorer(model, X, y):
        weights.append(model.coefs_[0])
        return 0.0

    model = MLPClassifier(**settings, relevance_scaling=True, scoring=scorer).fit(X, y)
    assert_allclose(weights[0], model.coefs_[0])


def test_training_goes_on_from_the_networks_as_they_are(labelled):
    X, y = labelled
    settings = SETTINGS | {"early_stopping": False, "lr_schedule": "constant", "dropout": 0.0}
    # With steps too small to see, the second fit must leave the predictions where they are.
    model = MLPClassifier(**settings, relevance_scaling=True, warm_start=True).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(learning_rate=1e-9).fit(X, y)
    assert_allclose(model.predict_proba(X), before, atol=1e-5)


BRIEF = {"n_members": 2, "max_epochs": 2, "numeric_embedding": "piecewise_linear", "random_state": 0}


def networks_equal(model, other, X):
    return np.array_equal(model._member_outputs(X), other._member_outputs(X))


@pytest.mark.parametrize(("n_noise", "scales"), [(0, False), (15, True)])
def test_auto_is_for_tables_with_many_columns_of_noise(n_noise, scales):
    X, y = make_friedman1(400, 5 + n_noise, random_state=0)
    for table in (X, pd.DataFrame(X)):
        model = MLPRegressor(**BRIEF).fit(table, y)
        assert model.relevance_scaling_ == scales
        assert networks_equal(model, MLPRegressor(**BRIEF, relevance_scaling=scales).fit(table, y), table)
        assert not networks_equal(model, MLPRegressor(**BRIEF, relevance_scaling=not scales).fit(table, y), table)
    X_val, y_val = make_friedman1(200, 5 + n_noise, random_state=1)
    assert MLPRegressor(**BRIEF).fit(X, y, X_val=X_val, y_val=y_val).relevance_scaling_ == scales


@pytest.mark.parametrize("parameters", [{"early_stopping": False}, {"numeric_embedding": None}])
def test_auto_needs_validation_rows_and_bins(parameters):
    # Nine columns are too few to tell noise from what counts without a trial.
    X, y = make_friedman1(2000, 9, random_state=0)
    y = 10 * X[:, 0]
    assert not MLPRegressor(**BRIEF | parameters).fit(X, y).relevance_scaling_
    assert MLPRegressor(**BRIEF).fit(X, y).relevance_scaling_


def test_auto_is_for_many_columns_in_classification():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=300)
    X = y[:, None] + rng.normal(size=(300, 51))
    assert MLPClassifier(**BRIEF).fit(X, y).relevance_scaling_
    assert not MLPClassifier(**BRIEF).fit(X[:, :50], y).relevance_scaling_


def test_a_fit_that_goes_on_scales_as_before():
    X, y = make_friedman1(400, 85, random_state=0)
    model = MLPRegressor(**BRIEF, warm_start=True).fit(X, y)
    assert model.fit(X[:, ::-1], y).relevance_scaling_


@pytest.mark.parametrize("constant", [0.0, -5.0])
def test_losses_below_zero_are_compared_as_others_are(constant):
    X, y = make_friedman1(400, 5, random_state=0)

    def loss(output, target):
        return (output - target) ** 2 / 2 + constant

    assert not MLPRegressor(**BRIEF, loss=loss).fit(X, y).relevance_scaling_


def test_a_fit_after_an_interrupted_one_tries_anew(monkeypatch):
    X, y = make_friedman1(2000, 9, random_state=0)
    y = 10 * X[:, 0]
    model = MLPRegressor(**BRIEF, warm_start=True)
    submit = relevance.submit
    monkeypatch.setattr(
        relevance, "submit", lambda jobs: [Result(State(torch.empty(0)), [], "interrupted", 0)] * len(jobs)
    )
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, y)
    monkeypatch.setattr(relevance, "submit", submit)
    assert not model.relevance_scaling_ and model.fit(X, y).relevance_scaling_


def test_the_trial_is_not_seen_by_callbacks_and_history():
    X, y = make_friedman1(400, 5, random_state=0)
    epochs = []

    class Note:
        def on_fit_task_end(self, estimator, context, **kwargs):
            epochs.append(context.task_name)

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, **kwargs):
            pass

    model = MLPRegressor(**BRIEF).set_callbacks(Note()).fit(X, y)
    assert len(model.history_) == 2 and len(epochs) == 3


def test_an_interrupted_trial_ends_the_fit(monkeypatch):
    X, y = make_friedman1(400, 5, random_state=0)

    def interrupted(jobs):
        return [Result(State(torch.empty(0)), [], "interrupted", 0) for _ in jobs]

    monkeypatch.setattr(relevance, "submit", interrupted)
    with pytest.warns(UserWarning, match="interrupted after 0 epochs"):
        model = MLPRegressor(**BRIEF).fit(X, y)
    assert np.isfinite(model.predict(X)).all()


def test_sparse_matrices_and_tables_without_encoded_columns_are_left_alone(labelled):
    X, y = labelled
    for table in (sp.csr_array(X), pd.DataFrame({"t": [f"level {i}" for i in range(120)]})):
        fits = [MLPClassifier(**SETTINGS, relevance_scaling=scales).fit(table, y) for scales in (False, True)]
        assert_array_equal(fits[0].predict_proba(table), fits[1].predict_proba(table))


def test_periodic_columns_keep_their_scale(labelled):
    X, y = labelled
    settings = SETTINGS | {"numeric_embedding": "periodic"}
    fits = [MLPClassifier(**settings, relevance_scaling=scales).fit(X, y) for scales in (False, True)]
    assert_array_equal(fits[0].predict_proba(X), fits[1].predict_proba(X))


def test_relevance_scaling__when_rows_come_in_a_rhythm__then_the_column_that_matters_is_found(monkeypatch):
    monkeypatch.setattr(relevance, "RELEVANCE_ROWS", 100)
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = rng.normal(size=(400, 4)).astype(np.float32)
    X[:, 0] += 3 * y
    job = Job(None, Settings(), Samples(DenseTable(torch.from_numpy(X)), torch.from_numpy(y)), seed=0)
    (scaled,) = relevance.scaled_jobs([job])
    assert scaled.train.factors_D.argmax() == 0 and scaled.train.factors_D[0] > 1.5
