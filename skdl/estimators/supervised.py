"""The target side of estimators: what all classifiers share, and all regressors, whatever X is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions

from skdl.estimators.quantiles import QUANTILES_CONSTRAINTS, QuantilesMixin
from skdl.tasks.classification import ClassificationTask
from skdl.tasks.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, has_log_link, takes_label_smoothing
from skdl.tasks.regression import RegressionTask

CLASSIFICATION_DOC = """
label_smoothing : float in [0, 1), default=0
    Fraction of each label's probability that is spread over all classes in training, under "cross_entropy".
class_weight : dict, "balanced" or None, default=None
    Weights of the classes in the loss. "balanced" weights classes by their inverse frequency, in ``partial_fit`` among
    the rows of each call.
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
    if label_smoothing > 0 and not takes_label_smoothing(loss):
        fitting = " or ".join(f"loss={name!r}" for name in CLASSIFICATION_LOSSES if takes_label_smoothing(name))
        raise ValueError(
            f"label_smoothing={label_smoothing} requires {fitting}. Got loss={loss!r}; set label_smoothing=0."
        )
    return ClassificationTask(loss)


CLASSIFICATION_CONSTRAINTS = {
    "loss": [StrOptions(set(CLASSIFICATION_LOSSES)), callable],
    "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    "class_weight": [None, dict, StrOptions({"balanced"})],
}
REGRESSION_CONSTRAINTS = {
    "loss": [StrOptions(set(REGRESSION_LOSSES)), callable],
    **QUANTILES_CONSTRAINTS,
}


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
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
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
class NetworkRegressorMixin(QuantilesMixin, RegressorMixin):
    """What regressors of every family share."""

    loss: Any = "squared_error"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = has_log_link(self.loss)
        return tags

    def _make_task(self) -> RegressionTask:
        return self._regression_task(self.loss)

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
