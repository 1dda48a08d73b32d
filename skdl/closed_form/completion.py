"""Rows with missing cells as a network sees them: what Gaussians make of them, and cells to be hidden in training.

Axes: N rows, B rows at a time, D encoded columns, M of them of numbers, C columns of the table, E edges of bins,
P patterns, F features, Q of them completions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from skdl.closed_form.gaussian import PRIOR_ROWS, RowDistribution, fit_gaussian
from skdl.data.table import Table

#: Bounds on the share of a row's cells that are hidden.
LEAST_HIDDEN, MOST_HIDDEN = 0.05, 0.65
#: A call completes so many numbers at once: the more rows, the more of them lack equally many cells.
TAKEN_NUMBERS = 2_000_000
#: Bins of a column, fewer where there are many columns.
MOST_BINS, FEWEST_BINS, TOTAL_BINS = 16, 4, 320
#: Rows from which the edges of bins are found.
EDGE_ROWS = 10_000
#: Of rows that are taken often, copies with other cells hidden are made in advance, each to be taken about so often.
#: Where there is no room, fewer will do, but cells of copies that are taken more often would be learned by heart.
COPY_USES, MOST_COPY_USES = 6, 9
#: Numbers that the copies may have.
COPIED_NUMBERS = 16_000_000
#: Rows of copies that are completed at a time.
COMPLETED_ROWS = 4096
#: Ranks are kept this far from 0 and 1, so that their normal scores are finite.
RANK_MARGIN = 0.01


def bin_edges(x_ND: Tensor, present_ND: Tensor) -> Tensor:
    """Edges ``(D, E)`` of bins with equally many of a column's values each."""
    n_bins = max(min(MOST_BINS, TOTAL_BINS // x_ND.shape[1]), FEWEST_BINS)
    at = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
    columns = (x_ND[present_ND[:, d], d].double() for d in range(x_ND.shape[1]))
    edges_DE = torch.stack([torch.quantile(x if len(x) else x.new_zeros(1), at) for x in columns])
    # Bins must have a width that a value can be divided by.
    return (edges_DE + 1e-3 * torch.arange(n_bins + 1)).to(x_ND.dtype)


@dataclass(frozen=True, eq=False)
class CellFeatures:
    """What a network sees of a row.

    In front stands the row as a Gaussian completes it, then which cells it lacks. Where there are numbers, the row
    follows with their normal scores in their place, which heavy tails do not disturb, as a Gaussian of such rows
    completes it, and the bins of the numbers that it has. Of a level, its indicator says all.

    Parameters
    ----------
    gaussian, score_gaussian : RowDistribution
        Of the encoded columns, and of those with normal scores in place of numbers.
    edges_ME : Tensor of shape (M, E)
        Edges of the bins of each column of numbers, rising.
    numbers_M : Tensor
        Which encoded columns hold numbers.
    """

    gaussian: RowDistribution
    score_gaussian: RowDistribution
    edges_ME: Tensor
    numbers_M: Tensor
    n_columns: int

    @classmethod
    def of(
        cls,
        gaussian: RowDistribution,
        x_ND: Tensor,
        present_ND: Tensor,
        numbers_M: Tensor,
        generator: torch.Generator,
        prior_rows: float = PRIOR_ROWS,
    ) -> CellFeatures:
        """Learn the rest from the standardised rows of a Gaussian; ``prior_rows`` are those of the other one."""
        rows = torch.randperm(len(x_ND), generator=generator)[:EDGE_ROWS]
        x_ND, present_ND = x_ND[rows], present_ND[rows]
        if not len(numbers_M):
            return cls(gaussian, gaussian, x_ND.new_empty(0, 2), numbers_M, x_ND.shape[1])
        edges_ME = bin_edges(x_ND[:, numbers_M], present_ND[:, numbers_M])
        scored = _scored(x_ND, numbers_M, _bins(x_ND[:, numbers_M], edges_ME))
        score_gaussian = fit_gaussian(scored, present_ND, generator, prior_rows)
        return cls(gaussian, score_gaussian, edges_ME, numbers_M, x_ND.shape[1])

    @property
    def n_completed(self) -> int:
        """How many of the numbers that stand for a row come of Gaussians."""
        return 2 * self.n_columns if len(self.numbers_M) else self.n_columns

    @property
    def n_features(self) -> int:
        """How many numbers stand for a row."""
        n_numbers, n_edges = self.edges_ME.shape
        return 2 * self.n_columns + (self.n_columns + n_numbers * (n_edges - 1) if n_numbers else 0)

    def __call__(self, x_BD: Tensor, present_BD: Tensor) -> Tensor:
        """Features ``(B, F)`` of standardised rows."""
        bins_BME = self.bins(x_BD)
        return self.joined(self.completed(x_BD, present_BD, bins_BME), present_BD, bins_BME)

    def bins(self, x_BD: Tensor) -> Tensor:
        """How far through each bin a row's numbers are, from 0 to 1, ``(B, M, E - 1)``."""
        return _bins(x_BD[:, self.numbers_M], self.edges_ME)

    def completed(self, x_BD: Tensor, present_BD: Tensor, bins_BME: Tensor) -> Tensor:
        """What Gaussians make of rows, ``(B, Q)``; it takes longer than all else."""
        dtype = self.edges_ME.dtype
        completed_BD = self.gaussian.complete(x_BD, present_BD).to(dtype)
        if not len(self.numbers_M):
            return completed_BD
        scored = _scored(x_BD.to(dtype), self.numbers_M, bins_BME)
        return torch.cat([completed_BD, self.score_gaussian.complete(scored, present_BD).to(dtype)], 1)

    def joined(self, completed_BQ: Tensor, present_BD: Tensor, bins_BME: Tensor) -> Tensor:
        """The features of rows, by their parts."""
        completed_BD, scored_BR = completed_BQ.tensor_split([self.n_columns], 1)
        present_BD = present_BD.to(completed_BQ.dtype)
        shown = (bins_BME - 0.5).mul_(present_BD.index_select(1, self.numbers_M).unsqueeze(-1))
        return torch.cat([completed_BD, 1 - present_BD, scored_BR, shown.flatten(1)], 1)


def _scored(x_BD: Tensor, numbers_M: Tensor, bins_BME: Tensor) -> Tensor:
    """Rows with normal scores in place of numbers."""
    ranks = RANK_MARGIN + (1 - 2 * RANK_MARGIN) * bins_BME.mean(-1)
    return x_BD.index_copy(1, numbers_M, torch.special.ndtri(ranks).to(x_BD.dtype))


def _bins(x_BD: Tensor, edges_DE: Tensor) -> Tensor:
    """How far through each bin a value is, from 0 to 1, ``(B, D, E - 1)``."""
    low, high = edges_DE[:, :-1], edges_DE[:, 1:]
    return ((x_BD.to(edges_DE.dtype).unsqueeze(-1) - low) / (high - low)).clamp_(0, 1)


@dataclass(frozen=True, eq=False)
class Hiding:
    """Draws the cells to hide from a generator of its own.

    Half the rows lose each cell with one probability, which is drawn evenly for each row; half lose the cells that
    some other row lacks, so that the holes of the data are among those that are learned.

    Parameters
    ----------
    generator : torch.Generator
    patterns_PC : Tensor of bool, shape (P, C)
        Which cells of some rows are present; P may be 0.
    column_of_D : Tensor
        Which column of the table each encoded column belongs to.
    """

    generator: torch.Generator
    patterns_PC: Tensor
    column_of_D: Tensor

    def kept(self, n_rows: int) -> Tensor:
        """Cells to keep ``(n_rows, D)``."""
        n_patterns, n_columns = self.patterns_PC.shape
        # Always as many numbers per row, so that what a row loses does not depend on how many are drawn at once.
        draws = torch.rand(n_rows, n_columns + 2, generator=self.generator)
        kept = draws[:, 2:] >= LEAST_HIDDEN + (MOST_HIDDEN - LEAST_HIDDEN) * draws[:, :1]
        if n_patterns:
            pattern = self.patterns_PC[(draws[:, 0] * n_patterns).long().clamp_(max=n_patterns - 1)]
            kept = torch.where(draws[:, 1:2] < 0.5, pattern, kept)
        return kept[:, self.column_of_D]


class CompletionTable(Table):
    """Rows with missing cells, their features computed as they are taken.

    Parameters
    ----------
    x_ND : Tensor of shape (N, D)
        Standardised encoded rows; what stands in missing cells does not matter, but must be finite.
    present_ND : Tensor of bool
    features : CellFeatures
    hiding : Hiding, optional
        What is hidden of the rows each time they are taken.
    """

    taken_numbers = TAKEN_NUMBERS

    def __init__(
        self,
        x_ND: Tensor,
        present_ND: Tensor,
        features: CellFeatures,
        hiding: Hiding | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.x_ND, self.present_ND = x_ND, present_ND
        self.features, self.hiding = features, hiding
        self.device = device
        self.n_columns = features.n_features

    def __len__(self) -> int:
        return len(self.x_ND)

    def hiding_cells(self, hiding: Hiding) -> CompletionTable:
        """The same rows, of which cells are hidden each time they are taken."""
        return CompletionTable(self.x_ND, self.present_ND, self.features, hiding, self.device)

    def _encoded(self, x_BD: Tensor, present_BD: Tensor) -> tuple[Tensor, None]:
        if self.hiding is not None:
            present_BD = present_BD & self.hiding.kept(len(x_BD))
        return self.features(x_BD, present_BD).to(self.device), None

    def take(self, rows: Tensor) -> tuple[Tensor, None]:
        rows = rows.cpu()
        return self._encoded(self.x_ND[rows], self.present_ND[rows])

    def slice(self, start: int, stop: int) -> tuple[Tensor, None]:
        return self._encoded(self.x_ND[start:stop], self.present_ND[start:stop])

    def to(self, device: torch.device | str) -> CompletionTable:
        """The same rows for another device; they are completed on the CPU."""
        return CompletionTable(self.x_ND, self.present_ND, self.features, self.hiding, device)


class Copies(NamedTuple):
    """C copies of N rows, other cells hidden in each."""

    #: Which cells are present.
    present_CND: Tensor
    #: What Gaussians make of the rows.
    completed_CNQ: Tensor
    #: Bins of the numbers, hidden or not.
    bins_NME: Tensor


def hidden_copies(table: CompletionTable, n_taken: int) -> Copies | None:
    """Copies of a table's rows, of which ``n_taken`` will be taken; None where too few of them find room, or use."""
    assert table.hiding is not None
    uses = n_taken / len(table)
    n_copies = min(int(uses / COPY_USES), COPIED_NUMBERS // (len(table) * table.features.n_completed))
    if n_copies < max(uses / MOST_COPY_USES, 2):
        return None
    n_rows, n_columns = table.x_ND.shape
    present_CND = table.present_ND & table.hiding.kept(n_copies * n_rows).view(n_copies, n_rows, n_columns)
    bins_NME = table.features.bins(table.x_ND)
    completed = []
    # Rows of many copies at a time, for a call takes a while for few rows too; but not all, which would be much memory.
    for places in torch.arange(n_copies * n_rows).split(COMPLETED_ROWS):
        rows, present = places % n_rows, present_CND.flatten(0, 1)[places]
        completed.append(table.features.completed(table.x_ND[rows], present, bins_NME[rows]))
    return Copies(present_CND, torch.cat(completed).view(n_copies, n_rows, -1), bins_NME)


class HiddenCopies(Table):
    """Copies of rows, each with other cells hidden; which one is taken is drawn each time.

    Parameters
    ----------
    table : CompletionTable
        The rows.
    copies : Copies
    generator : torch.Generator
        Of the copies that are taken.
    """

    taken_numbers = TAKEN_NUMBERS

    def __init__(
        self, table: CompletionTable, copies: Copies, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.table, self.copies, self.generator, self.device = table, copies, generator, device
        self.n_columns = table.n_columns

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: Tensor) -> tuple[Tensor, None]:
        rows = rows.cpu()
        present_CND, completed_CNQ, bins_NME = self.copies
        places = torch.randint(len(present_CND), (len(rows),), generator=self.generator) * len(self) + rows
        # Several times as fast as by indexing.
        present = present_CND.flatten(0, 1).index_select(0, places)
        completed = completed_CNQ.flatten(0, 1).index_select(0, places)
        bins = bins_NME.index_select(0, rows)
        return self.table.features.joined(completed, present, bins).to(self.device), None

    def slice(self, start: int, stop: int) -> tuple[Tensor, None]:
        return self.take(torch.arange(start, stop))

    def to(self, device: torch.device | str) -> HiddenCopies:
        """The same copies for another device."""
        return HiddenCopies(self.table, self.copies, self.generator, device)
