"""A Gaussian of a table's columns, learned from rows with missing cells, and what it says of the missing ones.

The missing cells of a row, given those that are present, are Gaussian again. Its precision matrix is a piece of the
precision matrix of all columns, so that a row costs the cube of its missing cells, however many columns there are.

Axes: N rows, B rows computed at a time, D columns, P patterns of missing cells, M missing cells of a pattern.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skdl.closed_form.acceleration import limit
from skdl.closed_form.factors import fit_factors
from skdl.closed_form.patterns import Block, blocks_of
from skdl.data.sampling import sample_rows

#: Tables of more columns have a Gaussian of few factors.
MOST_COLUMNS = 64
#: The prior is worth so many rows of independent columns, and what it may be worth where that is looked for: columns
#: that say nearly the same want a weak one, many columns with heavy tails a strong one.
PRIOR_ROWS, PRIORS = 2.0, (0.06, 0.5, 4.0, 32.0, 256.0)
#: Most rows and cells that the prior is looked for with, but not fewer rows than the next number.
MOST_PRIOR_ROWS, MOST_PRIOR_CELLS, FEWEST_PRIOR_ROWS = 4000, 200_000, 200
#: Share of those rows that is held out, rows that they are to become by coming several times, and share of their cells
#: that is hidden.
PRIOR_HELD_OUT, PRIOR_JUDGED_ROWS, PRIOR_HIDDEN = 0.2, 800, 0.25
#: EM ends after about so many iterations, or when no mean or covariance of standardised columns is expected to move by
#: more than this from there on.
MAX_ITERATIONS, TOLERANCE = 300, 3e-3
#: Numbers of the covariances of missing cells that one iteration may compute, if no two rows lack the same.
ITERATION_NUMBERS = 20_000_000
#: Rows whose missing cells are counted for that.
MOST_COUNTED = 100_000
#: Most and fewest rows that the Gaussian is learned from.
MOST_ROWS, FEWEST_ROWS = 6000, 1000
#: Rows that a distribution is at least as certain as, so that the variance of a drawn variance is finite.
FEWEST_KNOWN_ROWS = 3


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

    def complete(self, x_ND: Tensor, present_ND: Tensor) -> Tensor:
        """Rows with the conditional mean in their missing cells."""
        completed = torch.where(present_ND, x_ND.to(torch.float64), self.mean)
        # The same mean comes of the missing cells' precision and of the present cells' covariance: the smaller, the
        # faster.
        by_missing = 2 * present_ND.sum(1) >= present_ND.shape[1]
        for is_so, shift in (by_missing, self._shift_by_missing), (~by_missing, self._shift_by_present):
            rows = is_so.nonzero()[:, 0]
            completed[rows] += shift(x_ND[rows], present_ND[rows])
        return completed

    def deviation(self, present_ND: Tensor) -> Tensor:
        """Conditional standard deviation of missing cells, 0 of the others."""
        deviation = torch.zeros(present_ND.shape, dtype=torch.float64)
        for block in blocks_of(~present_ND):
            variance_PM = block.inverse(self.precision).diagonal(dim1=1, dim2=2)
            block.add(deviation, block.of_rows(variance_PM.sqrt()))
        return deviation

    def draw(self, present_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of missing cells around their conditional mean, 0 of the others."""
        drawn = torch.zeros(present_ND.shape, dtype=torch.float64)
        for block in blocks_of(~present_ND):
            factor_BMM = block.of_rows(block.factor(self.precision))
            normal = torch.randn((*factor_BMM.shape[:2], 1), generator=generator, dtype=torch.float64)
            of_cells = torch.linalg.solve_triangular(factor_BMM.mT, normal, upper=True).squeeze(2)
            block.add(drawn, of_cells * block.of_rows(block.is_cell_PM))
        return drawn

    def redrawn(self, n_rows: float, random_state: np.random.RandomState) -> Gaussian:
        """A draw of the distribution itself, which so many complete rows leave uncertain; on average it is this one."""
        from scipy.stats import invwishart

        n_columns = len(self.mean)
        n_rows = max(n_rows, FEWEST_KNOWN_ROWS)
        drawn = invwishart.rvs(n_rows + n_columns + 1, n_rows * self.covariance.numpy(), random_state=random_state)
        covariance = torch.as_tensor(drawn, dtype=torch.float64).view(n_columns, n_columns)
        normal = torch.from_numpy(random_state.normal(size=n_columns))
        return Gaussian.of(self.mean + torch.linalg.cholesky(covariance / n_rows) @ normal, covariance)

    def pull(self, x_BD: Tensor, present_BD: Tensor) -> Tensor:
        """What the cells that are present, by their precisions, pull each column by."""
        return -(self._centred(x_BD, present_BD) @ self.precision)

    def _centred(self, x_BD: Tensor, present_BD: Tensor) -> Tensor:
        return (x_BD.to(torch.float64) - self.mean).masked_fill(~present_BD, 0)

    def _shift_by_missing(self, x_BD: Tensor, present_BD: Tensor) -> Tensor:
        """Conditional mean minus mean of missing cells, 0 of the others, by the missing cells' precision."""
        pull_BD = self.pull(x_BD, present_BD)
        shift_BD = torch.zeros_like(pull_BD)
        for block in blocks_of(~present_BD):
            block.add(shift_BD, block.solution(self.precision, block.cells(pull_BD[block.rows_B])))
        return shift_BD

    def _shift_by_present(self, x_BD: Tensor, present_BD: Tensor) -> Tensor:
        """Conditional mean minus mean of missing cells, 0 of the others, by the present cells' covariance."""
        centred_BD = self._centred(x_BD, present_BD)
        weight_BD = torch.zeros_like(centred_BD)
        for block in blocks_of(present_BD):
            block.add(weight_BD, block.solution(self.covariance, block.cells(centred_BD[block.rows_B])))
        return (weight_BD @ self.covariance).masked_fill_(present_BD, 0)


class RowDistribution(Protocol):
    """A distribution of rows that says what their missing cells are like."""

    def complete(self, x_ND: Tensor, present_ND: Tensor) -> Tensor:
        """Rows with the conditional mean in their missing cells."""

    def deviation(self, present_ND: Tensor) -> Tensor:
        """Conditional standard deviation of missing cells, 0 of the others."""

    def draw(self, present_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of missing cells around their conditional mean, 0 of the others."""

    def redrawn(self, n_rows: float, random_state: np.random.RandomState) -> RowDistribution:
        """A draw of the distribution itself, which so many complete rows leave uncertain."""


def best_prior(x_ND: Tensor, present_ND: Tensor, column_of_D: Tensor, generator: torch.Generator) -> float:
    """How many rows the prior should be worth, by hidden cells of rows that a Gaussian was not fitted to.

    ``column_of_D`` is the column of the table that each encoded column belongs to: those of one are hidden together.
    """
    most_rows = max(min(MOST_PRIOR_ROWS, MOST_PRIOR_CELLS // x_ND.shape[1]), FEWEST_PRIOR_ROWS)
    order = torch.randperm(len(x_ND), generator=generator)[:most_rows]
    n_held_out = math.ceil(PRIOR_HELD_OUT * len(order))
    held_out, fitted = order[:n_held_out], order[n_held_out:]
    rows = held_out.repeat(max(PRIOR_JUDGED_ROWS // n_held_out, 1))
    draws = torch.rand(len(rows), int(column_of_D.max()) + 1, generator=generator)
    hidden_ND = (draws < PRIOR_HIDDEN)[:, column_of_D] & present_ND[rows]
    if not hidden_ND.any():
        return PRIOR_ROWS
    seed = int(torch.randint(2**62, (), generator=generator))

    @cache
    def error(prior_rows: float) -> float:
        # Each of the same rows, if not of all.
        same = torch.Generator().manual_seed(seed)
        gaussian = fit_gaussian(x_ND[fitted], present_ND[fitted], same, prior_rows)
        completed_ND = gaussian.complete(x_ND[rows], present_ND[rows] & ~hidden_ND)
        # The distance of each row and not its square, or a few rows that no prior foretells would decide.
        return float(((completed_ND - x_ND[rows]) * hidden_ND).square().sum(1).sqrt().sum())

    # The error mostly falls up to the best prior and rises from there: a walk along them sees three or four.
    at = len(PRIORS) // 2
    for step in (1, -1):
        while 0 <= at + step < len(PRIORS) and error(PRIORS[at + step]) < error(PRIORS[at]):
            at += step
    return PRIORS[at]


def fit_gaussian(
    x_ND: Tensor, present_ND: Tensor, generator: torch.Generator, prior_rows: float = PRIOR_ROWS
) -> RowDistribution:
    """Most probable mean and covariance of standardised rows, by expectation maximisation (Dempster et al. 1977).

    The prior, which is worth ``prior_rows`` rows, draws towards independent columns, so that few rows of many columns
    have an answer too.
    """
    n_columns = x_ND.shape[1]
    # Of some rows: a sum over all of a long table would take several times its memory.
    n_missing = (~present_ND[torch.from_numpy(sample_rows(len(present_ND), MOST_COUNTED))]).sum(1).double()
    affordable = int(ITERATION_NUMBERS / max(float((n_missing**2).mean()), 1.0))
    n_rows = min(max(affordable, FEWEST_ROWS, 2 * n_columns), MOST_ROWS)
    if len(x_ND) > n_rows:
        chosen = torch.randperm(len(x_ND), generator=generator)[:n_rows]
        x_ND, present_ND = x_ND[chosen], present_ND[chosen]
    if n_columns > MOST_COLUMNS:
        return fit_factors(x_ND, present_ND, prior_rows)
    x_ND = x_ND.to(torch.float64)
    n_present = present_ND.sum(0).clamp(min=1)
    center = torch.where(present_ND, x_ND, 0.0).sum(0) / n_present
    filled = torch.where(present_ND, x_ND - center, 0.0)
    scale = (filled.square().sum(0) / n_present).clamp(min=1e-12).sqrt()
    rows = RowsWithHoles(filled / scale, present_ND, prior_rows, list(blocks_of(~present_ND)))
    mean, covariance = rows.parts(limit(rows.improved, rows.start(), TOLERANCE, MAX_ITERATIONS))
    return Gaussian.of(center + scale * mean, torch.outer(scale, scale) * covariance)


@dataclass(frozen=True, eq=False)
class RowsWithHoles:
    """Rows of columns whose present cells have mean 0 and variance 1, and zeros for the others, as EM sees them.

    A distribution is the vector of its mean and its covariance here.

    Parameters
    ----------
    x_ND : Tensor of shape (N, D)
    present_ND : Tensor of bool
    prior_rows : float
        Rows of independent columns that count beside those that are there.
    blocks : sequence of Block
        Those of the missing cells.
    """

    x_ND: Tensor
    present_ND: Tensor
    prior_rows: float
    blocks: Sequence[Block]

    def parts(self, theta_P: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance."""
        n_columns = self.x_ND.shape[1]
        return theta_P[:n_columns], theta_P[n_columns:].view(n_columns, n_columns)

    def start(self) -> Tensor:
        """Variances of the cells that are present, and covariances of rows filled with means: too weak, but a start."""
        scatter_DD = self.x_ND.t() @ self.x_ND
        scatter_DD.diagonal().fill_(len(self.x_ND))
        return self._posterior(torch.zeros_like(self.x_ND[0]), scatter_DD)

    def _posterior(self, mean_D: Tensor, scatter_DD: Tensor) -> Tensor:
        """The most probable distribution, by sums of products of the rows' distances from the mean."""
        covariance = scatter_DD + self.prior_rows * torch.eye(len(mean_D), dtype=mean_D.dtype)
        covariance = (covariance + covariance.t()) / (2 * (len(self.x_ND) + self.prior_rows))
        return torch.cat([mean_D, covariance.flatten()])

    def improved(self, theta_P: Tensor) -> tuple[Tensor, float]:
        """The distribution after one iteration of EM, and the log density before it, but for a constant."""
        gaussian = Gaussian.of(*self.parts(theta_P))
        n_rows, n_columns = self.x_ND.shape
        completed = torch.where(self.present_ND, self.x_ND, gaussian.mean)
        pull_ND = gaussian.pull(self.x_ND, self.present_ND)
        # Twice the log density with the sign turned: the prior's part, then that of complete rows with means in their
        # holes, from which each pattern takes what its holes do not say.
        surprise = self.prior_rows * float(gaussian.precision.trace()) - float(
            (pull_ND * (completed - gaussian.mean)).sum()
        )
        surprise += (n_rows + self.prior_rows) * float(gaussian.covariance.logdet())
        spread = torch.zeros(n_columns * n_columns, dtype=torch.float64)
        for block in self.blocks:
            factor_PMM = block.factor(gaussian.precision)
            covariance_PMM = block.inverse_by(factor_PMM)
            pull_BM = block.cells(pull_ND[block.rows_B])
            shift_BM = block.product(covariance_PMM, pull_BM)
            block.add(completed, shift_BM)
            log_PM = 2 * factor_PMM.diagonal(dim1=1, dim2=2).log()
            surprise += float(block.of_rows(log_PM).sum() - (pull_BM * shift_BM).sum())
            if block.pattern_B is not None:
                covariance_PMM *= block.pattern_B.bincount().view(-1, 1, 1)
            spread.index_add_(0, block.places(n_columns).flatten(), covariance_PMM.flatten())
        mean = completed.mean(0)
        centred = completed - mean
        return self._posterior(mean, centred.t() @ centred + spread.view(n_columns, n_columns)), -surprise / 2
