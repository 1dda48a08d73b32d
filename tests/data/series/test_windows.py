"""Windows of long tables."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_array_equal

from skdl import window


def frame(n=8, sites=("a", "b")):
    parts = [
        pd.DataFrame(
            {
                "site": [site] * n,
                "when": pd.date_range("2024-01-01", periods=n, freq="h"),
                "load": 100.0 * k + np.arange(n),
                "wind": -1.0 * np.arange(n),
                "holiday": np.arange(n) % 2,
                "size": [10.0 * (k + 1)] * n,
            }
        )
        for k, site in enumerate(sites)
    ]
    return pd.concat(parts, ignore_index=True)


def test_windows_of_one_series():
    X, y = window(np.arange(7), lags=3, horizon=2)
    assert_array_equal(X[:, 0], [[0, 1, 2], [1, 2, 3], [2, 3, 4]])
    assert_array_equal(y, [[3, 4], [4, 5], [5, 6]])


@pytest.mark.parametrize("dtype", [float, int])
def test_masked_values_are_missing(dtype):
    steps = np.array([[0, 1, 2, 3, -999, 5, 6, 7, 8], [4, 4, -999, 4, 4, 4, 4, 4, 4]], dtype=dtype).T
    masked, plain = np.ma.masked_equal(steps, -999), np.where(steps == -999, np.nan, steps)
    assert_array_equal(window(masked[:, 0], lags=2)[1], [2, 3, 6, 7, 8])
    X, y = window(masked, target=0, lags=2, static=[1])
    expected, expected_y = window(plain, target=0, lags=2, static=[1])
    assert_array_equal(X.series, expected.series)
    assert_array_equal(X.table, expected.table)
    assert_array_equal(y, expected_y)


def test_tensors_that_require_a_gradient():
    steps = torch.arange(7.0, requires_grad=True)
    for tensor in (steps, steps.bfloat16()):
        assert_array_equal(window(tensor, lags=3, horizon=2)[1], [[3, 4], [4, 5], [5, 6]])


def test_a_horizon_of_one_step_gives_one_axis():
    X, y = window([1.0, 2.0, 4.0, 8.0], lags=2)
    assert X.shape == (2, 1, 2)
    assert_array_equal(y, [4, 8])


def test_steps_between_windows_end_with_the_last_row():
    _, y = window(np.arange(10), lags=3, horizon=2, step=3)
    assert_array_equal(y, [[5, 6], [8, 9]])


@pytest.mark.parametrize("kind", [lambda f: f, pl.from_pandas], ids=["pandas", "polars"])
def test_series_are_kept_apart_and_come_in_the_order_of_time(kind):
    X, y, index = window(
        kind(frame()), target="load", lags=3, horizon=2, by="site", time="when", features=["wind"], return_index=True
    )
    assert X.shape == (8, 2, 3) and y.shape == (8, 2)
    assert (np.diff(index["time"]) >= np.timedelta64(0)).all()
    assert_array_equal(index["by"], ["a", "b"] * 4)
    assert_array_equal(X[0], [[0, 1, 2], [0, -1, -2]])
    assert_array_equal(y[1], [103, 104])
    # The stamp is that of the last step.
    assert index["time"][0] == np.datetime64("2024-01-01T02:00")


LARGE = 2**53


@pytest.mark.parametrize(
    "ids",
    [
        np.array([LARGE, LARGE + 1]),
        np.array([2**64 - 2, 2**64 - 1], dtype=np.uint64),
        np.array([9, 10], dtype=np.int8),
        np.array([LARGE, LARGE + 1], dtype="datetime64[ns]"),
        np.array([100, 200], dtype="timedelta64[ns]"),
        np.array([0.5, 1.5]),
        np.array([False, True]),
    ],
    ids=lambda ids: str(ids.dtype),
)
@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_series_are_told_apart_by_their_values_and_come_in_their_order(kind, ids):
    table = kind({"id": np.repeat(ids[::-1], 10), "y": np.arange(20.0)})
    X, _, index = window(table, target="y", lags=4, by="id", features=[], return_index=True)
    assert len(X) == 12 and (np.ptp(X[:, 0], axis=1) == 3).all()
    assert_array_equal(index["by"], np.tile(ids, 6))
    assert index["by"].dtype == ids.dtype


@pytest.mark.parametrize("cells", [[1, "1"], [True, 1], [LARGE, LARGE + 1], [2**70, 2**70 + 1], [1, "a"]], ids=str)
def test_series_are_told_apart_by_cells_of_any_kind(cells):
    table = pd.DataFrame({"id": pd.Series(np.repeat(np.array(cells, dtype=object), 10)), "y": np.arange(20.0)})
    X, _, index = window(table, target="y", lags=4, by="id", features=[], return_index=True)
    assert len(X) == 12 and (np.ptp(X[:, 0], axis=1) == 3).all()
    assert {(type(group), group) for group in index["by"].tolist()} == {(type(cell), cell) for cell in cells}


@pytest.mark.parametrize(
    "stamps",
    [
        LARGE + np.arange(9),
        np.arange(2**64 - 9, 2**64, dtype=np.uint64),
        np.arange(-120, 121, 30).astype(np.int8),
        np.datetime64("2024-01-01", "ns") + 100 * np.arange(9),
        (100 * np.arange(9)).astype("timedelta64[ns]"),
    ],
    ids=lambda stamps: str(stamps.dtype),
)
@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_times_keep_their_values(kind, stamps):
    table = kind({"when": stamps, "y": np.arange(9.0)})
    _, y, index = window(table, target="y", lags=3, time="when", return_index=True)
    assert_array_equal(y, np.arange(3, 9))
    assert_array_equal(index["time"], stamps[2:-1])
    assert index["time"].dtype == stamps.dtype
    with pytest.raises(ValueError, match="do not rise"):
        window(kind({"when": stamps[::-1], "y": np.arange(9.0)}), target="y", lags=3, time="when")
    with pytest.warns(UserWarning, match="3 windows are left out for gaps"):
        window(kind({"when": np.delete(stamps, 4), "y": np.arange(8.0)}), target="y", lags=3, time="when")


def test_integers_of_an_array_tell_series_apart():
    table = np.column_stack([np.repeat([LARGE, LARGE + 1], 10), np.arange(20)])
    X, _, index = window(table, target=1, lags=4, by=0, features=[], return_index=True)
    assert len(X) == 12 and index["by"].tolist() == [LARGE, LARGE + 1] * 6


def test_times_with_a_zone_keep_their_nanoseconds():
    when = pd.date_range("2024-01-01", periods=6, freq="100ns", tz="Europe/Berlin", unit="ns")
    *_, index = window(
        pd.DataFrame({"when": when, "y": np.arange(6.0)}), target="y", lags=3, time="when", return_index=True
    )
    assert_array_equal(index["time"], when[2:-1].tz_convert(None).to_numpy())


def test_all_columns_of_numbers_without_a_part_are_channels():
    X, _ = window(frame(), target="load", lags=3, by="site", time="when", static=["size"])
    assert X.series.shape == (10, 3, 3) and list(X.table.columns) == ["size"]
    assert_array_equal(X.table["size"][:4], [10, 20, 10, 20])


def test_known_columns_run_ahead_by_the_horizon():
    X, y = window(frame(sites=["a"]), target="load", lags=4, horizon=2, known_future=["wind"], features=[])
    assert_array_equal(X[0], [[0, 1, 2, 3], [-2, -3, -4, -5]])
    assert_array_equal(y[0], [4, 5])


def test_the_last_window_needs_no_target():
    table = frame(sites=["a"])
    table.loc[6:, "load"] = np.nan
    X = window(table, target="load", lags=4, horizon=2, known_future=["wind"], features=[], last=True)
    assert_array_equal(X[0], [[2, 3, 4, 5], [-4, -5, -6, -7]])
    assert_array_equal(window(np.arange(7), lags=3, horizon=5, last=True), [[[4, 5, 6]]])


def test_windows_without_a_target_are_left_out():
    values = np.arange(9.0)
    values[4] = np.nan
    X, y = window(values, lags=2, horizon=2)
    assert_array_equal(y, [[2, 3], [6, 7], [7, 8]])
    # What was missing in the past is left to the estimator.
    assert np.isnan(X).sum() == 1


def test_windows_do_not_end_in_what_would_pass_for_padding():
    values = np.arange(9.0)
    values[4] = np.nan
    X, _ = window(values, lags=3)
    assert_array_equal(X[:, 0, -1], [2, 5, 6, 7])
    # A known column goes on, so that the missing value is one inside the series.
    table = pd.DataFrame({"load": values, "hour": np.arange(9.0)})
    X, _ = window(table, target="load", lags=3, known_future=["hour"])
    assert_array_equal(X[:, 0, -1], [2, np.nan, 5, 6, 7])


def test_steps_between_windows_end_with_the_last_known_target():
    # Rows of a plan that goes on.
    _, y = window(np.append(np.arange(10.0), [np.nan, np.nan]), lags=3, horizon=2, step=3)
    assert_array_equal(y, [[5, 6], [8, 9]])


@pytest.mark.parametrize("kind", [lambda f: f, lambda f: f.convert_dtypes(), pl.from_pandas])
def test_booleans_are_numbers(kind):
    table = kind(frame(sites=["a"]).assign(holiday=lambda f: f["holiday"] == 1))
    X, _ = window(table, target="load", lags=4, horizon=2, known_future=["holiday"], features=[])
    assert_array_equal(X[0, 1], [0, 1, 0, 1])


def test_a_series_that_is_too_short_is_left_out_with_a_warning():
    table = frame().drop(index=range(10, 16))
    with pytest.warns(UserWarning, match=r"1 of 2 series do not have 4 lags and 2 steps.*Lower lags"):
        X, _ = window(table, target="load", lags=4, horizon=2, by="site", time="when")
    assert len(X) == 3


GAPPY = {"target": "load", "lags": 3, "horizon": 2, "by": "site", "time": "when", "features": ["wind"]}


@pytest.mark.parametrize("kind", [lambda f: f, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize("stamps", [lambda when: when, lambda when: when.dt.hour + 100], ids=["dates", "integers"])
def test_windows_with_a_gap_in_them_are_left_out(kind, stamps):
    table = frame(n=12).assign(when=lambda f: stamps(f["when"]))
    whole_X, whole_y = window(table, **GAPPY)
    with pytest.warns(UserWarning, match=r"4 windows are left out.* of series 'b'.*rows of missing values.*time="):
        X, y = window(kind(table.drop(index=12 + 6)), **GAPPY)
    # Rows 0 to 5 and 7 to 11: two windows before the gap, one behind it.
    of_b = whole_y[:, 0] >= 100
    ends = whole_X[:, 0, -1] - 100
    kept = ~of_b | np.isin(ends, [2, 3, 9])
    assert_array_equal(X, whole_X[kept])
    assert_array_equal(y, whole_y[kept])


def test_the_last_window_with_a_gap_in_it_is_left_out():
    table = frame(n=12).drop(index=12 + 10)
    with pytest.warns(UserWarning, match="1 windows are left out for gaps"):
        X = window(table, **GAPPY, last=True)
    assert_array_equal(X[:, 0], [[9, 10, 11]])
    # The gap lies in the plan alone: it breaks what is known beforehand.
    table = frame(n=12, sites=["a"]).drop(index=10)
    table.loc[9:, "load"] = np.nan
    assert window(table, **GAPPY, last=True).shape == (1, 2, 3)
    with pytest.raises(ValueError, match=r"no window without a gap.*rows of missing values"):
        window(table, **GAPPY | {"features": []}, known_future=["wind"], last=True)


def dated(when):
    return pd.DataFrame({"when": when, "load": np.arange(float(len(when)))})


BERLIN = {"tz": "Europe/Berlin"}
CALENDARS = {
    "months": pd.date_range("2020-01-01", periods=40, freq="MS"),
    "ends of months": pd.date_range("2020-01-31", periods=40, freq="ME"),
    "months of a time zone": pd.date_range("2020-01-01", periods=40, freq="MS", **BERLIN),
    "quarters": pd.date_range("2020-01-01", periods=40, freq="QS"),
    "years": pd.date_range("1980-01-01", periods=40, freq="YS"),
    "halves of months": pd.date_range("2020-01-01", periods=40, freq="SMS"),
    "hours over daylight saving": pd.date_range("2024-03-30", periods=60, freq="h", **BERLIN),
    "days over daylight saving": pd.date_range("2024-03-20", periods=40, freq="D", **BERLIN),
    "jitter": pd.date_range("2024-01-01", periods=40, freq="h") + pd.to_timedelta(np.arange(40) * 7 % 11, "min"),
    "numbered months": np.array([202000 + 100 * (i // 12) + i % 12 + 1 for i in range(40)]),
    "numbered days": pd.date_range("2024-01-15", periods=40).strftime("%Y%m%d").astype(int),
    "seconds": np.arange(40) * 0.1,
}


@pytest.mark.parametrize("kind", [lambda f: f, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize("when", CALENDARS.values(), ids=CALENDARS)
def test_calendars_have_no_gaps_but_where_a_step_is_missing(kind, when):
    table = dated(when)
    X, _ = window(kind(table), target="load", lags=3, time="when")
    assert len(X) == len(table) - 3
    with pytest.warns(UserWarning, match="3 windows are left out"):
        window(kind(table.drop(index=20)), target="load", lags=3, time="when")


@pytest.mark.parametrize("share", [0.05, 0.25, 0.4, 0.6])
def test_rows_that_are_missing_are_gaps_however_many_they_are(share):
    when = pd.date_range("2026-01-01", periods=1000, freq="30min")
    places = np.flatnonzero(np.random.default_rng(0).random(1000) >= share)
    with pytest.warns(UserWarning, match="windows are left out for gaps"):
        X, _ = window(dated(when).iloc[places], target="load", lags=2, time="when")
    assert len(X) == ((places[1:-1] - places[:-2] == 1) & (places[2:] - places[1:-1] == 1)).sum()


@pytest.mark.parametrize("tz", [None, "Europe/Berlin", "America/New_York"])
def test_days_off_and_steps_of_no_rule_are_no_gaps(tz):
    holidays = pd.date_range("2024-01-01", periods=60, freq="B", tz=tz).delete([20, 33])
    events = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.cumsum([1, 2, 4, 7, 3] * 8), "h")
    for when in (holidays, events):
        assert len(window(dated(when), target="load", lags=6, time="when")[0]) == len(when) - 6


def test_each_series_has_its_own_step():
    hours, days = CALENDARS["hours over daylight saving"], CALENDARS["days over daylight saving"]
    table = pd.concat([dated(hours).assign(site="a"), dated(days).assign(site="b")])
    assert len(window(table, target="load", lags=4, by="site", time="when")[0]) == 60 + 40 - 8


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda f: f, {"lags": 20}, "No series has 20 lags.*Lower lags"),
        (lambda f: f, {"lags": 0}, "lags must be an integer"),
        (lambda f: f, {"horizon": 1.5}, "horizon must be an integer"),
        (lambda f: f, {"target": "power"}, r"no column 'power'\. The columns are"),
        (lambda f: f.set_index("when"), {}, r"no column 'when'.*pass frame.reset_index\(\)"),
        (lambda f: f, {"target": None}, "target must name the column"),
        (lambda f: f, {"target": "site", "by": None, "time": None}, "categorical.*encode it"),
        (lambda f: f, {"time": "site", "by": None}, "holds text.*pandas.to_datetime"),
        (lambda f: f, {"horizon": 5, "known_future": ["wind"]}, "Set lags to at least 5"),
        (
            lambda f: f,
            {"by": None},
            "occurs twice among the rows. Name the column that tells the series apart with by=",
        ),
        (lambda f: f.iloc[::-1], {}, "of series 'a' do not rise. Sort the rows"),
        (lambda f: f.iloc[[0, 0, *range(1, 16)]], {}, "occurs twice among the rows of series 'a'.*by="),
        (lambda f: f.assign(when=f["when"].where(f.index > 0)), {}, "missing time stamps"),
        (lambda f: f, {"last": True, "known_future": ["wind"]}, "Append those rows"),
        (lambda f: f.drop(index=[4, 12]), {}, "no window without a gap.*rows of missing values"),
        (lambda f: f, {"static": "size"}, r"Use static=\['size'\]"),
        (lambda f: f, {"target": ["load", "wind"]}, "target must name one column"),
        (lambda f: f, {"by": ["site", "size"]}, "by must name one column"),
        (lambda f: f, {"time": ["when", "size"]}, "time must name one column"),
        (lambda f: f, {"known_future": ["load"]}, "The target 'load' is not known beforehand"),
        (lambda f: f.assign(site=f["site"].where(f.index > 0)), {}, "'site' is missing in 1 rows"),
        (lambda f: f.assign(size=f["size"].where(f.index > 0)), {"by": "size"}, "'size' is missing in 1 rows"),
        (lambda f: pd.concat([f, f[["load"]]], axis=1), {}, "names must be unique"),
        (lambda f: np.full((9, 1), np.inf), {"target": 0, "by": None, "time": None}, "contains infinity"),
        (lambda f: np.zeros((2, 2, 2)), {"target": 0, "by": None, "time": None}, "Pass a DataFrame"),
    ],
)
def test_tables_that_are_refused(change, settings, message):
    settings = {"target": "load", "lags": 3, "horizon": 2, "by": "site", "time": "when"} | settings
    with pytest.raises(ValueError, match=message):
        window(change(frame()), **settings)


def test_a_lazy_frame_is_refused():
    with pytest.raises(TypeError, match="collect"):
        window(pl.from_pandas(frame()).lazy(), target="load", lags=3)
