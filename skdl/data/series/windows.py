"""Long tables of time series to windows with targets.

Axes: n windows, C channels, L lags, H steps of the horizon.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from skdl.data.counts import check_counts
from skdl.data.series.series_reading import SeriesWithTable
from skdl.data.series.time_gaps import after_gaps
from skdl.data.tables.cells import missing_cells
from skdl.data.tables.columns import Column
from skdl.data.tables.frames import check_unique_names, frame_columns, is_frame, refuse_lazy
from skdl.data.tensors import as_array


def window(
    frame: Any,
    *,
    target: Any = None,
    lags: int,
    horizon: int = 1,
    step: int = 1,
    by: Any = None,
    time: Any = None,
    features: Sequence[Any] | None = None,
    known_future: Sequence[Any] = (),
    static: Sequence[Any] = (),
    last: bool = False,
    return_index: bool = False,
) -> Any:
    """Cut series into windows of the past and the values of the target that follow.

    Windows of all series are ordered by the time of their last step, so that
    :class:`sklearn.model_selection.TimeSeriesSplit` never tests on the past of what it trains on. Neighbouring windows
    overlap: a ``gap`` of ``horizon / step`` windows, times the number of series, keeps training and test targets apart.

    Parameters
    ----------
    frame : DataFrame or array-like of shape (n_rows,) or (n_rows, n_columns)
        One row per step, evenly spaced. Columns of an array are called 0, 1, ...; masked values are missing.
    target : label, default=None
        Column to forecast, which becomes the first channel of the windows. None if there is only one column.
    lags : int
        Number of steps of a window.
    horizon : int, default=1
        Number of steps to forecast.
    step : int, default=1
        Number of steps from one window to the next. Windows are placed so that the last one ends as late as possible.
    by : label, default=None
        Column of numbers or text that says which series a row belongs to. Windows never span two series.
    time : label, default=None
        Column of time stamps, increasing within each series. With None, rows are taken in their given order. If steps
        are regular, a step of more than 1.5 times the usual step of its series is a gap; months and daylight-saving
        changes are not. Steps are regular if four in five have the usual length, or if all are multiples of the
        smallest one and at least three in ten are as long as it, unless the same day of the week is always left out, as
        in trading days: then consecutive rows are neighbours. Numbers such as 202412 and 20241231 are read as dates.
    features : sequence of labels, default=None
        Numeric or boolean columns, besides the target, that become channels. None uses all that have no other role.
    known_future : sequence of labels, default=()
        Columns whose values over the horizon are known in advance, such as calendars and plans. Their channels are
        shifted ahead by ``horizon`` steps, so that they end with the last step of the horizon.
    static : sequence of labels, default=()
        Columns with one value per series; where it changes, that of the window's last step. X is then a
        :class:`SeriesWithTable`: windows and table together, which estimators accept and searches can split by rows.
    last : bool, default=False
        Return only the last window of each series, whose target lies in the future, and no y. It ends with the last row
        whose target is known; later rows may contain the values of ``known_future``.
    return_index : bool, default=False
        Whether to also return the time stamp and the series of each window.

    Returns
    -------
    X : ndarray of shape (n, channels, lags), or SeriesWithTable of it and a DataFrame or ndarray
        Windows; missing values are NaN. Windows whose last step has no value in any channel are left out, because they
        would be mistaken for shorter series. So are windows with a gap of ``time`` inside, before the target or in the
        target.
    y : ndarray of shape (n, horizon), or (n,) for a horizon of 1
        Not with ``last=True``. Windows with missing targets are left out.
    index : structured ndarray of shape (n,)
        If ``return_index``: fields "time", the stamp of the last step, and "by". Integers and text keep their type;
        dates have at least microsecond resolution, time-zone-aware ones are in UTC, and times given as other objects
        become floats.

    Raises
    ------
    ValueError
        If a column does not exist or is not numeric, if entries of ``by`` are missing, if time stamps are missing,
        repeated or not increasing within a series, if ``known_future`` contains the target or reaches further than the
        lags, or if no series is long enough or has a window without gaps.

    Warns
    -----
    UserWarning
        If some series are shorter than ``lags + horizon`` and yield no window, or windows are left out because of gaps.

    Examples
    --------
    >>> import numpy as np
    >>> from skdl import window
    >>> X, y = window(np.arange(10), lags=4, horizon=2)
    >>> X.shape, y[0]
    ((5, 1, 4), array([4., 5.]))
    """
    check_counts(lags=lags, horizon=horizon, step=step)
    _check_lists(features=features, known_future=known_future, static=static)
    if known_future and horizon > lags:
        raise ValueError(
            f"known_future columns reach over the horizon of {horizon} steps, more than the {lags} lags hold. "
            f"Set lags to at least {horizon}."
        )
    table = _Table.of(as_array(frame), target, by, time, features, known_future, static)
    series = table.series()
    follows_gap = after_gaps(table.times, series)
    parts = [_cut(table, rows, follows_gap[rows], lags, horizon, step, last) for rows in series]
    _tell_of_gaps(table, follows_gap, parts)
    _tell_of_short_series(parts, lags, horizon, last)
    ends = np.concatenate([part.ends for part in parts])
    # Positions stand in for times where there are none.
    stamps = table.times if table.times is not None else np.concatenate([part.positions for part in parts])
    order = np.argsort(stamps[ends] if table.times is not None else stamps, kind="stable")
    ends = ends[order]
    X: Any = np.concatenate([part.X for part in parts])[order]
    if static:
        X = SeriesWithTable(X, table.static_rows(ends))
    result = [X] if last else [X, np.concatenate([part.y for part in parts])[order]]
    if return_index:
        result.append(table.index(ends))
    return result[0] if len(result) == 1 else tuple(result)


def _check_lists(**lists: Sequence[Any] | None) -> None:
    for name, labels in lists.items():
        if isinstance(labels, str):
            raise ValueError(f"{name} must be a list of columns. Use {name}=[{labels!r}].")


@dataclass
class _Cut:
    """The windows of one series, and the rows and the positions in the series of their last steps.

    ``n_broken`` windows with a gap in them are left out.
    """

    X: NDArray
    y: NDArray
    ends: NDArray[np.intp]
    positions: NDArray[np.intp]
    n_broken: int


@dataclass
class _Table:
    """The columns of a long table by their parts."""

    frame: Any
    target: NDArray
    past: NDArray
    future: NDArray
    groups: NDArray | None
    times: NDArray | None
    static: list[Any]

    @classmethod
    def of(
        cls,
        frame: Any,
        target: Any,
        by: Any,
        time: Any,
        features: Sequence[Any] | None,
        known_future: Sequence[Any],
        static: Sequence[Any],
    ) -> _Table:
        columns = _columns(frame)
        if isinstance(target, list):
            raise ValueError(f"target must name one column. Got {target}: call window once for each.")
        if isinstance(by, list):
            raise ValueError(f"by must name one column. Join {by} into one first.")
        if isinstance(time, list):
            raise ValueError(f"time must name one column. Join {time} into one first.")
        if target is None:
            free = [name for name in columns if name not in (by, time, *known_future, *static)]
            if len(free) != 1:
                raise ValueError(f"target must name the column to forecast, one of {free}.")
            target = free[0]
        for name in (target, *(features or ()), *known_future, *static, *(n for n in (by, time) if n is not None)):
            if name not in columns:
                is_index = name in getattr(getattr(frame, "index", None), "names", ())
                remedy = " It is in the index: pass frame.reset_index()." if is_index else ""
                raise ValueError(f"There is no column {name!r}. The columns are {list(columns)}.{remedy}")
        if target in known_future:
            raise ValueError(f"The target {target!r} is not known beforehand. Leave it out of known_future.")
        if features is None:
            taken = (target, by, time, *known_future, *static)
            features = [name for name, column in columns.items() if name not in taken and column.kind == "numeric"]
        past = np.stack([_numbers(columns, name) for name in (target, *(f for f in features if f != target))])
        future = np.stack([_numbers(columns, name) for name in known_future]) if known_future else past[:0]
        groups = None if by is None else _groups(frame, columns, by)
        times = None if time is None else _times(frame, columns, time)
        return cls(frame, past[0], past, future, groups, times, list(static))

    def series(self) -> list[NDArray[np.intp]]:
        """The rows of each series, their times checked."""
        everything = np.arange(len(self.target))
        if self.groups is None:
            rows = [everything]
        else:
            codes = _codes(self.groups)
            rows = [np.flatnonzero(codes == code) for code in range(codes.max(initial=-1) + 1)]
        for one in rows:
            self._check_times(one)
        return rows

    def _check_times(self, rows: NDArray[np.intp]) -> None:
        if self.times is None:
            return
        where = "" if self.groups is None else f" of series {self.groups[rows[0]]!r}"
        # In order first: of several series one below the other, times occur twice, and sorting would not help.
        ordered = rows[np.argsort(self.times[rows], kind="stable")]
        is_twice = self.times[ordered[1:]] == self.times[ordered[:-1]]
        if is_twice.any():
            row = ordered[int(is_twice.argmax())]
            raise ValueError(
                f"The time {self.times[row]} occurs twice among the rows{where}. Name the column that tells the series "
                "apart with by=, or drop or average duplicated rows."
            )
        # Differences of unsigned integers are never negative.
        if (self.times[rows[1:]] < self.times[rows[:-1]]).any():
            raise ValueError(f"The times{where} do not rise. Sort the rows by time first.")

    def static_rows(self, rows: NDArray[np.intp]) -> Any:
        """The columns that do not change, for some rows."""
        if is_frame(self.frame):
            return nw.from_native(self.frame, eager_only=True).select(self.static)[rows.tolist()].to_native()
        return np.asarray(self.frame)[np.ix_(rows, self.static)]

    def index(self, rows: NDArray[np.intp]) -> NDArray:
        """Time and series of some rows."""
        times = np.arange(len(self.target)) if self.times is None else self.times
        groups = np.zeros(len(self.target), dtype=int) if self.groups is None else self.groups
        index = np.empty(len(rows), dtype=[("time", times.dtype), ("by", groups.dtype)])
        index["time"], index["by"] = times[rows], groups[rows]
        return index


def _columns(frame: Any) -> dict[Any, Column]:
    """Each column, by name."""
    if is_frame(frame):
        check_unique_names(frame)
        return {column.name: _with_flags_as_numbers(column) for column in frame_columns(frame)}
    refuse_lazy(frame, "frame")
    values = np.asarray(frame)
    if values.ndim == 1:
        values = values[:, np.newaxis]
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise ValueError(
            f"Pass a DataFrame, or numbers (n_rows,) or (n_rows, n_columns). Got the type {values.dtype} and the shape "
            f"{values.shape}."
        )
    if np.isinf(values).any():
        raise ValueError("The array contains infinity. Replace it by a number, or by NaN where the value is missing.")
    return {place: Column(place, "numeric", column) for place, column in enumerate(values.T)}


def _with_flags_as_numbers(column: Column) -> Column:
    """A column, with booleans as 0 and 1: calendars are made of them."""
    cells = [cell for cell in column.values if cell is not None] if column.kind == "categorical" else []
    if cells and all(isinstance(cell, bool | np.bool_) for cell in cells):
        numbers = np.array([np.nan if cell is None else float(cell) for cell in column.values])
        return replace(column, kind="numeric", values=numbers)
    return column


def _groups(frame: Any, columns: dict[Any, Column], name: Any) -> NDArray:
    values = columns[name].values
    n_missing = missing_cells(values).sum()
    if n_missing:
        raise ValueError(f"Column {name!r} is missing in {n_missing} rows. Drop them, or say which series they are of.")
    return _exact(frame, columns, name)


def _codes(groups: NDArray) -> NDArray[np.intp]:
    """The number of each row's group, in the order of their values, or of their text where they are objects."""
    if groups.dtype != object:
        return np.unique(groups, return_inverse=True)[1]
    # True equals 1 in Python.
    keys = [(isinstance(group, bool | np.bool_), group) for group in groups]
    order = sorted(set(keys), key=lambda key: (str(key[1]), type(key[1]).__name__))
    numbers = {key: number for number, key in enumerate(order)}
    return np.array([numbers[key] for key in keys], dtype=np.intp)


def _exact(frame: Any, columns: dict[Any, Column], name: Any) -> NDArray:
    """The values of a column without missing ones, neither rounded to floats nor to microseconds."""
    values = columns[name].values
    if not is_frame(frame):
        return values
    series = nw.from_native(frame, eager_only=True)[:, list(columns).index(name)]
    dtype = series.dtype
    if dtype in (nw.Object, nw.Unknown, nw.Int128, nw.UInt128, nw.Decimal):
        return _own_type(series.to_list())
    if dtype == nw.Boolean:
        return series.to_numpy().astype(bool)
    if dtype.is_integer():
        return np.asarray(series.to_numpy())
    if dtype == nw.Duration:
        return series.to_numpy().astype(f"timedelta64[{dtype.time_unit}]")
    if dtype == nw.Datetime and dtype.time_unit == "ns":
        if dtype.time_zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return series.to_numpy().astype("datetime64[ns]")
    return values


def _own_type(cells: list[Any]) -> NDArray:
    """Cells as integers where all are, else as they are."""
    if all(isinstance(cell, Integral) and not isinstance(cell, bool) for cell in cells):
        whole = np.array(cells)
        if whole.dtype.kind in "iu":
            return whole
    objects = np.empty(len(cells), dtype=object)
    objects[:] = cells
    return objects


def _numbers(columns: dict[Any, Column], name: Any) -> NDArray[np.float64]:
    column = columns[name]
    if column.kind != "numeric":
        raise ValueError(f"Column {name!r} is {column.kind}. Channels are numbers: encode it first, or leave it out.")
    return np.asarray(column.values, dtype=np.float64)


def _times(frame: Any, columns: dict[Any, Column], name: Any) -> NDArray:
    kind, values = columns[name].kind, columns[name].values
    if kind == "categorical":
        raise ValueError(f"Column {name!r} holds text. Convert it to dates, with pandas.to_datetime for example.")
    if missing_cells(values).any():
        raise ValueError(f"Column {name!r} has missing time stamps. Fill them in, or drop the rows.")
    times = _exact(frame, columns, name)
    return values if times.dtype == object else times


def _cut(
    table: _Table,
    rows: NDArray[np.intp],
    follows_gap: NDArray[np.bool_],
    lags: int,
    horizon: int,
    step: int,
    last: bool,
) -> _Cut:
    """The windows of one series."""
    target, past, future = table.target[rows], table.past[:, rows], table.future[:, rows]
    last_known = int(np.flatnonzero(~np.isnan(target)).max(initial=-1))
    if last:
        ends = np.array([last_known] if last_known >= lags - 1 else [], dtype=np.intp)
    else:
        ends = np.arange(last_known - horizon, lags - 2, -step)[::-1]
        following = ends[:, None] + 1 + np.arange(horizon)
        ends = ends[~np.isnan(target[following]).any(axis=1)]
    if len(future) and len(ends) and ends[-1] + horizon >= len(rows):
        raise ValueError(
            f"known_future columns must go on for {horizon} steps behind the last known target. Append those rows, "
            "with a missing target."
        )
    is_known = ~np.isnan(past[:, ends]).all(axis=0)
    if len(future):
        is_known |= ~np.isnan(future[:, ends + horizon]).all(axis=0)
    ends = ends[is_known]
    n_gaps = np.cumsum(follows_gap)
    reach = horizon if not last or len(future) else 0
    is_broken = n_gaps[ends + reach] > n_gaps[ends - lags + 1]
    ends = ends[~is_broken]
    y = target[ends[:, None] + 1 + np.arange(horizon)] if not last else np.empty((len(ends), 0))
    return _Cut(
        np.concatenate([_windows(past, ends, lags), _windows(future, ends + horizon, lags)], axis=1),
        y[:, 0] if horizon == 1 and not last else y,
        rows[ends],
        ends,
        int(is_broken.sum()),
    )


def _windows(channels_CN: NDArray, ends: NDArray[np.intp], lags: int) -> NDArray:
    """Windows ``(n, C, lags)`` that end with these steps."""
    if len(channels_CN) == 0 or len(ends) == 0:
        return np.empty((len(ends), len(channels_CN), lags))
    return sliding_window_view(channels_CN, lags, axis=1)[:, ends - lags + 1].swapaxes(0, 1)


def _tell_of_gaps(table: _Table, follows_gap: NDArray[np.bool_], parts: list[_Cut]) -> None:
    n_broken = sum(part.n_broken for part in parts)
    if not n_broken:
        return
    assert table.times is not None
    row = int(follows_gap.argmax())
    where = "" if table.groups is None else f" of series {table.groups[row]!r}"
    told = (
        f"{n_broken} windows are left out for gaps in time, such as the one in front of {table.times[row]}{where}. To "
        "keep them, put in the missing steps as rows of missing values; or number the rows of each series in a column "
        "of integers and pass it as time=, if they are neighbours all the same."
    )
    if not any(len(part.ends) for part in parts):
        raise ValueError(f"There is no window without a gap. {told}")
    warnings.warn(told, UserWarning, stacklevel=3)


def _tell_of_short_series(parts: list[_Cut], lags: int, horizon: int, last: bool) -> None:
    needed = f"{lags} lags" if last else f"{lags} lags and {horizon} steps ahead"
    n_short = sum(len(part.ends) == part.n_broken == 0 for part in parts)
    if n_short == len(parts):
        raise ValueError(f"No series has {needed} with a known target. Lower lags or horizon.")
    if n_short:
        warnings.warn(
            f"{n_short} of {len(parts)} series do not have {needed} with a known target and give no window. "
            "Lower lags or horizon to keep them.",
            UserWarning,
            stacklevel=3,
        )
