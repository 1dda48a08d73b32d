"""Values to training targets and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from skdl.data.moments import mean_and_deviation
from skdl.tasks.losses import REGRESSION_LOSSES, CustomLoss, Loss, Quantiles, has_log_link
from skdl.tasks.task import Task


class RegressionTask(Task):
    """One or several numeric targets, standardised for training; counts are divided by their mean.

    Parameters
    ----------
    loss : str or callable
        A name in ``REGRESSION_LOSSES``, or a function of ``(prediction, target)``, both standardised: shapes
        ``(n,)``, or ``(n, O)`` where there are several targets.
    quantile : float or None, default=None
        That of ``loss="quantile"``.
    """

    output_activation = "identity"
    #: Several quantiles that are predicted at once.
    levels: tuple[float, ...] = ()
    #: What predictions of quantiles are shifted by, so that the share of held-out targets below them is that of the
    #: quantile, in the units of y: ``(T, Q)``.
    shift: NDArray[np.float64] | float = 0.0

    def __init__(self, loss: str | Callable[[Tensor, Tensor], Tensor], quantile: float | None = None) -> None:
        self.loss_parameter, self.quantile = loss, quantile
        self.has_log_link = has_log_link(loss)

    def fit(self, y: NDArray, sample_weight: NDArray | None = None) -> RegressionTask:
        """Learn location and scale of each target from weighted training rows."""
        self._check_link(y)
        self.is_single = y.ndim == 1
        values = y.reshape(len(y), -1).astype(np.float64)
        self.n_targets = self.n_outputs = values.shape[1]
        self.mean, deviation = mean_and_deviation(values, None if sample_weight is None else sample_weight[:, None])
        #: Targets that are predicted by their mean alone.
        self.is_constant = deviation < np.finfo(float).tiny
        if self.has_log_link:
            self.location = np.zeros(self.n_targets)
            self.scale = np.where(self.mean > 0, self.mean, 1)
        else:
            self.location = self.mean
            self.scale = np.where(self.is_constant, 1, deviation)
        return self

    def update_constant_targets(self, y: NDArray) -> None:
        """Stop treating targets as constant once ``y`` differs from the value that they had so far."""
        self.is_constant = self.is_constant & (self._columns(y) == self.mean).all(axis=0)

    @property
    def _unit(self) -> NDArray[np.float64]:
        """What a unit of an output is in each target: nothing where that is constant."""
        return np.where(self.is_constant, 0, self.scale)

    def _columns(self, y: NDArray, name: str = "y") -> NDArray:
        values = y.reshape(len(y), -1)
        if values.shape[1] != self.n_targets:
            raise ValueError(f"{name} has {values.shape[1]} targets, but the model was fitted on {self.n_targets}.")
        return values

    def _check_link(self, y: NDArray, name: str = "y") -> None:
        if self.has_log_link and np.any(y < 0):
            raise ValueError(
                f"loss={self.loss_parameter!r} needs targets that are not negative; {name} has negative values. "
                "Use loss='squared_error', or shift y."
            )

    def continue_as(self, task: Self) -> None:
        """Go on with the loss of another task, for the same encoding of the targets.

        Raises
        ------
        ValueError
            If one of both losses predicts means and the other one their logarithms.
        """
        loss = task.loss_parameter
        if has_log_link(loss) != self.has_log_link:
            raise ValueError(
                f"loss={loss!r} cannot continue a fit with loss={self.loss_parameter!r}: one of them predicts the "
                "logarithm of the mean, the other y itself. Call fit with warm_start=False."
            )
        if (loss, task.quantile) != (self.loss_parameter, self.quantile):
            # The shift was learned for another quantile.
            self.shift = 0.0
        self.loss_parameter, self.quantile = loss, task.quantile

    @property
    def loss(self) -> Loss:
        if not isinstance(self.loss_parameter, str):
            return CustomLoss(self.loss_parameter)
        return REGRESSION_LOSSES[self.loss_parameter]

    def encode(self, y: NDArray, dtype: torch.dtype, name: str = "y") -> Tensor:
        """Standardised targets ``(n, O)``."""
        self._check_link(y, name)
        return torch.as_tensor((self._columns(y, name) - self.location) / self.scale, dtype=dtype)

    def combine(self, outputs: NDArray) -> NDArray[np.float64]:
        """Outputs ``(n, O)`` that stand for the mean prediction of an ensemble's ``(M, n, O)``."""
        if self.has_log_link:
            return logsumexp(outputs, axis=0) - np.log(len(outputs))
        return outputs.mean(axis=0)

    def decode(self, output: NDArray) -> NDArray[np.float64]:
        """Values in y's own units, in y's own number of axes, from outputs ``(n, O)``."""
        output = output.astype(np.float64)
        with np.errstate(over="ignore"):
            if self.has_log_link:
                values = np.where(self.is_constant, self.mean, np.exp(output) * self.scale)
            else:
                values = output * self._unit + self.location
        values = values + np.ravel(self.shift)
        values = np.clip(values, -np.finfo(float).max, np.finfo(float).max)
        return values[:, 0] if self.is_single else values

    def expected(self, output: NDArray) -> NDArray[np.float64]:
        """What outputs say of y: values."""
        return self.decode(output)


class QuantilesTask(RegressionTask):
    """Several quantiles of each target.

    Quantiles that cross are sorted, which never raises their loss (Chernozhukov, Fernandez-Val and Galichon 2010).

    Parameters
    ----------
    levels : tuple of float
        In rising order.
    """

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__("quantile")
        self.levels = levels

    def fit(self, y: NDArray, sample_weight: NDArray | None = None) -> QuantilesTask:
        """Learn location and scale of each target from weighted training rows."""
        super().fit(y, sample_weight)
        self.n_outputs = self.n_targets * len(self.levels)
        return self

    def continue_as(self, task: Self) -> None:
        """Go on as another task of the same quantiles.

        Raises
        ------
        ValueError
            If its quantiles are others.
        """
        if task.levels != self.levels:
            raise ValueError(
                f"quantiles={task.levels} cannot continue a fit of {self.levels}. Call fit with warm_start=False."
            )
        super().continue_as(task)

    @property
    def loss(self) -> Loss:
        return Quantiles(self.levels)

    def decode(self, output: NDArray) -> NDArray[np.float64]:
        """Values ``(n, T, Q)`` in y's own units, ``(n, Q)`` of a y of one axis, from outputs ``(n, T * Q)``."""
        output = output.astype(np.float64).reshape(len(output), self.n_targets, -1)
        values = np.sort(output * self._unit[:, None] + self.location[:, None], axis=2)
        # The shift is that of sorted quantiles, and may bring some past others.
        values = np.sort(values + self.shift, axis=2)
        return values[:, 0] if self.is_single else values
