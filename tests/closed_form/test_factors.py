"""The Gaussian of few factors against the full one, whose covariance it is."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skdl.closed_form.factors import FactorGaussian, fit_factors
from skdl.closed_form.gaussian import MAX_COVARIANCE_COLUMNS, Gaussian, fit_gaussian

D, R = 12, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def by_factors(rng):
    parts = rng.normal(size=D), rng.normal(size=(D, R)), rng.uniform(0.1, 1, size=D), np.full(D, 50.0)
    return FactorGaussian(*map(torch.from_numpy, parts))


@pytest.fixture
def in_full(by_factors):
    covariance = by_factors.loading @ by_factors.loading.t() + torch.diag(by_factors.noise)
    return Gaussian.of(by_factors.mean, covariance)


def fitted(x, present, weight=None, prior_rows=5.0):
    weight = torch.ones(len(x), dtype=torch.float64) if weight is None else weight
    return fit_factors(x * present, present, weight, prior_rows, present.sum(0))


@pytest.fixture
def rows(rng):
    present = torch.from_numpy(rng.random((200, D)) < rng.random((200, 1)))
    present[0], present[1] = False, True
    return torch.from_numpy(3 * rng.normal(size=(200, D))), present


def test_complete_when_cells_are_missing_then_mean_of_the_full_gaussian(by_factors, in_full, rows):
    x, present = rows
    completed = by_factors.complete(x, present)
    assert_array_equal(completed[present], x[present])
    assert_allclose(completed, in_full.complete(x, present), rtol=1e-8, atol=1e-8)


def test_deviation_when_cells_are_missing_then_that_of_the_full_gaussian(by_factors, in_full, rows):
    _, present = rows
    assert_allclose(by_factors.deviation(present), in_full.deviation(present), rtol=1e-8, atol=1e-8)
    assert (by_factors.deviation(present)[present] == 0).all()


def test_covariance_of_when_cells_are_missing_then_that_of_the_full_gaussian(by_factors, in_full, rows):
    present = rows[1].clone()
    present[:, 4:7] = False
    columns = slice(4, 7)
    found, expected = by_factors.covariance_of(columns, present), in_full.covariance_of(columns, present)
    assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["by_factors", "in_full"])
def test_draw_when_repeated_then_conditional_covariance(kind, in_full, request):
    present = torch.arange(D) % 3 > 0
    drawn = request.getfixturevalue(kind).draw(present.expand(40_000, D), generator())
    missing = ~present
    expected = torch.linalg.inv(in_full.precision[missing][:, missing])
    scale = expected.diagonal().sqrt()
    assert (drawn[:, present] == 0).all()
    assert_allclose(drawn[:, missing].mean(0) / scale, 0, atol=0.03)
    assert_allclose((drawn[:, missing].T.cov() - expected) / torch.outer(scale, scale), 0, atol=0.04)


def test_redrawn_then_itself(by_factors):
    assert by_factors.redrawn(np.random.RandomState(0)) is by_factors


def test_complete_when_rows_are_alone_then_the_same(by_factors, rows):
    x, present = rows
    together = by_factors.complete(x, present)
    alone = torch.cat([by_factors.complete(x[i : i + 1], present[i : i + 1]) for i in range(len(x))])
    assert_allclose(alone, together, rtol=1e-10, atol=1e-10)


def test_fit_when_rows_are_of_factors_then_almost_as_good_as_the_truth(by_factors, in_full, rng):
    x = by_factors.draw(torch.zeros(3000, D, dtype=torch.bool), generator()) + by_factors.mean
    present = torch.from_numpy(rng.random((3000, D)) > 0.3)
    found = fitted(x[:2000], present[:2000])
    hidden = ~present[2000:]
    error, least = (
        (gaussian.complete(x[2000:], present[2000:]) - x[2000:])[hidden].square().mean().sqrt()
        for gaussian in (found, in_full)
    )
    assert error <= 1.02 * least
    assert_allclose(found.deviation(present[2000:])[hidden], in_full.deviation(present[2000:])[hidden], rtol=0.25)


@pytest.mark.parametrize("n_rows", [1, 2, 10])
def test_fit_when_rows_are_few_then_finite(rng, n_rows):
    x = torch.from_numpy(rng.normal(size=(n_rows, 80)))
    x[:, 0] = 0.7
    present = torch.from_numpy(rng.random((n_rows, 80)) > 0.3)
    found = fitted(x, present)
    assert found.complete(x, present).isfinite().all() and found.deviation(present).isfinite().all()


def test_fit_when_row_has_weight_two_then_as_when_it_comes_twice(rows):
    x, present = rows
    weight = 1 + (torch.arange(len(x)) < 50).double()
    one, other = fitted(x, present, weight), fitted(torch.cat([x, x[:50]]), torch.cat([present, present[:50]]))
    assert_allclose(one.mean, other.mean, rtol=1e-8, atol=1e-8)
    assert_allclose(one.noise, other.noise, rtol=1e-8, atol=1e-8)
    assert_allclose(one.loading @ one.loading.T, other.loading @ other.loading.T, rtol=1e-8, atol=1e-8)


def test_fit_gaussian_when_columns_are_many_then_by_factors(rng):
    x = torch.from_numpy(rng.normal(size=(100, MAX_COVARIANCE_COLUMNS + 1)))
    present = torch.ones_like(x, dtype=torch.bool)
    assert isinstance(fit_gaussian(x, present, generator()), FactorGaussian)
    assert isinstance(fit_gaussian(x[:, 1:], present[:, 1:], generator()), Gaussian)
