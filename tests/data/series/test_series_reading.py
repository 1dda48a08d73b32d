"""Series as users have them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
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


# --- series of like lengths together ---------------------------------------------------------------------------------


def of_lengths(lengths):
    return [np.arange(float(length)) + row for row, length in enumerate(lengths)]


@pytest.mark.parametrize(
    ("lengths", "longest"),
    [
        ([20_000, *[50] * 400, 30_000], [50, 30_000]),
        ([*[1000] * 40, *[2000] * 40], [1000, 2000]),
        ([*[50] * 60, 300], [300]),
        ([*[100] * 300, *[110] * 300], [110]),
        ([2500] * 9, [2500]),
    ],
    ids=["one by far", "halves", "little padding", "little more", "equal"],
)
def test_series_of_like_lengths_stand_together(lengths, longest):
    order = np.random.default_rng(0).permutation(len(lengths))
    series = checked([of_lengths(lengths)[row] for row in order])
    rows, parts = zip(*series.by_length(), strict=True)
    assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(lengths)))
    assert [part.shape[2] for part in parts] == longest
    for of_part, part in zip(rows, parts, strict=True):
        assert_array_equal(part.values, series.values[of_part, :, : part.shape[2]])
        assert_array_equal(part.lengths, series.lengths[of_part])
    if len(parts) == 1:
        assert parts[0] is series


def test_many_series_of_one_length_are_parted_by_their_number(monkeypatch):
    monkeypatch.setattr("skdl.data.series.series_reading.CHUNK_NUMBERS", 100)
    sizes = [part.shape for _, part in checked(np.ones((12, 2, 10))).by_length()]
    assert sizes == [(5, 2, 10), (5, 2, 10), (2, 2, 10)]
    # One is never parted.
    assert [part.shape for _, part in checked(np.ones((2, 2, 90))).by_length()] == [(1, 2, 90)] * 2


def test_tables_go_with_their_part_unless_they_hold_objects():
    X, names = of_lengths([*[10] * 30, 9000]), [f"{row}" for row in range(31)]
    for dtype, sizes in (("str", [30, 1]), (object, [31])):
        series = checked((X, pd.DataFrame({"name": pd.Series(names, dtype=dtype)})))
        parts = list(series.by_length())
        assert [len(part) for _, part in parts] == sizes
        assert [part.static["name"].tolist() for _, part in parts] == [
            [names[row] for row in rows] for rows, _ in parts
        ]
