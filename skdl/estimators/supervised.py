"""The target side of estimators: what all classifiers share, and all regressors, whatever X is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions

from skdl.estimators.parameters import listed
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

CLASSIFICATION_LOSS_DOC = f"""
loss : {{{listed(CLASSIFICATION_LOSSES)}}} or callable, default="cross_entropy"
    "focal" gives easy samples less weight (Lin et al. 2017, gamma 2). A callable takes the logits of shape (n,
    n_classes) and the class indices (n,) as torch tensors and returns the loss of each sample; for multilabel targets
    it takes one logit per label and targets of 0 and 1.
"""

REGRESSION_LOSS_DOC = f"""
loss : {{{listed(REGRESSION_LOSSES)}}} or callable, default="squared_error"
    Losses apply to the standardised target; "huber" becomes linear beyond one standard deviation; "poisson" predicts
    the logarithm of the mean and needs non-negative targets. A callable takes predictions and standardised targets as
    torch tensors of shape (n,), or (n, n_outputs) if there are several targets, and returns the loss of each sample.
"""

#: Entries of training parameters that say less of one kind of target than of both.
CLASSIFICATION_TRAINING = {
    "validation_fraction": """
validation_fraction : float in (0, 1) or "auto", default="auto"
    Fraction of the rows that each network holds out at random, stratified by class except for multilabel targets. With
    "auto", several networks hold out one fold each, so that every row trains all networks but one; a single network
    holds out 10 %.
""",
    "tol": """
tol : float or "auto", default="auto"
    Minimum improvement of the score that counts for ``n_iter_no_change``. "auto" is 0.0001: the loss of classes that
    can be told apart without error would fall for hundreds of epochs.
""",
}
REGRESSION_TRAINING = {
    "validation_fraction": """
validation_fraction : float in (0, 1) or "auto", default="auto"
    Fraction of the rows that each network holds out at random, stratified by the rank of a single target. With "auto",
    several networks hold out one fold each, so that every row trains all networks but one; a single network holds out
    10 %.
""",
    "tol": """
tol : float or "auto", default="auto"
    Minimum improvement of the score that counts for ``n_iter_no_change``. "auto" is 0.
""",
}

CLASSIFICATION_FITTED = {
    "out_of_fold_": """
out_of_fold_ : ndarray of shape (n_samples, n_classes) or None
    Probabilities of the classes of each training sample, by networks that did not train on it, as in ``predict_proba``;
    NaN for samples that no network held out. None if no rows were held out.
""",
    "out_activation_": """
out_activation_ : str
    "logistic" for two classes and for multilabel targets, "softmax" otherwise.
""",
}
REGRESSION_FITTED = {
    "out_of_fold_": """
out_of_fold_ : ndarray of shape (n_samples,) or (n_samples, n_targets), or None
    Predicted values of each training sample, by networks that did not train on it; NaN for samples that no network held
    out. Quantiles are those of the networks, without the shift of ``predict``, and several are side by side along a
    last axis. None if no rows were held out.
""",
    "out_activation_": """
out_activation_ : str
    "identity".
""",
}

#: Sections of methods.
CLASSIFICATION_METHODS = {
    "training_y": """
y : array-like of shape (n_samples,) or (n_samples, n_labels)
    Labels, or 0 and 1 in a column for each of several labels.
sample_weight : array-like of shape (n_samples,), default=None
    Weight of each sample in the loss. Samples of weight 0 are ignored, except that their labels are classes.
""",
    "groups": """
groups : array-like of shape (n_samples,), default=None
    Groups of rows, such as the rows of one person. Each is held out as a whole, so that early stopping and
    ``out_of_fold_`` are about groups that are not in the training rows.
""",
    "explained_y": """
y : array-like of shape (n_samples,), default=None
    Labels whose logits are explained; None is the predicted ones. For multilabel targets, the column of the label for
    each sample; None is column 0.
""",
    "explained_y_errors": """
ValueError
    If ``method`` is not known, or y contains unknown labels or not one entry per sample.
""",
}
REGRESSION_METHODS = {
    "training_y": """
y : array-like of shape (n_samples,) or (n_samples, n_targets)
    Numbers.
sample_weight : array-like of shape (n_samples,), default=None
    Weight of each sample in the loss. Samples of weight 0 are ignored.
""",
    "groups": """
groups : array-like of shape (n_samples,), default=None
    Groups of rows, such as the rows of one person. Each is held out as a whole, so that early stopping,
    ``out_of_fold_`` and standard deviations are about groups that are not in the training rows.
""",
    "explained_y": """
y : array-like of shape (n_samples,), default=None
    Index of the output of the network that is explained, for each sample, such as that of a target; None is output 0.
    Outputs are in standardised units.
""",
    "explained_y_errors": """
ValueError
    If ``method`` is not known, or y contains numbers that are no index of an output or not one entry per sample.
""",
}


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

    _combined_outputs: Callable[[Any], NDArray[np.float64]]
    _task: Any

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes.

        Parameters
        ----------
        {X}

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``. For multilabel targets each column is the probability of its label.

        Raises
        ------
        {X_errors}

        Examples
        --------
        {predict_proba_example}
        """
        outputs = self._combined_outputs(X)
        return self._task.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        {X}

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``, computed from the logits, so that small probabilities do not become minus
            infinity.

        Raises
        ------
        {X_errors}
        """
        outputs = self._combined_outputs(X)
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
    ) -> Self:
        """Train for one epoch on some rows.

        There is no early stopping and no schedule.

        {partial_fit}

        Parameters
        ----------
        {training_X}
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels, or 0 and 1 in a column for each of several labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that any call will contain; required in the first call unless its y contains them all.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data is not valid, X is not like that of the first call, y has labels that neither
            ``classes`` nor the y of the first call names, ``classes`` differ from those of the first call, or the loss
            is not finite. The estimator is then as it was before.
        TypeError
            If X or y is of a type that is not supported.

        Warns
        -----
        UserWarning
            If the first call has fewer than 10 samples.

        Examples
        --------
        {partial_fit_example}
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

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch on some rows.

        There is no early stopping and no schedule. The first call fixes the scale of y.

        {partial_fit}

        Parameters
        ----------
        {training_X}
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data is not valid, X or y is not like that of the first call, or the loss is not
            finite. The estimator is then as it was before.
        TypeError
            If X or y is of a type that is not supported.

        Warns
        -----
        UserWarning
            If the first call has fewer than 10 samples.

        Examples
        --------
        {partial_fit_example}
        """
        return self._partial_fit(X, y, sample_weight, None)
