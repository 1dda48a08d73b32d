"""Which rows and cells an imputer's networks are trained on, and which they are judged by.

Axes: N rows of a table, B rows at a time, D encoded columns, C columns of the table, P patterns of missing cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skdl.data.folds import n_held_out_rows
from skdl.data.table import Table
from skdl.estimators.imputation.completion_tables import CompletionTable, HiddenCopies, Hiding, hidden_copies
from skdl.estimators.parameters import is_auto

#: A small table is gone through several times in each epoch, which has so many rows at most then.
EPOCH_ROWS = 2048
#: Most rows that one network is trained on.
MAX_TRAINING_ROWS = 100_000
#: "auto" share of the rows that a network holds out.
HELD_OUT = 0.2
#: Most rows that a network holds out.
MAX_HELD_OUT_ROWS = 2000
#: Probability that a cell of a held-out row is hidden, to see what the networks make of it.
HIDDEN_CELLS = 0.25
#: Rows that networks are judged by, about: fewer held-out rows come several times, with other cells hidden each time.
JUDGED_ROWS = 4000
#: How often a held-out row comes at most.
MAX_HELD_OUT_COPIES = 8
#: Most rows whose patterns of missing cells are learned.
MAX_PATTERN_ROWS = 4096


class HiddenRows(NamedTuple):
    """Rows that a network is judged by, some of them several times, and which of their cells ``(B, D)`` to hide."""

    rows_B: Tensor
    is_hidden_BD: Tensor


def held_out_by_members(
    n_rows: int, n_members: int, fraction: float | str, random_state: np.random.RandomState
) -> list[Tensor]:
    """The rows that each network holds out.

    Raises
    ------
    ValueError
        If they leave none to train on.
    """
    fraction = HELD_OUT if is_auto(fraction) else fraction
    n_held_out = min(n_held_out_rows(fraction, n_rows), MAX_HELD_OUT_ROWS)
    if n_held_out >= n_rows:
        raise ValueError(f"validation_fraction={fraction} leaves no rows to train on; n_samples={n_rows}. Lower it.")
    order = random_state.permutation(n_rows)
    return [torch.from_numpy(np.sort(np.roll(order, -m * n_held_out)[:n_held_out])) for m in range(n_members)]


def hidden_rows(
    present_ND: Tensor, held_out: Tensor, column_of_D: Tensor, random_state: np.random.RandomState
) -> HiddenRows:
    """What a network is judged by, of the rows that it holds out."""
    rows_B = held_out.repeat(int(np.clip(JUDGED_ROWS // len(held_out), 1, MAX_HELD_OUT_COPIES)))
    draws_BC = torch.from_numpy(random_state.random_sample((len(rows_B), int(column_of_D.max()) + 1)))
    return HiddenRows(rows_B, (draws_BC < HIDDEN_CELLS)[:, column_of_D] & present_ND[rows_B])


def training_rows(n_rows: int, held_out: Tensor, random_state: np.random.RandomState) -> Tensor:
    """The rows of an epoch."""
    is_trained = np.ones(n_rows, dtype=bool)
    is_trained[held_out] = False
    rows = random_state.permutation(np.flatnonzero(is_trained))[:MAX_TRAINING_ROWS]
    return torch.from_numpy(np.tile(rows, max(EPOCH_ROWS // len(rows), 1)))


def training_tables(table: CompletionTable, column_of_D: Tensor, seeds: Sequence[int], n_taken: int) -> Sequence[Table]:
    """What each network sees of a table: the same rows, other cells hidden; all take ``n_taken`` rows at most."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows = torch.randperm(len(table), generator=generators[0])[:MAX_PATTERN_ROWS]
    first = np.unique(column_of_D, return_index=True)[1]
    patterns_PC = table.present_ND[rows][:, torch.from_numpy(first)]
    patterns_PC = patterns_PC[~patterns_PC.all(1)]
    tables = [table.hiding_cells(Hiding(generator, patterns_PC, column_of_D)) for generator in generators]
    copies = hidden_copies(tables[0], n_taken)
    return tables if copies is None else [HiddenCopies(tables[0], copies, generator) for generator in generators]
