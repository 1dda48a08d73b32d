"""Data frames to columns of numpy values: pandas, polars and the others through narwhals."""

from __future__ import annotations

import datetime
import decimal
import math
import numbers
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skdl.data.sampling import sample_rows

Kind = Literal["numeric", "categorical", "datetime"]

#: Kind of an object column, and the type that it would have as no objects, by the type of its cells.
_CELL_KINDS: tuple[tuple[type | tuple[type, ...], Kind, Any], ...] = (
    ((bool, np.bool_), "categorical", nw.Boolean()),
    ((numbers.Real, np.bool_, decimal.Decimal), "numeric", nw.Float64()),
    (str, "categorical", nw.String()),
    ((datetime.date, np.datetime64), "datetime", nw.Datetime("us")),
    ((datetime.timedelta, np.timedelta64), "numeric", nw.Duration("us")),
)
#: Types of numbers that numpy has too, by their name there, which is that of pandas and polars but for capitals.
_PLAIN_TYPES: dict[str, Any] = {
    dtype.__name__.lower(): dtype()
    for dtype in (
        *(nw.Float32, nw.Float64, nw.Int8, nw.Int16, nw.Int32, nw.Int64),
        *(nw.UInt8, nw.UInt16, nw.UInt32, nw.UInt64),
    )
}
#: Cells of a column of text that are looked at for numbers; how many different ones there must be, and in which share
#: of the cells.
MOST_LOOKED_AT, FEWEST_NUMBERS, NUMBER_SHARE = 2000, 20, 0.8
#: From when to when dates of nanoseconds go, and those of Python, in microseconds since 1970; a little less.
NANOSECOND_LIMITS, PYTHON_LIMITS = (-9.2e15, 9.2e15), (-6.2e16, 2.5e17)
#: Rows up to which numbers are read by blocks. Of more, the work on a column outweighs what it costs to get at it, and
#: a block may be a copy.
BLOCK_ROWS = 10_000


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
    series = dense(series)
    # Each look at it takes narwhals a while.
    dtype = series.dtype
    if is_mixture or dtype in (nw.Object, nw.Unknown):
        cells = series.to_list()
        if not is_missing_cell(missing_value):
            cells = [None if is_missing_cell(cell) or is_same_cell(cell, missing_value) else cell for cell in cells]
        column = (_mixture if is_mixture else _cells)(series.name, cells)
    else:
        column = _typed_column(series, dtype)
    native = series.to_native().dtype if is_pandas(series) else None
    return replace(column, type=ColumnType(column.type.dtype if dtype == nw.Object else dtype, native))


def is_pandas(series: Any) -> bool:
    """Whether a column is of pandas, or of a library like it."""
    return series.implementation.is_pandas_like()


def dense(series: Any) -> Any:
    """A column of pandas that leaves out zeros, with them; others as they are."""
    if series.dtype != nw.Unknown or not is_pandas(series) or not hasattr(series.to_native(), "sparse"):
        return series
    return nw.from_native(series.to_native().sparse.to_dense(), series_only=True)


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


def _finite(name: Any, values: NDArray) -> Column:
    if np.isinf(values).any():
        raise ValueError(
            f"Column {name!r} contains infinity. Replace it by a number, or by NaN where the value is missing."
        )
    return Column(name, "numeric", values, bool(np.isnan(values).all()))


def _typed_column(series: Any, dtype: Any) -> Column:
    if dtype == nw.Boolean:
        return _objects(series.name, series.to_list())
    if dtype.is_numeric():
        return _numeric(series, dtype)
    if dtype == nw.Datetime or dtype == nw.Date:
        return _datetime(series, dtype)
    if dtype == nw.Duration:
        return _finite(series.name, _seconds(series))
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return _objects(series.name, series.to_list())
    raise TypeError(
        f"Column {series.name!r} has the type {dtype}, which cannot be encoded. Convert it to numbers, text, "
        "categories or dates, or drop it."
    )


def _numeric(series: Any, dtype: Any) -> Column:
    if dtype in (nw.Int128, nw.UInt128, nw.Decimal) or (not dtype.is_float() and series.null_count() > 0):
        series = series.cast(nw.Float64)
    values = np.asarray(series.to_numpy())
    if values.dtype == object:
        values = _floats(series.name, values.tolist())
    return _finite(series.name, values if values.dtype.kind == "f" else values.astype(np.float64))


def _floats(name: Any, cells: list[Any]) -> NDArray[np.float64]:
    try:
        return np.array([np.nan if is_missing_cell(cell) else float(cell) for cell in cells], dtype=np.float64)
    except OverflowError as error:
        raise ValueError(f"Column {name!r} holds a number that is too large for a float64. Scale it down.") from error


def _datetime(series: Any, dtype: Any) -> Column:
    if getattr(dtype, "time_zone", None) is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    values = series.cast(nw.Datetime("us")).to_numpy().astype("datetime64[us]")
    return Column(series.name, "datetime", values, bool(np.isnat(values).all()))


def _seconds(series: Any) -> NDArray[np.float64]:
    return _span_seconds(series.to_numpy().astype("timedelta64[us]"))


def _span_seconds(values: NDArray) -> NDArray[np.float64]:
    return np.where(np.isnat(values), np.nan, values.astype(np.float64) / 1e6)


def refuse_lazy(X: Any, name: str = "X") -> None:
    """Refuse a frame whose rows are not there yet, with the remedy."""
    if hasattr(X, "collect") and not is_frame(X) and not sp.issparse(X):
        raise TypeError(f"{name} is a {type(X).__name__}. Pass {name}.collect().")


def is_missing_cell(cell: Any) -> bool:
    """None, NaN, NaT and pandas.NA: what is missing does not equal itself, or cannot tell."""
    if cell is None:
        return True
    if isinstance(cell, str):
        return False
    try:
        return bool(cell != cell)
    except (TypeError, ValueError):
        return type(cell).__name__ == "NAType"


def is_same_cell(cell: Any, value: Any) -> bool:
    """Whether a cell is a number or a text that stands for a missing one."""
    # True equals 1, but is no number here.
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, str | numbers.Real | decimal.Decimal):
        return False
    return isinstance(cell, str) == isinstance(value, str) and bool(cell == value)


def missing_cells(values: NDArray) -> NDArray[np.bool_]:
    """Which of a column's values are missing."""
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values)


def _objects(name: Any, cells: list[Any]) -> Column:
    values = np.empty(len(cells), dtype=object)
    values[:] = [None if is_missing_cell(cell) else cell for cell in cells]
    return Column(name, "categorical", values, all(value is None for value in values))


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


def _cells(name: Any, cells: list[Any]) -> Column:
    """A column of Python objects, by what its cells are."""
    types = {type(cell) for cell in cells if not is_missing_cell(cell)}
    for accepted, kind, dtype in _CELL_KINDS:
        if types and all(issubclass(cell_type, accepted) for cell_type in types):
            if kind == "datetime" and _have_zone(name, cells):
                dtype = nw.Datetime("us", "UTC")
            return replace(_alike_cells(name, cells, kind, dtype), type=ColumnType(dtype))
    simple = (str, numbers.Real, bool, np.bool_, datetime.date, decimal.Decimal)
    strange = sorted(cell_type.__name__ for cell_type in types if not issubclass(cell_type, simple))
    if strange:
        how = ", by .dt.to_timestamp()," if strange == ["Period"] else ""
        raise TypeError(
            f"Column {name!r} holds cells of type {', '.join(strange)}. An argument must be a string or a number, "
            f"a date or missing. Convert the column{how} or drop it."
        )
    return _mixture(name, cells)


def _alike_cells(name: Any, cells: list[Any], kind: Kind, dtype: Any) -> Column:
    if kind == "datetime":
        return Column(name, kind, np.array([_stamp(cell) for cell in cells], dtype="datetime64[us]"))
    if kind == "categorical":
        return _objects(name, cells)
    if dtype == nw.Duration:
        spans = [np.timedelta64("NaT") if is_missing_cell(cell) else np.timedelta64(cell, "us") for cell in cells]
        return _finite(name, _span_seconds(np.array(spans, dtype="timedelta64[us]")))
    return _finite(name, _floats(name, cells))


def _mixture(name: Any, cells: list[Any]) -> Column:
    column = _objects(name, [None if is_missing_cell(cell) else cell_text(cell) for cell in cells])
    cells_N = np.empty(len(cells), dtype=object)
    cells_N[:] = cells
    return replace(column, cells=None if column.is_empty else cells_N, type=ColumnType(nw.Object()))


def numbers_as_text(columns: Iterable[Column]) -> list[Any]:
    """Names of the columns of text that seem to hold numbers.

    Most of their cells are numbers of many values, and some not whole: whole ones may be codes, unless there are
    numbers that are no text as well. A type of categories says that they are meant so.
    """
    return [column.name for column in columns if _has_numbers_as_text(column)]


def _has_numbers_as_text(column: Column) -> bool:
    if column.kind != "categorical" or column.type.dtype in (nw.Categorical, nw.Enum):
        return False
    cells = column.values[sample_rows(len(column.values), MOST_LOOKED_AT)]
    counts = Counter(cell for cell in cells if isinstance(cell, str))
    numbers = {text: count for text, count in counts.items() if _is_number(text)}
    is_measured = column.is_mixture or any("." in number for number in numbers)
    return is_measured and len(numbers) >= FEWEST_NUMBERS and sum(numbers.values()) >= NUMBER_SHARE * counts.total()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def cell_text(cell: Any) -> str:
    """What a cell is a level by, beside text."""
    # Whole numbers become floats where a frame keeps a missing cell beside them.
    return str(int(cell)) if isinstance(cell, float | np.floating) and cell.is_integer() else str(cell)
