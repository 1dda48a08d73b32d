"""Optimisers for K models at once: every rate and penalty is a vector of length K.

An optimiser is a rule that turns gradients into a direction; :class:`StackedOptimizer` scales the direction by each
model's learning rate and adds what all rules share: penalties, decoupled weight decay and gradient clipping.
A new rule is one class here and one entry in ``RULES``.

Axes: K models, P parameters of one network, R rows and C columns of a weight matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.engine.job import OptimizerKind, Settings
from skdl.engine.orthogonal import orthogonalized
from skdl.nn.network import Slot

#: The learning rates of K models, ``(K, 1)``, or that of a lone one.
Rates = Tensor | float


@dataclass(eq=False)
class Rule(ABC):
    """How gradients become a direction of descent.

    Parameters
    ----------
    kind : OptimizerKind
    moments : list of Tensor
        What the rule keeps between steps, like the parameters.
    momentum_K1 : Tensor
    matrices : sequence of Slot
        Where the weights of all layers but the last lie.
    """

    kind: OptimizerKind
    moments: list[Tensor]
    momentum_K1: Tensor
    matrices: Sequence[Slot]

    #: How many moments there are.
    n_moments: ClassVar[int]
    #: Whether ``kind.nesterov`` has an effect.
    has_nesterov: ClassVar[bool] = False

    @abstractmethod
    def direction(self, grad_KP: Tensor) -> Tensor:
        """The direction of descent, to be scaled by the learning rate. It may write over the gradient."""

    @abstractmethod
    def curvature(self) -> Tensor:
        """A steady gradient over its direction, ``(K, P)`` or ``(K, 1)``: what the proximal step is divided by."""

    @staticmethod
    def bias_corrections(first: int, count: int) -> NDArray[np.float64]:
        """Factors on the learning rate for ``count`` steps from step ``first`` on; steps count from 1."""
        return np.ones(count)


class Adam(Rule):
    """Adam (Kingma and Ba 2015), its bias corrections folded into the learning rate as at the end of section 2."""

    n_moments = 2
    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    @cached_property
    def late(self) -> Tensor:
        """A late step number, which makes the kernel's own bias corrections equal to 1."""
        return torch.tensor(1e9, device=self.moments[0].device)

    def direction(self, grad_KP: Tensor) -> Tensor:
        mean, square = self.moments
        # The kernel behind torch.optim.AdamW(fused=True). With lr=1 and weight_decay=1 it erases the parameter and
        # leaves the bare direction, which each model scales by its own learning rate. A single model takes the same
        # route, so that it rounds as in a stack. The gradient doubles as the parameter, because it is read before it is
        # overwritten; separate memory would add a fifth to the traffic.
        torch._fused_adamw_(
            [grad_KP],
            [grad_KP],
            [mean],
            [square],
            [],
            [self.late],
            lr=1.0,
            beta1=self.BETA1,
            beta2=self.BETA2,
            weight_decay=1.0,
            eps=self.EPSILON,
            amsgrad=False,
            maximize=False,
        )
        return grad_KP

    def curvature(self) -> Tensor:
        _, square = self.moments
        return square.sqrt().add_(self.EPSILON)

    @staticmethod
    @lru_cache(maxsize=16)
    def bias_corrections(first: int, count: int) -> NDArray[np.float64]:
        steps = np.arange(first, first + count)
        return np.sqrt(1 - Adam.BETA2**steps) / (1 - Adam.BETA1**steps)


class RMSprop(Rule):
    """Gradients divided by the root of their running mean square (Tieleman and Hinton 2012)."""

    n_moments = 1
    DECAY, EPSILON = 0.99, 1e-8

    def direction(self, grad_KP: Tensor) -> Tensor:
        (square,) = self.moments
        square.mul_(self.DECAY).addcmul_(grad_KP, grad_KP, value=1 - self.DECAY)
        return grad_KP.div(self.curvature()).neg_()

    def curvature(self) -> Tensor:
        (square,) = self.moments
        return square.sqrt().add_(self.EPSILON)


class SGD(Rule):
    """Gradient descent with momentum, of Nesterov's kind if wanted (Sutskever et al. 2013)."""

    n_moments = 1
    has_nesterov = True

    def direction(self, grad_KP: Tensor) -> Tensor:
        (velocity,) = self.moments
        velocity.mul_(self.momentum_K1).sub_(grad_KP)
        return torch.addcmul(-grad_KP, velocity, self.momentum_K1) if self.kind.nesterov else velocity

    def curvature(self) -> Tensor:
        # Momentum adds a steady gradient up to 1 / (1 - momentum) times itself.
        return 1 - self.momentum_K1


class Muon(Adam):
    """Momentum whose singular values are all made alike, for the weights of all layers but the last; Adam for the rest.

    A gradient is mostly of a few directions, and so all the others are learned as fast. Nesterov's momentum, as in the
    original (Jordan et al. 2024); one rate for matrices of all shapes.
    """

    # With so short a memory the bias corrections nearly cancel each other and are left out: matrices have none.
    BETA2 = 0.95
    #: Learning rate of matrices over that of Adam: 0.021 for 0.003, by measurement on images.
    MATRIX_RATE = 7.0

    #: Nesterov's momentum of each matrix at the last step.
    ahead: list[Tensor]

    def direction(self, grad_KP: Tensor) -> Tensor:
        # The direction is going to take the gradient's place.
        grads = [self._matrix(slot, grad_KP).clone() for slot in self.matrices]
        direction = super().direction(grad_KP)
        mean, _ = self.moments
        self.ahead = [
            grad_KRC.lerp_(self._matrix(slot, mean), self.BETA1)
            for slot, grad_KRC in zip(self.matrices, grads, strict=True)
        ]
        for slot, ahead_KRC in zip(self.matrices, self.ahead, strict=True):
            direction[:, slot.start : slot.stop] = orthogonalized(ahead_KRC).flatten(1).mul_(-self.MATRIX_RATE)
        return direction

    def curvature(self) -> Tensor:
        curvature = super().curvature()
        for slot, ahead_KRC in zip(self.matrices, self.ahead, strict=True):
            # An orthogonal factor is the matrix over its singular values where those are alike: over their root mean
            # square, then.
            spread_K1 = torch.linalg.matrix_norm(ahead_KRC).div(min(ahead_KRC.shape[1:]) ** 0.5).unsqueeze(1)
            curvature[:, slot.start : slot.stop] = spread_K1.add(self.EPSILON) / self.MATRIX_RATE
        return curvature

    @staticmethod
    def _matrix(slot: Slot, values_KP: Tensor) -> Tensor:
        """A layer's weights, or numbers like them, ``(K, R, C)``."""
        return values_KP[:, slot.start : slot.stop].unflatten(1, (slot.shape[0], -1))

    @staticmethod
    @lru_cache(maxsize=16)
    def bias_corrections(first: int, count: int) -> NDArray[np.float64]:
        return np.ones(count)


RULES: dict[str, type[Rule]] = {"adamw": Adam, "adam": Adam, "sgd": SGD, "rmsprop": RMSprop, "muon": Muon}


def _vector(values: Sequence[float], like: Tensor) -> Tensor:
    """Values ``(K, 1)``."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)


def _penalty(values: Sequence[float], like: Tensor) -> Tensor | None:
    """Values ``(K, 1)`` of a penalty; None where no model has it."""
    return _vector(values, like) if any(values) else None


class StackedOptimizer:
    """One optimiser step for K models.

    Parameters
    ----------
    kind : OptimizerKind
    settings : sequence of Settings
        One per model. The loss gets ``l1 * sum|w| + l2 / 2 * sum w^2``; the l1 part by a proximal step, so that weights
        become exactly zero.
    theta_KP : Tensor
        The parameters, changed in place.
    moments : list of Tensor
        What the rule carries from step to step, like ``theta_KP``.
    n_weights : int
        How many of the leading parameters are weights: penalties and decay act on those alone.
    rate_factors_P : Tensor, optional
        What the learning rate of each parameter is multiplied by, in weight decay and the proximal step too; by
        default 1. A parameter with a factor of 0 stays as it is.
    matrices : sequence of Slot, default=()
        Where the weights of all layers but the last lie.
    """

    def __init__(
        self,
        kind: OptimizerKind,
        settings: Sequence[Settings],
        theta_KP: Tensor,
        moments: list[Tensor],
        n_weights: int,
        *,
        rate_factors_P: Tensor | None = None,
        matrices: Sequence[Slot] = (),
    ) -> None:
        self.theta_KP = theta_KP
        self.n_weights = n_weights
        self.weights = theta_KP[:, :n_weights]
        self.rule = RULES[kind.name](kind, moments, _vector([s.momentum for s in settings], theta_KP), matrices)
        self.l1 = _penalty([s.l1 for s in settings], theta_KP)
        self.l2 = _penalty([s.l2 for s in settings], theta_KP)
        self.weight_decay = _penalty([s.weight_decay for s in settings], theta_KP)
        self.rate_factors_P = None if rate_factors_P is None else rate_factors_P.to(theta_KP)
        if self.rate_factors_P is not None and (self.rate_factors_P[:n_weights] != 1).any():
            self.l1, self.weight_decay = (
                None if penalty is None else penalty * self.rate_factors_P[:n_weights]
                for penalty in (self.l1, self.weight_decay)
            )
        clips = [np.inf if s.gradient_clip is None else s.gradient_clip for s in settings]
        self.gradient_clip = _vector(clips, theta_KP) if np.isfinite(clips).any() else None

    def step(self, grad_KP: Tensor, learning_rates: Rates, step_sizes: Rates) -> None:
        """Change the parameters; ``step_sizes`` are the learning rates times the rule's bias corrections."""
        if self.l2 is not None:
            grad_KP[:, : self.n_weights].addcmul_(self.weights, self.l2)
        if self.gradient_clip is not None:
            norm = torch.linalg.vector_norm(grad_KP, dim=1, keepdim=True)
            grad_KP.mul_((self.gradient_clip / norm.clamp(min=1e-12)).clamp(max=1))
        if self.weight_decay is not None:
            self.weights.mul_(1 - learning_rates * self.weight_decay)
        direction = self.rule.direction(grad_KP)
        if self.rate_factors_P is not None:
            # A new tensor: the direction may be the rule's own memory.
            direction = direction * self.rate_factors_P
        if isinstance(step_sizes, float):
            self.theta_KP.add_(direction, alpha=step_sizes)
        else:
            self.theta_KP.addcmul_(direction, step_sizes)
        if self.l1 is not None:
            self._shrink(step_sizes * self.l1)

    def _shrink(self, threshold: Tensor) -> None:
        threshold = threshold / self.rule.curvature()[:, : self.n_weights]
        self.weights.sub_(self.weights.clamp(-threshold, threshold))
