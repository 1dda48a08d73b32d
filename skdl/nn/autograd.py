"""Networks whose backward pass is torch's own: any module, its parameters in a row of the engine's.

Such networks are trained one at a time. The module that trains holds views of the row, so that an optimiser step on
the row is a step of the module, and gradients are added up where the engine wants them.

Axes: K models (always one here), B batch rows, D numbers of one encoded row, O outputs, P numbers of one network.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Self, cast

import torch
from torch import Tensor, nn

from skdl.nn.augment import Mixing
from skdl.nn.network import NetworkModule, Slot, row_length


@dataclass(frozen=True)
class ModuleSlot(Slot):
    """Where one parameter or buffer of a module lies in a row."""

    def view(self, row_P: Tensor) -> Tensor:
        """The numbers in their own shape, sharing memory with the row; images with the channels last in memory."""
        numbers = row_P[self.start : self.stop]
        if len(self.shape) == 4:
            outer, inner, height, width = self.shape
            return numbers.view(outer, height, width, inner).permute(0, 3, 1, 2)
        return numbers.view(self.shape)


@dataclass
class Draws:
    """What a training step draws from.

    ``dropout`` is the share of the units that it leaves out; ``mixing`` what the step has mixed its rows with.
    """

    generator: torch.Generator
    dropout: float
    mixing: Mixing | None = None

    def draw(self, start: int, k: int, n_rows: int) -> Draws:
        """Itself: modules draw as they go."""
        return self


class Dropout(nn.Dropout):
    """Dropout at the rate of the training, whose masks come from the generator that it is given."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or self.generator is None:
            return super().forward(x)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept.div_(1 - self.p)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that takes the running statistics for a batch of a single value, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class AutogradModule(NetworkModule):
    """A network that the engine trains through torch's autograd.

    :meth:`forward` takes encoded rows ``(B, ...)``; :meth:`training_outputs` is what a training step computes.
    """

    def training_outputs(self, x: Tensor, draws: Draws) -> Tensor:
        """Outputs ``(B, O)`` of one training step."""
        return self(x)

    def outputs(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Outputs ``(B, O)`` without a graph."""
        with torch.inference_mode():
            return self(x)

    def to_row(self, network: AutogradNetwork) -> Tensor:
        """The module's numbers as a row of the network.

        Raises
        ------
        LookupError
            If the module's parameters are not those of the network.
        """
        state = self.state_dict()
        row_P = torch.zeros(network.n_numbers, dtype=next(self.parameters()).dtype)
        for name, place in network.places.items():
            if name not in state or tuple(state[name].shape) != place.shape:
                raise LookupError(f"{name} has another shape than the network's.")
            place.view(row_P).copy_(state[name])
        return row_P


class AutogradNetwork(ABC):
    """The plan of a network that is a torch module. Subclasses are frozen dataclasses."""

    #: The stack has to see one model at a time, so that its width never depends on what a model keeps.
    is_stackable = False
    n_activations = 0

    @property
    @abstractmethod
    def label(self) -> str:
        """A few characters by which a reader knows the network."""

    @abstractmethod
    def build(self) -> AutogradModule:
        """The module, its parameters of no matter which values."""

    @abstractmethod
    def draw_initial(self, module: AutogradModule, generator: torch.Generator) -> None:
        """Put fresh values into the module's parameters."""

    @cached_property
    def template(self) -> AutogradModule:
        """A module that is only looked at."""
        return self.build()

    @cached_property
    def _names(self) -> tuple[list[str], list[str], list[str]]:
        """Weights, other trained parameters, and numbers that are not trained."""
        trained = {name: parameter for name, parameter in self.template.named_parameters() if parameter.requires_grad}
        weights = [name for name, parameter in trained.items() if parameter.ndim > 1]
        # A parameter that the module has under two names is one.
        named = {*dict(self.template.named_parameters()), *dict(self.template.named_buffers())}
        fixed = [
            name
            for name, value in self.template.state_dict().items()
            if name in named and name not in trained and value.is_floating_point()
        ]
        return weights, [name for name in trained if name not in weights], fixed

    @cached_property
    def places(self) -> dict[str, ModuleSlot]:
        """Every number's place, by its name in the module, in the order of the row."""
        state = self.template.state_dict()
        places, start = {}, 0
        for name in (name for group in self._names for name in group):
            places[name] = ModuleSlot(start, tuple(state[name].shape))
            start = places[name].stop
        return places

    @property
    def n_weights(self) -> int:
        """How many of the leading numbers of a row are weights."""
        return sum(math.prod(self.places[name].shape) for name in self._names[0])

    @cached_property
    def n_numbers(self) -> int:
        """Length P of a row."""
        return row_length(self.places.values())

    def rate_factor(self, name: str) -> float:
        """What the learning rate of a parameter is multiplied by."""
        return 1.0

    @property
    def rate_factors_P(self) -> Tensor | None:
        """What the learning rate of each number of a row is multiplied by, ``(P,)``; None where all factors are 1."""
        factors = {name: self.rate_factor(name) for name in self.places}
        if all(factor == 1 for factor in factors.values()):
            return None
        factors_P = torch.ones(self.n_numbers)
        for name, place in self.places.items():
            factors_P[place.start : place.stop] = factors[name]
        return factors_P

    @property
    def n_multiplications(self) -> int:
        """Multiplications of one row's forward pass."""
        return self.template.n_multiplications

    def at(self, epoch: int, n_epochs: int) -> Self:
        """The network as it is trained after so many epochs of ``n_epochs``."""
        return self

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Fresh numbers ``(P,)``."""
        module = self.build()
        with torch.no_grad():
            self.draw_initial(module, generator)
        return module.to_row(self).to(dtype)

    def noise(
        self,
        generators: Sequence[torch.Generator],
        dropout: Sequence[float],
        lengths: Sequence[int],
        batch_size: int,
        dtype: torch.dtype,
    ) -> Draws:
        """The generator and the dropout rate of the one model."""
        (generator,), (rate,) = generators, dropout
        return Draws(generator, rate)

    def stack(
        self, theta_KP: Tensor, grad_KP: Tensor | None = None, matmul_dtype: torch.dtype | None = None
    ) -> AutogradStack:
        """The one network with these numbers; ``grad_KP`` is where its gradients go."""
        return AutogradStack(self, theta_KP, grad_KP, matmul_dtype)

    def bound(self, row_P: Tensor, grad_P: Tensor | None = None) -> AutogradModule:
        """A module whose parameters and buffers share memory with a row, and its gradients with another."""
        module = copy.deepcopy(self.template)
        module.to(row_P.device)
        of_old: dict[nn.Parameter, nn.Parameter] = {}
        for owner, name, full_name in list(_owners(module)):
            if name in owner._buffers:
                if full_name in self.places:
                    owner._buffers[name] = self.places[full_name].view(row_P.detach())
                continue
            old = owner._parameters[name]
            if old is None:
                continue
            if full_name in self.places:
                place = self.places[full_name]
                parameter = nn.Parameter(place.view(row_P.detach()), old.requires_grad and grad_P is not None)
                if parameter.requires_grad:
                    parameter.grad = place.view(cast(Tensor, grad_P))
                of_old[old] = parameter
            # Another name of a parameter comes after its first one.
            owner._parameters[name] = of_old[old]
        return module

    def module(self, theta_P: Tensor, dropout: float = 0.0) -> AutogradModule:
        """The module that computes what the network with these numbers computes; in eval mode, on the CPU."""
        module = self.bound(theta_P.detach().cpu().clone())
        for part in module.modules():
            if isinstance(part, Dropout):
                part.p = dropout
        return module.eval().requires_grad_(True)


def _owners(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Owner, its name for it, and full name of every parameter and buffer."""
    for prefix, owner in module.named_modules():
        for name in (*owner._parameters, *owner._buffers):
            yield owner, name, f"{prefix}.{name}" if prefix else name


class AutogradStack:
    """One network in training.

    Parameters
    ----------
    network : AutogradNetwork
    theta_KP, grad_KP : Tensor
        Numbers of the one network, and where :meth:`backward` writes their gradients. K is 1.
    matmul_dtype : torch.dtype, optional
        Precision of convolutions and products where it is lower than that of the parameters (autocast).
    """

    def __init__(
        self,
        network: AutogradNetwork,
        theta_KP: Tensor,
        grad_KP: Tensor | None = None,
        matmul_dtype: torch.dtype | None = None,
    ) -> None:
        (theta_P,) = theta_KP
        self.grad_KP = grad_KP
        self.matmul_dtype = matmul_dtype
        self.module = network.bound(theta_P, None if grad_KP is None else grad_KP[0])
        self._trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._grads = [cast(Tensor, parameter.grad) for parameter in self._trained]
        self._dropouts = [part for part in self.module.modules() if isinstance(part, Dropout)]

    def _precision(self, x: Tensor) -> AbstractContextManager[None]:
        if self.matmul_dtype is None:
            return nullcontext()
        return torch.autocast(x.device.type, self.matmul_dtype)

    def predict(self, x_KBD: Tensor, codes_KBE: Tensor | None = None) -> Tensor:
        """Outputs ``(1, O, B)`` as after training."""
        self.module.eval()
        (x,) = x_KBD
        with torch.no_grad(), self._precision(x):
            parts = [self.module(part) for part in x.split(self.module.chunk_rows)]
        output = parts[0] if len(parts) == 1 else torch.cat(parts)
        return output.t().unsqueeze(0).to(self._dtype)

    def forward(
        self,
        x_KBD: Tensor,
        codes_KBE: Tensor | None = None,
        noise: Draws | None = None,
        rows_KB1: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs ``(1, O, B)`` while training, and their graph."""
        assert noise is not None
        if not self.module.training:
            self.module.train()
        for part in self._dropouts:
            part.generator, part.p = noise.generator, noise.dropout
        with torch.enable_grad(), self._precision(x_KBD):
            output = self.module.training_outputs(x_KBD[0], noise).to(self._dtype)
        return output.detach().t().contiguous().unsqueeze(0), output

    def backward(self, grad_KOB: Tensor, tape: Tensor) -> None:
        """Write the gradient of every parameter for the gradient of the outputs."""
        assert self.grad_KP is not None
        grads = torch.autograd.grad(tape, self._trained, grad_KOB[0].t(), materialize_grads=True)
        torch._foreach_copy_(self._grads, grads)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype
