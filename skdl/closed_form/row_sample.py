"""A weighted subsample of rows with missing cells.

Axes: N rows, D columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Rows that are looked at at a time.
BLOCK_ROWS = 100_000


class RowSample(NamedTuple):
    """Rows, in any order, and how many rows each of them stands for."""

    rows_N: Tensor
    weight_N: Tensor

    def least_weight(self, present_ND: Tensor) -> float:
        """How many rows a cell stands for, of the column where that is fewest."""
        weight_D, square_D = self._sums(present_ND)
        return float((square_D / weight_D).nan_to_num(nan=1.0).min())

    def n_known(self, present_ND: Tensor) -> Tensor:
        """Complete rows of weight 1 that say as much of each column as these rows with their holes."""
        weight_D, square_D = self._sums(present_ND)
        return (weight_D.square() / square_D).nan_to_num(nan=0.0)

    def _sums(self, present_ND: Tensor) -> tuple[Tensor, Tensor]:
        present = present_ND.to(torch.float64)
        return self.weight_N @ present, self.weight_N.square() @ present


def sampled_rows(present_ND: Tensor, n_rows: int, generator: torch.Generator) -> RowSample:
    """So many rows, of each column about as many present cells; all of the rows where there are no more.

    A column with fewer cells than that keeps them all, for each row is as likely as its scarcest cell requires. Rows
    without any cell are left out.
    """
    if len(present_ND) <= n_rows:
        return RowSample(torch.arange(len(present_ND)), torch.ones(len(present_ND), dtype=torch.float64))
    probability_N = _probabilities(_scarcity(present_ND), n_rows)
    order = torch.randperm(len(present_ND), generator=generator)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    # Systematic sampling: a row is taken where the sum passes an integer.
    passed = (probability_N[order].cumsum(0) + start).floor()
    rows_N = order[passed.diff(prepend=passed.new_zeros(1)) > 0]
    return RowSample(rows_N, 1 / probability_N[rows_N])


def _scarcity(present_ND: Tensor) -> Tensor:
    """One over the number of cells of the column that has fewest, among a row's present cells; 0 where none is."""
    share_D = 1 / present_ND.sum(0).clamp(min=1).to(torch.float64)
    return torch.cat([(block * share_D).amax(1) for block in present_ND.split(BLOCK_ROWS)])


def _probabilities(scarcity_N: Tensor, n_rows: int) -> Tensor:
    """Numbers proportional to these, but 1 at most, that add up to so many rows; or 1 where fewer are not zero."""
    if int((scarcity_N > 0).sum()) <= n_rows:
        return (scarcity_N > 0).to(scarcity_N.dtype)
    is_certain = torch.zeros_like(scarcity_N, dtype=torch.bool)
    while True:
        others = scarcity_N.masked_fill(is_certain, 0)
        probability_N = others * ((n_rows - int(is_certain.sum())) / others.sum())
        is_more = probability_N > 1
        if not is_more.any():
            return probability_N.masked_fill_(is_certain, 1)
        is_certain |= is_more
