"""The distribution of prediction errors, to draw from.

Axes: D columns, N cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

#: Cells that a bin of predictions has on average at least; quantiles of another distribution fill up a bin of fewer.
BIN_CELLS = 200
#: Most bins of predictions.
MAX_PREDICTION_BINS = 20
#: The spread of few cells is joined by that of so many of the Gaussian.
SPREAD_CELLS = 10
#: Probabilities at which the residuals' quantiles are kept.
LEVELS = np.linspace(0, 1, 65)


@dataclass(frozen=True, eq=False)
class ResidualQuantiles:
    """Quantiles of one column's residuals, which may depend on the prediction.

    Parameters
    ----------
    edges : ndarray of shape (n_bins - 1,)
        Between the bins of predictions.
    quantiles : ndarray of shape (n_bins, n_levels)
        Of the residuals over their Gaussian standard deviation.
    """

    edges: NDArray[np.float64]
    quantiles: NDArray[np.float64]

    @classmethod
    def of(cls, prediction: NDArray[np.float64], residual: NDArray[np.float64]) -> ResidualQuantiles:
        """Learn from cells that were held out."""
        n_bins = int(np.clip(len(residual) // BIN_CELLS, 1, MAX_PREDICTION_BINS))
        # Few cells show less of a distribution's tails than there is.
        spread = np.sqrt((np.square(residual).sum() + SPREAD_CELLS) / (len(residual) + SPREAD_CELLS))
        column = _filled_up(residual, lambda levels: spread * ndtri(levels))
        edges = np.unique(np.quantile(prediction, np.arange(1, n_bins) / n_bins)) if n_bins > 1 else np.empty(0)
        bins = np.searchsorted(edges, prediction)
        parts = [residual[bins == b] for b in range(len(edges) + 1)] if len(edges) else [column]
        parts = [_filled_up(part, lambda levels: _quantiles(column, levels)) for part in parts]
        return cls(edges, np.array([_quantiles(part, LEVELS) for part in parts]))

    def residual(self, prediction: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Residuals for standard normal draws, over their Gaussian standard deviation."""
        rows = self.quantiles[np.searchsorted(self.edges, prediction)]
        at = ndtr(normal) * (len(LEVELS) - 1)
        below = np.minimum(at.astype(np.intp), len(LEVELS) - 2)
        cells = np.arange(len(at))
        low, high = rows[cells, below], rows[cells, below + 1]
        return low + (at - below) * (high - low)

    def deviation(self, prediction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of the residuals, over the Gaussian one."""
        middles = (self.quantiles[:, 1:] + self.quantiles[:, :-1]) / 2
        return middles.std(axis=1)[np.searchsorted(self.edges, prediction)]


def _filled_up(
    sample: NDArray[np.float64], quantiles: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """A sample with quantiles of another distribution, so that it has enough cells."""
    n_lacking = max(BIN_CELLS - len(sample), 0)
    return np.concatenate([sample, quantiles((np.arange(n_lacking) + 0.5) / max(n_lacking, 1))])


def _quantiles(sample: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    # Weibull's rule: a further value lies below the estimate with just this probability.
    return np.quantile(sample, levels, method="weibull")
