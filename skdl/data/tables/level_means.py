"""Target encoding of categorical columns: the mean target of each level, for training rows from other folds.

Of levels with few rows the mean is drawn towards that of all rows (empirical Bayes, Micci-Barreca 2001).

Training rows are encoded with means of other rows (cross-fitting). With their own target in it, a mean would give away
what is to be predicted, and would say less of rows that are not in training.

Axes: N rows, L levels, unknown ones as the first, T means of each level.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skdl.data.moments import mean_and_deviation
from skdl.data.tables.categories import MAX_ONE_HOT_LEVELS, Levels, LevelVariances, numbered, rows_per_level

#: Most means of a column, one for each target or class; with more of these, no column has means.
MAX_MEANS = 16
#: Most means of all columns of a table: those columns have them that tell most.
MAX_MEANS_IN_ALL = 32
#: Parts of the training rows, each of which is told the means of the others.
N_PARTS = 8
#: Levels tell something of the target if its variance among them exceeds that within them by more than so many standard
#: errors of what chance makes of both.
MIN_EXCESS_STANDARD_ERRORS = 3.0
#: Weight, in rows, of the variance within all levels beside that of the rows of one level.
COMMON_ROWS = 2.0
#: Smallest share of the target's variance that is taken to be among levels.
MIN_AMONG = 0.02
#: Share of a level's weight that may be rounding.
ROUNDING = 1e-9


def has_many_levels(values: NDArray) -> bool:
    """Whether a column has more levels than there are 0/1 columns for."""
    return len(set(values)) > MAX_ONE_HOT_LEVELS


def columns_with_means(columns: Sequence[NDArray], y: NDArray, classification: bool) -> list[int]:
    """Which columns have level means: those of many levels that tell most of the target, in order."""
    n_means = number_of_means(y, classification)
    if n_means > MAX_MEANS:
        return []
    told = [_excess_variance(values, y, classification) for values in columns]
    best_first = sorted(range(len(columns)), key=lambda i: -told[i])
    return sorted(i for i in best_first[: MAX_MEANS_IN_ALL // n_means] if told[i] > 0)


def number_of_means(y: NDArray, classification: bool) -> int:
    """How many means a level has: one for each target or class, for two classes that of the second one."""
    classes = _classes_with_means(y, classification)
    if classes is not None:
        return max(len(classes), 1)
    return 1 if y.ndim == 1 else y.shape[1]


def _classes_with_means(y: NDArray, classification: bool) -> NDArray | None:
    """The classes of labels that have a mean; None where each target has one."""
    if not classification or y.ndim == 2:
        return None
    classes = np.unique(y)
    return classes[1:] if len(classes) == 2 else classes


def _excess_variance(values: NDArray, y: NDArray, classification: bool) -> float:
    """How much more the target differs among levels than within, if by more than chance allows; otherwise 0."""
    codes = numbered(values)
    n_levels, n_rows = int(codes.max(initial=-1)) + 1, len(codes)
    # Fewer levels have a 0/1 column each.
    if not MAX_ONE_HOT_LEVELS < n_levels < n_rows:
        return 0.0
    variances = LevelVariances.of(codes, y, classification)
    excess = variances.among * rows_per_level(np.bincount(codes))
    by_chance = variances.within * math.sqrt(2 / (n_levels - 1) + 2 / (n_rows - n_levels))
    if excess <= MIN_EXCESS_STANDARD_ERRORS * by_chance:
        return 0.0
    return excess / variances.within if variances.within > 0 else math.inf


class LevelSums(NamedTuple):
    """Sums over the rows of each level: of weights ``(L, 1)``, of targets and of their squares ``(L, T)``."""

    weight: NDArray[np.float64]
    target: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(
        cls, codes: NDArray[np.intp], target_NT: NDArray[np.float64], weight_N1: NDArray[np.float64], n_levels: int = 0
    ) -> LevelSums:
        """Sums over rows of these levels ``(N,)``, of which there are so many at least."""

        def by_level(values_NC: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack([np.bincount(codes, column, n_levels) for column in values_NC.T], axis=1)

        return cls(by_level(weight_N1), by_level(weight_N1 * target_NT), by_level(weight_N1 * target_NT**2))

    def at(self, codes: NDArray[np.intp]) -> LevelSums:
        """The sums of some levels."""
        return LevelSums(*(part[codes] for part in self))

    def without(self, other: LevelSums) -> LevelSums:
        """The sums over the rows that are not among those of another."""
        is_left = self.weight - other.weight > ROUNDING * self.weight
        return LevelSums(*((part - its) * is_left for part, its in zip(self, other, strict=True)))

    def within(self) -> NDArray[np.float64]:
        """Variance of targets within levels ``(T,)``."""
        weight = np.where(self.weight > 0, self.weight, 1)
        squares = np.maximum(self.square - self.target**2 / weight, 0)
        return squares.sum(axis=0) / max(self.weight.sum() - (self.weight > 0).sum(), 1)

    def means(self, among_T: NDArray[np.float64], within_T: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means of targets around 0, drawn towards 0 by empirical Bayes, for these variances among and within levels.

        The fewer rows a level has and the more they differ, the further. How much they differ is known from few rows
        alone, beside which some of the variance within all levels stand.
        """
        weight = np.where(self.weight > 0, self.weight, 1)
        mean = self.target / weight
        squares = np.maximum(self.square - mean**2 * weight, 0)
        within = (squares + COMMON_ROWS * within_T) / (weight + COMMON_ROWS)
        among = self.weight * among_T
        return mean * np.divide(among, among + within, out=np.zeros_like(mean), where=among > 0)


class LevelMeans:
    """Means of the target by the levels of one column.

    Parameters
    ----------
    values : ndarray of shape (n,)
        The column in the training rows.
    y : ndarray of shape (n,) or (n, n_targets)
    weight : ndarray of shape (n,), optional
    classification : bool
        Whether y are labels.
    """

    def __init__(
        self, values: NDArray, y: NDArray, weight: NDArray[np.float64] | None = None, *, classification: bool
    ) -> None:
        self.levels = Levels(set(values))
        self.classes = _classes_with_means(y, classification)
        raw_NT = self._raw(y)
        self.centre, deviation = mean_and_deviation(raw_NT, None if weight is None else weight[:, None])
        self.scale = np.where(deviation > 0, deviation, 1)
        sums = self._sums(self.levels.codes(values), y, weight)
        self.within = sums.within()
        # Of targets of variance 1, or of constants.
        self.among = np.where(deviation > 0, np.maximum(1 - self.within, MIN_AMONG), 0)
        self.means_LT = sums.means(self.among, self.within)

    def _raw(self, y: NDArray) -> NDArray[np.float64]:
        """Targets ``(N, T)``, of labels indicators of classes."""
        if self.classes is None:
            return y.reshape(len(y), -1).astype(np.float64)
        return (y[:, np.newaxis] == self.classes).astype(np.float64)

    def _sums(self, codes: NDArray[np.intp], y: NDArray, weight: NDArray[np.float64] | None) -> LevelSums:
        target_NT = (self._raw(y) - self.centre) / self.scale
        weight_N1 = np.ones((len(y), 1)) if weight is None else weight[:, np.newaxis]
        return LevelSums.of(codes, target_NT, weight_N1, len(self.levels) + 1)

    def relearned(
        self, values: NDArray, y: NDArray, weight: NDArray[np.float64] | None = None, *, keeps_others: bool
    ) -> LevelMeans:
        """The means among these rows, in the same units; of levels that they lack those of before, or none."""
        sums = self._sums(self.levels.codes(values), y, weight)
        relearned = copy.copy(self)
        others = self.means_LT if keeps_others else 0
        relearned.means_LT = np.where(sums.weight > 0, sums.means(self.among, self.within), others)
        return relearned

    def transform(self, values: NDArray) -> NDArray[np.float64]:
        """The means of rows that are not in training ``(N, T)``."""
        return self.means_LT[self.levels.codes(values)]

    def of_other_parts(
        self, values: NDArray, y: NDArray, weight: NDArray[np.float64] | None, parts: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The means that rows of training are told ``(N, T)``: each those of the rows that are not of its part."""
        codes = self.levels.codes(values)
        _, of_row = np.unique(codes * (parts.max() + 1) + parts, return_inverse=True)
        everything, own = self._sums(codes, y, weight), self._sums(of_row, y, weight)
        return everything.at(codes).without(own.at(of_row)).means(self.among, self.within)


def parts_of(n_rows: int, groups: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Parts ``(N,)`` of training rows, drawn at random, always in the same way; a group is of one part."""
    groups = np.arange(n_rows) if groups is None else groups
    order = np.random.RandomState(0).permutation(int(groups.max()) + 1)
    return order[groups] % N_PARTS
