"""Calibration of several networks whose probabilities are averaged: a temperature (Guo et al. 2017) and a shift.

Axes: N rows, O outputs, P parameters of one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from torch import Tensor

from skdl.data.sampling import sample_rows
from skdl.engine.job import Job, Result, Samples, State
from skdl.nn.dense import DenseArchitecture
from skdl.tasks.losses import Loss

#: Highest temperature that is looked for.
MAX_TEMPERATURE = 100.0
#: Most logits of each network that are looked at: one number needs no more.
MAX_LOGITS = 1_000_000
#: The power of the temperature, best for each network by itself, that all of them take: their mean is less sure than
#: each of them already.
MEAN_POWER = 0.5
#: Precision of the normal prior of shifts around zero: a class that no held-out row has keeps a probability.
SHIFT_PRIOR = 1.0

#: Outputs ``(1, O, N)``, targets ``(1, T, N)`` and weights ``(N,)`` of the rows that a network held out.
HeldOut = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Calibration:
    """The factor on all logits of several networks, and what is added to each of them afterwards.

    Networks that are stopped early, by losses that hardly tell a small probability from none, say too little of rare
    classes. The shift makes the mean of the held-out rows' probabilities that of their labels, but for a prior.
    """

    factor: float = 1.0
    #: Of each output; empty for none. Plain numbers, which skops can save.
    shift: tuple[float, ...] = ()

    @classmethod
    def of(cls, jobs: Sequence[Job], results: Sequence[Result]) -> Calibration:
        """Learn from the rows that each network held out: the root of the temperature first, then the shift."""
        loss = jobs[0].plan.loss
        held_out = [
            _as_losses_take_them(result.validation_outputs, job.validation)
            for job, result in zip(jobs, results, strict=True)
            if result.validation_outputs is not None and job.validation is not None
        ]
        if not held_out:
            return cls()
        factor = _temperature(loss, held_out) ** -MEAN_POWER
        return cls(factor, _shift(loss, [(factor * outputs, *rest) for outputs, *rest in held_out]))

    def applied(self, job: Job, result: Result) -> Result:
        """A result with its network's logits calibrated."""
        if self == Calibration():
            return result
        architecture = cast(DenseArchitecture, job.plan.architecture)
        theta_P, outputs = result.state.theta_P, result.validation_outputs
        state = replace(result.state, theta_P=architecture.with_outputs_scaled(theta_P, self.factor, self.shift))
        if outputs is not None:
            outputs = self.factor * outputs
            outputs = outputs + outputs.new_tensor(self.shift) if self.shift else outputs
        return replace(result, state=state, validation_outputs=outputs)

    def undone(self, architecture: DenseArchitecture, state: State) -> State:
        """The state of a network whose logits were calibrated, as its training left it."""
        if self == Calibration():
            return state
        back = [-shift / self.factor for shift in self.shift]
        return replace(state, theta_P=architecture.with_outputs_scaled(state.theta_P, 1 / self.factor, back))


def _temperature(loss: Loss, held_out: Sequence[HeldOut]) -> float:
    """What to divide logits by, at least 1, for the smallest loss on the rows that each network held out."""

    def slope(inverse: float) -> float:
        """The derivative of the loss, which is convex, in the inverse of the temperature."""
        slopes = [
            ((loss.gradient(inverse * output_1ON, target_1TN, {}) * output_1ON).sum(1) * weight_N).sum()
            for output_1ON, target_1TN, weight_N in held_out
        ]
        return float(sum(slopes))

    if not slope(1.0) > 0:
        return 1.0
    lowest = 1 / MAX_TEMPERATURE
    # To the last digits: networks that differ by rounding alone are to have temperatures that do.
    return MAX_TEMPERATURE if slope(lowest) >= 0 else 1 / cast(float, brentq(slope, lowest, 1.0, xtol=1e-14))


def _shift(loss: Loss, held_out: Sequence[HeldOut]) -> tuple[float, ...]:
    """What to add to each logit for the smallest loss on the rows that each network held out."""

    def loss_gradient(shift_O: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shift = torch.from_numpy(shift_O)
        total, slope_O = SHIFT_PRIOR / 2 * float(shift @ shift), SHIFT_PRIOR * shift
        for output_1ON, target_1TN, weight_N in held_out:
            loss_1N, grad_1ON = loss.loss_gradient(output_1ON + shift[:, None], target_1TN, {})
            total += float(loss_1N @ weight_N)
            slope_O = slope_O + grad_1ON[0] @ weight_N
        return total, slope_O.numpy()

    n_outputs = held_out[0][0].shape[1]
    # To the last digits, as the temperature.
    exact = {"ftol": 0.0, "gtol": 1e-9}
    found = minimize(loss_gradient, np.zeros(n_outputs), jac=True, method="L-BFGS-B", options=exact)
    return tuple(found.x.tolist())


def _as_losses_take_them(output_NO: Tensor, samples: Samples) -> HeldOut:
    """Outputs ``(1, O, N)``, targets ``(1, T, N)`` and weights, in double precision; labels stay whole numbers."""
    n_rows, n_outputs = output_NO.shape
    rows = torch.from_numpy(sample_rows(n_rows, max(MAX_LOGITS // n_outputs, 1)))
    target = samples.target[rows]
    target = target if target.ndim > 1 else target.unsqueeze(1)
    target = target.double() if target.is_floating_point() else target
    weight = torch.ones(len(rows)) if samples.weight is None else samples.weight[rows]
    return output_NO[rows].double().t().unsqueeze(0), target.t().unsqueeze(0), weight.double()
