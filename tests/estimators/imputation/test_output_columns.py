"""Columns that come back of an imputer, apart from what their holes are filled with."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skdl.data.tables.table_cells import TableCells
from skdl.estimators.imputation.output_columns import ImputedRows, OutputColumns

NAMES = np.array(["a", "b", "c"], dtype=object)
X = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan]])


def output_columns(X, names=NAMES, **options):
    cells = TableCells(clip=True, round_integers=False)
    missing = cells.fit(cells.columns(X)).encode(cells.columns(X))[1]
    return OutputColumns.of(X, cells, missing, names, **{"keep_empty": True, "add_indicator": True} | options)


def test_joined__when_a_block_has_no_hole_in_a_column__then_values_of_the_others_in_order():
    missing = [np.array([[True, False]]), np.array([[False, False], [False, True]]), np.array([[True, True]])]
    values = [{0: np.array([1.0])}, {1: np.array([2.0])}, {0: np.array([3.0]), 1: np.array([4.0])}]
    joined = ImputedRows.joined(list(map(ImputedRows, missing, values)))
    assert_array_equal(joined.missing_NC, np.concatenate(missing))
    assert {c: found.tolist() for c, found in joined.values.items()} == {0: [1.0, 3.0], 1: [2.0, 4.0]}


@pytest.mark.parametrize("make", [np.array, lambda x: pd.DataFrame(x, columns=NAMES)], ids=["array", "frame"])
def test_filled__when_empty_columns_are_kept__then_they_are_zeros_and_indicators_follow(make):
    columns = output_columns(make(X))
    filled = columns.filled(make(X), ImputedRows(np.isnan(X), {1: np.array([7.0])}))
    assert_array_equal(np.asarray(filled, dtype=float), [[1, 7, 0, 1, 1], [2, 5, 0, 0, 1]])
    assert columns.names(NAMES).tolist() == ["a", "b", "c", "missingindicator_b", "missingindicator_c"]


def test_of__when_empty_columns_are_not_kept__then_a_warning_names_them():
    with pytest.warns(UserWarning, match=r"left out: \['c'\]. Set keep_empty_features=True"):
        columns = output_columns(pd.DataFrame(X, columns=NAMES), keep_empty=False, add_indicator=False)
    assert columns.names(NAMES).tolist() == ["a", "b"]


def test_of__when_a_column_has_the_name_of_an_indicator__then_refused():
    names = np.array(["a", "b", "missingindicator_b"], dtype=object)
    with pytest.raises(ValueError, match=r"called \['missingindicator_b'\], but X has columns of that name"):
        output_columns(X, names)
