"""The skip path of recurrent networks: ridge regression in closed form, beside the network and blended with it.

Axes: B series, C channels, T steps, S steps that are looked at one by one, D numbers of an encoded row, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.closed_form.convolutions import RandomConvolutions
from skdl.closed_form.ridge import RidgeProblem, best_penalty
from skdl.data.folds import Fold
from skdl.data.moments import weighted_quantiles
from skdl.data.series.row_layout import Denormalization, Parts, RowLayout
from skdl.data.types import Floats

#: About the most columns that steps become; neighbouring steps of longer series are averaged.
MAX_STEP_COLUMNS = 2000
#: Most rows with MANY_FEATURES: with few rows, it is their number that decides what a regression costs.
FEATURE_ROWS = 1200
#: Features of random convolutions for more rows than FEATURE_ROWS.
FEW_FEATURES = 2520
#: Features of random convolutions for FEATURE_ROWS rows or fewer.
MANY_FEATURES = 8400
#: Rows whose features are there at a time.
CHUNK_ROWS = 1024


class StepFeatures:
    """The last steps of each series one by one, and the numbers beside it."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def fit(self, parts: Parts, generator: torch.Generator) -> StepFeatures:
        """Nothing is learned."""
        return self

    def transform(self, parts: Parts) -> NDArray:
        """Features ``(B, p)``; zeros where a series is shorter."""
        x_BCT = parts.series_BCT
        step_BS = parts.lengths_B[:, None] - self.n_steps + torch.arange(self.n_steps)
        places = step_BS.clamp(min=0).unsqueeze(1).expand(-1, x_BCT.shape[1], -1)
        last_BCS = x_BCT.gather(2, places) * (step_BS >= 0).unsqueeze(1)
        n_each = -(-last_BCS.shape[1] * self.n_steps // MAX_STEP_COLUMNS)
        if n_each > 1:
            last_BCS = torch.nn.functional.avg_pool1d(last_BCS, n_each, ceil_mode=True)
        return torch.cat([last_BCS.flatten(1), parts.covariates_BE], dim=1).double().numpy()


class ConvolutionFeatures:
    """Random convolutions of each series, beside its steps where those are given."""

    def __init__(self, steps: StepFeatures | None) -> None:
        self.steps = steps

    def fit(self, parts: Parts, generator: torch.Generator) -> ConvolutionFeatures:
        """Choose dilations and thresholds."""
        n_features = MANY_FEATURES if len(parts.lengths_B) <= FEATURE_ROWS else FEW_FEATURES
        self.convolutions = RandomConvolutions(n_features).fit(parts.series_BCT.float(), parts.lengths_B, generator)
        return self

    def transform(self, parts: Parts) -> NDArray:
        """Features ``(B, p)``."""
        shares = self.convolutions.transform(parts.series_BCT.float(), parts.lengths_B).double().numpy()
        beside = parts.covariates_BE.double().numpy() if self.steps is None else self.steps.transform(parts)
        return np.hstack([shares, beside])


#: The features that the skip path may work on, by name, for so many steps that are looked at one by one and whether
#: they stand beside convolutions.
SKIP_FEATURES: dict[str, Callable[[int, bool], StepFeatures | ConvolutionFeatures]] = {
    "linear": lambda n_steps, with_steps: StepFeatures(n_steps),
    "convolution": lambda n_steps, with_steps: ConvolutionFeatures(StepFeatures(n_steps) if with_steps else None),
}


class SkipPath:
    """A ridge regression on features of the series: on those kinds of features that predict held-out rows best.

    Parameters
    ----------
    kinds : sequence of str
        Names in :data:`SKIP_FEATURES`.
    layout : RowLayout
    n_steps : int
        Steps that are looked at one by one.
    denormalization : Denormalization or None
    with_steps : bool
        Whether steps stand beside convolutions.
    levels : tuple of float, optional
        Quantiles of the error on held-out rows that are added to the outputs: then there are so many for each target.

    Attributes
    ----------
    kind : str
        The better one of the kinds.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        layout: RowLayout,
        n_steps: int,
        denormalization: Denormalization | None,
        with_steps: bool,
        levels: tuple[float, ...] = (),
    ) -> None:
        self.kinds, self.layout, self.denormalization = tuple(kinds), layout, denormalization
        self.n_steps, self.with_steps, self.levels = n_steps, with_steps, levels

    def fit_predict_held_out(
        self, x_BD: Tensor, target_BO: Tensor, folds: Sequence[Fold], weight: Floats | None, generator: torch.Generator
    ) -> Floats:
        """Learn from encoded rows; gives the outputs ``(B, O)`` for the rows that the folds hold out.

        A row's output is by a regression on the training rows of its fold.
        """
        parts = self.layout.parts(x_BD)
        wanted_BO = (
            target_BO if self.denormalization is None else self.denormalization.invert(target_BO.double(), parts)
        )
        least = np.inf
        held_out = np.zeros(wanted_BO.shape)
        for kind in self.kinds:
            features = SKIP_FEATURES[kind](self.n_steps, self.with_steps).fit(parts, generator)
            problem = RidgeProblem(features.transform(parts), wanted_BO.double().numpy(), weight)
            penalty, outputs, error = best_penalty(problem, folds)
            if error < least:
                least, held_out = error, outputs
                self.kind, self.features, self.penalty = kind, features, penalty
                best = problem
        self.ridge = best.solved(self.penalty)
        self.offsets_TQ = np.zeros((wanted_BO.shape[1], 1))
        if self.levels:
            rows = np.unique(np.concatenate([fold.held_out for fold in folds]))
            error_nT = best.target[rows] - held_out[rows]
            offsets_QT = (
                np.quantile(error_nT, self.levels, axis=0)
                if weight is None
                else weighted_quantiles(error_nT, self.levels, weight[rows])
            )
            self.offsets_TQ = offsets_QT.T
        return self._denormalized(held_out, parts)

    def _denormalized(self, targets_BT: Floats, parts: Parts) -> Floats:
        outputs_BO = (targets_BT[:, :, None] + self.offsets_TQ).reshape(len(targets_BT), -1)
        if self.denormalization is None:
            return outputs_BO
        return self.denormalization.apply(torch.from_numpy(outputs_BO), parts).numpy()

    def outputs(self, x_BD: Tensor) -> Floats:
        """Outputs ``(B, O)`` of encoded rows."""
        return np.concatenate([self._chunk_outputs(chunk_BD) for chunk_BD in x_BD.split(CHUNK_ROWS)])

    def _chunk_outputs(self, x_BD: Tensor) -> Floats:
        parts = self.layout.parts(x_BD)
        return self._denormalized(self.ridge.predict(self.features.transform(parts)), parts)
