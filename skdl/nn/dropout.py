"""Dropout factors for stacks of dense networks, drawn from a random stream of each network's own.

Axes: K models, B batch rows, H units of a layer, R rows drawn at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
        self.kept = (1 / (1 - rate)).to(dtype)

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
