"""What users have as series to one array: arrays, lists of unequal lengths, rows, with or without a table beside them.

Axes: n series, C channels, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, validate_data

from skdl.data.frames import check_unique_names, column_names, forget_columns, is_frame, refuse_lazy
from skdl.data.tensors import as_array


class SeriesWithTable(NamedTuple):
    """Series and a table with one row for each, which scikit-learn's searches and cross-validation can split by rows.

    Estimators on series accept it wherever they accept a tuple (series, table), which scikit-learn cannot split.

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
    >>> X[1:].table
    array([[2.],
           [3.]])
    >>> series, table = X
    """

    series: Any
    table: Any

    def __repr__(self) -> str:
        return f"SeriesWithTable({self.shape[0]} series, table of shape {np.shape(self.table)})"

    @property
    def shape(self) -> tuple[int]:
        """Rows, which scikit-learn asks for before it asks for the length."""
        n_series = _num_samples(self.series)
        _check_rows(_num_samples(self.table), n_series)
        return (n_series,)

    def __getitem__(self, key: Any) -> Any:
        """Rows, as of an array; 0 and 1 are the parts of the tuple."""
        if isinstance(key, Integral):
            return tuple(self)[int(key)]
        # scikit-learn cuts arrays by X[rows, ...].
        rows = key[0] if isinstance(key, tuple) else key
        return SeriesWithTable(_safe_indexing(self.series, rows), _safe_indexing(self.table, rows))


@dataclass(frozen=True)
class Series:
    """Checked series: what :func:`check_series` gives. Handed in again, by a scorer say, they are what they are.

    ``values`` ``(n, C, T)`` hold NaN where there is no value, after the end of a series too; ``lengths`` ``(n,)`` are
    the steps up to the last value; ``static`` is a table with a row per series, or None.
    """

    values: NDArray
    lengths: NDArray[np.intp]
    static: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: Any) -> Series:
        rows = key[0] if isinstance(key, tuple) else key
        static = None if self.static is None else _safe_indexing(self.static, rows)
        return Series(self.values[rows], self.lengths[rows], static)


def check_series(estimator: Any, X: Any, *, reset: bool) -> Series:
    """Series as one array, padded with NaN behind their ends.

    Parameters
    ----------
    estimator : estimator
        Its parameter ``layout`` ("channels_first" or "time_first") says how series of several channels stand.
    X : array, tensor, list of arrays, DataFrame, or tuple (series, table)
        - Arrays ``(n, channels, time)``, or ``(n, time, channels)`` under "time_first". NaN is a missing value, and at
          the end of a series, in all channels, it is padding.
        - Lists of arrays ``(channels, time)``, of any lengths; ``(time,)`` where there is one channel. Tensors, lists,
          frames and columns of frames do as well.
        - Rows ``(n, time)``: series of one channel.
        - A tuple of one of these and a table with a row per series, :class:`SeriesWithTable` for one.
    reset : bool
        True in ``fit``: sets ``n_channels_``, and ``n_features_in_`` and ``feature_names_in_`` for rows.

    Returns
    -------
    Series

    Raises
    ------
    ValueError, TypeError
        With the remedy; for rows in scikit-learn's words.
    """
    if isinstance(X, Series) and not reset:
        return X
    static = None
    if isinstance(X, tuple):
        if len(X) != 2:
            raise ValueError(f"A tuple X must be (series, table). Got {len(X)} elements; pass series as a list.")
        X, static = X
    values = _values(estimator, X, reset)
    _check_channels(estimator, values, reset)
    lengths = _lengths(values)
    return Series(values[:, :, : lengths.max()], lengths, _check_static(estimator, static, len(values), reset))


def _values(estimator: Any, X: Any, reset: bool) -> NDArray:
    """Values ``(n, C, T)``."""
    if reset:
        # Those of this fit are set where rows are checked.
        forget_columns(estimator)
    X = as_array(X)
    if isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1):
        if len(X) == 0:
            raise ValueError("Found X with 0 sample(s) while a minimum of 1 is required. Pass at least one series.")
        if _are_series(list(X)):
            return _padded(list(X), estimator.layout)
    if isinstance(X, np.ndarray) and X.ndim >= 3:
        return _finite(_channels_first(X, estimator.layout))
    refuse_lazy(X)
    return _rows(estimator, X, reset)[:, np.newaxis]


def _rows(estimator: Any, X: Any, reset: bool) -> NDArray:
    """Values ``(n, T)`` of rows, checked as scikit-learn does."""
    try:
        return validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan")
    except ValueError as error:
        if "features as input" in str(error):
            remedy = "Series of other lengths than in fit go in as (n, 1, time), X[:, np.newaxis], or as a list."
            raise ValueError(f"{error} {remedy}") from error
        if "setting an array element" in str(error):
            remedy = "Where each cell of a column is a series, pass a list of them, such as list(frame[column])."
            raise ValueError(f"{error} {remedy}") from error
        raise


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
    values = np.full((len(series), n_channels, max(one.shape[1] for one in series)), np.nan, series[0].dtype)
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


def _check_channels(estimator: Any, values: NDArray, reset: bool) -> None:
    if reset:
        estimator.n_channels_ = values.shape[1]
    elif values.shape[1] != estimator.n_channels_:
        raise ValueError(
            f"X has {values.shape[1]} channels, but the model was fitted on {estimator.n_channels_}. Series stand as "
            "(n, channels, time) unless layout='time_first'."
        )


def _check_static(estimator: Any, static: Any, n_series: int, reset: bool) -> Any:
    """The table beside the series, as a frame or a numeric array."""
    names = None
    if is_frame(static):
        check_unique_names(static)
        names = column_names(static)
    elif static is not None:
        static = _static_array(static)
    if static is not None:
        _check_rows(len(static), n_series)
    n_columns = 0 if static is None else static.shape[1]
    if reset:
        estimator.n_static_, estimator._static_names = n_columns, names
    elif n_columns != estimator.n_static_:
        raise ValueError(
            f"The table beside the series has {n_columns} columns, but it had {estimator.n_static_} in fit. "
            "Pass X as (series, table) with the same columns."
        )
    elif None not in (names, estimator._static_names) and names != estimator._static_names:
        raise ValueError(
            f"The table beside the series has the columns {names}, but they were {estimator._static_names} in fit. "
            "Pass the same columns in the same order."
        )
    return static


def _check_rows(n_rows: int, n_series: int) -> None:
    if n_rows != n_series:
        raise ValueError(f"The table beside the series has {n_rows} rows for {n_series} series. Give one for each.")


def _static_array(static: Any) -> NDArray[np.float64]:
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
