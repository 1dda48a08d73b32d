"""Where the level of series counts: beside their shape, on rows that a regression has not seen."""

import numpy as np
import pytest

from skdl import window
from skdl.data.series.series_level import level_is_informative


def decide(series, lags=24, horizon=3):
    X, y = window(series, lags=lags, horizon=horizon)
    values = X[:, 0]
    return level_is_informative(values, np.full(len(X), lags), values[:, -1], y.reshape(len(X), -1))


def returning(n, factor, rng):
    series = np.zeros(n)
    for t in range(1, n):
        series[t] = factor * series[t - 1] + rng.normal()
    return series


@pytest.mark.parametrize("seed", range(5))
def test_levels_count_where_series_return_to_a_mean(seed):
    assert decide(returning(2000, 0.8, np.random.RandomState(seed)))


@pytest.mark.parametrize("seed", range(5))
def test_levels_of_random_walks_do_not_count(seed):
    assert not decide(returning(2000, 1.0, np.random.RandomState(seed)))


@pytest.mark.parametrize("seed", range(5))
def test_levels_that_the_shape_tells_do_not_count(seed):
    wave = 1000 + 10 * np.sin(np.arange(350) / 5)
    assert not decide(wave + np.random.RandomState(seed).normal(0, 0.3, size=350))


def test_series_of_one_level_or_very_few_rows():
    assert not decide(np.ones(100))
    assert not decide(np.arange(5.0), lags=3, horizon=1)


def test_rows_without_weight_and_missing_values_say_nothing():
    rng = np.random.RandomState(0)
    series = returning(1200, 0.8, rng)
    X, y = window(series, lags=12, horizon=3)
    values, level = X[:, 0], X[:, 0, -1].copy()
    lengths = np.full(len(X), 12)
    level[::7] = np.nan
    values[5::11, 3] = np.nan
    weight = np.where(np.isnan(level), 1.0, rng.randint(0, 2, size=len(X)))
    assert level_is_informative(values, lengths, level, y, weight)
    spoilt = np.where((weight == 0)[:, None], 1e6 * rng.normal(size=y.shape), y)
    assert level_is_informative(values, lengths, level, spoilt, weight)


def test_shorter_series_have_fewer_steps():
    X, y = window(returning(1000, 0.8, np.random.RandomState(0)), lags=12, horizon=3)
    lengths = np.random.RandomState(1).randint(2, 13, size=len(X))
    values = np.full((len(X), 12), np.nan)
    for row, length in enumerate(lengths):
        values[row, :length] = X[row, 0, -length:]
    assert level_is_informative(values, lengths, X[:, 0, -1], y)
