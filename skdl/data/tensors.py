"""Conversion of tensors, masked and structured arrays to plain arrays of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_array(X: Any) -> Any:
    """A tensor or a masked array as an array, with NaN for what is masked; others as they are.

    A tensor's memory is shared if it is on the CPU and numpy has its type.
    """
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.filled(X.astype(np.float64), np.nan) if np.ma.is_masked(X) else X.data
    if not isinstance(X, Tensor):
        return X
    tensor = X.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def is_structured(X: Any) -> bool:
    """Whether an array has named fields, each of a type of its own."""
    return isinstance(X, np.ndarray) and X.dtype.names is not None
