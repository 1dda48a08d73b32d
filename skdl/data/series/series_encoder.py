"""Checked series to tables of rows; see :mod:`skdl.data.series.series_reading` and :mod:`skdl.data.series.row_layout`.

Axes: n series, C channels, T steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from skdl.data.moments import ROUNDING, mean_and_deviation
from skdl.data.series.row_layout import N_TAIL, Denormalization, RowLayout
from skdl.data.series.series_level import level_is_informative
from skdl.data.series.series_reading import Series
from skdl.data.table import DenseTable
from skdl.data.tables.scaling import MAX_SCALED
from skdl.data.tables.table_encoder import TableEncoder
from skdl.data.types import Weights

#: Bound on levels and spreads, in units of the targets: single precision has room above it.
MAX_LEVEL = 1e30
#: Share of windows whose last value is a target of another one, from which on they are windows of the same series.
MIN_OVERLAP = 0.5


#: Places of some channels.
Channels = slice | list[int]


def _average(x: NDArray, weight: Weights) -> NDArray[np.float64]:
    return np.asarray(np.average(x, axis=0, weights=weight))


class SeriesEncoder:
    """Checked series to tables of rows.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the encoded numbers.
    series_scaling : {"auto", "last", "mean", "standard", None}
        What is taken out of each series by itself: its last value, its mean, or its mean and its deviation. "auto" is
        "last" where a channel goes on into the target so that its last value is a better guess than the mean target;
        that value then stands beside the series if it says of the targets what the shape of the series does not. Taken
        out of the channel that goes on if there is one, otherwise of all.

    Attributes
    ----------
    layout : RowLayout
    n_series : int
        Training series.
    n_steps, shortest, median_steps : int
        Steps of the longest, the shortest and the median training series.
    target_channel : int or None
        The channel whose last value is nearest to the first target, if it is near.
    is_reversible : bool
        Whether what was taken out of the target's channel is given back to the outputs.
    level_bounds : ndarray of shape (2,) or None
        Least and largest training level, where levels that are given back stand beside the series all the same.
    usual_location, usual_spread : ndarray of shape (n_chosen,)
        What is taken out of series without any value in a channel: the mean of what is taken out of the others.
    center, scale : ndarray of shape (n_channels,)
        Of the training values.
    """

    def __init__(self, dtype: DTypeLike, series_scaling: str | None = "auto") -> None:
        self.dtype = np.dtype(dtype)
        self.series_scaling = series_scaling

    def fit(
        self,
        X: Series,
        y: NDArray,
        rows: NDArray[np.intp],
        weight: Weights = None,
        *,
        classification: bool = False,
        groups: NDArray[np.intp] | None = None,
    ) -> SeriesEncoder:
        """Learn from the given rows of series, their targets and weights."""
        X = X[rows] if len(rows) < len(X) else X
        self.n_series, self.n_channels = X.shape[:2]
        self.n_steps, self.shortest = int(X.lengths.max()), int(X.lengths.min())
        self.median_steps = int(np.median(X.lengths))
        self.is_unequal = self.shortest < self.n_steps
        inside = np.arange(X.shape[2]) < X.lengths[:, None, None]
        self.indicated = np.flatnonzero((np.isnan(X.values) & inside).any(axis=(0, 2)))
        self.target_channel = None if classification else continued_channel(X, y, weight)
        self.scaling, self.is_reversible = self._chosen_scaling(X, y, weight)
        self._fit_usual(X, weight)
        self._fit_channels(X, weight)
        self._fit_target(X, y, weight)
        self._fit_covariates(X, y, weight, classification)
        self.layout = RowLayout(self.n_channels + len(self.indicated), self.n_covariates)
        return self

    @property
    def is_forecast(self) -> bool:
        """Whether the targets continue a channel."""
        return self.target_channel is not None

    def _chosen_scaling(self, X: Series, y: NDArray, weight: Weights) -> tuple[str | None, bool]:
        if self.target_channel is None:
            return (None if self.series_scaling == "auto" else self.series_scaling), False
        if self.series_scaling != "auto":
            return self.series_scaling, self.series_scaling is not None
        targets = y.reshape(len(y), -1)
        last = _with_means(_last_values(X)[:, [self.target_channel]], weight)
        error, spread = ((targets - guess) ** 2 for guess in (last, _average(targets, weight)))
        return ("last", True) if _average(error, weight).sum() < _average(spread, weight).sum() else (None, False)

    def _fit_usual(self, X: Series, weight: Weights) -> None:
        if self.scaling is not None:
            location, spread = SERIES_SCALINGS[self.scaling](X, self._scaled_channels())
            self.usual_location, self.usual_spread = _known_means(location, weight), _known_means(spread, weight)

    def _scaled_channels(self) -> Channels:
        return slice(None) if self.target_channel is None else [self.target_channel]

    def _fit_channels(self, X: Series, weight: Weights) -> None:
        """Mean and deviation of each channel's values, after what is taken out of each series."""
        values, *_ = self._taken_out(X)
        known = ~np.isnan(values)
        share = known if weight is None else known * weight[:, None, None]
        # What was taken out of a series has left its rounding beside that of the sums.
        filled = np.where(known, values, 0.0)
        self.center, deviation = mean_and_deviation(filled, share, axis=(0, 2), rounding=10 * ROUNDING)
        self.scale = np.where(deviation > 0, deviation, 1.0)

    def _fit_target(self, X: Series, y: NDArray, weight: Weights) -> None:
        """Units of levels, and the spread of targets around them."""
        self.target_center, self.target_scale, self.common_spread = 0.0, 1.0, 1.0
        if not self.is_reversible:
            return
        targets = y.reshape(len(y), -1)
        self.target_center = float(_average(targets, weight).mean())
        squares = _average((targets - self.target_center) ** 2, weight).mean()
        self.target_scale = float(np.sqrt(squares)) or 1.0
        _, level, spread = self._taken_out(X)
        around = ((targets - level[:, None]) / spread[:, None]) ** 2
        self.common_spread = float(np.sqrt(_average(around, weight).mean())) or 1.0

    def _fit_covariates(self, X: Series, y: NDArray, weight: Weights, classification: bool) -> None:
        """Encoders of the last values of forecasts, and of the table beside the series."""
        everything = np.arange(len(X))
        self.last_encoder = self.static_encoder = None
        self.level_bounds = self._level_bounds(X, y, weight)
        last = self._last_covariates(X)
        if self.target_channel is not None and self.series_scaling is not None and last.shape[1]:
            self.last_encoder = TableEncoder("robust", "piecewise_linear", self.dtype).fit(
                last, y, everything, weight, classification=classification
            )
        if X.static is not None:
            self.static_encoder = TableEncoder("robust", "piecewise_linear", self.dtype).fit(
                X.static, y, everything, weight, classification=classification
            )
            if self.static_encoder.embeddings:
                raise ValueError(
                    "The table beside the series has a column of text or categories with more than 32 levels. "
                    "Encode it first, with sklearn.preprocessing.TargetEncoder for example."
                )
        encoders = [encoder for encoder in (self.last_encoder, self.static_encoder) if encoder is not None]
        self.n_covariates = int(self.is_unequal) + sum(encoder.n_outputs for encoder in encoders)

    def _level_bounds(self, X: Series, y: NDArray, weight: Weights) -> NDArray[np.float64] | None:
        if not self.is_reversible or self.series_scaling != "auto":
            return None
        level, values = _last_values(X)[:, self.target_channel], X.values[:, self.target_channel].astype(np.float64)
        if not level_is_informative(values, X.lengths, level, y.reshape(len(y), -1).astype(np.float64), weight):
            return None
        return np.array([np.nanmin(level), np.nanmax(level)])

    def _last_covariates(self, X: Series) -> NDArray[np.float64]:
        """The last values that stand beside the series: a level that is given back only where it counts."""
        last = _last_values(X)
        if self.level_bounds is not None:
            # Beyond all levels of training nothing is known of what they do.
            last[:, self.target_channel] = last[:, self.target_channel].clip(*self.level_bounds)
        elif self.is_reversible:
            last = last[:, np.arange(self.n_channels) != self.target_channel]
        return last

    def lacks_level(self, X: Series) -> NDArray[np.bool_]:
        """Series whose level is given back to the outputs, and which have no value that it could be told from."""
        if not self.is_reversible:
            return np.zeros(len(X), dtype=bool)
        return np.isnan(X.values[:, self.target_channel]).all(axis=1)

    def denormalization(self, location: NDArray, scale: NDArray) -> Denormalization | None:
        """The way back to targets that were standardised by these numbers; None where nothing is given back."""
        if not self.is_reversible:
            return None
        gain, offset = self.target_scale / scale, (self.target_center - location) / scale
        return Denormalization(tuple(gain.tolist()), tuple(offset.tolist()))

    def transform(self, X: Series) -> DenseTable:
        """A table with a row per series."""
        values, level, spread = self._taken_out(X)
        n, n_channels, n_steps = values.shape
        stop = self.layout.n_channels * n_steps
        out = np.zeros((n, stop + self.n_covariates + N_TAIL), self.dtype)
        channels = out[:, :stop].reshape(n, self.layout.n_channels, n_steps)
        with np.errstate(over="ignore"):
            scaled = (values - self.center[:, None]) / self.scale[:, None]
        channels[:, :n_channels] = np.nan_to_num(np.clip(scaled, -MAX_SCALED, MAX_SCALED), nan=0.0)
        inside = np.arange(n_steps) < X.lengths[:, None, None]
        channels[:, n_channels:] = np.isnan(X.values[:, self.indicated]) & inside
        out[:, stop : stop + self.n_covariates] = self._beside(X)
        out[:, -3] = np.clip((level - self.target_center) / self.target_scale, -MAX_LEVEL, MAX_LEVEL)
        out[:, -2] = np.clip(spread * self.common_spread / self.target_scale, 0, MAX_LEVEL)
        out[:, -1] = X.lengths
        is_unequal = X.lengths.min() < n_steps
        return DenseTable(torch.from_numpy(out), sizes=torch.from_numpy(X.lengths) if is_unequal else None)

    def _beside(self, X: Series) -> NDArray:
        parts = []
        if self.is_unequal:
            parts.append(np.log(X.lengths / self.n_steps)[:, None])
        if self.last_encoder is not None:
            parts.append(self.last_encoder.transform(self._last_covariates(X)).slice(0, len(X))[0].numpy())
        if self.static_encoder is not None:
            parts.append(self.static_encoder.transform(X.static).slice(0, len(X))[0].numpy())
        return np.hstack(parts) if parts else np.zeros((len(X), 0))

    def _taken_out(self, X: Series) -> tuple[NDArray, NDArray, NDArray]:
        """Values without what is taken out of each series, and the level and the spread of the target's channel."""
        values = X.values.astype(np.float64)
        nothing = np.zeros(len(X)), np.ones(len(X))
        if self.scaling is None:
            return values, *nothing
        chosen = self._scaled_channels()
        location, spread = SERIES_SCALINGS[self.scaling](X, chosen)
        location = np.where(np.isnan(location), self.usual_location, location)
        spread = np.where(np.isnan(spread), self.usual_spread, spread)
        values[:, chosen] = (values[:, chosen] - location[:, :, None]) / spread[:, :, None]
        return (values, location[:, 0], spread[:, 0]) if self.is_reversible else (values, *nothing)


def _last(X: Series, chosen: Channels) -> tuple[NDArray, NDArray]:
    last = _last_values(X)[:, chosen]
    return last, np.ones_like(last)


def _mean(X: Series, chosen: Channels) -> tuple[NDArray, NDArray]:
    mean = _mean_over_steps(X.values[:, chosen].astype(np.float64))
    return mean, np.ones_like(mean)


def _standard(X: Series, chosen: Channels) -> tuple[NDArray, NDArray]:
    values = X.values[:, chosen].astype(np.float64)
    mean = _mean_over_steps(values)
    deviation = np.sqrt(_mean_over_steps((values - mean[:, :, None]) ** 2))
    return mean, np.where(deviation <= 1e-8 * np.abs(mean), 1.0, deviation)


def _mean_over_steps(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ``(n, c)`` of the known values of each channel ``(n, c, T)``; NaN where none is known."""
    known = ~np.isnan(values)
    count = np.where(known.any(axis=2), known.sum(axis=2), np.nan)
    return np.where(known, values, 0.0).sum(axis=2) / count


#: Location and spread ``(n, c)`` of the chosen channels of each series, NaN for a channel without values, by name.
SERIES_SCALINGS: dict[str, Callable[[Series, Channels], tuple[NDArray, NDArray]]] = {
    "last": _last,
    "mean": _mean,
    "standard": _standard,
}


def _known_means(values_nC: NDArray, weight: Weights) -> NDArray[np.float64]:
    """Mean of each column's known values; 0 where there are none."""
    known = ~np.isnan(values_nC)
    share = known if weight is None else known * weight[:, None]
    total = share.sum(axis=0)
    return (share * np.where(known, values_nC, 0.0)).sum(axis=0) / np.where(total > 0, total, 1)


def _with_means(values_nC: NDArray, weight: Weights) -> NDArray[np.float64]:
    """Values with the mean of their column where they are missing."""
    return np.where(np.isnan(values_nC), _known_means(values_nC, weight), values_nC)


def _last_values(X: Series) -> NDArray[np.float64]:
    """The last value of each channel, ``(n, C)``; NaN for a channel without one."""
    known = ~np.isnan(X.values)
    last = X.shape[2] - 1 - known[:, :, ::-1].argmax(axis=2)
    return np.take_along_axis(X.values, last[:, :, None], axis=2)[:, :, 0].astype(np.float64)


def continued_channel(X: Series, y: NDArray, weight: Weights) -> int | None:
    """The channel that the targets continue, if they do.

    That is the one whose last value in most rows is a target of another row, as in windows of one series; or else the
    one whose last value is nearest to the first target, if it is nearer than the mean target is.
    """
    targets = y.reshape(len(y), -1).astype(np.float64)
    last = _last_values(X)
    with np.errstate(over="ignore"):
        rounded = targets.astype(X.values.dtype)
    overlap = [_overlap(last[:, c], rounded) for c in range(last.shape[1])]
    if max(overlap) >= MIN_OVERLAP:
        return int(np.argmax(overlap))
    first, known = targets[:, 0], ~np.isnan(last)
    # Squares of huge values overflow: what goes on there is not told from what does not.
    with np.errstate(over="ignore", invalid="ignore"):
        error = _average((_with_means(last, None) - first[:, None]) ** 2, weight)
        spread = _average((first - _average(first, weight)) ** 2, weight)
    # A channel without any value goes on into nothing.
    error[~known.any(axis=0)] = np.inf
    nearest = int(np.nan_to_num(error, nan=np.inf).argmin())
    return nearest if error[nearest] < spread < np.inf else None


def _overlap(last: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """The share of rows whose last value is a target of some row, always the same one of its targets.

    Of values that come again and again that says nothing: they must be targets of the row before, in more rows than
    chance makes of it.
    """
    if len(last) < 3:
        return 0.0
    if 2 * len(np.unique(last)) > len(last):
        return float(max(np.mean(np.isin(last, column)) for column in targets.T))
    # The same in another order.
    shifted = np.roll(last[1:], len(last) // 2)
    found = np.array([(np.mean(last[1:] == column), np.mean(shifted == column)) for column in targets[:-1].T])
    by_chance = np.minimum(found[:, 1], 1 - 1 / len(last))
    return float(((found[:, 0] - by_chance) / (1 - by_chance)).max())
