"""Temperature scaling (Guo et al. 2017) of several networks whose probabilities are averaged.

Axes: N rows, O outputs, P parameters of one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from scipy.optimize import brentq
from torch import Tensor

from skdl.data.sampling import sample_rows
from skdl.engine.job import Job, Result, Samples
from skdl.nn.dense import DenseArchitecture
from skdl.tasks.losses import Loss

#: Highest temperature that is looked for.
MAX_TEMPERATURE = 100.0
#: Most logits of each network that are looked at: one number needs no more.
MAX_LOGITS = 1_000_000
#: The power of the temperature, best for each network by itself, that all of them take: their mean is less sure than
#: each of them already.
MEAN_POWER = 0.5


def logit_factor(jobs: Sequence[Job], results: Sequence[Result]) -> float:
    """What to multiply the logits of all networks by, at most 1, as far as held-out rows say that they are too sure."""
    held_out = [
        (result.validation_outputs, job.validation)
        for job, result in zip(jobs, results, strict=True)
        if result.validation_outputs is not None and job.validation is not None
    ]
    return _temperature(jobs[0].plan.loss, held_out) ** -MEAN_POWER


def with_logits_times(factor: float, job: Job, result: Result) -> Result:
    """A result with its network's logits multiplied."""
    architecture = cast(DenseArchitecture, job.plan.architecture)
    state = replace(result.state, theta_P=architecture.with_outputs_times(result.state.theta_P, factor))
    outputs = result.validation_outputs
    return replace(result, state=state, validation_outputs=None if outputs is None else factor * outputs)


def _temperature(loss: Loss, held_out: Sequence[tuple[Tensor, Samples]]) -> float:
    """What to divide logits by, at least 1, for the smallest loss on the rows that each network held out."""
    parts = [_as_losses_take_them(outputs, samples) for outputs, samples in held_out]

    def slope(inverse: float) -> float:
        """The derivative of the loss, which is convex, in the inverse of the temperature."""
        slopes = [
            ((loss.gradient(inverse * output_1ON, target_1TN, {}) * output_1ON).sum(1) * weight_N).sum()
            for output_1ON, target_1TN, weight_N in parts
        ]
        return float(sum(slopes))

    if not slope(1.0) > 0:
        return 1.0
    lowest = 1 / MAX_TEMPERATURE
    # To the last digits: networks that differ by rounding alone are to have temperatures that do.
    return MAX_TEMPERATURE if slope(lowest) >= 0 else 1 / cast(float, brentq(slope, lowest, 1.0, xtol=1e-14))


def _as_losses_take_them(output_NO: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs ``(1, O, N)``, targets ``(1, T, N)`` and weights, in double precision; labels stay whole numbers."""
    n_rows, n_outputs = output_NO.shape
    rows = torch.from_numpy(sample_rows(n_rows, max(MAX_LOGITS // n_outputs, 1)))
    target = samples.target[rows]
    target = target if target.ndim > 1 else target.unsqueeze(1)
    target = target.double() if target.is_floating_point() else target
    weight = torch.ones(len(rows)) if samples.weight is None else samples.weight[rows]
    return output_NO[rows].double().t().unsqueeze(0), target.t().unsqueeze(0), weight.double()
