"""Recurrent networks for series.

Axes: B series, C channels, T steps, F features of a step, S steps after the stem, H hidden units, O outputs, D numbers
of an encoded row; see :mod:`skdl.data.series.row_layout`.

Steps behind the end of a series are padding. They are zero wherever they could be read, or are never read, so that the
outputs of a series do not depend on how long the other series of its batch are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skdl.data.series.row_layout import Denormalization, Parts, RowLayout
from skdl.nn.autograd import AutogradArchitecture, AutogradModule, draw_layer
from skdl.nn.dropout import Draws, Dropout
from skdl.nn.recurrent_cells import CellSteps, GRUSteps, TanhSteps

#: Numbers of the widest layer that are computed at a time.
CHUNK_NUMBERS = 1_000_000
#: What stands in for padding where the largest value is looked for.
LOWEST = -1e9


class ConvLayer(NamedTuple):
    """One convolution of a stem."""

    n_channels: int
    kernel_size: int
    stride: int


class Loop(Protocol):
    """A recurrent layer in one direction."""

    def __call__(self, x_TBF: Tensor, starts: Sequence[Tensor], weights: Sequence[Tensor], *, training: bool) -> Tensor:
        """The first state ``(T, B, H)`` after each step; all states start from tensors ``(1, B, H)``.

        Weights are those of inputs ``(gates * H, F)`` and of states ``(gates * H, H)``, then the biases of both.
        """


def torch_loop(run: Callable[..., tuple[Tensor, ...]]) -> Loop:
    """The loop of one of torch's functions for layers."""

    def loop(x_TBF: Tensor, starts: Sequence[Tensor], weights: Sequence[Tensor], *, training: bool) -> Tensor:
        states_TBH, *_ = run(
            x_TBF,
            # A lone state stands in no list.
            starts if len(starts) > 1 else starts[0],
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=training,
            bidirectional=False,
            batch_first=False,
        )
        return states_TBH

    return loop


class CellKind(NamedTuple):
    """A recurrent cell: how many gates and states of H units each it has, and the loop over the steps."""

    n_gates: int
    n_states: int
    loop: Loop
    #: The gate that says how much of a unit's state is kept.
    keeping_gate: int | None
    #: A loop for training on a processor where that is faster than torch's; several networks can share it.
    steps: type[CellSteps] | None


CELLS: dict[str, CellKind] = {
    "gru": CellKind(3, 1, torch_loop(torch.gru), 1, GRUSteps),
    "lstm": CellKind(4, 2, torch_loop(torch.lstm), 1, None),
    "rnn": CellKind(1, 1, torch_loop(torch.rnn_tanh), None, TanhSteps),
}


@dataclass(frozen=True)
class RecurrentArchitecture(AutogradArchitecture):
    """The architecture of a recurrent network: a stem, recurrent layers, pooling over the steps, dense layers.

    Parameters
    ----------
    layout : RowLayout
    n_steps : int
        Steps of the longest training series; others may be shorter or longer.
    n_outputs : int
    cell : {"gru", "lstm", "rnn"}
    hidden_size : int
        Units of each recurrent layer, in each direction.
    num_layers : int
    bidirectional : bool
    patch_size : int
        Without convolutions, so many neighbouring steps are one step of the recurrent layers (Lin et al. 2023).
    conv : tuple of ConvLayer
        Convolutions, each with batch normalisation and relu, in front of the recurrent layers.
    pooling : tuple of str
        Of ``POOLINGS``: what the states of all steps become, one after the other.
    hidden : tuple of int
        Units of the dense layers after the pooling.
    denormalization : Denormalization or None
        What is given back to the outputs.
    has_equal_lengths : bool
        Whether all series of the training fill all steps of their table.

    References
    ----------
    Lin et al. (2023), SegRNN: Segment recurrent neural network for long-term time series forecasting.
    """

    layout: RowLayout
    n_steps: int
    n_outputs: int
    cell: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    patch_size: int
    conv: tuple[ConvLayer, ...]
    pooling: tuple[str, ...]
    hidden: tuple[int, ...]
    denormalization: Denormalization | None
    has_equal_lengths: bool = False

    @property
    def label(self) -> str:
        """Cell, its units and those of the dense layers."""
        return "-".join(map(str, (self.cell, *[self.hidden_size] * self.num_layers, *self.hidden, self.n_outputs)))

    def stacks_on(self, device: str) -> bool:
        """Whether models are trained side by side: on a processor, series of equal lengths, without convolutions.

        A GPU has faster loops of its own, and convolutions are busy with arithmetic alone.
        """
        return device == "cpu" and self.has_equal_lengths and not self.conv and CELLS[self.cell].steps is not None

    @property
    def n_activations(self) -> int:
        """Gates of all steps of the recurrent layers."""
        return cast(RecurrentModule, self.template).n_activations

    def make(self) -> RecurrentModule:
        return RecurrentModule(self)

    def draw_initial(self, module: AutogradModule, generator: torch.Generator) -> None:
        """Recurrent layers by :meth:`Recurrence.draw_initial`, He's weights elsewhere, no output yet in forecasts."""
        assert isinstance(module, RecurrentModule)
        for part in module.modules():
            if isinstance(part, Recurrence):
                part.draw_initial(generator, module.n_inner)
            else:
                draw_layer(part, generator)
        # Forecasts start at the level of the series.
        module.output.weight.mul_(0 if self.denormalization else math.sqrt(0.5))


class Steps(NamedTuple):
    """A batch of series on its way through the network: ``x_BFT``, its lengths, and a mask where they differ."""

    x_BFT: Tensor
    lengths_B: Tensor
    mask_B1T: Tensor | None

    @classmethod
    def of(cls, x_BFT: Tensor, lengths_B: Tensor, has_equal_lengths: bool = False) -> Steps:
        """The first steps, up to the end of the longest series; all of them where no series has padding."""
        if has_equal_lengths:
            return cls(x_BFT, lengths_B, None)
        longest, shortest = (int(n) for n in torch.aminmax(lengths_B)[::-1])
        x_BFT = x_BFT[:, :, :longest]
        if shortest == longest:
            return cls(x_BFT, lengths_B, None)
        step_T = torch.arange(longest, device=x_BFT.device)
        return cls(x_BFT, lengths_B, (step_T < lengths_B[:, None]).unsqueeze(1).to(x_BFT.dtype))

    def masked(self, x_BFT: Tensor) -> Steps:
        """Other features of the same steps, padding set to zero."""
        return self._replace(x_BFT=x_BFT if self.mask_B1T is None else x_BFT * self.mask_B1T)


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation over the steps of series that are not padding."""

    def forward(self, x_BFT: Tensor, mask_B1T: Tensor | None = None) -> Tensor:
        is_single = x_BFT.shape[0] * x_BFT.shape[2] == 1
        if not self.training or is_single:
            # A single value has no variance.
            return F.batch_norm(x_BFT, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if mask_B1T is None:
            return super().forward(x_BFT)
        n_values = mask_B1T.sum()
        mean_F = (x_BFT * mask_B1T).sum((0, 2)) / n_values
        centered = (x_BFT - mean_F[:, None]) * mask_B1T
        variance_F = centered.square().sum((0, 2)) / n_values
        unbiased_F = variance_F * (n_values / (n_values - 1).clamp(min=1))
        for running_F, now_F in ((self.running_mean, mean_F), (self.running_var, unbiased_F)):
            # Statistics and weights lie in one vector, and autograd would take them for changed weights.
            running_F.data.lerp_(now_F.detach(), self.momentum)  # type: ignore[union-attr, arg-type]
        factor_F = self.weight * (variance_F + self.eps).rsqrt()
        return centered * factor_F[:, None] + self.bias[:, None]


class ConvStem(nn.Module):
    """Convolutions, each with batch normalisation and relu. **Shape**: ``(B, C, T)`` to ``(B, F, S)``."""

    def __init__(self, n_in: int, layers: Sequence[ConvLayer]) -> None:
        super().__init__()
        self.strides = [layer.stride for layer in layers]
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for n_out, size, stride in layers:
            self.convolutions.append(nn.Conv1d(n_in, n_out, size, stride, padding=size // 2, bias=False))
            self.norms.append(BatchNorm1d(n_out))
            n_in = n_out

    def forward(self, steps: Steps) -> Steps:
        for convolution, norm, stride in zip(self.convolutions, self.norms, self.strides, strict=True):
            lengths_B = (steps.lengths_B + stride - 1) // stride
            shorter = Steps.of(convolution(steps.x_BFT), lengths_B, steps.mask_B1T is None)
            steps = shorter.masked(norm(shorter.x_BFT, shorter.mask_B1T).relu_())
        return steps


class PatchStem(nn.Module):
    """Neighbouring steps as one: patches that end where the series ends, through one dense layer.

    The first patch of a series is filled up with zeros in front. **Shape**: ``(B, C, T)`` to ``(B, F, S)``.
    """

    def __init__(self, n_in: int, size: int, n_out: int) -> None:
        super().__init__()
        self.size = size
        self.dense = nn.Linear(n_in * size, n_out)

    def forward(self, steps: Steps) -> Steps:
        x_BCT, lengths_B = steps.x_BFT, steps.lengths_B
        n_patches_B = (lengths_B + self.size - 1) // self.size
        if steps.mask_B1T is None:
            x_BCT = F.pad(x_BCT, (-x_BCT.shape[2] % self.size, 0))
        else:
            x_BCT = _moved_back(x_BCT, n_patches_B * self.size - lengths_B, int(n_patches_B.max()) * self.size)
        patches_BSP = x_BCT.unflatten(2, (-1, self.size)).transpose(1, 2).flatten(2)
        features = F.gelu(self.dense(patches_BSP)).transpose(1, 2)
        shorter = Steps.of(features, n_patches_B, steps.mask_B1T is None)
        return shorter.masked(shorter.x_BFT)


def _moved_back(x_BCT: Tensor, shift_B: Tensor, n_steps: int) -> Tensor:
    """Series moved back in time by so many steps each, zeros in front."""
    step_BT = torch.arange(n_steps, device=x_BCT.device) - shift_B[:, None]
    padded = F.pad(x_BCT, (1, max(n_steps - x_BCT.shape[2], 0)))
    return padded.gather(2, (step_BT + 1).clamp(0, padded.shape[2] - 1).unsqueeze(1).expand(-1, x_BCT.shape[1], -1))


class Recurrence(nn.Module):
    """One recurrent layer in one direction. **Shape**: ``(B, F, T)`` to ``(B, H, T)``.

    torch's own layers keep a second list of their weights, which would go on with numbers of old.
    """

    def __init__(self, cell: str, n_in: int, hidden_size: int) -> None:
        super().__init__()
        self.cell, self.hidden_size = cell, hidden_size
        n_units = CELLS[cell].n_gates * hidden_size
        self.weight_in = nn.Parameter(torch.empty(n_units, n_in))
        self.weight_hidden = nn.Parameter(torch.empty(n_units, hidden_size))
        self.bias_in = nn.Parameter(torch.empty(n_units))
        self.bias_hidden = nn.Parameter(torch.empty(n_units))

    def forward(self, x_BFT: Tensor) -> Tensor:
        x_TBF = x_BFT.permute(2, 0, 1).contiguous()
        start = x_TBF.new_zeros(1, x_TBF.shape[1], self.hidden_size)
        weights = [self.weight_in, self.weight_hidden, self.bias_in, self.bias_hidden]
        kind = CELLS[self.cell]
        return kind.loop(x_TBF, [start] * kind.n_states, weights, training=self.training).permute(1, 2, 0)

    def draw_initial(self, generator: torch.Generator, n_steps: int) -> None:
        """Orthogonal recurrent weights, and units that keep their states for one step up to all of them.

        After Saxe et al. (2014), Exact solutions to the nonlinear dynamics of learning in deep linear neural networks,
        and Tallec and Ollivier (2018), Can recurrent neural networks warp time?
        """
        bound = math.sqrt(3 / self.weight_in.shape[1])
        self.weight_in.uniform_(-bound, bound, generator=generator)
        for gate in self.weight_hidden.split(self.hidden_size):
            nn.init.orthogonal_(gate, generator=generator)
        self.bias_in.zero_()
        self.bias_hidden.zero_()
        keeping = CELLS[self.cell].keeping_gate
        if keeping is not None:
            kept_H = self.bias_in.view(-1, self.hidden_size)[keeping]
            kept_H.uniform_(1, max(n_steps - 1, 2), generator=generator).log_()


class RecurrentLayer(nn.Module):
    """One recurrent layer, in one direction or both. **Shape**: ``(B, F, T)`` to ``(B, H, T)`` or ``(B, 2 H, T)``."""

    def __init__(self, cell: str, n_in: int, hidden_size: int, bidirectional: bool) -> None:
        super().__init__()
        self.steps = CELLS[cell].steps
        self.directions = nn.ModuleList(Recurrence(cell, n_in, hidden_size) for _ in range(1 + bidirectional))

    def forward(self, x_BFT: Tensor, flipped_BT: Tensor | None) -> Tensor:
        """``flipped_BT`` says which step stands where in series that are turned round; None for equal lengths."""
        is_bidirectional = len(self.directions) == 2
        inputs = [x_BFT, _flipped(x_BFT, flipped_BT)] if is_bidirectional else [x_BFT]
        if self.steps is not None and torch.is_grad_enabled() and x_BFT.device.type == "cpu":
            states = self._together(self.steps, inputs)
        else:
            states = [direction(x) for direction, x in zip(self.directions, inputs, strict=True)]
        return torch.cat([states[0], _flipped(states[1], flipped_BT)], dim=1) if is_bidirectional else states[0]

    def _together(self, steps: type[CellSteps], inputs: list[Tensor]) -> Sequence[Tensor]:
        """States ``(B, H, T)`` of each of the D directions, that take a step together; R is all steps of all series."""
        directions = cast(list[Recurrence], list(self.directions))
        x_DFR = torch.stack([x_BFT.permute(1, 2, 0).flatten(1) for x_BFT in inputs])
        weight_DGF, weight_DGH, bias_DG, hidden_bias_DG = (
            torch.stack([getattr(direction, name) for direction in directions])
            for name in ("weight_in", "weight_hidden", "bias_in", "bias_hidden")
        )
        projected_DGR = torch.baddbmm(bias_DG.unsqueeze(2), weight_DGF, x_DFR)
        projected_TDGB = projected_DGR.unflatten(2, (-1, len(inputs[0]))).permute(2, 0, 1, 3).contiguous()
        states_TDHB, *_ = steps.apply(projected_TDGB, weight_DGH, hidden_bias_DG.unsqueeze(2))
        return states_TDHB.permute(1, 3, 2, 0).unbind()


def _flipped(x_BFT: Tensor, flipped_BT: Tensor | None) -> Tensor:
    """Series turned round, padding where it was."""
    if flipped_BT is None:
        return x_BFT.flip(2)
    return x_BFT.gather(2, flipped_BT.unsqueeze(1).expand(-1, x_BFT.shape[1], -1))


class Pooling(nn.Module):
    """What the states of all steps become. **Shape**: ``(B, H, S)`` to ``(B, H * number of ways)``."""

    def __init__(self, ways: Sequence[str], n_in: int, bidirectional: bool) -> None:
        super().__init__()
        self.ways, self.n_outputs, self.bidirectional = tuple(ways), n_in * len(ways), bidirectional
        self.score = nn.Linear(n_in, 1, bias=False) if "attention" in ways else None

    def forward(self, steps: Steps) -> Tensor:
        return torch.cat([POOLINGS[way](self, steps) for way in self.ways], dim=1)

    def last(self, steps: Steps) -> Tensor:
        """The state that has seen the whole series: the last one, or of the way back the first one."""
        x_BHS = steps.x_BFT
        last = (steps.lengths_B - 1).view(-1, 1, 1).expand(-1, x_BHS.shape[1], -1)
        end = x_BHS[:, :, -1] if steps.mask_B1T is None else x_BHS.gather(2, last)[:, :, 0]
        if not self.bidirectional:
            return end
        half = x_BHS.shape[1] // 2
        return torch.cat([end[:, :half], x_BHS[:, half:, 0]], dim=1)

    def mean(self, steps: Steps) -> Tensor:
        """The mean over the steps."""
        return steps.masked(steps.x_BFT).x_BFT.sum(2) / steps.lengths_B[:, None].to(steps.x_BFT.dtype)

    def max(self, steps: Steps) -> Tensor:
        """The largest value of each unit."""
        return _filled(steps.x_BFT, steps.mask_B1T).amax(2)

    def attention(self, steps: Steps) -> Tensor:
        """A mean whose weights are a softmax over the steps (Bahdanau et al. 2015, the simplest form)."""
        assert self.score is not None
        score_B1S = self.score(steps.x_BFT.transpose(1, 2)).transpose(1, 2)
        share_B1S = _filled(score_B1S, steps.mask_B1T).softmax(2)
        return (steps.x_BFT * share_B1S).sum(2)


POOLINGS: dict[str, Callable[[Pooling, Steps], Tensor]] = {
    "last": Pooling.last,
    "mean": Pooling.mean,
    "max": Pooling.max,
    "attention": Pooling.attention,
}


def _filled(x_BFS: Tensor, mask_B1S: Tensor | None) -> Tensor:
    """Padding set to a number that is below all others."""
    return x_BFS if mask_B1S is None else x_BFS.masked_fill(mask_B1S == 0, LOWEST)


class RecurrentModule(AutogradModule):
    """The recurrent network of a :class:`RecurrentArchitecture`."""

    def __init__(self, architecture: RecurrentArchitecture) -> None:
        super().__init__()
        self.layout, self.denormalization, self.has_equal_lengths = (
            architecture.layout,
            architecture.denormalization,
            architecture.has_equal_lengths,
        )
        n_in, self.stem = self._stem(architecture)
        n_features = n_in
        width = architecture.hidden_size * (2 if architecture.bidirectional else 1)
        self.layers = nn.ModuleList()
        for _ in range(architecture.num_layers):
            self.layers.append(
                RecurrentLayer(architecture.cell, n_in, architecture.hidden_size, architecture.bidirectional)
            )
            n_in = width
        self.between = Dropout()
        self.pooling = Pooling(architecture.pooling, width, architecture.bidirectional)
        n_pooled = self.pooling.n_outputs + (n_features if architecture.conv else 0)
        self._add_dense(architecture, n_pooled)
        self._count(architecture, n_features, width)

    def _stem(self, architecture: RecurrentArchitecture) -> tuple[int, nn.Module]:
        """Features of a step after the stem, and the stem."""
        n_in = architecture.layout.n_channels
        if architecture.conv:
            return architecture.conv[-1].n_channels, ConvStem(n_in, architecture.conv)
        if architecture.patch_size > 1:
            return architecture.hidden_size, PatchStem(n_in, architecture.patch_size, architecture.hidden_size)
        return n_in, nn.Identity()

    def _add_dense(self, architecture: RecurrentArchitecture, n_in: int) -> None:
        self.beside = None
        if architecture.layout.n_covariates:
            self.beside = nn.Linear(architecture.layout.n_covariates, COVARIATE_UNITS)
            n_in += COVARIATE_UNITS
        self.add_head(n_in, architecture.hidden, nn.GELU, architecture.n_outputs)

    def _count(self, architecture: RecurrentArchitecture, n_features: int, width: int) -> None:
        stride = math.prod(layer.stride for layer in architecture.conv) * (
            1 if architecture.conv else architecture.patch_size
        )
        #: Steps of the recurrent layers, for the longest training series.
        self.n_inner = n_inner = -(-architecture.n_steps // stride)
        self.n_activations = n_inner * CELLS[architecture.cell].n_gates * width * architecture.num_layers
        n_recurrent = sum(p.numel() for p in self.layers.parameters()) * n_inner
        n_stem = sum(p.numel() for p in self.stem.parameters()) * n_inner
        self.n_multiplications = n_recurrent + n_stem + sum(p.numel() for p in self.hidden.parameters())
        self.n_products = n_inner * architecture.num_layers + len(architecture.hidden) + 1
        gates = CELLS[architecture.cell].n_gates * width
        widest = max(n_inner * max(gates, n_features), architecture.n_steps * self.layout.n_channels)
        self.chunk_rows = max(CHUNK_NUMBERS // widest, 1)
        self.n_layers = (
            architecture.num_layers
            + len(architecture.hidden)
            + 2
            + max(len(architecture.conv), architecture.patch_size > 1)
        )

    def states(self, steps: Steps) -> Steps:
        """The states of the last recurrent layer at all steps."""
        x_BFT, flipped_BT = steps.x_BFT, None
        if steps.mask_B1T is not None:
            step_T, last_B1 = torch.arange(x_BFT.shape[2], device=x_BFT.device), steps.lengths_B[:, None] - 1
            flipped_BT = torch.where(step_T <= last_B1, last_B1 - step_T, step_T)
        for i, layer in enumerate(self.layers):
            x_BFT = layer(x_BFT if i == 0 else self.between(x_BFT), flipped_BT)
        return steps._replace(x_BFT=x_BFT)

    def embed(self, x: Tensor) -> Tensor:
        """What the output layer sees, ``(B, E)``."""
        return self.penultimate(self.layout.parts(x))

    def penultimate(self, parts: Parts, has_equal_lengths: bool = False) -> Tensor:
        """What the output layer sees of the parts of rows, ``(B, E)``."""
        steps = self.stem(Steps.of(parts.series_BCT, parts.lengths_B, has_equal_lengths))
        pooled = [self.pooling(self.states(steps))]
        if isinstance(self.stem, ConvStem):
            pooled.append(self.pooling.mean(steps))
        if self.beside is not None:
            pooled.append(F.gelu(self.beside(parts.covariates_BE)))
        return self.hidden(torch.cat(pooled, dim=1))

    def forward(self, x: Tensor, codes: Tensor | None = None, has_equal_lengths: bool = False) -> Tensor:
        parts = self.layout.parts(x)
        output = self.output(self.penultimate(parts, has_equal_lengths))
        return output if self.denormalization is None else self.denormalization.apply(output, parts)

    def training_outputs(self, x: Tensor, draws: Draws) -> Tensor:
        """Outputs ``(B, O)`` of one training step."""
        return self(x, has_equal_lengths=self.has_equal_lengths)


#: Units of the dense layer for the numbers beside a series.
COVARIATE_UNITS = 32
