"""Whether the level of a series is informative about its target, beside its shape.

Axes: n series, T steps, S steps before the last one, p columns of a regression, O targets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skdl.data.sampling import sample_rows
from skdl.data.types import Floats, Weights

#: Most rows of the regressions that tell whether the level counts.
MAX_REGRESSION_ROWS = 10_000
#: Most last steps of a series that are looked at: the last one is the level, and the regressions see those before it.
MAX_REGRESSION_STEPS = 256
#: Fewest rows for each step that is looked at.
ROWS_PER_STEP = 8
#: Smallest share of the levels' variance that the shape leaves open where the level may count. Where it leaves less, a
#: model is free to read the shape off the level, and fails at other levels.
MIN_OPEN_SHARE = 0.1
#: A level counts if with it the squared error falls below this multiple of what it is without.
MAX_ERROR_RATIO = 0.98
#: Penalty of the regressions, over the weight of all rows: no more than keeps them from being singular.
PENALTY = 1e-6


def level_is_informative(
    values_nT: Floats, lengths_n: NDArray[np.intp], level_n: Floats, y_nO: Floats, weight: Weights = None
) -> bool:
    """Whether linear regressions on the shape predict other rows better with the level beside it.

    Parameters
    ----------
    values_nT : ndarray of shape (n, T)
        Series of one channel, in the order of time; NaN is a missing value.
    lengths_n : ndarray of shape (n,)
        Steps of each.
    level_n : ndarray of shape (n,)
        The last value of each, NaN where there is none.
    y_nO : ndarray of shape (n, O)
        How they go on.
    weight : ndarray of shape (n,), optional
    """
    rows = np.flatnonzero(~np.isnan(level_n))
    rows = rows[sample_rows(len(rows), MAX_REGRESSION_ROWS)]
    level_n1, weight_n = level_n[rows, None], np.ones(len(rows)) if weight is None else weight[rows]
    center = np.average(level_n1[:, 0], weights=weight_n)
    spread = np.sqrt(np.average((level_n1[:, 0] - center) ** 2, weights=weight_n))
    if spread == 0:
        return False
    ahead_nO = (y_nO[rows] - level_n1) / spread
    shape_nS = (_steps_before(values_nT[rows], lengths_n[rows]) - level_n1) / spread
    shape_nS[np.isnan(shape_nS)] = 0
    level_n1 = (level_n1 - center) / spread
    if _held_out_error(shape_nS, level_n1, weight_n) < MIN_OPEN_SHARE:
        return False
    with_level = _held_out_error(np.hstack([shape_nS, level_n1]), ahead_nO, weight_n)
    return bool(with_level < MAX_ERROR_RATIO * _held_out_error(shape_nS, ahead_nO, weight_n))


def _steps_before(values_nT: Floats, lengths_n: NDArray[np.intp]) -> Floats:
    """The steps before the last one, from the latest on; NaN where a series is shorter."""
    n_rows, n_steps = values_nT.shape
    place_nS = lengths_n[:, None] - 1 - np.arange(1, min(n_steps, MAX_REGRESSION_STEPS, n_rows // ROWS_PER_STEP))
    return np.where(place_nS < 0, np.nan, np.take_along_axis(values_nT, place_nS.clip(min=0), axis=1))


def _held_out_error(x_np: Floats, y_nO: Floats, weight_n: Floats) -> float:
    """Mean squared error of regressions that are fitted to one half of the rows and judged by the other."""
    x_np = np.column_stack([x_np, np.ones(len(x_np))])
    before = np.cumsum(weight_n)
    is_first = before <= before[-1] / 2
    error_n = np.empty(len(x_np))
    for fitted in (is_first, ~is_first):
        weighted_pn = x_np[fitted].T * weight_n[fitted]
        penalty_pp = PENALTY * weight_n.sum() * np.eye(x_np.shape[1])
        coef_pO = np.linalg.lstsq(weighted_pn @ x_np[fitted] + penalty_pp, weighted_pn @ y_nO[fitted], rcond=None)[0]
        error_n[~fitted] = ((x_np[~fitted] @ coef_pO - y_nO[~fitted]) ** 2).sum(axis=1)
    return float(np.average(error_n, weights=weight_n))
