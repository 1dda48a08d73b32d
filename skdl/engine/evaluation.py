"""Validation losses and scores of the networks of a stack.

Axes: K models, P parameters of one network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from skdl.engine.batches import Batches, DeviceTables, table_ranks
from skdl.engine.job import Job, Samples
from skdl.nn.network import NetworkStack
from skdl.tasks.losses import LossSettings, first_settings, row_losses

#: Encoded numbers and activations that one model's batch aims at when outputs are only looked at. The width of the
#: stack has no say: how losses are summed must not depend on a job's company.
EVALUATION_NUMBERS = 2**18
#: Most rows of such a batch.
MAX_EVALUATION_ROWS = 1024
#: Fewest rows of such a batch.
MIN_EVALUATION_ROWS = 64


@dataclass
class Validation:
    """What an epoch's parameters are worth on the validation rows; a larger score is better.

    ``output_On`` are the outputs for the rows; the next epoch writes over them.
    """

    loss: float
    score: float
    output_On: Tensor


def loss_settings(jobs: Sequence[Job], *, training: bool) -> LossSettings:
    """Those settings of the loss that some job uses, ``(K, 1, 1)``."""
    plan = jobs[0].plan
    names = plan.loss.setting_names + (plan.loss.training_setting_names if training else ())
    by_name = {name: [job.settings.loss_settings.get(name, 0.0) for job in jobs] for name in names}
    return {
        name: torch.tensor(values, dtype=plan.dtype, device=plan.device).view(-1, 1, 1)
        for name, values in by_name.items()
        if any(values)
    }


def evaluation_rows(job: Job) -> int:
    """Rows of one batch when the outputs of a job's network are only looked at."""
    numbers = job.train.table.n_columns + job.plan.architecture.n_activations
    return min(max(EVALUATION_NUMBERS // max(numbers, 1), MIN_EVALUATION_ROWS), MAX_EVALUATION_ROWS)


def parameters_of(theta_KP: Tensor, k: int) -> Tensor:
    """A copy of one network's parameters, on the CPU."""
    return theta_KP[k].cpu().clone()


class Evaluation:
    """Losses and scores of a stack's networks on their validation rows."""

    def __init__(self, jobs: Sequence[Job], tables: DeviceTables) -> None:
        self.plan = jobs[0].plan
        validated = [k for k, job in enumerate(jobs) if job.validation is not None]
        samples = {k: _validation(jobs[k]) for k in validated}
        rank = table_ranks(samples.values())
        self.order = sorted(validated, key=lambda k: (-len(samples[k]), rank[id(samples[k].table)]))
        self.jobs = [jobs[k] for k in self.order]
        self.n_models = len(jobs)
        n_rows = evaluation_rows(self.jobs[0])
        self.batches = Batches([_validation(job) for job in self.jobs], n_rows, tables, self.plan.dtype)
        # In one piece from the start, as the losses of a stack are.
        shape = (len(self.jobs), self.plan.architecture.n_outputs, self.batches.n_rows)
        self.output_KON = torch.zeros(shape, dtype=self.plan.dtype, device=self.plan.device)
        self.loss_settings = loss_settings(self.jobs, training=False)
        self.some_are_robust = any(job.settings.robust_score for job in self.jobs)

    def run(self, theta_KP: Tensor) -> list[Validation | None]:
        """The validation of each job of the stack, None for those that have no validation rows."""
        if self.order != list(range(self.n_models)):
            theta_KP = theta_KP[self.order]
        n_jobs = len(self.jobs)
        loss_K, robust_K, weight_K = (theta_KP.new_zeros(n_jobs) for _ in range(3))
        networks: dict[int, NetworkStack] = {}
        for batch in self.batches.in_order():
            k = len(batch.x_KBD)
            if k not in networks:
                networks[k] = self.plan.architecture.stack(theta_KP[:k], matmul_dtype=self.plan.matmul_dtype)
            output = networks[k].predict(batch.x_KBD, batch.codes_KBE)
            settings = first_settings(self.loss_settings, k)
            loss_KB = row_losses(self.plan.loss, output, batch.target_KTB, settings)
            weight_KB = batch.weight_K1B[:, 0]
            loss_K[:k] += (loss_KB * weight_KB).sum(1)
            if self.some_are_robust:
                robust_K[:k] += (self.plan.loss.robust_loss(loss_KB, output.shape[1]) * weight_KB).sum(1)
            weight_K[:k] += weight_KB.sum(1)
            self.output_KON[:k, :, batch.start : batch.start + output.shape[2]] = output
        validations: list[Validation | None] = [None] * self.n_models
        losses, robust_losses = (loss_K / weight_K).tolist(), (robust_K / weight_K).tolist()
        for k, (place, job, loss) in enumerate(zip(self.order, self.jobs, losses, strict=True)):
            score = -robust_losses[k] if job.settings.robust_score else -loss
            output_On = self.output_KON[k, :, : self.batches.lengths[k]]
            if job.monitor.scores and math.isfinite(loss):
                score = job.monitor.score(job, output_On.t().cpu().numpy(), partial(parameters_of, theta_KP, k))
            validations[place] = Validation(loss, score, output_On)
        return validations


def _validation(job: Job) -> Samples:
    assert job.validation is not None
    return job.validation
