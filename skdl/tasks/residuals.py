"""How far values are from what was predicted, as a distribution to draw from.

Axes: D columns, N cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

#: Cells that a bin of predictions has at least, and the most bins.
BIN_CELLS, MOST_BINS = 100, 20
#: Cells of a bin are joined by so many of the whole column, and those of the column by so many of the Gaussian: few
#: cells show less of a distribution's tails than there is.
PRIOR_CELLS = 40
#: Probabilities of the prior's cells.
PRIOR_LEVELS = (np.arange(PRIOR_CELLS) + 0.5) / PRIOR_CELLS
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
        n_bins = int(np.clip(len(residual) // BIN_CELLS, 1, MOST_BINS))
        column = np.concatenate([residual, ndtri(PRIOR_LEVELS)])
        prior = _quantiles(column, PRIOR_LEVELS)
        edges = np.unique(np.quantile(prediction, np.arange(1, n_bins) / n_bins)) if n_bins > 1 else np.empty(0)
        if not len(edges):
            return cls(edges, _quantiles(column, LEVELS)[None])
        bins = np.searchsorted(edges, prediction)
        parts = [np.concatenate([residual[bins == b], prior]) for b in range(len(edges) + 1)]
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


def _quantiles(sample: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    # Weibull's rule: a further value lies below the estimate with just this probability.
    return np.quantile(sample, levels, method="weibull")
