"""Means and deviations of numbers of any size, and quantiles by weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: What the deviation of a constant comes to at most by rounding, over the largest value.
ROUNDING = 10 * np.finfo(np.float64).eps
#: Sums of weights that differ by no more than this share of all weight count as equal.
WEIGHT_ROUNDING = 1e-9


def mean_and_deviation(
    x: NDArray[np.float64],
    weight: NDArray | None = None,
    axis: int | tuple[int, ...] = 0,
    rounding: float = ROUNDING,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and standard deviation along some axes; of a constant the latter is 0, whatever rounding leaves.

    Parameters
    ----------
    x : ndarray of float64
    weight : ndarray, optional
        It broadcasts with x. Where it is 0 throughout, so are mean and deviation.
    axis : int or tuple of int
    rounding : float
        Deviations below this share of the largest value are rounding.

    Examples
    --------
    >>> mean, deviation = mean_and_deviation(np.array([[1e300, 0.1], [3e300, 0.1], [2e300, 0.1]]))
    >>> bool(abs(mean[0] - 2e300) < 1e287), deviation[1].item()
    (True, 0.0)
    """
    # Over the largest value squares stay finite.
    largest = np.abs(x).max(axis=axis, keepdims=True)
    largest = np.where(largest == 0, 1.0, largest)
    unit = x / largest
    mean = _average(unit, weight, axis)
    deviation = np.sqrt(_average((unit - mean) ** 2, weight, axis))
    deviation = np.where(deviation < rounding, 0.0, deviation)
    return np.squeeze(mean * largest, axis), np.squeeze(deviation * largest, axis)


def _average(x: NDArray[np.float64], weight: NDArray | None, axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    if weight is None:
        return x.mean(axis=axis, keepdims=True)
    weight = np.broadcast_to(weight, x.shape)
    total = weight.sum(axis=axis, keepdims=True)
    return (weight * x).sum(axis=axis, keepdims=True) / np.maximum(total, np.finfo(np.float64).tiny)


def weighted_quantiles(x: NDArray, levels: ArrayLike, weight: NDArray | None = None) -> NDArray:
    """The smallest value of each column that, with all below it, has so much of the weight: the inverted distribution.

    A weight of 3 equals the row three times, even if all weights are divided by a constant: cumulative weights are
    compared with a tolerance.

    Parameters
    ----------
    x : ndarray of shape (n,) or (n, n_columns)
        Without missing values.
    levels : float or array-like of shape (n_levels,)
        Shares of the weight.
    weight : ndarray of shape (n,), optional

    Returns
    -------
    ndarray of shape (n_levels,) or (n_levels, n_columns)
        Without the first axis for a lone level.
    """
    if weight is None:
        return np.asarray(np.quantile(x, np.asarray(levels), axis=0, method="inverted_cdf"))
    order = np.argsort(x, axis=0, kind="stable")
    columns = np.take_along_axis(x, order, axis=0).reshape(len(x), -1)
    summed = np.cumsum(weight[order].reshape(len(x), -1), axis=0)
    tiny = np.finfo(np.float64).tiny
    found = [
        column[np.searchsorted(sums, np.maximum((np.asarray(levels) - WEIGHT_ROUNDING) * sums[-1], tiny))]
        for column, sums in zip(columns.T, summed.T, strict=True)
    ]
    return np.stack(found, axis=-1).reshape(np.shape(levels) + x.shape[1:])
