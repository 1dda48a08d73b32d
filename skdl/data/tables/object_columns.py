"""Columns of Python objects: numbers, text, dates or a mixture, by what their cells are."""

from __future__ import annotations

import datetime
import decimal
import math
import numbers
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from skdl.data.sampling import sample_rows
from skdl.data.tables.cells import cell_text, is_missing_cell
from skdl.data.tables.columns import Column, ColumnType, Kind, finite_column, level_column

#: Kind of an object column, and the type that it would have as no objects, by the type of its cells.
_CELL_KINDS: tuple[tuple[type | tuple[type, ...], Kind, Any], ...] = (
    ((bool, np.bool_), "categorical", nw.Boolean()),
    ((numbers.Real, np.bool_, decimal.Decimal), "numeric", nw.Float64()),
    (str, "categorical", nw.String()),
    ((datetime.date, np.datetime64), "datetime", nw.Datetime("us")),
    ((datetime.timedelta, np.timedelta64), "numeric", nw.Duration("us")),
)
#: Most cells of a column of text that are looked at for numbers.
MAX_CHECKED_CELLS = 2000
#: Fewest different numbers among these cells of a column that seems to hold numbers.
MIN_NUMBERS = 20
#: Smallest share of the texts among these cells that are numbers, in such a column.
NUMBER_SHARE = 0.8


def object_column(name: Any, cells: list[Any]) -> Column:
    """A column of Python objects, by what its cells are.

    Raises
    ------
    TypeError
        If some are neither numbers, text nor dates.
    """
    types = {type(cell) for cell in cells if not is_missing_cell(cell)}
    for accepted, kind, dtype in _CELL_KINDS:
        if types and all(issubclass(cell_type, accepted) for cell_type in types):
            if kind == "datetime" and _have_zone(name, cells):
                dtype = nw.Datetime("us", "UTC")
            elif types == {datetime.date}:
                dtype = nw.Date()
            return replace(_alike_cells(name, cells, kind, dtype), type=ColumnType(dtype))
    simple = (str, numbers.Real, bool, np.bool_, datetime.date, decimal.Decimal)
    strange = sorted(cell_type.__name__ for cell_type in types if not issubclass(cell_type, simple))
    if strange:
        how = ", by .dt.to_timestamp()," if strange == ["Period"] else ""
        raise TypeError(
            f"Column {name!r} holds cells of type {', '.join(strange)}. An argument must be a string or a number, "
            f"a date or missing. Convert the column{how} or drop it."
        )
    return mixed_column(name, cells)


def mixed_column(name: Any, cells: list[Any]) -> Column:
    """A column of text and numbers, of which each is a level."""
    column = level_column(name, [None if is_missing_cell(cell) else cell_text(cell) for cell in cells])
    cells_N = np.empty(len(cells), dtype=object)
    cells_N[:] = cells
    return replace(column, cells=None if column.is_empty else cells_N, type=ColumnType(nw.Object()))


def _alike_cells(name: Any, cells: list[Any], kind: Kind, dtype: Any) -> Column:
    if kind == "datetime":
        return Column(name, kind, np.array([_stamp(cell) for cell in cells], dtype="datetime64[us]"))
    if kind == "categorical":
        return level_column(name, cells)
    if dtype == nw.Duration:
        spans = [np.timedelta64("NaT") if is_missing_cell(cell) else np.timedelta64(cell, "us") for cell in cells]
        return finite_column(name, in_seconds(np.array(spans, dtype="timedelta64[us]")))
    return finite_column(name, as_floats(name, cells))


def as_floats(name: Any, cells: list[Any]) -> NDArray[np.float64]:
    """Numbers of Python as those of numpy, NaN where missing."""
    try:
        return np.array([np.nan if is_missing_cell(cell) else float(cell) for cell in cells], dtype=np.float64)
    except OverflowError as error:
        raise ValueError(f"Column {name!r} holds a number that is too large for a float64. Scale it down.") from error


def in_seconds(values: NDArray) -> NDArray[np.float64]:
    """Durations of microseconds as numbers, NaN where missing."""
    return np.where(np.isnat(values), np.nan, values.astype(np.float64) / 1e6)


def _stamp(cell: Any) -> np.datetime64:
    if is_missing_cell(cell):
        return np.datetime64("NaT")
    if getattr(cell, "tzinfo", None) is not None:
        cell = cell.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(cell, "us")


def _have_zone(name: Any, cells: list[Any]) -> bool:
    """Whether dates have a time zone, all of them or none."""
    have = {getattr(cell, "tzinfo", None) is not None for cell in cells if not is_missing_cell(cell)}
    if len(have) > 1:
        raise ValueError(
            f"Column {name!r} has stamps with a time zone beside ones without. Say which zone the others are of, with "
            "their replace(tzinfo=...)."
        )
    return have.pop()


def numbers_as_text(columns: Iterable[Column]) -> list[Any]:
    """Names of the columns of text that seem to hold numbers.

    Most of their cells are numbers of many values, and some not whole: whole ones may be codes, unless there are
    numbers that are no text as well. A type of categories says that they are meant so.
    """
    return [column.name for column in columns if _has_numbers_as_text(column)]


def _has_numbers_as_text(column: Column) -> bool:
    if column.kind != "categorical" or column.type.dtype in (nw.Categorical, nw.Enum):
        return False
    cells = column.values[sample_rows(len(column.values), MAX_CHECKED_CELLS)]
    counts = Counter(cell for cell in cells if isinstance(cell, str))
    numbers = {text: count for text, count in counts.items() if _is_number(text)}
    is_measured = column.is_mixture or any("." in number for number in numbers)
    return is_measured and len(numbers) >= MIN_NUMBERS and sum(numbers.values()) >= NUMBER_SHARE * counts.total()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
