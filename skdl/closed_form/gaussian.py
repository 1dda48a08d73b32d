"""A Gaussian of a table's columns, learned from rows with missing cells, and what it says of the missing ones.

The missing cells of a row, given those that are present, are Gaussian again. Its precision matrix is a piece of the
precision matrix of all columns, so that a row costs the cube of its missing cells, however many columns there are.

Axes: N rows, B rows computed at a time, D columns, K of them, P patterns of missing cells, M missing cells of a
pattern.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skdl.closed_form.factors import fit_factors
from skdl.closed_form.patterns import Block, blocks_of
from skdl.closed_form.row_sample import BLOCK_ROWS, sampled_rows
from skdl.closed_form.squarem import squarem
from skdl.data.sampling import sample_rows

#: Most columns of a Gaussian with a full covariance; of more, it has few factors.
MAX_COVARIANCE_COLUMNS = 64
#: Most rows of independent columns that the prior is worth, where nobody looks for a better one.
PRIOR_ROWS = 2.0
#: With more rows a column than this, the prior is worth as much less: else columns that are nearly determined by each
#: other would seem to have a noise of their own.
PRIOR_COLUMN_ROWS = 5
#: Rows that the prior may be worth where the best prior is looked for, in rising order: columns that say nearly the
#: same want a weak one, many columns with heavy tails a strong one.
PRIORS = (0.06, 0.5, 4.0, 32.0, 256.0)
#: Most rows that the best prior is looked for with.
MAX_PRIOR_SEARCH_ROWS = 4000
#: Most cells, rows times columns, that the best prior is looked for with.
MAX_PRIOR_SEARCH_CELLS = 200_000
#: Rows that the best prior may be looked for with however many columns they have.
MIN_PRIOR_SEARCH_ROWS = 200
#: Share of the rows that is held out in the search for the best prior.
PRIOR_HELD_OUT = 0.2
#: Rows that a prior is judged by, about: fewer held-out rows come several times, with other cells hidden each time.
PRIOR_JUDGED_ROWS = 800
#: Probability that a cell of a judged row is hidden.
PRIOR_HIDDEN = 0.25
#: About the most iterations of expectation maximisation.
MAX_ITERATIONS = 30
#: Expectation maximisation ends when the log density gains less than this in two iterations and their extrapolation.
MIN_GAIN = 0.1
#: Numbers of the covariances of missing cells that one iteration may compute, if no two rows lack the same.
ITERATION_NUMBERS = 20_000_000
#: Most rows whose missing cells are counted to find how many rows ITERATION_NUMBERS allows.
MAX_COUNTED_ROWS = 100_000
#: Most rows that the Gaussian is learned from.
MAX_GAUSSIAN_ROWS = 6000
#: Rows that the Gaussian may be learned from even if ITERATION_NUMBERS allows fewer.
MIN_GAUSSIAN_ROWS = 1000
#: Rows that a distribution is at least as certain as, so that the variance of a drawn variance is finite.
MIN_KNOWN_ROWS = 3


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution of rows; all numbers are float64.

    Parameters
    ----------
    mean : Tensor of shape (D,)
    covariance : Tensor of shape (D, D)
    precision : Tensor of shape (D, D)
        Inverse of the covariance.
    n_rows : Tensor of shape (D,)
        Complete rows that say as much of each column as those which the distribution was learned from.
    """

    mean: Tensor
    covariance: Tensor
    precision: Tensor
    n_rows: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor, n_rows: Tensor | None = None) -> Gaussian:
        """The distribution with this mean and this covariance, which are certain if there is no number of rows."""
        n_rows = torch.full_like(mean, math.inf) if n_rows is None else n_rows
        return cls(mean, covariance, torch.cholesky_inverse(torch.linalg.cholesky(covariance)), n_rows)

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

    def covariance_of(self, columns: slice, present_ND: Tensor) -> Tensor:
        """Conditional covariance ``(N, K, K)`` of some columns, of rows that lack all of them."""
        covariance = torch.empty(len(present_ND), *self.covariance[columns, columns].shape, dtype=torch.float64)
        for block in blocks_of(~present_ND):
            # Columns rise in a pattern, so that these are neighbours there, too.
            first_P = (block.columns_PM == columns.start).int().argmax(1)
            at_PK = first_P.unsqueeze(1) + torch.arange(covariance.shape[1])
            places_P = torch.arange(len(at_PK)).view(-1, 1, 1)
            inverse_PMM = block.inverse(self.precision)
            covariance[block.rows_B] = block.of_rows(inverse_PMM[places_P, at_PK.unsqueeze(2), at_PK.unsqueeze(1)])
        return covariance

    def draw(self, present_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of missing cells around their conditional mean, 0 of the others."""
        drawn = torch.zeros(present_ND.shape, dtype=torch.float64)
        for block in blocks_of(~present_ND):
            factor_BMM = block.of_rows(block.factor(self.precision))
            normal = torch.randn((*factor_BMM.shape[:2], 1), generator=generator, dtype=torch.float64)
            of_cells = torch.linalg.solve_triangular(factor_BMM.mT, normal, upper=True).squeeze(2)
            block.add(drawn, of_cells * block.of_rows(block.is_cell_PM))
        return drawn

    def redrawn(self, random_state: np.random.RandomState) -> Gaussian:
        """A random draw of mean and covariance around this one, as uncertain as the rows leave them.

        Columns are ordered by how much is known of each, and each one's regression on those before it is drawn: the
        Bartlett decomposition of an inverse Wishart draw (Bartlett 1933).
        """
        n_known, order = self.n_rows.clamp(min=MIN_KNOWN_ROWS).sort(descending=True, stable=True)
        n_columns = len(order)
        root = torch.linalg.cholesky(self.covariance[order][:, order])
        degrees = n_known + torch.arange(2, n_columns + 2)
        bartlett = torch.from_numpy(random_state.normal(size=(n_columns, n_columns))).tril(-1)
        bartlett += torch.from_numpy(random_state.chisquare(degrees)).sqrt().diag()
        bartlett /= n_known.sqrt().unsqueeze(1)
        drawn = torch.linalg.solve_triangular(bartlett, root, upper=False, left=False)
        moved = drawn @ (torch.from_numpy(random_state.normal(size=n_columns)) / n_known.sqrt())
        back = order.argsort()
        return Gaussian.of(self.mean + moved[back], (drawn @ drawn.t())[back][:, back], self.n_rows)

    def n_predictors(self, present_ND: Tensor) -> Tensor:
        """How many numbers were learned from rows to complete each row by."""
        return present_ND.sum(1)

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

    @property
    def n_rows(self) -> Tensor:
        """Complete rows that say as much of each column as those which it was learned from."""

    def complete(self, x_ND: Tensor, present_ND: Tensor) -> Tensor:
        """Rows with the conditional mean in their missing cells."""

    def deviation(self, present_ND: Tensor) -> Tensor:
        """Conditional standard deviation of missing cells, 0 of the others."""

    def covariance_of(self, columns: slice, present_ND: Tensor) -> Tensor:
        """Conditional covariance ``(N, K, K)`` of some columns, of rows that lack all of them."""

    def draw(self, present_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of missing cells around their conditional mean, 0 of the others."""

    def redrawn(self, random_state: np.random.RandomState) -> RowDistribution:
        """A draw of the distribution itself, which the rows that it was learned from leave uncertain."""

    def n_predictors(self, present_ND: Tensor) -> Tensor:
        """How many numbers were learned from rows to complete each row by."""


def usual_prior(n_rows: int, n_columns: int) -> float:
    """How many rows the prior is worth, where nobody looks for a better one."""
    return PRIOR_ROWS * min(PRIOR_COLUMN_ROWS * n_columns / n_rows, 1)


def best_prior(x_ND: Tensor, present_ND: Tensor, column_of_D: Tensor, generator: torch.Generator) -> float:
    """How many rows the prior should be worth, by hidden cells of rows that a Gaussian was not fitted to.

    ``column_of_D`` is the column of the table that each encoded column belongs to: those of one are hidden together.
    """
    most_rows = max(min(MAX_PRIOR_SEARCH_ROWS, MAX_PRIOR_SEARCH_CELLS // x_ND.shape[1]), MIN_PRIOR_SEARCH_ROWS)
    order = torch.randperm(len(x_ND), generator=generator)[:most_rows]
    n_held_out = math.ceil(PRIOR_HELD_OUT * len(order))
    held_out, fitted = order[:n_held_out], order[n_held_out:]
    rows = held_out.repeat(max(PRIOR_JUDGED_ROWS // n_held_out, 1))
    draws = torch.rand(len(rows), int(column_of_D.max()) + 1, generator=generator)
    hidden_ND = (draws < PRIOR_HIDDEN)[:, column_of_D] & present_ND[rows]
    if not hidden_ND.any():
        return usual_prior(*x_ND.shape)
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
    n_missing = (~present_ND[torch.from_numpy(sample_rows(len(present_ND), MAX_COUNTED_ROWS))]).sum(1).double()
    affordable = int(ITERATION_NUMBERS / max(float((n_missing**2).mean()), 1.0))
    n_rows = min(max(affordable, MIN_GAUSSIAN_ROWS, 2 * n_columns), MAX_GAUSSIAN_ROWS)
    sample = sampled_rows(present_ND, n_rows, generator)
    # Of all rows, or a level that no row of the sample has would seem impossible.
    center, scale = _moments(x_ND, present_ND)
    x_ND, present_ND = x_ND[sample.rows_N], present_ND[sample.rows_N]
    # As many of the rows that the scarcest column has, in their weight: of the others enough is known.
    prior_rows *= sample.least_weight(present_ND)
    n_known = sample.n_known(present_ND)
    if n_columns > MAX_COVARIANCE_COLUMNS:
        return fit_factors(x_ND, present_ND, sample.weight_N, prior_rows, n_known)
    x_ND = torch.where(present_ND, (x_ND - center) / scale, 0.0)
    rows = RowsWithHoles(x_ND, present_ND, sample.weight_N, prior_rows, list(blocks_of(~present_ND)))
    mean, covariance = rows.parts(squarem(rows.improved, rows.start(), MIN_GAIN, MAX_ITERATIONS))
    return Gaussian.of(center + scale * mean, torch.outer(scale, scale) * covariance, n_known)


def _moments(x_ND: Tensor, present_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column's present cells; 0 where there are none, and not quite 0."""
    n_present = present_ND.sum(0).clamp(min=1)
    total, square = torch.zeros(2, x_ND.shape[1], dtype=torch.float64)
    for x_BD, present_BD in zip(x_ND.split(BLOCK_ROWS), present_ND.split(BLOCK_ROWS), strict=True):
        x_BD = torch.where(present_BD, x_BD.to(torch.float64), 0.0)
        total += x_BD.sum(0)
        square += x_BD.square().sum(0)
    mean = total / n_present
    return mean, (square / n_present - mean.square()).clamp(min=1e-12).sqrt()


@dataclass(frozen=True, eq=False)
class RowsWithHoles:
    """Rows of about standardised columns, with zeros for missing cells, as expectation maximisation sees them.

    A distribution is the vector of its mean and its covariance here.

    Parameters
    ----------
    x_ND : Tensor of shape (N, D)
    present_ND : Tensor of bool
    weight_N : Tensor
        How many rows each stands for.
    prior_rows : float
        Rows of independent columns that count beside them.
    blocks : sequence of Block
        Those of the missing cells.
    """

    x_ND: Tensor
    present_ND: Tensor
    weight_N: Tensor
    prior_rows: float
    blocks: Sequence[Block]

    def parts(self, theta_P: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance."""
        n_columns = self.x_ND.shape[1]
        return theta_P[:n_columns], theta_P[n_columns:].view(n_columns, n_columns)

    def start(self) -> Tensor:
        """Each column's regression on those with more cells, with means in their holes: exact where those have none."""
        weight_ND = self.present_ND * self.weight_N.unsqueeze(1)
        order = weight_ND.sum(0).sort(descending=True, stable=True).indices
        mean_D, covariance_DD = self.x_ND.new_zeros(len(order)), self.x_ND.new_zeros(len(order), len(order))
        with_one = torch.cat([self.x_ND.new_ones(len(self.x_ND), 1), self.x_ND[:, order]], 1)
        for d, weight_N in enumerate(weight_ND[:, order].unbind(1)):
            product = (with_one[:, : d + 2].t() * weight_N) @ with_one[:, : d + 2]
            product.diagonal()[1:] += self.prior_rows
            product[0, 0].clamp_(min=1)
            slope = torch.linalg.solve(product[:-1, :-1], product[:-1, -1])
            left = (product[-1, -1] - slope @ product[:-1, -1]) / (product[0, 0] + self.prior_rows)
            of_others = covariance_DD[:d, :d] @ slope[1:]
            mean_D[d] = slope[0] + slope[1:] @ mean_D[:d]
            covariance_DD[d, :d] = covariance_DD[:d, d] = of_others
            covariance_DD[d, d] = slope[1:] @ of_others + left
        back = order.argsort()
        return torch.cat([mean_D[back], covariance_DD[back][:, back].flatten()])

    @cached_property
    def _n_rows(self) -> float:
        """Those that the rows stand for, and the prior's."""
        return float(self.weight_N.sum()) + self.prior_rows

    def _posterior(self, mean_D: Tensor, scatter_DD: Tensor) -> Tensor:
        """The most probable distribution, by sums of products of the rows' distances from the mean."""
        covariance = scatter_DD + self.prior_rows * torch.eye(len(mean_D), dtype=mean_D.dtype)
        return torch.cat([mean_D, ((covariance + covariance.t()) / (2 * self._n_rows)).flatten()])

    def improved(self, theta_P: Tensor) -> tuple[Tensor, float]:
        """The distribution after one iteration, and the log density of the one before, but for a constant."""
        gaussian = Gaussian.of(*self.parts(theta_P))
        n_columns = len(gaussian.mean)
        completed = torch.where(self.present_ND, self.x_ND, gaussian.mean)
        pull_ND = gaussian.pull(self.x_ND, self.present_ND)
        # Minus twice the log density, as if missing cells were their means; each block takes away what it is too much.
        surprise = self._n_rows * gaussian.covariance.logdet() + self.prior_rows * gaussian.precision.trace()
        surprise -= self.weight_N @ (pull_ND * (completed - gaussian.mean)).sum(1)
        spread = torch.zeros(n_columns**2, dtype=torch.float64)
        for block in self.blocks:
            factor_PMM = block.factor(gaussian.precision)
            covariance_PMM = block.inverse_by(factor_PMM)
            pull_BM = block.cells(pull_ND[block.rows_B])
            shift_BM = block.product(covariance_PMM, pull_BM)
            block.add(completed, shift_BM)
            weight_B = self.weight_N[block.rows_B]
            weight_P = block.of_patterns(weight_B)
            surprise += 2 * weight_P @ factor_PMM.diagonal(dim1=1, dim2=2).log().sum(1)
            surprise -= weight_B @ (pull_BM * shift_BM).sum(1)
            covariance_PMM *= weight_P.view(-1, 1, 1)
            spread.index_add_(0, block.places(n_columns).flatten(), covariance_PMM.flatten())
        mean = self.weight_N @ completed / self.weight_N.sum()
        centred = completed - mean
        scatter = (centred.t() * self.weight_N) @ centred + spread.view(n_columns, n_columns)
        return self._posterior(mean, scatter), -float(surprise) / 2
