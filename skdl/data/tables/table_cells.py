"""Tables with missing cells to standardised numbers and back.

A numeric column becomes one encoded column of mean 0 and variance 1; a column of levels becomes one encoded column a
level, whose variances add up to 1. Dates are numbers of seconds. What was not seen in training is missing to the
network, and stays in the table as it is.

Axes: N rows, C columns of the table, D encoded columns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skdl.data.moments import mean_and_deviation
from skdl.data.tables.categories import in_order, level_numbers
from skdl.data.tables.cells import cell_text, is_missing_cell, is_same_cell, missing_cells
from skdl.data.tables.columns import Column, ColumnType
from skdl.data.tables.fitted_columns import FittedColumn, mixtures
from skdl.data.tables.frames import frame_columns, is_frame
from skdl.data.tables.object_columns import numbers_as_text

#: Most levels of a column that have encoded columns of their own, the most frequent ones; rarer ones are not imputed.
MAX_IMPUTED_LEVELS = 32
#: Fewest rows of such a level, in columns of more levels than that: names and identifiers tell nothing.
MIN_IMPUTED_LEVEL_ROWS = 5
#: A day in the unit of dates here, microseconds.
DAY = 86_400e6
#: Bound on standardised cells, so that their squares stay finite.
MAX_CELL = 1e6


class CellEncoder(Protocol):
    """One column's cells as numbers."""

    @property
    def width(self) -> int:
        """Encoded columns."""

    def encode(self, values: NDArray) -> NDArray[np.float64]:
        """Encoded cells ``(N, width)``, NaN where missing."""

    def decode(self, encoded: NDArray[np.float64]) -> NDArray:
        """Cells ``(N,)`` of encoded ones, as in ``encode``."""

    def spread(self, deviation: NDArray[np.float64], encoded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of cells in their own unit, by those of encoded ones."""


@dataclass(frozen=True)
class NumberCells:
    """Numbers, standardised.

    ``low`` and ``high`` bound what is decoded, which is rounded to multiples of ``unit``; 0 leaves it. A ``scale`` of 0
    is that of a constant, whose cells are all encoded as zeros, whatever rounding has made of them.
    """

    center: float
    scale: float
    low: float
    high: float
    unit: float
    is_date: bool = False
    width: int = 1

    @classmethod
    def of(cls, column: Column, clip: bool, round_integers: bool) -> NumberCells:
        """Learn from a column with at least one value."""
        is_date = column.kind == "datetime"
        values = _numbers(column.values)
        values = values[~np.isnan(values)]
        center, scale = map(float, mean_and_deviation(values))
        low, high = float(values.min()), float(values.max())
        if not clip:
            first, last = column.type.limits
            low, high = min(low, first), max(high, last)
        # Dates without a time of day keep having none.
        unit = DAY if is_date else float(round_integers)
        unit = unit if unit and (values % unit == 0).all() else 0.0
        return cls(center, scale if np.isfinite(scale) else 0.0, low, high, unit, is_date)

    def encode(self, values: NDArray) -> NDArray[np.float64]:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.clip((_numbers(values) - self.center) / (self.scale or np.inf), -MAX_CELL, MAX_CELL)[:, None]

    def decode(self, encoded: NDArray[np.float64]) -> NDArray:
        values = np.clip(encoded[:, 0] * self.scale + self.center, self.low, self.high)
        if self.unit:
            values = np.round(values / self.unit) * self.unit
        return values.astype("datetime64[us]") if self.is_date else values

    def spread(self, deviation: NDArray[np.float64], encoded: NDArray[np.float64]) -> NDArray[np.float64]:
        return deviation[:, 0] * self.scale


@dataclass(frozen=True)
class LevelCells:
    """Levels, each with an encoded column: how far its indicator is from its share of the rows.

    ``cells`` are what levels are decoded to: themselves, or the most frequent value where they are its text. Rarer
    levels are none of them, which says something, too; new ones are missing where there were no rarer ones.
    """

    levels: tuple[Any, ...]
    cells: tuple[Any, ...]
    shares: NDArray[np.float64]
    #: Root of the sum of the indicators' variances.
    scale: float
    has_others: bool

    @classmethod
    def of(cls, column: Column) -> LevelCells:
        """Learn from a column with at least one value."""
        counts = Counter(value for value in column.values if value is not None)
        # Of equally frequent ones the first in order count as more frequent, whatever the order of the rows.
        counts = Counter({level: counts[level] for level in in_order(counts)})
        levels = tuple(counts)
        if len(counts) > MAX_IMPUTED_LEVELS:
            frequent = counts.most_common(MAX_IMPUTED_LEVELS)
            levels = tuple(in_order(level for level, n_rows in frequent if n_rows >= MIN_IMPUTED_LEVEL_ROWS))
        if not levels:
            # One stands for all, with an encoded column of zeros.
            levels = (counts.most_common(1)[0][0],)
            return cls(levels, _cells_of_levels(column, levels), np.ones(1), 1.0, False)
        shares = np.array([counts[level] for level in levels]) / sum(counts.values())
        scale = float(np.sqrt((shares * (1 - shares)).sum()))
        has_others = len(levels) < len(counts)
        return cls(levels, _cells_of_levels(column, levels), shares, scale or 1.0, has_others)

    @property
    def width(self) -> int:
        return len(self.levels)

    def encode(self, values: NDArray) -> NDArray[np.float64]:
        codes = level_numbers(values, {level: code for code, level in enumerate(self.levels)}, -1)
        # The last row of the indicators is that of no level.
        encoded = (np.eye(self.width + 1, self.width)[codes] - self.shares) / self.scale
        is_missing = missing_cells(values) if self.has_others else codes < 0
        encoded[is_missing] = np.nan
        return encoded

    def probabilities(self, encoded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of each level ``(N, width)``."""
        # A level that is never quite impossible keeps the sum above zero.
        raw = np.clip(encoded * self.scale + self.shares, 1e-6, 1)
        return raw / raw.sum(axis=1, keepdims=True)

    def decode(self, encoded: NDArray[np.float64]) -> NDArray:
        return self._values(self.probabilities(encoded).argmax(axis=1))

    def draw(self, encoded: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Encoded cells of drawn levels, by independent numbers from 0 to 1 ``(N, width - 1)``.

        Level by level, each of those that are left is taken if its number is among the largest.
        """
        probabilities = self.probabilities(encoded)
        left = probabilities[:, ::-1].cumsum(axis=1)[:, ::-1]
        is_taken = np.ones(encoded.shape, dtype=bool)
        is_taken[:, :-1] = uniform > 1 - (probabilities / left)[:, :-1]
        return (np.eye(self.width)[is_taken.argmax(axis=1)] - self.shares) / self.scale

    def _values(self, codes: NDArray[np.intp]) -> NDArray:
        cells = np.empty(self.width, dtype=object)
        cells[:] = self.cells
        return cells[codes]

    def spread(self, deviation: NDArray[np.float64], encoded: NDArray[np.float64]) -> NDArray[np.float64]:
        """That of the indicator of the most probable level."""
        most = self.probabilities(encoded).max(axis=1)
        return np.sqrt(most * (1 - most))


def _cells_of_levels(column: Column, levels: tuple[Any, ...]) -> tuple[Any, ...]:
    if column.cells is None:
        return levels
    counts: dict[Any, Counter] = {level: Counter() for level in levels}
    for level, cell in zip(column.values, column.cells, strict=True):
        if level in counts:
            # By type too, for 4 and 4.0 are equal.
            counts[level][type(cell), cell] += 1
    return tuple(counts[level].most_common(1)[0][0][1] for level in levels)


def _numbers(values: NDArray) -> NDArray[np.float64]:
    if values.dtype.kind != "M":
        return np.asarray(values, dtype=np.float64)
    return np.where(np.isnat(values), np.nan, values.astype("datetime64[us]").astype(np.int64).astype(np.float64))


class TableCells:
    """The cells of a table's columns as numbers.

    Parameters
    ----------
    clip : bool
        Whether decoded numbers keep to the range of the training rows.
    round_integers : bool
        Whether columns that hold whole numbers only are decoded to such.
    missing_value : object
        What stands for a missing cell beside NaN, None and the like.
    """

    def __init__(self, clip: bool, round_integers: bool, missing_value: Any = np.nan) -> None:
        self.clip, self.round_integers, self.missing_value = clip, round_integers, missing_value
        #: What the columns were; none before ``fit``.
        self.fitted: list[FittedColumn] = []

    def fit(self, columns: list[Column]) -> TableCells:
        """Learn from the columns of a table."""
        self.fitted = list(map(FittedColumn.of, columns))
        self.numbers_as_text = numbers_as_text(columns)
        #: Columns that have a value.
        self.filled = np.array([not column.is_empty for column in columns])
        self.encoders: dict[int, CellEncoder] = {
            c: self._encoder(column) for c, column in enumerate(columns) if not column.is_empty
        }
        self.types = [self._type(c, column) for c, column in enumerate(columns)]
        #: Place among the columns that have a value, of each encoded column.
        self.column_of_D = np.repeat(
            np.arange(len(self.encoders)), [encoder.width for encoder in self.encoders.values()]
        )
        return self

    @property
    def numbers(self) -> NDArray[np.intp]:
        """Which encoded columns hold numbers."""
        is_number = [isinstance(encoder, NumberCells) for encoder in self.encoders.values()]
        return np.flatnonzero(np.array(is_number)[self.column_of_D])

    def _encoder(self, column: Column) -> CellEncoder:
        if column.kind == "categorical":
            return LevelCells.of(column)
        return NumberCells.of(column, self.clip, self.round_integers)

    def _type(self, c: int, column: Column) -> ColumnType:
        encoder = self.encoders.get(c)
        if not isinstance(encoder, LevelCells):
            return column.type
        # The names of rare levels are data of a few rows, which is not kept.
        has_rare = not set(column.values) <= {None, *encoder.levels}
        return replace(column.type.without_categories() if has_rare else column.type, levels=encoder.cells)

    def columns(self, X: Any) -> list[Column]:
        """The columns of a numeric array or a frame, with what stands for a missing cell taken out."""
        if is_frame(X):
            columns = frame_columns(X, mixtures(self.fitted), self.missing_value)
        else:
            columns = [Column(c, "numeric", X[:, c], bool(np.isnan(X[:, c]).all())) for c in range(X.shape[1])]
        return [self._without_missing_value(column) for column in columns]

    def _without_missing_value(self, column: Column) -> Column:
        if is_missing_cell(self.missing_value):
            return column
        is_missing = _is_value(column, self.missing_value)
        if not is_missing.any():
            return column
        nothing: Any = None if column.kind == "categorical" else np.nan
        values = np.where(is_missing, nothing, column.values)
        return replace(column, values=values, is_empty=bool(missing_cells(values).all()))

    def encode(self, columns: list[Column], dtype: np.dtype | type = np.float32) -> tuple[NDArray, NDArray[np.bool_]]:
        """Standardised cells ``(N, D)``, NaN where missing, and which cells of the table are missing ``(N, C)``.

        Of all rows of the columns, or of some.

        Raises
        ------
        ValueError
            If a column is of another kind than in training, levels are of another type, or dates have a time zone that
            had none or lost theirs.
        """
        missing_NC = np.stack([missing_cells(column.values) for column in columns], axis=1)
        encoded_ND = np.empty((len(missing_NC), len(self.column_of_D)), dtype=dtype)
        start = 0
        for c, encoder in self.encoders.items():
            # Numbers are not taken for levels or the other way round: imputed ones have no place among booleans.
            values = self.fitted[c].values(columns[c])
            encoded_ND[:, start : start + encoder.width] = encoder.encode(values)
            start += encoder.width
        return encoded_ND, missing_NC

    def slices(self) -> dict[int, slice]:
        """The encoded columns of each column that has a value."""
        stops = np.cumsum([encoder.width for encoder in self.encoders.values()])
        return {
            c: slice(stop - encoder.width, stop)
            for (c, encoder), stop in zip(self.encoders.items(), stops.tolist(), strict=True)
        }


def _is_value(column: Column, value: Any) -> NDArray[np.bool_]:
    """Which cells are a number or a text that stands for a missing cell."""
    if column.kind == "categorical":
        value = cell_text(value) if column.is_mixture else value
        return np.array([is_same_cell(cell, value) for cell in column.values], dtype=bool)
    if column.kind == "datetime" or isinstance(value, str):
        return np.zeros(len(column.values), dtype=bool)
    return column.values == value
