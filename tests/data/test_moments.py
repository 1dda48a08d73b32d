"""Means and deviations of numbers of any size."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skdl.data.moments import ROUNDING, mean_and_deviation, weighted_quantiles

X = np.random.default_rng(0).normal(3, 2, size=(20, 3, 5))
WEIGHT = np.random.default_rng(1).integers(0, 4, size=20)


@pytest.mark.parametrize("axis", [0, 1, (0, 2)])
def test_without_weights_they_are_those_of_numpy(axis):
    mean, deviation = mean_and_deviation(X, axis=axis)
    assert_allclose(mean, X.mean(axis), rtol=1e-14)
    assert_allclose(deviation, X.std(axis), rtol=1e-14)


def test_a_weight_is_a_number_of_rows():
    mean, deviation = mean_and_deviation(X, WEIGHT[:, None, None], axis=(0, 2))
    repeated = np.repeat(X, WEIGHT, axis=0)
    assert_allclose(mean, repeated.mean((0, 2)), rtol=1e-13)
    assert_allclose(deviation, repeated.std((0, 2)), rtol=1e-13)


def test_of_one_axis_they_are_single_numbers():
    mean, deviation = mean_and_deviation(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 0.0]))
    assert (float(mean), float(deviation)) == (1.5, 0.5)


@pytest.mark.parametrize("factor", [2.0**1000, 2.0**-1000])
def test_size_does_not_matter(factor):
    for scaled, plain in zip(mean_and_deviation(X * factor), mean_and_deviation(X), strict=True):
        assert_array_equal(scaled / factor, plain)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e300, 1e-300, 5e-324])
def test_of_a_constant_the_deviation_is_zero(value):
    weight = np.random.default_rng(0).random(1001)
    for weights in (None, weight):
        mean, deviation = mean_and_deviation(np.full(1001, value), weights)
        assert_allclose(mean, value, rtol=1e-13)
        assert deviation == 0


def test_a_deviation_above_rounding_is_kept():
    x = 1 + 100 * ROUNDING * np.array([-1.0, 1.0])
    assert mean_and_deviation(x)[1] > 0
    assert mean_and_deviation(x, rounding=200 * ROUNDING)[1] == 0


def test_without_any_weight_they_are_zero():
    weight = np.array([[1.0, 0.0], [3.0, 0.0]])
    mean, deviation = mean_and_deviation(np.array([[1.0, 7.0], [5.0, 9.0]]), weight)
    assert_array_equal(mean, [4, 0])
    assert_allclose(deviation, [np.sqrt(3), 0])


@pytest.mark.parametrize("top", [2, 3, 5, 7])
@pytest.mark.parametrize("shape", [(61,), (61, 2)])
def test_a_weight_is_a_row_so_often_for_quantiles_whatever_weights_are_divided_by(top, shape):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x, weight, levels = rng.normal(size=shape), rng.integers(0, top + 1, 61), np.array([0, 0.25, 0.5, 0.75, 1])
        repeated = np.quantile(np.repeat(x, weight, axis=0), levels, axis=0, method="inverted_cdf")
        for unit in (1, top, 1e-12):
            assert_array_equal(weighted_quantiles(x, levels, weight / unit), repeated)
            assert_array_equal(weighted_quantiles(x, 0.5, weight / unit), repeated[2])


def test_quantiles_without_weights_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(20, 3))
    assert_array_equal(weighted_quantiles(x, [0.1, 0.9]), np.quantile(x, [0.1, 0.9], axis=0, method="inverted_cdf"))
