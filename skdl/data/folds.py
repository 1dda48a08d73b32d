"""Which rows each member of a fit trains on, and which it holds out to be validated on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]

#: Fewest rows outside a held-out stretch for each row that is left out on one side of it.
MIN_ROWS_PER_GAP_ROW = 4


@dataclass(frozen=True)
class Fold:
    """Rows of one member."""

    train: Rows
    held_out: Rows


def n_held_out_rows(fraction: float, n_rows: int) -> int:
    """How many rows a share of them is, rounded up, but not by a rounding error of the product."""
    return math.ceil(round(fraction * n_rows, 9))


def spread_places(y: NDArray, random_state: np.random.RandomState) -> Rows:
    """A place in line for each row, neighbours in line having neighbouring targets.

    Every k-th place in line is then a sample that is stratified by class, or by rank of a numeric target. Rows of
    several targets stand in random order.
    """
    order = random_state.permutation(len(y))
    if y.ndim == 1:
        order = order[np.argsort(np.unique(y[order], return_inverse=True)[1], kind="stable")]
    place = np.empty(len(y), dtype=np.intp)
    place[order] = np.arange(len(y))
    return place


def cross_folds(rows: Rows, y: NDArray, n_members: int, random_state: np.random.RandomState) -> list[Fold]:
    """Folds that hold out every row once."""
    place = spread_places(y, random_state)
    # Neighbours in line go to different members, in an order drawn anew for each round.
    rounds = [random_state.permutation(n_members) for _ in range(-(-len(rows) // n_members))]
    member = np.concatenate(rounds)[place]
    return [Fold(rows[member != m], rows[member == m]) for m in range(n_members)]


def random_folds(
    rows: Rows, y: NDArray, n_members: int, fraction: float, random_state: np.random.RandomState
) -> list[Fold]:
    """Folds that each hold out a share of the rows of their own choice."""
    n_held_out = n_held_out_rows(fraction, len(rows))
    folds = []
    for _ in range(n_members):
        place = spread_places(y, random_state)
        # One row of each of so many equal stretches of the line.
        bounds = np.arange(n_held_out + 1) * len(rows) // n_held_out
        held_out = np.isin(place, random_state.randint(bounds[:-1], bounds[1:]))
        folds.append(Fold(rows[~held_out], rows[held_out]))
    return folds


def group_folds(
    rows: Rows, groups: NDArray, n_members: int, fraction: float | None, random_state: np.random.RandomState
) -> list[Fold]:
    """Folds that hold out whole groups of rows: each group once, or a share of the groups for each member."""
    from sklearn.model_selection import GroupKFold, GroupShuffleSplit

    if fraction is None:
        splitter = GroupKFold(n_members, shuffle=True, random_state=random_state)
    else:
        splitter = GroupShuffleSplit(n_members, test_size=fraction, random_state=random_state)
    return [Fold(rows[train], rows[held_out]) for train, held_out in splitter.split(rows, groups=groups)]


def last_fold(rows: Rows, fraction: float, gap: int) -> Fold:
    """A fold that holds out the last rows, a share of all, and leaves out a gap; see :func:`block_folds`."""
    return _fold_around(rows, np.arange(len(rows) - n_held_out_rows(fraction, len(rows)), len(rows)), gap)


def block_folds(rows: Rows, n_members: int, fraction: float | None, gap: int) -> list[Fold]:
    """Folds that hold out stretches of neighbouring rows: each row once, or a share of the rows for each member.

    Rows of a gap on both sides are neither held out nor trained on, as far as most others are left.
    """
    places = np.arange(len(rows))
    if fraction is None:
        blocks = np.array_split(places, n_members)
    else:
        n_held_out = n_held_out_rows(fraction, len(rows))
        starts = np.linspace(0, len(rows) - n_held_out, n_members).round().astype(int)
        blocks = [places[start : start + n_held_out] for start in starts]
    return [_fold_around(rows, block, gap) for block in blocks]


def _fold_around(rows: Rows, block: Rows, gap: int) -> Fold:
    """A fold that holds out the rows of these neighbouring places."""
    places = np.arange(len(rows))
    width = min(gap, (len(rows) - len(block)) // MIN_ROWS_PER_GAP_ROW)
    is_apart = (places < block[0] - width) | (places > block[-1] + width)
    return Fold(rows[is_apart], rows[block])


def mean_by_row(n_rows: int, parts: Sequence[tuple[Rows, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """The mean ``(n_rows, ...)`` of what parts, each of rows and their values, say of a row; NaN where none does."""
    sums, counts = np.zeros((n_rows, *parts[0][1].shape[1:])), np.zeros(n_rows)
    for rows, values in parts:
        sums[rows] += values
        counts[rows] += 1
    with np.errstate(invalid="ignore"):
        return sums / counts.reshape(-1, *[1] * (sums.ndim - 1))


def trained_rows(folds: list[Fold]) -> Rows:
    """The rows that any member trains on, in rising order."""
    is_trained = np.zeros(max(int(fold.train.max()) for fold in folds) + 1, dtype=bool)
    for fold in folds:
        is_trained[fold.train] = True
    return np.flatnonzero(is_trained)
