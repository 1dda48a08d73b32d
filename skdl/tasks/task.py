"""What estimators ask of a target, whatever kind it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.tasks.losses import Loss


class Task(ABC):
    """The target side of a fit: y as networks are trained on it, and what their outputs say of y.

    ``fit`` learns the classes, or location and scale, and sets ``n_outputs``.
    """

    n_outputs: int
    #: Whether y are labels, not values.
    is_classification = False
    #: Whether there are two classes, for which one logit stands; whether there are several labels per sample.
    is_binary = is_multilabel = False
    #: Whether outputs are logarithms of the mean.
    has_log_link = False

    @property
    @abstractmethod
    def loss(self) -> Loss:
        """What is minimised."""

    @property
    @abstractmethod
    def output_activation(self) -> str:
        """What scikit-learn calls ``out_activation_``."""

    @abstractmethod
    def continue_as(self, task: Self) -> None:
        """Take over what may change between fits that go on from each other; refuse what may not."""

    @abstractmethod
    def encode(self, y: NDArray, dtype: torch.dtype, name: str = "y") -> Tensor:
        """Targets to train on; errors call y by its ``name``."""

    @abstractmethod
    def combine(self, outputs: NDArray) -> NDArray[Any]:
        """Outputs ``(n, O)`` that stand for an ensemble's ``(M, n, O)``."""

    @abstractmethod
    def decode(self, output: NDArray) -> NDArray[Any]:
        """Labels or values from outputs ``(n, O)``."""

    @abstractmethod
    def expected(self, output: NDArray) -> NDArray[Any]:
        """What outputs ``(n, O)`` say of y in the mean: probabilities or values."""
