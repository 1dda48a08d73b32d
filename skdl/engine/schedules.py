"""Learning-rate schedules: the factor on the learning rate as a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Progress = NDArray[np.float64]

#: Divisor of the learning rate at the first step of the one-cycle schedule (Smith and Topin 2018).
ONE_CYCLE_START = 25.0
#: Divisor of the learning rate at the end of the one-cycle schedule.
ONE_CYCLE_END = 1e4
#: Progress, from 0 to 1, at which the one-cycle schedule has its full learning rate.
ONE_CYCLE_PEAK = 0.3
#: What the step schedule multiplies the learning rate by at each step down.
STEP_FACTOR = 0.1
#: Progress from one step down of the step schedule to the next.
STEP_FRACTION = 1 / 3
#: Factor on the learning rate at the end of the exponential schedule.
EXPONENTIAL_END = 0.01
#: What the plateau rule multiplies the learning rate by.
PLATEAU_FACTOR = 0.5
#: Epochs without a smaller loss, or a better validation score, after which the plateau rule does so.
PLATEAU_PATIENCE = 5


def _half_cosine(progress: Progress) -> Progress:
    return (1 + np.cos(np.pi * progress)) / 2


def _one_cycle(progress: Progress) -> Progress:
    rise = (progress / ONE_CYCLE_PEAK).clip(max=1)
    fall = ((progress - ONE_CYCLE_PEAK) / (1 - ONE_CYCLE_PEAK)).clip(min=0)
    rising = 1 / ONE_CYCLE_START + (1 - 1 / ONE_CYCLE_START) * _half_cosine(1 - rise)
    falling = 1 / ONE_CYCLE_END + (1 - 1 / ONE_CYCLE_END) * _half_cosine(fall)
    return np.where(progress < ONE_CYCLE_PEAK, rising, falling)


class Shape(NamedTuple):
    """The course of a schedule."""

    #: The factor at a progress in [0, 1).
    factor: Callable[[Progress], Progress]
    #: Whether the factor is 1 throughout.
    is_constant: bool = False
    #: Whether a :class:`PlateauRule` lowers the learning rate by the loss.
    has_plateau_rule: bool = False


#: The shape of each schedule, by its name. A new schedule is one entry here.
SHAPES = {
    "constant": Shape(np.ones_like, is_constant=True),
    "cosine": Shape(_half_cosine),
    "one_cycle": Shape(_one_cycle),
    "step": Shape(lambda progress: STEP_FACTOR ** np.floor(progress / STEP_FRACTION)),
    "exponential": Shape(lambda progress: EXPONENTIAL_END**progress),
    "plateau": Shape(np.ones_like, is_constant=True, has_plateau_rule=True),
}


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves over a training of ``n_steps`` steps.

    Parameters
    ----------
    kind : str
        A key of ``SHAPES``.
    warmup : float in [0, 1)
        Share of the steps over which the learning rate first rises in a straight line.
    """

    kind: str = "constant"
    warmup: float = 0.0

    def factors(self, first: int, count: int, n_steps: int) -> Progress:
        """The factors of steps ``first`` to ``first + count - 1``."""
        shape = SHAPES[self.kind]
        if shape.is_constant and self.warmup == 0:
            return np.ones(count)
        steps = np.arange(first, first + count, dtype=np.float64)
        n_warmup = self.warmup * n_steps
        progress = ((steps - n_warmup) / max(n_steps - n_warmup, 1)).clip(0, 1)
        factors = shape.factor(progress)
        if n_warmup > 0:
            factors = np.where(steps < n_warmup, shape.factor(np.zeros(1)) * (steps + 1) / (n_warmup + 1), factors)
        return factors


class PlateauRule:
    """Halves the learning rate whenever the loss, or the validation score, has not improved for five epochs."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.best = np.inf
        self.epochs_since_best = 0

    def update(self, loss: float) -> None:
        if loss < self.best:
            self.best, self.epochs_since_best = loss, 0
            return
        self.epochs_since_best += 1
        if self.epochs_since_best >= PLATEAU_PATIENCE:
            self.factor *= PLATEAU_FACTOR
            self.epochs_since_best = 0
