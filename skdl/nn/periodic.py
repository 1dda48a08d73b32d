"""Periodic embedding of numeric columns: cosines of learned frequencies, mixed to a few numbers per column.

A dense network learns smooth functions of a number first and wiggles late; cosines of several frequencies hand them to
it at once (Gorishniy, Rubachev and Babenko, NeurIPS 2022). Column by column, ``cos(2 pi w x + b)`` with learned w and
b goes through a small linear map of the column's own, as in RealMLP (Holzmueller et al., NeurIPS 2024).

Axes: K models, B batch rows, C embedded columns, F frequencies of a column, W numbers that a column becomes. Rows stand
last while there are few numbers per row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PeriodicEmbedding:
    """The shape of a periodic embedding, and where its numbers start.

    Parameters
    ----------
    n_columns : int
        How many of the leading inputs are embedded, C.
    n_frequencies : int, default=16
        Cosines of each column, F.
    width : int, default=3
        Numbers that each column becomes, W.
    scale : float, default=1.0
        Standard deviation of the first frequencies, in periods a unit of the input.
    """

    n_columns: int
    n_frequencies: int = 16
    width: int = 3
    scale: float = 1.0

    @property
    def n_outputs(self) -> int:
        """Width of the embedding of one row."""
        return self.n_columns * self.width

    @property
    def n_cosines(self) -> int:
        """How many cosines one row takes."""
        return self.n_columns * self.n_frequencies

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters that penalties act on."""
        return {"projection": (self.n_columns, self.width, self.n_frequencies)}

    @property
    def wave_shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters that penalties leave alone: a frequency of 0 is no simpler than another."""
        shape = (self.n_columns, self.n_frequencies)
        return {"frequency": shape, "phase": shape}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter."""
        return self.weight_shapes | self.wave_shapes

    def draw(self, name: str, values: Tensor, generator: torch.Generator) -> None:
        """Fill one parameter with its first numbers."""
        if name == "frequency":
            values.normal_(0, self.scale, generator=generator)
        elif name == "phase":
            values.uniform_(-math.pi, math.pi, generator=generator)
        else:
            bound = 1 / math.sqrt(self.n_frequencies)
            values.uniform_(-bound, bound, generator=generator)


@dataclass(slots=True)
class PeriodicTape:
    """What the backward pass needs of one forward pass."""

    x_KCB: Tensor
    angle_KCFB: Tensor
    cosine_KCFB: Tensor


class PeriodicViews:
    """Parameters (or gradients) of the periodic embeddings of K networks."""

    def __init__(self, by_name: dict[str, Tensor]) -> None:
        self.frequency_KCF = by_name["frequency"]
        self.phase_KCF = by_name["phase"]
        self.projection_KCWF = by_name["projection"]


def forward(theta: PeriodicViews, x_KBD: Tensor) -> tuple[Tensor, PeriodicTape]:
    """Embed the leading columns of the inputs: ``(K, B, C * W)``, and the tape for :func:`backward`."""
    x_KCB = x_KBD[..., : theta.frequency_KCF.shape[1]].transpose(1, 2).contiguous()
    frequency, phase = theta.frequency_KCF.unsqueeze(3), theta.phase_KCF.unsqueeze(3)
    angle = torch.addcmul(phase, x_KCB.unsqueeze(2), frequency, value=2 * math.pi)
    cosine = angle.cos()
    # No bias: the first layer has one.
    embedded_KCWB = torch.matmul(theta.projection_KCWF, cosine)
    return embedded_KCWB.permute(0, 3, 1, 2).flatten(2), PeriodicTape(x_KCB, angle, cosine)


def backward(theta: PeriodicViews, grad: PeriodicViews, g_KBE: Tensor, tape: PeriodicTape) -> None:
    """Write the gradient of every parameter for the gradient of the embedding, ``(K, B, C * W)``."""
    n_columns, width = theta.projection_KCWF.shape[1:3]
    g_KCWB = g_KBE.unflatten(2, (n_columns, width)).permute(0, 2, 3, 1).contiguous()
    grad.projection_KCWF.copy_(torch.matmul(g_KCWB, tape.cosine_KCFB.transpose(2, 3)))
    # The tape has served: its memory is taken for what comes next. The sine's minus is left to the few sums.
    g_KCFB = torch.matmul(theta.projection_KCWF.transpose(2, 3), g_KCWB, out=tape.cosine_KCFB)
    g_KCFB.mul_(tape.angle_KCFB.sin_())
    torch.sum(g_KCFB, 3, out=grad.phase_KCF).neg_()
    grad.frequency_KCF.copy_(torch.matmul(g_KCFB, tape.x_KCB.unsqueeze(3)).squeeze(3)).mul_(-2 * math.pi)


class PeriodicModule(nn.Module):
    """One trained periodic embedding as a plain torch module.

    **Shape**: inputs ``(B, D)`` of which the first C columns are embedded; output ``(B, C * W)``.
    """

    frequency: nn.Parameter
    phase: nn.Parameter
    projection: nn.Parameter

    def __init__(self, embedding: PeriodicEmbedding) -> None:
        super().__init__()
        for name, shape in embedding.shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device="meta")))

    def forward(self, x: Tensor) -> Tensor:
        theta = PeriodicViews({name: parameter.unsqueeze(0) for name, parameter in self.named_parameters()})
        return forward(theta, x.unsqueeze(0))[0].squeeze(0)
