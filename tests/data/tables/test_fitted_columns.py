"""Columns of later frames in the sense of those of ``fit``; see test_table_encoder.py for what is refused."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skdl.data.tables.fitted_columns import FittedColumn, mixtures
from skdl.data.tables.frames import frame_columns

NUMBERS, LEVELS = pd.Series([1.0, 0.0, np.nan]), pd.Series([True, False, None], dtype=object)


def column(values):
    return frame_columns(pd.DataFrame({"c": values}))[0]


@pytest.mark.parametrize(
    ("fitted", "new", "expected"),
    [(LEVELS, NUMBERS, [1.0, 0.0, None]), (NUMBERS, LEVELS, [1.0, 0.0, np.nan])],
    ids=["numbers as levels", "levels as numbers"],
)
def test_values__when_levels_are_numbers__then_converted_only_where_asked_for(fitted, new, expected):
    remembered = FittedColumn.of(column(fitted))
    assert_array_equal(remembered.values(column(new), converts_numbers=True), np.array(expected))
    with pytest.raises(ValueError, match=r"but it was (categorical|numeric) in fit. Convert it to the type"):
        remembered.values(column(new))


@pytest.mark.parametrize("fitted", [pd.Series(["a", "b"]), pd.Series(pd.to_datetime(["2024-01-01"]))])
def test_values__when_levels_are_text_or_dates__then_numbers_are_none_of_them(fitted):
    with pytest.raises(ValueError, match="'c' is numeric, but it was"):
        FittedColumn.of(column(fitted)).values(column(NUMBERS), converts_numbers=True)


def test_values__when_empty_in_fit__then_nothing_means_anything():
    empty = FittedColumn.of(column(pd.Series([None, None], dtype=object)))
    assert np.isnan(empty.values(column(pd.Series(["a", "b", "c"])))).tolist() == [True] * 3


@pytest.mark.parametrize("cells", [pd.Series, lambda spans: pd.Series(spans.to_pytimedelta(), dtype=object)])
def test_values__when_durations_stand_for_numbers__then_refused(cells):
    spans = column(cells(pd.to_timedelta([1.0, 2.0], unit="h")))
    numbers = column(pd.Series([1.0, 2.0]))
    assert FittedColumn.of(spans).values(spans).tolist() == [3600, 7200]
    with pytest.raises(ValueError, match="'c' has numbers, but those of fit were durations"):
        FittedColumn.of(spans).values(numbers)
    with pytest.raises(ValueError, match="'c' has durations, but those of fit were numbers"):
        FittedColumn.of(numbers).values(spans)
    # A column without a value may be of any type.
    assert np.isnan(FittedColumn.of(spans).values(column(pd.Series([np.nan])))).all()


def test_mixtures__then_places_of_text_beside_numbers():
    frame = pd.DataFrame({"x": [1.0, 2.0], "m": ["a", 1], "t": ["a", "b"]})
    assert mixtures(map(FittedColumn.of, frame_columns(frame))) == {1}
