"""Tables of rows with missing cells, for networks that complete them; in training, more cells are hidden each time.

Axes: N rows, B rows at a time, D encoded columns, M of them of numbers, C columns of the table or copies of its rows,
E edges of bins, P patterns, F features, Q of them completions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from skdl.closed_form.completion import CellFeatures
from skdl.data.table import Table

#: Smallest probability with which the cells of a row are hidden. A row that does not take the holes of another one has
#: a probability drawn between this and MAX_HIDDEN_SHARE.
MIN_HIDDEN_SHARE = 0.05
#: Largest probability with which the cells of a row are hidden.
MAX_HIDDEN_SHARE = 0.65
#: A call completes so many numbers at once: the more rows, the more of them lack equally many cells.
TAKE_NUMEL = 2_000_000
#: How often a copy is taken, about: of rows that are taken often, copies with other cells hidden are made in advance.
COPY_USES = 6
#: How often a copy is taken at most, where there is no room for more copies. None are made that would be taken more
#: often: their cells would be learned by heart.
MAX_COPY_USES = 9
#: Most numbers of all copies.
COPIED_NUMBERS = 16_000_000
#: Rows of copies that are completed at a time.
COMPLETED_ROWS = 4096


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

    def again(self) -> Hiding:
        """Another one that draws the same from here on."""
        return replace(self, generator=self.generator.clone_state())

    def kept(self, n_rows: int) -> Tensor:
        """Cells to keep ``(n_rows, D)``."""
        n_patterns, n_columns = self.patterns_PC.shape
        # Always as many numbers per row, so that what a row loses does not depend on how many are drawn at once.
        draws = torch.rand(n_rows, n_columns + 2, generator=self.generator)
        kept = draws[:, 2:] >= MIN_HIDDEN_SHARE + (MAX_HIDDEN_SHARE - MIN_HIDDEN_SHARE) * draws[:, :1]
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

    take_numel = TAKE_NUMEL

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
        """The same rows for another device; they are completed on the CPU.

        Training, which may have to start again, hides the same cells each time.
        """
        hiding = None if self.hiding is None else self.hiding.again()
        return CompletionTable(self.x_ND, self.present_ND, self.features, hiding, device)


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
    if n_copies < max(uses / MAX_COPY_USES, 2):
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

    take_numel = TAKE_NUMEL

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
        """The same copies for another device, taken in the same order each time that training starts again."""
        return HiddenCopies(self.table, self.copies, self.generator.clone_state(), device)
