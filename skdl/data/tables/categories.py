"""Levels of categorical columns to numbers: 0/1 columns of few levels, level numbers for an embedding of many."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skdl.data.moments import mean_and_deviation

#: Columns of more levels than this are embedded.
MAX_ONE_HOT_LEVELS = 32
#: Widest embedding.
MAX_EMBEDDING_WIDTH = 50
#: Fewest rows that a level must have to be known, in columns of more than MAX_ONE_HOT_LEVELS levels.
MIN_ROWS_TO_KNOW_LEVEL = 2
#: Most rows that a level must have to be known, however little levels tell of the target.
MAX_ROWS_TO_KNOW_LEVEL = 10
#: Fewest different numbers that may be codes.
MIN_CODES = 11
Ratios = Sequence[tuple[int, float]]
#: Pairs of mean rows per code, at least, and the largest ratio of the variance within codes to that among them: the
#: means of few rows are noisier, so that fewer rows demand a smaller ratio.
MAX_WITHIN_RATIOS = ((5, 1.25), (4, 0.8), (3, 0.5), (2, 0.125))
#: The same for columns that may be several, each of which says a little of the target.
MAX_WITHIN_RATIOS_OF_MANY = ((80, 20.0), (50, 12.5), (20, 5.0))
#: Neighbours are as unlike as any two codes if their variance is more than this share of that among codes.
MIN_UNLIKE = 0.5
#: MIN_UNLIKE of columns that say a little each: steps of a number that says a little look like codes, too.
MIN_UNLIKE_OF_MANY = 0.75
#: A value of more than this share of the rows, such as zero, may stand for "none", and the others for categories. For
#: classes alone: the means of numeric targets hang on single rows where values are rare.
COMMON_SHARE = 0.5
#: MIN_UNLIKE of these others, whose neighbours must also be more unlike than the rows of one code.
MIN_UNLIKE_RARE = 0.25


def in_order(levels: Iterable[Any]) -> list[Any]:
    """Levels by their type and their text, whatever order they come in; None, which stands for missing, at the end."""
    return sorted(levels, key=lambda level: (level is None, type(level).__name__, str(level)))


def level_numbers(values: NDArray, number_of: Mapping[Any, int], unknown: int) -> NDArray[np.int64]:
    """The number of each value's level ``(n,)``."""
    return np.fromiter((number_of.get(value, unknown) for value in values), dtype=np.int64, count=len(values))


def numbered(values: NDArray) -> NDArray[np.int64]:
    """A number for each value ``(n,)``, one for equal values, in the order in which they come."""
    return level_numbers(values, {value: number for number, value in enumerate(dict.fromkeys(values))}, 0)


def embedding_width(n_levels: int) -> int:
    """Width of an embedding by the number of levels: a rule of thumb from the fastai library."""
    return min(MAX_EMBEDDING_WIDTH, round(1.6 * n_levels**0.56))


def _centered_targets(y: NDArray, classification: bool) -> Iterator[NDArray[np.float64]]:
    """Each target ``(n,)`` around its mean: numbers over their deviation, if any, and indicators of classes."""
    if classification and y.ndim == 1:
        labels, of_row = np.unique(y, return_inverse=True)
        for c in range(len(labels)):
            yield (of_row == c) - np.mean(of_row == c)
        return
    for target in y.reshape(len(y), -1).T.astype(np.float64):
        mean, deviation = mean_and_deviation(target)
        if deviation > 0:
            yield (target - mean) / (1 if classification else deviation)


def rows_per_level(counts: NDArray[np.intp]) -> float:
    """How many rows the levels have that have so many each, as the analysis of their variance counts."""
    n_rows = counts.sum()
    return float((n_rows - (counts**2).sum() / n_rows) / (len(counts) - 1))


class LevelVariances(NamedTuple):
    """Variances of targets, added up over them: of rows within levels, among levels, and of neighbouring levels.

    The first two are estimated by the method of moments of a one-way analysis of variance. ``of_neighbours`` is half
    the mean square of the difference between the means of a level and the next one, rows' own variance taken off: as
    large as the variance among levels where the order of the levels means nothing.
    """

    within: float
    among: float
    of_neighbours: float

    @classmethod
    def of(cls, codes: NDArray[np.intp], y: NDArray, classification: bool) -> LevelVariances:
        """Learn from level numbers ``(n,)``, of which there are several and fewer than rows, and targets."""
        n_rows, counts = len(codes), np.bincount(codes)
        n_levels = len(counts)
        weight = np.minimum(counts[1:], counts[:-1]) / np.minimum(counts[1:], counts[:-1]).sum()
        within = among = apart = 0.0
        for target in _centered_targets(y, classification):
            sums = np.bincount(codes, target)
            explained = (sums**2 / counts).sum()
            among += explained
            within += max((target**2).sum() - explained, 0)
            apart += (np.diff(sums / counts) ** 2 * weight).sum() / 2
        within /= n_rows - n_levels
        noise = within * (weight * (1 / counts[1:] + 1 / counts[:-1])).sum() / 2
        return cls(within, (among / (n_levels - 1) - within) / rows_per_level(counts), apart - noise)


def rows_to_know_a_level(codes: NDArray[np.intp], y: NDArray, classification: bool) -> int:
    """Rows from which the mean target of a level says more of the level than of chance, within bounds.

    That is the variance within levels over the variance among their means. Targets ``(n,)`` or ``(n, O)`` of ``codes``
    from 0.
    """
    n_levels = int(codes.max()) + 1
    if n_levels < 2 or n_levels == len(codes):
        return MAX_ROWS_TO_KNOW_LEVEL
    variances = LevelVariances.of(codes, y, classification)
    if variances.within >= MAX_ROWS_TO_KNOW_LEVEL * variances.among:
        return MAX_ROWS_TO_KNOW_LEVEL
    return max(math.ceil(variances.within / variances.among), MIN_ROWS_TO_KNOW_LEVEL)


def are_nominal(x: NDArray, y: NDArray, classification: bool) -> bool:
    """Whether numbers, NaN where missing, stand for categories.

    So do numbers of several rows each that tell much of the target, while neighbours are as unlike as any two; or those
    of them that few rows have.
    """
    is_number = ~np.isnan(x)
    _, codes = np.unique(x[is_number], return_inverse=True)
    y = y[is_number]
    variances = _variances(codes, y, classification)
    if variances is not None and _are_unlike(variances, codes, MAX_WITHIN_RATIOS, MIN_UNLIKE):
        return True
    is_common = np.bincount(codes) > COMMON_SHARE * len(codes)
    if not is_common.any():
        return variances is not None and _are_unlike(variances, codes, MAX_WITHIN_RATIOS_OF_MANY, MIN_UNLIKE_OF_MANY)
    if not classification:
        return False
    is_rare = ~is_common[codes]
    _, codes = np.unique(codes[is_rare], return_inverse=True)
    variances = _variances(codes, y[is_rare], classification)
    if variances is None or variances.of_neighbours <= variances.within:
        return False
    return _are_unlike(variances, codes, MAX_WITHIN_RATIOS, MIN_UNLIKE_RARE)


def _variances(codes: NDArray[np.intp], y: NDArray, classification: bool) -> LevelVariances | None:
    """The variances of codes; None if there are few of them, or fewer rows of each than may tell anything."""
    n_codes, (fewest_rows, _) = int(codes.max(initial=-1)) + 1, MAX_WITHIN_RATIOS[-1]
    if n_codes < MIN_CODES or len(codes) < fewest_rows * n_codes:
        return None
    return LevelVariances.of(codes, y, classification)


def _are_unlike(variances: LevelVariances, codes: NDArray[np.intp], ratios: Ratios, min_unlike: float) -> bool:
    """Whether codes tell enough of the target for their rows, while neighbours are as unlike as any two."""
    n_codes = int(codes.max()) + 1
    most_within = next((most for n_rows, most in ratios if len(codes) >= n_rows * n_codes), None)
    if most_within is None or variances.within > most_within * variances.among:
        return False
    return variances.of_neighbours > min_unlike * variances.among


def distinct_rows(columns: Iterable[NDArray]) -> NDArray[np.intp]:
    """The first of each set of rows that are alike in all columns ``(n,)``, in order; NaN is like NaN."""
    first, of_row = np.zeros(1, dtype=np.intp), np.zeros(1, dtype=np.intp)
    for values in columns:
        numbers = numbered(values) if values.dtype == object else np.unique(values, return_inverse=True)[1]
        pairs = of_row * (numbers.max() + 1) + numbers
        _, first, of_row = np.unique(pairs, return_index=True, return_inverse=True)
        if len(first) == len(values):
            break
    return np.sort(first)


def as_levels(x: NDArray) -> NDArray:
    """Codes as the levels of a column, None where missing.

    They are alike in single and in double precision, as far as whole numbers are.
    """
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(over="ignore"):
        rounded = np.where(x == np.rint(x), x, x.astype(np.float32)).astype(object)
    rounded[np.isnan(x)] = None
    return rounded


class Levels:
    """Levels of a column in sorted order, with a number each; 0 is for all others."""

    def __init__(self, levels: Iterable[Any]) -> None:
        self.__setstate__({"levels": in_order(levels)})

    def __getstate__(self) -> dict[str, Any]:
        # Cells as keys would not survive skops, which reads the key False as True and knows few other types.
        return {"levels": self.levels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.levels: list[Any] = state["levels"]
        self.code_of = {level: code for code, level in enumerate(self.levels, start=1)}

    def __len__(self) -> int:
        return len(self.levels)

    def codes(self, values: NDArray) -> NDArray[np.int64]:
        """Level numbers ``(n,)``."""
        return level_numbers(values, self.code_of, 0)


class CategoricalEncoder:
    """Levels of one categorical column to numbers: 0 for unknown, then the training levels in sorted order.

    A missing value is a level of its own where training rows had one, and unknown otherwise. Of many levels, those of
    few rows are unknown as well: they would be learned by heart, and this way networks learn what to make of levels
    that they have not seen.
    """

    def fit(self, values: NDArray, y: NDArray, classification: bool) -> CategoricalEncoder:
        counts = Counter(values)
        distinct = set(counts)
        if len(counts) > MAX_ONE_HOT_LEVELS:
            fewest = rows_to_know_a_level(numbered(values), y, classification)
            distinct = {level for level, n in counts.items() if n >= fewest}
        self.has_unknown = len(distinct) < len(counts)
        self.levels = Levels(distinct)
        return self

    @property
    def is_embedded(self) -> bool:
        return len(self.levels) > MAX_ONE_HOT_LEVELS

    @property
    def n_outputs(self) -> int:
        """How many 0/1 columns the column becomes; one of -1 and +1 for two levels that are all there is."""
        if self.is_embedded or len(self.levels) + self.has_unknown < 2:
            return 0
        return 1 if self._is_binary else len(self.levels)

    @property
    def _is_binary(self) -> bool:
        return len(self.levels) == 2 and not self.has_unknown

    def codes(self, values: NDArray) -> NDArray[np.int64]:
        """Level numbers ``(n,)``."""
        return self.levels.codes(values)

    def transform(self, values: NDArray, out: NDArray) -> None:
        """Encode into ``out`` ``(n, n_outputs)``, which holds zeros."""
        codes = self.codes(values)
        if self._is_binary:
            out[:, 0] = np.array([0, -1, 1])[codes]
        elif self.n_outputs:
            known = np.flatnonzero(codes)
            out[known, codes[known] - 1] = 1
