import math
from fractions import Fraction

import numpy as np
import pytest

from skdl.data.folds import (
    Fold,
    block_folds,
    cross_folds,
    group_folds,
    last_fold,
    mean_by_row,
    random_folds,
    trained_rows,
)

TARGETS = {
    "classes": np.repeat([0, 1, 2], [60, 30, 10]),
    "strings": np.repeat(["a", "b"], [75, 25]),
    "numbers": np.linspace(0, 1, 100) ** 3,
    "several": np.arange(200.0).reshape(100, 2),
}
#: Row numbers need not start at 0 nor follow one another.
ROWS = 7 + 3 * np.arange(100)


def state(seed=0):
    return np.random.RandomState(seed)


def check_strata(y, held_out, share):
    places = np.searchsorted(ROWS, held_out)
    if y.ndim > 1:
        return
    if y.dtype.kind == "f":
        # A sample stratified by rank has at each quarter as many rows as the whole.
        counts = np.bincount(places // 25, minlength=4)
        np.testing.assert_allclose(counts, 25 * share, atol=1.5)
        return
    for label in np.unique(y):
        assert (y[places] == label).sum() == pytest.approx((y == label).sum() * share, abs=1.5)


@pytest.mark.parametrize("n_members", [2, 3, 8])
@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
def test_cross_folds__then_every_row_is_held_out_once_and_strata_are_kept(y, n_members):
    folds = cross_folds(ROWS, y, n_members, state())
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.held_out for fold in folds])), ROWS)
    for fold in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.train, fold.held_out])), ROWS)
        assert len(fold.held_out) == pytest.approx(100 / n_members, abs=1)
        check_strata(y, fold.held_out, 1 / n_members)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.333])
@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
def test_random_folds__then_each_holds_out_its_share_and_strata_are_kept(y, fraction):
    folds = random_folds(ROWS, y, 3, fraction, state())
    for fold in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.train, fold.held_out])), ROWS)
        check_strata(y, fold.held_out, fraction)
    assert not np.array_equal(folds[0].held_out, folds[1].held_out)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.15, 0.3, 0.5, 0.7])
def test_random_folds__then_the_number_held_out_is_the_share_rounded_up(fraction):
    for n in range(2, 200):
        (fold,) = random_folds(np.arange(n), np.zeros(n), 1, fraction, state())
        assert len(fold.held_out) == math.ceil(Fraction(str(fraction)) * n)


def test_folds__when_same_seed__then_the_same():
    y = TARGETS["classes"]
    for make in (lambda s: cross_folds(ROWS, y, 4, state(s)), lambda s: random_folds(ROWS, y, 4, 0.2, state(s))):
        for fold, again in zip(make(1), make(1), strict=True):
            np.testing.assert_array_equal(fold.held_out, again.held_out)
        assert not np.array_equal(make(1)[0].held_out, make(2)[0].held_out)


def test_trained_rows__then_those_that_any_member_trains_on():
    folds = [Fold(np.array([3, 9]), np.array([5])), Fold(np.array([5, 3]), np.array([9, 12]))]
    np.testing.assert_array_equal(trained_rows(folds), [3, 5, 9])


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_mean_by_row_is_over_the_parts_that_know_the_row(shape):
    parts = [(np.array([0, 2]), np.ones((2, *shape))), (np.array([2, 3]), np.full((2, *shape), 4.0))]
    expected = np.reshape([1, np.nan, 2.5, 4], (4, *[1] * len(shape))) * np.ones(shape)
    np.testing.assert_array_equal(mean_by_row(4, parts), expected)


@pytest.mark.parametrize("fraction", [None, 0.3])
def test_group_folds__then_no_group_is_in_both_parts(fraction):
    groups = np.repeat(np.arange(10), 10)[state().permutation(100)]
    group_of = dict(zip(ROWS, groups, strict=True))
    folds = group_folds(ROWS, groups, 5, fraction, state())
    for fold in folds:
        train, held_out = ({group_of[row] for row in rows} for rows in (fold.train, fold.held_out))
        assert train.isdisjoint(held_out) and len(held_out) == (2 if fraction is None else 3)
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.train, fold.held_out])), ROWS)
    if fraction is None:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.held_out for fold in folds])), ROWS)


@pytest.mark.parametrize("gap", [0, 4])
@pytest.mark.parametrize(
    ("fraction", "starts", "n_held_out"), [(None, [0, 25, 50, 75], 25), (0.1, [0, 30, 60, 90], 10)]
)
def test_block_folds__then_stretches_at_equal_distances_and_gaps_beside_them(fraction, starts, n_held_out, gap):
    folds = block_folds(ROWS, 4, fraction, gap)
    for fold, start in zip(folds, starts, strict=True):
        stop = start + n_held_out
        assert fold.held_out.tolist() == ROWS[start:stop].tolist()
        assert fold.train.tolist() == [*ROWS[: max(start - gap, 0)], *ROWS[stop + gap :]]


@pytest.mark.parametrize(("gap", "n_left_out"), [(0, 0), (7, 7), (40, 20)])
def test_last_fold__then_a_gap_of_at_most_a_quarter_of_the_other_rows(gap, n_left_out):
    fold = last_fold(ROWS, 0.2, gap)
    assert fold.held_out.tolist() == ROWS[80:].tolist()
    assert fold.train.tolist() == ROWS[: 80 - n_left_out].tolist()
