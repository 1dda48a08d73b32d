"""Out-of-fold predictions, and the standard deviations that come of them and of the members' disagreement."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification, make_friedman1
from sklearn.metrics import r2_score

from skdl import MLPClassifier, MLPEstimator, MLPRegressor, RNNRegressor

SMALL = {
    "hidden_layer_sizes": (16,),
    "max_epochs": 40,
    "learning_rate": 0.01,
    "numeric_embedding": None,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def valued():
    return make_friedman1(400, noise=1.0, random_state=0)


@pytest.fixture(scope="module")
def labelled():
    return make_classification(150, 6, n_informative=4, n_classes=3, class_sep=2.0, random_state=0)


@pytest.mark.parametrize("n_members", [2, 5])
def test_cross_fitted_members_predict_every_row_once(labelled, n_members):
    X, y = labelled
    model = MLPClassifier(**SMALL, early_stopping=True, n_members=n_members).fit(X, y)
    assert model.out_of_fold_.shape == (150, 3)
    assert_allclose(model.out_of_fold_.sum(axis=1), 1)
    # Each row's prediction is that of exactly one member, and of the one that did not train on it.
    of_members = np.stack([_predicted_by(model, member, X) for member in range(n_members)])
    matches = np.isclose(of_members, model.out_of_fold_, atol=1e-6).all(axis=2)
    assert matches.any(axis=0).all()
    accuracy = np.mean(model.out_of_fold_.argmax(axis=1) == y)
    assert 0.5 < accuracy <= model.score(X, y)


def _predicted_by(model, member, X):
    outputs = model._member_outputs(X)[member]
    return model._task.probabilities(outputs)


def test_regressors_predict_held_out_rows_in_the_units_of_y(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, n_members=4).fit(X, 1000 * y + 5)
    assert model.out_of_fold_.shape == (400,)
    assert np.corrcoef(model.out_of_fold_, y)[0, 1] > 0.8


def test_a_lone_network_leaves_the_rows_it_trained_on_empty(valued):
    model = MLPRegressor(**SMALL, n_members=1, early_stopping=True, validation_fraction=0.2).fit(*valued)
    assert np.isfinite(model.out_of_fold_).sum() == 80


def test_several_targets_have_a_column_each(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, n_members=3).fit(X, np.column_stack([y, -y]))
    mean, std = model.predict(X, return_std=True)
    assert model.out_of_fold_.shape == mean.shape == std.shape == (400, 2)


@pytest.mark.parametrize("how", ["no early stopping", "own validation rows", "partial_fit"])
def test_without_held_out_rows_there_are_no_such_predictions(valued, how):
    X, y = valued
    model = MLPRegressor(**SMALL, early_stopping=how == "own validation rows", n_members=2)
    if how == "own validation rows":
        model.fit(X, y, X_val=X[:50], y_val=y[:50])
    else:
        model.fit(X, y)
    if how == "partial_fit":
        model = MLPRegressor(**SMALL, n_members=2).fit(X, y).partial_fit(X, y)
    assert model.out_of_fold_ is None


def test_standard_deviation_has_the_size_of_new_errors():
    X, y = make_friedman1(2000, noise=1.0, random_state=0)
    model = MLPRegressor(hidden_layer_sizes=(32,), max_epochs=30, random_state=0).fit(X[:1000], y[:1000])
    mean, std = model.predict(X[1000:], return_std=True)
    assert_array_equal(mean, model.predict(X[1000:]))
    # The variance is what is promised; how errors are distributed is up to the data.
    ratio = np.sqrt(np.mean((y[1000:] - mean) ** 2) / np.mean(std**2))
    assert 0.85 < ratio < 1.15


def test_standard_deviation_is_larger_where_nothing_is_known(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, n_members=4).fit(X, y)
    _, near = model.predict(X, return_std=True)
    _, far = model.predict(X * 10, return_std=True)
    assert far.mean() > near.mean()


def test_members_alone_give_their_disagreement(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, early_stopping=False, n_members=3).fit(X, y)
    with pytest.warns(UserWarning, match="only the disagreement among the networks"):
        mean, std = model.predict(X, return_std=True)
    members = np.stack([model._task.decode(outputs) for outputs in model._member_outputs(X)])
    assert_allclose(mean, members.mean(axis=0))
    assert_allclose(std, members.std(axis=0, ddof=1))


def test_held_out_rows_alone_give_their_error(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, early_stopping=True, n_members=1).fit(X, y)
    _, std = model.predict(X, return_std=True)
    known = np.isfinite(model.out_of_fold_)
    assert_allclose(std, np.sqrt(np.mean((y - model.out_of_fold_)[known] ** 2)))


@pytest.mark.parametrize("n_members", [1, 3])
def test_validation_rows_of_ones_own_give_their_error(valued, n_members):
    X, y = valued
    model = MLPRegressor(**SMALL, n_members=n_members).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    mean, std = model.predict(X[200:], return_std=True)
    # What is promised is the variance of errors, over the rows.
    assert np.mean(std**2) == pytest.approx(np.mean((mean - y[200:]) ** 2), rel=1e-5)


def test_rows_that_all_networks_held_out_count_as_validation_rows(valued):
    X, y = valued[0][:150], valued[1][:150]
    small = {"max_epochs": 4, "hidden_size": 8, "stem": None, "skip": None, "n_members": 4}
    model = RNNRegressor(**small, early_stopping=True, random_state=0)
    by_time = clone(model).set_params(validation="time", validation_fraction=0.2).fit(X, y)
    first = int(np.isnan(by_time.out_of_fold_).sum())
    given = clone(model).fit(X[:first], y[:first], X_val=X[first:], y_val=y[first:])
    for one, other in zip(by_time.predict(X, True), given.predict(X, True), strict=True):
        # The disagreement is that on the rows of X here and on the validation rows there.
        assert_allclose(one, other, rtol=0.01)


def test_standard_deviation_of_nothing_is_refused_with_the_remedy(valued):
    model = MLPRegressor(**SMALL, early_stopping=False, n_members=1).fit(*valued)
    with pytest.raises(ValueError, match="with early_stopping=True, or with X_val and y_val"):
        model.predict(valued[0], return_std=True)


def test_standard_deviation_after_partial_fit_keeps_the_errors_of_the_fit(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, n_members=3, early_stopping=True).fit(X, y)
    unexplained = model._unexplained
    model.partial_fit(X, y)
    _, std = model.predict(X, return_std=True)
    members = np.stack([model._task.decode(outputs) for outputs in model._member_outputs(X)])
    assert_allclose(std, np.sqrt(members.var(axis=0, ddof=1) + unexplained))
    # Another fit without such rows forgets them.
    with pytest.warns(UserWarning, match="only the disagreement among the networks"):
        model.set_params(early_stopping=False).fit(X, y).predict(X, return_std=True)


def test_standard_deviation_of_partial_fits_alone_is_the_disagreement(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, n_members=3).partial_fit(X, y)
    with pytest.warns(UserWarning, match="only the disagreement among the networks"):
        _, std = model.predict(X, return_std=True)
    members = np.stack([model._task.decode(outputs) for outputs in model._member_outputs(X)])
    assert_allclose(std, members.std(axis=0, ddof=1))
    with pytest.raises(ValueError, match="errors on rows that the network did not train on"):
        MLPRegressor(**SMALL, n_members=1).partial_fit(X, y).predict(X, return_std=True)


def test_standard_deviation_is_for_regression(labelled, valued):
    with pytest.raises(ValueError, match="return_std=True is for regression"):
        MLPEstimator(**SMALL).fit(*labelled).predict(labelled[0], return_std=True)
    mean, std = MLPEstimator(task="regression", **SMALL).fit(*valued).predict(valued[0], return_std=True)
    assert mean.shape == std.shape == (400,) and (std > 0).all()


def test_weights_count_in_the_held_out_error(valued):
    X, y = valued
    y = np.where(np.arange(400) < 200, y, y + np.random.default_rng(0).normal(0, 20, 400))
    weight = np.where(np.arange(400) < 200, 1.0, 1e-6)
    parameters = SMALL | {"early_stopping": True, "n_members": 4}
    plain = MLPRegressor(**parameters).fit(X, y)
    weighted = MLPRegressor(**parameters).fit(X, y, sample_weight=weight)
    assert weighted.predict(X[:200], return_std=True)[1].mean() < plain.predict(X[:200], return_std=True)[1].mean() / 2


@pytest.mark.parametrize("n_targets", [1, 2])
def test_weights_count_in_the_disagreement_that_explains_errors(valued, n_targets):
    X, y = valued
    # The networks disagree most on rows far from the others, which hardly weigh anything.
    X = np.where(np.arange(400)[:, None] < 200, X, 5 * X)
    y = y if n_targets == 1 else np.column_stack([y, y[::-1]])
    weight = np.where(np.arange(400) < 200, 1.0, 1e-3)
    model = MLPRegressor(**SMALL, early_stopping=True, n_members=4).fit(X, y, sample_weight=weight)
    members = np.stack([model._task.decode(outputs) for outputs in model._member_outputs(X)])
    spread = members.var(axis=0, ddof=1)
    error = np.average((y - model.out_of_fold_) ** 2, axis=0, weights=weight)
    # Errors are of single networks, each of which differs from the others; the mean of four keeps a quarter of that.
    unexplained = np.maximum(error - (2 - 1 / 4) * np.average(spread, axis=0, weights=weight), 0)
    assert np.all(unexplained > 0)
    assert_allclose(model.predict(X, return_std=True)[1], np.sqrt(spread + unexplained))


@pytest.mark.parametrize("quantiles", [{"quantile": 0.9}, {"quantiles": (0.1, 0.9)}])
def test_quantiles_have_no_standard_deviation(quantiles):
    X, y = make_friedman1(60, random_state=0)
    model = MLPRegressor(loss="quantile", **quantiles, max_epochs=2).fit(X, y)
    with pytest.raises(ValueError, match="loss='quantile' predicts quantiles"):
        model.predict(X, return_std=True)


LEVELS = (0.1, 0.5, 0.9)


@pytest.mark.parametrize("make", [MLPRegressor, lambda **settings: MLPEstimator(task="regression", **settings)])
def test_bands_do_not_cross_and_hold_their_share(make):
    X, y = make_friedman1(1400, noise=1.0, random_state=1)
    model = make(**SMALL, loss="quantile", quantiles=LEVELS, n_members=4).fit(X[:400], y[:400])
    bands = model.predict(X[400:])
    assert bands.shape == (1000, 3) and (np.diff(bands, axis=1) >= 0).all()
    assert_allclose((y[400:, None] <= bands).mean(axis=0), LEVELS, atol=0.05)
    assert model.score(X[400:], y[400:]) == r2_score(y[400:], bands[:, 1])


def shares_below(y, predicted, weight):
    return np.average(y[:, None] <= predicted + 1e-9, axis=0, weights=weight)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_quantiles_are_shifted_to_their_share_of_held_out_rows(valued, is_weighted):
    X, y = valued
    weight = np.random.RandomState(0).uniform(1, 3, 400) if is_weighted else None
    model = MLPRegressor(**SMALL, loss="quantile", quantiles=LEVELS, n_members=2).fit(X, y, sample_weight=weight)
    shift = model._task.shift[0]
    assert np.all(np.abs(shift) > 0.01)
    assert_allclose(shares_below(y, model.out_of_fold_ + shift, weight), LEVELS, atol=0.01)
    single = MLPRegressor(**SMALL, loss="quantile", quantile=0.9, n_members=2).fit(X, y, sample_weight=weight)
    shifted = single.out_of_fold_ + single._task.shift[0]
    assert_allclose(shares_below(y, shifted[:, None], weight), 0.9, atol=0.01)


@pytest.mark.parametrize("levels", [LEVELS, (0.4, 0.45, 0.5, 0.55, 0.6)])
def test_quantiles_are_shifted_to_their_share_of_validation_rows(valued, levels):
    X, y = valued
    targets = np.column_stack([y, -y])
    # So few epochs that close quantiles cross.
    model = MLPRegressor(**SMALL | {"max_epochs": 5}, loss="quantile", quantiles=levels)
    model.fit(X[:200], targets[:200], X_val=X[200:], y_val=targets[200:])
    bands = model.predict(X[200:])
    assert bands.shape == (200, 2, len(levels))
    assert_allclose((targets[200:, :, None] <= bands + 1e-3).mean(axis=0), [levels] * 2, atol=0.03)


def test_tails_of_few_rows_are_not_shifted(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, loss="quantile", quantiles=(0.1, 0.5, 0.9), n_members=2)
    assert np.all(model.fit(X[:50], y[:50])._task.shift != 0)
    assert (model.fit(X[:49], y[:49])._task.shift != 0).tolist() == [[False, True, False]]
    # So few count that none has a tail.
    weight = np.where(np.arange(400) < 5, 1.0, 1e-9)
    assert np.all(model.fit(X, y, sample_weight=weight)._task.shift == 0)


def test_a_fit_that_goes_on_begins_without_a_shift(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, loss="quantile", quantile=0.9, n_members=2, warm_start=True).fit(X, y)
    assert model._task.shift > 0
    model.fit(X, y)
    shifted = model.out_of_fold_ + model._task.shift[0]
    assert_allclose(shares_below(y, shifted[:, None], None), 0.9, atol=0.01)


def test_a_shift_stays_in_partial_fit_and_is_that_of_its_quantile_alone(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, loss="quantile", quantile=0.9, n_members=2).fit(X, y)
    shift = model._task.shift
    assert shift > 0
    assert model.partial_fit(X, y)._task.shift == shift
    assert model.set_params(quantile=0.8).partial_fit(X, y)._task.shift == 0


def test_other_quantiles_cannot_continue_a_fit(valued):
    X, y = valued
    model = MLPRegressor(**SMALL, loss="quantile", quantiles=LEVELS, warm_start=True).fit(X, y)
    bands = model.predict(X)
    model.set_params(quantiles=(0.25, 0.75))
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"quantiles=\(0.25, 0.75\) cannot continue a fit of \(0.1, 0.5, 0.9\)"):
            go_on(X, y)
    # What was refused changed nothing.
    assert_array_equal(model.predict(X), bands)


def test_classification_does_not_use_quantiles(labelled):
    model = MLPEstimator(**SMALL | {"max_epochs": 2}, quantiles=(0.1, 0.9), scoring="accuracy", early_stopping=True)
    assert model.fit(*labelled).predict(labelled[0]).shape == (150,)
