"""Encoded series: what is taken out, what stands beside them, and the way back."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skdl import window
from skdl.data.series.series_encoder import SeriesEncoder, continued_channel
from skdl.data.series.series_reading import Series
from skdl.estimators.series.checks import check_series


def checked(X, layout="channels_first"):
    return check_series(SimpleNamespace(layout=layout), X, reset=True)


def walks(n=60, n_steps=20, horizon=3, seed=0):
    """Walks from levels far apart, and how they go on; a second channel is noise."""
    rng = np.random.RandomState(seed)
    walk = rng.normal(0, 50, size=(n, 1)) + np.cumsum(rng.normal(size=(n, n_steps + horizon)), axis=1)
    return checked(np.stack([rng.normal(size=(n, n_steps)), walk[:, :n_steps]], axis=1)), walk[:, n_steps:]


def encoder(X, y, scaling="auto", **options):
    rows = np.arange(len(X))
    return SeriesEncoder(np.float64, scaling).fit(X, y, rows, options.pop("weight", None), **options)


def test_channels_are_standardised_by_their_training_values_alone():
    values = np.array([[[1.0, 3, np.nan]], [[5, 7, 9]], [[100, 100, 100]]])
    fitted = SeriesEncoder(np.float64, None).fit(checked(values), np.zeros(2), np.arange(2))
    assert_allclose(fitted.center, [5])
    assert_allclose(fitted.scale, [np.std([1, 3, 5, 7, 9])])
    parts = fitted.layout.parts(fitted.transform(checked(values)).values)
    assert_allclose(parts.series_BCT[0, 0], [-4 / fitted.scale[0], -2 / fitted.scale[0], 0])
    assert parts.lengths_B.tolist() == [2, 3, 3] and parts.covariates_BE.shape == (3, 1)


def test_weights_are_repetitions():
    X, y = walks()
    weight = np.random.RandomState(0).randint(1, 4, len(X)).astype(float)
    one = encoder(X, y, "standard", weight=weight)
    repeated = np.repeat(np.arange(len(X)), weight.astype(int))
    other = encoder(X[repeated], y[repeated], "standard")
    for name in ("center", "scale", "target_center", "target_scale", "common_spread"):
        assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)


def test_missing_values_inside_a_series_get_a_channel():
    values = np.arange(24.0).reshape(2, 2, 6)
    values[0, 1, 2] = np.nan
    values[1, :, 5] = np.nan
    X = checked(values)
    fitted = encoder(X, np.zeros(2), None)
    assert fitted.indicated.tolist() == [1] and fitted.layout.n_channels == 3
    series = fitted.layout.parts(fitted.transform(X).values).series_BCT
    assert_array_equal(series[:, 2], [[0, 0, 1, 0, 0, 0], [0] * 6])
    assert series[0, 1, 2] == 0


def test_the_channel_that_goes_on_is_found():
    X, y = walks()
    assert continued_channel(X, y, None) == 1 and continued_channel(X, y[:, 0], None) == 1
    assert continued_channel(X, np.random.RandomState(0).normal(size=60), None) is None
    fitted = encoder(X, y)
    assert fitted.is_reversible and fitted.scaling == "last" and fitted.last_encoder is not None
    assert not encoder(X, y, classification=True).is_reversible
    assert not encoder(X, y, None).is_reversible


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [1, 3])
def test_windows_go_on_whatever_their_last_value_says(step, dtype):
    noise = np.random.RandomState(0).normal(size=(200, 2))
    series, y = window(noise, target=1, lags=8, horizon=3, step=step)
    X = checked(series.astype(dtype))
    assert continued_channel(X, y, None) == 0
    assert encoder(X, y).scaling is None
    order = np.random.RandomState(0).permutation(len(X))
    assert continued_channel(X[order], y[order], None) == 0
    # Rows of the other channel go on as well, but not into these targets.
    assert continued_channel(checked(series[:, 1:].astype(dtype)), y, None) is None


def test_windows_of_several_series_in_turns_go_on():
    rng = np.random.RandomState(0)
    table = pd.DataFrame({"shop": np.repeat([1, 2, 3], 60), "t": np.tile(np.arange(60), 3), "v": rng.normal(size=180)})
    X, y = window(table, target="v", lags=6, by="shop", time="t")
    assert continued_channel(checked(X), y, None) == 0


def test_values_that_come_often_are_no_windows():
    rng = np.random.RandomState(0)
    X, y = checked((rng.rand(300, 1, 8) > 0.9).astype(float)), (rng.rand(300) > 0.9).astype(float)
    assert continued_channel(X, y, None) is None
    counts = (rng.rand(300) > 0.9).astype(float)
    series, y = window(counts, lags=8)
    assert continued_channel(checked(series), y, None) == 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_are_no_windows(n):
    X = checked(np.random.RandomState(0).normal(size=(n, 1, 6)))
    assert continued_channel(X, np.arange(n, dtype=float), None) is None


def test_levels_that_say_nothing_of_later_steps_stay_in():
    # The next step is like the last one, all others are their opposite.
    X, y = walks()
    y = np.concatenate([y[:, :1], -y[:, :1], -y[:, :1]], axis=1)
    fitted = encoder(X, y)
    assert fitted.target_channel == 1 and not fitted.is_reversible and fitted.last_encoder is not None


@pytest.mark.parametrize("scaling", ["last", "mean", "standard"])
def test_the_way_back_leads_to_the_targets(scaling):
    X, y = walks()
    fitted = encoder(X, y, scaling)
    location, scale = y.mean(0), y.std(0)
    denormalization = fitted.denormalization(location, scale)
    parts = fitted.layout.parts(fitted.transform(X).values)
    values = X.values[:, 1]
    level = {"last": values[:, -1]}.get(scaling, values.mean(1))
    base = denormalization.apply(torch.zeros(60, 3, dtype=torch.float64), parts)
    assert_allclose(base.numpy() * scale + location, np.repeat(level[:, None], 3, axis=1))
    # In units of the outputs, targets are about 1 away from there.
    away = denormalization.invert(torch.as_tensor((y - location) / scale), parts)
    assert 0.9 < float(away.square().mean().sqrt()) < 1.1


def test_series_are_the_same_at_all_levels():
    X, y = walks()
    fitted = encoder(X, y)
    moved = Series(X.values + np.array([[0.0], [1e5]]), X.lengths)
    one, other = (fitted.layout.parts(fitted.transform(series).values) for series in (X, moved))
    assert_allclose(one.series_BCT, other.series_BCT, atol=1e-6)
    # Only the other channel's last value stands beside the series.
    assert_array_equal(one.covariates_BE, other.covariates_BE)


@pytest.mark.parametrize("scaling", ["last", "mean", "standard"])
def test_series_without_a_level_get_the_usual_one(scaling):
    X, y = walks()
    weight = np.random.RandomState(0).randint(0, 4, len(X)).astype(float)
    others = encoder(X[1:], y[1:], scaling, weight=weight[1:])
    values = X.values.copy()
    values[0, 1] = np.nan
    X = Series(values, X.lengths)
    fitted = encoder(X, y, scaling, weight=weight)
    assert fitted.lacks_level(X).tolist() == [True] + [False] * 59
    assert_allclose([fitted.usual_location, fitted.usual_spread], [others.usual_location, others.usual_spread])
    parts = fitted.layout.parts(fitted.transform(X).values)
    level = parts.level_B1[:, 0] * fitted.target_scale + fitted.target_center
    assert_allclose(level[0], np.average(level[1:], weights=weight[1:]))
    assert_allclose(parts.spread_B1[0], np.average(parts.spread_B1[1:, 0], weights=weight[1:]))
    assert (parts.series_BCT[0, 1] == 0).all()


def test_one_series_without_a_level_does_not_keep_the_levels_of_others_in():
    X, y = walks()
    values = X.values.copy()
    values[0, 1] = np.nan
    fitted = encoder(Series(values, X.lengths), y)
    assert fitted.scaling == "last" and fitted.is_reversible


def test_rows_hold_sizes_where_lengths_differ():
    equal, unequal = checked(np.ones((3, 1, 4))), checked([np.ones(4), np.ones(2), np.ones(3)])
    assert encoder(equal, np.zeros(3)).transform(equal).sizes is None
    assert encoder(unequal, np.zeros(3)).transform(unequal).sizes.tolist() == [4, 2, 3]
