"""Checks of series: arrays, lists of unequal lengths and flat rows become one array, with the table beside them.

Axes: n series, C channels, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skdl.data.tables.cells import is_missing_cell
from skdl.data.tables.frames import check_unique_names, column_names, has_objects, is_frame, refuse_lazy
from skdl.data.tensors import as_array, is_structured

#: Most numbers of series that are encoded together, their padding included, but for a single series.
CHUNK_NUMBERS = 2**23
#: Numbers of padding that are not worth encoding series apart, whatever share of them they are.
LITTLE_PADDING = 2**14
#: Most padding, where it is more than that, as a share of the steps of the series that are encoded together.
MAX_PADDING_SHARE = 0.25


@dataclass(frozen=True, eq=False, repr=False)
class SeriesWithTable:
    """Series and a table with one row for each: a container that scikit-learn can split by rows.

    Estimators on series accept it wherever they accept a tuple (series, table). Unlike a tuple, it can go through
    scikit-learn's searches, cross-validation and transformers, such as a ``FunctionTransformer`` in a Pipeline.

    Parameters
    ----------
    series : array, list of arrays or DataFrame
        As estimators accept them without a table.
    table : DataFrame or array of shape (n_series, n_columns)
        Further columns, one row per series.

    Examples
    --------
    >>> import numpy as np
    >>> from skdl import SeriesWithTable
    >>> X = SeriesWithTable([np.arange(4.0), np.arange(7.0), np.arange(5.0)], np.array([[1.0], [2.0], [3.0]]))
    >>> X
    SeriesWithTable(3 series, table of shape (3, 1))
    >>> X[1:].table
    array([[2.],
           [3.]])
    """

    series: Any
    table: Any

    def __repr__(self) -> str:
        return f"SeriesWithTable({len(self)} series, table of shape {np.shape(self.table)})"

    def __len__(self) -> int:
        n_series = _num_samples(self.series)
        _check_rows(_num_samples(self.table), n_series)
        return n_series

    @property
    def shape(self) -> tuple[int]:
        """Rows, which scikit-learn asks for before it asks for the length."""
        return (len(self),)

    def __getitem__(self, key: Any) -> SeriesWithTable:
        """The rows of a slice, a mask or an array of row numbers."""
        # scikit-learn cuts arrays by X[rows, ...].
        rows = key[0] if isinstance(key, tuple) else key
        if isinstance(rows, Integral):
            raise TypeError(
                "SeriesWithTable takes slices, masks and arrays of row numbers. Use X[i : i + 1] for one row, and "
                "X.series and X.table for the parts."
            )
        return SeriesWithTable(_safe_indexing(self.series, rows), _safe_indexing(self.table, rows))


@dataclass(frozen=True)
class Series:
    """Checked series, which estimators take as they are.

    ``values`` ``(n, C, T)`` hold NaN where there is no value, after the end of a series too; ``lengths`` ``(n,)`` are
    the steps up to the last value; ``static`` is a table with a row per series, or None; ``channel_names`` are those of
    the columns of frames, or None.
    """

    values: NDArray
    lengths: NDArray[np.intp]
    static: Any = None
    channel_names: list[Any] | None = None

    @classmethod
    def of(cls, values: NDArray, static: Any = None, channel_names: list[Any] | None = None) -> Series:
        """Series by their values, which may be padded further than to the longest, and the table beside them."""
        lengths = _lengths(values)
        return cls(values[:, :, : lengths.max()], lengths, _checked_static(static, len(values)), channel_names)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def n_static(self) -> int:
        """Columns of the table beside the series."""
        return 0 if self.static is None else self.static.shape[1]

    @property
    def static_names(self) -> list[Any] | None:
        """Names of these columns, where the table is a frame."""
        return column_names(self.static) if is_frame(self.static) else None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: Any) -> Series:
        # scikit-learn cuts arrays by X[rows, ...].
        rows = key[0] if isinstance(key, tuple) else key
        static = None if self.static is None else _safe_indexing(self.static, rows)
        return Series(self.values[rows], self.lengths[rows], static, self.channel_names)

    def by_length(self) -> Iterator[tuple[NDArray[np.intp], Series]]:
        """Series of like lengths together: their rows, and they without padding that all of them have."""
        order, n_channels = np.argsort(self.lengths, kind="stable"), self.shape[1]
        starts, own = [0], 0
        for row, length in enumerate(self.lengths[order].tolist()):
            n_together = row - starts[-1]
            padding = n_together * length - own
            is_padded = padding * n_channels > LITTLE_PADDING and padding > MAX_PADDING_SHARE * own
            if is_padded or (n_together and (n_together + 1) * length * n_channels > CHUNK_NUMBERS):
                starts.append(row)
                own = 0
            own += length
        # What a column of objects is its cells tell together.
        if len(starts) == 1 or (is_frame(self.static) and has_objects(self.static)):
            yield np.arange(len(self)), self
            return
        for rows in np.split(order, starts[1:]):
            lengths = self.lengths[rows]
            static = None if self.static is None else _safe_indexing(self.static, rows)
            yield rows, Series(self.values[rows, :, : lengths.max()], lengths, static, self.channel_names)

    def check_like(
        self,
        n_channels: int,
        channel_names: list[Any] | None,
        n_static: int,
        static_names: list[Any] | None,
    ) -> None:
        """Refuse series of other channels, or with another table beside them, than those of ``fit``.

        Raises
        ------
        ValueError
            With the remedy.
        """
        if self.shape[1] != n_channels:
            raise ValueError(
                f"X has {self.shape[1]} channels, but the model was fitted on {n_channels}. Series stand as "
                "(n, channels, time) unless layout='time_first'."
            )
        if None not in (self.channel_names, channel_names) and self.channel_names != channel_names:
            raise ValueError(
                f"The series have the columns {self.channel_names}, but they were {channel_names} in fit. "
                "Pass the same columns in the same order."
            )
        if self.n_static != n_static:
            raise ValueError(
                f"The table beside the series has {self.n_static} columns, but it had {n_static} in fit. "
                "Pass X as (series, table) with the same columns."
            )
        names = self.static_names
        if None not in (names, static_names) and names != static_names:
            raise ValueError(
                f"The table beside the series has the columns {names}, but they were {static_names} in fit. "
                "Pass the same columns in the same order."
            )


def series_and_table(X: Any) -> tuple[Any, Any]:
    """The parts of a tuple (series, table) or a :class:`SeriesWithTable`; without a table None."""
    static = None
    if isinstance(X, SeriesWithTable):
        X, static = X.series, X.table
    elif isinstance(X, tuple):
        if len(X) != 2:
            raise ValueError(f"A tuple X must be (series, table). Got {len(X)} elements; pass series as a list.")
        X, static = X
    # Each cell of a column may be a series.
    return X.to_list() if nw.dependencies.is_into_series(X) else X, static


def channel_names(X: Any) -> list[Any] | None:
    """The names of the columns of series that are frames, in a list; None where they have none.

    Raises
    ------
    ValueError
        If those of two series are not the same.
    """
    names = [(row, column_names(cell)) for row, cell in enumerate(X) if is_frame(cell)] if isinstance(X, list) else []
    for row, of_row in names:
        if of_row != names[0][1]:
            raise ValueError(
                f"Series {row} of X has the columns {of_row}, but series {names[0][0]} has {names[0][1]}. Give all of "
                "them the same columns in the same order."
            )
    return names[0][1] if names else None


def series_values(X: Any, layout: str) -> NDArray | None:
    """Values ``(n, C, T)`` of series, with NaN behind their ends; None for rows, which scikit-learn checks first.

    Parameters
    ----------
    X : array, tensor, list of arrays or DataFrame
        - Arrays ``(n, channels, time)``, or ``(n, time, channels)`` under "time_first". NaN is a missing value, and at
          the end of a series, in all channels, it is padding.
        - Lists of arrays ``(channels, time)``, of any lengths; ``(time,)`` where there is one channel. Tensors, lists
          and columns of frames do as well, and frames, whose rows are steps and whose columns are channels.
        - Rows ``(n, time)``: series of one channel.
    layout : {"channels_first", "time_first"}
        How series of several channels stand.

    Raises
    ------
    ValueError, TypeError
        With the remedy.
    """
    X = as_array(X)
    if isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1):
        if len(X) == 0:
            raise ValueError("Found X with 0 sample(s) while a minimum of 1 is required. Pass at least one series.")
        if _are_series(list(X)):
            return _padded(list(X), layout)
    if isinstance(X, np.ndarray) and X.ndim >= 3:
        return _finite(_channels_first(X, layout))
    refuse_lazy(X)
    return None


def _are_series(cells: Sequence[Any]) -> bool:
    """Whether cells are arrays or of unequal lengths; lists of as many numbers each are rows of a table."""
    if any(_is_array(cell) or _is_nested(cell) for cell in cells):
        return True
    return all(isinstance(cell, list | tuple) for cell in cells) and len({len(cell) for cell in cells}) > 1


def _is_array(cell: Any) -> bool:
    """Whether a cell is an array, a tensor, a frame or a column of one; a number of numpy's is none."""
    return len(getattr(cell, "shape", ())) > 0


def _is_nested(cell: Any) -> bool:
    """Whether a cell is a list of lists or arrays: the channels of a series."""
    return isinstance(cell, list | tuple) and any(isinstance(part, list | tuple) or _is_array(part) for part in cell)


def _channels_first(X: NDArray, layout: str) -> NDArray:
    if X.ndim != 3:
        raise ValueError(
            f"X has {X.ndim} axes, {X.shape}. Pass series as (n, channels, time), as (n, time, channels) with "
            "layout='time_first', or as rows (n, time)."
        )
    if 0 in X.shape:
        raise ValueError(f"X is empty: it has the shape {X.shape}. Pass at least one series, channel and step.")
    return np.swapaxes(X, 1, 2) if layout == "time_first" else X


def _padded(cells: Sequence[Any], layout: str) -> NDArray:
    """Series of unequal lengths in one array."""
    series = [_one_series(cell, layout, row) for row, cell in enumerate(cells)]
    n_channels = len(series[0])
    for row, one in enumerate(series):
        if len(one) != n_channels:
            raise ValueError(
                f"Series {row} of X has {len(one)} channels, but series 0 has {n_channels}. Give all series the same "
                "channels, NaN where one was not measured; series stand as (channels, time) unless "
                "layout='time_first'."
            )
    shape = len(series), n_channels, max(one.shape[1] for one in series)
    values = np.full(shape, np.nan, np.result_type(*{one.dtype for one in series}))
    for row, one in enumerate(series):
        values[row, :, : one.shape[1]] = one
    return values


def _one_series(cell: Any, layout: str, row: int) -> NDArray:
    try:
        one = np.asarray(as_array(cell))
    except ValueError as error:
        raise ValueError(
            f"The channels of series {row} of X are of unequal lengths. Fill up the shorter ones with NaN."
        ) from error
    # The rows of a frame are steps.
    layout = "time_first" if is_frame(cell) else layout
    if one.ndim == 1:
        one = one[np.newaxis] if layout == "channels_first" else one[:, np.newaxis]
    if one.ndim != 2:
        raise ValueError(f"Series {row} of X has {one.ndim} axes. Pass each as (channels, time), or as (time,).")
    if 0 in one.shape:
        raise ValueError(f"Series {row} of X is empty: it has the shape {one.shape}. Leave it out.")
    return _finite((one.T if layout == "time_first" else one)[np.newaxis], row)[0]


def _finite(values: NDArray, row: int = 0) -> NDArray:
    """Values as floats without infinities."""
    if values.dtype.kind not in "biufO":
        raise ValueError(f"Series must be numbers, and X has the type {values.dtype}. Convert it to float.")
    if values.dtype not in (np.float32, np.float64):
        if values.dtype == object:
            # Columns of several nullable types together hold pandas.NA.
            is_missing = np.array([is_missing_cell(cell) for cell in values.flat], dtype=bool)
            values = np.where(is_missing.reshape(values.shape), np.nan, values)
        try:
            values = values.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise ValueError(f"Series must be numbers, and X holds others: {error}. Convert it to float.") from error
    infinite = np.isinf(values).any(axis=(1, 2))
    if infinite.any():
        raise ValueError(
            f"Series {row + int(infinite.argmax())} of X contains infinity. Replace it by a number, or by NaN "
            "where the value is missing."
        )
    return values


def _lengths(values: NDArray) -> NDArray[np.intp]:
    """Steps up to the last value in any channel."""
    known = ~np.isnan(values).all(axis=1)
    if not known.any(axis=1).all():
        row = int(known.any(axis=1).argmin())
        raise ValueError(f"Series {row} of X has no value at all: every one is NaN. Leave it out.")
    return values.shape[2] - known[:, ::-1].argmax(axis=1)


def _checked_static(static: Any, n_series: int) -> Any:
    """The table beside the series, as a frame or a numeric array."""
    if static is None:
        return None
    if is_frame(static) and not column_names(static):
        static = np.empty((len(static), 0))
    elif is_frame(static):
        check_unique_names(static)
    else:
        static = _static_array(static)
    _check_rows(len(static), n_series)
    return static


def _check_rows(n_rows: int, n_series: int) -> None:
    if n_rows != n_series:
        raise ValueError(f"The table beside the series has {n_rows} rows for {n_series} series. Give one for each.")


def _static_array(static: Any) -> NDArray[np.float64]:
    if sp.issparse(static):
        raise ValueError(
            "The table beside the series is a sparse matrix, which is not taken there. Pass table.toarray(), or few "
            "columns that are made of it, with sklearn.decomposition.TruncatedSVD for example."
        )
    if type(static) is dict or is_structured(static):
        kind = "dict" if type(static) is dict else "structured array"
        raise ValueError(f"The table beside the series is a {kind}. Pass pandas.DataFrame(table).")
    values = np.asarray(as_array(static))
    if values.ndim != 2:
        raise ValueError(
            "The table beside the series must have two axes, a row per series. Use table[:, np.newaxis], or "
            "column.to_frame() for a column of a frame."
        )
    try:
        values = values.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The table beside the series contains a non-numeric value: {error}. Pass text as columns of a DataFrame."
        ) from error
    if np.isinf(values).any():
        raise ValueError(
            "The table beside the series contains infinity. Replace it by a number, or by NaN where the value is "
            "missing."
        )
    return values
