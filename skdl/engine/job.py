"""What goes into the engine and what comes out: plans, jobs and results.

An estimator makes a :class:`Job`; :func:`skdl.engine.train.train` turns jobs into :class:`Result` objects. Jobs with
equal plans are trained side by side, whatever their settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.table import Table
from skdl.engine.optimizers import OptimizerKind
from skdl.engine.schedules import Schedule
from skdl.nn.dense import DenseNetwork
from skdl.tasks.losses import Loss


@dataclass(frozen=True)
class Plan:
    """What jobs must share to be trained in one stack."""

    network: DenseNetwork
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
        return self.loss.stackable and self.network.activation.stackable


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
    label_smoothing: float = 0.0
    quantile: float | None = None
    max_epochs: int = 100
    #: Epochs without an improvement of more than ``tol`` before a validated job stops; None: never.
    n_iter_no_change: int | None = None
    tol: float = 0.0
    #: Whether a validated job ends with the parameters of its best epoch; of its last one otherwise.
    keep_best: bool = True


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
    """

    table: Table
    target: Tensor
    weight: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)


@dataclass
class State:
    """The numbers of one network and of its optimiser, on the CPU."""

    theta_P: Tensor
    moments: list[Tensor] = field(default_factory=list)
    n_steps: int = 0


class Monitor:
    """What a job is told while it trains, and may answer. The default listens and says nothing."""

    #: Whether :meth:`score` is to be called.
    scores = False

    def on_epoch_begin(self) -> None:
        """An epoch starts."""

    def on_epoch_end(self, snapshot: Callable[[], Tensor], history: list[EpochRecord]) -> bool:
        """An epoch ended. ``snapshot()`` is a copy of the parameters. Return True to stop."""
        return False

    def score(self, output: NDArray, snapshot: Callable[[], Tensor]) -> float:
        """Score of the validation outputs ``(n, O)``, larger is better."""
        raise NotImplementedError


@dataclass(frozen=True)
class EpochRecord:
    """One row of a job's history."""

    epoch: int
    loss: float
    validation_loss: float
    validation_score: float
    learning_rate: float
    seconds: float


StopReason = Literal["max_epochs", "early_stopping", "callback", "interrupted", "diverged"]


@dataclass
class Job:
    """One network to be trained on one set of samples."""

    plan: Plan
    settings: Settings
    train: Samples
    seed: int
    validation: Samples | None = None
    start: State | None = None
    monitor: Monitor = field(default_factory=Monitor)


@dataclass
class Result:
    """A trained network.

    ``best_epoch`` counts from 1 and is the epoch whose parameters ``state`` holds.
    """

    state: State
    history: list[EpochRecord]
    reason: StopReason
    best_epoch: int

    def history_table(self) -> NDArray[np.void]:
        """The history with one row an epoch and one named column a quantity."""
        columns = [
            (name, np.int64 if name == "epoch" else np.float64) for name in EpochRecord.__dataclass_fields__
        ]
        rows = [tuple(getattr(record, name) for name, _ in columns) for record in self.history]
        return np.array(rows, dtype=columns)
