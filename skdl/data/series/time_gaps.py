"""Gaps in regular times: months, days, grids of minutes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Times count as regular if at least this share of their steps is about as long as usual.
REGULAR_SHARE = 0.8
#: Longest step that is no gap, in usual steps, or on a grid in the smallest ones: months and days of daylight saving
#: are longer than usual, but not by half.
MAX_STEP_RATIO = 1.5
#: Times are a grid, and regular as well, if all steps are multiples of the smallest one and at least this share of them
#: is as long as it.
GRID_SHARE = 0.3
#: How far a step may be from such a multiple, as a share of the smallest step.
MAX_GRID_OFFSET = 0.01
#: Years, months and days of numbers that stand for dates.
CALENDAR = [np.arange(1800, 2200), np.arange(1, 13), np.arange(1, 32)]


def after_gaps(times: NDArray | None, series: list[NDArray[np.intp]]) -> NDArray[np.bool_]:
    """Which rows are further from the one before than steps are, where these are regular."""
    follows = np.zeros(sum(map(len, series)), dtype=bool)
    series = [rows for rows in series if len(rows) > 1]
    if times is None or not series:
        return follows
    times = _as_dates(times)
    steps = [np.diff(times[rows]) for rows in series]
    # The lower of two middle ones: gaps are longer than steps. Series may be of different steps.
    usual = np.array([np.sort(one)[(len(one) - 1) // 2] for one in steps])
    ratio = np.concatenate([one / one.min() for one in steps])
    # A grid, perhaps with many rows missing: every step is a multiple of the smallest, and many equal it. Other times
    # may also step in multiples of a time unit, but few of their steps equal it.
    are_whole = (np.abs(ratio - np.rint(ratio)) <= MAX_GRID_OFFSET).all()
    is_regular = bool(are_whole and np.mean(ratio < MAX_STEP_RATIO) >= GRID_SHARE)
    if not is_regular:
        ratio = np.concatenate([one / middle for one, middle in zip(steps, usual, strict=True)])
        is_regular = bool(np.mean(np.abs(ratio - 1) <= MAX_STEP_RATIO - 1) >= REGULAR_SHARE)
    if is_regular and not _has_days_off(times, usual):
        follows[np.concatenate([rows[1:] for rows in series])] = ratio > MAX_STEP_RATIO
    return follows


def _as_dates(times: NDArray) -> NDArray:
    """Times, numbers such as 202412 and 20241231 as the dates they stand for."""
    if times.dtype.kind in "mM" or (times % 1 != 0).any():
        return times
    if times.dtype.kind in "iu":
        # Steps may be longer than small integers hold.
        times = times.astype(np.int64 if times.dtype.kind == "i" else np.uint64)
    numbers = times.astype(np.float64)
    for n_digits in (6, 8):
        first_days = numbers * (100 if n_digits == 6 else 1) + (n_digits == 6)
        years, months, days = first_days // 10_000, first_days // 100 % 100, first_days % 100
        if all(np.isin(part, span).all() for part, span in zip((years, months, days), CALENDAR, strict=True)):
            counted = ((years - 1970) * 12 + months - 1).astype(np.int64).astype("datetime64[M]")
            return counted.astype("datetime64[D]") + (days - 1).astype("timedelta64[D]")
    return times


def _has_days_off(times: NDArray, usual: NDArray) -> bool:
    """Whether rows are days, none of which falls on some day of the week."""
    if times.dtype.kind != "M":
        return False
    is_daily = np.rint(np.median(usual / np.timedelta64(1, "h"))) == 24
    return bool(is_daily and len(np.unique(times.astype("datetime64[D]").astype(np.int64) % 7)) < 7)
