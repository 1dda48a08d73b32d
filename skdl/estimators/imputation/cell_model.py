"""What an imputer knows of missing cells: a Gaussian, a correction of it by networks, and how far both are off.

Axes: N rows, D encoded columns, K of them, C columns of the table, A cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.closed_form.completion import CellFeatures
from skdl.closed_form.gaussian import RowDistribution
from skdl.closed_form.residuals import ResidualQuantiles
from skdl.engine.predict import network_outputs
from skdl.estimators.imputation.completion_tables import CompletionTable
from skdl.nn.network import Ensemble, NetworkModule

#: Most predictors for each row of fit that errors are widened by: the prior does not let more of them count.
MAX_PREDICTORS_PER_ROW = 0.5


class JudgedCells(NamedTuple):
    """Hidden cells of rows that a network was not trained on, in standardised units ``(N, D)``."""

    truth: Tensor
    is_hidden: Tensor
    gaussian: Tensor
    #: Conditional standard deviation by the Gaussian.
    deviation: Tensor
    network: Tensor


class CellModel:
    """The distribution of missing cells, given those that are present, in standardised encoded columns.

    The mean is that of a Gaussian, moved towards what networks say as far as that has made the error of hidden cells
    smaller. The spread is the Gaussian's, reshaped by the errors of hidden cells.

    Parameters
    ----------
    gaussian : RowDistribution
    column_of_D : Tensor of shape (D,)
        Which column of the table each encoded column belongs to.

    Attributes
    ----------
    features : CellFeatures
        What networks see of a row; set where there are networks.
    shares_D : ndarray of shape (D,)
        How far the networks are followed in each column, from 0 to 1.
    quantiles : list of ResidualQuantiles or None
        Of each column's errors; None where the Gaussian's are taken.
    """

    features: CellFeatures

    def __init__(self, gaussian: RowDistribution, column_of_D: Tensor) -> None:
        self.gaussian, self.column_of_D = gaussian, column_of_D
        self.shares_D: NDArray[np.float64] = np.zeros(len(column_of_D))
        self.quantiles: list[ResidualQuantiles | None] = [None] * len(column_of_D)

    def follow(self, features: CellFeatures) -> None:
        """Have networks that see these features. They are followed all the way until :meth:`fit_shares` is called."""
        self.features = features
        self.shares_D = np.ones(len(self.column_of_D))

    def table(self, x_ND: Tensor, present_ND: Tensor) -> CompletionTable:
        """Rows as networks see them."""
        return CompletionTable(x_ND, present_ND, self.features)

    def judged(
        self, network: NetworkModule, x_ND: Tensor, present_ND: Tensor, is_hidden_ND: Tensor, device: str
    ) -> JudgedCells:
        """What a network makes of hidden cells of rows that it was not trained on."""
        table = self.table(x_ND, present_ND & ~is_hidden_ND)
        output = torch.from_numpy(network_outputs(network, table, device).astype(np.float64))
        gaussian = self.gaussian.complete(table.x_ND, table.present_ND)
        return JudgedCells(x_ND.double(), is_hidden_ND, gaussian, self.gaussian.deviation(table.present_ND), output)

    def fit_shares(self, parts: Sequence[JudgedCells]) -> None:
        """Learn how far to follow the networks in each column, and how errors are spread.

        ``parts`` are the cells that each of them was judged by.
        """
        truth, is_hidden, gaussian, deviation, network = (torch.cat(part) for part in zip(*parts, strict=True))
        correction, error = (network - gaussian) * is_hidden, (truth - gaussian) * is_hidden
        # Of all encoded columns of one column together.
        gain, square = (
            torch.zeros(int(self.column_of_D.max()) + 1, dtype=torch.float64).index_add_(0, self.column_of_D, sums)
            for sums in ((correction * error).sum(0), correction.square().sum(0))
        )
        gain = gain.clamp(min=0)
        # The part of a correction that does not agree with the error is noise. The members' average has less of it than
        # the one member that held a row out, but only about half the reduction of independent members, since they share
        # most of their rows.
        noise = (square - gain).clamp(min=0) / ((len(parts) + 1) / 2)
        shares = (gain / (gain + noise).clamp(min=1e-12))[self.column_of_D]
        self.shares_D = shares.numpy()
        mean = gaussian + shares * correction
        # The Gaussian has seen these rows: a regression's residuals are as much smaller than those of other rows.
        n_rows = self.gaussian.n_rows.clamp(min=1)
        n_predictors = (n_rows / 4).clamp(max=len(shares))
        optimism = ((n_rows - n_predictors) / (n_rows + n_predictors)).sqrt()
        scaled = (truth - mean) / deviation.clamp(min=1e-12) / optimism
        self.quantiles = [
            ResidualQuantiles.of(mean[is_hidden[:, d], d].numpy(), scaled[is_hidden[:, d], d].numpy())
            for d in range(len(shares))
        ]

    def completed(
        self, network: NetworkModule | Ensemble | None, x_ND: Tensor, present_ND: Tensor, device: str
    ) -> NDArray[np.float64]:
        """Rows with the mean of their missing cells."""
        gaussian = self.gaussian.complete(x_ND, present_ND).numpy()
        if network is None:
            return gaussian
        outputs = network_outputs(network, self.table(x_ND, present_ND), device).astype(np.float64)
        mean = outputs if outputs.ndim == 2 else outputs.mean(axis=0)
        return gaussian + self.shares_D * (mean - gaussian)

    def deviation(self, present_ND: Tensor) -> NDArray[np.float64]:
        """Conditional standard deviation of missing cells by the Gaussian, 0 of the others."""
        return (self.gaussian.deviation(present_ND) * self._widening(present_ND)).numpy()

    def redrawn(self, n_draws: int, random_state: np.random.RandomState) -> list[RowDistribution]:
        """Gaussians that the rows of ``fit`` allow for as well."""
        return [self.gaussian.redrawn(random_state) for _ in range(n_draws)]

    def error(
        self,
        gaussian: RowDistribution,
        x_ND: Tensor,
        present_ND: Tensor,
        mean_ND: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """A draw of the Gaussian's errors by a redrawn one: a row's missing cells together, 0 of the others.

        Part of an error is that the Gaussian, whose means these are, is itself uncertain.
        """
        error_ND = gaussian.draw(present_ND, generator)
        if gaussian is not self.gaussian:
            # One that knows nothing of its own uncertainty is redrawn as itself, and completing takes a while.
            error_ND += gaussian.complete(x_ND, present_ND) - mean_ND
        return error_ND * self._widening(present_ND)

    def error_roots(self, columns: slice, present_ND: Tensor) -> Tensor:
        """Cholesky factors ``(N, K, K)`` of the covariance of the errors of K columns that rows lack."""
        roots = torch.linalg.cholesky(self.gaussian.covariance_of(columns, present_ND))
        return roots * self._widening(present_ND)[:, columns].unsqueeze(2)

    def _widening(self, present_ND: Tensor) -> Tensor:
        """How much larger errors ``(N, D)`` are than the residuals that the Gaussian was fitted by, as a regression's.

        Where the errors of hidden cells are known, they tell.
        """
        if self.quantiles[0] is not None:
            return torch.ones(present_ND.shape, dtype=torch.float64)
        n_rows = self.gaussian.n_rows.clamp(min=1)
        share_ND = (self.gaussian.n_predictors(present_ND).unsqueeze(1) / n_rows).clamp(max=MAX_PREDICTORS_PER_ROW)
        return ((1 + share_ND) / (1 - share_ND)).sqrt()

    def reshaped(
        self, d: int, error_A: NDArray[np.float64], deviation_A: NDArray[np.float64], mean_A: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The errors of some cells of a column, from draws of the Gaussian's."""
        quantiles = self.quantiles[d]
        return error_A if quantiles is None else deviation_A * quantiles.residual(mean_A, error_A / deviation_A)

    def spread(self, d: int, deviation_A: NDArray[np.float64], mean_A: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of the errors of some cells of a column, from that of the Gaussian's."""
        quantiles = self.quantiles[d]
        return deviation_A if quantiles is None else deviation_A * quantiles.deviation(mean_A)
