"""Activation functions with their derivatives, for stacks of networks.

Each :class:`Activation` maps a tensor to one of the same shape and knows how to send a gradient back through
itself, so that the training engine needs no autograd graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten

#: Modules that draw random numbers in training.
RANDOM_MODULES = (
    nn.RReLU,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)

Forward = Callable[[Tensor], Tensor]
Backward = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """One activation function.

    ``forward(z)`` gives ``h``; ``backward(grad_h, z, h)`` gives ``grad_z`` and may write over all that it is given,
    but gives it in the memory of ``grad_h`` or in new memory: that of ``z`` and ``h`` serves for the next gradient.
    ``stackable`` is False where the function may look across a whole tensor and so must see one model at a time.
    """

    name: str
    forward: Forward = field(repr=False)
    backward: Backward = field(repr=False)
    module: Callable[[], nn.Module] = field(repr=False)
    stackable: bool = True


def _relu_backward(grad: Tensor, z: Tensor, h: Tensor) -> Tensor:
    # Two plain calls take less time than the one of torch's own backward pass, which goes a longer way round.
    return grad.mul_(h.sign_())


#: Limit of SELU far below zero, before it is scaled, with its sign turned (Klambauer et al. 2017).
_SELU_ALPHA = 1.6732632423543772
#: Factor on all outputs of SELU (Klambauer et al. 2017).
_SELU_SCALE = 1.0507009873554805

ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("identity", lambda z: z, lambda g, z, h: g, nn.Identity),
        # The input of relu is not needed again, so its memory is reused.
        Activation("relu", torch.relu_, _relu_backward, nn.ReLU),
        Activation(
            "leaky_relu",
            F.leaky_relu,
            lambda g, z, h: aten.leaky_relu_backward(g, z, 0.01, False),
            nn.LeakyReLU,
        ),
        Activation("gelu", F.gelu, lambda g, z, h: aten.gelu_backward(g, z), nn.GELU),
        Activation("silu", F.silu, lambda g, z, h: aten.silu_backward(g, z), nn.SiLU),
        Activation("mish", F.mish, lambda g, z, h: aten.mish_backward(g, z), nn.Mish),
        Activation(
            "selu",
            F.selu,
            lambda g, z, h: aten.elu_backward(g, _SELU_ALPHA, _SELU_SCALE, 1, False, z),
            nn.SELU,
        ),
        Activation("elu", F.elu, lambda g, z, h: aten.elu_backward(g, 1, 1, 1, False, z), nn.ELU),
        Activation("tanh", torch.tanh, lambda g, z, h: aten.tanh_backward(g, h), nn.Tanh),
        Activation("sigmoid", torch.sigmoid, lambda g, z, h: aten.sigmoid_backward(g, h), nn.Sigmoid),
    )
}


class _Function(nn.Module):
    """A plain function as a module; picklable when the function is."""

    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


def get_activation(activation: str | Forward | type[nn.Module], axes: Sequence[int] = (2,)) -> Activation:
    """The :class:`Activation` for a name, a function of one tensor of any of these numbers of axes, or a module class.

    Raises
    ------
    ValueError
        If the module has parameters of its own, which would not be trained, or if outputs are of another shape, have
        no gradient, are drawn at random or depend on other rows.
    """
    if isinstance(activation, str):
        return ACTIVATIONS[activation]
    if isinstance(activation, nn.Module):
        raise ValueError("activation must be a module class such as torch.nn.Hardswish, not an instance of it.")
    function: Forward
    module: Callable[[], nn.Module]
    if isinstance(activation, type):
        function, module = _instance(activation), partial(_on_cpu, activation)
    else:
        function, module = activation, partial(_Function, activation)
    for n_axes in axes:
        _check_activation(function, getattr(activation, "__name__", repr(activation)), n_axes)
    return _differentiated(function, module)


def _instance(module_class: type[nn.Module]) -> nn.Module:
    """A module of a class that serves as an activation."""
    name = module_class.__name__
    try:
        module = _on_cpu(module_class)
    except TypeError as error:
        raise ValueError(
            f"activation={name} cannot be created without arguments: {error}. "
            "Pass a class that needs none, or a function."
        ) from error
    if next(module.parameters(), None) is not None:
        raise ValueError(
            f"activation={name} has parameters of its own, which would not be trained. "
            "Use an activation without parameters."
        )
    if isinstance(module, RANDOM_MODULES):
        raise ValueError(f"activation={name} draws random numbers. Use one that does not, and dropout.")
    return module


def _on_cpu(module_class: type[nn.Module]) -> nn.Module:
    """A module whose buffers have their values, wherever new layers are made meanwhile."""
    with torch.device("cpu"):
        return module_class()


def _check_activation(function: Forward, name: str, n_axes: int) -> None:
    """Refuse a function by which predictions would not be the same each time, or depend on the rows they are made with.

    And one that cannot be trained through. What it makes of a few numbers tells, if it takes them.
    """
    # So many that a dropout of 1 % is seen.
    z = torch.linspace(-1, 2, 4096).view(4, -1, *[4] * (n_axes - 2))
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            together = function(z.clone())
    except Exception:
        # It may take other numbers of units. If not, that is said where the network is trained.
        return
    with torch.inference_mode(False), torch.enable_grad():
        _applied(function, z.clone().requires_grad_())
    with torch.no_grad():
        again = function(z.clone())
        alone = torch.cat([function(row.clone()) for row in z.split(1)])
    # Torch's global state would not tell: other threads may draw from it meanwhile.
    if not torch.allclose(together, again, rtol=0, atol=0, equal_nan=True):
        torch.set_rng_state(state)
        raise ValueError(f"activation={name} draws random numbers. Use one that does not, and dropout.")
    if not torch.allclose(together, alone, atol=1e-5, equal_nan=True):
        raise ValueError(
            f"activation={name} makes the output of a row depend on the other rows of its batch. Use a function of "
            "each number, or of each row, over all axes but the first."
        )


def _applied(function: Forward, z: Tensor) -> Tensor:
    """What a function makes of a tensor that wants a gradient, of the same shape and with a graph."""
    try:
        # A copy, so that the function may work in place.
        h = function(z.clone())
    except RuntimeError as error:
        raise ValueError(f"The activation must be a function of torch tensors: {error}") from error
    if not isinstance(h, Tensor) or h.shape != z.shape:
        raise ValueError(
            f"The activation must return a tensor of the shape it was given, {tuple(z.shape)}. "
            f"Got {tuple(h.shape) if isinstance(h, Tensor) else h!r} instead."
        )
    if not h.requires_grad:
        raise ValueError("The activation returned a tensor that does not depend on the one it was given.")
    return h


def _differentiated(function: Forward, module: Callable[[], nn.Module]) -> Activation:
    """A function whose derivative torch works out."""

    def forward(z: Tensor) -> Tensor:
        z.requires_grad_()
        with torch.enable_grad():
            return _applied(function, z.squeeze(0)).unsqueeze(0)

    def backward(grad: Tensor, z: Tensor, h: Tensor) -> Tensor:
        return torch.autograd.grad(h, z, grad)[0]

    name = getattr(function, "__name__", type(function).__name__)
    return Activation(name, forward, backward, module, stackable=False)
