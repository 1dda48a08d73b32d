"""Labels to training targets, network outputs to probabilities and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from torch import Tensor

from skdl.tasks.losses import CLASSIFICATION_LOSSES, CustomLoss, Loss
from skdl.tasks.task import Task

#: Most labels that an error names.
MAX_NAMED_LABELS = 10
#: Outputs of an ensemble that are combined at a time.
CHUNK_NUMBERS = 1_000_000


def label_type_error(labels: NDArray, name: str = "y") -> ValueError:
    """What is wrong with an array of objects as labels."""
    types = sorted({type(cell).__name__ for cell in labels.flat})
    if len(types) == 1 and types[0] in ("bool", "int"):
        return ValueError(
            f"Unknown label type: {name} is an object array of values that are all of type {types[0]}. Pass "
            f"{name}.astype({types[0]})."
        )
    return ValueError(
        f"Unknown label type: {name} contains values of type {', '.join(types)}. Labels must be all strings, all "
        f"integers or all booleans: convert them, for example by {name}.astype(str)."
    )


class ClassificationTask(Task):
    """Binary, multiclass and multilabel targets.

    Parameters
    ----------
    loss : str or callable
        A name in ``CLASSIFICATION_LOSSES``, or a function of ``(logits, target)``. A function sees one logit per
        class, also where there are two classes, and targets of class indices; for multilabel targets one logit
        per label and targets of 0 and 1.
    """

    is_classification = True

    def __init__(self, loss: str | Callable[[Tensor, Tensor], Tensor]) -> None:
        self.loss_parameter = loss

    def fit(self, y: NDArray, classes: ArrayLike | None = None) -> ClassificationTask:
        """Learn the classes. ``classes`` names them where ``y`` may not hold them all."""
        kind = type_of_target(y)
        if kind.startswith("continuous"):
            raise ValueError(
                f"Unknown label type: {kind}. Classification takes labels; for numbers use "
                "the regressor of the same family, or MLPEstimator(task='regression')."
            )
        if kind == "unknown":
            raise label_type_error(y)
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            # Raises scikit-learn's error for the remaining types of targets.
            check_classification_targets(y)
        self.is_multilabel = kind.startswith("multilabel")
        if y.ndim > 1 and not self.is_multilabel:
            raise ValueError(
                "y has several columns of several classes each, which one network cannot predict. Fit a classifier for "
                "each column, as sklearn.multioutput.MultiOutputClassifier does."
            )
        if self.is_multilabel:
            self.classes = np.arange(y.shape[1]) if classes is None else np.asarray(classes)
        else:
            self.classes = np.unique(y if classes is None else np.asarray(classes))
        own = callable(self.loss_parameter)
        #: Two classes take one logit, that of the second class.
        self.is_binary = not self.is_multilabel and len(self.classes) == 2 and not own
        self.n_outputs = 1 if self.is_binary else len(self.classes)
        return self

    @property
    def label_values(self) -> NDArray:
        """What ``classes_`` is: the classes; of two labels per sample 0 and 1 for each, ``(2, 2)``.

        Scorers would take two labels of a sample for two classes that exclude each other.
        """
        return np.array([[0, 1], [0, 1]]) if self.is_multilabel and len(self.classes) == 2 else self.classes

    def continue_as(self, task: Self) -> None:
        """Go on with the loss of another task, for as many outputs.

        Raises
        ------
        ValueError
            If one of both losses takes one logit for two classes and the other one two.
        """
        loss = task.loss_parameter
        if len(self.classes) == 2 and not self.is_multilabel and callable(loss) is self.is_binary:
            raise ValueError(
                "For two classes, a network has two outputs under a callable loss and one under a loss given by name. "
                "Call fit with warm_start=False."
            )
        self.loss_parameter = loss

    @property
    def loss(self) -> Loss:
        if not isinstance(self.loss_parameter, str):
            return CustomLoss(self.loss_parameter)
        one_of_many, yes_or_no = CLASSIFICATION_LOSSES[self.loss_parameter]
        return yes_or_no if self.is_binary or self.is_multilabel else one_of_many

    @property
    def output_activation(self) -> str:
        return "logistic" if self.is_binary or self.is_multilabel else "softmax"

    def encode(self, y: NDArray, dtype: torch.dtype, name: str = "y") -> Tensor:
        """Class indices ``(n,)``, or 0 and 1 ``(n, O)`` for binary and multilabel targets.

        Raises
        ------
        ValueError
            If y holds labels that were not there in ``fit``.
        """
        if self.is_multilabel:
            return torch.as_tensor(self._indicators(y, name), dtype=dtype)
        if y.ndim != 1:
            raise ValueError(f"{name} has shape {y.shape}, but the model was fitted on one label per sample.")
        try:
            index = np.searchsorted(self.classes, y).clip(max=len(self.classes) - 1)
        except TypeError as error:
            raise ValueError(
                f"{name} contains labels that cannot be compared with those that the model knows, "
                f"{self.classes.tolist()}: {error}."
            ) from error
        unseen = self.classes[index] != y
        if np.any(unseen):
            labels = np.unique(y[unseen]).tolist()
            more = f" and {len(labels) - MAX_NAMED_LABELS} more" if len(labels) > MAX_NAMED_LABELS else ""
            raise ValueError(
                f"{name} contains labels that the model does not know: {labels[:MAX_NAMED_LABELS]}{more}. "
                f"It knows {self.classes.tolist()}. Every label must be in the y of fit, or in `classes` at the first "
                "call of partial_fit."
            )
        if self.is_binary:
            return torch.as_tensor(index[:, None], dtype=dtype)
        return torch.as_tensor(index, dtype=torch.int64)

    def _indicators(self, y: NDArray, name: str) -> NDArray[np.float64]:
        """Several labels per sample as 0 and 1 ``(n, O)``."""
        if y.ndim != 2 or y.shape[1] != len(self.classes):
            raise ValueError(
                f"{name} has shape {y.shape}, but the model was fitted on {len(self.classes)} labels per sample."
            )
        y = np.asarray(y, dtype=np.float64)
        others = np.unique(y[(y != 0) & (y != 1)])
        if len(others):
            raise ValueError(
                f"{name} has a column for each label, which must be 1 where the sample has the label and 0 where not. "
                f"Got {others[:MAX_NAMED_LABELS].tolist()} as well. Pass, for example, ({name} > 0).astype(int)."
            )
        return y

    def combine(self, outputs: NDArray) -> NDArray[np.float64]:
        """Outputs ``(n, O)`` that stand for the mean probabilities of an ensemble's ``(M, n, O)``."""
        n_rows = outputs.shape[1]
        # Some rows at a time: the steps in between take several times the memory of the outputs.
        step = max(CHUNK_NUMBERS // max(outputs[:, 0].size, 1), 1) if n_rows else 1
        combined = np.empty(outputs.shape[1:])
        for start in range(0, n_rows, step):
            chunk = outputs[:, start : start + step].astype(np.float64)
            combined[start : start + step] = self._combine(chunk)
        return combined

    def _combine(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.is_binary or self.is_multilabel:
            return _log_sum_exp(log_expit(outputs)) - _log_sum_exp(log_expit(-outputs))
        shifted = outputs - outputs.max(axis=-1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return _log_sum_exp(shifted) - np.log(len(outputs))

    def probabilities(self, output: NDArray) -> NDArray[np.float64]:
        """Probabilities ``(n, C)`` from outputs ``(n, O)``; each label's own for multilabel targets."""
        if self.is_multilabel:
            return expit(output)
        if self.is_binary:
            return expit(np.concatenate([-output, output], axis=1))
        # With the few classes in front of the many rows, in memory as well, each step runs along the rows.
        p = np.array(output.T, order="C")
        p -= p.max(axis=0)
        p = np.exp(p, out=p)
        p /= p.sum(axis=0)
        return np.ascontiguousarray(p.T)

    def expected(self, output: NDArray) -> NDArray[np.float64]:
        """What outputs say of y in the mean: probabilities."""
        return self.probabilities(output)

    def log_probabilities(self, output: NDArray) -> NDArray[np.float64]:
        """Logarithms of :meth:`probabilities`, exact where those round to 0."""
        if self.is_multilabel:
            return log_expit(output)
        if self.is_binary:
            return np.stack([log_expit(-output[:, 0]), log_expit(output[:, 0])], axis=1)
        return log_softmax(output, axis=1)

    def decode(self, output: NDArray) -> NDArray:
        """Labels from outputs ``(n, O)``."""
        if self.is_multilabel:
            return (output > 0).astype(int)
        if self.is_binary:
            return self.classes[(output[:, 0] > 0).astype(int)]
        return self.classes[output.argmax(axis=1)]


def _log_sum_exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the sum of exponentials over the first axis; scipy's takes about ten times as long."""
    largest = x.max(axis=0)
    # Where all are minus infinity, so is the sum.
    largest[np.isneginf(largest)] = 0
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x - largest).sum(axis=0)) + largest
