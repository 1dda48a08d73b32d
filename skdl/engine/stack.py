"""The tensors of runs that are trained side by side.

Axes: K models, P parameters of one network.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdl.engine.batches import Batches, DeviceTables
from skdl.engine.epoch_losses import EpochLosses
from skdl.engine.evaluation import Evaluation, loss_settings
from skdl.engine.optimizers import RULES, Rates, StackedOptimizer
from skdl.engine.run import Run
from skdl.nn.network import NetworkStack

#: Parameters of this size are a divergence that has not reached the loss yet.
MAX_PARAMETER = 1e12


@dataclass
class ActiveModels:
    """The first models of a stack: those that have a batch at some step."""

    networks: NetworkStack
    grad_KP: Tensor
    optimizer: StackedOptimizer


class Stack:
    """The tensors of runs that are trained side by side."""

    def __init__(self, runs: Sequence[Run], tables: DeviceTables) -> None:
        self.runs = runs
        jobs = [run.job for run in runs]
        self.plan = plan = jobs[0].plan
        settings = [job.settings for job in jobs]
        self.theta_KP = torch.stack([run.theta_P for run in runs]).to(plan.device)
        self.grad_KP = torch.zeros_like(self.theta_KP)
        self.kept_KP = torch.stack([run.kept_P for run in runs]).to(plan.device)
        self.moments = self._moments()
        for run in runs:
            # The parameters are in the stack now; `release` returns them.
            run.theta_P = run.kept_P = torch.empty(0)
            run.moments = []
        self.batches = Batches([job.train for job in jobs], plan.batch_size, tables, plan.dtype)
        self.noise = plan.architecture.noise(
            [run.streams.noise for run in runs],
            [s.dropout for s in settings],
            self.batches.lengths,
            plan.batch_size,
            plan.dtype,
        )
        self.evaluation = Evaluation(jobs, tables) if any(job.validation is not None for job in jobs) else None
        of_losses = loss_settings(jobs, training=True)
        self.losses = EpochLosses(plan.loss, of_losses, self.batches.n_rows, plan.architecture.n_outputs, self.theta_KP)
        self._active: dict[int, ActiveModels] = {}
        self.architecture = plan.architecture

    def _moments(self) -> list[Tensor]:
        """What the optimiser's rule carries from step to step: of each run that has been trained, else zeros."""
        count = RULES[self.plan.optimizer.name].n_moments
        if not any(run.moments for run in self.runs):
            return [torch.zeros_like(self.theta_KP) for _ in range(count)]
        of_runs = [run.moments or [torch.zeros_like(run.theta_P)] * count for run in self.runs]
        return [torch.stack(moment).to(self.plan.device) for moment in zip(*of_runs, strict=True)]

    def begin_epoch(self) -> None:
        """Switch to the architecture that this epoch trains. Parameters and optimiser state stay in place."""
        # An architecture that changes is alone in its stack.
        architecture = self.runs[0].architecture
        if architecture != self.architecture:
            self.architecture, self._active = architecture, {}

    def active(self, k: int) -> ActiveModels:
        """The first ``k`` models."""
        if k not in self._active:
            theta, grad = self.theta_KP[:k], self.grad_KP[:k]
            self._active[k] = ActiveModels(
                self.architecture.stack(theta, grad, self.plan.matmul_dtype),
                grad,
                StackedOptimizer(
                    self.plan.optimizer,
                    [run.job.settings for run in self.runs[:k]],
                    theta,
                    [moment[:k] for moment in self.moments],
                    self.architecture.n_weights,
                    rate_factors_P=self.architecture.rate_factors_P,
                    matrices=self.architecture.matrices,
                ),
            )
        return self._active[k]

    def learning_rates(self) -> Iterator[tuple[Rates, Rates]]:
        """The learning rates of each step of the next epoch, bare and with the rule's correction."""
        n_steps = self.batches.n_steps
        rule = RULES[self.plan.optimizer.name]
        bare = [run.learning_rates(n) for run, n in zip(self.runs, n_steps, strict=True)]
        factors = [rule.bias_corrections(run.n_steps + 1, n) for run, n in zip(self.runs, n_steps, strict=True)]
        if len(self.runs) == 1:
            return zip(bare[0].tolist(), (bare[0] * factors[0]).tolist(), strict=True)
        rates = np.zeros((2, n_steps[0], len(self.runs), 1))
        for k, n in enumerate(n_steps):
            rates[0, :n, k, 0] = bare[k]
            rates[1, :n, k, 0] = bare[k] * factors[k]
        of_steps = torch.tensor(rates, dtype=self.plan.dtype, device=self.plan.device).unbind(1)
        return ((pair[0, :k], pair[1, :k]) for pair, k in zip(of_steps, self.batches.widths, strict=True))

    def end_epoch(self, started: float) -> None:
        """Validate, record, and keep the parameters that are worth keeping."""
        self.losses.flush()
        losses = self.batches.mean_losses(self.losses.loss_KN)
        # Not by absolute values, which would be new memory as large as the stack.
        trained_KP = self._trained_KP
        finite = ((trained_KP.amax(1) < MAX_PARAMETER) & (trained_KP.amin(1) > -MAX_PARAMETER)).tolist()
        validations = self.evaluation.run(self.theta_KP) if self.evaluation else [None] * len(self.runs)
        seconds = time.perf_counter() - started
        keep = [
            run.record(loss, validation, is_finite, seconds)
            for run, loss, validation, is_finite in zip(self.runs, losses, validations, finite, strict=True)
        ]
        for run, validation, is_kept in zip(self.runs, validations, keep, strict=True):
            if validation is not None and is_kept:
                run.keep_output(validation.output_On)
        if all(keep):
            self.kept_KP.copy_(self.theta_KP)
        elif any(keep):
            kept = torch.tensor(keep, device=self.theta_KP.device)
            self.kept_KP[kept] = self.theta_KP[kept]

    @property
    def _trained_KP(self) -> Tensor:
        """The parameters that training changes; a buffer of a user's network may well be infinite."""
        return self.theta_KP[:, : self.architecture.n_trained]

    def release(self) -> None:
        """Hand the runs their vectors back, so that another stack can take them on."""
        # A vector that outlives the others must not keep their memory.
        is_last = all(run.reason is not None for run in self.runs)
        for k, run in enumerate(self.runs):
            vectors = [self.theta_KP[k], self.kept_KP[k], *(moment[k] for moment in self.moments)]
            run.theta_P, run.kept_P, *run.moments = vectors if is_last else [vector.clone() for vector in vectors]

    def interrupt(self) -> None:
        """End every run at once, with its best parameters so far or, in the first epoch, those of this moment."""
        for k, run in enumerate(self.runs):
            if run.epoch == 0 and self._trained_KP[k].isfinite().all():
                self.kept_KP[k] = self.theta_KP[k]
            run.reason = run.reason or "interrupted"
