"""Torch's tensors as numpy's arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_array(X: Any) -> Any:
    """A tensor as an array, in the same memory if it is on the CPU and numpy has its type; others as they are."""
    if not isinstance(X, Tensor):
        return X
    tensor = X.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
