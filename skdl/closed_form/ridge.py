"""Ridge regression in closed form, with its predictions for held-out rows.

Axes: n rows, p features, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from skdl.data.folds import Fold, Rows
from skdl.data.types import Floats

#: Penalties that are tried, as multiples of one feature's sum of squares, from the middle outwards while it helps.
PENALTIES = np.logspace(-5, 3, 17)
#: The constant column, so large that the penalty hardly touches it.
CONSTANT = 100.0


@dataclass(frozen=True)
class Ridge:
    """A linear function of standardised features."""

    center: Floats
    factor: Floats
    coef: Floats

    def predict(self, features: NDArray) -> Floats:
        """Outputs ``(n, O)``."""
        return _columns(features, self.center, self.factor) @ self.coef


def _columns(features: NDArray, center: Floats, factor: Floats) -> Floats:
    """Standardised features and a constant."""
    return np.hstack([(features - center) * factor, np.full((len(features), 1), CONSTANT)])


class RidgeProblem:
    """Features and targets of a ridge regression that is solved for many penalties and sets of rows.

    The normal equations are those of the features or of the rows, whichever are fewer.

    Parameters
    ----------
    features : ndarray of shape (n, p)
    target : ndarray of shape (n, O)
    weight : ndarray of shape (n,), optional
    """

    def __init__(self, features: NDArray, target: NDArray, weight: Floats | None = None) -> None:
        self.center = np.average(features, axis=0, weights=weight)
        deviation = np.sqrt(np.average((features - self.center) ** 2, axis=0, weights=weight))
        # What hardly varies is rounding, or a step that few rows have: blown up, it would be noise.
        self.factor = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
        self.columns = _columns(features, self.center, self.factor)
        self.target = np.asarray(target, dtype=np.float64)
        self.weight = np.ones(len(features)) if weight is None else weight / weight.mean()
        self.rooted, self.rooted_target = self.columns, self.target
        if weight is not None:
            root = np.sqrt(self.weight)[:, None]
            self.rooted, self.rooted_target = self.columns * root, self.target * root
        n, p = self.columns.shape
        self.is_primal = p <= n
        self.gram = self.rooted.T @ self.rooted if self.is_primal else self.rooted @ self.rooted.T

    def coef(self, penalty: float, rows: Rows | None = None) -> Floats:
        """Coefficients ``(p + 1, O)`` from some rows, by default all of them."""
        kept = np.ones(len(self.columns), dtype=bool)
        if rows is not None:
            kept[:] = False
            kept[rows] = True
        rooted, target = self.rooted[kept], self.rooted_target[kept]
        if self.is_primal:
            left_out = self.rooted[~kept]
            return _solved(self.gram - left_out.T @ left_out, penalty * len(rooted), rooted.T @ target)
        gram = self.gram[np.ix_(kept, kept)]
        return rooted.T @ _solved(gram, penalty * len(rooted), target)

    def out_of_fold(self, penalty: float, folds: Sequence[Fold]) -> Floats:
        """Outputs ``(n, O)`` of each held-out row by a regression on the training rows of its fold."""
        outputs = np.zeros_like(self.target)
        for fold in folds:
            outputs[fold.held_out] = self.columns[fold.held_out] @ self.coef(penalty, fold.train)
        return outputs

    def solved(self, penalty: float) -> Ridge:
        """The regression on all rows."""
        return Ridge(self.center, self.factor, self.coef(penalty))


def _solved(gram: Floats, penalty: float, right: Floats) -> Floats:
    gram[np.diag_indices_from(gram)] += penalty
    return cho_solve(cho_factor(gram, lower=True, overwrite_a=True, check_finite=False), right, check_finite=False)


def best_penalty(problem: RidgeProblem, folds: Sequence[Fold]) -> tuple[float, Floats, float]:
    """The penalty of the smallest squared error on held-out rows, the outputs ``(n, O)`` for those, and the error.

    The error falls and rises again along the penalties, so that the search ends where it rises on both sides. Rows that
    no fold holds out have outputs of 0.
    """
    held_out = np.unique(np.concatenate([fold.held_out for fold in folds]))
    known: dict[int, tuple[float, Floats]] = {}

    def error(place: int) -> float:
        if place not in known:
            outputs = problem.out_of_fold(PENALTIES[place], folds)
            squares = (outputs[held_out] - problem.target[held_out]) ** 2
            known[place] = float(np.average(squares.mean(axis=1), weights=problem.weight[held_out])), outputs
        return known[place][0]

    best = len(PENALTIES) // 2
    for step in (4, 2, 1):
        nearest = -1
        while nearest != best:
            best = best if nearest < 0 else nearest
            near = [place for place in (best, best - step, best + step) if 0 <= place < len(PENALTIES)]
            nearest = min(near, key=error)
    return float(PENALTIES[best]), known[best][1], known[best][0]
