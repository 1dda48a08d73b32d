"""How many rows a level must have for its mean target to be more than chance, and numbers that stand for levels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skdl.data.tables.categories import (
    MAX_ROWS_TO_KNOW_LEVEL,
    MIN_ROWS_TO_KNOW_LEVEL,
    LevelVariances,
    are_nominal,
    as_levels,
    distinct_rows,
    rows_to_know_a_level,
)

LEVELS = np.repeat(np.arange(200), 5)


def drawn(variance_within, n_outputs=None):
    """Targets of means of variance 1 and of rows of the given variance around them."""
    rng = np.random.default_rng(0)
    shape = () if n_outputs is None else (n_outputs,)
    means = rng.normal(size=(200, *shape))
    return means[LEVELS] + np.sqrt(variance_within) * rng.normal(size=(1000, *shape))


@pytest.mark.parametrize("n_outputs", [None, 3])
@pytest.mark.parametrize(("variance", "bounds"), [(0.0, (2, 2)), (4.0, (4, 6)), (8.0, (6, 10)), (1000.0, (10, 10))])
def test_it_is_the_variance_within_over_that_among(variance, bounds, n_outputs):
    y = drawn(variance, n_outputs)
    assert bounds[0] <= rows_to_know_a_level(LEVELS, y, False) <= bounds[1]
    for factor in (1e-200, 1e306):
        assert rows_to_know_a_level(LEVELS, factor * y, False) == rows_to_know_a_level(LEVELS, y, False)


def test_a_target_of_one_value_beside_others_says_nothing():
    y = np.random.default_rng(0).normal(size=1000)
    # The mean of many 0.1 is not quite 0.1.
    assert rows_to_know_a_level(LEVELS, np.stack([y, np.full(1000, 0.1)], axis=1), False) == MAX_ROWS_TO_KNOW_LEVEL
    assert not are_nominal(LEVELS.astype(float), np.stack([y, np.full(1000, 0.1)], axis=1), False)


def test_labels_count_by_their_shares():
    telling, chance = (LEVELS % 3).astype(str), np.random.default_rng(0).integers(3, size=1000).astype(str)
    assert rows_to_know_a_level(LEVELS, telling, True) == MIN_ROWS_TO_KNOW_LEVEL
    assert rows_to_know_a_level(LEVELS, chance, True) == MAX_ROWS_TO_KNOW_LEVEL
    several = np.stack([LEVELS % 2, LEVELS % 3 == 0], axis=1)
    assert rows_to_know_a_level(LEVELS, several, True) == MIN_ROWS_TO_KNOW_LEVEL


@pytest.mark.parametrize(
    ("codes", "y"),
    [
        (np.arange(50), np.arange(50.0)),
        (np.zeros(50, dtype=int), np.arange(50.0)),
        (np.arange(50) // 2, np.ones(50)),
    ],
    ids=["own levels", "one level", "constant"],
)
def test_where_nothing_tells_levels_apart_many_rows_are_asked(codes, y):
    assert rows_to_know_a_level(codes, y, False) == MAX_ROWS_TO_KNOW_LEVEL


def test_variances_are_those_that_targets_are_drawn_by():
    found = np.mean([LevelVariances.of(LEVELS, target, False) for target in drawn(3.0, 50).T], axis=0)
    # Targets are over their deviation, and the order of the levels means nothing.
    assert_allclose(found, [0.75, 0.25, 0.25], atol=0.02)


# --- numbers that stand for levels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("classification", [False, True])
def test_codes_are_numbers_whose_neighbours_are_unlike(classification):
    rng = np.random.default_rng(0)
    x = rng.permutation(LEVELS).astype(float)
    means = rng.normal(size=200)
    y = means[x.astype(int)] + 0.5 * rng.normal(size=1000)
    ordered = np.sin(x / 30) + 0.1 * rng.normal(size=1000)
    if classification:
        y, ordered = y > 0, ordered > 0
    assert are_nominal(x, y, classification)
    assert not are_nominal(x, ordered, classification)
    assert not are_nominal(x, rng.permutation(y), classification)
    # Of 200 numbers each has one row, or there are too few of them.
    assert not are_nominal(x[:200], y[:200], classification) and not are_nominal(x % 10, y, classification)
    assert are_nominal(np.append(x, np.full(100, np.nan)), np.append(y, y[:100]), classification)


@pytest.mark.parametrize("classification", [False, True])
def test_codes_of_many_rows_may_be_one_of_several_columns_that_say_a_little(classification):
    rng = np.random.default_rng(0)
    x = np.repeat(np.arange(40.0), 50)
    # A fifth of the variance, or a little less than that of a sign.
    rest = 2 * rng.normal(size=2000)
    y, ordered = rng.normal(size=40)[x.astype(int)] + rest, np.sin(x / 4) + 0.5 * rest
    if classification:
        y, ordered = y > 0, ordered > 0
    assert are_nominal(x, y, classification)
    assert not are_nominal(x, ordered, classification) and not are_nominal(x, rng.permutation(y), classification)
    few = rng.permutation(2000)[:600]
    assert not are_nominal(x[few], y[few], classification)


@pytest.mark.parametrize("classification", [False, True])
def test_codes_of_few_rows_say_nearly_all_of_the_target(classification):
    rng = np.random.default_rng(0)
    x = np.repeat(np.arange(300.0), 3)
    means = np.repeat(rng.normal(size=300), 3)
    steady, noisy = means + 0.1 * rng.normal(size=900), means + rng.normal(size=900)
    if classification:
        steady, noisy = means > 0, noisy > 0
    assert are_nominal(x, steady, classification)
    assert not are_nominal(x, noisy, classification)
    # Of one row each, nothing is known.
    assert not are_nominal(x[::3], steady[::3], classification)


def test_codes_beside_a_number_that_most_rows_have():
    rng = np.random.default_rng(0)
    # Zero for most rows; of the others, the number says the class, in no order.
    x = np.where(rng.random(4000) < 0.9, 0, rng.integers(1, 40, size=4000)).astype(float)
    label = rng.permutation(40) % 2 == 0
    y = np.where(x == 0, rng.random(4000) < 0.3, label[x.astype(int)])
    assert are_nominal(x, y, True)
    # By a threshold, or by chance, and numbers that say little more than their neighbours.
    assert not are_nominal(x, np.where(x == 0, y, x > 20), True)
    assert not are_nominal(x, rng.permutation(y), True)
    # Means of numeric targets hang on single rows.
    assert not are_nominal(x, y.astype(float), False)


def test_distinct_rows_are_the_first_of_their_kind():
    number = np.array([1.0, np.nan, 1.0, 2.0, np.nan, 1.0])
    text = np.array(["a", "b", "a", "a", "b", None], dtype=object)
    assert distinct_rows([number]).tolist() == [0, 1, 3]
    assert distinct_rows([number, text]).tolist() == [0, 1, 3, 5]
    assert distinct_rows(iter([text, number])).tolist() == [0, 1, 3, 5]
    rng = np.random.default_rng(0)
    table = rng.integers(4, size=(1000, 5))
    expected = np.sort(np.unique(table, axis=0, return_index=True)[1])
    assert_array_equal(distinct_rows(table.T), expected)


def test_codes_are_alike_in_both_precisions():
    codes = np.array([0.1, 123456789.0, np.nan, 1e300, -2.5])
    assert_array_equal(as_levels(codes[[0, 4]]), as_levels(codes[[0, 4]].astype(np.float32)))
    assert as_levels(codes)[1:4].tolist() == [123456789.0, None, 1e300]
