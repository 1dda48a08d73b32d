"""Networks whose backward pass is torch's own: any module, whose parameters are views of the engine's vector.

The module that trains holds views of the vector, so that an optimiser step on the vector is a step of the module, and
gradients are written where the engine wants them. Most such networks are trained one at a time; those that say so are
stacked by :func:`torch.func.vmap`.

Axes: K models, B batch rows, D numbers of one encoded row, F units of a layer, O outputs, P parameters of one network.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from skdl.nn.dropout import Draws, Dropout
from skdl.nn.network import Architecture, NetworkModule, Slot, laid_out, vector_length


class AutogradModule(NetworkModule):
    """A network that the engine trains through torch's autograd.

    :meth:`forward` takes encoded rows ``(B, ...)``; :meth:`training_outputs` is what a training step computes. The last
    layer has the name ``output``: by it Muon knows which weights are left to Adam, and ``transform`` gives what the
    layer sees, which is :meth:`embed`. :meth:`add_head` makes both.
    """

    #: Dense layers in front of the last one; what the last one sees is what they give.
    hidden: nn.Sequential
    #: The last layer.
    output: nn.Linear

    def add_head(self, n_in: int, hidden: Sequence[int], activation: Callable[[], nn.Module], n_outputs: int) -> None:
        """Dense layers on so many features: :attr:`hidden` of these units, and :attr:`output`."""
        layers: list[nn.Module] = [Dropout()]
        for n_units in hidden:
            layers += [nn.Linear(n_in, n_units), activation(), Dropout()]
            n_in = n_units
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(n_in, n_outputs)

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """What the output layer sees of encoded rows, ``(B, E)``."""

    def embeddings(self, x: Tensor) -> Tensor:
        """What the output layer sees of encoded rows, ``(B, E)``, without a graph."""
        with torch.inference_mode():
            return self.embed(x)

    def training_outputs(self, x: Tensor, draws: Draws) -> Tensor:
        """Outputs ``(B, O)`` of one training step."""
        return self(x)

    def outputs(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Outputs ``(B, O)`` without a graph."""
        with torch.inference_mode():
            return self(x)

    def to_vector(self, architecture: AutogradArchitecture) -> Tensor:
        """The module's parameters as a vector, laid out as the architecture says.

        Raises
        ------
        LookupError
            If the module's parameters are not those of the architecture.
        """
        state = self.state_dict()
        if state.keys() != architecture.template.state_dict().keys():
            raise LookupError("The network has other parts.")
        theta_P = torch.zeros(architecture.n_parameters, dtype=next(self.parameters()).dtype)
        for name, slot in architecture.slots.items():
            if tuple(state[name].shape) != slot.shape:
                raise LookupError(f"{name} has another shape than the network's.")
            slot.view(theta_P).copy_(state[name])
        return theta_P


def draw_layer(part: nn.Module, generator: torch.Generator, *, is_last: bool = False) -> None:
    """Fresh values of one layer by He et al. (2015), smaller ones in the last layer; other parts stay as they are."""
    if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
        gain = 1 if is_last else 2
        part.weight.normal_(0, math.sqrt(gain / part.weight[0].numel()), generator=generator)
        if part.bias is not None:
            part.bias.zero_()
    elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
        part.weight.fill_(1)
        part.bias.zero_()
        if not isinstance(part, nn.GroupNorm):
            part.running_var.fill_(1)  # type: ignore[union-attr]


class AutogradArchitecture(Architecture):
    """The architecture of a network that is a torch module. Subclasses are frozen dataclasses."""

    @abstractmethod
    def make(self) -> AutogradModule:
        """The module, made under torch's device "meta": layers that are new in it have no values yet."""

    @abstractmethod
    def draw_initial(self, module: AutogradModule, generator: torch.Generator) -> None:
        """Put fresh values into the module's parameters."""

    def stacks_on(self, device: str) -> bool:
        """Whether several such networks are trained side by side on a device; then modules must go through ``vmap``."""
        return False

    @property
    def n_activations(self) -> int:
        """Numbers that the forward pass of one row keeps; where nothing is stacked, nobody needs to know."""
        return 0

    def build(self) -> AutogradModule:
        """The module on the CPU, the values of its new parameters undefined."""
        # Drawing torch's own initial values would move its global random state.
        with torch.device("meta"):
            module = self.make()
        for part in module.modules():
            for name, value in list(part.named_parameters(recurse=False)):
                if value.is_meta:
                    setattr(part, name, nn.Parameter(torch.empty_like(value, device="cpu"), value.requires_grad))
            for name, buffer in list(part.named_buffers(recurse=False)):
                if buffer.is_meta:
                    setattr(part, name, torch.zeros_like(buffer, device="cpu"))
        return module

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
    def slots(self) -> dict[str, Slot]:
        """Every parameter's place, by its name in the module, in the order of the vector."""
        state = self.template.state_dict()
        return laid_out({name: tuple(state[name].shape) for group in self._names for name in group})

    @property
    def n_weights(self) -> int:
        """How many of the leading parameters are weights."""
        return sum(math.prod(self.slots[name].shape) for name in self._names[0])

    @property
    def n_trained(self) -> int:
        """How many of the leading parameters are trained; buffers and what is frozen stand behind them."""
        weights, others, _ = self._names
        return sum(math.prod(self.slots[name].shape) for name in weights + others)

    @property
    def matrices(self) -> tuple[Slot, ...]:
        """Where the weights of all layers but the last lie."""
        return tuple(self.slots[name] for name in self._names[0] if name != "output.weight")

    @cached_property
    def n_parameters(self) -> int:
        """Length P of a network's vector."""
        return vector_length(self.slots.values())

    def rate_factor(self, name: str) -> float:
        """What the learning rate of a parameter is multiplied by."""
        return 1.0

    @property
    def rate_factors_P(self) -> Tensor | None:
        """What the learning rate of each parameter is multiplied by, ``(P,)``; None where all factors are 1."""
        factors = {name: self.rate_factor(name) for name in self.slots}
        if all(factor == 1 for factor in factors.values()):
            return None
        factors_P = torch.ones(self.n_parameters)
        for name, slot in self.slots.items():
            factors_P[slot.start : slot.stop] = factors[name]
        return factors_P

    @property
    def n_multiplications(self) -> int:
        """Multiplications of one row's forward pass."""
        return self.template.n_multiplications

    @property
    def n_products(self) -> int:
        """Matrix products, or convolutions, that are computed one after another."""
        return self.template.n_products

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Fresh parameters ``(P,)``."""
        module = self.build()
        with torch.no_grad():
            self.draw_initial(module, generator)
        return module.to_vector(self).to(dtype)

    def noise(
        self,
        generators: Sequence[torch.Generator],
        dropout: Sequence[float],
        lengths: Sequence[int],
        batch_size: int,
        dtype: torch.dtype,
    ) -> Draws:
        """The generator and the dropout rate of each model."""
        return Draws(generators, dropout, lengths)

    def stack(
        self, theta_KP: Tensor, grad_KP: Tensor | None = None, matmul_dtype: torch.dtype | None = None
    ) -> AutogradStack:
        """The networks with these parameters; ``grad_KP`` is where their gradients go."""
        kind = LoneStack if len(theta_KP) == 1 else VmapStack
        return kind(self, theta_KP, grad_KP, matmul_dtype)

    def bound(self, theta_P: Tensor, grad_P: Tensor | None = None) -> AutogradModule:
        """A module whose parameters and buffers share memory with a vector, and its gradients with another."""
        module = copy.deepcopy(self.template)
        module.to(theta_P.device)
        of_old: dict[nn.Parameter, nn.Parameter] = {}
        for owner, name, full_name in list(_owners(module)):
            if name in owner._buffers:
                buffer = owner._buffers[name]
                if full_name in self.slots:
                    # Buffers that a forward pass changes must not make saved weights look changed: what is
                    # detached shares its version, the bare data does not.
                    owner._buffers[name] = self.slots[full_name].view(theta_P.data)
                elif buffer is not None and buffer.is_floating_point():
                    owner._buffers[name] = buffer.to(theta_P.dtype)
                continue
            old = owner._parameters[name]
            if old is None:
                continue
            if full_name in self.slots:
                slot = self.slots[full_name]
                parameter = nn.Parameter(slot.view(theta_P.detach()), old.requires_grad and grad_P is not None)
                if parameter.requires_grad:
                    parameter.grad = slot.view(cast(Tensor, grad_P))
                of_old[old] = parameter
            # Another name of a parameter comes after its first one.
            owner._parameters[name] = of_old[old]
        return module

    def module(self, theta_P: Tensor, dropout: float = 0.0) -> AutogradModule:
        """The module that computes what the network with these parameters computes; in eval mode, on the CPU."""
        module = self.bound(theta_P.detach().cpu())
        for owner, name, full_name in list(_owners(module)):
            # Tensors that share memory would each be pickled with all of it.
            if full_name in self.slots:
                tensors = owner._parameters if name in owner._parameters else owner._buffers
                cast(Tensor, tensors[name]).data = cast(Tensor, tensors[name]).data.clone()
        for part in module.modules():
            if isinstance(part, Dropout):
                part.p = dropout
        return module.eval().requires_grad_(True)


def _owners(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Owner, its name for it, and full name of every parameter and buffer."""
    for prefix, owner in module.named_modules():
        for name in (*owner._parameters, *owner._buffers):
            yield owner, name, f"{prefix}.{name}" if prefix else name


class AutogradStack(ABC):
    """Networks of one architecture in training.

    Parameters
    ----------
    architecture : AutogradArchitecture
    theta_KP, grad_KP : Tensor
        Parameters of the networks, and where :meth:`backward` writes their gradients.
    matmul_dtype : torch.dtype, optional
        Precision of convolutions and products where it is lower than that of the parameters (autocast).
    """

    def __init__(
        self,
        architecture: AutogradArchitecture,
        theta_KP: Tensor,
        grad_KP: Tensor | None = None,
        matmul_dtype: torch.dtype | None = None,
    ) -> None:
        self.architecture, self.matmul_dtype = architecture, matmul_dtype
        self.theta_KP, self.grad_KP = theta_KP, grad_KP

    # Only training asks for parameters and gradients: stacks that merely predict do without them.

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """What computes."""

    @property
    @abstractmethod
    def _trained(self) -> list[Tensor]:
        """Its parameters that are trained."""

    @property
    @abstractmethod
    def _grads(self) -> list[Tensor]:
        """Where their gradients go."""

    @abstractmethod
    def _outputs(self, x_KBD: Tensor, noise: Draws) -> Tensor:
        """Outputs ``(K, B, O)`` of one training step."""

    @abstractmethod
    def predict(self, x_KBD: Tensor, codes_KBE: Tensor | None = None) -> Tensor:
        """Outputs ``(K, O, B)`` as after training."""

    @cached_property
    def _dropouts(self) -> list[Dropout]:
        return [part for part in self.module.modules() if isinstance(part, Dropout)]

    def _precision(self, x: Tensor) -> AbstractContextManager[None]:
        if self.matmul_dtype is None:
            return nullcontext()
        return torch.autocast(x.device.type, self.matmul_dtype)

    def forward(
        self,
        x_KBD: Tensor,
        codes_KBE: Tensor | None = None,
        noise: Draws | None = None,
        rows_KB1: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs ``(K, O, B)`` while training, and their graph."""
        assert noise is not None
        if not self.module.training:
            self.module.train()
        for part in self._dropouts:
            part.draws = noise
        with torch.enable_grad(), self._precision(x_KBD):
            output_KBO = self._outputs(x_KBD, noise).to(self.theta_KP.dtype)
        return output_KBO.detach().transpose(1, 2).contiguous(), output_KBO

    def backward(self, grad_KOB: Tensor, tape: Tensor) -> None:
        """Write the gradient of every parameter for the gradient of the outputs."""
        grads = torch.autograd.grad(tape, self._trained, grad_KOB.transpose(1, 2), materialize_grads=True)
        torch._foreach_copy_(self._grads, grads)


class LoneStack(AutogradStack):
    """One network, whose module holds views of its parameters. K is 1."""

    @cached_property
    def module(self) -> AutogradModule:
        (theta_P,) = self.theta_KP
        return self.architecture.bound(theta_P, None if self.grad_KP is None else self.grad_KP[0])

    @cached_property
    def _trained(self) -> list[Tensor]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    @cached_property
    def _grads(self) -> list[Tensor]:
        return [cast(Tensor, parameter.grad) for parameter in self._trained]

    def _outputs(self, x_KBD: Tensor, noise: Draws) -> Tensor:
        return self.module.training_outputs(x_KBD[0], noise).unsqueeze(0)

    def predict(self, x_KBD: Tensor, codes_KBE: Tensor | None = None) -> Tensor:
        """Outputs ``(1, O, B)`` as after training."""
        self.module.eval()
        (x,) = x_KBD
        with torch.no_grad(), self._precision(x):
            parts = [self.module(part) for part in x.split(self.module.chunk_rows)]
        output = parts[0] if len(parts) == 1 else torch.cat(parts)
        return output.t().unsqueeze(0).to(self.theta_KP.dtype)


class VmapStack(AutogradStack):
    """Several networks, whose modules compute side by side."""

    @cached_property
    def module(self) -> TrainingStep:
        return TrainingStep(copy.deepcopy(self.architecture.template))

    @cached_property
    def _slots(self) -> dict[str, Slot]:
        names = (name for name, _ in self.architecture.template.named_parameters())
        return {f"module.{name}": self.architecture.slots[name] for name in names}

    @cached_property
    def _trained(self) -> list[Tensor]:
        theta_KP = self.theta_KP.detach()
        return [slot.view(theta_KP).requires_grad_() for slot in self._slots.values()]

    @cached_property
    def _grads(self) -> list[Tensor]:
        assert self.grad_KP is not None
        return [slot.view(self.grad_KP) for slot in self._slots.values()]

    def _outputs(self, x_KBD: Tensor, noise: Draws) -> Tensor:
        def outputs(parameters: dict[str, Tensor], x_BD: Tensor) -> Tensor:
            return functional_call(self.module, parameters, (x_BD, noise))

        return vmap(outputs)(dict(zip(self._slots, self._trained, strict=True)), x_KBD)

    def predict(self, x_KBD: Tensor, codes_KBE: Tensor | None = None) -> Tensor:
        """Outputs ``(K, O, B)`` as after training; one network at a time, for there is no graph to save."""
        return torch.cat([stack.predict(x_1BD) for stack, x_1BD in zip(self._lone, x_KBD.split(1), strict=True)])

    @cached_property
    def _lone(self) -> list[LoneStack]:
        return [LoneStack(self.architecture, theta_1P, None, self.matmul_dtype) for theta_1P in self.theta_KP.split(1)]


class TrainingStep(nn.Module):
    """A module's training step as its forward pass, which is what :func:`torch.func.functional_call` calls."""

    def __init__(self, module: AutogradModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, draws: Draws) -> Tensor:
        """Outputs ``(B, O)`` of one training step."""
        return self.module.training_outputs(x, draws)
