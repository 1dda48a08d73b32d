"""Networks that complete rows: what a dense network says is added to a first completion, in missing cells only.

Cells that are present come out as they went in: they have no error, and so no gradient. A fresh network changes
nothing, because its last layer is zero.

Axes: K models, B batch rows, D columns of a row, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from skdl.nn.dense import Chain, DenseArchitecture, DenseModule, DenseStack
from skdl.nn.network import NetworkModule


@dataclass(frozen=True)
class ReconstructionArchitecture(DenseArchitecture):
    """A dense network that corrects a completion of rows.

    Of its inputs ``(B, F)`` the first D are a row's first completion, the next D are 1 where a cell is missing.
    """

    @property
    def label(self) -> str:
        """Width of every layer."""
        return f"reconstruction-{super().label}"

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Fresh parameters ``(P,)`` of a network that changes nothing."""
        theta_P = super().initial(generator, dtype)
        last = self.slots[f"weight{len(self.hidden)}"]
        theta_P[last.start : last.stop] = 0
        return theta_P

    def stack(
        self, theta_KP: Tensor, grad_KP: Tensor | None = None, matmul_dtype: torch.dtype | None = None
    ) -> ReconstructionStack:
        """The networks with these parameters; ``grad_KP`` is where their gradients go."""
        return ReconstructionStack(DenseStack(self, theta_KP, grad_KP, matmul_dtype), self.n_outputs)

    def module(self, theta_P: Tensor, dropout: float = 0.0) -> ReconstructionModule:
        """The module that computes what the network with these parameters computes; in eval mode, on the CPU."""
        return ReconstructionModule(DenseModule.from_vector(self, theta_P, dropout), self.n_outputs).eval()


class ReconstructionTape(NamedTuple):
    """What the backward pass needs of one forward pass."""

    dense: Chain
    missing_KDB: Tensor


class ReconstructionStack:
    """Forward and backward passes through K networks of one :class:`ReconstructionArchitecture`."""

    def __init__(self, dense: DenseStack, n_columns: int) -> None:
        self.dense, self.n_columns = dense, n_columns

    def _completion(self, x_KBF: Tensor) -> tuple[Tensor, Tensor]:
        """First completion and missing cells, ``(K, D, B)``."""
        columns = self.n_columns
        return x_KBF[..., :columns].transpose(1, 2), x_KBF[..., columns : 2 * columns].transpose(1, 2)

    def predict(self, x_KBF: Tensor, codes_KBE: Tensor | None = None) -> Tensor:
        """Complete rows ``(K, D, B)`` as after training."""
        first_KDB, missing_KDB = self._completion(x_KBF)
        return torch.addcmul(first_KDB, self.dense.predict(x_KBF), missing_KDB)

    def forward(
        self,
        x_KBF: Tensor,
        codes_KBE: Tensor | None = None,
        masks: Sequence[Tensor] | None = None,
        rows_KB1: Tensor | None = None,
    ) -> tuple[Tensor, ReconstructionTape]:
        """Complete rows ``(K, D, B)`` while training, and the tape for :meth:`backward`."""
        first_KDB, missing_KDB = self._completion(x_KBF)
        correction_KDB, tape = self.dense.forward(x_KBF, None, masks, rows_KB1)
        return torch.addcmul(first_KDB, correction_KDB, missing_KDB), ReconstructionTape(tape, missing_KDB)

    def backward(self, grad_KOB: Tensor, tape: ReconstructionTape) -> None:
        """Write the gradient of every parameter for the gradient of the outputs."""
        self.dense.backward(grad_KOB * tape.missing_KDB, tape.dense)


class ReconstructionModule(NetworkModule):
    """One trained network.

    **Shape**: inputs ``(B, F)``, outputs ``(B, D)``.
    """

    def __init__(self, dense: DenseModule, n_columns: int) -> None:
        super().__init__()
        self.dense, self.n_columns = dense, n_columns
        self.n_layers, self.n_multiplications = dense.n_layers, dense.n_multiplications
        self.chunk_rows, self.n_products = dense.chunk_rows, dense.n_products

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        return self._completed(x, self.dense(x))

    def outputs(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Outputs ``(B, D)`` of encoded rows, without a graph."""
        return self._completed(x, self.dense.outputs(x))

    def _completed(self, x: Tensor, correction: Tensor) -> Tensor:
        columns = self.n_columns
        return torch.addcmul(x[:, :columns], correction, x[:, columns : 2 * columns])

    def to_vector(self, architecture: ReconstructionArchitecture) -> Tensor:
        """The module's parameters as a vector, laid out as the architecture says.

        Raises
        ------
        LookupError
            If the module's parameters are not those of the architecture.
        """
        return self.dense.to_vector(architecture)
