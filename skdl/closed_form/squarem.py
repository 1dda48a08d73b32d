"""SQUAREM: fixed-point iterations such as expectation maximisation, by fewer and longer steps.

Axis: P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: A step goes at least this share of the way, or an iteration would not be seen to end.
MIN_STEP_SHARE = 1e-6


def squarem(
    improved: Callable[[Tensor], tuple[Tensor, float]], theta_P: Tensor, rate: float, tolerance: float, most: int
) -> Tensor:
    """Where a linearly converging iteration leads, by squared extrapolation (Varadhan and Roland 2008).

    Parameters
    ----------
    improved : callable
        The parameters after one iteration, and the objective of those before it, which no iteration makes smaller. It
        may raise LinAlgError where there is none.
    theta_P : Tensor of shape (P,)
        Where to start.
    rate : float
        How much smaller than the last one a step is at least, if that is known; else 0.
    tolerance : float
        How far from the limit each parameter may be, as far as the last steps tell.
    most : int
        About the most iterations.
    """
    longest = math.inf
    for _ in range(0, most, 3):
        first_P, _ = improved(theta_P)
        second_P, objective = improved(first_P)
        step_P, next_P = first_P - theta_P, second_P - first_P
        # Extrapolation takes what shrinks slowest, of which the next steps tell little.
        rate = max(rate, float(next_P.norm() / step_P.norm().clamp(min=1e-300)))
        if _left(next_P, rate) <= tolerance:
            return second_P
        length = min(float(step_P.norm() / (next_P - step_P).norm().clamp(min=1e-300)), longest)
        leap_P = theta_P + 2 * length * step_P + length**2 * (next_P - step_P)
        try:
            theta_P, found = improved(leap_P)
        except torch.linalg.LinAlgError:
            found = -math.inf
        if not found >= objective:
            theta_P, longest = second_P, max(length / 4, 1)
            continue
        longest *= 2
        if _left(theta_P - leap_P, rate) <= tolerance:
            break
    return theta_P


def _left(step_P: Tensor, rate: float) -> float:
    """How far a parameter at most still goes after this step, if all steps shrink by this rate."""
    return float(step_P.abs().max()) * rate / max(1 - rate, MIN_STEP_SHARE)
