"""Windows of long tables."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
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


def test_all_columns_of_numbers_without_a_part_are_channels():
    (series, table), _ = window(frame(), target="load", lags=3, by="site", time="when", static=["size"])
    assert series.shape == (10, 3, 3) and list(table.columns) == ["size"]
    assert_array_equal(table["size"][:4], [10, 20, 10, 20])


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


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda f: f, {"lags": 20}, "No series has 20 lags.*Lower lags"),
        (lambda f: f, {"lags": 0}, "lags must be an integer"),
        (lambda f: f, {"horizon": 1.5}, "horizon must be an integer"),
        (lambda f: f, {"target": "power"}, r"no column 'power'\. The columns are"),
        (lambda f: f, {"target": None}, "target must name the column"),
        (lambda f: f, {"target": "site", "by": None, "time": None}, "categorical.*encode it"),
        (lambda f: f, {"time": "site", "by": None}, "holds text.*pandas.to_datetime"),
        (lambda f: f, {"horizon": 5, "known_future": ["wind"]}, "Set lags to at least 5"),
        (lambda f: f, {"by": None}, "do not rise|occurs twice"),
        (lambda f: f.iloc[::-1], {}, "of series 'a' do not rise. Sort the rows"),
        (lambda f: f.iloc[[0, 0, *range(1, 16)]], {}, "occurs twice among the rows of series 'a'.*by="),
        (lambda f: f.assign(when=f["when"].where(f.index > 0)), {}, "missing time stamps"),
        (lambda f: f, {"last": True, "known_future": ["wind"]}, "Append those rows"),
        (lambda f: f, {"static": "size"}, r"Use static=\['size'\]"),
        (lambda f: f, {"by": ["site", "size"]}, "by must name one column"),
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
