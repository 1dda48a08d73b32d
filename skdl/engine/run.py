"""One job's way through training: its random streams, its history, and when it stops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.engine.device import Streams
from skdl.engine.evaluation import Validation
from skdl.engine.job import EpochRecord, Job, Result, State, StopReason
from skdl.engine.schedules import SHAPES, PlateauRule
from skdl.nn.network import Architecture


class Run:
    """One job's way through training: what the stack does not keep in tensors."""

    def __init__(self, job: Job) -> None:
        plan, settings = job.plan, job.settings
        self.job = job
        self.streams = Streams(job.seed, plan.device)
        start = job.start or State(plan.architecture.initial(self.streams.init, plan.dtype))
        self.theta_P, self.first_step = start.theta_P, start.n_steps
        #: What the optimiser's rule carries from step to step; empty where there was no step yet.
        self.moments = start.moments
        #: The parameters to return if training ended now: of the best epoch, or of the last finite one.
        self.kept_P = self.theta_P
        #: Their outputs for the validation rows.
        self.kept_output_On: Tensor | None = None
        self.best_epoch = 0
        #: Score and loss on the validation rows of the best epoch, and of the last one that was better by ``tol``.
        self.best = self.to_beat = (-math.inf, math.inf)
        self.epochs_since_best = 0
        #: The learning rate of the epoch's first step.
        self.first_rate = settings.learning_rate
        self.plateau = PlateauRule() if SHAPES[settings.schedule.kind].has_plateau_rule else None
        self.history: list[EpochRecord] = []
        self.reason: StopReason | None = None
        self.error: Exception | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    @property
    def architecture(self) -> Architecture:
        """The architecture as the next epoch trains it. Training that goes on from an earlier one is past phases."""
        n_epochs = self.job.settings.max_epochs
        return self.job.plan.architecture.at(self.epoch if self.job.start is None else n_epochs, n_epochs)

    def learning_rates(self, n_steps: int) -> NDArray[np.float64]:
        """The learning rate of each of the next epoch's steps."""
        settings = self.job.settings
        factors = settings.schedule.factors(self.epoch * n_steps, n_steps, settings.max_epochs * n_steps)
        rates = settings.learning_rate * (self.plateau.factor if self.plateau else 1.0) * factors
        self.first_rate = float(rates[0])
        return rates

    def record(self, loss: float, validation: Validation | None, is_finite: bool, seconds: float) -> bool:
        """Note an epoch and decide whether training goes on. Returns whether its parameters are to be kept."""
        settings = self.job.settings
        validation_loss, score = (math.nan, math.nan) if validation is None else (validation.loss, validation.score)
        self.history.append(EpochRecord(self.epoch + 1, loss, validation_loss, score, self.first_rate, seconds))
        if not is_finite or not math.isfinite(loss):
            self.reason = "diverged"
            return False
        if self.plateau is not None:
            self.plateau.update(loss if validation is None else -score)
        if self.epoch >= settings.max_epochs:
            self.reason = "max_epochs"
        if validation is None:
            self.best_epoch = self.epoch
            return True
        return self._compare(score, validation_loss)

    def keep_output(self, output_On: Tensor) -> None:
        """Copy the outputs that go with the kept parameters."""
        if self.kept_output_On is None:
            self.kept_output_On = output_On.clone()
        else:
            self.kept_output_On.copy_(output_On)

    def _compare(self, score: float, loss: float) -> bool:
        settings = self.job.settings
        # A score that is not defined, as by one class alone, is worse than any other; then the loss decides.
        score = -math.inf if math.isnan(score) else score
        if _is_better(score, loss, self.to_beat, settings.tol):
            self.to_beat, self.epochs_since_best = (score, loss), 0
        else:
            self.epochs_since_best += 1
        if self.epochs_since_best >= self._patience:
            self.reason = self.reason or "early_stopping"
        if settings.keep_best and not _is_better(score, loss, self.best) and self.best_epoch > 0:
            return False
        self.best = (score, loss)
        self.best_epoch = self.epoch
        return True

    @property
    def _patience(self) -> float:
        """Epochs without an improvement after which training stops."""
        settings = self.job.settings
        if settings.n_iter_no_change is None:
            return math.inf
        if settings.patience_over_best is None:
            return settings.n_iter_no_change
        n_to_best = self.epoch - self.epochs_since_best
        return min(settings.n_iter_no_change, n_to_best + settings.patience_over_best)

    def result(self) -> Result:
        """What has come of the job so far."""
        assert self.reason is not None
        state = State(self.kept_P.cpu(), [moment.cpu() for moment in self.moments], self.n_steps)
        if self.reason == "diverged":
            # The optimiser's memory is of the steps that went wrong.
            state = State(state.theta_P)
        output_nO = None if self.kept_output_On is None else self.kept_output_On.t().cpu()
        return Result(state, self.history, self.reason, self.best_epoch, self.error, output_nO)

    @property
    def n_steps(self) -> int:
        """Optimiser steps taken, those before this training included."""
        return self.first_step + self.epoch * -(-len(self.job.train) // self.job.plan.batch_size)


# Parameters of a caller's inference mode could not be trained on or explained.
@torch.inference_mode(False)
def untrained(jobs: Sequence[Job]) -> list[Result]:
    """The results of jobs whose training is interrupted before it begins."""
    runs = [Run(job) for job in jobs]
    for run in runs:
        run.reason = "interrupted"
    return [run.result() for run in runs]


def _is_better(score: float, loss: float, before: tuple[float, float], tol: float = 0.0) -> bool:
    """Whether the score is larger, or equal with a smaller loss: few rows have few values of accuracy, say."""
    best_score, its_loss = before
    return score > best_score + tol or (score == best_score and loss < its_loss - tol)
