"""Tables that rows are drawn from."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from skdl.data.table import DenseTable, SparseTable

VALUES = torch.arange(12.0).view(4, 3)
CODES = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])


@pytest.fixture(params=["dense", "with levels", "sparse"])
def table(request):
    if request.param == "sparse":
        return SparseTable(sp.csr_matrix(VALUES.numpy()))
    return DenseTable(VALUES, CODES if request.param == "with levels" else None)


@pytest.mark.parametrize("rows", [[0], [3, 1, 1], [], [2, 0, 3, 1]])
def test_rows_are_taken_in_the_wanted_order(table, rows):
    values, codes = table.take(torch.tensor(rows, dtype=torch.int64))
    assert torch.equal(values, VALUES[rows])
    assert codes is None or torch.equal(codes, CODES[rows])


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (3, 10), (2, 2)])
def test_slices(table, start, stop):
    values, codes = table.slice(start, stop)
    assert torch.equal(values, VALUES[start:stop])
    assert codes is None or torch.equal(codes, CODES[start:stop])


def test_size(table):
    assert len(table) == 4 and table.n_columns == 3


def test_a_table_moves_to_a_device_with_its_rows(table):
    moved = table.to("cpu")
    assert torch.equal(moved.take(torch.tensor([2]))[0], table.take(torch.tensor([2]))[0])


def test_a_slice_of_a_dense_table_is_a_view():
    table = DenseTable(VALUES)
    assert table.slice(1, 3)[0].data_ptr() == VALUES[1].data_ptr()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_tables_give_dense_rows_of_their_precision(dtype):
    matrix = sp.random_array((5, 4), density=0.5, rng=np.random.default_rng(0), format="csr").astype(dtype)
    values, _ = SparseTable(matrix).slice(0, 5)
    assert torch.equal(values, torch.from_numpy(matrix.toarray())) and values.numpy().dtype == dtype
