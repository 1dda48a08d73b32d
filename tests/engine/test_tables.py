import numpy as np
import pytest
import scipy.sparse as sp
import torch

from skdl.data.table import DenseTable, SparseTable

VALUES = np.where(np.random.default_rng(0).random((9, 4)) < 0.5, np.arange(36.0).reshape(9, 4), 0)


@pytest.mark.parametrize("rows", [[3, 0, 8], [5], [2, 2, 2], []], ids=str)
def test_take__then_rows_in_the_given_order(rows):
    dense = DenseTable(torch.from_numpy(VALUES), torch.arange(18).view(9, 2))
    sparse = SparseTable(sp.csr_array(VALUES))
    x, codes = dense.take(torch.tensor(rows, dtype=torch.int64))
    np.testing.assert_array_equal(x, VALUES[rows])
    np.testing.assert_array_equal(codes, np.arange(18).reshape(9, 2)[rows])
    x, codes = sparse.take(torch.tensor(rows, dtype=torch.int64))
    np.testing.assert_array_equal(x, VALUES[rows])
    assert codes is None


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (2, 5), (7, 9), (4, 4)])
def test_slice__then_equals_taking_its_rows(start, stop):
    tables = [
        DenseTable(torch.from_numpy(VALUES), torch.arange(9)[:, None]),
        DenseTable(torch.from_numpy(VALUES)),
        SparseTable(sp.csr_matrix(VALUES)),
    ]
    for table in tables:
        for sliced, taken in zip(table.slice(start, stop), table.take(torch.arange(start, stop)), strict=True):
            assert (sliced is None and taken is None) or torch.equal(sliced, taken)


def test_table__then_says_its_size():
    for table in (DenseTable(torch.from_numpy(VALUES)), SparseTable(sp.csr_array(VALUES))):
        assert (len(table), table.n_columns) == (9, 4)
        moved = table.to("cpu")
        assert (len(moved), moved.n_columns) == (9, 4)
