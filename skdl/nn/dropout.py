"""Dropout masks from each network's own random stream: of dense stacks ahead of time, of modules as they go.

Axes: K models, B batch rows, F units of a layer, H units of all hidden layers, R rows drawn at once, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skdl.nn.augment import Mixing


class DropoutMasks:
    """Dropout factors of K jobs: 0 for a dropped unit, ``1 / (1 - rate)`` for a kept one.

    Parameters
    ----------
    generators : sequence of torch.Generator
        One a job; a job's masks depend on nothing else.
    rates : sequence of float
    lengths : sequence of int
        Rows of each job, falling.
    hidden : tuple of int
        Units of each layer.
    batch_size : int
    dtype : torch.dtype
    """

    mixing: Mixing | None = None
    #: Numbers drawn at once for a job. Each takes 16 bits, so that rates are kept to 1 / 65,536.
    CHUNK = 65_536
    LEVELS = 65_536

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        rates: Sequence[float],
        lengths: Sequence[int],
        hidden: tuple[int, ...],
        batch_size: int,
        dtype: torch.dtype,
    ) -> None:
        self.generators, self.lengths, self.hidden = generators, lengths, hidden
        self.n_units = sum(hidden)
        device = generators[0].device
        self.chunk_rows = max(self.CHUNK // (batch_size * self.n_units), 1) * batch_size
        n_rows = min(self.chunk_rows, lengths[0])
        words = -(-n_rows * self.n_units // 4)
        self.words_KW = torch.zeros(len(lengths), words, dtype=torch.int64, device=device)
        self.draws_KRH = self.words_KW.view(torch.int16)[:, : n_rows * self.n_units].unflatten(
            1, (n_rows, self.n_units)
        )
        rate = torch.tensor(rates, dtype=torch.float64, device=device).view(-1, 1, 1)
        levels = (rate * self.LEVELS).round().clamp(max=self.LEVELS - 1)
        self.factors_KRH = torch.empty(self.draws_KRH.shape, dtype=dtype, device=device)
        self.threshold = (levels - self.LEVELS // 2).to(torch.int16)
        # By the rate that the draws have.
        self.kept = (1 / (1 - levels / self.LEVELS)).to(dtype)

    def _refill(self, start: int, k: int) -> None:
        for words, generator, length in zip(self.words_KW[:k], self.generators, self.lengths, strict=False):
            n_rows = min(self.chunk_rows, length - start)
            words[: -(-n_rows * self.n_units // 4)].random_(-(2**63), None, generator=generator)
        # Numbers in place of truth values, which torch is slower to make and to convert.
        self.factors_KRH[:k].copy_(self.draws_KRH[:k].ge_(self.threshold[:k])).mul_(self.kept[:k])

    def draw(self, start: int, k: int, n_rows: int) -> list[Tensor]:
        """The factors ``(k, n_rows, H)`` of each hidden layer for the batch that starts at row ``start``.

        The next ones may be written over them.
        """
        offset = start % self.chunk_rows
        if offset == 0:
            self._refill(start, k)
        return list(self.factors_KRH[:k, offset : offset + n_rows].split(self.hidden, dim=-1))


class Draws:
    """What the training steps of K models draw from; modules draw as they go.

    Parameters
    ----------
    generators : sequence of torch.Generator
        One a model; what a model draws depends on nothing else.
    rates : sequence of float
        Share of the units that dropout leaves out.
    lengths : sequence of int
        Training rows of each model.
    """

    #: What the step has mixed its rows with.
    mixing: Mixing | None = None

    def __init__(self, generators: Sequence[torch.Generator], rates: Sequence[float], lengths: Sequence[int]) -> None:
        self.generators, self.rates, self.lengths = generators, rates, lengths
        self.n_rows = list(lengths)

    def draw(self, start: int, k: int, n_rows: int) -> Draws:
        """Itself, for the batch of the first ``k`` models that starts at row ``start``."""
        self.n_rows = [min(length - start, n_rows) for length in self.lengths[:k]]
        return self

    @property
    def generator(self) -> torch.Generator:
        """The generator of a lone model."""
        (generator,) = self.generators
        return generator

    def kept(self, k: int, like_BF: Tensor) -> Tensor:
        """Dropout factors of a model, ``(B, F)``: 0 for a dropped unit, ``1 / (1 - rate)`` for a kept one."""
        factors_BF, n_rows, rate = torch.zeros_like(like_BF), self.n_rows[k], self.rates[k]
        if rate == 0:
            return factors_BF.fill_(1)
        # Rows that fill up a model's batch beside longer ones must not draw.
        factors_BF[:n_rows].bernoulli_(1 - rate, generator=self.generators[k]).div_(1 - rate)
        return factors_BF


class DropoutFactors(torch.autograd.Function):
    """Dropout factors of one model, or under :func:`torch.func.vmap` of each model by its own generator."""

    @staticmethod
    def forward(like_BF: Tensor, draws: Draws) -> Tensor:
        return draws.kept(0, like_BF)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Draws], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], like: Tensor, draws: Draws) -> tuple[Tensor, int]:
        likes = like.movedim(in_dims[0], 0).unbind()
        return torch.stack([draws.kept(k, like_BF) for k, like_BF in enumerate(likes)]), 0


class Dropout(nn.Dropout):
    """Dropout at the rate of the training, whose factors come from the models' own generators.

    Of states ``(B, F, T)``, a unit is left out of all steps of a series (Gal and Ghahramani 2016).
    """

    def __init__(self) -> None:
        super().__init__(0.0)
        self.draws: Draws | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.draws is None:
            return super().forward(x)
        if not any(self.draws.rates):
            return x
        if x.ndim == 2:
            return x * DropoutFactors.apply(x.detach(), self.draws)
        return x * DropoutFactors.apply(x.detach()[:, :, 0], self.draws).unsqueeze(2)
