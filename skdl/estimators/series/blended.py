"""Networks on series with a closed-form path beside them, blended by what both say of rows that they did not see.

Axes: B series, D numbers of an encoded one.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from skdl.closed_form.skip import SkipPath
from skdl.data.folds import Fold, mean_by_row
from skdl.data.sampling import sample_rows
from skdl.data.series.row_layout import Denormalization
from skdl.data.series.series_encoder import SeriesEncoder
from skdl.data.table import DenseTable, Table
from skdl.engine.device import with_torch_defaults
from skdl.estimators.base import NetworkEstimator, RowOutputs
from skdl.estimators.checks import FitData
from skdl.estimators.parameters import is_auto
from skdl.tasks.blending import blend_weights
from skdl.tasks.regression import RegressionTask

#: Most series that the skip path is fitted to, drawn at random.
SKIP_ROWS = 10_000
#: Steps of the shortest series from which random convolutions are tried.
CONVOLUTION_STEPS = 9


def _places(fold: Fold, rows: NDArray[np.intp]) -> Fold:
    """A fold as far as it is of these rows, by their places."""
    return Fold(np.flatnonzero(np.isin(rows, fold.train)), np.flatnonzero(np.isin(rows, fold.held_out)))


class BlendedEstimator(NetworkEstimator):
    """Base of estimators on series with a skip path: fitted after the networks, added to what these put out."""

    skip: str | None
    _encoder: SeriesEncoder

    def _prepare(self, data: FitData, train_rows: NDArray[np.intp], classes: ArrayLike | None = None) -> None:
        # Scorers and callbacks see the networks alone while these are trained.
        self._skip: SkipPath | None = None
        self.blend_weights_ = {"network": 1.0}
        super()._prepare(data, train_rows, classes)
        task = self._task
        if isinstance(task, RegressionTask) and self._encoder.is_forecast and not task.has_log_link:
            # Series that are constant may be so at any level, which is given back to all but logarithms.
            task.is_constant = np.zeros_like(task.is_constant)

    def _denormalization(self) -> Denormalization | None:
        """What is given back to outputs."""
        if not isinstance(self._task, RegressionTask):
            return None
        return self._encoder.denormalization(self._task.location, self._task.scale)

    def _check_held_out(self, holds_out: bool) -> None:
        # A skip path that was asked for where there can be none.
        if self.skip in (None, "auto"):
            return
        if self._task.has_log_link:
            raise ValueError(f"skip={self.skip!r} predicts means, not their logarithms. Set skip=None with this loss.")
        if not holds_out:
            raise ValueError(
                f"skip={self.skip!r} is blended with the network by rows that neither has seen, and none are held "
                "out. Set early_stopping='auto' and leave X_val out, or set skip=None."
            )

    def _skip_kinds(self) -> tuple[str, ...]:
        """Features that the skip path may work on; none where there is no path."""
        if self.skip is None or self._task.has_log_link:
            return ()
        if not is_auto(self.skip):
            return (self.skip,)
        if self._encoder.shortest < CONVOLUTION_STEPS:
            return ("linear",)
        return ("linear", "convolution")

    def _blend(self, data: FitData, folds: list[Fold], unseen: list[RowOutputs]) -> None:
        """Fit the skip path and blend it with the networks by what both say of rows that they did not see."""
        if not self._skip_kinds():
            return
        rows = data.rows[sample_rows(len(data.rows), SKIP_ROWS)]
        places = [fold for fold in (_places(fold, rows) for fold in folds) if len(fold.held_out)]
        if places:
            self._fit_skip(data, rows, places, mean_by_row(len(data.y), unseen))

    def _fit_skip(self, data: FitData, rows: NDArray[np.intp], folds: list[Fold], outputs: NDArray[np.float64]) -> None:
        x_BD = self._encoder.transform(data.X[rows]).values
        weight = self._weight(data, rows)
        target = self._task.encode(data.y[rows], torch.float64)
        skip = self._new_skip()
        generator = torch.Generator().manual_seed(0)
        of_skip = skip.fit_predict_held_out(x_BD, self._skip_target(target), folds, weight, generator)
        is_held_out = np.isin(np.arange(len(rows)), np.hstack([fold.held_out for fold in folds]))
        known = np.flatnonzero(np.isfinite(outputs[rows]).all(axis=1) & is_held_out)
        base = self._base(x_BD[known])
        parts = [outputs[rows[known]], of_skip[known]]
        share = None if weight is None else weight[known]
        loss = self._task.loss
        settings = {name: torch.tensor(self._loss_setting(name)).double() for name in loss.setting_names}
        weights = blend_weights(parts, target[known], loss, settings, base, share)
        self._skip, self.blend_weights_ = skip, dict(zip(("network", "skip"), weights.tolist(), strict=True))
        self._note_blended(data, rows[known], of_skip[known], outputs)

    def _note_blended(
        self, data: FitData, rows: NDArray[np.intp], of_skip: NDArray[np.float64], outputs: NDArray[np.float64]
    ) -> None:
        """Keep what the blend says of rows that it did not see: ``of_skip`` is for some of those with outputs."""
        held_out = np.flatnonzero(np.isfinite(outputs).all(axis=1))
        x_BD = self._encoder.transform(data.X[held_out]).values
        is_given = np.isin(held_out, rows)
        skip_outputs = np.empty((len(held_out), self.n_outputs_))
        skip_outputs[is_given] = of_skip
        if not is_given.all():
            # The skip path was not fitted to these rows at all.
            assert self._skip is not None
            skip_outputs[~is_given] = self._skip.outputs(x_BD[torch.as_tensor(~is_given)])
        self.out_of_fold_[held_out] = self._task.expected(self._blended(x_BD, outputs[held_out], skip_outputs))

    def _blended(
        self, x_BD: Tensor, of_network: NDArray[np.float64], of_skip: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The sum of both outputs, as seen from the level of the series, by the weights of the blend."""
        base, weights = self._base(x_BD), self.blend_weights_
        return base + weights["network"] * (of_network - base) + weights["skip"] * (of_skip - base)

    def _new_skip(self) -> SkipPath:
        encoder = self._encoder
        return SkipPath(
            self._skip_kinds(),
            encoder.layout,
            encoder.shortest,
            self._denormalization(),
            with_steps=not self._task.is_classification,
            levels=self._task.loss.quantiles(self._loss_settings()),
        )

    def _skip_target(self, target: Tensor) -> Tensor:
        """The targets of the skip path: labels as -1 and 1."""
        if not self._task.is_classification:
            return target
        if not target.is_floating_point():
            target = F.one_hot(target, self.n_outputs_).double()
        return 2 * target - 1

    def _base(self, x_BD: Tensor) -> NDArray[np.float64]:
        """Outputs ``(B, O)`` of a model that has learned nothing: the level of the series where it is given back."""
        zeros = torch.zeros(len(x_BD), self.n_outputs_, dtype=torch.float64)
        denormalization = self._denormalization()
        return (
            zeros if denormalization is None else denormalization.apply(zeros, self._encoder.layout.parts(x_BD))
        ).numpy()

    @with_torch_defaults
    def _table_outputs(self, table: Table) -> NDArray[np.float64]:
        outputs = super()._table_outputs(table)
        if self._skip is None:
            return outputs
        x_BD = cast(DenseTable, table).values
        return self._blended(x_BD, outputs, self._skip.outputs(x_BD))
