"""Recurrent networks as estimators: what X may be, what a fit leaves behind, what padding must not change."""

import copy
import pickle
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer, mean_pinball_loss, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skdl import RNNClassifier, RNNRegressor, SeriesWithTable, train_together, window
from skdl.data.series.series_encoder import SeriesEncoder
from skdl.data.series.series_reading import series_values
from skdl.nn.recurrent import CELLS

SMALL = {
    "hidden_size": 6,
    "hidden_layer_sizes": (),
    "conv_channels": (4, 6),
    "max_epochs": 4,
    "learning_rate": 0.02,
    "n_members": 2,
    "random_state": 0,
}


def waves(n=48, n_steps=24, n_channels=2, seed=0):
    """Series of two classes, by the frequency of their first channel."""
    rng = np.random.RandomState(seed)
    y = np.arange(n) % 2
    phase = rng.uniform(0, 6, size=(n, 1))
    X = rng.normal(0, 0.3, size=(n, n_channels, n_steps))
    X[:, 0] += np.sin((0.4 + 0.5 * y[:, None]) * np.arange(n_steps) + phase)
    return X, y


def unequal(n=48, seed=0, shortest=12):
    X, y = waves(n, seed=seed)
    lengths = np.random.RandomState(seed + 1).randint(shortest, 25, size=n)
    return [x[:, :length] for x, length in zip(X, lengths, strict=True)], y


def padded(series, n_steps):
    X = np.full((len(series), len(series[0]), n_steps), np.nan)
    for row, one in enumerate(series):
        X[row, :, : one.shape[1]] = one
    return X


def walk(n=400, seed=0):
    """A daily wave on a random walk."""
    rng = np.random.RandomState(seed)
    return np.sin(np.arange(n) / 24 * 2 * np.pi) + np.cumsum(rng.normal(0, 0.1, n))


@pytest.fixture(scope="module")
def data():
    return waves()


@pytest.fixture(scope="module")
def fitted(data):
    return RNNClassifier(**SMALL).fit(*data)


@pytest.fixture(scope="module")
def windows():
    return window(walk(), lags=24, horizon=6, step=3)


@pytest.fixture(scope="module")
def forecaster(windows):
    return RNNRegressor(**SMALL).fit(*windows)


def networks_equal(one, other):
    pairs = zip(one.network_.state_dict().values(), other.network_.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def assert_networks_close(one, other, rtol=1e-10):
    for a, b in zip(one.network_.parameters(), other.network_.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(a.detach().abs().max()))


# --- what X may be ---------------------------------------------------------------------------------------------------

KINDS = {
    "time first": lambda X: (np.swapaxes(X, 1, 2), {"layout": "time_first"}),
    "list": lambda X: (list(X), {}),
    "list, time first": lambda X: ([x.T for x in X], {"layout": "time_first"}),
    "object array": lambda X: (np.array([*X, None], dtype=object)[:-1], {}),
    "tensor": lambda X: (torch.from_numpy(X), {}),
    "list of tensors": lambda X: ([torch.from_numpy(x) for x in X], {}),
    "padded with NaN": lambda X: (np.concatenate([X, np.full((*X.shape[:2], 5), np.nan)], axis=2), {}),
    "Fortran order": lambda X: (np.asfortranarray(X), {}),
}


@pytest.mark.parametrize(
    "settings", [{"skip": None}, {"stem": None, "skip": "linear"}, {"early_stopping": False, "n_members": 1}]
)
def test_one_long_series_among_short_ones_pads_none_of_them(monkeypatch, settings):
    X, y = unequal()
    model = RNNRegressor(**SMALL | settings).fit(X, y)
    table = pd.DataFrame({"kind": list("abc") * 16})
    beside = RNNClassifier(**SMALL | settings).fit((X, table), y)
    X = [*X[:10], np.tile(X[0], 200), *X[10:17]]
    calls = [model.predict, model.transform, lambda X: beside.predict_proba((X, table[: len(X)]))]
    alone = [np.concatenate([call([x]) for x in X]) for call in calls[:2]]
    alone.append(np.concatenate([beside.predict_proba(([x], table[row : row + 1])) for row, x in enumerate(X)]))
    steps = []
    transform = SeriesEncoder.transform

    def noted(encoder, series):
        steps.append(series.shape[0] * series.shape[2])
        return transform(encoder, series)

    monkeypatch.setattr(SeriesEncoder, "transform", noted)
    for call, expected in zip(calls, alone, strict=True):
        steps.clear()
        assert_allclose(call(X), expected, rtol=1e-5, atol=1e-6)
        assert sum(steps) <= X[10].shape[1] + 17 * 24


@pytest.mark.parametrize("kind", KINDS)
def test_equal_series_give_equal_probabilities(data, fitted, kind):
    given, parameters = KINDS[kind](data[0])
    model = RNNClassifier(**SMALL, **parameters).fit(given, data[1])
    assert_array_equal(model.predict_proba(given), fitted.predict_proba(data[0]))


@pytest.mark.parametrize("wrap", [pd.DataFrame, pl.DataFrame, lambda rows: rows.tolist()])
def test_rows_are_series_of_one_channel(wrap):
    X, y = waves(n_channels=1)
    expected = RNNClassifier(**SMALL).fit(X, y).predict_proba(X)
    rows = wrap(X[:, 0])
    assert_array_equal(RNNClassifier(**SMALL).fit(rows, y).predict_proba(rows), expected)


@pytest.mark.parametrize("cell", [list, pd.Series, pl.Series, torch.from_numpy])
def test_series_of_unequal_lengths_in_any_container(cell):
    X, y = unequal()
    one = [x[0] for x in X]
    expected = RNNClassifier(**SMALL).fit(one, y).predict_proba(one)
    given = [cell(x) for x in one]
    assert_array_equal(RNNClassifier(**SMALL).fit(given, y).predict_proba(given), expected)


@pytest.mark.parametrize("layout", ["channels_first", "time_first"])
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_are_series_with_a_row_a_step(data, frame, layout):
    X, y = data
    given = [frame({f"c{c}": channel for c, channel in enumerate(x)}) for x in X]
    model = RNNClassifier(**SMALL, layout=layout).fit(given, y)
    assert_array_equal(model.predict_proba(given), RNNClassifier(**SMALL).fit(X, y).predict_proba(X))


def test_frames_in_predict_have_the_columns_of_fit():
    X, y = waves(24)
    given = [pd.DataFrame({"a": x[0], "b": x[-1]}) for x in X]
    model = RNNClassifier(**SMALL).fit(given, y)
    with pytest.raises(ValueError, match=r"the columns \['b', 'a'\], but they were \['a', 'b'\] in fit"):
        model.predict([frame[["b", "a"]] for frame in given])
    with pytest.raises(ValueError, match=r"Series 23 of X has the columns \['b', 'a'\], but series 0 has \['a', 'b'\]"):
        RNNClassifier(**SMALL).fit([*given[:-1], given[-1][["b", "a"]]], y)
    # Arrays have no names to compare.
    assert_array_equal(model.predict([frame.to_numpy().T for frame in given]), model.predict(given))


@pytest.mark.parametrize("wrap", [lambda X: X, list])
def test_masked_steps_are_missing(data, wrap):
    X, y = data
    model = RNNClassifier(**SMALL).fit(X, y)
    mask = np.random.RandomState(0).random_sample(X.shape) < 0.3
    masked = np.ma.masked_array(np.where(mask, 999.0, X), mask)
    assert_array_equal(model.predict_proba(wrap(masked)), model.predict_proba(np.where(mask, np.nan, X)))


def test_series_of_several_precisions_have_the_highest(data):
    X, _ = data
    given = [X[0].astype(np.float32), *(1e8 + X[1:])]
    values = series_values(given, "channels_first")
    assert values.dtype == np.float64
    assert_array_equal(values[1:], given[1:])


def test_a_column_of_series_is_a_list_of_them(data):
    X, y = data
    model = RNNClassifier(**SMALL).fit(X[:, 0], y)
    column = pd.Series([x[0] for x in X])
    assert_array_equal(model.predict_proba(list(column)), model.predict_proba(column))


def test_a_table_without_columns_is_none(data):
    X, y = data
    expected = RNNClassifier(**SMALL).fit(X, y).predict_proba(X)
    table = pd.DataFrame(index=range(len(X)))
    assert_array_equal(RNNClassifier(**SMALL).fit((X, table), y).predict_proba((X, table)), expected)


def test_another_fit_forgets_the_names_of_columns(data):
    X, y = data
    model = RNNClassifier(**SMALL).fit(pd.DataFrame(X[:, 0]).add_prefix("t"), y)
    assert model.n_features_in_ == 24
    model.fit(list(X), y)
    assert not hasattr(model, "n_features_in_") and not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("static", [np.array, pd.DataFrame, lambda t: pd.DataFrame(t).assign(c=list("xyz") * 16)])
def test_a_table_beside_the_series_is_learned_from(static):
    X, _ = waves()
    table = np.random.RandomState(0).normal(size=(48, 2))
    y = (table[:, 0] > 0).astype(int)
    model = RNNClassifier(**SMALL | {"max_epochs": 20}).fit((X, static(table)), y)
    assert model.score((X, static(table)), y) > 0.9 and model.n_static_ == static(table).shape[1]
    with pytest.raises(ValueError, match=r"had \d in fit. Pass X as \(series, table\)"):
        model.predict(X)


def test_a_table_beside_the_series_keeps_its_columns(data):
    X, y = data
    table = pd.DataFrame({"a": y, "b": -y})
    model = RNNClassifier(**SMALL).fit((X, table), y)
    with pytest.raises(ValueError, match=r"columns \['b', 'a'\].*\['a', 'b'\] in fit. Pass the same columns"):
        model.predict((X, table[["b", "a"]]))


def test_tensors_of_types_that_numpy_lacks_are_floats(data):
    X = torch.from_numpy(data[0]).bfloat16()
    static = torch.ones(len(X), 1, dtype=torch.bfloat16)
    model = RNNClassifier(**SMALL).fit((X, static), data[1])
    assert_array_equal(model.predict_proba((list(X), static)), model.predict_proba((X.float(), static.float())))


def test_a_channel_without_any_value_says_nothing(data):
    X, y = data[0].copy(), data[0][:, 0, -1]
    X[:, 1] = np.nan
    assert np.isfinite(RNNRegressor(**SMALL).fit(X, y).predict(X)).all()


def test_huge_series_are_no_forecast(data):
    X, y = data[0] * 1e200, data[0][:, 0, -1]
    assert np.isfinite(RNNRegressor(**SMALL).fit(X, y).predict(X)).all()


@pytest.mark.parametrize("level", [1e20, 1e39, 1e300])
def test_absurd_levels_give_numbers(windows, forecaster, level):
    assert np.isfinite(forecaster.predict(windows[0] + level)).all()


def test_missing_values_have_an_indicator(data):
    X, y = data[0].copy(), data[1]
    # The first channel is told nothing by its values, everything by where they are missing.
    X[:, 0] = 0
    X[y == 1, 0, 3:9:2] = np.nan
    X[:, 0, 12] = 1
    model = RNNClassifier(**SMALL | {"max_epochs": 40}, skip=None).fit(X, y)
    assert model.score(X, y) > 0.95
    assert model.n_channels_ == 2 and model.network_.members[0].layout.n_channels == 3


# --- padding and company ---------------------------------------------------------------------------------------------

FORMS = [
    {},
    {"skip": None},
    {"stem": "patch", "pooling": "attention", "cell": "lstm"},
    {"stem": None, "pooling": ("last", "mean"), "cell": "rnn", "num_layers": 2},
    {"series_scaling": "standard", "skip": "linear"},
]


@pytest.mark.parametrize("form", FORMS)
def test_padding_company_and_order_change_nothing(form):
    X, y = unequal()
    model = RNNClassifier(**SMALL, **form).fit(X, y)
    p = model.predict_proba(X)
    assert np.ptp(p[:, 0]) > 0.05
    for n_steps in (24, 61):
        assert_allclose(model.predict_proba(padded(X, n_steps)), p, atol=1e-6)
    assert_allclose(np.vstack([model.predict_proba(X[i : i + 1]) for i in range(5)]), p[:5], atol=1e-6)
    order = np.random.RandomState(0).permutation(len(X))
    assert_allclose(model.predict_proba([X[i] for i in order]), p[order], atol=1e-6)


@pytest.mark.parametrize("scaling", ["auto", "mean", "standard", None])
def test_padding_changes_no_forecast(scaling):
    rng = np.random.RandomState(0)
    series = [np.cumsum(rng.normal(size=rng.randint(20, 40))) for _ in range(40)]
    X, y = [s[None, :-2] for s in series], np.array([s[-2:] for s in series])
    model = RNNRegressor(**SMALL, series_scaling=scaling).fit(X, y)
    assert_allclose(model.predict(padded(X, 80)), model.predict(X), atol=1e-6 * np.abs(y).max())


@pytest.mark.parametrize("skip", ["auto", None])
@pytest.mark.parametrize("scaling", ["auto", "last", "mean", "standard"])
def test_levels_shift_forecasts_alike(windows, scaling, skip):
    X, y = windows
    model = RNNRegressor(**SMALL | {"dtype": "float64"}, series_scaling=scaling, skip=skip).fit(X, y)
    for shift in (0.5, 5, 1e4):
        assert_allclose(model.predict(X[:5] + shift) - shift, model.predict(X[:5]), atol=1e-6)


def test_a_wave_at_another_level_is_the_same_wave():
    wave = 1000 + 10 * np.sin(np.arange(300) / 5) + np.random.RandomState(0).normal(0, 0.3, 300)
    X, y = window(wave, lags=24, horizon=3)
    model = RNNRegressor(**SMALL).fit(X[:200], y[:200])
    errors = [r2_score(y[200:], model.predict(X[200:] + shift) - shift) for shift in (0, 10, 100, 1000)]
    assert errors[0] > 0.99
    assert_allclose(errors, errors[0], atol=1e-3)


def test_a_level_that_counts_is_held_to_the_range_of_training():
    rng, series = np.random.RandomState(0), np.zeros(800)
    for t in range(1, 800):
        series[t] = 0.8 * series[t - 1] + rng.normal()
    X, y = window(series, lags=12, horizon=3)
    model = RNNRegressor(**SMALL | {"dtype": "float64"}).fit(X, y)
    # Where levels are high they fall.
    assert np.mean(model.predict(X[:50] + 2) - 2 - model.predict(X[:50])) < -0.2
    low, high = (model.predict(X[:50] + shift) - shift for shift in (20, 1e4))
    assert_allclose(low, high, atol=1e-6)


def test_levels_count_where_they_are_not_taken_out(windows):
    X, y = windows
    model = RNNRegressor(**SMALL, series_scaling=None).fit(X, y)
    assert np.abs(model.predict(X[:5] + 5) - 5 - model.predict(X[:5])).max() > 0.1


def test_series_without_a_level_are_forecast_at_the_usual_one():
    rng = np.random.default_rng(0)
    load = 1000 + 10 * np.sin(np.arange(300) / 5) + rng.normal(0, 0.3, 300)
    X, y = window(np.c_[load, rng.normal(size=300)], target=0, lags=24, horizon=3)
    model = RNNRegressor(**SMALL).fit(X, y)
    lacking = X[:3].copy()
    lacking[:, 0] = np.nan
    mean, std = model.predict(lacking, return_std=True)
    assert_allclose(mean, 1000, atol=10)
    assert (std >= 0.99 * y.std(axis=0)).all()
    assert (model.predict(X[:3], return_std=True)[1] < 0.5 * y.std(axis=0)).all()


# --- fits ------------------------------------------------------------------------------------------------------------


def test_what_a_fit_leaves_behind(data, fitted):
    X, y = data
    assert set(fitted.blend_weights_) == {"network", "skip"}
    assert all(weight >= 0 for weight in fitted.blend_weights_.values())
    assert fitted.out_of_fold_.shape == (48, 2) and np.isfinite(fitted.out_of_fold_).all()
    assert_allclose(fitted.out_of_fold_.sum(1), 1)
    assert fitted.n_iter_ == 4 and len(fitted.network_.members) == 2 and not hasattr(fitted, "n_features_in_")
    pure = RNNClassifier(**SMALL, skip=None).fit(X, y)
    assert pure.blend_weights_ == {"network": 1.0} and networks_equal(pure, fitted)


def test_predictions_are_the_blend_of_network_and_skip(windows, forecaster):
    X, _ = windows
    weights, blended = forecaster.blend_weights_, forecaster.predict(X)
    try:
        forecaster.blend_weights_ = {"network": 1.0, "skip": 0.0}
        network = forecaster.predict(X)
        forecaster.blend_weights_ = {"network": 0.0, "skip": 1.0}
        skip = forecaster.predict(X)
    finally:
        forecaster.blend_weights_ = weights
    level = X[:, :, -1]
    expected = level + weights["network"] * (network - level) + weights["skip"] * (skip - level)
    assert_allclose(blended, expected, atol=1e-5)


def test_a_useless_network_loses_its_weight():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(200, 12))
    y = X @ rng.normal(size=12)
    model = RNNRegressor(**SMALL | {"max_epochs": 1, "learning_rate": 1e-6}, skip="linear").fit(X, y)
    assert model.blend_weights_["skip"] > 0.9
    assert_allclose(model.predict(X), LinearRegression().fit(X, y).predict(X), atol=0.5)


def test_a_class_that_single_steps_decide_is_learned_from_the_steps():
    X = np.random.RandomState(0).normal(size=(400, 1, 32))
    y = X[:, 0, 10] + X[:, 0, 22] > 0
    model = RNNClassifier(**SMALL | {"max_epochs": 1}).fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > 0.8


def test_rows_that_the_skip_path_is_not_fitted_to_are_out_of_its_folds(windows, forecaster, monkeypatch):
    X, y = windows
    monkeypatch.setattr("skdl.estimators.series.blended.SKIP_ROWS", len(X) // 2)
    model = RNNRegressor(**SMALL).fit(X, y)
    assert np.isfinite(model.out_of_fold_).all()
    errors = [np.mean((one.out_of_fold_ - y) ** 2) for one in (model, forecaster)]
    assert errors[0] < 1.5 * errors[1]


def test_a_skip_path_is_fitted_to_rows_in_no_rhythm(monkeypatch):
    monkeypatch.setattr("skdl.estimators.series.blended.SKIP_ROWS", 100)
    rng = np.random.RandomState(0)
    y = np.arange(200) % 2
    X = rng.normal(size=(200, 1, 6)) + y[:, None, None]
    model = RNNClassifier(**SMALL | {"max_epochs": 1}, skip="linear").fit(X, y)
    # Every other row would be of one class.
    assert model.score(X, y) > 0.9


def test_pure_networks_where_no_rows_are_held_out(data):
    X, y = data
    assert RNNClassifier(**SMALL).fit(X[:20], y[:20]).blend_weights_ == {"network": 1.0}
    assert RNNClassifier(**SMALL, early_stopping=False).fit(X, y).blend_weights_ == {"network": 1.0}
    assert RNNClassifier(**SMALL).fit(X, y, X_val=X, y_val=y).blend_weights_ == {"network": 1.0}
    for parameters, held_out in ({"early_stopping": False}, {}), ({}, {"X_val": X, "y_val": y}):
        model = RNNClassifier(**SMALL, **parameters, skip="linear")
        with pytest.raises(ValueError, match="Set early_stopping='auto'"):
            model.fit(X, y, **held_out)
        # Said before anything is trained.
        assert not hasattr(model, "network_")


def test_early_stopping_is_for_those_who_ask(data):
    X, y = data
    settings = SMALL | {"max_epochs": 40, "n_iter_no_change": 1, "learning_rate": 0.1}
    assert RNNClassifier(**settings).fit(X, y).n_iter_ == 40
    assert RNNClassifier(**settings, early_stopping=True).fit(X, y).n_iter_ < 40
    assert RNNClassifier(**settings).fit(X, y, X_val=X[::2], y_val=y[::2]).n_iter_ < 40


def folds_of(monkeypatch, model, X, y):
    seen = []
    original = RNNRegressor._drawn_folds

    def spy(*args):
        seen.extend(original(*args))
        return seen

    monkeypatch.setattr(RNNRegressor, "_drawn_folds", spy)
    model.fit(X, y)
    return seen


@pytest.mark.parametrize("validation", ["time", "blocks", "blocks of a given size"])
def test_rows_in_the_order_of_time_are_held_out_in_one_piece(windows, validation, monkeypatch):
    X, y = windows
    share = {"validation_fraction": 0.25} if "size" in validation else {}
    seen = folds_of(monkeypatch, RNNRegressor(**SMALL, validation=validation.split()[0], **share), X, y)
    assert all((np.diff(fold.held_out) == 1).all() for fold in seen)
    if validation == "time":
        assert all(fold.train.max() < fold.held_out.min() and fold.held_out.max() == len(X) - 1 for fold in seen)
    elif share:
        assert [fold.held_out[0] for fold in seen] == [0, 93] and all(len(fold.held_out) == 31 for fold in seen)
    else:
        assert_array_equal(np.concatenate([fold.held_out for fold in seen]), np.arange(len(X)))


@pytest.mark.parametrize(("horizon", "n_rows", "gap"), [(1, 60, 0), (5, 60, 4), (30, 60, 29)])
@pytest.mark.parametrize("validation", ["time", "blocks"])
def test_rows_that_forecast_the_steps_of_held_out_ones_are_left_out(monkeypatch, validation, horizon, n_rows, gap):
    X, y = window(np.sin(np.arange(n_rows + 5 + horizon)), lags=6, horizon=horizon)
    seen = folds_of(monkeypatch, RNNRegressor(**SMALL, validation=validation), X[:n_rows], y[:n_rows])
    rows = np.arange(n_rows)
    for fold in seen:
        distance = np.abs(rows[:, None] - fold.held_out).min(axis=1)
        # At most a quarter of the others on each side.
        allowed = min(gap, (n_rows - len(fold.held_out)) // 4)
        assert_array_equal(fold.train, rows[distance > allowed])


@pytest.mark.parametrize("validation", ["blocks", "time"])
def test_groups_are_not_held_out_in_order_of_time(validation):
    X, _ = waves()
    with pytest.raises(ValueError, match=f"validation='{validation}' holds out .* set validation='auto'"):
        RNNRegressor(**SMALL, validation=validation).fit(X, X[:, 0, -1], groups=np.arange(48) % 6)


def test_rows_that_no_network_trains_on_change_nothing_but_the_score(windows):
    X, y = windows
    huge = y.copy()
    huge[-4:] *= 1e6
    settings = SMALL | {"skip": None, "validation": "time", "early_stopping": True, "n_iter_no_change": 9}
    one, other = (RNNRegressor(**settings).fit(X, target)._task.scale for target in (y, huge))
    assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("y_shape", "settings", "shape"),
    [
        ((), {}, (120,)),
        ((5,), {}, (120, 5)),
        ((5,), {"loss": "huber"}, (120, 5)),
        ((5,), {"loss": "absolute_error"}, (120, 5)),
        ((), {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9)}, (120, 3)),
        ((5,), {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9)}, (120, 5, 3)),
        ((5,), {"loss": "quantile", "quantile": 0.9}, (120, 5)),
    ],
)
def test_shapes_of_targets(windows, y_shape, settings, shape):
    X, y = windows
    model = RNNRegressor(**SMALL, **settings).fit(X[:120], y[:120, 0] if y_shape == () else y[:120, :5])
    assert model.predict(X[:120]).shape == shape
    assert np.isfinite(model.score(X[:120], y[:120, 0] if y_shape == () else y[:120, :5]))
    assert model.out_of_fold_.shape == shape


def test_counts_have_no_skip_path_and_positive_forecasts():
    rng = np.random.RandomState(0)
    counts = rng.poisson(np.exp(1 + np.sin(np.arange(300) / 5)))
    X, y = window(counts, lags=20, horizon=3)
    model = RNNRegressor(**SMALL | {"max_epochs": 8}, loss="poisson").fit(X, y)
    assert (model.predict(X) > 0).all() and model.blend_weights_ == {"network": 1.0}
    with pytest.raises(ValueError, match="Set skip=None with this loss"):
        RNNRegressor(**SMALL, loss="poisson", skip="linear").fit(X, y)


def test_quantiles_do_not_cross_and_hold_their_share():
    rng = np.random.RandomState(0)
    series = 5 + np.sin(np.arange(3000) / 6) * 2 + rng.normal(0, 0.5, 3000)
    X, y = window(series, lags=24, horizon=4)
    levels = (0.1, 0.5, 0.9)
    settings = SMALL | {"max_epochs": 10, "hidden_size": 16}
    model = RNNRegressor(**settings, loss="quantile", quantiles=levels).fit(X[:900], y[:900])
    bands = model.predict(X[900:])
    assert (np.diff(bands, axis=2) >= 0).all()
    share = (y[900:, :, None] <= bands).mean((0, 1))
    assert_allclose(share, levels, atol=0.08)
    with pytest.raises(ValueError, match="return_std"):
        model.predict(X, return_std=True)


BANDS = {"loss": "quantile", "quantiles": (0.1, 0.4, 0.9)}


def lower_pinball(model, X, y):
    return -mean_pinball_loss(y, model.predict(X)[..., 0], alpha=0.1)


@pytest.mark.parametrize("horizon", [1, 6])
def test_bands_are_scored_by_their_middle(windows, horizon):
    X, y = windows[0], windows[1][:, 0] if horizon == 1 else windows[1]
    model = RNNRegressor(**SMALL, **BANDS).fit(X, y)
    assert_allclose(model.score(X, y), r2_score(y, model.predict(X)[..., 1]))
    split = TimeSeriesSplit(2)
    search = GridSearchCV(model, {"learning_rate": [0.01, 0.02]}, cv=split, error_score="raise").fit(X, y)
    train, test = list(split.split(X))[-1]
    assert_allclose(
        search.cv_results_["split1_test_score"][1], clone(model).fit(X[train], y[train]).score(X[test], y[test])
    )
    assert np.isfinite(cross_val_score(model, X, y, cv=split, scoring=lower_pinball, error_score="raise")).all()


@pytest.mark.parametrize("scoring", ["r2", get_scorer("neg_mean_absolute_error")])
def test_metrics_of_one_value_take_no_bands(windows, scoring):
    model = RNNRegressor(**SMALL, **BANDS, scoring=scoring)
    with pytest.raises(ValueError, match=r"takes one value per target.*predicts 3\. Set scoring=None"):
        model.fit(*windows)
    model.set_params(scoring=lower_pinball, early_stopping=True).fit(*windows)
    assert model.best_validation_score_ < 0


SHOWN = {
    "array": lambda X: X,
    "rows": lambda X: X[:, 0],
    "list": lambda X: [x[:, : 24 - row % 2] for row, x in enumerate(X)],
    "frame": lambda X: pd.DataFrame(X[:, 0]),
    "masked": lambda X: np.ma.masked_greater(X, 100),
    "tuple": lambda X: (X, pd.DataFrame({"kind": list("ab") * (len(X) // 2)})),
}


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("is_held_out", [True, False])
def test_scorers_see_rows_of_the_series_that_were_given(data, kind, is_held_out):
    X = SHOWN[kind](data[0])
    y = data[0][:, 0, -1]
    seen = []

    def scoring(model, X_scored, y_scored):
        seen.append((X_scored, y_scored))
        values = model.predict(X_scored)
        assert_allclose(model.predict(copy.deepcopy(X_scored)), values, rtol=1e-5, atol=1e-6)
        return -np.abs(values - y_scored).mean()

    model = RNNRegressor(**SMALL | {"max_epochs": 1}, validation="random", early_stopping=True, scoring=scoring)
    model.fit(X, y, **({} if is_held_out else {"X_val": X, "y_val": y}))
    assert len(seen) == 2
    whole = X[0] if kind == "tuple" else X
    for X_scored, y_scored in seen:
        series, table = X_scored if kind == "tuple" else (X_scored, None)
        assert type(series) is type(whole) and len(series) == len(y_scored)
        if kind == "list":
            assert all(any(one is x for x in whole) for one in series)
        elif kind == "frame":
            assert_array_equal(series.iloc[:, -1], y_scored)
        else:
            assert_array_equal(series[:, 0, -1] if series.ndim == 3 else series[:, -1], y_scored)
        assert table is None or table.columns.tolist() == ["kind"]


def test_a_standard_deviation_of_each_forecast(windows, forecaster):
    mean, std = forecaster.predict(windows[0], return_std=True)
    assert mean.shape == std.shape == windows[1].shape and (std > 0).all()
    assert_array_equal(mean, forecaster.predict(windows[0]))
    with pytest.raises(NotFittedError):
        RNNRegressor().predict(windows[0], return_std=True)


def test_counts_of_series_that_stand_still_are_predicted_exactly():
    # Their last values are targets of others.
    model = RNNRegressor(**SMALL | {"max_epochs": 1}, loss="poisson").fit(np.full((40, 1, 12), 3.0), np.full(40, 3.0))
    assert (model.predict(np.arange(24.0).reshape(2, 1, 12)) == 3).all()


# --- oracles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"skip": "linear"}, {"skip": None, "cell": "rnn", "stem": None}])
def test_an_autoregression_is_learned_to_its_noise(settings):
    rng = np.random.RandomState(0)
    noise, series = rng.normal(size=3000), np.zeros(3000)
    for t in range(2, 3000):
        series[t] = 1.2 * series[t - 1] - 0.5 * series[t - 2] + noise[t]
    X, y = window(series[100:], lags=12)
    model = RNNRegressor(
        hidden_size=16, hidden_layer_sizes=(), max_epochs=15, dropout=0.0, n_members=2, random_state=0, **settings
    ).fit(X[:2000], y[:2000])
    error = np.sqrt(np.mean((model.predict(X[2000:]) - y[2000:]) ** 2))
    oracle = np.sqrt(np.mean((1.2 * X[2000:, 0, -1] - 0.5 * X[2000:, 0, -2] - y[2000:]) ** 2))
    assert error < 1.04 * oracle


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_memory_of_fifty_steps(cell):
    rng = np.random.RandomState(0)
    X = rng.normal(0, 0.3, size=(400, 1, 51))
    y = rng.randint(2, size=400)
    X[:, 0, 0] = 2.0 * y - 1
    model = RNNClassifier(
        cell=cell,
        hidden_size=16,
        stem=None,
        bidirectional=False,
        pooling="last",
        skip=None,
        n_members=1,
        early_stopping=False,
        dropout=0.0,
        max_epochs=40,
        learning_rate=0.02,
        random_state=0,
    ).fit(X[:300], y[:300])
    assert model.score(X[300:], y[300:]) > 0.97


def test_a_series_of_a_thousand_steps_stays_finite():
    rng = np.random.RandomState(0)
    X, y = np.cumsum(rng.normal(size=(24, 1, 1000)), axis=2) * 1e3, rng.normal(size=24) * 1e3
    model = RNNRegressor(
        **SMALL | {"max_epochs": 2, "learning_rate": 0.5, "n_members": 1}, cell="rnn", stem=None, lr_schedule="constant"
    ).fit(X, y)
    assert np.isfinite(model.predict(X)).all() and np.isfinite(model.loss_curve_).all()


# --- transform, explain, forecast ------------------------------------------------------------------------------------


def test_embeddings_in_a_pipeline(data, fitted):
    X, y = data
    embedding = fitted.transform(X)
    assert embedding.shape == (48, len(fitted.get_feature_names_out())) and embedding.dtype == np.float32
    assert fitted.set_output(transform="pandas").transform(X).shape == embedding.shape
    fitted.set_output(transform="default")
    assert make_pipeline(RNNClassifier(**SMALL), LogisticRegression()).fit(X, y).score(X, y) > 0.6


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_explanations_find_the_step_and_the_channel(method):
    rng = np.random.RandomState(0)
    X = rng.normal(0, 0.1, size=(120, 2, 32))
    y = rng.randint(2, size=120)
    X[:, 1, 20] += 3 * (2 * y - 1)
    settings = SMALL | {"max_epochs": 20, "hidden_size": 8}
    model = RNNClassifier(**settings, stem=None, skip="linear").fit(X, y)
    maps = model.explain(X, method=method)
    assert maps.shape == X.shape
    mean = np.abs(maps).mean(0)
    assert 18 <= mean[1].argmax() <= 22 and mean[0].max() < 0.3 * mean[1].max()
    # The predicted class is what speaks for itself.
    assert maps[:, 1, 20].mean() > 0


def test_integrated_gradients_add_up_to_the_output():
    X, y = waves()
    model = RNNClassifier(**SMALL | {"n_members": 1, "dtype": "float64"}, stem="patch", skip=None).fit(X, y)
    blank = np.broadcast_to(model._encoder.center[:, None], X.shape[1:])[None]
    logit = lambda X: np.diff(model.predict_log_proba(X))[:, 0]  # noqa: E731
    sums = model.explain(X, np.ones(48, int), method="integrated_gradients").sum((1, 2))
    assert_allclose(sums, logit(X) - logit(blank), atol=0.02)


def test_explanations_of_unequal_series_are_zero_behind_their_ends():
    X, y = unequal()
    model = RNNClassifier(**SMALL).fit(X, y)
    for method in ("occlusion", "integrated_gradients"):
        maps = model.explain(X[:6], method=method)
        for row, one in zip(maps, X, strict=False):
            assert (row[:, one.shape[1] :] == 0).all() and np.abs(row[:, : one.shape[1]]).max() > 0


def test_forecasts_go_on_with_themselves(windows, forecaster):
    X, _ = windows
    both = forecaster.forecast(X, 12)
    assert both.shape == (len(X), 12)
    first = forecaster.predict(X)
    assert_allclose(both[:, :6], first)
    moved = np.concatenate([X[:, 0, 6:], first], axis=1)
    assert_allclose(both[:, 6:], forecaster.predict(moved[:, None]), atol=1e-5)


def test_forecasts_with_a_table_beside_the_series(windows):
    X, y = windows
    table = np.arange(len(X))[:, None] % 2
    model = RNNRegressor(**SMALL).fit((X, table), y)
    moved = np.concatenate([X[:, 0, 6:], model.predict((X, table))], axis=1)
    assert_allclose(model.forecast((X, table), 12)[:, 6:], model.predict((moved[:, None], table)), atol=1e-5)


def test_forecasts_of_bands_go_on_with_the_middle(windows):
    X, y = windows
    model = RNNRegressor(**SMALL, loss="quantile", quantiles=(0.1, 0.4, 0.9)).fit(X, y)
    moved = np.concatenate([X[:, 0, 6:], model.predict(X)[:, :, 1]], axis=1)
    assert_allclose(model.forecast(X, 9)[:, 6:], model.predict(moved[:, None])[:, :3], atol=1e-5)


def test_forecasts_of_several_channels_are_refused(data):
    model = RNNRegressor(**SMALL).fit(data[0], data[0][:, 0, -3:])
    with pytest.raises(ValueError, match=r"one channel. X has 2. Fit on targets of the whole horizon"):
        model.forecast(data[0], 6)


@pytest.mark.parametrize("n_steps", [0, 2.0, True, "day"])
def test_numbers_of_steps_that_are_none(windows, forecaster, n_steps):
    with pytest.raises(ValueError, match="n_steps must be an integer of at least 1"):
        forecaster.forecast(windows[0], n_steps)


# --- randomness, copies, company -------------------------------------------------------------------------------------


def test_same_seed_same_network_and_no_global_state_moved():
    X, y = unequal()
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    one = RNNClassifier(**SMALL).fit(X, y)
    one.predict(X)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert_array_equal(states[1], np.random.get_state()[1])
    two = RNNClassifier(**SMALL).fit(X, y)
    assert networks_equal(one, two) and one.blend_weights_ == two.blend_weights_
    assert not networks_equal(one, RNNClassifier(**SMALL | {"random_state": 1}).fit(X, y))


def test_pickles_and_clones(data, fitted):
    X, y = data
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))
    again = clone(fitted)
    assert not hasattr(again, "network_")
    assert_array_equal(again.fit(X, y).predict_proba(X), fitted.predict_proba(X))


def test_warm_start_leaves_no_layer_out(data):
    model = RNNClassifier(**SMALL, num_layers=2, warm_start=True).fit(*data)
    with pytest.raises(ValueError, match="architecture was changed"):
        model.set_params(num_layers=1).fit(*data)


def test_warm_starts_and_partial_fits_go_on(data):
    X, y = data
    model = RNNClassifier(**SMALL, warm_start=True).fit(X, y)
    before = model.predict_proba(X)
    assert not np.array_equal(model.fit(X, y).predict_proba(X), before)
    part = RNNClassifier(**SMALL).partial_fit(X, y, classes=[0, 1])
    # Later series may be of other lengths.
    part.partial_fit(X[:, :, :17], y).partial_fit(*unequal())
    assert np.isfinite(part.predict_proba(X)).all() and part.blend_weights_ == {"network": 1.0}


def test_partial_fits_after_a_fit_leave_its_skip_path(windows):
    X, y = windows
    model = RNNRegressor(**SMALL).fit(X, y)
    skip, weights, before = model._skip, dict(model.blend_weights_), copy.deepcopy(model)
    model.partial_fit(X, y)
    assert model._skip is skip and model.blend_weights_ == weights
    assert not networks_equal(model, before)


GRID = {"cell": ["gru", "rnn"], "learning_rate": [0.01, 0.02]}


@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True, "validation": "time", "scoring": "neg_mean_absolute_error"}]
)
def test_a_search_over_cells_is_the_same_together(windows, settings):
    X, y = windows
    search = GridSearchCV(RNNRegressor(**SMALL, **settings, dtype="float64"), GRID, cv=TimeSeriesSplit(2, gap=2))
    with joblib.parallel_config(backend="sequential"):
        plain = clone(search).fit(X, y)
    with train_together():
        together = clone(search).fit(X, y)
    assert_allclose(together.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-10)
    assert_networks_close(plain.best_estimator_, together.best_estimator_)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_small_networks_on_series_of_one_length_are_trained_side_by_side(cell, dtype):
    X, y = waves(90, n_steps=10)
    grid = {"learning_rate": [0.005, 0.02], "dropout": [0.0, 0.3]}
    network = RNNClassifier(
        **SMALL | {"n_members": 1}, cell=cell, num_layers=2, skip=None, early_stopping=False, batch_size=16, dtype=dtype
    )
    # Folds of unequal sizes: some models have fewer rows than others, in batches and in all.
    search = GridSearchCV(network, grid, cv=StratifiedKFold(4))
    with joblib.parallel_config(backend="sequential"):
        plain = clone(search).fit(X[:83], y[:83])
    with train_together() as run:
        together = clone(search).fit(X[:83], y[:83])
    widths = [stack.n_models for stack in run.report_]
    assert max(widths) == 1 if CELLS[cell].steps is None else min(widths[:-1]) >= 4
    assert_allclose(together.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    assert_networks_close(plain.best_estimator_, together.best_estimator_, 1e-4 if dtype == "float32" else 1e-10)


def test_networks_that_were_trained_side_by_side_go_on_with_series_of_unequal_lengths():
    X, y = waves()
    model = RNNClassifier(**SMALL, stem=None, skip=None, early_stopping=False, warm_start=True).fit(X, y)
    longer = padded([np.tile(x, 2)[:, : 20 + row % 9] for row, x in enumerate(X)], 28)
    before = copy.deepcopy(model)
    model.fit(longer, y).partial_fit(longer[:, :, :20], y)
    assert not networks_equal(model, before) and np.isfinite(model.predict_proba(longer)).all()


@pytest.mark.parametrize("kind", [lambda f: f, pl.from_pandas], ids=["pandas", "polars"])
def test_static_columns_go_through_a_search(kind):
    sites = [
        pd.DataFrame({"site": site, "load": walk(120, seed), "size": 10.0 * seed, "kind": site * 2})
        for seed, site in enumerate("ab")
    ]
    X, y = window(kind(pd.concat(sites)), target="load", lags=24, horizon=3, by="site", static=["size", "kind"])
    split = TimeSeriesSplit(2)
    model = RNNRegressor(**SMALL, dtype="float64")
    search = GridSearchCV(model, {"learning_rate": [0.01, 0.02]}, cv=split, error_score="raise")
    with joblib.parallel_config(backend="sequential"):
        plain = clone(search).fit(X, y)
    with train_together():
        together = clone(search).fit(X, y)
    assert plain.best_estimator_.n_static_ == 2
    assert_allclose(together.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-10)
    # A plain tuple, cut by hand, is the same.
    train, test = list(split.split(X))[-1]
    X_train, X_test = ((X.series[rows], X.table[rows[0] : rows[-1] + 1]) for rows in (train, test))
    score = model.set_params(learning_rate=0.02).fit(X_train, y[train]).score(X_test, y[test])
    assert_allclose(plain.cv_results_["split1_test_score"][1], score, rtol=1e-10)


def test_series_with_a_table_are_cut_by_rows():
    series, y = unequal()
    X = SeriesWithTable(series, pd.DataFrame({"kind": list("abc") * 16}))
    assert X.shape == (48,) and len(X) == 48
    with pytest.raises(TypeError, match=r"X\[i : i \+ 1\] for one row"):
        X[0]
    mask = np.arange(48) % 5 == 1
    for rows in (slice(3, 20, 2), mask, np.flatnonzero(mask)):
        part = X[rows]
        numbers = np.arange(48)[rows]
        assert len(part.series) == len(numbers) and all(part.series[k] is series[i] for k, i in enumerate(numbers))
        assert_array_equal(part.table["kind"], X.table["kind"].iloc[rows])
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    assert RNNClassifier(**SMALL).fit(X_train, y_train).predict_proba(X_test).shape == (len(y_test), 2)
    with pytest.raises(ValueError, match="has 40 rows for 48 series"):
        train_test_split(SeriesWithTable(series, X.table[:40]), y)
    again = pickle.loads(pickle.dumps(X))
    assert isinstance(again, SeriesWithTable) and again.table.equals(X.table)


@pytest.mark.parametrize("function", [None, lambda X: replace(X, series=[2 * each for each in X.series])])
def test_series_with_a_table_go_through_transformers(function):
    series, y = unequal()
    X = SeriesWithTable(series, pd.DataFrame({"kind": list("abc") * 16}))
    pipeline = make_pipeline(FunctionTransformer(function), RNNClassifier(**SMALL))
    given = X if function is None else function(X)
    expected = cross_val_predict(RNNClassifier(**SMALL), given, y, cv=3, method="predict_proba")
    assert_array_equal(cross_val_predict(pipeline, X, y, cv=3, method="predict_proba"), expected)


def test_scorers_and_weights(data):
    X, y = data
    model = RNNClassifier(**SMALL, early_stopping=True, scoring="accuracy", class_weight="balanced")
    model.fit(X, y, sample_weight=np.arange(48) % 3)
    assert 0 <= model.best_validation_score_ <= 1
    # Rows of weight 0 were not looked at.
    assert np.isnan(model.out_of_fold_[::3]).all() and np.isfinite(model.out_of_fold_[1::3]).all()


def test_multilabel_targets(data):
    X, y = data
    Y = np.stack([y, np.arange(48) % 3 == 0], axis=1).astype(int)
    model = RNNClassifier(**SMALL).fit(X, Y)
    assert model.predict(X).shape == model.predict_proba(X).shape == (48, 2)


# --- what is refused -------------------------------------------------------------------------------------------------

SERIES = np.zeros((4, 2, 6)) + np.arange(6)
RECORD = [("a", float), ("b", float)]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 2, 6, 1)), r"4 axes.*\(n, channels, time\)"),
        (np.zeros((0, 2, 6)), "X is empty"),
        (np.zeros((4, 2, 0)), "X is empty"),
        ([], "at least one series"),
        ([SERIES[0], SERIES[0][:, :0]] * 2, "Series 1 of X is empty.*Leave it out"),
        ([SERIES[0], SERIES[0][:1]] * 2, "Series 1 of X has 1 channels, but series 0 has 2"),
        ([SERIES, SERIES] * 2, r"Series 0 of X has 3 axes"),
        (np.where(np.arange(4)[:, None, None] == 2, np.nan, SERIES), "Series 2 of X has no value at all"),
        (np.where(np.arange(4)[:, None, None] == 2, np.inf, SERIES), "Series 2 of X contains infinity"),
        (SERIES.astype(str), "Convert it to float"),
        (
            pd.DataFrame({"s": [pd.Series(x[0]) for x in SERIES]}),
            r"pass a list of them, such as list\(frame\[column\]\)",
        ),
        (pl.DataFrame({"s": SERIES[:, 0].tolist()}), r"pass a list of them, such as list\(frame\[column\]\)"),
        ([SERIES[0].tolist(), []] * 2, "Series 1 of X is empty"),
        ([[[1.0, 2], [3]]] * 4, "channels of series 0 of X are of unequal lengths"),
        (np.where(SERIES > 2, "a", SERIES).astype(object), "could not convert string to float: 'a'"),
        (pd.DataFrame({"site": list("abcd"), "load": 1.0}), r"A long table, with a row for each step.*skdl\.window"),
        ((SERIES, np.zeros((3, 1))), r"3 rows for 4 series"),
        ((SERIES, np.full((4, 1), np.inf)), "table beside the series contains infinity"),
        ((SERIES, [["a"]] * 4), "Pass text as columns of a DataFrame"),
        ((SERIES, np.zeros(4)), r"table\[:, np.newaxis\]"),
        ((SERIES, pd.Series(np.zeros(4))), r"column.to_frame\(\)"),
        ((SERIES, sp.csr_array(np.ones((4, 1)))), r"a sparse matrix, which is not taken there.*table\.toarray\(\)"),
        ((SERIES, sp.coo_matrix(np.ones((4, 1)))), r"a sparse matrix, which is not taken there.*table\.toarray\(\)"),
        ((SERIES, np.zeros(4, dtype=RECORD)), r"is a structured array\. Pass pandas\.DataFrame\(table\)"),
        ((SERIES, {"a": np.zeros(4)}), r"is a dict\. Pass pandas\.DataFrame\(table\)"),
        ((SERIES, SERIES, SERIES), r"\(series, table\)"),
        ((SERIES, pd.DataFrame({"c": list("abcd")}).loc[[0] * 4].assign(c=["a", "b", "c", "d"])), None),
    ],
)
def test_series_that_are_none(X, message):
    model = RNNRegressor(**SMALL)
    if message is None:
        assert model.fit(X, np.arange(4.0)).predict(X).shape == (4,)
        return
    with pytest.raises(ValueError, match=message):
        model.fit(X, np.arange(4.0))


def test_numbers_are_no_labels(data):
    with pytest.raises(ValueError, match="for numbers use the regressor of the same family"):
        RNNClassifier(**SMALL).fit(data[0], data[0][:, 0, -1])


def test_many_levels_beside_the_series_are_refused():
    table = pd.DataFrame({"c": [f"level {i % 33}" for i in range(330)]})
    X, y = waves(330)
    with pytest.raises(ValueError, match=r"more than 32 levels.*TargetEncoder"):
        RNNClassifier(**SMALL).fit((X, table), y)


def test_a_dict_of_series_is_refused():
    with pytest.raises(TypeError, match=r"list\(X\.values\(\)\)"):
        RNNRegressor(**SMALL).fit({"a": SERIES[0], "b": SERIES[1]}, np.arange(2.0))


def test_structured_arrays_are_refused_in_fit_and_predict(data):
    model = RNNRegressor(**SMALL)
    for call in (lambda X: model.fit(X, np.arange(4.0)), model.fit(data[0][:, 0], data[1]).predict):
        with pytest.raises(TypeError, match=r"X is a structured array\. Pass pandas\.DataFrame\(X\)"):
            call(np.zeros(4, dtype=RECORD))


def test_a_lazy_frame_is_refused():
    with pytest.raises(TypeError, match="collect"):
        RNNRegressor(**SMALL).fit(pl.DataFrame(SERIES[:, 0]).lazy(), np.arange(4.0))


def test_series_in_predict(data, fitted):
    X, _ = data
    for method in (fitted.predict, fitted.transform, fitted.explain):
        with pytest.raises(ValueError, match="1 channels, but the model was fitted on 2"):
            method(X[:, :1])
    # Longer and shorter ones are taken as they are.
    longer = np.concatenate([X, X], axis=2)
    assert np.isfinite(fitted.predict_proba(longer)).all() and np.isfinite(fitted.predict_proba(X[:, :, :3])).all()


def test_rows_of_another_length_in_predict(data):
    X, _ = data
    model = RNNRegressor(**SMALL).fit(X[:, 0], X[:, 0, -1])
    with pytest.raises(ValueError, match=r"expecting 24 features as input.*X\[:, np.newaxis\]"):
        model.predict(X[:, 0, 4:])
    assert np.isfinite(model.predict(X[:, :1, 4:])).all()


def test_another_horizon_is_refused(windows, forecaster):
    X, y = windows
    model = RNNRegressor(**SMALL, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="y has 4 targets, but the model was fitted on 6"):
        model.fit(X, y[:, :4])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cell": "qrnn"}, "'cell' parameter"),
        ({"hidden_size": 0}, "'hidden_size' parameter"),
        ({"num_layers": 0}, "'num_layers' parameter"),
        ({"layout": "last"}, "'layout' parameter"),
        ({"stem": "dense"}, "'stem' parameter"),
        ({"skip": "yes"}, "'skip' parameter"),
        ({"validation": "latest"}, "'validation' parameter"),
        ({"pooling": "sum"}, "'pooling' parameter"),
        ({"pooling": ("last", "sum")}, "pooling must be some of"),
        ({"pooling": ()}, "pooling must be some of"),
        ({"conv_channels": (), "stem": "conv"}, "Use stem=None"),
        ({"patch_size": 0}, "'patch_size' parameter"),
        ({"dropout": 1.0}, "'dropout' parameter"),
        ({"quantiles": (0.1, 0.9)}, "quantiles requires loss='quantile'"),
        ({"quantiles": (0.9, 0.1), "loss": "quantile"}, "quantiles must be numbers that rise"),
        ({"quantiles": (0.0, 0.5), "loss": "quantile"}, "between 0 and 1"),
        ({"quantiles": (0.1, np.nan), "loss": "quantile"}, "quantiles must be numbers that rise"),
        ({"quantiles": ("low", "high"), "loss": "quantile"}, "quantiles must be numbers that rise"),
        ({"quantiles": (), "loss": "quantile"}, "quantiles must be numbers that rise"),
    ],
)
def test_parameters_that_are_none(windows, parameters, message):
    with pytest.raises(ValueError, match=message):
        RNNRegressor(**SMALL | parameters).fit(*windows)


@pytest.mark.parametrize(
    ("y", "method", "message"),
    [
        ([7] * 48, "occlusion", "does not know"),
        ([0, 1], "occlusion", "Give one for each"),
        (None, "lime", "Use one of"),
    ],
)
def test_explanations_of_what_is_not_there(data, fitted, y, method, message):
    with pytest.raises(ValueError, match=message):
        fitted.explain(data[0], y, method=method)
