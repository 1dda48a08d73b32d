"""Stacks of dense networks: K networks of one shape, trained side by side, with a backward pass of their own.

Axes: K models, B batch rows, D inputs, H units of a hidden layer, O outputs, P parameters of one network. Outputs and
their gradients stand in front of the rows, ``(K, O, B)``: products and sums with few outputs in front are several
times faster.

The parameters of all K networks lie in one tensor ``theta_KP``, so that an optimiser step, a penalty or a copy of the
best weights is one call. A vector of it is laid out as ``[weights | biases, frequencies, phases, gains, shifts |
running statistics]``: the penalised parameters first, those that are not trained last.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skdl.nn.activations import Activation
from skdl.nn.dropout import DropoutMasks
from skdl.nn.layers import (
    BATCH_NORM_MOMENTUM,
    NORM_EPSILON,
    BatchNorm,
    Embedding,
    Layer,
    LayerNorm,
    Linear,
    MaskDropout,
    Nonlinearity,
    Output,
    Parameters,
    Products,
    WithEmbedding,
)
from skdl.nn.network import Architecture, NetworkModule, NetworkStack, Slot, laid_out, vector_length
from skdl.nn.periodic import PeriodicEmbedding, PeriodicModule, PeriodicViews

#: Numbers of the widest layer that a prediction computes at a time, so that they stay in the processor's cache.
CHUNK_NUMBERS = 131_072


@dataclass(frozen=True)
class DenseArchitecture(Architecture):
    """The architecture of a dense network: embeddings, hidden layers, one linear output layer.

    Parameters
    ----------
    n_inputs : int
        Width of the numeric input.
    n_outputs : int
        Width of the output.
    hidden : tuple of int
        Units of each hidden layer.
    activation : Activation
        Applied after each hidden layer.
    normalization : {None, "batch", "layer"}
        Applied to the input of each activation.
    embeddings : tuple of (int, int)
        ``(number of levels, width)`` of each embedded column. Level 0 stands for "unknown" and stays at zero
        unless training rows hold it.
    periodic : PeriodicEmbedding, optional
        Of the leading numeric inputs. It stands behind the inputs and the embedded columns.
    """

    n_inputs: int
    n_outputs: int
    hidden: tuple[int, ...]
    activation: Activation
    normalization: str | None = None
    embeddings: tuple[tuple[int, int], ...] = ()
    periodic: PeriodicEmbedding | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the input of the first layer and of the output of every layer."""
        embedded = sum(width for _, width in self.embeddings) + (self.periodic.n_outputs if self.periodic else 0)
        return (self.n_inputs + embedded, *self.hidden, self.n_outputs)

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """Every parameter's place, by its name in :class:`DenseModule`'s terms, in the order of the vector."""
        pairs = list(pairwise(self.widths))
        shapes: dict[str, tuple[int, ...]] = {f"embedding{i}": shape for i, shape in enumerate(self.embeddings)}
        if self.periodic is not None:
            shapes |= self.periodic.weight_shapes
        shapes |= {f"weight{i}": pair for i, pair in enumerate(pairs)}
        # The last weight stands as (outputs, inputs), because outputs stand in front of rows.
        shapes[f"weight{len(self.hidden)}"] = pairs[-1][::-1]
        shapes |= {f"bias{i}": (width,) for i, (_, width) in enumerate(pairs)}
        if self.periodic is not None:
            shapes |= self.periodic.wave_shapes
        if self.normalization is not None:
            shapes |= {f"{kind}{i}": (h,) for kind in ("gain", "shift") for i, h in enumerate(self.hidden)}
        if self.normalization == "batch":
            shapes |= {f"{kind}{i}": (h,) for kind in ("mean", "variance") for i, h in enumerate(self.hidden)}
        return laid_out(shapes)

    @property
    def n_weights(self) -> int:
        """How many of the leading parameters are weights: those that penalties and weight decay act on."""
        return self.slots["bias0"].start

    @property
    def n_trained(self) -> int:
        """How many of the leading parameters are trained: all but the statistics of batch normalisation."""
        statistics = self.slots.get("mean0")
        return self.n_parameters if statistics is None else statistics.start

    @property
    def matrices(self) -> tuple[Slot, ...]:
        """Where the weights of all layers but the last lie."""
        return tuple(self.slots[f"weight{i}"] for i in range(len(self.hidden)))

    @property
    def n_parameters(self) -> int:
        """Length P of a network's vector."""
        return vector_length(self.slots.values())

    @property
    def n_activations(self) -> int:
        """How many numbers a pass computes for one sample, its input included."""
        return sum(self.widths) + (self.periodic.n_cosines if self.periodic else 0)

    def initial(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Fresh parameters for one network, shape ``(P,)``, drawn on the CPU."""
        theta_P = torch.zeros(self.n_parameters, dtype=torch.float64)
        for name, slot in self.slots.items():
            values = slot.view(theta_P)
            if name.startswith("weight"):
                fan_in, fan_out = slot.shape
                # Glorot and Bengio 2010, as in scikit-learn's networks.
                bound = math.sqrt(6 / (fan_in + fan_out))
                values.uniform_(-bound, bound, generator=generator)
            elif name.startswith("embedding"):
                values[1:].normal_(0, 1 / math.sqrt(slot.shape[1]), generator=generator)
            elif name.startswith(("gain", "variance")):
                values.fill_(1)
            elif self.periodic is not None and name in self.periodic.shapes:
                self.periodic.draw(name, values, generator)
        return theta_P.to(dtype)

    @property
    def label(self) -> str:
        """Width of every layer."""
        return "-".join(map(str, self.widths))

    @property
    def n_multiplications(self) -> int:
        """Multiplications of one row's forward pass."""
        return self.n_weights

    @property
    def n_products(self) -> int:
        """Matrix products, or convolutions, that are computed one after another."""
        return len(self.widths) - 1

    def stacks_on(self, device: str) -> bool:
        """Whether several such networks are trained side by side: on any device, unless the activation is a user's."""
        return self.activation.stackable

    def stack(
        self, theta_KP: Tensor, grad_KP: Tensor | None = None, matmul_dtype: torch.dtype | None = None
    ) -> NetworkStack:
        """The networks with these parameters; ``grad_KP`` is where their gradients go."""
        return DenseStack(self, theta_KP, grad_KP, matmul_dtype)

    def noise(
        self,
        generators: Sequence[torch.Generator],
        dropout: Sequence[float],
        lengths: Sequence[int],
        batch_size: int,
        dtype: torch.dtype,
    ) -> DropoutMasks | None:
        """Dropout masks of the hidden layers."""
        if not self.hidden or not any(dropout):
            return None
        return DropoutMasks(generators, dropout, lengths, self.hidden, batch_size, dtype)

    def module(self, theta_P: Tensor, dropout: float = 0.0) -> NetworkModule:
        """The module that computes what the network with these parameters computes; in eval mode, on the CPU."""
        return DenseModule.from_vector(self, theta_P, dropout)

    def with_inputs_times(self, theta_P: Tensor, factors_D: Tensor) -> Tensor:
        """The parameters of a network that multiplies its leading inputs by factors before it does as this one."""
        theta_P = theta_P.clone()
        weight = self.slots["weight0"].view(theta_P)
        # A lone layer's weight stands as (outputs, inputs).
        weight = weight if self.hidden else weight.t()
        weight[: len(factors_D)] *= factors_D.to(theta_P).unsqueeze(1)
        return theta_P

    def with_outputs_scaled(self, theta_P: Tensor, factor: float, shift: Sequence[float] = ()) -> Tensor:
        """The parameters of a network whose outputs are this one's times a factor, plus a shift of each, if any."""
        theta_P = theta_P.clone()
        last = len(self.hidden)
        for name in (f"weight{last}", f"bias{last}"):
            self.slots[name].view(theta_P).mul_(factor)
        if shift:
            self.slots[f"bias{last}"].view(theta_P).add_(theta_P.new_tensor(shift))
        return theta_P

    def views(self, theta_KP: Tensor) -> DenseViews:
        """The parameters of all networks by layer, sharing memory with ``theta_KP``."""
        return DenseViews({name: slot.view(theta_KP) for name, slot in self.slots.items()}, self)


class DenseViews:
    """Parameters (or gradients) of K networks, seen layer by layer."""

    def __init__(self, by_name: dict[str, Tensor], architecture: DenseArchitecture) -> None:
        layers = range(len(architecture.hidden) + 1)
        hidden = range(len(architecture.hidden))
        self.embeddings = [by_name[f"embedding{i}"] for i in range(len(architecture.embeddings))]
        self.weights = [by_name[f"weight{i}"] for i in layers]
        self.biases = [by_name[f"bias{i}"] for i in layers]
        self.gains, self.shifts, self.means, self.variances = (
            [by_name[f"{kind}{i}"].unsqueeze(1) for i in hidden if f"{kind}{i}" in by_name]
            for kind in ("gain", "shift", "mean", "variance")
        )
        self.periodic = PeriodicViews(by_name) if architecture.periodic else None


@dataclass(frozen=True)
class Chain:
    """The layers of a stack, for one number of rows, and those of them that are told something at each step."""

    layers: list[Layer]
    embedding: Embedding | None
    norms: list[BatchNorm]
    dropouts: list[MaskDropout]


class Buffers(NamedTuple):
    """Where a layer's products go, None for new memory.

    It is the same memory: when the gradient of the layer's input is found, its output has been used for the last time.
    """

    output: Tensor | None
    input_grad: Tensor | None


class DenseStack:
    """Forward and backward passes through K networks of one :class:`DenseArchitecture`.

    Parameters
    ----------
    architecture : DenseArchitecture
    theta_KP, grad_KP : Tensor
        Parameters, and where :meth:`backward` writes their gradients. Same shape.
    matmul_dtype : torch.dtype, optional
        Precision of the matrix products where it is lower than that of the parameters (mixed precision).
    """

    def __init__(
        self,
        architecture: DenseArchitecture,
        theta_KP: Tensor,
        grad_KP: Tensor | None = None,
        matmul_dtype: torch.dtype | None = None,
    ) -> None:
        self.architecture = architecture
        self.theta = architecture.views(theta_KP)
        self.grad = None if grad_KP is None else architecture.views(grad_KP)
        self.products = Products.of(matmul_dtype)
        self._chains: dict[tuple[int, bool], Chain] = {}
        self._memory: dict[int, Tensor] = {}
        if self.grad is not None and architecture.normalization == "batch":
            # Batch normalisation takes a bias out again: its gradient would be rounding noise.
            for bias_grad in self.grad.biases[:-1]:
                bias_grad.zero_()

    def predict(self, x_KBD: Tensor, codes_KBE: Tensor | None = None) -> Tensor:
        """Outputs ``(K, O, B)`` as after training: running statistics, no dropout."""
        chain = self._inference_chain
        if chain.embedding is not None:
            chain.embedding.codes = codes_KBE
        h = x_KBD
        for layer in chain.layers:
            h = layer.infer(h)
        return h

    @cached_property
    def _inference_chain(self) -> Chain:
        """Layers without memory of their own: nothing is kept between calls."""
        return self._chain(self._no_buffers, has_dropout=False)

    def forward(
        self,
        x_KBD: Tensor,
        codes_KBE: Tensor | None = None,
        masks: Sequence[Tensor] | None = None,
        rows_KB1: Tensor | None = None,
    ) -> tuple[Tensor, Chain]:
        """Outputs ``(K, O, B)`` while training, and what :meth:`backward` needs, which is good until the next step.

        Parameters
        ----------
        x_KBD, codes_KBE : Tensor
            Numeric inputs, and the level of each embedded column.
        masks : sequence of Tensor (K, B, H), optional
            Dropout factors of each hidden layer.
        rows_KB1 : Tensor, optional
            1 for a row, 0 for padding; None where there is no padding. Batch statistics leave padding out.
        """
        key = x_KBD.shape[1], masks is not None
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = self._chain(self._buffers(x_KBD), has_dropout=masks is not None)
        if chain.embedding is not None:
            chain.embedding.codes = codes_KBE
        for norm in chain.norms:
            norm.rows = rows_KB1
        if masks is not None:
            for dropout, mask in zip(chain.dropouts, masks, strict=True):
                dropout.mask = mask
        h = x_KBD
        for layer in chain.layers:
            h = layer.forward(h)
        return h, chain

    def backward(self, grad_KOB: Tensor, chain: Chain) -> None:
        """Write the gradient of every parameter for the gradient of the outputs."""
        g = grad_KOB
        for layer in reversed(chain.layers):
            g = layer.backward(g)

    # --- the layers ----------------------------------------------------------------------------------------------

    def _chain(self, buffers: list[Buffers], has_dropout: bool) -> Chain:
        architecture = self.architecture
        embedding = self._embedding()
        chain = Chain([], embedding, [], [])
        for i, buffer in enumerate(buffers[:-1]):
            chain.layers.append(self._layer(i, partial(Linear, output=buffer.output), buffer.input_grad, embedding))
            norm = self._norm(i)
            if norm is not None:
                chain.layers.append(norm)
            if isinstance(norm, BatchNorm):
                chain.norms.append(norm)
            chain.layers.append(Nonlinearity(architecture.activation))
            if has_dropout:
                chain.dropouts.append(MaskDropout())
                chain.layers.append(chain.dropouts[-1])
        chain.layers.append(self._layer(len(architecture.hidden), Output, buffers[-1].input_grad, embedding))
        return chain

    def _layer(
        self, i: int, make: Callable[..., Linear], input_grad: Tensor | None, embedding: Embedding | None
    ) -> Layer:
        """The i-th layer with weights; the first one sees what is embedded as well."""
        parameters = self._parameters(i)
        if i > 0 or embedding is None:
            return make(parameters, self.products, input_grad=input_grad, needs_input_grad=i > 0)
        # Weights of the last layer have outputs in front.
        inputs, embedded = parameters.split(self.architecture.n_inputs, axis=1 if self.architecture.hidden else 2)
        return WithEmbedding(
            make(inputs, self.products, needs_input_grad=False), make(embedded, self.products), embedding
        )

    @property
    def _no_buffers(self) -> list[Buffers]:
        return [Buffers(None, None)] * (len(self.architecture.hidden) + 1)

    def _buffers(self, x_KBD: Tensor) -> list[Buffers]:
        """Memory of every layer. Chains share it: one is used at a time."""
        # A user's own activation makes a graph of its input and keeps it.
        if not (self.products.writes and self.architecture.activation.stackable):
            return self._no_buffers
        k, n_rows, _ = x_KBD.shape
        # The gradient of the first layer's input is not wanted, and the last layer's output is always new.
        widths = [0, *self.architecture.hidden, 0]
        buffers = []
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            n_numbers = k * n_rows * max(n_in, n_out)
            if len(self._memory.get(i, ())) < n_numbers:
                self._memory[i] = x_KBD.new_empty(n_numbers)
            views = [self._memory[i][: k * n_rows * n].view(k, n_rows, n) if n else None for n in (n_out, n_in)]
            buffers.append(Buffers(*views))
        return buffers

    def _parameters(self, i: int) -> Parameters:
        weight, bias = self.theta.weights[i], self.theta.biases[i]
        if self.grad is None:
            return Parameters(weight, bias)
        has_bias = self.architecture.normalization != "batch" or i == len(self.architecture.hidden)
        return Parameters(weight, bias, self.grad.weights[i], self.grad.biases[i] if has_bias else None)

    def _norm(self, i: int) -> LayerNorm | None:
        theta, grad, kind = self.theta, self.grad, self.architecture.normalization
        if kind is None:
            return None
        grads = (None, None) if grad is None else (grad.gains[i], grad.shifts[i])
        if kind == "layer":
            return LayerNorm(theta.gains[i], theta.shifts[i], *grads)
        return BatchNorm(theta.means[i], theta.variances[i], theta.gains[i], theta.shifts[i], *grads)

    def _embedding(self) -> Embedding | None:
        theta, grad = self.theta, self.grad
        if not theta.embeddings and theta.periodic is None:
            return None
        table_grads, wave_grads = (None, None) if grad is None else (grad.embeddings, grad.periodic)
        return Embedding(theta.embeddings, theta.periodic, table_grads, wave_grads)


class BareLinear(nn.Linear):
    """A layer whose weights are put in: to draw some that nobody uses takes as long as a training step."""

    def reset_parameters(self) -> None:
        pass


class DenseModule(NetworkModule):
    """One trained dense network as a plain torch module.

    **Shape**: numeric inputs ``(B, D)`` and, where columns are embedded, their levels ``(B, E)`` of integers;
    outputs ``(B, O)``: logits, or values in the units that the network was trained on.
    """

    def __init__(self, architecture: DenseArchitecture, dropout: float = 0.0) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(*shape, device="meta") for shape in architecture.embeddings)
        self.periodic = PeriodicModule(architecture.periodic) if architecture.periodic else None
        layers: list[nn.Module] = []
        for n_in, n_out in zip(architecture.widths[:-2], architecture.hidden, strict=True):
            layers.append(BareLinear(n_in, n_out, device="meta"))
            if architecture.normalization == "batch":
                layers.append(nn.BatchNorm1d(n_out, eps=NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM))
            elif architecture.normalization == "layer":
                layers.append(nn.LayerNorm(n_out, eps=NORM_EPSILON))
            layers.append(architecture.activation.module())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        layers.append(BareLinear(architecture.widths[-2], architecture.n_outputs, device="meta"))
        self.layers = nn.Sequential(*layers)
        self.n_layers = len(architecture.widths)
        self.n_multiplications, self.n_products = architecture.n_multiplications, architecture.n_products
        widest = max(architecture.widths[1:] + ((architecture.periodic.n_cosines,) if architecture.periodic else ()))
        self.chunk_rows = max(CHUNK_NUMBERS // widest, 1)
        #: How each layer computes in :meth:`outputs`, and where its parameters lay when that was found.
        self._frozen: list[Callable[[Tensor], Tensor]] = []
        self._frozen_at: list[int] | None = None

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        return self.layers(self._embedded(x, codes))

    def outputs(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """What :meth:`forward` gives, without a graph and past the hooks of layers.

        Those, and the contexts that would switch graphs off, cost more than the arithmetic of a few rows.
        """
        # A caller may have given a layer other parameters; changes in place show by themselves.
        places = [p.data_ptr() for layer in self.layers for p in layer._parameters.values() if p is not None]
        if places != self._frozen_at:
            self._frozen, self._frozen_at = [_frozen(layer) for layer in self.layers], places
        h = self._embedded(x, codes).detach()
        for forward in self._frozen:
            h = forward(h)
        return h

    def _kept_state(self) -> dict[str, Any]:
        return self.__dict__ | {"_frozen": [], "_frozen_at": None}

    def _embedded(self, x: Tensor, codes: Tensor | None) -> Tensor:
        if codes is None and self.periodic is None:
            return x
        parts = [x]
        if codes is not None:
            parts += [table(codes[:, e]) for e, table in enumerate(self.embeddings)]
        if self.periodic is not None:
            parts.append(self.periodic(x))
        return torch.cat(parts, dim=1)

    @property
    def linear_layers(self) -> list[nn.Linear]:
        """The dense layers from input to output."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def _parameters_by_slot(self) -> dict[str, tuple[Any, str]]:
        """Module and attribute that hold the parameter of each slot."""
        places: dict[str, tuple[Any, str]] = {
            f"embedding{i}": (table, "weight") for i, table in enumerate(self.embeddings)
        }
        if self.periodic is not None:
            places |= {name: (self.periodic, name) for name, _ in self.periodic.named_parameters()}
        for i, linear in enumerate(self.linear_layers):
            places |= {f"weight{i}": (linear, "weight"), f"bias{i}": (linear, "bias")}
        norms = [layer for layer in self.layers if isinstance(layer, nn.BatchNorm1d | nn.LayerNorm)]
        for i, norm in enumerate(norms):
            places |= {f"gain{i}": (norm, "weight"), f"shift{i}": (norm, "bias")}
            if isinstance(norm, nn.BatchNorm1d):
                places |= {f"mean{i}": (norm, "running_mean"), f"variance{i}": (norm, "running_var")}
        return places

    def _is_transposed(self, name: str) -> bool:
        """Whether a vector holds a parameter as (inputs, outputs), which torch keeps as (outputs, inputs)."""
        return name.startswith("weight") and name != f"weight{len(self.linear_layers) - 1}"

    @classmethod
    def from_vector(cls, architecture: DenseArchitecture, theta_P: Tensor, dropout: float = 0.0) -> DenseModule:
        """The module that computes what the network with these parameters computes; in eval mode."""
        module = cls(architecture, dropout)
        places = module._parameters_by_slot()
        for name, slot in architecture.slots.items():
            value = slot.view(theta_P.detach().cpu())
            holder, attribute = places[name]
            value = (value.t() if module._is_transposed(name) else value).clone().contiguous()
            is_buffer = attribute.startswith("running")
            setattr(holder, attribute, value if is_buffer else nn.Parameter(value))
        return module.eval()

    def to_vector(self, architecture: DenseArchitecture) -> Tensor:
        """The inverse of :meth:`from_vector`.

        Raises
        ------
        LookupError
            If the module's parameters are not those of the architecture.
        """
        places = self._parameters_by_slot()
        if places.keys() != architecture.slots.keys():
            raise LookupError("The network has other parts.")
        parts = []
        for name in architecture.slots:
            holder, attribute = places[name]
            value = getattr(holder, attribute).detach()
            if value.numel() != math.prod(architecture.slots[name].shape):
                raise LookupError(f"{name} has another shape than the network's.")
            parts.append((value.t() if self._is_transposed(name) else value).reshape(-1))
        theta_P = torch.cat(parts)
        return F.pad(theta_P, (0, architecture.n_parameters - len(theta_P)))


def _frozen(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a layer computes in eval mode, on the same memory, with parameters that want no gradient."""
    # The most frequent ones as bare functions.
    if isinstance(layer, nn.Linear):
        return partial(F.linear, weight=layer.weight.detach(), bias=layer.bias.detach())
    if isinstance(layer, nn.ReLU):
        # In place: what comes before it has just made its input.
        return torch.relu_
    frozen = copy.copy(layer)
    frozen.training = False
    frozen._parameters = {
        name: None if parameter is None else nn.Parameter(parameter.detach(), requires_grad=False)
        for name, parameter in layer._parameters.items()
    }
    return frozen.forward
