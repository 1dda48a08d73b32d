"""Encodings of tables: what the columns become, from which rows they are learned, and what is not known."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from skdl.data.tables.categories import MAX_ONE_HOT_LEVELS
from skdl.data.tables.piecewise import tree_thresholds
from skdl.data.tables.scaling import CLIP, NumericEncoder
from skdl.data.tables.table_encoder import TableEncoder

DAY = pd.Timestamp("2024-01-01")


def clipped(z):
    return z / np.sqrt(1 + (z / CLIP) ** 2)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_numbers_pass_unscaled(encode):
    X = np.array([[1.0, -2.0], [3.0, 4.0]])
    assert_array_equal(encode(X)[0], X)


def test_standard_scaling(encode):
    X = np.random.RandomState(0).normal(5, 3, size=(50, 3))
    assert_allclose(encode(X, scaling="standard")[0], (X - X.mean(axis=0)) / X.std(axis=0), rtol=1e-12)


def test_robust_scaling_is_median_and_quartiles_smoothly_clipped(encode):
    x = np.r_[np.arange(101.0), 1e9]
    out = encode(x[:, None], scaling="robust")[0][:, 0]
    # Of 102 values the quartiles that are values themselves: 25, 50 and 76.
    assert_allclose(out, clipped((x - 50) / 51), rtol=1e-12)
    assert abs(out[-1] - CLIP) < 1e-6


def test_robust_scaling_of_mostly_one_value_takes_the_range(encode):
    x = np.r_[np.zeros(90), np.full(10, 8.0)]
    assert_allclose(np.unique(encode(x[:, None], scaling="robust")[0]), [0, clipped(2)])


@pytest.mark.parametrize("scaling", ["robust", "standard"])
@pytest.mark.parametrize("value", [0.0, 1e-300, -7.0, 1e300])
def test_constant_columns_are_zero(encode, scaling, value):
    assert_array_equal(encode(np.full((5, 1), value), scaling=scaling)[0], 0)


@pytest.mark.parametrize("scaling", ["robust", "standard", None])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e308])
def test_extreme_numbers_stay_finite(encode, scaling, scale):
    X = scale * np.array([[-1.0], [0.0], [0.5], [1.0]])
    out = encode(X, scaling=scaling)[0]
    assert np.isfinite(out).all() and np.all(np.diff(out[:, 0]) >= 0)
    new = encode(X, np.array([[1.7e308], [-1.7e308]]), scaling=scaling)[0]
    assert np.isfinite(new.astype(np.float32) ** 2).all()


@pytest.mark.parametrize("scaling", ["robust", "standard", None])
def test_missing_values_are_zero_with_a_column_that_says_so(encode, scaling):
    X = np.array([[1.0, 5.0], [np.nan, 6.0], [3.0, 7.0]])
    out = encode(X, scaling=scaling)[0]
    assert out.shape == (3, 3)
    assert_array_equal(out[:, 2], [0, 1, 0])
    assert out[1, 0] == 0


def test_missing_where_none_was_in_training_is_zero_without_a_column(encode):
    X = np.array([[1.0], [2.0], [9.0]])
    assert_array_equal(encode(X, np.array([[np.nan]]), scaling="standard")[0], [[0.0]])


@pytest.mark.parametrize("scaling", ["robust", "standard", None])
def test_a_column_of_nothing_but_missing_values(encode, scaling):
    X = np.c_[np.full(4, np.nan), np.arange(4.0)]
    out = encode(X, np.array([[5.0, 1.0], [np.nan, 1.0]]), scaling=scaling)[0]
    assert np.isfinite(out).all() and out[:, 2].tolist() == [0, 1]


@pytest.mark.parametrize("scaling", ["robust", "standard"])
def test_scales_count_weights_as_repetitions(encode, scaling):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(40, 3))
    X[::5, 1] = np.nan
    weight = rng.randint(0, 4, size=40)
    repeated = np.repeat(np.arange(40), weight)
    used = np.flatnonzero(weight)
    one = encode(X, rows=used, weight=weight, scaling=scaling)[0]
    assert_allclose(one, encode(X[repeated], X, scaling=scaling)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-300, 1e3, 1e300])
@pytest.mark.parametrize("scaling", ["robust", "standard"])
def test_scales_do_not_depend_on_the_sum_of_weights(encode, scaling, factor):
    X = np.random.RandomState(0).normal(size=(30, 2))
    weight = np.random.RandomState(1).uniform(0.5, 2, size=30)
    assert_allclose(
        encode(X, weight=factor * weight, scaling=scaling)[0], encode(X, weight=weight, scaling=scaling)[0], rtol=1e-9
    )


# --- piecewise-linear columns ----------------------------------------------------------------------------------------


def test_piecewise_columns_stand_beside_the_scaled_ones(encode):
    x = np.random.RandomState(0).normal(size=200)
    plain = encode(x[:, None], scaling="standard")[0]
    out = encode(x[:, None], scaling="standard", embedding="piecewise_linear")[0]
    assert_array_equal(out[:, :1], plain)
    bins = out[:, 1:]
    assert bins.shape[1] >= 4
    # Around their means; each is a share of a bin, so it moves by at most one, and never down as x grows.
    assert_allclose(bins.mean(axis=0), 0, atol=1e-12)
    assert np.all(np.ptp(bins, axis=0) <= 1 + 1e-12)
    assert np.all(np.diff(bins[np.argsort(x)], axis=0) >= -1e-12)


def test_piecewise_columns_of_weighted_rows_lie_around_their_weighted_means(encode):
    rng = np.random.RandomState(0)
    weight = rng.uniform(0.1, 3, size=200)
    bins = encode(rng.normal(size=(200, 1)), weight=weight, embedding="piecewise_linear")[0][:, 1:]
    assert_allclose(np.average(bins, axis=0, weights=weight), 0, atol=1e-12)


def test_piecewise_columns_are_constant_beyond_the_training_range(encode):
    x = np.random.RandomState(0).uniform(size=(200, 1))
    ends = encode(x, np.array([[x.min()], [-1e300], [x.max()], [1e300]]), embedding="piecewise_linear")[0][:, 1:]
    assert_array_equal(ends[0], ends[1])
    assert_array_equal(ends[2], ends[3])


def test_piecewise_columns_have_an_edge_where_the_target_changes(encode):
    x = np.random.RandomState(0).uniform(size=500)
    y = (x > 0.37).astype(int)
    low, high = x[x <= 0.37].max(), x[x > 0.37].min()
    ends = encode(x[:, None], np.array([[low], [high]]), embedding="piecewise_linear", y=y)[0][:, 1:]
    # An edge lies between them: some bin has only just begun or ended.
    assert np.count_nonzero(ends[0] != ends[1]) >= 2


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e12])
def test_thresholds_of_numbers_far_from_zero_are_found_to_their_last_digits(offset):
    x = np.random.RandomState(0).normal(size=500)
    (threshold,) = tree_thresholds(offset + x, x > 0.3, None, 4, True) - offset
    assert x[x <= 0.3].max() - 1e-3 <= threshold <= x[x > 0.3].min() + 1e-3


@pytest.mark.parametrize("classification", [False, True])
def test_thresholds_of_noise_are_none(classification):
    n_thresholds = []
    for seed in range(20):
        rng = np.random.RandomState(seed)
        y = rng.randint(3, size=300) if classification else rng.normal(size=300)
        n_thresholds.append(len(tree_thresholds(rng.normal(size=300), y, None, 8, classification)))
    # A bin that chance has put where held-out rows are makes them look easier than new ones.
    assert np.mean(n_thresholds) < 1


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_thresholds_of_steps_are_kept_however_small_beside_others(noise):
    rng = np.random.RandomState(0)
    x = rng.uniform(size=2000)
    y = 10 * (x > 0.5) + (x > 0.25) + rng.normal(0, noise, size=2000)
    thresholds = tree_thresholds(x, y, None, 8, False)
    assert all(np.abs(thresholds - step).min() < 5e-3 for step in (0.25, 0.5))


@pytest.mark.parametrize("x", [[0.0, 1.0] * 20, [3.0] * 40, [np.nan] * 40], ids=["two values", "one value", "missing"])
def test_columns_of_two_values_or_fewer_have_no_bins(encode, x):
    X = np.array(x)[:, None]
    assert encode(X, embedding="piecewise_linear")[0].shape == encode(X)[0].shape


def test_columns_of_three_values_decide_whether_there_are_bins(encode):
    rng = np.random.default_rng(0)
    binary, many = rng.integers(2, size=(200, 300)).astype(float), rng.normal(size=(200, 257))
    # The lone column's bins are as few as those of one among 301.
    mixed = encode(np.hstack([many[:, :1], binary]), embedding="piecewise_linear")[0]
    assert mixed.shape[1] >= 1 + 300 + 4
    assert encode(many, embedding="piecewise_linear")[0].shape[1] == 257


def test_missing_values_are_zero_in_every_bin(encode):
    X = np.random.RandomState(0).normal(size=(100, 1))
    X[::10] = np.nan
    out = encode(X, embedding="piecewise_linear")[0]
    assert_array_equal(out[::10, 2:], 0)
    assert_array_equal(out[::10, 1], 1)


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e-40, 1e40, 1e300, 1.7e308])
def test_bins_of_extreme_numbers_stay_finite(encode, scale):
    X = scale * np.linspace(-1, 1, 100)[:, None]
    new = np.r_[X, [[1.7e308], [-1.7e308], [np.nan]]]
    assert np.isfinite(encode(X, new, embedding="piecewise_linear")[0]).all()


# --- columns that are left to a periodic embedding -------------------------------------------------------------------


def test_periodic_columns_are_those_of_numbers_and_dates_as_they_are_scaled(encode):
    frame = pd.DataFrame(
        {
            "t": list("abc") * 20,
            "x": np.r_[np.nan, np.arange(59.0)],
            "d": DAY + pd.to_timedelta(np.arange(60), unit="D"),
        }
    )
    assert_array_equal(encode(frame, embedding="periodic")[0], encode(frame)[0])
    # One number, and six that a date becomes; not that the number is missing, nor a level.
    rows = np.arange(60)
    assert TableEncoder(None, "periodic").fit(frame, rows, rows).n_periodic == 7
    assert TableEncoder(None, "piecewise_linear").fit(frame, rows, rows).n_periodic == 0


@pytest.mark.parametrize("X", [np.zeros((40, 257)), sp.csr_array(np.eye(40))], ids=["too many columns", "sparse"])
def test_columns_that_are_not_left_to_a_periodic_embedding(X):
    rows = np.arange(40)
    assert TableEncoder(None, "periodic").fit(X, rows, rows).n_periodic == 0


@pytest.mark.parametrize(("n_rows", "n_columns", "n_periodic"), [(500, 32, 32), (499, 32, 0), (500, 33, 0)])
def test_cosines_beside_bins_are_for_few_columns_of_enough_rows(encode, n_rows, n_columns, n_periodic):
    X, rows = np.random.RandomState(0).normal(size=(n_rows, n_columns)), np.arange(n_rows)
    encoder = TableEncoder("robust", "both").fit(X, rows, rows)
    assert encoder.n_periodic == n_periodic
    assert_array_equal(encode(X, embedding="both")[0], encode(X, embedding="piecewise_linear")[0])


# --- levels ----------------------------------------------------------------------------------------------------------


def test_few_levels_are_a_column_each_in_sorted_order(encode_column):
    out = encode_column(["b", "a", "c", "a"])
    assert_array_equal(out, [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("levels", [["u", "v"], ["u", None]])
def test_two_levels_are_one_column_of_plus_and_minus_one(encode_column, levels):
    assert_array_equal(encode_column(levels), [[-1], [1]])


def test_unseen_levels_are_zero(encode_column):
    assert_array_equal(encode_column(["a", "b", "c"], ["z", "b"]), [[0, 0, 0], [0, 1, 0]])
    assert_array_equal(encode_column(["a", "b"], ["z"]), [[0]])


def test_missing_is_a_level_where_training_rows_had_it(encode_column):
    assert_array_equal(encode_column(["a", None, "b"], [None, "z"]), [[0, 0, 1], [0, 0, 0]])
    assert_array_equal(encode_column(["a", "b", "c"], [None]), [[0, 0, 0]])


def test_declared_categories_that_no_row_has_are_unknown(encode_column):
    column = pd.Series(["a", "b", "c"], dtype=pd.CategoricalDtype(["d", "c", "b", "a"]))
    assert encode_column(column).shape == (3, 3)


@pytest.mark.parametrize(("n_levels", "is_embedded"), [(MAX_ONE_HOT_LEVELS, False), (MAX_ONE_HOT_LEVELS + 1, True)])
def test_many_levels_are_numbers_for_an_embedding(encode, n_levels, is_embedded):
    frame = pd.DataFrame({"c": [f"{i:03}" for i in range(n_levels)] * 10})
    values, codes = encode(frame)
    assert values.shape == (10 * n_levels, 0 if is_embedded else n_levels)
    assert (codes is not None) == is_embedded
    if is_embedded:
        assert_array_equal(codes[:, 0], np.tile(np.arange(1, n_levels + 1), 10))
        # Number 0 is what was not there in training.
        assert_array_equal(encode(frame, pd.DataFrame({"c": ["new", None, "000"]}))[1][:, 0], [0, 0, 1])


@pytest.mark.parametrize(("tells", "n_known"), [(True, 40), (False, 0)])
def test_of_many_levels_those_of_few_rows_are_known_where_they_tell_of_the_target(encode, tells, n_known):
    levels = np.repeat(np.arange(40), 3)
    cells = [f"level {i}" for i in levels] + [f"own {i}" for i in range(80)]
    y = np.random.default_rng(0).integers(2, size=200)
    if tells:
        y[:120] = levels % 2
    values, codes = encode(pd.DataFrame({"name": cells}), y=y)
    assert values.shape == (200, 0) and (codes is not None) == (n_known > 0)
    if n_known:
        assert_array_equal(np.unique(codes), np.arange(n_known + 1))
        assert (codes[120:] == 0).all()


def test_a_level_beside_unknown_ones_has_a_column(encode):
    cells = ["none"] * 60 + [f"own {i}" for i in range(40)]
    assert_array_equal(encode(pd.DataFrame({"name": cells}))[0][:, 0], np.repeat([1, 0], [60, 40]))


@pytest.mark.parametrize("library", [np.asarray, pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize(("n_codes", "is_embedded"), [(20, False), (60, True)])
def test_codes_among_numbers_stand_beside_them_as_levels(encode, library, n_codes, is_embedded):
    code = np.tile(np.arange(n_codes), 10) + 1000.5
    X = np.stack([np.linspace(0, 1, len(code)), code], axis=1)
    y = (np.arange(n_codes) % 2)[(code - 1000.5).astype(int)]
    new = X[:4].copy()
    new[2:, 1] = [np.nan, 7.0]
    plain, _ = encode(library(X))
    values, codes = encode(library(X), library(new), y=y, embedding="piecewise_linear")
    assert plain.shape[1] == 2 and (codes is not None) == is_embedded
    if is_embedded:
        assert codes[:, 0].tolist() == [1, 2, 0, 0]
    else:
        assert_array_equal(values[:, -n_codes:], np.vstack([np.eye(2, n_codes), np.zeros((2, n_codes))]))


def test_numbers_of_rows_that_come_several_times_are_no_codes():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 3)), rng.normal(size=200)
    rows = np.tile(np.arange(200), 6)
    for X in (x[rows], pd.DataFrame(x[rows], columns=list("abc")).assign(name=np.tile(["p", "q"], 600))):
        encoder = TableEncoder("robust", "both").fit(X, y[rows], np.arange(1200))
        assert encoder.nominal == []
    # A row's own number beside others that change is a code.
    x = np.column_stack([rows, rng.normal(size=(1200, 2))])
    assert TableEncoder("robust", "both").fit(x, y[rows], np.arange(1200)).nominal == [0]


def test_one_level_says_nothing(encode_column):
    assert encode_column(["a", "a"], ["a", "b"]).shape == (2, 0)


def test_booleans_are_plus_and_minus_one(encode_column):
    # Whatever the scaling of numbers.
    for scaling in ("robust", "standard", None):
        assert_array_equal(encode_column([True, False, False, False], scaling=scaling), [[1], [-1], [-1], [-1]])


# --- dates -----------------------------------------------------------------------------------------------------------


def test_dates_are_spelled_out(encode_column):
    # A Thursday, day 3 of a week that begins with Monday as 0.
    stamps = pd.Series([pd.Timestamp("2024-02-29T23:59:59.5"), pd.Timestamp("1969-12-31T01:00")])
    seconds = (stamps - pd.Timestamp(0)) / pd.Timedelta(seconds=1)
    assert_array_equal(encode_column(stamps), [[seconds[0], 2024, 2, 29, 3, 23], [seconds[1], 1969, 12, 31, 2, 1]])


def test_missing_dates_are_zero_with_columns_that_say_so(encode_column):
    out = encode_column(pd.Series([DAY, pd.NaT, DAY + pd.Timedelta(days=1)]), scaling="standard")
    assert_array_equal(out[1, :6], 0)
    assert_array_equal(out[:, 6:].max(axis=1), [0, 1, 0])


NAIVE = pd.Series(pd.date_range("2024-01-01", periods=5, freq="7h"))
UTC = NAIVE.dt.tz_localize("UTC")


@pytest.mark.parametrize("convert", [pd.Series.copy, lambda stamps: stamps.astype(object)], ids=["stamps", "objects"])
def test_stamps_of_another_time_zone_are_the_same_moments(encode_column, convert):
    lima = convert(UTC.dt.tz_convert("America/Lima"))
    encoded = encode_column(UTC, scaling="standard")
    assert_array_equal(encode_column(UTC, lima, scaling="standard"), encoded)
    assert_array_equal(encode_column(lima, UTC, scaling="standard"), encoded)
    assert_array_equal(encode_column(NAIVE, scaling="standard"), encoded)


@pytest.mark.parametrize("convert", [pd.Series.copy, lambda stamps: stamps.astype(object)], ids=["stamps", "objects"])
def test_stamps_must_have_a_time_zone_where_those_of_fit_had_one(encode_column, convert):
    aware, naive = convert(UTC), convert(NAIVE)
    with pytest.raises(ValueError, match=r"Column 'c' has stamps without a time zone.*tz_localize\('"):
        encode_column(UTC, naive)
    with pytest.raises(ValueError, match=r"Column 'c' has stamps with a time zone.*tz_convert.*tz_localize\(None\)"):
        encode_column(NAIVE, aware)


def test_polars_stamps_must_have_a_time_zone_where_those_of_fit_had_one(encode):
    naive = pl.DataFrame({"c": NAIVE.to_list()}, schema={"c": pl.Datetime("us")})
    aware = naive.with_columns(pl.col("c").dt.replace_time_zone("UTC"))
    with pytest.raises(ValueError, match=r"Column 'c' has stamps without a time zone.*replace_time_zone\('"):
        encode(aware, naive)
    with pytest.raises(ValueError, match=r"Column 'c' has stamps with a time zone.*replace_time_zone\(None\)"):
        encode(naive, aware)


@pytest.mark.parametrize(("fitted", "new"), [(UTC, NAIVE), (NAIVE, UTC)], ids=["with a zone", "without"])
def test_stamps_that_are_all_missing_need_no_time_zone(encode_column, fitted, new):
    assert np.isfinite(encode_column(fitted, new.where(new.isna()))).all()
    assert np.isfinite(encode_column(fitted.where(fitted.isna()), new)).all()


def test_a_column_of_stamps_with_and_without_a_time_zone_is_refused(encode_column):
    both = pd.Series([UTC[0], NAIVE[1]], dtype=object)
    with pytest.raises(ValueError, match=r"Column 'c' has stamps with a time zone beside ones without"):
        encode_column(both)


# --- kinds at fit and at predict -------------------------------------------------------------------------------------

TRAINING = {
    "numbers": pd.Series([1.0, 2.0, 4.0]),
    "levels": pd.Series(["a", "b", "c"]),
    "dates": pd.Series(pd.date_range("2024-01-01", periods=3)),
}


@pytest.mark.parametrize(("kind", "other"), [(k, o) for k in TRAINING for o in TRAINING if k != o])
def test_another_kind_of_column_is_refused(encode_column, kind, other):
    names = {"numbers": "numeric", "levels": "categorical", "dates": "datetime"}
    message = f"Column 'c' is {names[other]}, but it was {names[kind]} in fit. Convert"
    with pytest.raises(ValueError, match=message):
        encode_column(TRAINING[kind], TRAINING[other])


@pytest.mark.parametrize("library", [pd.Series, pl.Series])
def test_levels_of_another_type_are_refused(encode_column, library):
    text, booleans = library(["True", "False", None]), library([True, False, None])
    numbers = pd.Series(pd.Categorical([1, 0, None]))
    for fitted, new, types in [
        (text, booleans, "numbers or booleans, but those of fit were text"),
        (booleans, text, "text, but those of fit were numbers or booleans"),
        (numbers, text, "text, but those of fit were numbers or booleans"),
    ]:
        with pytest.raises(ValueError, match=rf"has levels that are {types}\. Convert it"):
            encode_column(fitted, new)
    assert_array_equal(encode_column(numbers, numbers.cat.rename_categories([0.0, 1.0])), encode_column(numbers))


@pytest.mark.parametrize("library", [pd.Series, pl.Series])
def test_numbers_are_levels_of_numbers_and_the_other_way_round(encode_column, library):
    booleans = library([True, False, True, None])
    expected = encode_column(booleans)
    for new in (library([1, 0, 1, None]), library([1.0, 0.0, 1.0, np.nan])):
        assert_array_equal(encode_column(booleans, new), expected)
    numbers = library([1.0, 0.0, 1.0, np.nan])
    assert_array_equal(encode_column(numbers, booleans), encode_column(numbers))
    categories = pd.Series(pd.Categorical([10, 20, 30, None]))
    assert_array_equal(encode_column(categories, library([10, 20, 30, None])), encode_column(categories))
    assert_array_equal(encode_column(categories, library([11.0, 12.0])), np.zeros((2, 4)))


NOTHING = {
    "None": pd.Series([None], dtype=object),
    "NaN": pd.Series([np.nan]),
    "NaT": pd.Series([pd.NaT]),
    "NA": pd.Series([pd.NA], dtype="Int64"),
    "string": pd.Series([None], dtype="string"),
    "category": pd.Series([None], dtype="category"),
}


@pytest.mark.parametrize("nothing", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("kind", TRAINING)
def test_a_column_of_missing_values_is_of_any_kind(encode_column, kind, nothing):
    # A frame of one record has no other way to say that a value is missing.
    column = pd.concat([TRAINING[kind], TRAINING[kind].iloc[:0].reindex([3])], ignore_index=True)
    expected = encode_column(column, scaling="standard")[-1:]
    assert_array_equal(encode_column(column, nothing, scaling="standard"), expected)


@pytest.mark.parametrize("kind", TRAINING)
@pytest.mark.parametrize("nothing", ["None", "NaN", "NaT", "NA"])
def test_a_column_that_was_missing_in_training_may_hold_anything_later(encode_column, kind, nothing):
    training = pd.concat([NOTHING[nothing]] * 3, ignore_index=True)
    assert np.isfinite(encode_column(training, TRAINING[kind], scaling="standard")).all()


@pytest.mark.parametrize(
    ("later", "places"),
    [([1, 2], [0, None]), ([1, None], [0, 3]), ([2.5], [2]), (["a"], [1]), (["a", 1, None], [1, 0, 3])],
)
@pytest.mark.parametrize("dtype", [object, None])
def test_a_mixture_of_text_and_numbers_stays_one_whatever_rows_come(encode_column, later, places, dtype):
    training = pd.Series([1, "a", 2.5, None], dtype=object)
    levels = encode_column(training)
    expected = [np.zeros(4) if place is None else levels[place] for place in places]
    assert_array_equal(encode_column(training, pd.Series(later, dtype=dtype)), expected)


# --- containers ------------------------------------------------------------------------------------------------------

CELLS = {
    "number": [0.5, None, -3.25, 7.0],
    "count": [1, 2, None, 4],
    "flag": [True, False, None, True],
    "text": ["x", None, "y", "z"],
    "day": [datetime.date(2024, 1, 1), None, datetime.date(2023, 5, 6), datetime.date(2020, 2, 29)],
    "time": [datetime.datetime(2024, 1, 1, 5), None, datetime.datetime(2023, 5, 6, 7), datetime.datetime(2020, 2, 29)],
    "span": [datetime.timedelta(hours=3), None, datetime.timedelta(days=1), datetime.timedelta(seconds=1)],
}

ARROW_TYPES = {
    "number": pa.float64(),
    "count": pa.int64(),
    "flag": pa.bool_(),
    "text": pa.string(),
    "day": pa.date32(),
    "time": pa.timestamp("us"),
    "span": pa.duration("us"),
}

FRAMES = {
    "pandas": lambda: pd.DataFrame(CELLS),
    "pandas objects": lambda: pd.DataFrame(CELLS, dtype=object),
    "pandas nullable": lambda: pd.DataFrame(CELLS).convert_dtypes(),
    "pandas pyarrow": lambda: pd.DataFrame(
        {name: pd.Series(cells, dtype=pd.ArrowDtype(ARROW_TYPES[name])) for name, cells in CELLS.items()}
    ),
    "polars": lambda: pl.DataFrame(CELLS),
    "pyarrow": lambda: pa.table(CELLS),
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("scaling", ["robust", None])
def test_every_library_gives_the_same_encoding(encode, make, scaling):
    expected = encode(FRAMES["pandas"](), scaling=scaling)[0]
    assert expected.shape[1] > 20
    assert_array_equal(encode(make(), scaling=scaling)[0], expected)
    # And so does one that comes at predict to the training frame of another.
    assert_array_equal(encode(FRAMES["pandas"](), make(), scaling=scaling)[0], expected)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("scaling", ["robust", "standard", None])
def test_a_numeric_frame_is_an_array_with_names(encode, make, scaling):
    X = np.random.RandomState(0).normal(size=(20, 2))
    X[3, 0] = np.nan
    frame = make({"a": X[:, 0], "b": X[:, 1]})
    expected = encode(X, scaling=scaling, embedding="piecewise_linear")[0]
    for fitted, new in [(frame, frame), (frame, X), (X, frame)]:
        assert_array_equal(encode(fitted, new, scaling=scaling, embedding="piecewise_linear")[0], expected)


@pytest.mark.parametrize("nothing", NOTHING.values(), ids=NOTHING)
def test_a_frame_that_stands_for_an_array_may_have_missing_columns(encode, nothing):
    X = np.array([[1.0, 5.0], [np.nan, 6.0], [3.0, 7.0]])
    frame = pd.DataFrame({"a": nothing, "b": [6.0]})
    assert_array_equal(encode(X, frame, scaling="standard")[0], encode(X, scaling="standard")[0][1:2])


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
def test_a_numeric_frame_stands_for_a_sparse_matrix(encode, make):
    X = np.array([[0, -4.0], [2, 1]])
    expected = encode(sp.csr_array(X), scaling="robust")[0]
    assert_array_equal(encode(sp.csr_array(X), make({"a": X[:, 0], "b": X[:, 1]}), scaling="robust")[0], expected)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_a_frame_with_text_cannot_stand_for_numbers(encode, make):
    frame = make({"a": [1.0, 2.0], "t": ["x", "y"]})
    for X in (np.zeros((2, 2)), sp.csr_array(np.eye(2))):
        with pytest.raises(ValueError, match="Column 't'"):
            encode(X, frame)


def test_an_array_cannot_stand_for_a_frame_with_text(encode):
    with pytest.raises(ValueError, match=r"DataFrame|frame"):
        encode(pd.DataFrame({"a": [1.0, 2.0], "t": ["x", "y"]}), np.zeros((2, 2)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float16", "float32", "bool"])
def test_dtypes_of_arrays(encode, dtype):
    X = np.array([[0, 1], [1, 0], [1, 1]], dtype=dtype)
    assert_array_equal(encode(X)[0], X.astype(float))


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_layout_and_read_only_memory_maps(encode, tmp_path, order):
    X = np.asarray(np.random.RandomState(0).normal(size=(30, 3)), order=order)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert not mapped.flags.writeable
    assert_array_equal(encode(mapped, scaling="robust")[0], encode(X, scaling="robust")[0])


@pytest.mark.parametrize("n_rows", [4095, 4096, 4097, 9000])
def test_chunks_leave_no_seams(encode, n_rows):
    X = np.random.RandomState(0).normal(size=(n_rows, 2))
    out = encode(X, scaling="standard")[0]
    assert_allclose(out, (X - X.mean(axis=0)) / X.std(axis=0), rtol=1e-9, atol=1e-12)


# --- sparse matrices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array])
def test_sparse_columns_are_divided_by_their_largest_value(encode, make):
    X = np.array([[0, -4.0, 0], [2, 1, 0], [0, 0, 0]])
    assert_allclose(encode(make(X), scaling="robust")[0], X / [2, 4, 1])
    assert_array_equal(encode(make(X), scaling=None)[0], X)


def test_sparse_and_dense_are_the_same_where_columns_are_as_they_are(encode):
    X = sp.random_array((20, 5), density=0.4, rng=np.random.default_rng(0), format="csr")
    dense = X.toarray()
    for fitted, new in [(X, X), (X, dense), (dense, X), (dense, dense)]:
        assert_array_equal(encode(fitted, new)[0], dense)


@pytest.mark.parametrize("scaling", ["robust", None])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e308])
def test_extreme_sparse_numbers_stay_finite(encode, scaling, scale):
    X = sp.csr_array(scale * np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 0.5]]))
    new = sp.csr_array(np.array([[1.7e308, -1.7e308]]))
    for matrix in (X, new):
        assert np.isfinite(encode(X, matrix, scaling=scaling)[0].astype(np.float32) ** 2).all()


# --- which rows teach ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", [None, "piecewise_linear"])
@pytest.mark.parametrize("scaling", ["robust", "standard", None])
def test_only_the_given_rows_teach(encode, scaling, embedding):
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=40),
            "t": rng.choice(list("abc"), size=40),
            "d": DAY + pd.to_timedelta(rng.randint(1000, size=40), unit="D"),
        }
    )
    rows = np.arange(0, 40, 2)
    poisoned = frame.copy()
    poisoned.loc[1::2, "x"] = [np.nan, 1e300] * 10
    poisoned.loc[1::2, "t"] = [None, "poison"] * 10
    poisoned.loc[1::2, "d"] = pd.NaT
    settings = {"rows": rows, "scaling": scaling, "embedding": embedding}
    assert_array_equal(encode(poisoned, frame, **settings)[0], encode(frame, **settings)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tables_have_the_wanted_precision(dtype):
    X = np.random.RandomState(0).normal(size=(6, 2))
    for matrix in (X, sp.csr_array(X), pd.DataFrame({"a": X[:, 0], "b": list("uvwxyz")})):
        encoder = TableEncoder("robust", None, dtype).fit(matrix, np.arange(6) % 2, np.arange(6))
        values, _ = encoder.transform(matrix).slice(0, 6)
        assert values.numpy().dtype == dtype and values.shape == (6, encoder.n_outputs)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 101])
def test_quartiles_without_weights_are_those_of_equal_weights(n):
    x = np.random.default_rng(n).normal(size=(n, 1)).round(1)
    plain, weighted = (NumericEncoder().fit(lambda j: x[:, j], 1, weight) for weight in (None, np.full(n, 2.0)))
    assert plain.center == weighted.center and plain.factor == weighted.factor
