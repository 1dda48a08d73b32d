"""A Gaussian of a table's columns, learned from rows with missing cells, and what it says of the missing ones.

The missing cells of a row, given those that are present, are Gaussian again. Its precision matrix is a piece of the
precision matrix of all columns, so that a row costs the cube of its missing cells, however many columns there are.

Axes: N rows, B rows computed at a time, D columns, M missing cells of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from skdl.data.factors import fit_factors

#: Tables of more columns have a Gaussian of few factors.
MOST_COLUMNS = 64
#: The prior is worth so many rows of independent columns.
PRIOR_ROWS = 5.0
#: EM ends after so many iterations, or when no covariance of standardised columns moves by more than this.
MAX_ITERATIONS, TOLERANCE = 50, 1e-3
#: Numbers of the covariances of missing cells that are computed at a time, and that one iteration may compute.
BLOCK_NUMBERS, ITERATION_NUMBERS = 500_000, 20_000_000
#: Most and fewest rows that the Gaussian is learned from.
MOST_ROWS, FEWEST_ROWS = 6000, 1000
#: Rows of about equally many cells are computed together: in about so many blocks, of at least so many rows.
N_BLOCKS, FEWEST_BLOCK_ROWS = 4, 32


@dataclass(frozen=True, eq=False)
class MissingCells:
    """The missing cells of some rows, given those that are present.

    ``columns_BM`` are the places of the missing cells; a row with fewer is filled up with cells that are present,
    for which ``is_missing_BM`` is False and the shift is zero. ``factor_BMM`` is the Cholesky factor of the
    conditional precision.
    """

    rows_B: Tensor
    columns_BM: Tensor
    is_missing_BM: Tensor
    #: Conditional mean minus mean.
    shift_BM: Tensor
    factor_BMM: Tensor

    def covariance(self) -> Tensor:
        """Conditional covariance ``(B, M, M)``, zero where a row is filled up."""
        pairs = self.is_missing_BM.unsqueeze(2) & self.is_missing_BM.unsqueeze(1)
        return torch.cholesky_inverse(self.factor_BMM) * pairs


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution of rows; all numbers are float64.

    Parameters
    ----------
    mean : Tensor of shape (D,)
    covariance : Tensor of shape (D, D)
    precision : Tensor of shape (D, D)
        Inverse of the covariance.
    """

    mean: Tensor
    covariance: Tensor
    precision: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """The distribution with this mean and this covariance."""
        return cls(mean, covariance, torch.cholesky_inverse(torch.linalg.cholesky(covariance)))

    def missing_cells(self, x_ND: Tensor, present_ND: Tensor) -> Iterator[MissingCells]:
        """The conditional distribution of every row's missing cells, rows with about equally many together."""
        for rows_B, width in _alike((~present_ND).sum(1)):
            present_BD = present_ND[rows_B]
            pull_BD = self._centred(x_ND[rows_B], present_BD) @ self.precision
            yield MissingCells(rows_B, *_solved(self.precision, ~present_BD, -pull_BD, width))

    def complete(self, x_ND: Tensor, present_ND: Tensor) -> Tensor:
        """Rows with the conditional mean in their missing cells."""
        completed = torch.where(present_ND, x_ND.to(torch.float64), self.mean)
        n_present = present_ND.sum(1)
        # The same mean comes of the missing cells' precision and of the present cells' covariance: the smaller, the
        # faster.
        by_missing = 2 * n_present >= present_ND.shape[1]
        rows = by_missing.nonzero()[:, 0]
        for cells in self.missing_cells(x_ND[rows], present_ND[rows]):
            completed[rows[cells.rows_B].unsqueeze(1), cells.columns_BM] += cells.shift_BM
        rows = (~by_missing).nonzero()[:, 0]
        for of_rows_B, width in _alike(n_present[rows]):
            rows_B = rows[of_rows_B]
            completed[rows_B] += self._shift(x_ND[rows_B], present_ND[rows_B], width)
        return completed

    def deviation(self, present_ND: Tensor) -> Tensor:
        """Conditional standard deviation of missing cells, 0 of the others."""
        deviation = torch.zeros(present_ND.shape, dtype=torch.float64)
        for cells in self.missing_cells(deviation, present_ND):
            at = cells.rows_B.unsqueeze(1), cells.columns_BM
            deviation[at] = cells.covariance().diagonal(dim1=1, dim2=2).sqrt()
        return deviation

    def draw(self, present_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of missing cells around their conditional mean, 0 of the others."""
        drawn = torch.zeros(present_ND.shape, dtype=torch.float64)
        for cells in self.missing_cells(drawn, present_ND):
            normal = torch.randn((*cells.shift_BM.shape, 1), generator=generator, dtype=torch.float64)
            of_cells = torch.linalg.solve_triangular(cells.factor_BMM.mT, normal, upper=True).squeeze(2)
            drawn[cells.rows_B.unsqueeze(1), cells.columns_BM] = of_cells * cells.is_missing_BM
        return drawn

    def _centred(self, x_BD: Tensor, present_BD: Tensor) -> Tensor:
        return (x_BD.to(torch.float64) - self.mean).masked_fill(~present_BD, 0)

    def _shift(self, x_BD: Tensor, present_BD: Tensor, width: int) -> Tensor:
        """Conditional mean minus mean of missing cells, 0 of the others, by the cells that are present."""
        centred_BD = self._centred(x_BD, present_BD)
        columns, _, solution, _ = _solved(self.covariance, present_BD, centred_BD, width)
        weight_BD = torch.zeros_like(centred_BD).scatter_(1, columns, solution)
        return (weight_BD @ self.covariance).masked_fill_(present_BD, 0)


def _alike(counts_N: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Rows with about equally many cells, none without any, and the most cells of them."""
    counts, order = counts_N.sort(stable=True)
    of_rows = counts.tolist()
    start = next((i for i, count in enumerate(of_rows) if count), len(of_rows))
    step = max((len(of_rows) - start) // N_BLOCKS, FEWEST_BLOCK_ROWS)
    while start < len(of_rows):
        stop = min(start + step, len(of_rows))
        while stop > start + 1 and (stop - start) * of_rows[stop - 1] ** 2 > BLOCK_NUMBERS:
            stop = (start + stop) // 2
        yield order[start:stop], of_rows[stop - 1]
        start = stop


def _solved(matrix_DD: Tensor, cells_BD: Tensor, right_BD: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve a system for each row: that of the matrix's rows and columns at the row's cells.

    Returns
    -------
    columns_BM : Tensor
        Places of the cells, of M = ``width``; a row of fewer is filled up with others.
    is_cell_BM : Tensor of bool
    solution_BM : Tensor
        Zero where a row is filled up.
    factor_BMM : Tensor
        Cholesky factor of each row's matrix.
    """
    columns_BM = cells_BD.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    is_cell_BM = cells_BD.gather(1, columns_BM)
    places_BMM = columns_BM.unsqueeze(2) * matrix_DD.shape[0] + columns_BM.unsqueeze(1)
    # Cells that fill a row up are put apart from the others by the identity.
    is_filler = ~(is_cell_BM.unsqueeze(2) & is_cell_BM.unsqueeze(1))
    matrix_BMM = matrix_DD.take(places_BMM).masked_fill_(is_filler, 0)
    matrix_BMM.diagonal(dim1=1, dim2=2).masked_fill_(~is_cell_BM, 1)
    factor_BMM = torch.linalg.cholesky(matrix_BMM)
    right_BM = right_BD.gather(1, columns_BM) * is_cell_BM
    return columns_BM, is_cell_BM, torch.cholesky_solve(right_BM.unsqueeze(2), factor_BMM).squeeze(2), factor_BMM


class RowDistribution(Protocol):
    """A distribution of rows that says what their missing cells are like."""

    def complete(self, x_ND: Tensor, present_ND: Tensor) -> Tensor:
        """Rows with the conditional mean in their missing cells."""

    def deviation(self, present_ND: Tensor) -> Tensor:
        """Conditional standard deviation of missing cells, 0 of the others."""

    def draw(self, present_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of missing cells around their conditional mean, 0 of the others."""


def fit_gaussian(x_ND: Tensor, present_ND: Tensor, generator: torch.Generator) -> RowDistribution:
    """Most probable mean and covariance of standardised rows, by expectation maximisation (Dempster et al. 1977).

    The prior draws towards independent columns, so that few rows of many columns have an answer too.
    """
    n_columns = x_ND.shape[1]
    # A tenth of the rows misses so much that it costs several times the average.
    n_missing = (~present_ND).sum(1).double()
    affordable = int(ITERATION_NUMBERS / max(float((n_missing**2).mean()), 1.0))
    n_rows = min(max(affordable, FEWEST_ROWS, 2 * n_columns), MOST_ROWS)
    if len(x_ND) > n_rows:
        rows = torch.randperm(len(x_ND), generator=generator)[:n_rows]
        x_ND, present_ND = x_ND[rows], present_ND[rows]
    if n_columns > MOST_COLUMNS:
        return fit_factors(x_ND, present_ND, PRIOR_ROWS)
    x_ND = x_ND.to(torch.float64)
    n_present = present_ND.sum(0).clamp(min=1)
    mean = torch.where(present_ND, x_ND, 0.0).sum(0) / n_present
    filled = torch.where(present_ND, x_ND - mean, 0.0)
    variance = (filled.square().sum(0) / n_present).clamp(min=1e-12)
    # The correlations of rows filled with means are too weak, but they are a start.
    gaussian = Gaussian.of(mean, _posterior(filled.t() @ filled, len(filled), variance))
    scale = variance.sqrt()
    for _ in range(MAX_ITERATIONS):
        before = gaussian.covariance
        gaussian = _improved(gaussian, x_ND, present_ND, variance)
        moved = (gaussian.covariance - before) / torch.outer(scale, scale)
        if moved.abs().max() < TOLERANCE:
            break
    return gaussian


def _improved(gaussian: Gaussian, x_ND: Tensor, present_ND: Tensor, variance_D: Tensor) -> Gaussian:
    """The distribution after one iteration of EM."""
    n_columns = x_ND.shape[1]
    completed = torch.where(present_ND, x_ND, gaussian.mean)
    spread = torch.zeros(n_columns * n_columns, dtype=torch.float64)
    for cells in gaussian.missing_cells(x_ND, present_ND):
        completed[cells.rows_B.unsqueeze(1), cells.columns_BM] += cells.shift_BM
        places = cells.columns_BM.unsqueeze(2) * n_columns + cells.columns_BM.unsqueeze(1)
        spread.index_add_(0, places.flatten(), cells.covariance().flatten())
    mean = completed.mean(0)
    centred = completed - mean
    scatter = centred.t() @ centred + spread.view(n_columns, n_columns)
    return Gaussian.of(mean, _posterior(scatter, len(x_ND), variance_D))


def _posterior(scatter_DD: Tensor, n_rows: int, variance_D: Tensor) -> Tensor:
    """Covariance from sums of products of n rows and the rows of the prior."""
    covariance = scatter_DD + PRIOR_ROWS * torch.diag(variance_D)
    return (covariance + covariance.t()) / (2 * (n_rows + PRIOR_ROWS))
