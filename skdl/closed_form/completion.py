"""Rows with missing cells as a network sees them: what Gaussians make of them.

Axes: N rows, B rows at a time, D encoded columns, M of them of numbers, E edges of bins, F features, Q of them
completions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skdl.closed_form.gaussian import PRIOR_ROWS, RowDistribution, fit_gaussian
from skdl.closed_form.row_sample import sampled_rows

#: Bins of all columns of numbers together; each has an equal part of them, from MIN_CELL_BINS to MAX_CELL_BINS.
TOTAL_BINS = 320
#: Most bins of a column of numbers.
MAX_CELL_BINS = 16
#: Fewest bins of a column of numbers.
MIN_CELL_BINS = 4
#: Rows from which the edges of bins are found.
EDGE_ROWS = 10_000
#: Ranks are kept this far from 0 and 1, so that their normal scores are finite.
RANK_MARGIN = 0.01


def bin_edges(x_ND: Tensor, present_ND: Tensor) -> Tensor:
    """Edges ``(D, E)`` of bins with equally many of a column's values each."""
    n_bins = max(min(MAX_CELL_BINS, TOTAL_BINS // x_ND.shape[1]), MIN_CELL_BINS)
    at = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
    columns = (x_ND[present_ND[:, d], d].double() for d in range(x_ND.shape[1]))
    edges_DE = torch.stack([torch.quantile(x if len(x) else x.new_zeros(1), at) for x in columns])
    # Bins must have a width that a value can be divided by.
    return (edges_DE + 1e-3 * torch.arange(n_bins + 1)).to(x_ND.dtype)


@dataclass(frozen=True, eq=False)
class CellFeatures:
    """What a network sees of a row.

    In front stands the row as a Gaussian completes it, then which cells it lacks. Where there are numbers, the row
    follows with their normal scores in their place, which heavy tails do not disturb, as a Gaussian of such rows
    completes it, and the bins of the numbers that it has. Of a level, its indicator says all.

    Parameters
    ----------
    gaussian, score_gaussian : RowDistribution
        Of the encoded columns, and of those with normal scores in place of numbers.
    edges_ME : Tensor of shape (M, E)
        Edges of the bins of each column of numbers, rising.
    numbers_M : Tensor
        Which encoded columns hold numbers.
    """

    gaussian: RowDistribution
    score_gaussian: RowDistribution
    edges_ME: Tensor
    numbers_M: Tensor
    n_columns: int

    @classmethod
    def of(
        cls,
        gaussian: RowDistribution,
        x_ND: Tensor,
        present_ND: Tensor,
        numbers_M: Tensor,
        generator: torch.Generator,
        prior_rows: float = PRIOR_ROWS,
    ) -> CellFeatures:
        """Learn the rest from the standardised rows of a Gaussian; ``prior_rows`` are those of the other one."""
        rows, _ = sampled_rows(present_ND, EDGE_ROWS, generator)
        x_ND, present_ND = x_ND[rows], present_ND[rows]
        if not len(numbers_M):
            return cls(gaussian, gaussian, x_ND.new_empty(0, 2), numbers_M, x_ND.shape[1])
        edges_ME = bin_edges(x_ND[:, numbers_M], present_ND[:, numbers_M])
        scored = _scored(x_ND, numbers_M, _bins(x_ND[:, numbers_M], edges_ME))
        score_gaussian = fit_gaussian(scored, present_ND, generator, prior_rows)
        return cls(gaussian, score_gaussian, edges_ME, numbers_M, x_ND.shape[1])

    def to(self, dtype: torch.dtype) -> CellFeatures:
        """The same, of rows of another precision."""
        return replace(self, edges_ME=self.edges_ME.to(dtype))

    @property
    def n_completed(self) -> int:
        """How many of the numbers that stand for a row come of Gaussians."""
        return 2 * self.n_columns if len(self.numbers_M) else self.n_columns

    @property
    def n_features(self) -> int:
        """How many numbers stand for a row."""
        n_numbers, n_edges = self.edges_ME.shape
        return 2 * self.n_columns + (self.n_columns + n_numbers * (n_edges - 1) if n_numbers else 0)

    def __call__(self, x_BD: Tensor, present_BD: Tensor) -> Tensor:
        """Features ``(B, F)`` of standardised rows."""
        bins_BME = self.bins(x_BD)
        return self.joined(self.completed(x_BD, present_BD, bins_BME), present_BD, bins_BME)

    def bins(self, x_BD: Tensor) -> Tensor:
        """How far through each bin a row's numbers are, from 0 to 1, ``(B, M, E - 1)``."""
        return _bins(x_BD[:, self.numbers_M], self.edges_ME)

    def completed(self, x_BD: Tensor, present_BD: Tensor, bins_BME: Tensor) -> Tensor:
        """What Gaussians make of rows, ``(B, Q)``; it takes longer than all else."""
        dtype = self.edges_ME.dtype
        completed_BD = self.gaussian.complete(x_BD, present_BD).to(dtype)
        if not len(self.numbers_M):
            return completed_BD
        scored = _scored(x_BD.to(dtype), self.numbers_M, bins_BME)
        return torch.cat([completed_BD, self.score_gaussian.complete(scored, present_BD).to(dtype)], 1)

    def joined(self, completed_BQ: Tensor, present_BD: Tensor, bins_BME: Tensor) -> Tensor:
        """The features of rows, by their parts."""
        completed_BD, scored_BR = completed_BQ.tensor_split([self.n_columns], 1)
        present_BD = present_BD.to(completed_BQ.dtype)
        shown = (bins_BME - 0.5).mul_(present_BD.index_select(1, self.numbers_M).unsqueeze(-1))
        return torch.cat([completed_BD, 1 - present_BD, scored_BR, shown.flatten(1)], 1)


def _scored(x_BD: Tensor, numbers_M: Tensor, bins_BME: Tensor) -> Tensor:
    """Rows with normal scores in place of numbers."""
    ranks = RANK_MARGIN + (1 - 2 * RANK_MARGIN) * bins_BME.mean(-1)
    return x_BD.index_copy(1, numbers_M, torch.special.ndtri(ranks).to(x_BD.dtype))


def _bins(x_BD: Tensor, edges_DE: Tensor) -> Tensor:
    """How far through each bin a value is, from 0 to 1, ``(B, D, E - 1)``."""
    low, high = edges_DE[:, :-1], edges_DE[:, 1:]
    return ((x_BD.to(edges_DE.dtype).unsqueeze(-1) - low) / (high - low)).clamp_(0, 1)
