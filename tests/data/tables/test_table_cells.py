"""Cells of tables to standardised numbers and back."""

import datetime
import string

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skdl.data.tables.columns import Column
from skdl.data.tables.table_cells import MAX_IMPUTED_LEVELS, LevelCells, NumberCells, TableCells

STAMP = np.datetime64("2024-02-29T12:30:15.123456", "us")


def fitted(X, clip=True, round_integers=False, missing_value=np.nan):
    cells = TableCells(clip, round_integers, missing_value)
    return cells.fit(cells.columns(X))


def encode(cells, X, dtype=np.float32):
    return cells.encode(cells.columns(X), dtype)


def objects(cells):
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column


def series(library, cells, **dtypes):
    if library == "polars":
        return pl.DataFrame({"c": pl.Series(cells, dtype=dtypes.get("polars"))})
    return pd.DataFrame({"c": pd.Series(cells, dtype=dtypes.get("pandas"))})


def there_and_back(X, new=None, **settings):
    """Decoded cells of the only column, and which of them were missing."""
    cells = fitted(X, **settings)
    encoded, missing = encode(cells, X if new is None else new, np.float64)
    return cells.encoders[0].decode(np.nan_to_num(encoded)), missing[:, 0], cells


# --- numbers -----------------------------------------------------------------------------------------------------


def test_encode_when_numbers_then_standardised_with_nan_for_holes():
    X = np.array([[1.0, 5.0], [np.nan, 7.0], [4.0, np.nan], [4.0, 0.0]])
    encoded, missing = encode(fitted(X), X, np.float64)
    assert_array_equal(missing, np.isnan(X))
    assert_allclose(encoded, (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0), rtol=1e-12)
    assert encode(fitted(X), X)[0].dtype == np.float32


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12, 1e150])
def test_decode_when_numbers_then_what_was_encoded(scale):
    x = scale * np.random.default_rng(0).normal(3, 2, size=50)
    decoded, missing, _ = there_and_back(x[:, None])
    assert_allclose(decoded, x, rtol=1e-12)
    assert not missing.any()


@pytest.mark.parametrize("clip", [True, False])
def test_decode_when_beyond_the_range_then_clipped_on_request(clip):
    X = np.array([[1.0], [2.0], [3.0]])
    decoded = fitted(X, clip=clip).encoders[0].decode(np.array([[-9.0], [0.0], [9.0]]))
    far = 9 * X.std()
    assert_allclose(decoded, [1, 2, 3] if clip else [2 - far, 2, 2 + far])


@pytest.mark.parametrize(("hour", "unit"), [(0, "D"), (12, "us")])
def test_decode_when_dates_have_no_time_of_day_then_they_keep_having_none(hour, unit):
    days = np.array(["2024-03-01", "2024-03-04", "1969-12-30"], dtype="datetime64[us]") + np.timedelta64(hour, "h")
    encoder = NumberCells.of(Column("when", "datetime", days), clip=False, round_integers=False)
    decoded = encoder.decode(np.array([[0.123], [-0.4]]))
    assert (decoded == decoded.astype("datetime64[D]")).all() == (unit == "D")
    assert_array_equal(encoder.decode(encoder.encode(days)), days)


@pytest.mark.parametrize(("values", "is_whole"), [([1.0, 2.0, 4.0], True), ([1.0, 2.5, 4.0], False)])
def test_decode_when_all_numbers_are_whole_then_rounded_on_request(values, is_whole):
    X = np.array(values)[:, None]
    encoded = np.array([[0.1], [-0.3]])
    exact = fitted(X).encoders[0].decode(encoded)
    rounded = fitted(X, round_integers=True).encoders[0].decode(encoded)
    assert not (exact == np.round(exact)).any()
    assert_array_equal(rounded, np.round(exact) if is_whole else exact)


@pytest.mark.parametrize("size", [1e17, 1e25])
def test_encode_when_values_differ_by_rounding_only_then_zero_and_back(size):
    values = np.full(120, size)
    values[::2] = np.nextafter(size, np.inf)
    cells = fitted(values[:, None])
    (encoder,) = cells.encoders.values()
    assert_array_equal(encoder.encode(np.append(values, np.nan))[:, 0], [*np.zeros(120), np.nan])
    assert_allclose(encoder.decode(np.array([[0.3]])), size, rtol=1e-15)
    assert encoder.spread(np.ones((1, 1)), np.zeros((1, 1))) == 0


def test_encode_when_column_is_constant_then_zero_and_back():
    decoded, _, cells = there_and_back(np.full((5, 1), 0.1))
    assert_array_equal(decoded, 0.1)
    assert_array_equal(encode(cells, np.full((2, 1), 0.1))[0], 0)


def test_encode_when_number_is_huge_then_bounded():
    cells = fitted(np.array([[0.0], [1.0]]))
    encoded = encode(cells, np.array([[1e300], [-1e300]]), np.float32)[0]
    assert np.isfinite(encoded.astype(np.float32) ** 2).all()


def test_spread_when_numbers_then_in_their_unit():
    x = np.array([1.0, 3.0, 8.0])
    (encoder,) = fitted(x[:, None]).encoders.values()
    assert isinstance(encoder, NumberCells)
    assert_allclose(encoder.spread(np.array([[0.5]]), np.array([[0.0]])), 0.5 * x.std())


# --- levels ------------------------------------------------------------------------------------------------------

LEVELS = {
    "text": (["b", "a", None, "c", "b"], {}),
    "category": (["b", "a", None, "c", "b"], {"pandas": "category", "polars": pl.Categorical}),
    "boolean": ([True, False, None, True, True], {"pandas": "boolean"}),
}


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("kind", LEVELS)
def test_decode_when_levels_then_what_was_encoded(library, kind):
    cells, dtypes = LEVELS[kind]
    decoded, missing, _ = there_and_back(series(library, cells, **dtypes))
    assert missing.tolist() == [cell is None for cell in cells]
    assert decoded[~missing].tolist() == [cell for cell in cells if cell is not None]


def test_encode_when_levels_then_mean_zero_and_one_variance_together():
    X = pd.DataFrame({"c": list("aabbbcdddd") * 3})
    encoded = encode(fitted(X), X, np.float64)[0]
    assert encoded.shape == (30, 4)
    assert_allclose(encoded.mean(axis=0), 0, atol=1e-12)
    assert encoded.var(axis=0).sum() == pytest.approx(1)


def test_encode_when_only_one_level_then_zero_and_back():
    decoded, _, cells = there_and_back(pd.DataFrame({"c": ["a", "a", None]}))
    assert set(decoded) == {"a"}
    assert_array_equal(encode(cells, pd.DataFrame({"c": ["a"]}))[0], 0)


def test_encode_when_level_is_new_then_missing_to_the_network_only():
    cells = fitted(pd.DataFrame({"c": ["a", "b", "a"]}))
    encoded, missing = encode(cells, pd.DataFrame({"c": ["z", "b", None]}))
    assert missing[:, 0].tolist() == [False, False, True]
    assert np.isnan(encoded).all(axis=1).tolist() == [True, False, True]


def test_levels_when_more_than_most_then_the_most_frequent():
    names = [a + b for a in string.ascii_lowercase[:5] for b in string.ascii_lowercase[:10]]
    cells = [name for i, name in enumerate(names) for _ in range(i + 1)]
    X = pd.DataFrame({"c": cells})
    encoder = fitted(X).encoders[0]
    assert encoder.width == MAX_IMPUTED_LEVELS
    assert set(encoder.levels) == set(names[-MAX_IMPUTED_LEVELS:])
    is_rare = ~np.isin(cells, encoder.levels)
    encoded, missing = encode(fitted(X), X)
    assert not missing.any() and not np.isnan(encoded).any()
    # The others are none of them.
    none = -encoder.shares / encoder.scale
    assert_allclose(encoded[is_rare], np.tile(none, (is_rare.sum(), 1)), rtol=1e-6)
    assert_array_equal(encode(fitted(X), pd.DataFrame({"c": ["new", None]}))[0][:, 0], [np.float32(none[0]), np.nan])


def test_levels_when_equally_frequent_then_the_first_in_order():
    cells = [f"{i:02}" for i in range(MAX_IMPUTED_LEVELS + 8)] * 5
    for column in (cells, cells[::-1]):
        assert fitted(pd.DataFrame({"c": column})).encoders[0].levels == tuple(cells[:MAX_IMPUTED_LEVELS])


def test_levels_when_all_are_rare_then_one_that_says_nothing():
    X = pd.DataFrame({"c": [f"{i:02}" for i in range(MAX_IMPUTED_LEVELS + 8)]})
    cells = fitted(X)
    assert cells.encoders[0].levels == ("00",)
    assert_array_equal(np.nan_to_num(encode(cells, X)[0]), np.zeros((len(X), 1)))


def test_probabilities_when_encoded_then_one_hot_and_shares_between():
    X = pd.DataFrame({"c": list("aaab")})
    (encoder,) = fitted(X).encoders.values()
    assert isinstance(encoder, LevelCells)
    assert_allclose(encoder.probabilities(encode(fitted(X), X, np.float64)[0])[[0, 3]], np.eye(2), atol=1e-5)
    assert_allclose(encoder.probabilities(np.zeros((1, 2))), [[0.75, 0.25]])
    wild = encoder.probabilities(np.array([[9.0, 9.0], [-9.0, -9.0], [9.0, -9.0]]))
    assert (wild > 0).all()
    assert_allclose(wild.sum(axis=1), 1)


def test_draw_when_uniform_then_levels_by_their_probabilities():
    (encoder,) = fitted(pd.DataFrame({"c": list("aaaabbbccc")})).encoders.values()
    uniform = np.stack(np.meshgrid((np.arange(50) + 0.5) / 50, (np.arange(50) + 0.5) / 50), axis=-1).reshape(-1, 2)
    drawn = encoder.decode(encoder.draw(np.zeros((2500, 3)), uniform))
    assert [(drawn == level).sum() for level in "abc"] == [1000, 750, 750]
    # The higher a level's number, the rather it is taken.
    extremes = encoder.draw(np.zeros((3, 3)), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert encoder.decode(extremes).tolist() == ["a", "b", "c"]
    assert_array_equal(extremes, encoder.encode(np.array(["a", "b", "c"], dtype=object)))


def test_draw_when_there_is_one_level_then_that():
    (encoder,) = fitted(pd.DataFrame({"c": ["a", "a", None]})).encoders.values()
    assert encoder.decode(encoder.draw(np.zeros((2, 1)), np.empty((2, 0)))).tolist() == ["a", "a"]


def test_type_when_levels_are_rare_then_without_their_names():
    names = [f"often{i}" for i in range(MAX_IMPUTED_LEVELS)]
    often, rare = (fitted(pd.DataFrame({"c": cells}).astype("category")) for cells in (names, [*names * 5, "rare"]))
    assert list(often.types[0].native.categories) == sorted(names)
    assert rare.types[0].native is None and set(rare.types[0].levels) == set(names)


def test_spread_when_levels_then_of_the_most_probable_one():
    (encoder,) = fitted(pd.DataFrame({"c": list("aaab")})).encoders.values()
    assert_allclose(encoder.spread(np.ones((1, 2)), np.zeros((1, 2))), np.sqrt(0.75 * 0.25))


# --- dates and durations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_decode_when_dates_then_to_the_microsecond(library):
    stamps = [STAMP.item(), datetime.datetime(1969, 7, 20, 20, 17, 40, 1), None, datetime.datetime(2000, 1, 1)]
    decoded, missing, _ = there_and_back(series(library, stamps))
    assert missing.tolist() == [False, False, True, False]
    assert decoded.dtype == "datetime64[us]"
    # Half a century has 1.6e15 microseconds, and a float64 16 digits.
    error = decoded[~missing] - np.array([stamp for stamp in stamps if stamp], dtype="datetime64[us]")
    assert np.abs(error.astype(int)).max() <= 1


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_decode_when_durations_then_seconds(library):
    spans = [datetime.timedelta(hours=1), None, datetime.timedelta(milliseconds=-500)]
    decoded, missing, _ = there_and_back(series(library, spans))
    assert missing.tolist() == [False, True, False]
    assert_allclose(decoded[~missing], [3600, -0.5], rtol=1e-12)


# --- mixtures, missing values, other kinds -----------------------------------------------------------------------


def test_encode_when_text_and_numbers_are_mixed_then_levels_by_their_text():
    X = pd.DataFrame({"c": objects(["a", 1, None, 1.5, "1"])})
    cells = fitted(X)
    assert cells.encoders[0].levels == ("1", "1.5", "a")
    assert cells.encoders[0].cells == (1, 1.5, "a")
    # In other rows the column may look like one of numbers.
    encoded, missing = encode(cells, pd.DataFrame({"c": objects([1, 1.5, None])}))
    assert missing[:, 0].tolist() == [False, False, True]
    assert encoded[:2].argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("X", "value"),
    [
        (np.array([[-1.0], [2.0], [3.0], [-1.0]]), -1),
        (pd.DataFrame({"c": [-1, 2, 3, -1]}), -1),
        (pd.DataFrame({"c": pd.Series([None, 2, 3, -1], dtype="Int64")}), -1),
        (pd.DataFrame({"c": ["?", "a", "b", "?"]}), "?"),
        (pl.DataFrame({"c": [None, "a", "b", "?"]}), "?"),
        (pl.DataFrame({"c": [-1.0, 2.0, 3.0, None]}), -1.0),
    ],
    ids=["array", "pandas int", "pandas Int64", "pandas text", "polars text", "polars float"],
)
def test_missing_value_when_given_then_missing_beside_none(X, value):
    cells = fitted(X, missing_value=value)
    encoded, missing = encode(cells, X)
    assert missing[:, 0].tolist() == [True, False, False, True]
    assert np.isnan(encoded).all(axis=1).tolist() == [True, False, False, True]
    # It is neither a level nor does it move the mean.
    whole = fitted(X[1:3], missing_value=value)
    assert_array_equal(encode(whole, X)[0], encoded)


@pytest.mark.parametrize("cells", [[-1, 2, 3, None], [-1, "a", 3, None]], ids=["numbers", "mixture"])
@pytest.mark.parametrize("dtype", ["category", object])
def test_missing_value_when_a_number_among_levels_then_missing(cells, dtype):
    _, missing, cells = there_and_back(pd.DataFrame({"c": pd.Series(cells, dtype=dtype)}), missing_value=-1)
    assert missing.tolist() == [True, False, False, True]


def test_missing_value_when_one_then_true_is_a_cell():
    X = pd.DataFrame({"c": pd.Series([True, False, None], dtype="boolean"), "t": ["1", "a", "1"]})
    assert not encode(fitted(X, missing_value=1), X)[1][:2].any()


@pytest.mark.parametrize("value", [None, np.nan, pd.NA, "?", -1])
def test_missing_value_when_not_there_then_changes_nothing(value):
    X = pd.DataFrame({"n": [1.0, None, 3.0], "t": ["a", None, "b"]})
    assert_array_equal(encode(fitted(X, missing_value=value), X)[0], encode(fitted(X), X)[0])


def test_missing_value_when_all_cells_are_it_then_column_is_empty():
    cells = fitted(np.array([[-1.0, 1.0], [-1.0, 2.0]]), missing_value=-1)
    assert cells.filled.tolist() == [False, True] and list(cells.encoders) == [1]


def test_encode_when_column_is_empty_then_missing_whatever_its_type():
    cells = fitted(pd.DataFrame({"n": [1.0, 2.0], "t": ["a", "b"]}))
    new = pd.DataFrame({"n": objects([None, None]), "t": [np.nan, np.nan]})
    encoded, missing = encode(cells, new)
    assert np.isnan(encoded).all() and missing.all()


@pytest.mark.parametrize(
    ("train", "new", "words"),
    [
        ([1.0, 2.0], ["a", "b"], "'c' is categorical, but it was numeric in fit. Convert it to the type"),
        (["a", "b"], [1.0, 2.0], "'c' is numeric, but it was categorical in fit. Convert it to the type"),
        ([1.0, 2.0], pd.to_datetime(["2024-01-01"] * 2), "'c' is datetime, but it was numeric"),
    ],
    ids=["text for numbers", "numbers for text", "dates for numbers"],
)
def test_encode_when_column_is_of_another_kind_then_error_names_it(train, new, words):
    with pytest.raises(ValueError, match=words):
        encode(fitted(pd.DataFrame({"c": train})), pd.DataFrame({"c": new}))


def test_slices_when_columns_differ_then_places_of_their_encoded_columns():
    X = pd.DataFrame({"n": [1.0, 2.0, 3.0], "e": [np.nan] * 3, "t": list("abc"), "m": [0.0, 1.0, 0.0]})
    cells = fitted(X)
    assert cells.slices() == {0: slice(0, 1), 2: slice(1, 4), 3: slice(4, 5)}
    assert cells.column_of_D.tolist() == [0, 1, 1, 1, 2]
    assert encode(cells, X)[0].shape == (3, 5)
