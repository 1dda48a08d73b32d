"""Series as users have them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from numpy.testing import assert_array_equal

from skdl.estimators.series.checks import check_series


def checked(X, layout="channels_first"):
    return check_series(SimpleNamespace(layout=layout), X, reset=True)


def test_series_end_with_their_last_value_in_any_channel():
    X = np.array([[[1.0, 2, np.nan, np.nan], [1, np.nan, 3, np.nan]], [[1, np.nan, np.nan, np.nan]] * 2])
    series = checked(X)
    assert_array_equal(series.lengths, [3, 1])
    assert series.shape == (2, 2, 3)
    assert_array_equal(series[np.array([1])].lengths, [1])


def test_the_table_goes_with_its_series():
    series = checked((np.ones((3, 1, 4)), pd.DataFrame({"a": [1, 2, 3]})))
    assert series[[2, 0], ...].static["a"].tolist() == [3, 1]


def test_columns_of_several_nullable_types_have_missing_values():
    frame = pd.DataFrame({"a": [0.5, 1.5, 2.5], "b": [1, 2, 3]}).convert_dtypes()
    frame.loc[1, "b"] = pd.NA
    assert_array_equal(checked([frame, frame]).values[0], [[0.5, 1.5, 2.5], [1, np.nan, 3]])
