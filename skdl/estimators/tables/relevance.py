"""Relevance scaling: encoded columns multiplied by factors that grow with their correlation with the target.

Adam moves every weight by about the same amount a step, so that a column counts by its scale. In a wide table most
columns carry little information: at equal scale, they fit the noise of the training rows before the few that matter
are fitted. With a scale that grows with a column's correlation with the target, these are fitted first, and none is
excluded.

Each network has factors of its own, computed from the rows that it trains on, not from those that it holds out.
They act on columns as they are read in training, and are multiplied into its first weights afterwards.

Whether a table gains by it shows within a few epochs of a few networks, trained both ways.

Axes: N rows, D encoded columns, O outputs, C classes, P parameters of one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from skdl.engine.dispatch import submit
from skdl.engine.job import Job, Monitor, Samples, State
from skdl.nn.dense import DenseArchitecture

#: Bounds of the factors: a column that says nothing by itself may do so together with others.
FACTOR_BOUNDS = 0.2, 4.0
#: Rows from which correlations are found.
RELEVANCE_ROWS = 10_000
#: Columns that are looked at together.
BLOCK_COLUMNS = 128
#: Spread of a column of one value by rounding, over the value.
ROUNDING = 1e-7
#: Networks that are trained both ways to see whether scaling helps.
TRIAL_NETWORKS = 2
#: Epochs that they are trained for.
TRIAL_EPOCHS = 5
#: Smallest share of the validation loss that scaling must take away.
MIN_GAIN = 0.06
#: Standard errors of the validation loss that it must take away at least, as if a row's loss varied by as much as its
#: mean.
MIN_GAIN_STANDARD_ERRORS = 2.0


def relevance_factors(x_ND: Tensor, target: Tensor, weight_N: Tensor | None = None) -> Tensor:
    """Factors ``(D,)`` of encoded columns for targets ``(N,)`` or ``(N, O)``; whole numbers are class indices.

    The root of a column's squared correlation with the target over the mean of all columns', each with ``1 / N`` added,
    which is what chance makes of it; the largest over classes, each against the rest, or over targets.
    """
    share_N = torch.ones(len(x_ND)) if weight_N is None else weight_N
    share_N = share_N.double() / share_N.double().sum()
    correlations = _with_numbers if target.is_floating_point() else _with_classes
    blocks = x_ND.split(BLOCK_COLUMNS, 1)
    correlation_DO = torch.cat([correlations(block_ND.double(), target, share_N) for block_ND in blocks])
    square_D = correlation_DO.square().amax(1) + share_N.square().sum()
    return (square_D / square_D.mean()).sqrt().clamp(*FACTOR_BOUNDS).to(x_ND.dtype)


def _with_numbers(x_ND: Tensor, target: Tensor, share_N: Tensor) -> Tensor:
    """Correlations ``(D, O)`` of columns with targets."""
    target_NO = (target.unsqueeze(1) if target.ndim == 1 else target).double()
    mean_O, scale_O = _moments(target_NO, share_N)
    _, scale_D = _moments(x_ND, share_N)
    return x_ND.t() @ (share_N.unsqueeze(1) * (target_NO - mean_O) * scale_O) * scale_D.unsqueeze(1)


def _with_classes(x_ND: Tensor, target: Tensor, share_N: Tensor) -> Tensor:
    """Correlations ``(D, C)`` of columns with each class against the rest."""
    n_classes = int(target.max()) + 1
    probability_C = torch.zeros(n_classes).double().index_add_(0, target, share_N)
    sum_CD = x_ND.new_zeros(n_classes, x_ND.shape[1]).index_add_(0, target, share_N.unsqueeze(1) * x_ND)
    mean_D, scale_D = _moments(x_ND, share_N)
    covariance_DC = sum_CD.t() - mean_D.unsqueeze(1) * probability_C
    variance_C = probability_C * (1 - probability_C)
    return torch.where(variance_C > ROUNDING, covariance_DC / variance_C.sqrt(), 0) * scale_D.unsqueeze(1)


def _moments(x_ND: Tensor, share_N: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each column and what makes its variance 1; zeros where all values are one."""
    mean_D, square_D = share_N @ x_ND, share_N @ x_ND.square()
    variance_D = square_D - mean_D.square()
    # What is left of a column of one value is rounding.
    return mean_D, torch.where(variance_D > ROUNDING**2 * square_D, variance_D.rsqrt(), 0)


def gains_by_scaling(jobs: Sequence[Job], n_unscaled: int = 0) -> bool | None:
    """Whether the first networks of a fit, trained for a few epochs, have clearly smaller validation losses scaled.

    None if training was interrupted.
    """
    jobs = jobs[:TRIAL_NETWORKS]
    # Networks may be validated on the same rows.
    validations = {id(job.validation): job.validation for job in jobs if job.validation is not None}
    n_rows = sum(map(len, validations.values()))
    least_gain = max(MIN_GAIN, MIN_GAIN_STANDARD_ERRORS / max(n_rows, 1) ** 0.5)
    if least_gain >= 1:
        return False
    n_epochs = min(TRIAL_EPOCHS, jobs[0].settings.max_epochs)
    trials = [replace(job, settings=replace(job.settings, max_epochs=n_epochs), monitor=Monitor()) for job in jobs]
    results = submit(trials + scaled_jobs(trials, n_unscaled))
    if any(result.reason == "interrupted" for result in results):
        return None
    losses = [min((epoch.validation_loss for epoch in result.history), default=float("nan")) for result in results]
    plain, scaled = sum(losses[: len(jobs)]), sum(losses[len(jobs) :])
    # Some losses are below zero.
    return plain - scaled > least_gain * abs(plain)


def scaled_jobs(jobs: Sequence[Job], n_unscaled: int = 0) -> list[Job]:
    """The jobs of a fit on columns that are scaled by what each one's training rows say, but for the leading few."""
    return [_scaled_job(job, n_unscaled) for job in jobs]


def _scaled_job(job: Job, n_unscaled: int) -> Job:
    factors_D = _factors_of(job)
    factors_D[:n_unscaled] = 1
    train, validation = (
        None if samples is None else replace(samples, factors_D=factors_D) for samples in (job.train, job.validation)
    )
    start = job.start
    if start is not None:
        architecture = cast(DenseArchitecture, job.plan.architecture)
        theta_P = architecture.with_inputs_times(start.theta_P, factors_D.reciprocal())
        start = State(theta_P, start.moments, start.n_steps)
    return replace(job, train=cast(Samples, train), validation=validation, start=start)


def _factors_of(job: Job) -> Tensor:
    samples = job.train
    # At random: rows may come in a rhythm.
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(job.seed))
    sample = order[:RELEVANCE_ROWS].sort().values
    x_ND, _ = samples.table.take(sample if samples.rows is None else samples.rows[sample])
    return relevance_factors(x_ND, samples.target[sample], None if samples.weight is None else samples.weight[sample])
