"""Outputs of one trained network for the rows of an encoded table."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.table import Table
from skdl.engine.device import threads_for, without_autocast
from skdl.nn.network import Ensemble, NetworkModule

#: Rows are filled up to a multiple of this, because matrix products take other routes, and round otherwise, for few
#: rows and for some left over: so the output of a row hardly depends on its company. Layers of over 128 units would
#: want 12 or 16, but a lone row would then take half as long again.
CHUNK_MULTIPLE = 8


Compute = Callable[[Any, Tensor, Tensor | None], Tensor]


def _outputs(module: NetworkModule | Ensemble, x: Tensor, codes: Tensor | None) -> Tensor:
    return module.outputs(x, codes)


def network_outputs(
    module: NetworkModule | Ensemble, table: Table, device: str = "cpu", compute: Compute = _outputs
) -> NDArray:
    """Outputs ``(n, O)`` of a network in eval mode, or ``(M, n, O)`` of an ensemble, in its own precision.

    The network itself stays where it is: on another device than the CPU a copy of it is used. ``compute`` is what to
    compute of a chunk of rows, if it is not the outputs.
    """
    if device != "cpu":
        module, table = copy.deepcopy(module).to(device), table.to(device)
    n_rows = len(table)
    chunk = max(module.chunk_rows // CHUNK_MULTIPLE, 1) * CHUNK_MULTIPLE
    outputs: NDArray | None = None
    with (
        without_autocast(device.partition(":")[0]),
        threads_for(module.n_multiplications * min(n_rows, chunk) // module.n_products),
    ):
        for start in range(0, n_rows, chunk):
            stop = min(start + chunk, n_rows)
            x, codes = table.slice(start, stop)
            output = compute(module, _filled_up(x), None if codes is None else _filled_up(codes))
            part = output.cpu().numpy()[..., : stop - start, :]
            if stop - start == n_rows:
                return part
            if outputs is None:
                # In one piece: small parts kept in between would settle where large tensors were freed, and the next
                # ones, which then no longer fit there, would need new memory for each chunk.
                outputs = np.empty((*part.shape[:-2], n_rows, part.shape[-1]), part.dtype)
            outputs[..., start:stop, :] = part
    assert outputs is not None
    return outputs


def _filled_up(x: Tensor) -> Tensor:
    n_rows = x.shape[0]
    rest = -n_rows % CHUNK_MULTIPLE
    return x if rest == 0 else torch.cat([x, *[x if n_rows == 1 else x[-1:]] * rest])
