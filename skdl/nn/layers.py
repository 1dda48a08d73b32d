"""The layers of stacks of dense networks, each with a backward pass of its own.

Axes: K models, B batch rows, D inputs, H units of a hidden layer, O outputs.

A layer is made for one number of rows. ``forward`` keeps what ``backward`` will need, until the next step; ``backward``
takes the gradient of what the layer gave, writes that of its parameters and returns that of what it was given. It may
change its argument. Matrix products go into memory that stays: large memory that is new at each step has to be cleared
by the system first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from skdl.nn import periodic
from skdl.nn.activations import Activation
from skdl.nn.periodic import PeriodicTape, PeriodicViews

#: What normalisation adds to a variance before it divides by its root, as torch does.
NORM_EPSILON = 1e-5
#: Weight of a batch's statistics in the running ones, as in torch.
BATCH_NORM_MOMENTUM = 0.1
#: Size of one model's weight matrix from which writing its product straight into strided memory takes less time than a
#: product of all models and a copy.
MIN_NUMBERS_BY_ITSELF = 2048


class Layer(Protocol):
    """One layer of K networks."""

    def forward(self, h: Tensor, /) -> Tensor:
        """The layer's output in training. Keeps what ``backward`` needs."""

    def infer(self, h: Tensor, /) -> Tensor:
        """The layer's output at prediction time. May write over its input or return it; keeps nothing."""

    def backward(self, g: Tensor, /) -> Tensor:
        """The gradient with respect to the layer's input, given the one with respect to its output."""


# --- matrix products -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Products:
    """Products of batches of matrices: ``matmul(a, b)``, and ``addmm(c, a, b)``, which adds c; both take ``out``."""

    matmul: Callable[..., Tensor] = torch.bmm
    addmm: Callable[..., Tensor] = torch.baddbmm
    #: Whether ``out`` is used.
    writes: bool = True

    @classmethod
    def of(cls, matmul_dtype: torch.dtype | None) -> Products:
        """Products in the precision of the parameters, or in a lower one (mixed precision)."""
        if matmul_dtype is None:
            return cls()

        def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
            return torch.bmm(a.to(matmul_dtype), b.to(matmul_dtype)).to(a.dtype)

        def addmm(c: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
            return matmul(a, b) + c

        return cls(matmul, addmm, writes=False)

    def matmul_into(self, out: Tensor | None) -> Callable[..., Any]:
        """``matmul`` for a place whose numbers are to be written over."""
        # Into strided memory, as several models' weights are, it is taken one model at a time.
        if out is None or (self.writes and (out.is_contiguous() or out[0].numel() >= MIN_NUMBERS_BY_ITSELF)):
            return self.matmul

        def copied(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
            return out.copy_(self.matmul(a, b))

        return copied


class Parameters(NamedTuple):
    """Weights ``(K, D, H)`` and biases ``(K, H)`` of a layer, and where their gradients go; None: nowhere."""

    weight: Tensor
    bias: Tensor
    weight_grad: Tensor | None = None
    bias_grad: Tensor | None = None

    def split(self, n_inputs: int, axis: int) -> tuple[Parameters, Parameters]:
        """Those of the first inputs, with the bias, and those of the others; inputs are an axis of the weights."""
        sizes = [n_inputs, self.weight.shape[axis] - n_inputs]
        weights = self.weight.split(sizes, axis)
        grads = (None, None) if self.weight_grad is None else self.weight_grad.split(sizes, axis)
        first = Parameters(weights[0], self.bias, grads[0], self.bias_grad)
        return first, Parameters(weights[1], self.bias, grads[1])


class Linear:
    """``(K, B, D) -> (K, B, H)``: a matrix product and a bias.

    ``output`` and ``input_grad`` are where products go, None for new memory. Without ``needs_input_grad``, as in the
    first layer, ``backward`` leaves the gradient of the input out and returns its argument.
    """

    def __init__(
        self,
        parameters: Parameters,
        products: Products,
        *,
        output: Tensor | None = None,
        input_grad: Tensor | None = None,
        needs_input_grad: bool = True,
    ) -> None:
        self.weight, bias, self.weight_grad, self.bias_grad = parameters
        self.transposed, self.bias = self.weight.mT, bias.unsqueeze(1)
        self.matmul, self.addmm, self.write = products.matmul, products.addmm, products.matmul_into(self.weight_grad)
        self.output, self.input_grad, self.needs_input_grad = output, input_grad, needs_input_grad

    def forward(self, h: Tensor, bias: Tensor | None = None) -> Tensor:
        self.inputs = h
        return self.addmm(self.bias if bias is None else bias, h, self.weight, out=self.output)

    def infer(self, h: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.addmm(self.bias if bias is None else bias, h, self.weight)

    def backward(self, g: Tensor) -> Tensor:
        self.write(self.inputs.mT, g, out=self.weight_grad)
        if self.bias_grad is not None:
            torch.sum(g, 1, out=self.bias_grad)
        return self.matmul(g, self.transposed, out=self.input_grad) if self.needs_input_grad else g


class Output(Linear):
    """``(K, B, H) -> (K, O, B)``: the last layer, whose few outputs stand in front of the rows.

    Its weights are ``(K, O, H)``. What it gives is always new memory: of few outputs, it is little.
    """

    def __init__(
        self,
        parameters: Parameters,
        products: Products,
        *,
        input_grad: Tensor | None = None,
        needs_input_grad: bool = True,
    ) -> None:
        super().__init__(parameters, products, input_grad=input_grad, needs_input_grad=needs_input_grad)
        self.bias = parameters.bias.unsqueeze(2)

    def forward(self, h: Tensor, bias: Tensor | None = None) -> Tensor:
        self.inputs = h
        return self.infer(h, bias)

    def infer(self, h: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.addmm(self.bias if bias is None else bias, self.weight, h.mT)

    def backward(self, g: Tensor) -> Tensor:
        self.write(g, self.inputs, out=self.weight_grad)
        if self.bias_grad is not None:
            torch.sum(g, 2, out=self.bias_grad)
        return self.matmul(g.mT, self.weight, out=self.input_grad) if self.needs_input_grad else g


# --- between the products --------------------------------------------------------------------------------------------


class Nonlinearity:
    """An activation function."""

    def __init__(self, activation: Activation) -> None:
        self.function, self.derivative = activation.forward, activation.backward

    def forward(self, h: Tensor) -> Tensor:
        self.before, self.after = h, self.function(h)
        # A user's own activation brings a graph along, which ends here.
        return self.after.detach() if self.after.requires_grad else self.after

    def infer(self, h: Tensor) -> Tensor:
        return self.function(h).detach()

    def backward(self, g: Tensor) -> Tensor:
        return self.derivative(g, self.before, self.after)


class MaskDropout:
    """Units times the factors of a ``mask`` ``(K, B, H)``, to be set at each step."""

    mask: Tensor

    def forward(self, h: Tensor) -> Tensor:
        return h * self.mask

    def infer(self, h: Tensor) -> Tensor:
        return h

    def backward(self, g: Tensor) -> Tensor:
        return g.mul_(self.mask)


class LayerNorm:
    """Each row's units minus their mean, over their standard deviation; then a gain and a shift for each unit."""

    def __init__(self, gain: Tensor, shift: Tensor, gain_grad: Tensor | None, shift_grad: Tensor | None) -> None:
        self.gain, self.shift, self.gain_grad, self.shift_grad = gain, shift, gain_grad, shift_grad

    def forward(self, h: Tensor) -> Tensor:
        self.normalized, self.scale = self._normalize(h)
        return torch.addcmul(self.shift, self.normalized, self.gain)

    def infer(self, h: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self._normalize(h)[0], self.gain)

    def backward(self, g: Tensor) -> Tensor:
        torch.sum(g * self.normalized, 1, keepdim=True, out=self.gain_grad)
        torch.sum(g, 1, keepdim=True, out=self.shift_grad)
        return self._back(g)

    def _normalize(self, h: Tensor) -> tuple[Tensor, Tensor]:
        normalized, _, scale = torch.native_layer_norm(h, h.shape[-1:], None, None, NORM_EPSILON)
        return normalized, scale

    def _back(self, g: Tensor) -> Tensor:
        g = g * self.gain
        mean, mean_product = g.mean(-1, keepdim=True), (g * self.normalized).mean(-1, keepdim=True)
        return self.scale * (g - mean - self.normalized * mean_product)


class BatchNorm(LayerNorm):
    """Each unit minus its mean over the rows of a batch, over its standard deviation; then a gain and a shift.

    Predictions take the running mean and variance of training.

    ``rows`` ``(K, B, 1)``, to be set at each step, is 1 for a row and 0 for padding; None where there is no padding.
    """

    rows: Tensor | None = None

    def __init__(
        self,
        mean: Tensor,
        variance: Tensor,
        gain: Tensor,
        shift: Tensor,
        gain_grad: Tensor | None,
        shift_grad: Tensor | None,
    ) -> None:
        super().__init__(gain, shift, gain_grad, shift_grad)
        self.mean, self.variance = mean, variance

    def infer(self, h: Tensor) -> Tensor:
        h = (h - self.mean) / (self.variance + NORM_EPSILON).sqrt()
        return torch.addcmul(self.shift, h, self.gain)

    def _normalize(self, h: Tensor) -> tuple[Tensor, Tensor]:
        count: float | Tensor
        if self.rows is None:
            count = float(h.shape[1])
            variance, mean = torch.var_mean(h, 1, correction=0, keepdim=True)
            sampled = variance * (count / max(count - 1, 1))
        else:
            count = self.rows.sum(1, keepdim=True)
            mean = (h * self.rows).sum(1, keepdim=True) / count
            variance = ((h - mean).square() * self.rows).sum(1, keepdim=True) / count
            sampled = variance * (count / (count - 1).clamp(min=1))
            # One row has no variance to learn from.
            sampled = torch.where(count > 1, sampled, self.variance)
        self.mean.lerp_(mean, BATCH_NORM_MOMENTUM)
        if self.rows is not None or h.shape[1] > 1:
            self.variance.lerp_(sampled, BATCH_NORM_MOMENTUM)
        self.count = count
        scale = (variance + NORM_EPSILON).rsqrt()
        return (h - mean) * scale, scale

    def _back(self, g: Tensor) -> Tensor:
        assert self.gain_grad is not None and self.shift_grad is not None
        # Sums over the batch that were just taken serve again: the gain is the same for every row.
        centred = g - (self.shift_grad + self.normalized * self.gain_grad) / self.count
        if self.rows is not None:
            centred = centred * self.rows
        return centred * (self.gain * self.scale)


# --- in front --------------------------------------------------------------------------------------------------------


class Embedding:
    """``(K, B, D) -> (K, B, W)``: the embeddings of coded columns, and those of numeric ones behind them.

    ``codes`` ``(K, B, E)`` are to be set at each step.
    """

    codes: Tensor | None = None

    def __init__(
        self,
        tables: list[Tensor],
        waves: PeriodicViews | None,
        table_grads: list[Tensor] | None,
        wave_grads: PeriodicViews | None,
    ) -> None:
        self.tables, self.waves, self.table_grads, self.wave_grads = tables, waves, table_grads, wave_grads
        self.tape: PeriodicTape | None = None

    def forward(self, h: Tensor) -> Tensor:
        parts = []
        if self.codes is not None:
            models = torch.arange(len(h), device=h.device).unsqueeze(1)
            parts += [table[models, self.codes[..., e]] for e, table in enumerate(self.tables)]
        if self.waves is not None:
            embedded, self.tape = periodic.forward(self.waves, h)
            parts.append(embedded)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def backward(self, g: Tensor) -> Tensor:
        assert self.table_grads is not None
        start = 0
        if self.codes is not None:
            for e, grad in enumerate(self.table_grads):
                width = grad.shape[-1]
                index = self.codes[..., e : e + 1].expand(-1, -1, width)
                grad.zero_().scatter_add_(1, index, g[..., start : start + width])
                start += width
        if self.waves is not None:
            assert self.tape is not None and self.wave_grads is not None
            periodic.backward(self.waves, self.wave_grads, g[..., start:], self.tape)
        return g


class WithEmbedding:
    """A first layer that sees its inputs and what an embedding makes of them.

    Parameters
    ----------
    inputs, embedded : Linear
        Its parts on either, without a bias of its own in ``embedded``.
    embedding : Embedding
    """

    def __init__(self, inputs: Linear, embedded: Linear, embedding: Embedding) -> None:
        self.inputs, self.embedded, self.embedding = inputs, embedded, embedding

    def forward(self, h: Tensor) -> Tensor:
        # Two products in place of one of both side by side, which would have to be put there first. The second is added
        # to the first, in its place where there is memory that stays.
        return self.embedded.forward(self.embedding.forward(h), self.inputs.forward(h))

    def infer(self, h: Tensor) -> Tensor:
        return self.embedded.infer(self.embedding.forward(h), self.inputs.infer(h))

    def backward(self, g: Tensor) -> Tensor:
        # The gradient of the inputs, the larger part, is not wanted.
        self.inputs.backward(g)
        return self.embedding.backward(self.embedded.backward(g))
