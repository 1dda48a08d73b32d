"""Data frames with imputed cells, further columns or other names, in their own library or another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from skdl.data.tables.cells import cell_text
from skdl.data.tables.columns import MAX_EXACT_INTEGER, ColumnType
from skdl.data.tables.frames import is_pandas, readable, unread_zone


def with_cells(
    X: Any,
    cells: Mapping[int, tuple[NDArray[np.intp], NDArray]],
    kept: Sequence[int],
    types: Sequence[ColumnType],
) -> Any:
    """The kept columns of a frame, some of their cells replaced, in the frame's own library.

    Parameters
    ----------
    X : DataFrame
    cells : dict of {column: (rows, values)}
        Numbers for numeric columns and durations (seconds), datetime64 for dates, levels for the others. A column of
        integers becomes one of floats where numbers are not whole, unless it has integers that floats cannot tell
        apart: then numbers are rounded. Categories get the levels of training that they lack.
    kept : sequence of int
        The columns to keep.
    types : sequence of ColumnType
        What each column was in training. A column that lost its type with its last cell becomes that again.
    """
    frame = nw.from_native(X, eager_only=True)
    replaced = [_with_values(frame[:, c], *cells[c], types[c]) for c in kept if c in cells and len(cells[c][0])]
    filled = frame.with_columns(*replaced) if replaced else frame
    # Columns that are all kept need no choice, but X itself is not to come back.
    if not replaced or len(kept) < len(frame.columns):
        filled = filled[:, list(kept)]
    return filled.to_native()


def _with_values(column: Any, rows: NDArray[np.intp], values: NDArray, trained: ColumnType) -> Any:
    series = readable(column)
    if len(rows) == len(series) and not _has_type(series, trained):
        return _as_trained(series, values, trained)
    is_text = series.dtype == nw.String and all(isinstance(value, str) for value in values)
    if series.dtype == nw.Object or (trained.dtype == nw.Object and not is_text):
        return _with_objects(series, rows, _cells_of(series, values, _wide_enough(trained.dtype, values)))
    if series.dtype.is_integer() and not _is_exact(series):
        values = np.round(values)
    elif series.dtype.is_numeric():
        series = series.cast(_wide_enough(series.dtype, values))
    series = _with_categories(series, trained.levels)
    filled = series.scatter(rows.tolist(), _cells_of(series, values, series.dtype))
    zone = unread_zone(column)
    return filled if zone is None else nw.from_native(filled.to_native().dt.tz_convert(zone), series_only=True)


def _has_type(series: Any, trained: ColumnType) -> bool:
    """Whether a column has the very type that it had in training, but for categories, which may be others."""
    if series.dtype in (nw.Categorical, nw.Enum):
        return trained.dtype in (nw.String, nw.Categorical, nw.Enum)
    if is_pandas(series) and trained.native is not None:
        return bool(series.to_native().dtype == trained.native) and trained.native != np.dtype(object)
    return series.dtype == trained.dtype


def _as_trained(like: Any, values: NDArray, trained: ColumnType) -> Any:
    """A column of values, in the type that it had in training."""
    if trained.dtype == nw.Date and trained.native == np.dtype(object):
        return _new_series(like, [stamp.date() for stamp in values.tolist()], nw.Object())
    dtype = _wide_enough(trained.dtype, values)
    cells = _cells_of(like, values, dtype)
    series = cells if isinstance(cells, nw.Series) else _new_series(like, cells, dtype)
    if trained.native is None or not is_pandas(like) or dtype != trained.dtype:
        return _with_categories(series, trained.levels)
    return nw.from_native(series.to_native().astype(trained.native), series_only=True)


def _with_objects(series: Any, rows: NDArray[np.intp], values: Any) -> Any:
    """A column of Python objects, which may be numbers beside text."""
    cells = series.to_list()
    present = series.drop_nulls().to_list()
    are_days = all(type(cell) is date for cell in present)
    zone = next((cell.tzinfo for cell in present if getattr(cell, "tzinfo", None) is not None), None)
    for row, value in zip(rows.tolist(), values, strict=True):
        if isinstance(value, datetime):
            value = value.date() if are_days else value.astimezone(zone) if zone else value
        cells[row] = value
    return _new_series(series, cells, nw.Object())


def _with_categories(series: Any, levels: Sequence[Any]) -> Any:
    """A column of categories that has these among them, so that its type does not depend on the cells; or as it is."""
    if series.dtype not in (nw.Categorical, nw.Enum):
        return series
    native = series.to_native()
    if is_pandas(series) and hasattr(native, "cat"):
        lacking = _lacking(native.cat.categories, levels)
        return nw.from_native(native.cat.add_categories(lacking), series_only=True)
    if series.dtype == nw.Enum:
        return series.cast(nw.Enum([*series.dtype.categories, *_lacking(series.dtype.categories, levels)]))
    # Others get their categories with their cells.
    return series


def _lacking(categories: Collection[Any], levels: Sequence[Any]) -> list[Any]:
    return [level for level in levels if level not in categories]


def _cells_of(like: Any, values: NDArray, dtype: Any) -> Any:
    """Values as cells of a type, in the library of a series."""
    if dtype.is_integer():
        low, high = _limits(dtype)
        return _new_series(like, [min(max(int(value), low), high) for value in values], dtype)
    if dtype == nw.Duration:
        return _new_series(like, (values * 1e6).astype("timedelta64[us]")).cast(dtype)
    if dtype.is_float():
        return _new_series(like, values).cast(dtype)
    if dtype == nw.String:
        return [cell_text(value) for value in values]
    if dtype != nw.Datetime and dtype != nw.Date:
        return values.tolist()
    stamps = _new_series(like, values)
    zone = getattr(dtype, "time_zone", None)
    if zone is not None:
        stamps = stamps.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return stamps.cast(dtype)


def _new_series(like: Any, values: Any, dtype: Any = None) -> Any:
    return nw.new_series(like.name, values, dtype, backend=like.implementation)


def _is_exact(series: Any) -> bool:
    """Whether all integers of a column are the same as floats."""
    present = series.drop_nulls()
    if not len(present) or max(-int(present.min()), int(present.max())) <= MAX_EXACT_INTEGER:
        return True
    return all(int(float(cell)) == cell for cell in present.to_list())


def _limits(dtype: Any) -> tuple[int, int]:
    """The least and the largest integer of a type."""
    name = str(dtype)
    bits = int(name[name.index("t") + 1 :])
    return (0, 2**bits - 1) if name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _wide_enough(dtype: Any, values: NDArray) -> Any:
    """A type of numbers, or the one that imputed values need: a wider one, or one of floats."""
    if dtype.is_integer():
        return next((wide for wide in (dtype, nw.Int64()) if _fits(wide, values)), nw.Float64())
    if dtype.is_float() and np.abs(values).max() > np.finfo(str(dtype).lower()).max:
        return nw.Float64()
    return dtype


def _fits(dtype: Any, values: NDArray) -> bool:
    low, high = _limits(dtype)
    return bool((values == np.round(values)).all()) and values.min() >= low and values.max() <= high


def exact_integers(X: Any, columns: Sequence[int]) -> list[int]:
    """Those of a frame's columns that hold integers which floats can tell apart."""
    frame = nw.from_native(X, eager_only=True)
    return [c for c in columns if frame[:, c].dtype.is_integer() and _is_exact(frame[:, c])]


def with_floats(X: Any, columns: Sequence[int]) -> Any:
    """A frame whose columns of integers at these places are floats, as far as those can tell them apart."""
    integers = exact_integers(X, columns)
    if not integers:
        return X
    frame = nw.from_native(X, eager_only=True)
    return frame.with_columns(*(frame[:, c].cast(nw.Float64) for c in integers)).to_native()


def with_columns(X: Any, columns: Mapping[str, NDArray]) -> Any:
    """A frame with further columns behind its own."""
    if not columns:
        return X
    frame = nw.from_native(X, eager_only=True)
    backend = frame.implementation
    return frame.with_columns(
        *(nw.new_series(name, values, backend=backend) for name, values in columns.items())
    ).to_native()


def with_names(X: Any, names: Sequence[str]) -> Any:
    """A frame whose columns are called so."""
    frame = nw.from_native(X, eager_only=True)
    if list(frame.columns) == list(names):
        return X
    return frame.rename(dict(zip(frame.columns, names, strict=True))).to_native()


def in_library(X: Any, library: str) -> Any:
    """A frame as one of "pandas" or "polars"; as it is for "default"."""
    if library == "default":
        return X
    frame = nw.from_native(X, eager_only=True)
    return frame.to_pandas() if library == "pandas" else frame.to_polars()
