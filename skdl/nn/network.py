"""What the engine asks of a network, whatever it computes.

An :class:`Architecture` is hashable and has no parameters. The parameters of a network are a vector ``(P,)``, weights
first: penalties and weight decay act on the leading ``n_weights`` of them. An architecture makes a
:class:`NetworkStack` of K vectors for training, and a :class:`NetworkModule` of a trained one. A new kind of network is
a subclass of it; :mod:`skdl.nn.dense` has its own backward pass and a model axis, :mod:`skdl.nn.autograd` leaves both
to torch.

Axes: K models, B batch rows, D numbers of one encoded row, E embedded columns, O outputs, P parameters of one network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn

from skdl.nn.augment import Mixing
from skdl.nn.saving import SavedModule

#: Numbers of a cache line.
CACHE_LINE = 16


@dataclass(frozen=True)
class Slot:
    """Where one parameter tensor of a network lies in its parameter vector."""

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)

    def view(self, theta: Tensor) -> Tensor:
        """The parameter in its own shape, of one vector ``(P,)`` or of each of several ``(..., P)``, sharing memory.

        Weights of convolutions over images have their channels last in memory.
        """
        numbers, models = theta.narrow(-1, self.start, self.stop - self.start), theta.shape[:-1]
        if len(self.shape) == 4:
            outer, inner, height, width = self.shape
            return numbers.view((*models, outer, height, width, inner)).movedim(-1, -3)
        return numbers.view((*models, *self.shape))


def laid_out(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Slot]:
    """Parameters of these shapes, one behind the other."""
    slots, start = {}, 0
    for name, shape in shapes.items():
        slots[name] = Slot(start, shape)
        start = slots[name].stop
    return slots


def vector_length(slots: Iterable[Slot]) -> int:
    """Length of a vector that holds the slots, filled up so that those of all networks lie alike in memory.

    Kernels may round differently for differently aligned data. With equal alignment, a network's result does not depend
    on its place in the stack.
    """
    return -(-max(slot.stop for slot in slots) // CACHE_LINE) * CACHE_LINE


class Noise(Protocol):
    """The random numbers of training steps, each model's from a generator of its own."""

    #: What the rows of the last batch were mixed with, if they were.
    mixing: Mixing | None

    def draw(self, start: int, k: int, n_rows: int) -> Any:
        """What the forward pass of the first ``k`` models wants for the batch that starts at row ``start``."""


class NetworkStack(Protocol):
    """Forward and backward passes through K networks whose parameters lie in ``theta_KP``."""

    def predict(self, x_KBD: Tensor, codes_KBE: Tensor | None = None) -> Tensor:
        """Outputs ``(K, O, B)`` as after training."""

    def forward(
        self, x_KBD: Tensor, codes_KBE: Tensor | None = None, noise: Any = None, rows_KB1: Tensor | None = None, /
    ) -> tuple[Tensor, Any]:
        """Outputs ``(K, O, B)`` while training, and what :meth:`backward` needs."""

    def backward(self, grad_KOB: Tensor, tape: Any) -> None:
        """Write the gradient of every parameter for the gradient of the outputs."""


class NetworkModule(SavedModule):
    """One trained network as a plain torch module."""

    #: Layers, input and output included.
    n_layers: int
    #: Multiplications of one row's forward pass.
    n_multiplications: int
    #: Matrix products, or convolutions, that are computed one after another.
    n_products: int = 1
    #: Rows to compute at a time, so that their numbers stay in the processor's cache.
    chunk_rows: int

    @abstractmethod
    def outputs(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Outputs ``(B, O)`` of encoded rows, without a graph."""

    @abstractmethod
    def to_vector(self, architecture: Any) -> Tensor:
        """The module's parameters as a vector, laid out as the architecture says.

        Raises
        ------
        LookupError
            If the module's parameters are not those of the architecture.
        """


class Architecture(ABC):
    """What a network computes, but for its parameters. Subclasses are frozen dataclasses."""

    #: Number of outputs O.
    n_outputs: int

    @property
    @abstractmethod
    def label(self) -> str:
        """A few characters by which a reader knows the network."""

    @property
    @abstractmethod
    def n_weights(self) -> int:
        """How many of the leading parameters are weights."""

    @property
    @abstractmethod
    def n_trained(self) -> int:
        """How many of the leading parameters are trained; statistics and what is frozen stand behind them."""

    @property
    @abstractmethod
    def matrices(self) -> tuple[Slot, ...]:
        """Where the weights of all layers but the last lie."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Length P of a network's vector: all numbers of its tensors, statistics and padding."""

    @property
    @abstractmethod
    def n_activations(self) -> int:
        """Numbers that the forward pass of one row keeps."""

    @property
    @abstractmethod
    def n_multiplications(self) -> int:
        """Multiplications of one row's forward pass."""

    @property
    @abstractmethod
    def n_products(self) -> int:
        """Matrix products, or convolutions, that are computed one after another."""

    @property
    def rate_factors_P(self) -> Tensor | None:
        """What the learning rate of each parameter is multiplied by, ``(P,)``; None where all factors are 1."""
        return None

    @abstractmethod
    def stacks_on(self, device: str) -> bool:
        """Whether several such networks are trained side by side on a device."""

    def at(self, epoch: int, n_epochs: int) -> Self:
        """The architecture as it is trained after so many epochs of ``n_epochs``: itself, or one of equal layout.

        What may differ is how its parts are trained. Architectures that can be stacked are the same all along.
        """
        return self

    @abstractmethod
    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Fresh parameters ``(P,)``."""

    @abstractmethod
    def stack(
        self, theta_KP: Tensor, grad_KP: Tensor | None = None, matmul_dtype: torch.dtype | None = None
    ) -> NetworkStack:
        """The networks with these parameters; ``grad_KP`` is where their gradients go."""

    @abstractmethod
    def noise(
        self,
        generators: Sequence[torch.Generator],
        dropout: Sequence[float],
        lengths: Sequence[int],
        batch_size: int,
        dtype: torch.dtype,
    ) -> Noise | None:
        """The random numbers of training: of models with so many rows each; None where there are none."""

    @abstractmethod
    def module(self, theta_P: Tensor, dropout: float = 0.0) -> NetworkModule:
        """The module that computes what the network with these parameters computes; in eval mode, on the CPU."""


class Ensemble(SavedModule):
    """Several networks of one architecture.

    **Shape**: inputs as for one of the networks; outputs ``(M, B, O)``, those of each of the M networks.
    """

    def __init__(self, members: Sequence[NetworkModule]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.n_multiplications = sum(member.n_multiplications for member in members)
        self.n_products = members[0].n_products
        self.chunk_rows = members[0].chunk_rows

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        return torch.stack([member(x) if codes is None else member(x, codes) for member in self.members])

    def outputs(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """What :meth:`forward` gives, without a graph and past the hooks of layers."""
        return torch.stack([cast(NetworkModule, member).outputs(x, codes) for member in self.members])
