"""Sample weights and class weights together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from skdl.data.types import Weights


@dataclass(frozen=True)
class MeanWeight:
    """The mean weight of all samples so far, where they come in parts."""

    n_samples: int = 0
    total: float = 0.0

    def including(self, weight: Weights, n_samples: int) -> MeanWeight:
        """The mean weight of the samples so far and of one more part."""
        total = n_samples if weight is None else float(weight.sum())
        return MeanWeight(self.n_samples + n_samples, self.total + total)

    def scaled(self, weight: Weights, n_samples: int) -> Weights:
        """Weights of a part over the mean; None where all weigh the same."""
        mean = self.total / self.n_samples
        if weight is None:
            return None if mean == 1 else np.full(n_samples, 1 / mean)
        return weight / mean


def with_class_weight(weight: Weights, class_weight: Any, y: NDArray) -> Weights:
    """Weights of the samples times those of their classes; None where all samples weigh the same.

    Raises
    ------
    ValueError
        If no sample is left with a weight.
    """
    if class_weight is None:
        return weight
    by_class = _by_class(weight, class_weight, y)
    if not np.any(by_class > 0):
        raise ValueError(
            f"class_weight={class_weight!r} gives every sample that a network trains on, or that it is validated by, "
            "the weight 0."
        )
    return by_class if weight is None else by_class * weight


def check_class_weight(class_weight: dict[Any, Any], classes: NDArray) -> None:
    """Refuse values that are no weights, and labels that take the place of others.

    A label that is not there is left alone, as scikit-learn does, where all that are there have a weight: a fold may
    lack a class.

    Raises
    ------
    ValueError
        With the values or the labels.
    """
    if not all(isinstance(value, Real) and 0 <= float(value) < math.inf for value in class_weight.values()):
        raise ValueError(f"class_weight={class_weight!r} must have values that are finite and at least 0.")
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    if unknown and not all(label in class_weight for label in labels):
        raise ValueError(f"class_weight names labels that y does not have: {unknown}. Those of y are {labels}.")


def _by_class(weight: Weights, class_weight: Any, y: NDArray) -> NDArray[np.float64]:
    if y.ndim > 1:
        if isinstance(class_weight, dict):
            raise ValueError(
                "A class_weight that is a dict is for one label per sample, and y has several. Use 'balanced', or "
                "sample_weight."
            )
        # As scikit-learn does, the product over labels.
        return np.prod([_by_class(weight, class_weight, label) for label in y.T], axis=0)
    classes, place = np.unique(y, return_inverse=True)
    if isinstance(class_weight, dict):
        # A class may have no row in this part of the data.
        class_weight = {label: value for label, value in class_weight.items() if label in classes}
    return compute_class_weight(class_weight, classes=classes, y=y, sample_weight=weight)[place]
