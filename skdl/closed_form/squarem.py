"""SQUAREM: fixed-point iterations such as expectation maximisation, by fewer and longer steps.

Axis: P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Largest step length of an extrapolation, where 1 is two plain iterations: beyond, rounding decides.
MAX_LENGTH = 1e6


def squarem(
    improved: Callable[[Tensor], tuple[Tensor, float]], theta_P: Tensor, min_gain: float, max_iterations: int
) -> Tensor:
    """Where a linearly converging iteration leads, by squared extrapolation (Varadhan and Roland 2008).

    Parameters
    ----------
    improved : callable
        The parameters after one iteration, and the objective of those before it, which no iteration makes smaller. It
        may raise LinAlgError where there is none.
    theta_P : Tensor of shape (P,)
        Where to start.
    min_gain : float
        It ends when two iterations and an extrapolation of them that was taken gain less than this: then there is
        little left to gain in any direction, however slow the iteration is in it.
    max_iterations : int
        About the most iterations, of which three are one step of this method.
    """
    longest = MAX_LENGTH
    for _ in range(0, max_iterations, 3):
        first_P, before = improved(theta_P)
        second_P, objective = improved(first_P)
        step_P, next_P = first_P - theta_P, second_P - first_P
        length = min(float(step_P.norm() / (next_P - step_P).norm().clamp(min=1e-300)), longest)
        leap_P = theta_P + 2 * length * step_P + length**2 * (next_P - step_P)
        try:
            theta_P, found = improved(leap_P)
        except torch.linalg.LinAlgError:
            found = -math.inf
        if found >= objective:
            longest = min(2 * longest, MAX_LENGTH)
            if found - before < min_gain:
                break
        else:
            # Of plain steps a small gain says little: they may be slow.
            theta_P, longest = second_P, max(length / 4, 1)
    return theta_P
