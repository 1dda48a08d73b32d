"""Means of the target by levels: which columns have them, and that no row of training is told its own target."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skdl.data.tables import level_means
from skdl.data.tables.level_means import LevelMeans, columns_with_means, number_of_means, parts_of
from skdl.data.tables.table_encoder import TableEncoder


def levels_of(numbers):
    return np.array([f"level {number}" for number in numbers], dtype=object)


def panel(n_levels=50, n_rows=6, noise=0.5, seed=0):
    """A column of levels of so many rows each, and a target that differs among them."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(np.repeat(np.arange(n_levels), n_rows))
    return levels_of(numbers), rng.normal(size=n_levels)[numbers] + noise * rng.normal(size=len(numbers))


# --- which columns -----------------------------------------------------------------------------------------------


def test_columns_with_means__when_levels_tell_of_the_target__then_of_many_levels_alone():
    values, y = panel()
    few, few_y = panel(n_levels=32, n_rows=10)
    assert columns_with_means([values], y, False) == [0]
    assert columns_with_means([few], few_y, False) == []
    assert columns_with_means([values], y > 0, True) == [0]


@pytest.mark.parametrize("n_rows", [2, 6, 40])
def test_columns_with_means__when_levels_tell_nothing__then_none(n_rows):
    chosen = [
        columns_with_means([values], np.random.default_rng(1).normal(size=len(y)), False)
        for values, y in (panel(n_rows=n_rows, seed=seed) for seed in range(20))
    ]
    assert sum(map(len, chosen)) <= 1


def test_columns_with_means__when_each_row_has_a_level_of_its_own__then_none():
    assert columns_with_means([levels_of(range(100))], np.arange(100.0), False) == []


def test_columns_with_means__when_there_is_no_row_or_one_level__then_none():
    assert columns_with_means([levels_of([])], np.empty(0), False) == []
    assert columns_with_means([levels_of([1] * 50)], np.arange(50.0), False) == []


def test_columns_with_means__when_too_many__then_those_that_tell_most(monkeypatch):
    monkeypatch.setattr(level_means, "MAX_MEANS_IN_ALL", 2)
    values, y = panel(noise=0.1)
    rng = np.random.default_rng(0)
    blurred = [np.where(rng.random(len(y)) < share, rng.permutation(values), values) for share in (0.5, 0.1, 0.3, 0)]
    assert columns_with_means(blurred, y, False) == [1, 3]


def test_columns_with_means__when_there_are_many_classes__then_none():
    values, y = panel()
    assert columns_with_means([values], np.digitize(y, np.linspace(-2, 2, level_means.MAX_MEANS - 1)), True) == [0]
    assert columns_with_means([values], np.digitize(y, np.linspace(-2, 2, level_means.MAX_MEANS)), True) == []


@pytest.mark.parametrize(
    ("y", "classification", "n_means"),
    [
        (np.arange(6.0), False, 1),
        (np.zeros((6, 3)), False, 3),
        (np.array(["a", "b"] * 3), True, 1),
        (np.array(["a", "b", "c"] * 2), True, 3),
        (np.eye(6, dtype=int), True, 6),
    ],
)
def test_number_of_means__then_as_many_as_come_out(y, classification, n_means):
    values = levels_of([0, 0, 1, 1, 2, 2])
    assert number_of_means(y, classification) == n_means
    assert LevelMeans(values, y, classification=classification).transform(values).shape == (6, n_means)


# --- the means ---------------------------------------------------------------------------------------------------


def test_transform__then_by_rows_and_spread_of_a_level():
    # Mean 4 of all; squared deviations of 2 and 8 within two levels of two rows, and none of a lone row.
    values = levels_of([0, 0, 1, 1, 2])
    y = np.array([1.0, 3.0, 2.0, 6.0, 8.0])
    variance, within = y.var(), (2 + 8) / (5 - 3)
    among = variance - within
    expected = [
        (2 - 4) * 2 * among / (2 * among + (2 + 2 * within) / 4),
        0,
        (8 - 4) * among / (among + 2 * within / 3),
        0,
    ]
    means = LevelMeans(values, y, classification=False)
    found = means.transform(levels_of([0, 1, 2, "unknown"]))[:, 0]
    assert_allclose(found, np.array(expected) / np.sqrt(variance))


def test_transform__when_missing_is_a_level__then_it_has_a_mean():
    values = np.array(["a", "a", None, None], dtype=object)
    means = LevelMeans(values, np.array([0.0, 0, 1, 1]), classification=False)
    assert_allclose(means.transform(np.array([None, "b", "a"], dtype=object))[:, 0], [1, 0, -1])
    none_was_missing = LevelMeans(values[:2], np.array([0.0, 1]), classification=False)
    assert none_was_missing.transform(values[2:])[0, 0] == 0


def test_transform__when_target_is_constant__then_zeros():
    means = LevelMeans(levels_of([0, 0, 1, 1]), np.full((4, 2), 7.0), classification=False)
    assert_array_equal(means.transform(levels_of([0, 1])), 0)


@pytest.mark.parametrize("classification", [False, True])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_of_other_parts__then_as_without_the_rows_of_the_part(classification, is_weighted):
    values, y = panel(n_levels=7)
    y = np.digitize(y, [-0.5, 0.5]) if classification else y
    weight = np.random.default_rng(2).uniform(0.1, 3, len(y)) if is_weighted else None
    means = LevelMeans(values, y, weight, classification=classification)
    parts = np.arange(len(y)) % 5
    found = means.of_other_parts(values, y, weight, parts)
    for part in range(5):
        others, own = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        its_weight = None if weight is None else weight[others]
        without = means.relearned(values[others], y[others], its_weight, keeps_others=False)
        assert_allclose(found[own], without.transform(values[own]), atol=1e-9)


def test_of_other_parts__when_a_level_has_no_other_rows__then_nothing_is_known():
    values, y = levels_of([0, 0, 1, 1, 2, 2]), np.array([0.1, 0.3, 0.2, 0.7, 5.0, 6.0])
    weight = np.array([0.1, 0.2, 0.3, 0.3, 0.7, 0.1])
    means = LevelMeans(values, y, weight, classification=False)
    assert_array_equal(means.of_other_parts(values, y, weight, np.array([0, 0, 1, 1, 2, 2])), 0)


def test_of_other_parts__then_its_own_target_has_no_say():
    values, y = panel()
    parts = parts_of(len(y))
    changed = y.copy()
    changed[0] += 100
    means = LevelMeans(values, y, classification=False)
    before, after = (means.of_other_parts(values, target, None, parts) for target in (y, changed))
    assert_allclose(before[0], after[0])
    assert (before != after).any()


@pytest.mark.parametrize("keeps_others", [False, True])
def test_relearned__then_the_means_of_these_rows_in_the_same_units(keeps_others):
    values, y = panel()
    means = LevelMeans(values, y, classification=False)
    assert_array_equal(means.relearned(values, y, keeps_others=keeps_others).means_LT, means.means_LT)
    rows = np.flatnonzero(values > "level 3")
    relearned = means.relearned(values[rows], 10 - 2 * y[rows], keeps_others=keeps_others)
    # Told to rows that are all of one part, other than those that are looked at.
    parts = np.r_[np.zeros(len(rows), int), np.ones(len(rows), int)]
    twice, target = np.r_[values[rows], values[rows]], np.r_[10 - 2 * y[rows], y[rows]]
    expected = means.of_other_parts(twice, target, None, parts)[len(rows) :]
    assert_allclose(relearned.transform(values[rows]), expected, atol=1e-12)
    others = np.setdiff1d(np.arange(len(y)), rows)
    before = means.transform(values[others])
    assert_array_equal(relearned.transform(values[others]), before if keeps_others else 0 * before)


def test_weights__when_whole__then_as_rows_that_come_several_times():
    values, y = panel()
    times = np.arange(len(y)) % 3 + 1
    weighted = LevelMeans(values, y, times.astype(float), classification=False)
    repeated = LevelMeans(np.repeat(values, times), np.repeat(y, times), classification=False)
    assert_allclose(weighted.transform(values), repeated.transform(values))


def test_parts_of__then_alike_in_size_and_always_the_same():
    assert_array_equal(np.bincount(parts_of(80)), 10)
    assert_array_equal(parts_of(80), parts_of(80))


def test_parts_of__when_grouped__then_groups_are_whole():
    groups = np.repeat(np.arange(40), 3)
    parts = parts_of(120, groups)
    assert_array_equal(parts.reshape(40, 3), parts[::3, np.newaxis].repeat(3, axis=1))
    assert len(set(parts)) == level_means.N_PARTS


# --- in encoded tables -------------------------------------------------------------------------------------------


def test_encoder__then_rows_of_training_are_told_of_others_and_all_else_of_them():
    values, y = panel()
    frame, rows = pd.DataFrame({"x": np.arange(300.0), "level": values}), np.arange(0, 300, 2)
    encoder = TableEncoder(None, None, np.float64, with_level_means=True).fit(frame, y[rows], rows)
    (means,) = encoder.level_means.values()
    given = encoder.transform(frame).values.numpy()
    trained = encoder.training_table(frame, y[rows], rows).values.numpy()
    assert encoder.n_outputs == given.shape[1] == 2
    assert_allclose(given[:, 1], means.transform(values)[:, 0])
    assert_array_equal(trained[1::2], given[1::2])
    expected = means.of_other_parts(values[rows], y[rows], None, parts_of(len(rows)))
    assert_allclose(trained[rows, 1], expected[:, 0])
    assert (trained[rows, 1] != given[rows, 1]).mean() > 0.9


def test_encoder__when_nobody_asks_for_means__then_none():
    values, y = panel()
    frame, rows = pd.DataFrame({"level": values}), np.arange(300)
    encoder = TableEncoder().fit(frame, y, rows)
    assert encoder.level_means == {}
    assert encoder.n_outputs == 0


def test_encoder__when_rows_are_copies_of_others__then_levels_of_one_row_tell_nothing():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=80), "name": levels_of(range(80))})
    drawn = rng.integers(0, 80, size=200)
    encoder = TableEncoder(with_level_means=True).fit(frame.iloc[drawn], rng.normal(size=80)[drawn], np.arange(200))
    assert encoder.level_means == {}
