"""Outputs of one trained network for the rows of an encoded table."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.table import Table
from skdl.engine.device import threads_for
from skdl.nn.dense import DenseEnsemble, DenseModule

#: Rows at a time: what a layer of ordinary width holds then stays in the processor's cache.
CHUNK_ROWS = 512
#: Rows are filled up to a multiple of this, because matrix products take other routes, and round otherwise, for a
#: few rows left over: so the output of a row does not depend on its company.
ROW_MULTIPLE = 4


def network_outputs(module: DenseModule | DenseEnsemble, table: Table, device: str = "cpu") -> NDArray:
    """Outputs ``(n, O)`` of a network in eval mode, or ``(M, n, O)`` of an ensemble, in its own precision.

    The network itself stays where it is: on another device than the CPU a copy of it is used.
    """
    if device != "cpu":
        module, table = copy.deepcopy(module).to(device), table.to(device)
    n_rows = len(table)
    parts = []
    with torch.inference_mode(), threads_for(module.n_weights * min(n_rows, CHUNK_ROWS)):
        for start in range(0, n_rows, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, n_rows)
            x, codes = table.slice(start, stop)
            output = module(_filled_up(x), None if codes is None else _filled_up(codes))
            parts.append(output[..., : stop - start, :].cpu().numpy())
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)


def _filled_up(x: Tensor) -> Tensor:
    rest = -len(x) % ROW_MULTIPLE
    return x if rest == 0 else torch.cat([x, x.new_zeros(rest, x.shape[1])])
