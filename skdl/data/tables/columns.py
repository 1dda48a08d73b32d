"""Columns of tables as numpy values, of whichever library the table is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from skdl.data.tables.cells import is_missing_cell

Kind = Literal["numeric", "categorical", "datetime"]

#: Range of dates and durations of nanoseconds, in microseconds (dates since 1970); a little less than they can hold.
NANOSECOND_LIMITS = (-9.2e15, 9.2e15)
#: Range of all other dates and durations, in microseconds: that of Python's dates, or a little less.
PYTHON_LIMITS = (-6.2e16, 2.5e17)
#: Integers up to this size are the same as floats; larger ones may not be.
MAX_EXACT_INTEGER = 2**53


@dataclass(frozen=True)
class ColumnType:
    """Type of a column in its frame.

    ``dtype`` is that of narwhals, which is the same in all libraries; of objects, what they would be as none, and
    Object only where there are both text and numbers. ``native`` is that of pandas, which tells more types apart.
    ``levels`` are those that are imputed.
    """

    dtype: Any = field(default_factory=nw.Float64)
    native: Any = None
    levels: tuple[Any, ...] = ()

    @property
    def has_zone(self) -> bool:
        """Whether there are dates of a time zone."""
        return getattr(self.dtype, "time_zone", None) is not None

    @property
    def is_duration(self) -> bool:
        """Whether there are durations."""
        return self.dtype == nw.Duration

    @property
    def limits(self) -> tuple[float, float]:
        """The first and the last value that such a column can hold: dates in microseconds, durations in seconds."""
        if self.dtype not in (nw.Datetime, nw.Date, nw.Duration):
            return -math.inf, math.inf
        first, last = NANOSECOND_LIMITS if getattr(self.dtype, "time_unit", None) == "ns" else PYTHON_LIMITS
        return (first / 1e6, last / 1e6) if self.is_duration else (first, last)

    def without_categories(self) -> ColumnType:
        """The type of columns that may have other categories."""
        return ColumnType(nw.Categorical()) if self.dtype in (nw.Categorical, nw.Enum) else self


@dataclass(frozen=True)
class Column:
    """One column of a frame.

    ``values`` are float64 with NaN for "numeric", datetime64[us] with NaT for "datetime", and objects with None for
    "categorical". ``is_empty`` says that all cells are missing, so that the kind is only a guess. ``cells`` are there
    where there are both text and numbers: each distinct value is a level by its text, and these are the values.
    """

    name: Any
    kind: Kind
    values: NDArray
    is_empty: bool = False
    cells: NDArray | None = None
    type: ColumnType = ColumnType()

    @property
    def is_mixture(self) -> bool:
        """Whether there are both text and numbers."""
        return self.cells is not None

    def rows(self, start: int, stop: int) -> Column:
        """Some rows of the column, which still says whether all of its cells are missing."""
        return replace(self, values=self.values[start:stop])

    def as_kind(self, kind: Kind) -> NDArray | None:
        """The values as a column of another kind has them; None if they cannot be told so."""
        if self.kind == kind:
            return self.values
        if self.is_empty:
            missing = {"numeric": np.nan, "datetime": np.datetime64("NaT", "us"), "categorical": None}[kind]
            return np.full(len(self.values), missing)
        return None


def finite_column(name: Any, values: NDArray) -> Column:
    """A column of numbers.

    Raises
    ------
    ValueError
        If it has infinite ones.
    """
    if np.isinf(values).any():
        raise ValueError(
            f"Column {name!r} contains infinity. Replace it by a number, or by NaN where the value is missing."
        )
    return Column(name, "numeric", values, bool(np.isnan(values).all()))


def level_column(name: Any, cells: list[Any]) -> Column:
    """A column of levels, which cells are as they are."""
    values = np.empty(len(cells), dtype=object)
    values[:] = [None if is_missing_cell(cell) else cell for cell in cells]
    return Column(name, "categorical", values, all(value is None for value in values))
