"""Columns of frames as numbers, levels and dates, whatever library and dtype they come in."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from skdl.data.tables import frames
from skdl.data.tables.frames import check_unique_names, column_names, frame_columns, is_frame

UTC = datetime.UTC
DAYS = [datetime.date(2024, 2, 29), None, datetime.date(1969, 12, 31)]
TIMES = [datetime.datetime(2024, 2, 29, 12, 30), None, datetime.datetime(1969, 12, 31, 23)]
AWARE = [datetime.datetime(2024, 2, 29, 12, 30, tzinfo=UTC), None, datetime.datetime(1969, 12, 31, 23, tzinfo=UTC)]
SPANS = [datetime.timedelta(hours=1), None, datetime.timedelta(milliseconds=-500)]
TEXT = ["b", None, "a"]
STAMPS = np.array(["2024-02-29T12:30", "NaT", "1969-12-31T23:00"], dtype="datetime64[us]")


def arrow(cells, kind):
    return pd.Series(cells, dtype=pd.ArrowDtype(kind))


def column(series):
    frame = series.to_frame("c") if hasattr(series, "to_frame") else pl.DataFrame({"c": series})
    (only,) = frame_columns(frame)
    assert only.name == "c"
    return only


NUMBERS = {
    "float64": pd.Series([1.0, np.nan, 0.0]),
    "Float32": pd.Series([1, None, 0], dtype="Float32"),
    "Int64": pd.Series([1, None, 0], dtype="Int64"),
    "UInt8": pd.Series([1, None, 0], dtype="UInt8"),
    "int64[pyarrow]": arrow([1, None, 0], pa.int64()),
    "double[pyarrow]": arrow([1, None, 0], pa.float64()),
    "decimal[pyarrow]": arrow([decimal.Decimal(1), None, decimal.Decimal(0)], pa.decimal128(5, 2)),
    "object of numbers": pd.Series([1, np.nan, 0.0], dtype=object),
    "object of decimals": pd.Series([decimal.Decimal(1), None, decimal.Decimal(0)], dtype=object),
    "object with NA": pd.Series([1, pd.NA, np.float32(0)], dtype=object),
    "sparse": pd.Series(pd.arrays.SparseArray([1.0, np.nan, 0.0])),
    "polars Float64": pl.Series([1.0, None, 0.0]),
    "polars Float32": pl.Series([1.0, float("nan"), 0.0], dtype=pl.Float32),
    "polars Int8": pl.Series([1, None, 0], dtype=pl.Int8),
    "polars UInt64": pl.Series([1, None, 0], dtype=pl.UInt64),
    "polars Int128": pl.Series([1, None, 0], dtype=pl.Int128),
    "polars Decimal": pl.Series([decimal.Decimal(1), None, decimal.Decimal(0)]),
}


@pytest.mark.parametrize("series", NUMBERS.values(), ids=NUMBERS)
def test_numbers(series):
    numbers = column(series)
    assert numbers.kind == "numeric" and numbers.values.dtype.kind == "f"
    assert_array_equal(numbers.values, [1, np.nan, 0])


BOOLEANS = {
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "bool[pyarrow]": arrow([True, None, False], pa.bool_()),
    "object of bools": pd.Series([True, None, False], dtype=object),
    "polars Boolean": pl.Series([True, None, False]),
}


@pytest.mark.parametrize("series", BOOLEANS.values(), ids=BOOLEANS)
def test_booleans_are_levels(series):
    booleans = column(series)
    assert booleans.kind == "categorical" and booleans.values.tolist() == [True, None, False]


@pytest.mark.parametrize("series", [pd.Series([True, False]), pl.Series([True, False])], ids=["pandas", "polars"])
def test_booleans_without_missing_cells(series):
    assert column(series).values.tolist() == [True, False]


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint64", "float16", "float32", "float64"]
)
def test_numpy_dtypes_keep_their_values(dtype):
    numbers = column(pd.Series(np.array([0, 1, 1], dtype=dtype))).values
    assert numbers.dtype.kind == "f"
    assert_array_equal(numbers, [0, 1, 1])


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Int128, pl.Float32, pl.Decimal(10, 2)], ids=str)
def test_polars_dtypes_keep_their_values(dtype):
    assert_array_equal(column(pl.Series([0, 1, 1]).cast(dtype)).values, [0, 1, 1])


LEVELS = {
    "object": pd.Series(TEXT, dtype=object),
    "object with NaN": pd.Series(["b", np.nan, "a"], dtype=object),
    "str": pd.Series(TEXT, dtype="str"),
    "string": pd.Series(TEXT, dtype="string"),
    "category": pd.Series(TEXT, dtype="category"),
    "string[pyarrow]": arrow(TEXT, pa.string()),
    "large_string[pyarrow]": arrow(TEXT, pa.large_string()),
    "dictionary[pyarrow]": arrow(TEXT, pa.dictionary(pa.int32(), pa.string())),
    "polars String": pl.Series(TEXT),
    "polars Categorical": pl.Series(TEXT, dtype=pl.Categorical),
    "polars Enum": pl.Series(TEXT, dtype=pl.Enum(["a", "b", "c"])),
}


@pytest.mark.parametrize("series", LEVELS.values(), ids=LEVELS)
def test_text_and_categories(series):
    levels = column(series)
    assert levels.kind == "categorical"
    assert levels.values.tolist() == ["b", None, "a"]


def test_categories_keep_the_type_of_their_levels():
    assert column(pd.Series([3, None, 1], dtype="category")).values.tolist() == [3, None, 1]
    intervals = column(pd.Series(pd.cut([1.0, np.nan, 9.0], [0, 5, 10])))
    assert intervals.kind == "categorical" and intervals.values[1] is None


def test_a_mixture_of_text_and_numbers_has_its_values_as_levels():
    assert column(pd.Series([1, "a", 2.5, None], dtype=object)).values.tolist() == ["1", "a", "2.5", None]
    cells = [1.0, "a", np.float32(2), np.inf, 10.0**20]
    assert column(pd.Series(cells, dtype=object)).values.tolist() == ["1", "a", "2", "inf", "1" + 20 * "0"]


DATES = {
    "datetime64[ns]": pd.Series(TIMES).astype("datetime64[ns]"),
    "datetime64[s]": pd.Series(TIMES).astype("datetime64[s]"),
    "datetime64[us]": pd.Series(TIMES).astype("datetime64[us]"),
    "with a time zone": pd.Series(AWARE),
    "in another time zone": pd.Series(AWARE).dt.tz_convert("Asia/Tokyo"),
    "in a zone with other signs": pd.Series(AWARE).dt.tz_convert("America/Port-au-Prince"),
    "object of datetimes": pd.Series(TIMES, dtype=object),
    "object of aware datetimes": pd.Series(AWARE, dtype=object),
    "object of Timestamps": pd.Series([pd.Timestamp(TIMES[0]), pd.NaT, pd.Timestamp(TIMES[2])], dtype=object),
    "object of datetime64": pd.Series(list(STAMPS), dtype=object),
    "timestamp[pyarrow]": arrow(TIMES, pa.timestamp("us")),
    "timestamp[pyarrow, UTC]": arrow(AWARE, pa.timestamp("ns", tz="UTC")),
    "polars Datetime": pl.Series(TIMES),
    "polars Datetime[ms]": pl.Series(TIMES, dtype=pl.Datetime("ms")),
    "polars aware": pl.Series(AWARE),
}


@pytest.mark.parametrize("series", DATES.values(), ids=DATES)
def test_datetimes_are_taken_in_utc(series):
    dates = column(series)
    assert dates.kind == "datetime" and dates.values.dtype == "datetime64[us]"
    assert_array_equal(dates.values, STAMPS)


@pytest.mark.parametrize(
    "series",
    [pd.Series(DAYS, dtype=object), arrow(DAYS, pa.date32()), pl.Series(DAYS)],
    ids=["object", "date32[pyarrow]", "polars Date"],
)
def test_dates(series):
    dates = column(series)
    assert dates.kind == "datetime"
    assert_array_equal(dates.values, np.array(["2024-02-29", "NaT", "1969-12-31"], dtype="datetime64[us]"))


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(SPANS),
        pd.Series(SPANS).astype("timedelta64[ns]"),
        pd.Series(SPANS, dtype=object),
        arrow(SPANS, pa.duration("us")),
        pl.Series(SPANS),
        pl.Series(SPANS, dtype=pl.Duration("ms")),
    ],
    ids=["timedelta64[us]", "timedelta64[ns]", "object", "duration[pyarrow]", "polars", "polars ms"],
)
def test_durations_are_seconds(series):
    spans = column(series)
    assert spans.kind == "numeric"
    assert_array_equal(spans.values, [3600, np.nan, -0.5])


EMPTY = {
    "object": pd.Series([None, None], dtype=object),
    "datetime64": pd.Series([pd.NaT, pd.NaT]),
    "string": pd.Series([None, None], dtype="string"),
    "category": pd.Series([None, None], dtype="category"),
    "polars Null": pl.Series([None, None]),
    "polars Date": pl.Series([None, None], dtype=pl.Date),
    "polars String": pl.Series([None, None], dtype=pl.String),
}


@pytest.mark.parametrize("series", EMPTY.values(), ids=EMPTY)
def test_a_column_without_values_says_so(series):
    assert column(series).is_empty


@pytest.mark.parametrize(
    ("series", "named"),
    [
        (pd.Series([[1], [2]]), "list"),
        (pd.Series([{"a": 1}, None]), "dict"),
        (pd.Series([{1}, {2}]), "set"),
        (pd.Series([(1, 2), None]), "tuple"),
        (pd.Series([np.zeros(2), np.ones(2)]), "ndarray"),
        (pd.Series([datetime.time(1), None]), "time"),
        (pd.Series([b"a", b"b"]), "bytes"),
        (pd.Series([1 + 1j, 2]), "complex"),
        (pd.Series([1 + 1j, 2], dtype=object), "complex"),
        (pd.Series(pd.period_range("2024", periods=2, freq="D")), "Period"),
        (pl.Series([[1], [2]]), "List"),
        (pl.Series([{"a": 1}, None]), "Struct"),
        (pl.Series([b"a", b"b"]), "Binary"),
        (pl.Series([datetime.time(1), None]), "Time"),
        (pl.Series([object(), object()], dtype=pl.Object), "object"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__module__.split(".")[0],
)
def test_what_cannot_be_encoded_is_refused_by_name(series, named):
    with pytest.raises(TypeError, match=rf"Column 'c'.*{named}.*[Cc]onvert"):
        column(series)


def test_an_integer_too_large_for_a_float_is_named():
    with pytest.raises((TypeError, ValueError), match="Column 'c'"):
        column(pd.Series([10**400, 1], dtype=object))


@pytest.mark.parametrize("names", [["a", "a"], [1, 1]])
def test_duplicated_names_are_refused(names):
    with pytest.raises(ValueError, match=r"occur more than once|unique column names"):
        frame_columns(pd.DataFrame(np.zeros((2, 2)), columns=names))


@pytest.mark.parametrize("X", [np.zeros((2, 2)), [[1, 2]], "text", None, pd.Series([1]), pl.Series([1])])
def test_what_is_not_a_frame(X):
    assert not is_frame(X)


@pytest.mark.parametrize("X", [pd.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]}), pa.table({"a": [1]})])
def test_what_is_a_frame(X):
    assert is_frame(X)


def test_arrow_tables_are_frames_too():
    numbers, levels = frame_columns(pa.table({"n": [1.5, None], "t": ["x", None]}))
    assert_array_equal(numbers.values, [1.5, np.nan])
    assert levels.values.tolist() == ["x", None]


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_names_of_columns_in_every_library(library):
    frame = library({"b": [1], "a": [2]})
    assert column_names(frame) == ["b", "a"]
    check_unique_names(frame)


@pytest.mark.parametrize("n_rows", [1, 3])
def test_order_and_names_of_columns_are_kept(n_rows):
    frame = pd.DataFrame({"z": ["t"] * n_rows, "a": [1.0] * n_rows, 7: [2] * n_rows})
    assert [(c.name, c.kind) for c in frame_columns(frame)] == [("z", "categorical"), ("a", "numeric"), (7, "numeric")]


PLAIN = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
NULLABLE = ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"]
PANDAS = {
    **{dtype: pd.Series([2, 0, 1]).astype(dtype) for dtype in PLAIN},
    **{f"{dtype} with NaN": pd.Series([2.5, np.nan, 1], dtype=dtype) for dtype in PLAIN[-3:]},
    **{f"{dtype} with NA": pd.Series([2, None, 1], dtype=dtype) for dtype in NULLABLE},
    **{f"{dtype} without NA": pd.Series([2, 0, 1], dtype=dtype) for dtype in NULLABLE},
    "NaN beside NA": pd.Series(pd.arrays.FloatingArray(np.array([np.nan, 1, 2]), np.array([False, True, False]))),
    "largest Int64": pd.Series([2**63 - 1, None, 2**53 + 1], dtype="Int64"),
    "largest UInt64": pd.Series([2**64 - 1, None, 2**53 + 1], dtype="UInt64"),
    "largest int64": pd.Series([2**63 - 1, 2**53 + 1, -(2**63)]),
    "largest uint64": pd.Series([2**64 - 1, 2**53 + 1, 0], dtype="uint64"),
    "other byte order": pd.Series(np.array([2.5, np.nan, 1], dtype=">f8")),
    "no value": pd.Series([np.nan] * 3),
    "bool": pd.Series([True, False, True]),
    "mixture": pd.Series([1, "a", 2.5], dtype=object),
}
POLARS_NUMBERS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]
POLARS_NUMBERS += [pl.Float32, pl.Float64]
POLARS = {
    **{str(dtype): pl.Series([2, 0, 1], dtype=dtype) for dtype in POLARS_NUMBERS},
    **{f"{dtype} with null": pl.Series([2, None, 1], dtype=dtype) for dtype in POLARS_NUMBERS},
    "largest Int64": pl.Series([2**63 - 1, None, 2**53 + 1]),
    "NaN": pl.Series([2.5, float("nan"), 1]),
    "no value": pl.Series([None] * 3, dtype=pl.Float64),
}
ALL = {**NUMBERS, **BOOLEANS, **LEVELS, **DATES}


def some_columns(series_type, *tables):
    """Columns of three rows, in an order in which types alternate."""
    columns = {name: s for table in (*tables, ALL) for name, s in table.items() if isinstance(s, series_type)}
    return {name: columns[name] for name in sorted(columns, key=lambda name: (len(name) % 3, name))}


FRAMES = {
    "pandas": pd.DataFrame(some_columns(pd.Series, PANDAS)),
    "pandas, one type": pd.DataFrame(np.arange(6.0).reshape(3, 2), columns=["b", "a"]),
    "pandas, other names": pd.DataFrame({7: [1.5, np.nan], None: [1, 2], ("a", 1): ["t", "u"], 2.5: [3, 4]}),
    "pandas, an index of its own": pd.DataFrame({"a": [1.5, 2], "b": [1, 2]}, index=[5, 5]),
    "pandas, no rows": pd.DataFrame({"a": np.empty(0), "b": np.empty(0, dtype=int)}),
    "polars": pl.DataFrame(some_columns(pl.Series, POLARS)),
    "polars, one type": pl.DataFrame({"b": [0.0, 2.0], "a": [1.0, 3.0]}),
    "polars, several chunks": pl.concat([pl.DataFrame({"b": [0.0], "a": [1]})] * 2, rechunk=False),
}


@pytest.mark.parametrize("mixtures", [(), (0, 1)], ids=["as they are", "two by their text"])
@pytest.mark.parametrize("X", FRAMES.values(), ids=FRAMES)
def test_columns_are_the_same_by_blocks_and_one_by_one(X, mixtures, monkeypatch):
    by_blocks = frame_columns(X, mixtures)
    monkeypatch.setattr(frames, "BLOCK_ROWS", -1)
    for block, single in zip(by_blocks, frame_columns(X, mixtures), strict=True):
        assert (block.name, block.kind, block.is_empty) == (single.name, single.kind, single.is_empty)
        assert block.values.dtype == single.values.dtype
        assert_array_equal(block.values, single.values)
        assert block.type == single.type and type(block.type.native) is type(single.type.native)
        assert block.is_mixture == single.is_mixture
        if block.is_mixture:
            assert list(map(repr, block.cells)) == list(map(repr, single.cells))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_of_columns_that_are_refused_the_first_is_named(library):
    infinite, strange = [1.0, np.inf], [[1], [2]]
    with pytest.raises(TypeError, match="Column 'b'"):
        frame_columns(library({"a": [1.0, 2.0], "b": strange, "c": infinite}))
    with pytest.raises(ValueError, match="Column 'b' contains infinity"):
        frame_columns(library({"a": [1.0, 2.0], "b": infinite, "c": strange, "d": infinite}))
