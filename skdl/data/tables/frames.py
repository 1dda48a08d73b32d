"""Data frames to columns of numpy values: pandas, polars and the others through narwhals.

Axes: N rows, C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdl.data.tables.cells import is_missing_cell, is_same_cell
from skdl.data.tables.columns import Column, ColumnType, finite_column, level_column
from skdl.data.tables.object_columns import as_floats, in_seconds, mixed_column, object_column

#: Types of numbers that numpy has too, by their name there, which is that of pandas and polars but for capitals.
_PLAIN_TYPES: dict[str, Any] = {
    dtype.__name__.lower(): dtype()
    for dtype in (
        *(nw.Float32, nw.Float64, nw.Int8, nw.Int16, nw.Int32, nw.Int64),
        *(nw.UInt8, nw.UInt16, nw.UInt32, nw.UInt64),
    )
}
#: Rows up to which numbers are read by blocks. Of more, the work on a column outweighs what it costs to get at it, and
#: a block may be a copy.
BLOCK_ROWS = 10_000


def is_frame(X: object) -> bool:
    """Whether X is a data frame of some library that narwhals knows."""
    # The answer for arrays is at hand; narwhals has to look around first.
    return not isinstance(X, np.ndarray) and nw.dependencies.is_into_dataframe(X)


def has_objects(X: Any) -> bool:
    """Whether an array or a frame has columns of Python objects; tables of Arrow have none."""
    dtypes = [X.dtype] if isinstance(X, np.ndarray) else getattr(X, "dtypes", ())
    return any(str(dtype).lower() == "object" for dtype in dtypes)


def frame_columns(X: Any, mixtures: Collection[int] = (), missing_value: Any = None) -> list[Column]:
    """The columns of a frame; those at the places of ``mixtures`` by the text of their cells.

    ``missing_value`` stands for a missing cell among Python objects: what kind the others are shows without it.

    Raises
    ------
    ValueError
        If a column holds an infinite number.
    TypeError
        If a column holds something other than numbers, booleans, text, categories, dates or durations.
    """
    check_unique_names(X)
    columns = _number_columns(X, mixtures)
    others = [i for i in range(X.shape[1]) if i not in columns]
    if others:
        frame = nw.from_native(_columns_at(X, others) if columns else X, eager_only=True)
        series = zip(others, frame.iter_columns(), strict=True)
        columns.update((i, _column(s, i in mixtures, missing_value)) for i, s in series)
    return [columns[i] for i in range(len(columns))]


def _number_columns(X: Any, others: Collection[int]) -> dict[int, Column]:
    """Columns of numbers of pandas and polars by their place, except some, read from a block for each type.

    They come out as one by one, which narwhals and the libraries take 0.1 to 0.3 ms a column for, however few rows.
    """
    columns: dict[int, Column] = {}
    for dtype, places in _places_of_types(X, others).items():
        plain = _PLAIN_TYPES.get(str(dtype).lower())
        if plain is None:
            continue
        values_NC = _block(X, places, dtype, np.dtype(str(plain).lower()) if plain.is_float() else np.dtype("float64"))
        # Infinities are left to where columns are read one by one, and refused in their order.
        if np.isinf(values_NC).any():
            continue
        names, are_empty = column_names(X), np.isnan(values_NC).all(axis=0).tolist()
        column_type = ColumnType(plain, dtype if nw.dependencies.is_pandas_dataframe(X) else None)
        for i, values, is_empty in zip(places, values_NC.T, are_empty, strict=True):
            columns[i] = Column(names[i], "numeric", values, is_empty, type=column_type)
    return columns


def _places_of_types(X: Any, others: Collection[int]) -> dict[Any, list[int]]:
    """Where columns of each type of pandas and polars are, except some, types that hold no numbers aside."""
    of_pandas = nw.dependencies.is_pandas_dataframe(X)
    if not (of_pandas or nw.dependencies.is_polars_dataframe(X)) or len(X) > BLOCK_ROWS:
        return {}
    places = defaultdict(list)
    for i, dtype in enumerate(X.dtypes):
        # Types of categories take long to hash.
        has_numbers = isinstance(dtype, np.dtype) or hasattr(dtype, "numpy_dtype") if of_pandas else dtype.is_numeric()
        if has_numbers and i not in others:
            places[dtype].append(i)
    return places


def _block(X: Any, places: list[int], dtype: Any, wanted: np.dtype) -> NDArray:
    """The numbers in columns of one type ``(N, len(places))``, NaN where missing."""
    frame = _columns_at(X, places)
    if hasattr(dtype, "numpy_dtype"):
        # A nullable type of pandas.
        return frame.to_numpy(dtype=wanted, na_value=np.nan)
    return frame.to_numpy().astype(wanted, copy=False)


def _columns_at(X: Any, places: list[int]) -> Any:
    """A frame of pandas or polars of some columns; neighbours are not copied."""
    first, stop = places[0], places[-1] + 1
    chosen = slice(first, stop) if stop - first == len(places) else places
    return X.iloc[:, chosen] if nw.dependencies.is_pandas_dataframe(X) else X[:, chosen]


def _column(series: Any, is_mixture: bool, missing_value: Any) -> Column:
    given, series = series, readable(series)
    # Stamps come back in their own zone, but sparse columns dense.
    typed = given if series is not given and unread_zone(given) is not None else series
    native = typed.to_native().dtype if is_pandas(typed) else None
    # Each look at it takes narwhals a while.
    dtype = series.dtype
    if is_mixture or dtype in (nw.Object, nw.Unknown):
        cells = series.to_list()
        if not is_missing_cell(missing_value):
            cells = [None if is_missing_cell(cell) or is_same_cell(cell, missing_value) else cell for cell in cells]
        column = (mixed_column if is_mixture else object_column)(series.name, cells)
    else:
        column = _typed_column(series, dtype)
    return replace(column, type=ColumnType(column.type.dtype if dtype == nw.Object else dtype, native))


def is_pandas(series: Any) -> bool:
    """Whether a column is of pandas, or of a library like it."""
    return series.implementation.is_pandas_like()


def unread_zone(series: Any) -> Any:
    """The time zone of a column of pandas, if narwhals does not know its name, such as that of New York; else None."""
    is_unread = series.dtype == nw.Unknown and is_pandas(series)
    return getattr(series.to_native().dtype, "tz", None) if is_unread else None


def readable(series: Any) -> Any:
    """A column of pandas as narwhals can read it, others as they are.

    Sparse columns become dense, and stamps of a zone that narwhals does not know those of UTC.
    """
    if series.dtype != nw.Unknown or not is_pandas(series):
        return series
    native = series.to_native()
    if hasattr(native, "sparse"):
        return nw.from_native(native.sparse.to_dense(), series_only=True)
    if unread_zone(series) is not None:
        return nw.from_native(native.dt.tz_convert("UTC"), series_only=True)
    return series


def column_names(X: Any) -> list[Any]:
    """The names of a frame's columns, also where two are the same."""
    # narwhals takes no pandas frame with two columns of one name.
    if nw.dependencies.is_pandas_dataframe(X):
        return X.columns.tolist()
    return list(nw.from_native(X, eager_only=True).columns)


def check_flat_names(X: Any) -> None:
    """Refuse a frame whose columns have names of several levels.

    Raises
    ------
    ValueError
        With the first name.
    """
    if getattr(getattr(X, "columns", None), "nlevels", 1) > 1:
        raise ValueError(
            f"Columns must have one name each, but X has names of several levels, such as {X.columns[0]!r}. Join them: "
            "X.columns = ['_'.join(map(str, name)) for name in X.columns]."
        )


def check_unique_names(X: Any) -> None:
    """Refuse a frame with two columns of one name.

    Raises
    ------
    ValueError
        With the names.
    """
    if nw.dependencies.is_pandas_dataframe(X) and X.columns.is_unique:
        return
    names = column_names(X)
    if len(set(names)) < len(names):
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        raise ValueError(f"Column names must be unique, but these occur more than once: {twice}. Rename them.")


def _typed_column(series: Any, dtype: Any) -> Column:
    if dtype == nw.Boolean:
        return level_column(series.name, series.to_list())
    if dtype.is_numeric():
        return _numeric(series, dtype)
    if dtype == nw.Datetime or dtype == nw.Date:
        return _datetime(series, dtype)
    if dtype == nw.Duration:
        return finite_column(series.name, _seconds(series))
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return level_column(series.name, series.to_list())
    raise TypeError(
        f"Column {series.name!r} has the type {dtype}, which cannot be encoded. Convert it to numbers, text, "
        "categories or dates, or drop it."
    )


def _numeric(series: Any, dtype: Any) -> Column:
    if dtype in (nw.Int128, nw.UInt128, nw.Decimal) or (not dtype.is_float() and series.null_count() > 0):
        series = series.cast(nw.Float64)
    values = np.asarray(series.to_numpy())
    if values.dtype == object:
        values = as_floats(series.name, values.tolist())
    return finite_column(series.name, values if values.dtype.kind == "f" else values.astype(np.float64))


def _datetime(series: Any, dtype: Any) -> Column:
    if getattr(dtype, "time_zone", None) is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    values = series.cast(nw.Datetime("us")).to_numpy().astype("datetime64[us]")
    return Column(series.name, "datetime", values, bool(np.isnat(values).all()))


def _seconds(series: Any) -> NDArray[np.float64]:
    return in_seconds(series.to_numpy().astype("timedelta64[us]"))


def refuse_lazy(X: Any, name: str = "X") -> None:
    """Refuse a frame whose rows are not there yet, with the remedy."""
    if hasattr(X, "collect") and not is_frame(X) and not sp.issparse(X):
        raise TypeError(f"{name} is a {type(X).__name__}. Pass {name}.collect().")
