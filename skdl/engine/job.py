"""What goes into the engine and what comes out: plans, jobs and results.

An estimator makes a :class:`Job`; :func:`skdl.engine.train.train` turns jobs into :class:`Result` objects. Jobs with
equal plans are trained side by side, whatever their settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.table import Table
from skdl.engine.schedules import Schedule
from skdl.nn.dense import DenseArchitecture
from skdl.nn.network import Architecture
from skdl.tasks.losses import Loss


@dataclass(frozen=True)
class OptimizerKind:
    """The part of an optimiser that models of a stack share."""

    name: str = "adamw"
    nesterov: bool = False


@dataclass(frozen=True)
class Plan:
    """What jobs must share to be trained in one stack."""

    architecture: Architecture
    loss: Loss
    optimizer: OptimizerKind
    batch_size: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    #: Lower precision of the matrix products, or None.
    matmul_dtype: torch.dtype | None = None

    @property
    def is_stackable(self) -> bool:
        """Whether several jobs of this plan may be trained side by side."""
        return self.loss.stackable and self.architecture.stacks_on(self.device)


@dataclass(frozen=True)
class Settings:
    """What may differ from model to model inside a stack."""

    learning_rate: float = 1e-3
    schedule: Schedule = field(default_factory=Schedule)
    momentum: float = 0.9
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    gradient_clip: float | None = None
    #: Values of the loss's own settings, by the names that it declares.
    loss_settings: Mapping[str, float] = field(default_factory=dict)
    max_epochs: int = 100
    #: Epochs without an improvement of more than ``tol`` before a validated job stops; None: never.
    n_iter_no_change: int | None = None
    #: If given, patience is at most so many epochs more than the last improvement took.
    patience_over_best: int | None = None
    tol: float = 0.0
    #: Whether a validated job ends with the parameters of its best epoch; of its last one otherwise.
    keep_best: bool = True
    #: Whether a validated job is scored by :meth:`~skdl.tasks.losses.Loss.robust_loss`.
    robust_score: bool = False


@dataclass
class Samples:
    """Rows of an encoded table with their targets.

    Parameters
    ----------
    table : Table
    target : Tensor of shape (n,) or (n, O)
        Aligned with ``rows``.
    weight : Tensor of shape (n,), optional
        Weight of each sample in the loss, 1 on average.
    rows : Tensor of shape (n,), optional
        Row numbers in the table; None for all of them.
    factors_D : Tensor, optional
        What the table's columns are multiplied by as they are read; None for 1.
    """

    table: Table
    target: Tensor
    weight: Tensor | None = None
    rows: Tensor | None = None
    factors_D: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)


@dataclass
class State:
    """The parameters of one network and the moments of its optimiser, on the CPU."""

    theta_P: Tensor
    moments: list[Tensor] = field(default_factory=list)
    n_steps: int = 0


class EpochRecord(NamedTuple):
    """One row of a job's history."""

    epoch: int
    loss: float
    validation_loss: float
    validation_score: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """An epoch that a job has just ended. ``snapshot()`` is a copy of its parameters."""

    job: Job
    history: list[EpochRecord]
    snapshot: Callable[[], Tensor]


class Monitor:
    """What a fit is told while it trains, and may answer. The default listens and says nothing.

    Jobs of one fit, such as the members of an ensemble, share a monitor.
    """

    #: Whether :meth:`score` is to be called.
    scores = False

    def on_epoch_begin(self) -> None:
        """An epoch of the fit starts."""

    def on_restart(self) -> None:
        """Training starts again from the first epoch: a stack broke, by no fault of this fit, and is trained apart."""

    def on_epoch_end(self, epochs: list[Epoch]) -> bool:
        """An epoch ended for those jobs of the fit that are still training. Return True to stop them."""
        return False

    def score(self, job: Job, output: NDArray, snapshot: Callable[[], Tensor]) -> float:
        """Score of a job's validation outputs ``(n, O)``, larger is better."""
        raise NotImplementedError


StopReason = Literal["max_epochs", "early_stopping", "callback", "interrupted", "diverged", "failed"]


@dataclass
class Job:
    """One network to be trained on one set of samples.

    ``member`` numbers the networks of one fit, which share a monitor.
    """

    plan: Plan
    settings: Settings
    train: Samples
    seed: int
    validation: Samples | None = None
    start: State | None = None
    monitor: Monitor = field(default_factory=Monitor)
    member: int = 0

    def for_unscaled_inputs(self, theta_P: Tensor) -> Tensor:
        """The parameters for inputs that are not multiplied by the factors of its samples."""
        if self.train.factors_D is None:
            return theta_P
        # Only tables have such factors.
        architecture = cast(DenseArchitecture, self.plan.architecture)
        return architecture.with_inputs_times(theta_P, self.train.factors_D)


@dataclass
class Result:
    """A trained network.

    ``best_epoch`` counts from 1 and is the epoch whose parameters ``state`` holds. ``validation_outputs`` ``(n, O)``
    are those of the same parameters for the validation rows, if there are any.
    """

    state: State
    history: list[EpochRecord]
    reason: StopReason
    best_epoch: int
    error: Exception | None = None
    validation_outputs: Tensor | None = None

    @classmethod
    def failed(cls, error: Exception) -> Result:
        """The result of a job that could not be trained."""
        return cls(State(torch.empty(0)), [], "failed", 0, error)


def history_table(results: Sequence[Result]) -> NDArray[np.void]:
    """The history of a fit: one row per epoch, the mean of the jobs that were training, one named column a quantity."""
    names = EpochRecord._fields
    columns = [(name, np.int64 if name == "epoch" else np.float64) for name in names]
    table = np.zeros(max((len(result.history) for result in results), default=0), dtype=columns)
    n_jobs = np.zeros(len(table))
    for result in results:
        n_jobs[: len(result.history)] += 1
    for name in names:
        sums = np.zeros(len(table))
        for result in results:
            sums[: len(result.history)] += [getattr(record, name) for record in result.history]
        table[name] = sums / n_jobs
    return table
