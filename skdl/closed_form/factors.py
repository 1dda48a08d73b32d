"""A Gaussian of many columns by a few factors, learned from rows with missing cells.

The covariance of D columns is that of R factors, ``loading @ loading.T``, and a noise of each column's own (factor
analysis). What a row says of the factors costs the columns times the square of the factors, where a full covariance
would cost the cube of the missing cells.

Axes: N rows, B rows computed at a time, D columns, K of them, R factors, S = R * R pairs of factors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Most factors.
MAX_FACTORS = 32
#: Most iterations of expectation maximisation.
MAX_ITERATIONS = 30
#: Expectation maximisation ends when no column's noise moves by as much as this share of the column's variance.
TOLERANCE = 1e-3
#: Numbers of the factors' covariances that are computed at a time.
BLOCK_NUMBERS = 2_000_000


class Factors(NamedTuple):
    """What the present cells of some rows say of their factors."""

    mean_BR: Tensor
    #: Cholesky factor of the conditional precision.
    factor_BRR: Tensor


@dataclass(frozen=True, eq=False)
class FactorGaussian:
    """A normal distribution of rows, of few factors and independent noise; all numbers are float64.

    Parameters
    ----------
    mean : Tensor of shape (D,)
    loading : Tensor of shape (D, R)
    noise : Tensor of shape (D,)
        Variances.
    n_rows : Tensor of shape (D,)
        Complete rows that say as much of each column as those which the distribution was learned from.
    """

    mean: Tensor
    loading: Tensor
    noise: Tensor
    n_rows: Tensor

    def complete(self, x_ND: Tensor, present_ND: Tensor) -> Tensor:
        """Rows with the conditional mean in their missing cells."""
        completed = torch.where(present_ND, x_ND.to(torch.float64), self.mean)
        for block in self._blocks(len(x_ND)):
            factors = self.factors(x_ND[block], present_ND[block])
            completed[block] += (factors.mean_BR @ self.loading.t()).masked_fill_(present_ND[block], 0)
        return completed

    def deviation(self, present_ND: Tensor) -> Tensor:
        """Conditional standard deviation of missing cells, 0 of the others."""
        variance = self.noise.expand(present_ND.shape).clone()
        pairs_DS = self._pairs()
        for block in self._blocks(len(present_ND)):
            factor_BRR = self._precision_root(present_ND[block])
            variance[block] += torch.cholesky_inverse(factor_BRR).flatten(1) @ pairs_DS.t()
        return variance.sqrt_().masked_fill_(present_ND, 0)

    def covariance_of(self, columns: slice, present_ND: Tensor) -> Tensor:
        """Conditional covariance ``(N, K, K)`` of some columns, of rows that lack all of them."""
        loading_KR, noise_KK = self.loading[columns], self.noise[columns].diag()
        covariance = noise_KK.expand(len(present_ND), *noise_KK.shape).clone()
        for block in self._blocks(len(present_ND)):
            factor_BRR = self._precision_root(present_ND[block])
            covariance[block] += loading_KR @ torch.cholesky_inverse(factor_BRR) @ loading_KR.t()
        return covariance

    def draw(self, present_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of missing cells around their conditional mean, 0 of the others."""
        noise = torch.randn(present_ND.shape, generator=generator, dtype=torch.float64)
        drawn = noise * self.noise.sqrt()
        for block in self._blocks(len(present_ND)):
            factor_BRR = self._precision_root(present_ND[block])
            normal = torch.randn((*factor_BRR.shape[:2], 1), generator=generator, dtype=torch.float64)
            of_factors = torch.linalg.solve_triangular(factor_BRR.mT, normal, upper=True).squeeze(2)
            drawn[block] += of_factors @ self.loading.t()
        return drawn.masked_fill_(present_ND, 0)

    def redrawn(self, random_state: np.random.RandomState) -> FactorGaussian:
        """Itself: of many columns, how uncertain their factors are is not known."""
        return self

    def n_predictors(self, present_ND: Tensor) -> Tensor:
        """How many numbers were learned from rows to complete each row by."""
        return present_ND.sum(1).clamp(max=self.loading.shape[1])

    def factors(self, x_BD: Tensor, present_BD: Tensor) -> Factors:
        """The conditional distribution of rows' factors."""
        weighted_BD = (x_BD.to(torch.float64) - self.mean).masked_fill(~present_BD, 0) / self.noise
        factor_BRR = self._precision_root(present_BD)
        mean = torch.cholesky_solve((weighted_BD @ self.loading).unsqueeze(2), factor_BRR).squeeze(2)
        return Factors(mean, factor_BRR)

    def _precision_root(self, present_BD: Tensor) -> Tensor:
        """Cholesky factors ``(B, R, R)`` of the conditional precision of rows' factors."""
        n_factors = self.loading.shape[1]
        weighted_DS = self._pairs() / self.noise.unsqueeze(1)
        precision = (present_BD.to(torch.float64) @ weighted_DS).view(-1, n_factors, n_factors)
        precision.diagonal(dim1=1, dim2=2).add_(1)
        return torch.linalg.cholesky(precision)

    def _pairs(self) -> Tensor:
        return (self.loading.unsqueeze(2) * self.loading.unsqueeze(1)).flatten(1)

    def _blocks(self, n_rows: int) -> Iterator[slice]:
        step = max(BLOCK_NUMBERS // self.loading.shape[1] ** 2, 1)
        return (slice(start, start + step) for start in range(0, n_rows, step))


def fit_factors(
    x_ND: Tensor, present_ND: Tensor, weight_N: Tensor, prior_rows: float, n_rows: Tensor
) -> FactorGaussian:
    """Most probable distribution of standardised rows, by expectation maximisation (Rubin and Thayer 1982).

    Each row stands for ``weight_N`` rows, and the prior is worth ``prior_rows`` rows of independent columns.
    """
    x_ND = x_ND.to(torch.float64)
    n_present = (weight_N @ present_ND.to(torch.float64)).clamp(min=1)
    mean = weight_N @ torch.where(present_ND, x_ND, 0.0) / n_present
    filled = torch.where(present_ND, x_ND - mean, 0.0)
    variance = (weight_N @ filled.square() / n_present).clamp(min=1e-12)
    gaussian = _start(filled, weight_N, mean, variance, n_rows)
    for _ in range(MAX_ITERATIONS):
        before = gaussian.noise
        gaussian = _improved(gaussian, x_ND, present_ND, weight_N, prior_rows, variance)
        if ((gaussian.noise - before) / variance).abs().max() < TOLERANCE:
            break
    return gaussian


def _start(filled_ND: Tensor, weight_N: Tensor, mean_D: Tensor, variance_D: Tensor, n_rows: Tensor) -> FactorGaussian:
    """Principal components of rows filled with means."""
    n_columns = len(mean_D)
    n_factors = max(min(MAX_FACTORS, n_columns // 2, len(filled_ND) // 4), 1)
    scaled = filled_ND / variance_D.sqrt()
    values, vectors = torch.linalg.eigh((scaled.t() * weight_N) @ scaled / weight_N.sum())
    rest = values[:-n_factors].mean().clamp(min=0)
    strength = (values[-n_factors:] - rest).clamp(min=1e-6).sqrt()
    loading = vectors[:, -n_factors:] * strength
    noise = (1 - loading.square().sum(1)).clamp(min=0.05)
    scale = variance_D.sqrt()
    return FactorGaussian(mean_D, loading * scale.unsqueeze(1), noise * variance_D, n_rows)


def _improved(
    gaussian: FactorGaussian,
    x_ND: Tensor,
    present_ND: Tensor,
    weight_N: Tensor,
    prior_rows: float,
    variance_D: Tensor,
) -> FactorGaussian:
    """The distribution after one iteration of EM."""
    n_columns, n_factors = gaussian.loading.shape
    # A missing cell has no weight.
    weight_ND = present_ND * weight_N.unsqueeze(1)
    square_DS = x_ND.new_zeros(n_columns, n_factors**2)
    mean_NR = x_ND.new_empty(len(x_ND), n_factors)
    for block in gaussian._blocks(len(x_ND)):
        mean_BR, factor_BRR = gaussian.factors(x_ND[block], present_ND[block])
        square_BRR = torch.cholesky_inverse(factor_BRR) + mean_BR.unsqueeze(2) * mean_BR.unsqueeze(1)
        square_DS += weight_ND[block].t() @ square_BRR.flatten(1)
        mean_NR[block] = mean_BR
    n_present = weight_ND.sum(0)
    explained = mean_NR @ gaussian.loading.t()
    mean = (((x_ND - explained) * weight_ND).sum(0) / n_present.clamp(min=1)).where(n_present > 0, gaussian.mean)
    centred = x_ND - mean
    product_DR = (centred * weight_ND).t() @ mean_NR
    prior = prior_rows * torch.eye(n_factors, dtype=x_ND.dtype)
    loading = torch.linalg.solve(square_DS.view(-1, n_factors, n_factors) + prior, product_DR)
    left = (centred.square() * weight_ND).sum(0) - (loading * product_DR).sum(1) + prior_rows * variance_D
    noise = (left / (n_present + prior_rows)).clamp(min=1e-12)
    return FactorGaussian(mean, loading, noise, gaussian.n_rows)
