"""Some rows of many against what they stand for."""

import pytest
import torch

from skdl.closed_form.row_sample import RowSample, sampled_rows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def present():
    """10,000 rows: a column with all cells, one with half of them, one with 50, and 100 rows without any."""
    shown = torch.rand(10_000, 3, generator=generator(1)) < torch.tensor([1.1, 0.5, 0.0])
    shown[1000:1050, 2] = True
    shown[5000:5100] = False
    return shown


def test_sample_when_rows_are_no_more_then_all_of_them(present):
    rows, weight = sampled_rows(present, 10_000, generator())
    assert rows.tolist() == list(range(10_000)) and (weight == 1).all()


def test_sample_when_column_has_few_cells_then_all_of_them(present):
    rows, weight = sampled_rows(present, 600, generator())
    assert len(rows) == len(rows.unique()) == 600
    assert present[rows].sum(0)[2] == 50 and (weight[present[rows, 2]] == 1).all()
    # Rows with a cell of the second column are twice as likely as others.
    assert present[rows].sum(0)[1] == pytest.approx(400, abs=30)
    assert present[rows].any(1).all()


def test_sample_when_repeated_then_stands_for_all_rows(present):
    sums = torch.stack(
        [
            weight @ present[rows].double()
            for rows, weight in (sampled_rows(present, 600, generator(s)) for s in range(40))
        ]
    )
    torch.testing.assert_close(sums.mean(0), present.sum(0).double(), rtol=0.02, atol=0)


def test_sample_when_few_rows_have_cells_then_those():
    present = torch.zeros(1000, 2, dtype=torch.bool)
    present[::50, 0] = True
    rows, weight = sampled_rows(present, 100, generator())
    assert sorted(rows.tolist()) == list(range(0, 1000, 50)) and (weight == 1).all()


def test_known_rows_when_weights_differ_then_fewer_than_cells():
    sample = RowSample(torch.arange(3), torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))
    present = torch.tensor([[True, True, False], [True, True, False], [True, False, False]])
    torch.testing.assert_close(sample.n_known(present).tolist(), [16 / 6, 2.0, 0.0])
    assert sample.least_weight(present) == 1
