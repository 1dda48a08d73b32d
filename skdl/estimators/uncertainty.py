"""Standard deviations of regressors' predictions, learned in ``fit`` from the errors of held-out rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from skdl.data.sampling import sample_rows
from skdl.engine.job import Result
from skdl.estimators.checks import FitData
from skdl.estimators.training import caller_level

#: Training rows from which the networks' disagreement on known rows is learned.
SPREAD_ROWS = 1000


class HeldOut(NamedTuple):
    """Rows that networks did not train on: their targets, what the networks said of them, and their weights."""

    y: NDArray[np.float64]
    predicted: NDArray[np.float64]
    weight: NDArray[np.float64] | None


class SpreadMixin:
    """Errors of a regressor: its networks' errors on rows they did not train on, and where they disagree."""

    _task: Any
    _member_outputs: Callable[[Any], NDArray[np.float64]]
    _combined: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    loss: Any
    out_of_fold_: Any
    #: Part of the variance of errors that disagreement does not explain; None where the last fit had no validation.
    _unexplained: NDArray[np.float64] | None = None

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict values.

        Parameters
        ----------
        {X}
        return_std : bool, default=False
            Whether to also return the standard deviation of each prediction's error.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets); (..., n_quantiles) for several quantiles
            Values in the units of y as float64.
        std : ndarray like y
            Only if ``return_std``: the square root of the sum of two variances, that between the networks at the
            sample, and the part of the squared error on held-out or validation rows that the first one does not
            explain, in the units of y. Without such rows in the last ``fit``, only the first variance is used, with a
            warning.

        Raises
        ------
        {X_errors}
        ValueError
            If ``return_std`` with ``loss="quantile"``, or with neither held-out or validation rows nor several
            networks.
        """
        if not return_std:
            return super().predict(X)  # type: ignore[misc]
        outputs = self._member_outputs(X)
        if self._task.is_classification:
            raise ValueError("return_std=True is for regression. predict_proba shows how certain a classifier is.")
        if self.loss == "quantile":
            raise ValueError(
                "return_std=True is for predicted means, and loss='quantile' predicts quantiles. Fit an estimator with "
                "loss='squared_error', or let quantiles show how certain each prediction is."
            )
        is_lone = outputs.ndim == 2
        unexplained = self._unexplained
        if unexplained is None and is_lone:
            raise ValueError(
                "return_std=True needs errors on rows that the network did not train on: fit with early_stopping=True, "
                "or with X_val and y_val."
            )
        if unexplained is None:
            warnings.warn(
                "No rows were held out in fit, so the standard deviation covers only the disagreement among the "
                "networks, not the noise in y. Fit with early_stopping=True, or with X_val and y_val.",
                UserWarning,
                stacklevel=caller_level(),
            )
        mean = self._task.decode(self._combined(outputs))
        variance = np.zeros_like(mean) if is_lone else self._spread(outputs)
        return mean, np.sqrt(variance if unexplained is None else variance + unexplained)

    def _spread(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance among the predictions of several networks, from their outputs, in the units of y."""
        return np.var([self._task.decode(output) for output in outputs], axis=0, ddof=1)

    def _learn_errors(self, data: FitData, validation: FitData | None, results: list[Result]) -> None:
        self._unexplained = None
        if self._task.is_classification:
            return
        held_out = self._held_out(data, validation, results)
        if held_out is None:
            return
        squared_error = np.average((held_out.y - held_out.predicted) ** 2, axis=0, weights=held_out.weight)
        explained = self._explained_in_validation if validation is not None else self._explained_out_of_fold
        self._unexplained = np.maximum(squared_error - explained(validation or data, results), 0)

    def _held_out(self, data: FitData, validation: FitData | None, results: list[Result]) -> HeldOut | None:
        """The validation rows, or those that networks held out; None without either."""
        if validation is not None:
            outputs = _validation_outputs(results)
            if outputs is None:
                return None
            predicted = self._task.decode(self._task.combine(outputs))
            return HeldOut(validation.y[validation.rows], predicted, validation.weight_of(validation.rows))
        if self.out_of_fold_ is None:
            return None
        known = self._held_out_rows()
        return HeldOut(data.y[known], self.out_of_fold_[known], data.weight_of(known))

    def _held_out_rows(self) -> NDArray[np.intp]:
        """The rows that some network held out."""
        return np.flatnonzero(np.isfinite(self.out_of_fold_.reshape(len(self.out_of_fold_), -1)[:, 0]))

    def _explained_out_of_fold(self, data: FitData, results: list[Result]) -> Any:
        """The part of the held-out rows' errors that the networks' disagreement explains."""
        n_networks = sum(bool(result.history) for result in results)
        # Of groups, most networks have seen the rows of X, and their disagreement there is not that on new groups.
        if n_networks == 1 or data.groups is not None:
            return 0.0
        sample = data.rows[sample_rows(len(data.rows), SPREAD_ROWS)]
        spread = self._spread(self._member_outputs(_safe_indexing(data.X, sample)))
        # A held-out prediction averages n_of_row networks, so its squared error contains spread / n_of_row; a new
        # prediction contains spread / n_networks. predict adds the whole spread, so (1 + 1 / n_of_row - 1 / n_networks)
        # times it is taken off. The spread on rows that most networks trained on is too small, which partly offsets the
        # optimism of epochs chosen on these rows.
        n_outputs = sum(len(outputs) for outputs in _known_outputs(results))
        n_of_row = n_outputs / len(self._held_out_rows())
        explained = np.average(spread, axis=0, weights=data.weight_of(sample))
        return (1 + 1 / n_of_row - 1 / n_networks) * explained

    def _explained_in_validation(self, validation: FitData, results: list[Result]) -> Any:
        """The part of the validation rows' errors that disagreement explains: they are errors of the mean already."""
        outputs = _validation_outputs(results)
        if outputs is None or len(outputs) == 1:
            return 0.0
        return np.average(self._spread(outputs), axis=0, weights=validation.weight_of(validation.rows))


def _validation_outputs(results: list[Result]) -> NDArray[np.float64] | None:
    """Outputs ``(M, n, O)`` of the networks for the validation rows."""
    known = _known_outputs(results)
    return np.stack(known).astype(np.float64) if known else None


def _known_outputs(results: list[Result]) -> list[NDArray]:
    """What each network put out for the rows that it was validated on, if there were any."""
    return [result.validation_outputs.numpy() for result in results if result.validation_outputs is not None]
