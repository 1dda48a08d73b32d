"""The weights of several models in their blend.

Axes: n rows, O outputs, M models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from skdl.tasks.losses import Loss, LossSettings


def blend_weights(
    outputs: Sequence[NDArray],
    target: Tensor,
    loss: Loss,
    settings: LossSettings,
    base: NDArray | float = 0.0,
    weight: NDArray | None = None,
) -> NDArray[np.float64]:
    """Weights of at least 0 under which the sum of outputs ``(n, O)``, as seen from a base, has the smallest mean loss.

    The outputs should be for rows that the models did not train on. The problem is convex wherever the loss is, as all
    of this package's are in the regression and cross-entropy cases.
    """
    base_nO = torch.as_tensor(np.broadcast_to(base, outputs[0].shape).astype(np.float64))
    outputs_MnO = torch.as_tensor(np.stack(outputs)) - base_nO
    target_1Tn = (target if target.ndim == 2 else target[:, None]).t().unsqueeze(0)
    if target_1Tn.is_floating_point():
        target_1Tn = target_1Tn.double()
    target_1On = loss.prepared(target_1Tn, outputs_MnO.shape[2], torch.float64, settings)
    share_n = torch.full((len(target),), 1 / len(target), dtype=torch.float64)
    if weight is not None:
        share_n = torch.as_tensor(weight / weight.sum())

    def value(weights_M: NDArray) -> tuple[float, NDArray]:
        blend_nO = base_nO + torch.einsum("m,mno->no", torch.as_tensor(weights_M), outputs_MnO)
        loss_1n, grad_1On = loss.loss_gradient(blend_nO.t().contiguous().unsqueeze(0), target_1On, settings)
        grad_M = torch.einsum("mno,on,n->m", outputs_MnO, grad_1On[0], share_n)
        return float((loss_1n[0] * share_n).sum()), grad_M.numpy()

    start = np.full(len(outputs), 1 / len(outputs))
    return minimize(value, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(outputs)).x
