"""The target side of estimators: what all classifiers share, and all regressors, whatever X is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions

from skdl.data.sampling import sample_rows
from skdl.engine.job import Result
from skdl.estimators.training import caller_level
from skdl.estimators.validation import FitData
from skdl.tasks.classification import ClassificationTask
from skdl.tasks.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, has_log_link
from skdl.tasks.regression import RegressionTask

CLASSIFICATION_DOC = """
label_smoothing : float in [0, 1), default=0
    Fraction of each label's probability that is spread over all classes in training, under "cross_entropy".
class_weight : dict, "balanced" or None, default=None
    Weights of the classes in the loss. "balanced" weights classes by their inverse frequency, in ``partial_fit`` among
    the rows of each call.
"""

QUANTILE_DOC = """
quantile : float in (0, 1), default=0.5
    Quantile that ``loss="quantile"`` predicts.
"""

CLASSIFICATION_LOSS_DOC = """
loss : {"cross_entropy", "focal"} or callable, default="cross_entropy"
    "focal" gives easy samples less weight (Lin et al. 2017, gamma 2). A callable takes the logits of shape (n,
    n_classes) and the class indices (n,) as torch tensors and returns the loss of each sample; for multilabel targets
    it takes one logit per label and targets of 0 and 1.
"""

REGRESSION_LOSS_DOC = """
loss : {"squared_error", "absolute_error", "huber", "quantile", "poisson"} or callable, default="squared_error"
    Losses apply to the standardised target; "huber" becomes linear beyond one standard deviation; "poisson" predicts
    the logarithm of the mean and needs non-negative targets. A callable takes predictions and standardised targets as
    torch tensors of shape (n,), or (n, n_outputs) if there are several targets, and returns the loss of each sample.
"""


def classification_task(loss: Any, label_smoothing: float) -> ClassificationTask:
    """The task of a classifier, whose loss and label smoothing must go together."""
    if label_smoothing > 0 and loss != "cross_entropy":
        raise ValueError(
            f"label_smoothing={label_smoothing} requires loss='cross_entropy'. Got loss={loss!r}; "
            "set label_smoothing=0."
        )
    return ClassificationTask(loss)


CLASSIFICATION_CONSTRAINTS = {
    "loss": [StrOptions(set(CLASSIFICATION_LOSSES)), callable],
    "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    "class_weight": [None, dict, StrOptions({"balanced"})],
}
REGRESSION_CONSTRAINTS = {
    "loss": [StrOptions(set(REGRESSION_LOSSES)), callable],
    "quantile": [Interval(Real, 0, 1, closed="neither")],
}


#: Training rows from which the networks' disagreement on known rows is learned.
SPREAD_ROWS = 1000


class SpreadMixin:
    """How sure regressors are: their networks' errors on rows they did not train on, and where they disagree."""

    _task: Any
    _outputs: Callable[[Any], NDArray[np.float64]]
    _network_outputs: Callable[[Any], NDArray[np.float64]]
    out_of_fold_: Any
    #: Part of the variance of errors that disagreement does not explain; None where the last fit had no validation.
    _unexplained: NDArray[np.float64] | None = None

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict values.

        Parameters
        ----------
        X : array-like, DataFrame, images or series
            Samples, as in ``fit``.
        return_std : bool, default=False
            Whether to also return the standard deviation of each prediction's error.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Values in the units of y as float64.
        std : ndarray like y
            Only if ``return_std``: the square root of the sum of two variances, that between the networks at the
            sample, and the part of the squared error on held-out or validation rows that the first one does not
            explain, in the units of y. Without such rows in the last ``fit``, only the first variance is used, with a
            warning.

        Raises
        ------
        ValueError
            If ``return_std`` and there were neither held-out or validation rows nor several networks.
        """
        if not return_std:
            return super().predict(X)  # type: ignore[misc]
        outputs = self._network_outputs(X)
        if not isinstance(self._task, RegressionTask):
            raise ValueError("return_std=True is for regression. predict_proba shows how certain a classifier is.")
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
        mean = self._task.decode(outputs if is_lone else self._task.combine(outputs))
        variance = np.zeros_like(mean) if is_lone else self._spread(outputs)
        return mean, np.sqrt(variance if unexplained is None else variance + unexplained)

    def _spread(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance among the predictions of several networks, from their outputs, in the units of y."""
        return np.var([self._task.decode(output) for output in outputs], axis=0, ddof=1)

    def _learn_errors(self, data: FitData, validation: FitData | None, results: list[Result]) -> None:
        self._unexplained = None
        if not isinstance(self._task, RegressionTask):
            return
        if validation is not None:
            self._unexplained = self._unexplained_in_validation(validation, results)
        elif self.out_of_fold_ is not None:
            self._unexplained = self._unexplained_out_of_fold(data, results)

    def _unexplained_out_of_fold(self, data: FitData, results: list[Result]) -> NDArray[np.float64] | None:
        # A band of quantiles is no single value that has an error.
        if self.out_of_fold_.shape != data.y.shape:
            return None
        known = np.flatnonzero(np.isfinite(self.out_of_fold_.reshape(len(data.y), -1)[:, 0]))
        error = (data.y[known] - self.out_of_fold_[known]) ** 2
        explained: Any = 0.0
        n_networks = sum(bool(result.history) for result in results)
        if n_networks > 1:
            sample = data.rows[sample_rows(len(data.rows), SPREAD_ROWS)]
            spread = self._spread(self._network_outputs(_safe_indexing(data.X, sample)))
            # In a single network's error its variance is once, in that of the mean of them one part in so many. Rows
            # that most networks have seen show less of it than new ones do, which makes up for a part of what best
            # epochs that these errors have chosen hide.
            explained = (2 - 1 / n_networks) * np.average(spread, axis=0, weights=data.weight_of(sample))
        return np.maximum(np.average(error, axis=0, weights=data.weight_of(known)) - explained, 0)

    def _unexplained_in_validation(self, validation: FitData, results: list[Result]) -> NDArray[np.float64] | None:
        known = [result.validation_outputs.numpy() for result in results if result.validation_outputs is not None]
        if not known:
            return None
        outputs = np.stack(known).astype(np.float64)
        values = self._task.decode(self._task.combine(outputs))
        y, weight = validation.y[validation.rows], validation.weight_of(validation.rows)
        # A band of quantiles is no single value that has an error.
        if values.shape != y.shape:
            return None
        squared_error = (values - y) ** 2
        # These are errors of the mean of the networks already.
        explained = self._spread(outputs) if len(outputs) > 1 else 0.0
        return np.maximum(np.average(squared_error - explained, axis=0, weights=weight), 0)


class ProbabilityMixin:
    """Probabilities of classifiers."""

    _outputs: Callable[[Any], NDArray[np.float64]]
    _task: Any

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like, DataFrame, images or series
            Samples, as in ``fit``.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``. For multilabel targets each column is the probability of its label.
        """
        outputs = self._outputs(X)
        return self._task.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like, DataFrame, images or series
            Samples, as in ``fit``.

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes)
            Computed from the logits, so that small probabilities do not become minus infinity.
        """
        outputs = self._outputs(X)
        return self._task.log_probabilities(outputs)


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkClassifierMixin(ClassifierMixin, ProbabilityMixin):
    """What classifiers of every family share."""

    loss: Any = "cross_entropy"
    label_smoothing: Any = 0.0
    class_weight: Any = None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _make_task(self) -> ClassificationTask:
        return classification_task(self.loss, self._loss_setting("label_smoothing"))

    def partial_fit(
        self, X: Any, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Train for one epoch on some rows.

        The first call fixes how X is encoded, such as categories and scales: give it a representative batch. There is
        no early stopping and no schedule.

        Recurrent networks only: the ridge regression of ``skip`` and the blend weights are not trained. They stay as
        ``fit`` left them; without an earlier ``fit`` there are none.

        Parameters
        ----------
        X : array-like, DataFrame, images or series
            Training data, as in ``fit``.
        y : array-like of shape (n_samples,)
            Target.
        classes : array-like of shape (n_classes,), default=None
            All labels that any call will contain; required in the first call unless its y contains them all.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        return self._partial_fit(X, y, sample_weight, classes)


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkRegressorMixin(RegressorMixin, SpreadMixin):
    """What regressors of every family share."""

    loss: Any = "squared_error"
    quantile: float = 0.5

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = has_log_link(self.loss)
        return tags

    def _make_task(self) -> RegressionTask:
        return RegressionTask(self.loss)

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Train for one epoch on some rows.

        The first call fixes how X is encoded, such as categories and scales, and the scale of y: give it a
        representative batch. There is no early stopping and no schedule.

        Recurrent networks only: the ridge regression of ``skip`` and the blend weights are not trained. They stay as
        ``fit`` left them; without an earlier ``fit`` there are none.

        Parameters
        ----------
        X : array-like, DataFrame, images or series
            Training data, as in ``fit``.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        return self._partial_fit(X, y, sample_weight, None)
