"""The output of a network that an explanation is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d
from torch import Tensor


def check_method(method: str, methods: Iterable[str]) -> None:
    """Refuse a method of explanation that is none."""
    if method not in methods:
        raise ValueError(f"method={method!r} is not known. Use one of {sorted(methods)}.")


def explained_outputs(estimator: Any, checked: Any, y: ArrayLike | None) -> NDArray[np.int64]:
    """The number of the output that is explained, for each sample.

    Parameters
    ----------
    estimator : estimator
        A fitted one.
    checked : array-like of length n_samples
        What ``predict`` takes.
    y : array-like of shape (n_samples,) or None
        Labels, by default the predicted ones; for regression and multilabel targets the number of the output, by
        default the first.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If there are no such labels or outputs, or not one for each sample.
    """
    y = None if y is None else column_or_1d(y)
    if y is not None and len(y) != len(checked):
        raise ValueError(f"y has {len(y)} entries for {len(checked)} samples. Give one for each.")
    classes = getattr(estimator, "classes_", None)
    if classes is None or estimator._task.is_multilabel:
        numbers = np.zeros(len(checked), dtype=np.int64) if y is None else y
        if not np.isin(numbers, np.arange(estimator.n_outputs_)).all():
            raise ValueError(f"y must hold numbers of outputs, 0 to {estimator.n_outputs_ - 1}.")
        return numbers.astype(np.int64)
    labels = estimator.predict(checked) if y is None else y
    numbers = {label: number for number, label in enumerate(classes.tolist())}
    unknown = list(dict.fromkeys(label for label in labels.tolist() if label not in numbers))
    if unknown:
        raise ValueError(f"y has labels that the model does not know: {unknown}. It knows {classes.tolist()}.")
    return np.array([numbers[label] for label in labels.tolist()], dtype=np.int64)


def class_outputs(estimator: Any, outputs: Tensor) -> Tensor:
    """Outputs ``(n, O)`` with one per class, also where there is one logit for two."""
    return torch.cat([-outputs, outputs], dim=1) if estimator._task.is_binary else outputs
