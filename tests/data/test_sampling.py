import numpy as np
import pytest

from skdl.data.sampling import sample_rows


@pytest.mark.parametrize(("n_rows", "most"), [(0, 5), (4, 5), (5, 5)])
def test_sample_rows__when_few__then_all(n_rows, most):
    np.testing.assert_array_equal(sample_rows(n_rows, most), np.arange(n_rows))


def test_sample_rows__when_many__then_rising_and_in_no_rhythm():
    rows = sample_rows(20_000, 10_000)
    assert len(rows) == 10_000 and (np.diff(rows) > 0).all() and rows[-1] < 20_000
    assert 4_500 < (rows % 2).sum() < 5_500
    np.testing.assert_array_equal(rows, sample_rows(20_000, 10_000))
