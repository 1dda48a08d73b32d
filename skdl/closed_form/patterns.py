"""Rows with the same cells: what depends on which cells a row has, and not on their values, is computed once for all.

Axes: N rows, B rows of a block, D columns, P patterns of a block, M cells of a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

#: Blocks that many patterns are parted into, about: those of about equally many cells are computed together.
N_BLOCKS = 4
#: Fewest patterns of a block, except for the last block and where BLOCK_NUMBERS allows fewer.
MIN_BLOCK_PATTERNS = 32
#: Numbers of the rows' matrices that a block may have.
BLOCK_NUMBERS = 500_000
#: Most columns whose pattern of cells is written as one integer.
CODED_COLUMNS = 62


@dataclass(frozen=True, eq=False)
class Block:
    """Rows with about equally many cells.

    Parameters
    ----------
    rows_B : Tensor
        Places of the rows.
    pattern_B : Tensor or None
        Which pattern each row has; None where each row has its own, in the same order.
    columns_PM : Tensor
        Places of each pattern's cells, in rising order; a pattern of fewer than M is filled up with other places.
    is_cell_PM : Tensor of bool
        False where it is filled up.
    """

    rows_B: Tensor
    pattern_B: Tensor | None
    columns_PM: Tensor
    is_cell_PM: Tensor

    def of_rows(self, of_patterns: Tensor) -> Tensor:
        """What each row has, of what each pattern has."""
        return of_patterns if self.pattern_B is None else of_patterns[self.pattern_B]

    def of_patterns(self, of_rows: Tensor) -> Tensor:
        """Sums over the rows of each pattern."""
        return of_rows if self.pattern_B is None else self.pattern_B.bincount(of_rows, len(self.columns_PM))

    def cells(self, values_BD: Tensor) -> Tensor:
        """The values ``(B, M)`` of the rows' cells, zero where a pattern is filled up."""
        return values_BD.gather(1, self.of_rows(self.columns_PM)) * self.of_rows(self.is_cell_PM)

    def add(self, values_ND: Tensor, cells_BM: Tensor) -> None:
        """Add to the cells of the block's rows; nothing must be added where a pattern is filled up."""
        values_ND[self.rows_B.unsqueeze(1), self.of_rows(self.columns_PM)] += cells_BM

    def places(self, n_columns: int) -> Tensor:
        """Where the pairs of each pattern's cells ``(P, M, M)`` lie in a matrix of so many columns, row by row."""
        return self.columns_PM.unsqueeze(2) * n_columns + self.columns_PM.unsqueeze(1)

    def factor(self, matrix_DD: Tensor) -> Tensor:
        """Cholesky factors ``(P, M, M)`` of the matrix's rows and columns at the cells of each pattern."""
        # What fills a pattern up is put apart from its cells by the identity.
        matrix_PMM = matrix_DD.take(self.places(len(matrix_DD))).masked_fill_(~self._are_cells_PMM, 0)
        matrix_PMM.diagonal(dim1=1, dim2=2).masked_fill_(~self.is_cell_PM, 1)
        return torch.linalg.cholesky(matrix_PMM)

    def inverse(self, matrix_DD: Tensor) -> Tensor:
        """Inverses ``(P, M, M)`` of the same matrices, zero where a pattern is filled up."""
        return self.inverse_by(self.factor(matrix_DD))

    def inverse_by(self, factor_PMM: Tensor) -> Tensor:
        """The same by :meth:`factor`."""
        return torch.cholesky_inverse(factor_PMM) * self._are_cells_PMM

    def solution(self, matrix_DD: Tensor, right_BM: Tensor) -> Tensor:
        """Solutions ``(B, M)`` of a system for each row, that of the matrix at its cells; zero where filled up."""
        if self.pattern_B is None:
            return torch.cholesky_solve(right_BM.unsqueeze(2), self.factor(matrix_DD)).squeeze(2)
        return self.product(self.inverse(matrix_DD), right_BM)

    def product(self, matrices_PMM: Tensor, right_BM: Tensor) -> Tensor:
        """Each row's cells, multiplied by the matrix of its pattern."""
        return torch.bmm(self.of_rows(matrices_PMM), right_BM.unsqueeze(2)).squeeze(2)

    @cached_property
    def _are_cells_PMM(self) -> Tensor:
        """Which pairs are of two cells. Expectation maximisation asks again in every iteration."""
        return self.is_cell_PM.unsqueeze(2) & self.is_cell_PM.unsqueeze(1)


def blocks_of(cells_ND: Tensor) -> Iterator[Block]:
    """The rows with at least one cell, those of about equally many together."""
    pattern_N, patterns_PD = _patterns(cells_ND)
    n_cells_P, order_P = patterns_PD.sum(1).sort(stable=True)
    patterns_PD = patterns_PD[order_P]
    if pattern_N is not None:
        # Rows in the patterns' order.
        place_N, row_N = order_P.argsort()[pattern_N].sort(stable=True)
        first_P = torch.searchsorted(place_N, torch.arange(len(order_P) + 1)).tolist()
    else:
        first_P = list(range(len(order_P) + 1))
    for start, stop, width in _stretches(n_cells_P.tolist(), first_P):
        cells_PD = patterns_PD[start:stop]
        columns_PM = cells_PD.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
        is_cell_PM = cells_PD.gather(1, columns_PM)
        if pattern_N is None:
            yield Block(order_P[start:stop], None, columns_PM, is_cell_PM)
            continue
        # A single pattern may have any number of rows.
        for rows in torch.arange(first_P[start], first_P[stop]).split(max(BLOCK_NUMBERS // width**2, 1)):
            yield Block(row_N[rows], place_N[rows] - start, columns_PM, is_cell_PM)


def _patterns(cells_ND: Tensor) -> tuple[Tensor | None, Tensor]:
    """Which pattern each row has, and the patterns ``(P, D)``; None where most rows have their own."""
    n_rows, n_columns = cells_ND.shape
    if n_columns <= CODED_COLUMNS:
        code_N = (cells_ND * (1 << torch.arange(n_columns))).sum(1)
        codes, pattern_N = code_N.unique(return_inverse=True)
        if len(codes) <= n_rows / 2:
            # Any row that has it stands for a pattern.
            some_row_P = torch.empty(len(codes), dtype=torch.long).index_copy_(0, pattern_N, torch.arange(n_rows))
            return pattern_N, cells_ND[some_row_P]
    return None, cells_ND


def _stretches(n_cells_P: list[int], first_P: list[int]) -> Iterator[tuple[int, int, int]]:
    """First pattern of each block, the one after its last, and the most cells of them."""
    start = next((p for p, count in enumerate(n_cells_P) if count), len(n_cells_P))
    step = max((len(n_cells_P) - start) // N_BLOCKS, MIN_BLOCK_PATTERNS)
    while start < len(n_cells_P):
        stop = min(start + step, len(n_cells_P))
        while stop > start + 1 and (first_P[stop] - first_P[start]) * n_cells_P[stop - 1] ** 2 > BLOCK_NUMBERS:
            stop = (start + stop) // 2
        yield start, stop, n_cells_P[stop - 1]
        start = stop
