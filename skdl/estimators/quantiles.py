"""Regressors that predict a quantile, or several at once.

Axes: n samples, T targets, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import Interval

from skdl.data.moments import weighted_quantiles
from skdl.engine.job import Result
from skdl.estimators.checks import FitData
from skdl.estimators.uncertainty import HeldOut, SpreadMixin
from skdl.tasks.regression import QuantilesTask, RegressionTask

QUANTILES_DOC = """
quantile : float in (0, 1), default=0.5
    Quantile that ``loss="quantile"`` predicts.
quantiles : tuple of float or None, default=None
    Quantiles, in increasing order, that ``loss="quantile"`` predicts at once, instead of ``quantile``. They never
    cross. scikit-learn's metrics take one value per target: leave ``scoring``, here and in searches, at None, or pass a
    callable ``scorer(estimator, X, y)`` that selects a quantile. After ``fit`` each quantile, also the one of
    ``quantile``, is shifted by a constant, so that the share of held-out or validation rows below it is right, provided
    that at least five of those rows should lie beyond it (in the manner of Romano, Patterson and Candes 2019);
    ``partial_fit`` keeps that shift.
"""

QUANTILES_CONSTRAINTS = {
    "quantile": [Interval(Real, 0, 1, closed="neither")],
    "quantiles": [None, "array-like"],
}

#: Fewest held-out rows that should lie beyond a quantile for it to be corrected by them.
MIN_TAIL_ROWS = 5


@dataclass(kw_only=True, eq=False, repr=False)
class QuantilesMixin(SpreadMixin):
    """One quantile, or several: their task, and what single values are asked for in their place."""

    quantile: float = 0.5
    quantiles: Any = None

    def _regression_task(self, loss: Any) -> RegressionTask:
        if self.quantiles is None:
            return RegressionTask(loss, self.quantile if loss == "quantile" else None)
        if loss != "quantile":
            raise ValueError(f"quantiles requires loss='quantile'. Got loss={loss!r}; set it, or quantiles=None.")
        levels = [float(level) for level in self.quantiles if isinstance(level, Real)]
        rises = all(low < high for low, high in pairwise([0, *levels, 1]))
        if len(levels) < max(len(self.quantiles), 1) or not rises:
            raise ValueError(f"quantiles must be numbers that rise between 0 and 1. Got {self.quantiles!r}.")
        return QuantilesTask(tuple(levels))

    def _prepare(self, data: FitData, train_rows: NDArray[np.intp], classes: ArrayLike | None = None) -> None:
        super()._prepare(data, train_rows, classes)  # type: ignore[misc]
        if isinstance(self._task, RegressionTask):
            # Of a fit that goes on: it is learned anew.
            self._task.shift = 0.0

    def _learn_errors(self, data: FitData, validation: FitData | None, results: list[Result]) -> None:
        if self.loss != "quantile":
            super()._learn_errors(data, validation, results)
            return
        self._unexplained = None
        held_out = self._held_out(data, validation, results)
        if held_out is not None:
            self._task.shift = self._shift(held_out)

    def _shift(self, held_out: HeldOut) -> NDArray[np.float64]:
        """What leaves each quantile's share of held-out targets ``(n, T)`` below its prediction, ``(T, Q)``.

        Networks know their training rows better than new ones, for which bands of theirs are too narrow.
        """
        levels = np.array(self._task.levels or [self.quantile])
        n_rows, weight = len(held_out.y), held_out.weight
        y_nT = held_out.y.reshape(n_rows, -1)
        error_nTQ = y_nT[:, :, np.newaxis] - held_out.predicted.reshape(n_rows, y_nT.shape[1], -1)
        shift_QT = [weighted_quantiles(error_nTQ[:, :, q], level, weight) for q, level in enumerate(levels)]
        # As many rows of one weight are as sure.
        n_even = n_rows if weight is None else weight.sum() ** 2 / np.square(weight).sum()
        has_tail_Q = np.round(n_even * np.minimum(levels, 1 - levels), 6) >= MIN_TAIL_ROWS
        return np.where(has_tail_Q, np.transpose(shift_QT), 0)

    def _check_scoring(self) -> Callable[..., float]:
        scorer = super()._check_scoring()  # type: ignore[misc]
        metric = getattr(scorer, "_score_func", None)
        if (
            self.loss == "quantile"
            and self.quantiles is not None
            and getattr(metric, "__module__", "").startswith("sklearn.metrics")
        ):
            scoring = self.scoring  # type: ignore[attr-defined]
            raise ValueError(
                f"scoring={scoring!r} takes one value per target, but quantiles={self.quantiles!r} predicts "
                f"{len(self.quantiles)}. Set scoring=None for the loss of the quantiles, or pass a callable "
                "scorer(estimator, X, y)."
            )
        return scorer

    def _middle(self, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions, of several quantiles those of the one nearest to the median."""
        if self.quantiles is None:
            return predictions
        return predictions[..., int(np.abs(np.asarray(self.quantiles, dtype=float) - 0.5).argmin())]

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Coefficient of determination, of the quantile nearest to the median where there are several.

        Parameters
        ----------
        {X}
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the score.

        Returns
        -------
        score : float
            The larger the better, at most 1.

        Raises
        ------
        {X_errors}
        """
        if self.quantiles is None:
            return RegressorMixin.score(self, X, y, sample_weight)
        from sklearn.metrics import r2_score

        return r2_score(y, self._middle(self.predict(X)), sample_weight=sample_weight)
