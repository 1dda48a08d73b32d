"""Levels of categorical columns to numbers: 0/1 columns of few levels, level numbers for an embedding of many."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Columns of more levels than this are embedded.
MAX_ONE_HOT_LEVELS = 32
#: Widest embedding.
MAX_EMBEDDING_WIDTH = 50
#: Bounds on the rows that a level of so many must have to be known.
FEWEST_LEVEL_ROWS, MOST_LEVEL_ROWS = 2, 10


def embedding_width(n_levels: int) -> int:
    """Width of an embedding by the number of levels: a rule of thumb from the fastai library."""
    return min(MAX_EMBEDDING_WIDTH, round(1.6 * n_levels**0.56))


def rows_to_know_a_level(codes: NDArray[np.intp], y: NDArray, classification: bool) -> int:
    """Rows from which the mean target of a level says more of the level than of chance, within bounds.

    That is the variance within levels over the variance among their means, both estimated by the method of moments of
    a one-way analysis of variance. Targets ``(n,)`` or ``(n, O)`` of ``codes`` from 0.
    """
    n_rows, counts = len(codes), np.bincount(codes)
    if n_rows == len(counts) or len(counts) < 2:
        return MOST_LEVEL_ROWS
    if classification and y.ndim == 1:
        labels, of_row = np.unique(y, return_inverse=True)
        targets: Iterable[NDArray[np.float64]] = ((of_row == c).astype(np.float64) for c in range(len(labels)))
    else:
        targets = y.reshape(n_rows, -1).T.astype(np.float64)
    among = within = 0.0
    for target in targets:
        centered = target - target.mean()
        if not classification:
            # Targets of one value say nothing.
            centered = centered / (np.abs(centered).max() or 1)
            centered = centered / (np.sqrt(np.mean(centered**2)) or 1)
        explained = (np.bincount(codes, centered) ** 2 / counts).sum()
        among += explained
        within += (centered**2).sum() - explained
    variance_within = max(within, 0) / (n_rows - len(counts))
    rows_per_level = (n_rows - (counts**2).sum() / n_rows) / (len(counts) - 1)
    variance_among = (among / (len(counts) - 1) - variance_within) / rows_per_level
    if variance_within >= MOST_LEVEL_ROWS * variance_among:
        return MOST_LEVEL_ROWS
    return max(math.ceil(variance_within / variance_among), FEWEST_LEVEL_ROWS)


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
            code_of = {level: code for code, level in enumerate(counts)}
            codes = np.fromiter((code_of[v] for v in values), dtype=np.intp, count=len(values))
            fewest = rows_to_know_a_level(codes, y, classification)
            distinct = {level for level, n in counts.items() if n >= fewest}
        self.has_unknown = len(distinct) < len(counts)
        ordered: list[Any] = sorted((v for v in distinct if v is not None), key=lambda v: (type(v).__name__, str(v)))
        if None in distinct:
            ordered.append(None)
        self.levels = ordered
        self.code_of = {level: code for code, level in enumerate(ordered, start=1)}
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
        code_of = self.code_of
        return np.fromiter((code_of.get(v, 0) for v in values), dtype=np.int64, count=len(values))

    def transform(self, values: NDArray, out: NDArray) -> None:
        """Encode into ``out`` ``(n, n_outputs)``, which holds zeros."""
        codes = self.codes(values)
        if self._is_binary:
            out[:, 0] = np.array([0, -1, 1])[codes]
        elif self.n_outputs:
            known = np.flatnonzero(codes)
            out[known, codes[known] - 1] = 1
