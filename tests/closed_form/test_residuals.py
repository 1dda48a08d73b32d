"""Quantiles of residuals against the distributions that the residuals come from."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from skdl.closed_form.residuals import ResidualQuantiles

N = 20_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(quantiles, prediction, rng):
    return quantiles.residual(prediction, rng.normal(size=len(prediction)))


def test_residuals_when_normal_then_drawn_as_normal(rng):
    prediction, residual = rng.normal(size=(2, N))
    quantiles = ResidualQuantiles.of(prediction, 2 * residual)
    draws = drawn(quantiles, rng.normal(size=N), rng)
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    # Bins of 1000 cells have quantiles within a few hundredths.
    assert_allclose(np.quantile(draws, levels), 2 * norm.ppf(levels), atol=0.1)
    assert_allclose(quantiles.deviation(prediction), 2, rtol=0.1)


def test_residuals_when_skewed_then_drawn_skewed(rng):
    residual = rng.exponential(size=N) - 1
    quantiles = ResidualQuantiles.of(np.zeros(N), residual)
    draws = drawn(quantiles, np.zeros(N), rng)
    levels = np.linspace(0.05, 0.95, 7)
    assert_allclose(np.quantile(draws, levels), np.quantile(residual, levels), atol=0.05)
    assert draws.min() >= residual.min() and draws.max() <= residual.max()


def test_residuals_when_spread_follows_the_prediction_then_so_do_draws(rng):
    prediction = rng.uniform(0, 1, size=N)
    quantiles = ResidualQuantiles.of(prediction, rng.normal(size=N) * (0.1 + prediction))
    at = np.repeat([0.1, 0.9], 5000)
    small, large = drawn(quantiles, at, rng).reshape(2, -1).std(axis=1)
    assert_allclose([small, large], [0.2, 1.0], rtol=0.15)
    assert_allclose(quantiles.deviation(np.array([0.1, 0.9])), [0.2, 1.0], rtol=0.15)


def test_residuals_when_biased_then_draws_are_too(rng):
    quantiles = ResidualQuantiles.of(np.zeros(N), rng.normal(size=N) + 3)
    assert drawn(quantiles, np.zeros(1000), rng).mean() == pytest.approx(3, abs=0.15)


def test_residual_when_normal_rises_then_does_not_fall(rng):
    quantiles = ResidualQuantiles.of(rng.normal(size=500), rng.standard_t(2, size=500))
    normal = np.linspace(-40, 40, 1001)
    draws = quantiles.residual(np.zeros(1001), normal)
    assert np.isfinite(draws).all() and (np.diff(draws) >= 0).all()


@pytest.mark.parametrize("n_cells", [0, 1, 5])
def test_of_when_cells_are_few_then_as_the_gaussian(n_cells, rng):
    quantiles = ResidualQuantiles.of(np.zeros(n_cells), np.zeros(n_cells))
    draws = drawn(quantiles, np.zeros(N), rng)
    levels = np.array([0.1, 0.25, 0.75, 0.9])
    assert_allclose(np.quantile(draws, levels), norm.ppf(levels), atol=0.3)


def test_of_when_cells_are_drawn_anew_then_intervals_cover_them(rng):
    # Quantiles of a small sample itself are too narrow: [5 %, 95 %] of 100 cells covers less than 90 % of others.
    inside = []
    for _ in range(500):
        quantiles = ResidualQuantiles.of(np.zeros(60), 3 * rng.standard_t(4, size=60))
        low, high = quantiles.residual(np.zeros(2), norm.ppf([0.05, 0.95]))
        new = 3 * rng.standard_t(4, size=200)
        inside.append(((new >= low) & (new <= high)).mean())
    assert 0.87 <= np.mean(inside) <= 0.93


@pytest.mark.parametrize("prediction", [np.zeros(1000), np.repeat([0.0, 1.0], [970, 30]), np.arange(1000) % 2])
def test_of_when_predictions_repeat_then_every_prediction_has_a_bin(rng, prediction):
    quantiles = ResidualQuantiles.of(prediction.astype(float), rng.normal(size=1000))
    at = np.array([-1e9, 0.0, 0.5, 1.0, 1e9])
    assert np.isfinite(quantiles.residual(at, np.zeros(5))).all()
    assert_allclose(quantiles.deviation(at), 1, rtol=0.5)
