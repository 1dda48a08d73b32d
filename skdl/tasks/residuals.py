"""How far values are from what was predicted, as a distribution to draw from.

Axes: D columns, N cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

#: Cells that a bin of predictions has at least, and the most bins.
BIN_CELLS, MOST_BINS = 100, 20
#: Fewer cells than this say nothing of a distribution.
FEWEST_CELLS = 30
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
    def of(cls, prediction: NDArray[np.float64], residual: NDArray[np.float64]) -> ResidualQuantiles | None:
        """Learn from cells that were held out; None where there are too few."""
        if len(residual) < FEWEST_CELLS:
            return None
        n_bins = int(np.clip(len(residual) // BIN_CELLS, 1, MOST_BINS))
        edges = np.unique(np.quantile(prediction, np.arange(1, n_bins) / n_bins))
        bins = np.searchsorted(edges, prediction)
        edges_kept, parts = [], []
        for b in range(len(edges) + 1):
            part = residual[bins == b]
            if len(part) >= FEWEST_CELLS:
                parts.append(np.quantile(part, LEVELS))
                edges_kept.append(edges[b] if b < len(edges) else np.inf)
        if not parts:
            return cls(np.empty(0), np.quantile(residual, LEVELS)[None])
        return cls(np.array(edges_kept[:-1]), np.array(parts))

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
