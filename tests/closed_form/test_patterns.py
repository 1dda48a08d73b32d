"""Rows with the same cells, in blocks, against each row by itself."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdl.closed_form import patterns
from skdl.closed_form.patterns import blocks_of

D = 5


@pytest.fixture
def matrix():
    root = np.random.default_rng(3).normal(size=(D, D))
    return torch.from_numpy(root @ root.T + np.eye(D))


def random_cells(n_rows, n_columns=D):
    return torch.rand(n_rows, n_columns, generator=torch.Generator().manual_seed(n_rows)) < 0.5


@pytest.mark.parametrize("cells", [random_cells(20), random_cells(500), random_cells(500).fill_(True)])
def test_blocks_when_rows_have_any_cells_then_each_row_is_in_one_with_its_own(cells):
    seen = []
    for block in blocks_of(cells):
        columns, is_cell = block.of_rows(block.columns_PM), block.of_rows(block.is_cell_PM)
        for b, n in enumerate(block.rows_B.tolist()):
            assert columns[b][is_cell[b]].tolist() == cells[n].nonzero()[:, 0].tolist()
            seen.append(n)
    assert sorted(seen) == cells.any(1).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("n_rows", [20, 500])
def test_solution_when_rows_have_any_cells_then_that_of_each_row(n_rows, matrix):
    cells = random_cells(n_rows)
    right = torch.randn(n_rows, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = torch.zeros_like(right)
    for block in blocks_of(cells):
        # 32 patterns at most: many rows have to share them.
        assert (block.pattern_B is not None) == (n_rows > 64)
        block.add(solution, block.solution(matrix, block.cells(right[block.rows_B])))
    for n, row in enumerate(cells.numpy()):
        expected = np.zeros(D)
        expected[row] = np.linalg.solve(matrix.numpy()[np.ix_(row, row)], right[n].numpy()[row])
        assert_allclose(solution[n], expected, atol=1e-12)


def test_blocks_when_rows_are_many_then_small_enough(monkeypatch):
    monkeypatch.setattr(patterns, "BLOCK_NUMBERS", 1000)
    for cells in (random_cells(600), torch.ones(600, D, dtype=torch.bool)):
        blocks = list(blocks_of(cells))
        assert len(blocks) > patterns.N_BLOCKS
        assert all(len(block.rows_B) * block.columns_PM.shape[1] ** 2 <= 1000 for block in blocks)
        assert sorted(torch.cat([block.rows_B for block in blocks]).tolist()) == cells.any(1).nonzero()[:, 0].tolist()


def test_blocks_when_columns_are_many_then_rows_are_told_apart():
    for n_columns in (patterns.CODED_COLUMNS, patterns.CODED_COLUMNS + 1):
        cells = torch.zeros(40, n_columns, dtype=torch.bool)
        cells[::2, -1] = cells[1::2, 0] = True
        shown = torch.zeros(40, n_columns)
        for block in blocks_of(cells):
            block.add(shown, torch.ones(len(block.rows_B), 1))
        assert torch.equal(shown, cells.float())


def test_blocks_when_there_are_no_cells_then_none():
    assert list(blocks_of(torch.zeros(10, D, dtype=torch.bool))) == []
    assert list(blocks_of(torch.zeros(0, D, dtype=torch.bool))) == []
