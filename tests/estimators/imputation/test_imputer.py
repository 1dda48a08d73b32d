"""Imputation of missing cells."""

import datetime
import decimal
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from torch.nn.utils import parameters_to_vector

import skdl
from skdl import DeepImputer
from skdl.closed_form import gaussian as gaussian_module
from skdl.datasets import load_penguins
from skdl.estimators.imputation import imputer as imputer_module
from skdl.estimators.imputation.holes import HoleFiller

QUICK = {"hidden_layer_sizes": (8,), "max_epochs": 1, "random_state": 0}


@pytest.fixture
def gaussian_table():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(6, 6))
    covariance = factors @ factors.T / 6 + 0.2 * np.eye(6)
    x = rng.multivariate_normal(np.arange(6.0), covariance, size=3000)
    return x, np.where(rng.random(x.shape) < 0.3, np.nan, x), covariance


def test_gaussian_when_data_is_gaussian_then_error_is_that_of_the_true_mean(gaussian_table):
    x, holes, covariance = gaussian_table
    seen, new = slice(2000), slice(2000, None)
    completed = DeepImputer(strategy="gaussian", clip=False).fit(holes[seen]).transform(holes[new])
    true = np.array(x[new])
    mean = np.arange(6.0)
    for row, cells in zip(true, holes[new], strict=True):
        m, o = np.isnan(cells), ~np.isnan(cells)
        row[m] = mean[m] + covariance[np.ix_(m, o)] @ np.linalg.solve(covariance[np.ix_(o, o)], row[o] - mean[o])
    is_hidden = np.isnan(holes[new])
    error, best = (np.sqrt(np.mean((table - x[new])[is_hidden] ** 2)) for table in (completed, true))
    assert error <= 1.01 * best


def test_deep_when_a_column_is_the_square_of_another_then_it_is_found():
    rng = np.random.default_rng(0)
    a = rng.uniform(-2, 2, size=1500)
    x = np.stack([a, a**2], axis=1)
    holes = x.copy()
    holes[rng.random(1500) < 0.3, 1] = np.nan
    is_hidden = np.isnan(holes[:, 1])
    error = {
        strategy: np.sqrt(
            np.mean((DeepImputer(strategy=strategy, random_state=0).fit_transform(holes) - x)[is_hidden, 1] ** 2)
        )
        for strategy in ("deep", "gaussian")
    }
    assert error["deep"] < 0.15 * error["gaussian"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_transform_when_frames_are_mixed_then_present_cells_and_types_stay(library):
    X, _ = load_penguins(as_frame=True, return_X_y=True)
    X = X.astype({"island": "category"})
    X.loc[3:20:4, "island"] = np.nan
    given = pytest.importorskip("polars").from_pandas(X) if library == "polars" else X
    completed = DeepImputer(**QUICK).fit(given).transform(given)
    assert type(completed) is type(given)
    completed = completed.to_pandas() if library == "polars" else completed
    assert not completed.isna().any().any()
    assert completed["island"].dtype == "category"
    for column in X:
        present = X[column].notna()
        assert (completed.loc[present, column].astype(object) == X.loc[present, column].astype(object)).all()


def test_transform_when_rows_come_alone_then_nothing_changes(gaussian_table):
    _, holes, _ = gaussian_table
    imputer = DeepImputer(**QUICK).fit(holes)
    together = imputer.transform(holes[:50])
    alone = np.vstack([imputer.transform(holes[i : i + 1]) for i in range(50)])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(imputer)).transform(holes[:50]), together)


def test_fit_when_a_column_is_empty_then_it_warns_of_leaving_it_out():
    x = np.random.default_rng(0).normal(size=(30, 3))
    x[:, 1] = np.nan
    with pytest.warns(UserWarning, match=r"left out: \[1\]. Set keep_empty_features=True"):
        DeepImputer(**QUICK).fit(x)


def test_fit_when_all_cells_are_missing_then_it_says_so():
    with pytest.raises(ValueError, match="all of its cells are missing"):
        DeepImputer().fit(np.full((5, 2), np.nan))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_types_of_integers_do_not_depend_on_the_rows(library):
    cells = {"n": [1, 2, None, 4] * 10, "whole": list(range(40)), "z": np.linspace(0, 1, 40)}
    X = pl.DataFrame(cells) if library == "polars" else pd.DataFrame(cells).astype({"n": "Int64", "whole": "Int64"})
    imputer = DeepImputer(**QUICK).fit(X)
    whole, complete = imputer.transform(X), imputer.transform(X[:2])
    assert list(whole.dtypes) == list(complete.dtypes)
    assert "loat64" in str(complete["n"].dtype) and "nt64" in str(complete["whole"].dtype)
    assert complete["n"].to_list() == [1, 2]
    rounded = clone(imputer).set_params(round_integers=True).fit(X)
    assert "nt64" in str(rounded.transform(X)["n"].dtype) and "nt64" in str(rounded.transform(X[:2])["n"].dtype)


def test_integers_beyond_floats_stay_integers_whatever_the_rows():
    X = pl.DataFrame({"n": [2**60 + 1, 2, None, 4] * 10, "z": np.linspace(0, 1, 40)})
    imputer = DeepImputer(**QUICK).fit(X)
    for rows in (X, X[1:2], X[1:4]):
        assert imputer.transform(rows)["n"].dtype == pl.Int64


def test_round_integers_keeps_an_integer_column():
    X = pd.DataFrame({"n": pd.array([1, None, 3, 4] * 10, dtype="Int64"), "z": np.arange(40.0)})
    assert DeepImputer(**QUICK, round_integers=True).fit_transform(X)["n"].dtype == "Int64"
    assert DeepImputer(**QUICK).fit_transform(X)["n"].dtype == "Float64"


def test_sample_is_reproducible_and_spread_as_the_truth(gaussian_table):
    x, holes, _ = gaussian_table
    imputer = DeepImputer(strategy="gaussian", clip=False).fit(holes[:2000])
    new = holes[2000:2300]
    draws = np.stack(imputer.sample(new, 100, random_state=0))
    np.testing.assert_array_equal(imputer.sample(new, 2, random_state=0)[1], draws[1])
    is_hidden = np.isnan(new)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = ((x[2000:2300] >= low) & (x[2000:2300] <= high))[is_hidden].mean()
    assert 0.87 <= inside <= 0.93
    assert (draws.min(axis=0) == draws.max(axis=0))[~is_hidden].all()
    assert (imputer.imputation_std(new)[~is_hidden] == 0).all()


@pytest.mark.parametrize("strategy", ["gaussian", "deep"])
def test_tables_of_a_sample_differ_as_the_rows_of_fit_allow(strategy):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    imputer = DeepImputer(**QUICK, strategy=strategy, clip=False).fit(x)
    new = rng.normal(size=(2000, 3))
    new[:, 0] = np.nan
    means = [table[:, 0].mean() for table in imputer.sample(new, 200, random_state=0)]
    # Had all tables the same mean, that of so many rows would vary by a fiftieth of a standard deviation.
    assert 0.5 < np.std(means) / (x[:, 0].std() / np.sqrt(len(x))) < 2


@pytest.mark.parametrize(("n_rows", "n_columns"), [(60, 20), (60, 40)])
def test_sample_when_columns_are_not_few_against_rows_then_intervals_cover(n_rows, n_columns):
    inside = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n_rows + 200, 3)) @ rng.normal(size=(3, n_columns))
        x += rng.normal(size=x.shape)
        imputer = DeepImputer(strategy="gaussian", clip=False).fit(x[:n_rows])
        new, truth = x[n_rows:].copy(), x[n_rows:, 0]
        new[:, 0] = np.nan
        low, high = np.quantile([table[:, 0] for table in imputer.sample(new, 100, random_state=0)], [0.05, 0.95], 0)
        inside.append(((truth >= low) & (truth <= high)).mean())
        distance = np.abs(imputer.transform(new)[:, 0] - truth) / imputer.imputation_std(new)[:, 0]
        inside.append((distance < 1.645).mean())
    # The Gaussian fits these rows closely, and by their residuals intervals would cover 0.8 and 0.7 of other rows.
    assert 0.86 <= np.mean(inside) <= 0.94


def test_sample_when_a_column_has_few_cells_then_as_uncertain_as_they_leave_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 3))
    x[:, 2] = x[:, 0] + 0.5 * x[:, 2]
    x[25:, 2] = np.nan
    tables = DeepImputer(strategy="gaussian", clip=False).fit(x).sample(x, 200, random_state=0)
    # The mean of a regression on 25 rows, whose residuals the prior of two rows makes a little larger.
    assert np.std([table[25:, 2].mean() for table in tables]) == pytest.approx(0.5 / np.sqrt(25), rel=0.4)


def test_sample_when_rows_are_many_then_as_uncertain_as_those_that_are_learned_from():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30_000, 2))
    imputer = DeepImputer(strategy="gaussian", clip=False).fit(x)
    new = np.column_stack([np.full(30_000, np.nan), np.zeros(30_000)])
    means = [table[:, 0].mean() for table in imputer.sample(new, 100, random_state=0)]
    # 6,000 rows, and the draws themselves.
    assert np.std(means) == pytest.approx(np.sqrt(1 / 6000 + 1 / 30_000), rel=0.25)


def test_pipeline_with_a_classifier(gaussian_table):
    x, holes, _ = gaussian_table
    model = make_pipeline(DeepImputer(**QUICK), LogisticRegression()).fit(holes[:500], x[:500, 0] > 0)
    assert model.score(holes[500:800], x[500:800, 0] > 0) > 0.8


# --- oracles -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["gaussian", "deep"])
def quick(request):
    """Makes an imputer of each strategy that is fitted in an instant."""
    return lambda **settings: DeepImputer(**QUICK | {"strategy": request.param} | settings)


@pytest.fixture
def numbers():
    """Rows of correlated numbers, of very different columns."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 4)) + 0.1 * rng.normal(size=(120, 4))
    x = x * [1, 1e-3, 1e4, 1] + [0, 0, 5e4, -3]
    return np.where(rng.random(x.shape) < 0.2, np.nan, x)


def conditional(row, covariance, mean):
    """Mean and covariance of a row's missing cells."""
    m, o = np.isnan(row), ~np.isnan(row)
    weights = np.linalg.solve(covariance[np.ix_(o, o)], covariance[np.ix_(o, m)]).T
    return mean[m] + weights @ (row[o] - mean[o]), covariance[np.ix_(m, m)] - weights @ covariance[np.ix_(o, m)]


def test_deep_when_data_is_gaussian_then_error_is_almost_that_of_the_true_mean(gaussian_table):
    x, holes, covariance = gaussian_table
    imputer = DeepImputer(clip=False, random_state=0, n_members=2, max_epochs=8).fit(holes[:2000])
    completed, best = imputer.transform(holes[2000:]), x[2000:].copy()
    for true, row in zip(best, holes[2000:], strict=True):
        true[np.isnan(row)] = conditional(row, covariance, np.arange(6.0))[0]
    is_hidden = np.isnan(holes[2000:])
    error, least = (np.sqrt(np.mean((table - x[2000:])[is_hidden] ** 2)) for table in (completed, best))
    # A correction that held-out rows of noise let through costs more than the estimation of the covariance does.
    assert error <= 1.02 * least


def test_transform_when_columns_are_independent_then_the_mean(quick):
    x = np.random.default_rng(0).normal(5, 2, size=(2000, 4))
    x[::3, 1] = np.nan
    completed = quick().fit_transform(x)
    away = (completed[::3, 1] - np.nanmean(x[:, 1])) / 2
    # Three correlations that are not there have a root sum of squares of about sqrt(3 / 1333) = 0.05.
    assert np.sqrt(np.mean(away**2)) < 0.1


def test_deep_when_network_has_learned_nothing_then_gaussian(numbers, monkeypatch):
    # Both with the same prior, which "deep" looks for otherwise.
    monkeypatch.setattr(gaussian_module, "PRIORS", (gaussian_module.usual_prior(*numbers.shape),))
    imputer = DeepImputer(**QUICK, learning_rate=1e-12).fit(numbers)
    gaussian = DeepImputer(strategy="gaussian", random_state=0).fit(numbers)
    np.testing.assert_allclose(imputer.transform(numbers), gaussian.transform(numbers), rtol=1e-5)


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")])
def test_warm_start_when_precision_changes_then_goes_on(numbers, dtypes):
    imputer = DeepImputer(**QUICK, warm_start=True, dtype=dtypes[0]).fit(numbers)
    n_steps = imputer.t_
    imputer.set_params(dtype=dtypes[1]).fit(numbers)
    assert imputer.t_ == 2 * n_steps
    assert np.isfinite(imputer.transform(numbers)).all()


def test_warm_start_when_members_become_auto_then_as_many_go_on(numbers):
    imputer = DeepImputer(**QUICK, n_members=2, warm_start=True).fit(numbers)
    assert len(imputer.set_params(n_members="auto").fit(numbers).network_.members) == 2


def test_fit_when_strategy_becomes_gaussian_then_no_history_is_left(numbers):
    imputer = DeepImputer(**QUICK).fit(numbers)
    assert imputer.n_iter_ == 1 and len(imputer.history_) == 1
    imputer.set_params(strategy="gaussian").fit(numbers)
    assert imputer.n_iter_ == 0 and len(imputer.history_) == 0 and imputer.loss_curve_ == []


def test_fit_when_early_stopping_is_numpys_true_then_it_stops_early(numbers):
    imputer = DeepImputer(**QUICK, early_stopping=np.True_).fit(numbers)
    assert np.isfinite(imputer.history_["validation_loss"]).all()


@pytest.mark.parametrize("batch_size", [2**11, 2**40])
def test_fit_when_batches_are_larger_than_an_epoch_then_no_more_steps(numbers, batch_size):
    settings = QUICK | {"max_epochs": "auto", "n_members": 1}
    # An epoch has at least 2,048 rows: here it is one step.
    imputer = DeepImputer(**settings, batch_size=batch_size, validation_fraction=0.5).fit(numbers)
    assert 300 <= imputer.n_iter_ <= 310


def test_fit_when_no_row_is_left_to_train_on_then_error(numbers):
    with pytest.raises(ValueError, match=r"validation_fraction=0.999 leaves no rows.*n_samples=120"):
        DeepImputer(**QUICK, validation_fraction=0.999).fit(numbers)


def test_warm_start_when_seed_is_none_then_the_same_rows_are_held_out(numbers, monkeypatch):
    seen, held_out = [], imputer_module.held_out_by_members
    monkeypatch.setattr(imputer_module, "held_out_by_members", lambda *given: seen.append(held_out(*given)) or seen[-1])
    imputer = DeepImputer(**QUICK | {"random_state": None}, warm_start=True).fit(numbers).fit(numbers)
    assert all(torch.equal(*rows) for rows in zip(*seen, strict=True))
    imputer.set_params(warm_start=False).fit(numbers)
    assert not torch.equal(seen[0][0], seen[2][0])


# --- present cells -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_transform_when_cells_are_present_then_bit_equal(quick, dtype):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(dtype)
    x[:6, 0] = [-0.0, np.finfo(dtype).tiny / 2, np.finfo(dtype).max / 1e10, 0.1, -1e-30, 1 / 3]
    x[::4, 1], x[1::4, 2] = np.nan, np.nan
    completed = quick().fit_transform(x)
    bits = {np.float64: np.int64, np.float32: np.int32}[dtype]
    present = ~np.isnan(x)
    assert completed.dtype == dtype and np.isfinite(completed).all()
    np.testing.assert_array_equal(completed.view(bits)[present], x.view(bits)[present])


@pytest.mark.parametrize("order", ["C", "F"])
def test_fit_and_transform_when_array_is_given_then_it_is_left_as_it_is(quick, numbers, order):
    given = np.array(numbers, order=order)
    imputer = quick(missing_values=0.0).fit(given)
    completed = imputer.transform(given)
    imputer.sample(given, 2, random_state=0)
    imputer.score(given)
    np.testing.assert_array_equal(given, numbers)
    assert not np.shares_memory(completed, given)


def test_transform_when_nothing_is_missing_then_a_copy(quick, numbers):
    full = np.nan_to_num(numbers)
    completed = quick().fit(numbers).transform(full)
    np.testing.assert_array_equal(completed, full)
    assert not np.shares_memory(completed, full)


N_ROWS = 40
DAY = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
TIMES = [DAY + datetime.timedelta(hours=7 * i) for i in range(N_ROWS)]
SPANS = [datetime.timedelta(minutes=i, microseconds=1) for i in range(N_ROWS)]
TEXT = ["low", "mid", "high", "mid"] * 10
UTC = datetime.UTC


def holes(cells):
    return [None if i % 5 == 3 else cell for i, cell in enumerate(cells)]


PANDAS = {
    "float64": pd.Series(holes(np.sqrt(np.arange(N_ROWS)).tolist()), dtype="float64"),
    "float32": pd.Series(holes(np.sqrt(np.arange(N_ROWS)).tolist()), dtype="float32"),
    "float16": pd.Series(holes(np.sqrt(np.arange(N_ROWS)).tolist()), dtype="float16"),
    "Float32": pd.Series(holes(np.sqrt(np.arange(N_ROWS)).tolist()), dtype="Float32"),
    "object of numbers": pd.Series(holes(range(N_ROWS)), dtype=object),
    "object of days": pd.Series(holes([moment.date() for moment in TIMES]), dtype=object),
    "object of aware times": pd.Series(holes([time.astimezone(datetime.UTC) for time in TIMES]), dtype=object),
    "object of durations": pd.Series(holes(SPANS), dtype=object),
    "double[pyarrow]": pd.Series(holes(np.sqrt(np.arange(N_ROWS)).tolist()), dtype="double[pyarrow]"),
    "boolean": pd.Series(holes([True, False] * 20), dtype="boolean"),
    "object of booleans": pd.Series(holes([True, False] * 20), dtype=object),
    "str": pd.Series(holes(TEXT)),
    "string": pd.Series(holes(TEXT), dtype="string"),
    "object of text": pd.Series(holes(TEXT), dtype=object),
    "category": pd.Series(holes(TEXT), dtype="category"),
    "ordered": pd.Series(holes(TEXT), dtype=pd.CategoricalDtype(["low", "mid", "high", "never"], ordered=True)),
    "category of numbers": pd.Series(holes([3, 1, 2, 1] * 10), dtype=pd.CategoricalDtype([1, 2, 3])),
    "datetime64[us]": pd.Series(pd.to_datetime(holes(TIMES))).astype("datetime64[us]"),
    "datetime64[ns]": pd.Series(pd.to_datetime(holes(TIMES))).astype("datetime64[ns]") + pd.Timedelta(7, "ns"),
    "aware": pd.Series(pd.to_datetime(holes(TIMES))).dt.tz_localize("Europe/Paris"),
    "aware of a zone with other signs": pd.Series(pd.to_datetime(holes(TIMES))).dt.tz_localize("America/New_York"),
    "timedelta64[us]": pd.Series(pd.to_timedelta(holes(SPANS))).astype("timedelta64[us]"),
}
POLARS = {
    "Float64": pl.Series(holes(np.sqrt(np.arange(N_ROWS)).tolist())),
    "Float32": pl.Series(holes(np.sqrt(np.arange(N_ROWS)).tolist()), dtype=pl.Float32),
    "Float64 with NaN": pl.Series([np.nan if i % 5 == 3 else i / 3 for i in range(N_ROWS)]),
    "Decimal": pl.Series(holes([decimal.Decimal(i) / 4 for i in range(N_ROWS)]), dtype=pl.Decimal(10, 2)),
    "Boolean": pl.Series(holes([True, False] * 20)),
    "String": pl.Series(holes(TEXT)),
    "Categorical": pl.Series(holes(TEXT), dtype=pl.Categorical),
    "Enum": pl.Series(holes(TEXT), dtype=pl.Enum(["low", "mid", "high", "never"])),
    "Date": pl.Series(holes([time.date() for time in TIMES])),
    "Datetime": pl.Series(holes(TIMES)),
    "Datetime[ms]": pl.Series(holes(TIMES), dtype=pl.Datetime("ms")),
    "aware": pl.Series(holes(TIMES)).dt.replace_time_zone("Europe/Paris"),
    "Duration": pl.Series(holes(SPANS)),
    "Duration[ms]": pl.Series(holes(SPANS), dtype=pl.Duration("ms")),
    "Object of numbers": pl.Series(holes(range(N_ROWS)), dtype=pl.Object),
    "Object of text": pl.Series(holes(TEXT), dtype=pl.Object),
}
COLUMNS = [pytest.param(series, id=f"pandas {name}") for name, series in PANDAS.items()]
COLUMNS += [pytest.param(series, id=f"polars {name}") for name, series in POLARS.items()]


def frame_with(series):
    if isinstance(series, pl.Series):
        return pl.DataFrame({"c": series, "z": np.arange(float(N_ROWS))})
    return pd.DataFrame({"c": series, "z": np.arange(float(N_ROWS))})


def is_missing(cell):
    return cell is None or cell is pd.NA or cell is pd.NaT or cell != cell


@pytest.mark.parametrize("series", COLUMNS)
def test_transform_when_column_is_of_a_frame_then_type_and_present_cells_stay(quick, series):
    X = frame_with(series)
    completed = quick().fit(X).transform(X)
    assert type(completed) is type(X) and completed["c"].dtype == series.dtype
    before, after = series.to_list(), completed["c"].to_list()
    missing = [is_missing(cell) for cell in before]
    assert sum(missing) == N_ROWS // 5 and not any(is_missing(cell) for cell in after)
    assert [cell for cell, hole in zip(after, missing, strict=True) if not hole] == [
        cell for cell, hole in zip(before, missing, strict=True) if not hole
    ]
    assert completed["z"].to_list() == X["z"].to_list()
    # Without clipping numbers there is nothing that a level or a date may be beyond either.
    assert min(after) >= min(cell for cell in before if not is_missing(cell))


@pytest.mark.parametrize("series", COLUMNS)
def test_sample_when_column_is_of_a_frame_then_type_and_present_cells_stay(series):
    X = frame_with(series)
    (drawn,) = DeepImputer(strategy="gaussian").fit(X).sample(X, 1, random_state=0)
    assert drawn["c"].dtype == series.dtype
    pairs = list(zip(drawn["c"].to_list(), series.to_list(), strict=True))
    assert not any(is_missing(cell) for cell, _ in pairs)
    assert all(cell == before for cell, before in pairs if not is_missing(before))


@pytest.mark.parametrize(
    ("series", "error"),
    [
        (PANDAS["datetime64[us]"], datetime.timedelta(hours=3)),
        (PANDAS["aware"], datetime.timedelta(hours=3)),
        (POLARS["Datetime"], datetime.timedelta(hours=3)),
        (POLARS["aware"], datetime.timedelta(hours=3)),
        (PANDAS["timedelta64[us]"], datetime.timedelta(minutes=0.5)),
        (POLARS["Duration"], datetime.timedelta(minutes=0.5)),
    ],
    ids=["pandas", "pandas aware", "polars", "polars aware", "pandas duration", "polars duration"],
)
def test_transform_when_dates_follow_another_column_then_they_are_found(series, error):
    X = frame_with(series)
    after = DeepImputer(strategy="gaussian").fit_transform(X)["c"].to_list()
    true = SPANS if isinstance(after[0], datetime.timedelta) else TIMES
    away = [
        abs(a.replace(tzinfo=None) - t if isinstance(t, datetime.datetime) else a - t)
        for a, t in zip(after, true, strict=True)
    ]
    # The prior's five rows against 32 draw 7 % towards the middle; half the way between two rows is less.
    assert np.mean(away) < error


@pytest.mark.parametrize(("naive", "aware"), [("datetime64[us]", "aware"), ("datetime64[us]", "object of aware times")])
def test_transform_when_dates_gain_or_lose_a_time_zone_then_refused(naive, aware):
    naive, aware = frame_with(PANDAS[naive]), frame_with(PANDAS[aware])
    with pytest.raises(ValueError, match=r"Column 'c' has stamps without a time zone.*tz_localize"):
        DeepImputer(strategy="gaussian").fit(aware).transform(naive)
    with pytest.raises(ValueError, match=r"Column 'c' has stamps with a time zone.*tz_convert"):
        DeepImputer(strategy="gaussian").fit(naive).transform(aware)


def test_transform_when_levels_are_of_another_type_then_refused():
    X = pd.DataFrame({"c": pd.Categorical([1, 2, None] * 8), "d": np.arange(24.0)})
    imputer = DeepImputer(strategy="gaussian").fit(X)
    with pytest.raises(ValueError, match="'c' has levels that are text, but those of fit were numbers"):
        imputer.transform(X.assign(c=X["c"].astype(str).astype("category")))
    assert imputer.transform(X.assign(c=pd.Categorical([None] * 24, categories=["1"])))["c"].isin([1, 2]).all()


def test_transform_when_dates_are_of_another_time_zone_then_same_moments():
    X = frame_with(PANDAS["aware"])
    imputer = DeepImputer(strategy="gaussian").fit(X)
    elsewhere = X.assign(c=X["c"].dt.tz_convert("America/Lima"))
    completed = imputer.transform(elsewhere)["c"]
    assert completed.dtype == elsewhere["c"].dtype
    assert (completed == imputer.transform(X)["c"]).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("rounds", [True, False])
def test_transform_when_integers_have_holes_then_integers_if_rounded(quick, library, rounds):
    cells = holes(range(0, 3 * N_ROWS, 3))
    series = pd.Series(cells, dtype="Int64") if library == "pandas" else pl.Series(cells)
    X = frame_with(series)
    completed = quick(round_integers=rounds).fit_transform(X)
    after = completed["c"].to_list()
    assert (completed["c"].dtype == series.dtype) == rounds
    assert all(cell == before for cell, before in zip(after, cells, strict=True) if before is not None)
    assert all(float(cell).is_integer() for cell in after) or not rounds
    assert completed["z"].dtype == X["z"].dtype


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_transform_when_integers_are_beyond_float_then_rounded_ones_stay(library):
    cells = holes([2**60 + i for i in range(N_ROWS)])
    X = frame_with(pd.Series(cells, dtype="Int64") if library == "pandas" else pl.Series(cells))
    after = DeepImputer(strategy="gaussian", round_integers=True).fit_transform(X)["c"].to_list()
    assert all(cell == before for cell, before in zip(after, cells, strict=True) if before is not None)


@pytest.mark.parametrize("rounds", [True, False])
@pytest.mark.parametrize(
    "series",
    [
        pd.Series(holes([2**60 + i for i in range(N_ROWS)]), dtype="Int64"),
        pd.Series(holes([2**63 - 1 - i for i in range(N_ROWS)]), dtype="Int64"),
        pl.Series(holes([2**60 + i for i in range(N_ROWS)])),
        pl.Series(holes([2**64 - 1 - i for i in range(N_ROWS)]), dtype=pl.UInt64),
        pl.Series(holes([2**100 + i for i in range(N_ROWS)]), dtype=pl.Int128),
    ],
    ids=["Int64", "largest Int64", "polars Int64", "largest polars UInt64", "polars Int128"],
)
def test_transform_when_integers_are_not_the_same_as_floats_then_they_stay(series, rounds):
    X = frame_with(series)
    completed = DeepImputer(strategy="gaussian", round_integers=rounds).fit_transform(X)["c"]
    assert completed.dtype == series.dtype
    pairs = list(zip(completed.to_list(), series.to_list(), strict=True))
    assert all(cell == before for cell, before in pairs if not is_missing(before))
    assert all(abs(cell - int(float(pairs[0][0]))) < 1e-9 * cell for cell, before in pairs if is_missing(before))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_transform_when_rounded_integer_does_not_fit_its_type_then_an_answer(library):
    cells = [None if i < 10 else i for i in range(N_ROWS)]
    X = frame_with(pd.Series(cells, dtype="UInt8") if library == "pandas" else pl.Series(cells, dtype=pl.UInt8))
    new = X.head(1).assign(z=-900.0) if library == "pandas" else X.head(1).with_columns(z=pl.lit(-900.0))
    completed = DeepImputer(strategy="gaussian", round_integers=True, clip=False).fit(X).transform(new)
    assert completed["c"].to_list()[0] < -100


def test_transform_when_column_is_a_mixture_then_present_cells_stay(quick):
    cells = np.array(["a", 1, None, 1.5] * 10, dtype=object)
    after = quick().fit_transform(pd.DataFrame({"c": cells, "z": np.arange(40.0)}))["c"].tolist()
    assert [type(cell) for cell in after[:2]] == [str, int]
    assert [after[i] for i in range(40) if i % 4 != 2] == [cells[i] for i in range(40) if i % 4 != 2]
    assert not any(is_missing(cell) for cell in after)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_transform_when_column_is_a_mixture_then_imputed_with_the_most_frequent_value_of_a_text(library):
    cells = [4, "a", 4.0, 4, None, 4, 4.5, None] * 5
    series = pd.Series(cells, dtype=object) if library == "pandas" else pl.Series(cells, dtype=pl.Object)
    imputer = DeepImputer(strategy="gaussian").fit(frame_with(series))
    tables = [imputer.transform(frame_with(series)), *imputer.sample(frame_with(series), 3, random_state=0)]
    imputed = [table["c"].to_list()[i] for table in tables for i in range(N_ROWS) if cells[i] is None]
    assert {type(cell) for cell in imputed if cell == 4} == {int}
    assert set(imputed) <= {4, "a", 4.5} and len(set(imputed)) > 1


@pytest.mark.parametrize("new", [[4.5, np.nan, 4.0], ["a", None, "b"], [np.nan] * 3], ids=["numbers", "text", "none"])
def test_transform_when_mixture_looks_otherwise_then_imputed_all_the_same(new):
    mixture = pd.Series([4, "a", None, 4] * 10, dtype=object)
    X = pd.DataFrame({"c": new, "z": np.arange(3.0)})
    after = DeepImputer(strategy="gaussian").fit(frame_with(mixture)).transform(X)["c"].tolist()
    assert after[1] in (4, "a") and not any(is_missing(cell) for cell in after)
    assert [after[i] for i in (0, 2)] == new[::2] or is_missing(new[0])


def test_transform_when_column_is_sparse_then_dense(quick):
    dense = pd.Series([np.nan if i % 5 == 3 else float(i % 3) for i in range(N_ROWS)])
    X = frame_with(dense.astype(pd.SparseDtype("float64", 0.0)))
    pd.testing.assert_frame_equal(quick().fit(X).transform(X), quick().fit_transform(frame_with(dense)))


# --- columns without a cell --------------------------------------------------------------------------------------

NOTHING = {
    "pandas": {"NaN": pd.Series([np.nan] * 2), "None": pd.Series([None] * 2, dtype=object)},
    "polars": {
        "Null": pl.Series([None] * 2),
        "Object": pl.Series([None] * 2, dtype=pl.Object),
        "String": pl.Series([None] * 2, dtype=pl.String),
    },
}
EMPTIED = [
    pytest.param(series, nothing, id=f"{library} {name} as {empty}")
    for library, columns in (("pandas", PANDAS), ("polars", POLARS))
    for name, series in columns.items()
    for empty, nothing in NOTHING[library].items()
    # Floats without a cell are numbers all the same, and the cells of objects what they would be as none.
    if not (empty == "NaN" and (series.dtype.kind == "f" or name == "object of numbers"))
    and not name.startswith("Object of")
]


def two_rows(column, index=None):
    cells = {"c": column, "z": [3.0, 20.0]}
    return pl.DataFrame(cells) if isinstance(column, pl.Series) else pd.DataFrame(cells).set_axis(index or [0, 1])


@pytest.mark.parametrize(("series", "nothing"), EMPTIED)
def test_transform_when_column_has_no_cell_then_it_has_its_type_of_fit(series, nothing):
    imputer = DeepImputer(strategy="gaussian").fit(frame_with(series))
    X = two_rows(nothing)
    for completed in (imputer.transform(X), *imputer.sample(X, 1, random_state=0)):
        assert completed["c"].dtype == series.dtype
        assert not any(is_missing(cell) for cell in completed["c"].to_list())


def test_transform_when_column_has_no_cell_then_index_is_kept(quick):
    completed = quick().fit(frame_with(PANDAS["str"])).transform(two_rows(pd.Series([np.nan] * 2), ["r", "r"]))
    assert completed.index.tolist() == ["r", "r"] and completed["c"].isin(TEXT).all()


@pytest.mark.parametrize("rounds", [True, False])
def test_transform_when_integers_have_no_cell_then_integers_if_rounded(rounds):
    imputer = DeepImputer(strategy="gaussian", round_integers=rounds).fit(frame_with(pl.Series(range(N_ROWS))))
    completed = imputer.transform(two_rows(pl.Series([None, None])))
    assert completed["c"].dtype == (pl.Int64 if rounds else pl.Float64)
    np.testing.assert_allclose(completed["c"], [3, 20], atol=1.5)


PANDAS_DAYS = pd.Series(pd.date_range("2024-01-01", periods=20)).where(np.arange(20) % 4 != 1)


@pytest.mark.parametrize(
    ("series", "new"),
    [
        (PANDAS_DAYS.dt.tz_localize("Europe/Berlin"), pd.to_datetime(pd.Series([None, None]))),
        (PANDAS_DAYS.astype("datetime64[ms]"), pd.to_datetime(pd.Series([None, None]))),
        (pd.Series([1, None, 3, 4] * 5, dtype="Int64"), pd.Series([np.nan, np.nan])),
        (pd.Series([0.5, None, 3, 4] * 5, dtype="Float32"), pd.Series([np.nan, np.nan])),
        (pl.Series([1, None, 3, 4] * 5, dtype=pl.Int8), pl.Series([None, None], dtype=pl.Float64)),
        (pl.Series([0.5, None, 3, 4] * 5).cast(pl.Decimal(10, 2)), pl.Series([None, None], dtype=pl.Float64)),
        (PANDAS_DAYS.dt.date.astype(object), pd.Series([None, None], dtype=object)),
    ],
    ids=["zone", "unit", "Int64", "Float32", "Int8", "decimal", "date objects"],
)
def test_transform_when_column_has_no_cell_then_the_very_type_of_fit(series, new):
    library = pd if isinstance(series, pd.Series) else pl
    imputer = DeepImputer(strategy="gaussian", round_integers=True)
    fitted = imputer.fit_transform(library.DataFrame({"c": series, "x": np.arange(20.0)}))["c"]
    completed = imputer.transform(library.DataFrame({"c": new, "x": [3.0, 4.0]}))["c"]
    assert completed.dtype == fitted.dtype
    assert type(completed[0]) is type(fitted[1])


@pytest.mark.parametrize(
    ("series", "new", "categories"),
    [
        (PANDAS["category"], pd.Series(pd.Categorical([None] * 2)), ["high", "low", "mid"]),
        (PANDAS["str"], pd.Series(pd.Categorical([None] * 2)), ["high", "low", "mid"]),
        (PANDAS["category"], pd.Series(pd.Categorical(["zzz", None])), ["zzz", "high", "low", "mid"]),
        (PANDAS["category of numbers"], pd.Series(pd.Categorical([7, None])), [7, 1, 2, 3]),
        (POLARS["Enum"], pl.Series(["zzz", None], dtype=pl.Enum(["zzz"])), ["zzz", "high", "low", "mid"]),
        (POLARS["Enum"], pl.Series([None, None], dtype=pl.Enum(["zzz", "low"])), ["zzz", "low", "high", "mid"]),
        (POLARS["String"], pl.Series([None, None], dtype=pl.Enum(["zzz"])), ["zzz", "high", "low", "mid"]),
    ],
    ids=["empty", "for text", "other", "numbers", "Enum", "empty Enum", "Enum for text"],
)
def test_transform_when_categories_lack_the_levels_of_fit_then_they_are_added(quick, series, new, categories):
    imputer = quick().fit(frame_with(series))
    # Of whatever levels are drawn, the type is the same.
    for completed in (imputer.transform(two_rows(new)), *imputer.sample(two_rows(new), 2, random_state=0)):
        column = completed["c"]
        found = column.cat.categories if isinstance(column, pd.Series) else column.dtype.categories
        assert list(found) == categories
        first, last = column.to_list()
        assert last in categories and (first == new[0] or is_missing(new[0]))


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [True, False])
def test_clip_when_row_is_beyond_the_training_rows_then_imputed_in_their_range(quick, clip):
    a = np.random.default_rng(0).normal(size=200)
    imputer = quick(clip=clip).fit(np.stack([a, 2 * a], axis=1))
    low, high = imputer.transform([[-9.0, np.nan], [9.0, np.nan]])[:, 1]
    if clip:
        assert (low, high) == (2 * a.min(), 2 * a.max())
    else:
        assert low < 2 * a.min() and high > 2 * a.max()


def test_clip_when_drawn_then_in_the_range_too(quick, numbers):
    draws = np.stack(quick().fit(numbers).sample(numbers, 20, random_state=0))
    assert (draws >= np.nanmin(numbers, axis=0)).all() and (draws <= np.nanmax(numbers, axis=0)).all()


def test_round_integers_when_array_then_only_whole_columns_are_rounded(quick):
    rng = np.random.default_rng(0)
    a = rng.normal(size=100)
    x = np.stack([a, np.round(5 * a), 3 * a], axis=1)
    x[::4, 1], x[1::4, 2] = np.nan, np.nan
    rounded, exact = (quick(round_integers=rounds).fit_transform(x) for rounds in (True, False))
    np.testing.assert_array_equal(rounded[:, 1], np.round(exact[:, 1]))
    np.testing.assert_array_equal(rounded[:, 2], exact[:, 2])
    assert (rounded[:, 1] != exact[:, 1]).any()


@pytest.mark.parametrize("library", [None, "pandas", "polars"])
def test_indicator_when_frames_or_arrays_then_marks_what_was_missing(quick, numbers, library):
    numbers[:, 1] = np.nan_to_num(numbers[:, 1])
    X = as_frame(numbers, library)
    imputer = quick(add_indicator=True).fit(X)
    new = numbers[::-1].copy()
    new[0] = np.nan
    completed = imputer.transform(as_frame(new, library))
    names = ["missingindicator_" + name for name in (["x0", "x2", "x3"] if library is None else "acd")]
    assert imputer.get_feature_names_out().tolist()[4:] == names
    if library is not None:
        assert list(completed.columns) == [*"abcd", *names]
    np.testing.assert_array_equal(np.asarray(completed)[:, 4:].astype(bool), np.isnan(new[:, [0, 2, 3]]))


def as_frame(x, library, names="abcd"):
    columns = {name: x[:, c] for c, name in enumerate(names)}
    return x if library is None else (pd.DataFrame(columns) if library == "pandas" else pl.DataFrame(columns))


@pytest.mark.filterwarnings("ignore:Columns without a single value:UserWarning")
@pytest.mark.parametrize("library", [None, "pandas", "polars"])
@pytest.mark.parametrize("keeps", [True, False])
def test_keep_empty_features_when_column_is_empty_then_kept_or_dropped(quick, numbers, keeps, library):
    numbers[:, 2] = np.nan
    imputer = quick(keep_empty_features=keeps).fit(as_frame(numbers, library))
    new = np.nan_to_num(numbers, nan=7.0)
    new[:, 2] = [np.nan, 2.0] * 60
    completed = imputer.transform(as_frame(new, library))
    assert completed.shape == (120, 4 if keeps else 3)
    names = [f"x{c}" for c in range(4)] if library is None else list("abcd")
    assert imputer.get_feature_names_out().tolist() == [name for name in names if keeps or name not in ("x2", "c")]
    if keeps:
        # Zero stands for what was not there to learn from.
        np.testing.assert_array_equal(np.asarray(completed)[:, 2], np.nan_to_num(new[:, 2]))


@pytest.mark.filterwarnings("ignore:Columns without a single value:UserWarning")
def test_keep_empty_features_when_column_holds_no_numbers_then_it_stays_as_it_is(quick, numbers):
    X = as_frame(numbers, "pandas").assign(c=None)
    assert quick(keep_empty_features=True).fit_transform(X)["c"].isna().all()


def test_missing_values_when_a_text_among_numbers_then_the_column_is_of_numbers(quick, numbers):
    marked = as_frame(numbers, "pandas").astype(object)
    marked = marked.where(marked.notna(), "?")
    completed = quick(missing_values="?").fit_transform(marked)
    expected = quick().fit_transform(as_frame(numbers, "pandas"))
    np.testing.assert_array_equal(completed.to_numpy(dtype=float), expected.to_numpy())


@pytest.mark.parametrize("cells", [lambda x: x.astype(str), lambda x: pl.Series([*x[:-1].astype(str), "?"])])
def test_fit_when_a_column_holds_numbers_as_text_then_a_warning_says_so(quick, cells):
    x = np.random.RandomState(0).normal(size=60)
    with pytest.warns(UserWarning, match=r"Column 'b' is taken as categories.*Convert it"):
        quick().fit(pl.DataFrame({"a": x, "b": cells(x)}))


def test_fit_when_an_array_has_integers_that_floats_cannot_tell_apart_then_refused(quick):
    X = np.array([[2**60 + 1, 1], [2**60 + 3, -1], [2**60 + 5, 4]])
    with pytest.raises(ValueError, match=r"integers beyond 2\*\*53.*Pass a DataFrame"):
        quick(missing_values=-1).fit(X)
    for nothing in (np.nan, None, pd.NA, "?"):
        assert quick(missing_values=nothing).fit_transform(np.array([[1, 2], [3, 4]])).tolist() == [[1, 2], [3, 4]]
    for cells in ([[2**60 + 1, 1], [2, 3]], np.array([[2**70, 1], [2, 3]], dtype=object)):
        with pytest.raises(ValueError, match=r"integers beyond 2\*\*53"):
            quick().fit(cells)
    least = np.iinfo(np.int64).min
    assert quick(missing_values=least).fit_transform(np.array([[1, 2], [3, least], [5, 6]])).shape == (3, 2)


def test_transform_when_dates_and_durations_are_not_clipped_then_they_stay_within_those_that_there_are(numbers):
    days = pd.to_timedelta(2000 * np.arange(40) / 40, unit="D")
    X = pd.DataFrame({"a": np.arange(40.0), "date": pd.Timestamp("2024-01-01") + days, "span": 40 * days})
    X = X.astype({"date": "datetime64[ns]", "span": "timedelta64[ns]"})
    new = X[:2].assign(a=[1e5, -1e9]).where([[True, False, False]] * 2)
    completed = DeepImputer(strategy="gaussian", clip=False).fit(X).transform(new)
    assert completed["date"].dt.year.tolist() == [2261, 1678]
    assert completed["span"].dt.days.tolist() == [106481, -106482]
    # Other units reach further.
    of_seconds = {"date": "datetime64[s]", "span": "timedelta64[s]"}
    completed = DeepImputer(strategy="gaussian", clip=False).fit(X.astype(of_seconds)).transform(new.astype(of_seconds))
    assert completed["date"].dt.year.tolist() == [9892, 5]


def test_missing_values_when_a_number_among_objects_then_other_missing_cells_stay_missing(numbers):
    cells = np.array([1.0, 2.5, None, pd.NA, -1] * 8, dtype=object)
    X = pd.DataFrame({"a": cells, "b": np.arange(40.0)})
    completed = DeepImputer(strategy="gaussian", missing_values=-1).fit_transform(X)
    plain = DeepImputer(strategy="gaussian").fit_transform(X.assign(a=[1.0, 2.5, None, None, None] * 8))
    assert completed["a"].tolist() == plain["a"].tolist()
    with pytest.raises(TypeError, match="holds cells of type ndarray"):
        DeepImputer(missing_values=-1).fit(pd.DataFrame({"a": [np.zeros(2), np.ones(2)]}))


def test_score_when_no_cell_is_hidden_then_undefined(quick, numbers):
    imputer = quick().fit(numbers)
    with pytest.warns(UndefinedMetricWarning, match="none of them was hidden"):
        assert np.isnan(imputer.score(np.full((3, 4), np.nan)))


@pytest.mark.parametrize("library", [None, "pandas", "polars"])
def test_missing_values_when_a_number_then_as_if_nan(quick, numbers, library):
    marked = np.where(np.isnan(numbers), -1e9, numbers)
    marked[:3] = numbers[:3]
    imputer = quick(missing_values=-1e9).fit(as_frame(marked, library))
    plain = quick().fit(as_frame(numbers, library))
    np.testing.assert_array_equal(
        imputer.transform(as_frame(marked, library)), plain.transform(as_frame(numbers, library))
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_missing_values_when_number_in_narrow_floats_then_they_stay_narrow(quick, dtype):
    cells = [-1 if cell is None else cell for cell in holes(range(N_ROWS))]
    X = frame_with(pd.Series(cells, dtype=dtype))
    after = quick(missing_values=-1).fit_transform(X)["c"]
    assert after.dtype == dtype and (after >= 0).all()
    assert [a for a, c in zip(after, cells, strict=True) if c != -1] == [c for c in cells if c != -1]


def test_transform_when_number_does_not_fit_a_narrow_float_then_a_wider_one():
    X = frame_with(pd.Series(np.arange(N_ROWS) * 1000, dtype="float16"))
    imputer = DeepImputer(strategy="gaussian", clip=False).fit(X)
    new = pd.DataFrame({"c": pd.Series([np.nan], dtype="float16"), "z": [1e4]})
    assert imputer.transform(new)["c"].item() > 1e6


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_missing_values_when_text_then_imputed_in_text_columns(quick, library):
    cells = ["?" if cell is None else cell for cell in holes(TEXT)]
    X = frame_with(pd.Series(cells) if library == "pandas" else pl.Series(cells))
    after = quick(missing_values="?").fit_transform(X)["c"].to_list()
    assert "?" not in after
    assert [a for a, c in zip(after, cells, strict=True) if c != "?"] == [c for c in cells if c != "?"]


@pytest.mark.parametrize("series", COLUMNS)
@pytest.mark.parametrize("value", [-1, "?", None, pd.NA, np.nan], ids=str)
def test_missing_values_when_not_in_a_column_then_changes_nothing(series, value):
    X = frame_with(series)
    marked, plain = (
        DeepImputer(strategy="gaussian", missing_values=missing).fit_transform(X)["c"].to_list()
        for missing in (value, np.nan)
    )
    assert marked == plain


@pytest.mark.parametrize("value", [np.nan, pd.NA, None])
def test_missing_values_when_in_an_array_of_objects_then_imputed(quick, numbers, value):
    X = numbers.astype(object)
    X[np.isnan(numbers)] = pd.NA
    X[:40][np.isnan(numbers[:40])] = None
    given = X.copy()
    np.testing.assert_array_equal(quick(missing_values=value).fit_transform(X), quick().fit_transform(numbers))
    assert all(cell is before for cell, before in zip(X.flat, given.flat, strict=True))


# --- names, output, index ----------------------------------------------------------------------------------------

INPUTS = [None, "pandas", "polars"]


@pytest.mark.parametrize("library", INPUTS)
@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_set_output_when_chosen_then_frame_of_that_library(quick, numbers, library, output):
    X = as_frame(numbers, library)
    imputer = quick(add_indicator=True).set_output(transform=output).fit(X)
    wanted = {None: np.ndarray, "pandas": pd.DataFrame, "polars": pl.DataFrame}
    drawn = imputer.sample(X, 2, random_state=0)
    for completed in (imputer.transform(X), *drawn):
        assert type(completed) is wanted[library if output == "default" else output]
        if not isinstance(completed, np.ndarray):
            assert list(completed.columns) == imputer.get_feature_names_out().tolist()
    plain = clone(imputer).set_output(transform="default").fit(X).transform(X)
    np.testing.assert_array_equal(np.asarray(imputer.transform(X), float), np.asarray(plain, float))


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_set_output_when_columns_are_mixed_then_categories_survive(library, output):
    X = pd.DataFrame({"c": pd.Series(holes(TEXT), dtype="category"), "z": np.arange(float(N_ROWS)), "d": holes(TIMES)})
    X = pl.from_pandas(X) if library == "polars" else X
    completed = DeepImputer(strategy="gaussian").set_output(transform=output).fit_transform(X)
    if output == "pandas":
        assert completed["c"].dtype == "category" and completed["d"].dtype.kind == "M"
    else:
        assert completed["c"].dtype in (pl.Categorical, pl.Enum) and completed["d"].dtype == pl.Datetime


@pytest.mark.parametrize("output", ["default", "pandas"])
@pytest.mark.parametrize(
    "index", [pd.Index([f"row{i}" for i in range(120)]), pd.Index([0, 1] * 60), pd.RangeIndex(120, 0, -1)]
)
def test_transform_when_pandas_then_index_is_kept(quick, numbers, output, index):
    X = pd.DataFrame(numbers, columns=list("abcd"), index=index)
    imputer = quick(add_indicator=True).set_output(transform=output).fit(X)
    for completed in (imputer.transform(X), *imputer.sample(X, 1, random_state=0)):
        pd.testing.assert_index_equal(completed.index, index)
        np.testing.assert_array_equal(completed.iloc[:, 4:], np.isnan(numbers))
        np.testing.assert_array_equal(completed["a"][~np.isnan(numbers[:, 0])], numbers[~np.isnan(numbers[:, 0]), 0])


def test_transform_when_columns_have_numbers_for_names_then_they_keep_them(quick, numbers):
    X = pd.DataFrame(numbers, columns=[3, 2, 1, 0])
    completed = quick().fit(X).transform(X)
    assert completed.columns.tolist() == [3, 2, 1, 0]
    np.testing.assert_array_equal(completed, quick().fit_transform(numbers))


def test_indicator_when_columns_have_numbers_for_names_then_all_are_text(quick, numbers):
    X = pd.DataFrame(numbers)
    imputer = quick(add_indicator=True).fit(X)
    names = imputer.get_feature_names_out().tolist()
    assert names == ["x0", "x1", "x2", "x3", *(f"missingindicator_x{c}" for c in range(4))]
    simple = SimpleImputer(add_indicator=True).set_output(transform="pandas").fit_transform(X)
    for completed in (imputer.transform(X), *imputer.sample(X, 1, random_state=0)):
        assert completed.columns.tolist() == names == simple.columns.tolist()
    # The next step takes them.
    assert make_pipeline(quick(add_indicator=True), SimpleImputer()).fit_transform(X).shape == (120, 8)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_indicator_when_a_column_has_its_name_then_sentence(quick, numbers, library):
    columns = {"a": numbers[:, 0], "missingindicator_a": numbers[:, 1]}
    X = pd.DataFrame(columns) if library == "pandas" else pl.DataFrame(columns)
    with pytest.raises(ValueError, match=r"'missingindicator_a'\], but X has columns of that name. Rename them"):
        quick(add_indicator=True).fit(X)
    assert quick().fit_transform(X).shape == (120, 2)


def test_fit_when_columns_have_names_of_several_levels_then_sentence(quick, numbers):
    X = pd.DataFrame(numbers, columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]]))
    with pytest.raises(ValueError, match=r"one name each.*'a'.*Join them"):
        quick().fit(X)
    X.columns = ["_".join(map(str, name)) for name in X.columns]
    assert quick().fit_transform(X).columns.tolist() == ["a_1", "a_2", "b_1", "b_2"]


def test_transform_when_names_are_tuples_and_nothing_is_missing_then_the_frame_itself(quick, numbers):
    X = pd.DataFrame(numbers, columns=pd.Index([("a", i) for i in range(numbers.shape[1])], tupleize_cols=False))
    whole = X.fillna(0.0)
    pd.testing.assert_frame_equal(quick().fit(X).transform(whole), whole)


def test_transform_when_fitted_on_an_array_then_frame_has_the_names_that_are_promised(numbers):
    imputer = DeepImputer(strategy="gaussian").fit(numbers)
    with pytest.warns(UserWarning, match="X has feature names"):
        completed = imputer.transform(as_frame(numbers, "pandas"))
    assert list(completed.columns) == imputer.get_feature_names_out().tolist()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_fit_when_frame_then_names_are_kept(quick, numbers, library):
    imputer = quick().fit(as_frame(numbers, library))
    assert imputer.n_features_in_ == 4 and imputer.feature_names_in_.tolist() == list("abcd")
    assert imputer.get_feature_names_out().tolist() == list("abcd")
    assert quick().fit(numbers).get_feature_names_out(list("wxyz")).tolist() == list("wxyz")


# --- rows --------------------------------------------------------------------------------------------------------


def test_transform_when_all_cells_of_a_row_are_missing_then_what_is_most_likely(quick):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"n": rng.normal(10, 1, size=400), "t": ["often", "often", "often", "rare"] * 100})
    X.loc[::3, "n"] = np.nan
    completed = quick().fit(X).transform(pd.DataFrame({"n": [np.nan], "t": [None]}))
    assert completed["t"].tolist() == ["often"]
    assert completed["n"].item() == pytest.approx(X["n"].mean(), abs=0.1)


def test_transform_when_column_had_no_holes_in_fit_then_imputed(quick):
    a = np.random.default_rng(0).normal(size=500)
    imputer = quick().fit(np.stack([a, -a], axis=1))
    np.testing.assert_allclose(imputer.transform([[np.nan, -0.5], [0.5, np.nan]]), [[0.5, -0.5]] * 2, atol=0.1)


def test_transform_when_column_is_constant_then_its_value(quick):
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=50), np.full(50, 0.1)])
    x[::5, 1], x[1::5, 0] = np.nan, np.nan
    completed = quick().fit_transform(x)
    assert (completed[:, 1] == 0.1).all() and np.isfinite(completed).all()


@pytest.mark.parametrize("n_rows", [1, 2, 3, 19, 20, 21])
@pytest.mark.parametrize("n_members", [1, 4])
def test_fit_when_rows_are_few_then_completed_in_their_range(quick, n_rows, n_members):
    x = np.random.default_rng(0).normal(size=(n_rows, 3))
    x[0, 0] = np.nan if n_rows > 1 else 1.0
    imputer = quick(n_members=n_members).fit(x)
    new = np.vstack([x, [np.nan, 0.0, np.nan], [np.nan] * 3])
    completed = imputer.transform(new)
    assert np.isfinite(completed).all() and completed.shape == new.shape
    assert np.isfinite(np.stack(imputer.sample(new, 3, random_state=0))).all()
    assert np.isfinite(imputer.imputation_std(new)).all()


def test_fit_when_columns_outnumber_rows_then_completed(quick):
    x = np.random.default_rng(0).normal(size=(25, 60))
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    assert np.isfinite(quick().fit_transform(x)).all()


def test_fit_when_there_is_one_column_then_its_mean(quick):
    x = np.array([1.0, 2.0, 6.0, np.nan] * 20)[:, None]
    np.testing.assert_allclose(quick().fit_transform(x)[3::4], 3.0, atol=0.3)


def test_transform_when_level_is_new_then_it_stays_and_the_rest_is_imputed(quick):
    X = pd.DataFrame({"t": TEXT, "n": np.arange(float(N_ROWS))})
    new = pd.DataFrame({"t": ["unheard of", None, "low"], "n": [np.nan, 3.0, np.nan]})
    completed = quick().fit(X).transform(new)
    assert completed["t"].tolist()[::2] == ["unheard of", "low"] and completed["t"][1] in TEXT
    assert completed["n"].between(0, N_ROWS).all()


def test_transform_when_repeated_then_same_and_estimator_as_before(quick, numbers):
    imputer = quick().fit(numbers[:80])
    before = pickle.dumps(imputer)
    first = imputer.transform(numbers[80:])
    imputer.sample(numbers, 2, random_state=0)
    imputer.score(numbers)
    imputer.imputation_std(numbers)
    np.testing.assert_array_equal(imputer.transform(numbers[80:]), first)
    assert pickle.dumps(imputer) == before


def test_transform_when_frame_rows_come_in_another_company_then_same(quick):
    X, _ = load_penguins(as_frame=True, return_X_y=True)
    imputer = quick().fit(X)
    X = X.iloc[:60].copy()
    for i in range(60):
        X.iloc[i, i % X.shape[1]] = np.nan
    together = imputer.transform(X)
    shuffled = imputer.transform(X.iloc[::-1]).iloc[::-1]
    alone = pd.concat([imputer.transform(X.iloc[[i]]) for i in range(60)])
    pd.testing.assert_frame_equal(shuffled, together, rtol=1e-6)
    pd.testing.assert_frame_equal(alone, together, rtol=1e-6)


@pytest.mark.parametrize("library", INPUTS)
def test_methods_when_rows_come_by_blocks_then_as_at_once(quick, numbers, library, monkeypatch):
    X = as_frame(numbers, library)
    imputer = quick(add_indicator=True).fit(X)
    at_once = imputer.transform(X), imputer.imputation_std(X), imputer.score(X)
    monkeypatch.setattr("skdl.estimators.imputation.holes.IMPUTED_ROWS", 50)
    means, n_rows = HoleFiller.means, []
    monkeypatch.setattr(HoleFiller, "means", lambda self, x, *rest: n_rows.append(len(x)) or means(self, x, *rest))
    for blocks, whole in zip((imputer.transform(X), imputer.imputation_std(X), imputer.score(X)), at_once, strict=True):
        np.testing.assert_allclose(np.asarray(blocks, float), np.asarray(whole, float), rtol=1e-5)
    imputer.sample(X, 2, random_state=0)
    assert len(n_rows) == 4 * 3 and max(n_rows) <= 50


def test_sample_when_rows_come_by_blocks_then_the_first_block_is_as_before(quick, numbers, monkeypatch):
    imputer = quick().fit(numbers)
    alone = imputer.sample(numbers[:50], 2, random_state=0)
    monkeypatch.setattr("skdl.estimators.imputation.holes.IMPUTED_ROWS", 50)
    draws = imputer.sample(numbers, 3, random_state=0)
    np.testing.assert_array_equal(np.stack(draws)[:2, :50], alone)
    np.testing.assert_array_equal(imputer.sample(numbers, 2, random_state=0), draws[:2])
    # Blocks do not repeat each other's draws.
    twice = np.vstack([numbers[:50]] * 2)
    (drawn,) = imputer.sample(twice, 1, random_state=0)
    assert (drawn[:50] != drawn[50:])[np.isnan(numbers[:50])].mean() > 0.9


def test_transform_when_a_block_of_rows_has_no_cell_then_column_is_still_what_it_is(quick, monkeypatch):
    monkeypatch.setattr("skdl.estimators.imputation.holes.IMPUTED_ROWS", 10)
    mixture = pd.Series([1, 2.5, None, 1, 1] * 4 + ["a", "b", None, "a"] * 5, dtype=object)
    after = quick().fit_transform(frame_with(mixture))["c"].tolist()
    assert [a for a, c in zip(after, mixture, strict=True) if c is not None] == [c for c in mixture if c is not None]
    assert not any(is_missing(cell) for cell in after)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "X",
    [
        np.full((5, 2), np.nan),
        pd.DataFrame({"a": [None, None], "b": [np.nan, np.nan]}),
        pl.DataFrame({"a": [None, None]}),
    ],
    ids=["array", "pandas", "polars"],
)
def test_fit_when_table_is_empty_then_sentence(quick, X):
    with pytest.raises(ValueError, match=r"no values to learn from.*Drop such tables"):
        quick().fit(X)


@pytest.mark.parametrize("library", [None, "pandas", "polars"])
def test_infinity_when_in_fit_or_transform_then_sentence(quick, numbers, library):
    bad = numbers.copy()
    bad[7, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        quick().fit(as_frame(bad, library))
    imputer = quick().fit(as_frame(numbers, library))
    for method in (imputer.transform, imputer.sample, imputer.imputation_std, imputer.score):
        with pytest.raises(ValueError, match="infinity"):
            method(as_frame(bad, library))


def test_text_when_in_an_array_then_sentence(quick, numbers):
    X = np.array([["a", 1.0], ["b", 2.0]], dtype=object)
    with pytest.raises(ValueError, match="Text is encoded in the columns of a DataFrame"):
        quick().fit(X)
    with pytest.raises(ValueError, match="Text is encoded in the columns of a DataFrame"):
        quick().fit(numbers[:, :2]).transform(X)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_when_changed_then_sentence(quick, numbers, library):
    X = as_frame(numbers, library)
    imputer = quick().fit(X)
    with pytest.raises(ValueError, match="feature names should match"):
        imputer.transform(X[["b", "a", "c", "d"]])
    with pytest.raises(ValueError, match="feature names should match"):
        imputer.transform(as_frame(numbers, library, names="abcx"))
    with pytest.raises(ValueError, match=r"feature names should match|features"):
        imputer.transform(X[["a", "b", "c"]])
    text = [*"xyz"] * 40
    other = X.assign(b=text) if library == "pandas" else X.with_columns(b=pl.Series(text))
    with pytest.raises(ValueError, match=r"Column 'b' is categorical, but it was numeric in fit"):
        imputer.transform(other)


def test_columns_when_too_few_in_an_array_then_sentence(quick, numbers):
    with pytest.raises(ValueError, match="X has 3 features, but DeepImputer is expecting 4"):
        quick().fit(numbers).transform(numbers[:, :3])


@pytest.mark.parametrize("method", ["transform", "sample", "imputation_std", "score"])
def test_method_when_not_fitted_then_sentence(numbers, method):
    with pytest.raises(NotFittedError, match="not fitted"):
        getattr(DeepImputer(), method)(numbers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strategy", "mean"),
        ("missing_values", [np.nan, -1]),
        ("missing_values", True),
        ("add_indicator", "yes"),
        ("keep_empty_features", None),
        ("clip", 1.5),
        ("round_integers", "no"),
        ("hidden_layer_sizes", 0),
        ("activation", "sine"),
        ("dropout", 1.0),
        ("learning_rate", 0),
        ("max_epochs", 0),
        ("batch_size", "all"),
        ("n_members", 0),
        ("validation_fraction", 1.0),
        ("scoring", "r2"),
        ("dtype", "float16"),
        ("random_state", -1),
    ],
)
def test_parameter_when_wrong_then_scikit_learns_sentence(quick, numbers, name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of DeepImputer must be"):
        quick().set_params(**{name: value}).fit(numbers)


@pytest.mark.parametrize("n_samples", [0, -1, 1.5, "3", None, True])
def test_sample_when_number_is_wrong_then_sentence(numbers, n_samples):
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1"):
        DeepImputer(strategy="gaussian").fit(numbers).sample(numbers, n_samples)


# --- draws -------------------------------------------------------------------------------------------------------


def test_sample_when_gaussian_then_conditional_mean_and_covariance(gaussian_table):
    _, holes, covariance = gaussian_table
    row = np.array([np.nan, 1.5, np.nan, 2.0, np.nan, 5.5])
    mean, expected = conditional(row, covariance, np.arange(6.0))
    scale = np.sqrt(np.diag(expected))
    # 3,000 rows, a third of them hidden, tell a mean that far out to about 0.1 standard deviations: the estimate of
    # maximum likelihood is off by 0.11 in the third column. "deep" knows the spread from some 200 cells of like
    # predictions, which differ from one random state to the next.
    for strategy, tolerance in (("gaussian", 0.15), ("deep", 0.25)):
        draws = []
        for seed in range(4):
            imputer = DeepImputer(**QUICK | {"strategy": strategy, "random_state": seed}, clip=False).fit(holes)
            draws.append(imputer.sample(np.tile(row, (5_000, 1)), 1, random_state=seed)[0][:, np.isnan(row)])
        means, covariances = np.mean(draws, axis=1), np.array([np.cov(drawn.T) for drawn in draws])
        np.testing.assert_allclose((means.mean(axis=0) - mean) / scale, 0, atol=tolerance)
        np.testing.assert_allclose((covariances.mean(axis=0) - expected) / np.outer(scale, scale), 0, atol=tolerance)


def test_sample_when_deep_then_intervals_cover(gaussian_table):
    x, holes, _ = gaussian_table
    imputer = DeepImputer(**QUICK | {"max_epochs": 3}, clip=False).fit(holes[:2000])
    low, high = np.quantile(imputer.sample(holes[2000:], 100, random_state=0), [0.05, 0.95], axis=0)
    inside = ((x[2000:] >= low) & (x[2000:] <= high))[np.isnan(holes[2000:])].mean()
    assert 0.85 <= inside <= 0.95


def test_sample_when_drawn_then_list_that_the_seed_decides(quick, numbers):
    imputer = quick().fit(numbers)
    one, same, other = (imputer.sample(numbers, 3, random_state=seed) for seed in (0, np.random.RandomState(0), 1))
    assert isinstance(one, list) and len(one) == 3
    np.testing.assert_array_equal(one, same)
    hidden = np.isnan(numbers)
    assert (np.ptp(one, axis=0)[hidden] > 0).mean() > 0.9
    assert (np.ptp(one, axis=0)[~hidden] == 0).all()
    assert (np.array(one) != np.array(other))[:, hidden].any(axis=0).mean() > 0.9
    np.testing.assert_array_equal(np.stack(one)[:, ~hidden], np.tile(numbers[~hidden], (3, 1)))


def test_sample_when_more_are_drawn_then_the_first_are_the_same(quick, numbers):
    imputer = quick().fit(numbers)
    np.testing.assert_array_equal(
        imputer.sample(numbers, 2, random_state=0), imputer.sample(numbers, 5, random_state=0)[:2]
    )


def test_sample_when_levels_are_independent_then_by_their_shares(quick):
    rng = np.random.default_rng(0)
    levels = rng.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1], size=1500)
    X = pd.DataFrame({"t": levels, "n": rng.normal(size=1500)}).astype({"t": "category"})
    new = X.assign(t=X["t"].where(X["t"].isna()))
    drawn = pd.concat(quick().fit(X).sample(new, 4, random_state=0))["t"]
    assert drawn.dtype == X["t"].dtype and not drawn.isna().any()
    # A correlation with the other column that is not there moves shares of 6,000 draws by less than 0.02.
    np.testing.assert_allclose(
        drawn.value_counts(normalize=True)[["a", "b", "c"]],
        X["t"].value_counts(normalize=True)[["a", "b", "c"]],
        atol=0.03,
    )


def test_sample_when_level_and_number_are_missing_together_then_they_agree(quick):
    rng = np.random.default_rng(0)
    group, hit = rng.choice(["a", "b"], 1000), rng.random(1000) < 0.4
    X = pd.DataFrame({"group": group, "y": np.where(group == "a", 4.0, 0.0) + rng.normal(size=1000)})
    X = X.assign(z=rng.normal(size=1000)).astype({"group": "category"})
    holes = X.assign(y=X["y"].mask(hit), group=X["group"].mask(hit))
    tables = quick().fit(holes).sample(holes, 5, random_state=0)
    drawn = pd.concat([table[hit] for table in tables]).groupby("group", observed=True)["y"].mean()
    assert drawn["a"] - drawn["b"] == pytest.approx(4, abs=0.5)


def test_sample_when_levels_are_missing_together_then_they_agree(quick):
    rng = np.random.default_rng(0)
    one, hit = rng.choice(list("abcd"), p=[0.4, 0.3, 0.2, 0.1], size=1500), rng.random(1500) < 0.4
    other = np.where(rng.random(1500) < 0.1, rng.choice(list("abcd"), size=1500), one)
    X = pd.DataFrame({"one": one, "other": other, "z": rng.normal(size=1500)}).astype({"one": object, "other": object})
    holes = X.assign(one=X["one"].mask(hit), other=X["other"].mask(hit))
    drawn = pd.concat([table[hit] for table in quick().fit(holes).sample(holes, 5, random_state=0)])
    # In 92 % of the rows they are the same, and drawn apart from each other they would be in 30 %. Thresholds of
    # correlated normal numbers are less alike than the numbers.
    assert (drawn["one"] == drawn["other"]).mean() > 0.65
    shares = X["one"].value_counts(normalize=True)
    np.testing.assert_allclose(drawn["one"].value_counts(normalize=True)[shares.index], shares, atol=0.04)


def test_sample_when_nothing_is_missing_then_the_table(quick, numbers):
    full = np.nan_to_num(numbers)
    np.testing.assert_array_equal(quick().fit(numbers).sample(full, 2, random_state=0), [full, full])


def test_imputation_std_when_gaussian_then_that_of_the_truth(gaussian_table):
    _, holes, covariance = gaussian_table
    new = holes[2000:2100]
    std = DeepImputer(strategy="gaussian").fit(holes[:2000]).imputation_std(new)
    for row, got in zip(new, std, strict=True):
        m = np.isnan(row)
        expected = np.sqrt(np.diag(conditional(row, covariance, np.arange(6.0))[1]))
        np.testing.assert_allclose(got[m], expected, rtol=0.15)
        assert (got[~m] == 0).all()


def test_imputation_std_when_drawn_then_that_of_the_draws(gaussian_table, quick):
    _, holes, _ = gaussian_table
    imputer = quick(clip=False).fit(holes[:2000])
    new = holes[2000:2100]
    hidden = np.isnan(new)
    draws = np.std(imputer.sample(new, 400, random_state=0), axis=0)[hidden]
    # A standard deviation of 400 draws is off by 3.5 %, in one of 200 cells by four times as much.
    np.testing.assert_allclose(draws / imputer.imputation_std(new)[hidden], 1, atol=0.2)


@pytest.mark.filterwarnings("ignore:Columns without a single value:UserWarning")
def test_imputation_std_when_columns_are_mixed_then_a_number_a_cell(quick):
    X = pd.DataFrame({"e": [np.nan] * N_ROWS, "t": holes(TEXT), "n": holes([float(i) for i in range(N_ROWS)])})
    std = quick().fit(X).imputation_std(X)
    assert std.shape == X.shape and np.isnan(std[:, 0]).all()
    missing = X[["t", "n"]].isna().to_numpy()
    assert (std[:, 1:][missing] > 0).all() and (std[:, 1:][~missing] == 0).all()
    assert std[:, 1].max() <= 0.5


# --- score and searches ------------------------------------------------------------------------------------------


def test_score_when_columns_are_independent_or_one_then_between_zero_and_one(quick):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(600, 1))
    alone, together = rng.normal(size=(600, 4)), a + 0.1 * rng.normal(size=(600, 4))
    assert -0.05 < quick().fit(alone[:400]).score(alone[400:]) < 0.05
    assert 0.95 < quick().fit(together[:400]).score(together[400:]) < 1


def test_score_when_repeated_then_the_same_number(quick, numbers):
    imputer = quick().fit(numbers)
    score = imputer.score(numbers)
    assert isinstance(score, float) and imputer.score(numbers) == score


def test_search_when_data_is_curved_then_deep_is_chosen():
    a = np.random.default_rng(0).uniform(-2, 2, size=600)
    settings = {"hidden_layer_sizes": (32,), "n_members": 1, "max_epochs": 25, "learning_rate": 0.01, "random_state": 0}
    search = GridSearchCV(DeepImputer(**settings), {"strategy": ["gaussian", "deep"]}, cv=2)
    assert search.fit(np.stack([a, a**2], axis=1)).best_params_ == {"strategy": "deep"}


def parameters(imputer):
    return parameters_to_vector(imputer.network_.parameters()).detach().numpy()


@pytest.mark.parametrize(
    "grid",
    [
        {"learning_rate": [1e-3, 1e-2], "dropout": [0.0, 0.3]},
        {"strategy": ["deep", "gaussian"], "hidden_layer_sizes": [(4,), (4, 4)]},
        {"n_members": [1, 3], "early_stopping": [True, False], "max_epochs": [2, 4]},
        {"clip": [True, False], "random_state": [0, 1]},
    ],
    ids=lambda grid: next(iter(grid)),
)
def test_together_when_imputers_are_searched_then_as_without(numbers, grid):
    settings = {"hidden_layer_sizes": (4,), "max_epochs": 2, "dtype": "float64", "random_state": 0}

    def run():
        return GridSearchCV(DeepImputer(**settings), grid, cv=2).fit(numbers)

    plain = run()
    with skdl.train_together():
        together = run()
    assert together.best_params_ == plain.best_params_
    np.testing.assert_allclose(together.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-8)
    assert (together.best_estimator_.network_ is None) == (plain.best_estimator_.network_ is None)
    np.testing.assert_allclose(together.transform(numbers), plain.transform(numbers), rtol=1e-8)
    if plain.best_estimator_.network_ is not None:
        np.testing.assert_allclose(
            parameters(together.best_estimator_), parameters(plain.best_estimator_), rtol=1e-8, atol=1e-10
        )


def test_together_when_pipeline_imputes_for_a_classifier_then_as_without(numbers):
    y = np.nan_to_num(numbers[:, 0]) > 0
    tiny = {"hidden_layer_sizes": (4,), "max_epochs": 2, "dtype": "float64", "random_state": 0}
    pipeline = make_pipeline(DeepImputer(**tiny), skdl.MLPClassifier(**tiny, n_members=1, early_stopping=False))
    grid = {"deepimputer__learning_rate": [1e-3, 1e-2], "mlpclassifier__learning_rate": [1e-3, 3e-2]}

    def run():
        return GridSearchCV(pipeline, grid, cv=2).fit(numbers, y)

    plain = run()
    with skdl.train_together() as report:
        together = run()
    # Of each kind there are networks: those of imputers and those of classifiers.
    assert {stack.network.startswith("reconstruction") for stack in report.report_} == {True, False}
    for key in ("mean_test_score", "rank_test_score"):
        np.testing.assert_array_equal(together.cv_results_[key], plain.cv_results_[key])
    np.testing.assert_allclose(together.predict_proba(numbers), plain.predict_proba(numbers), rtol=1e-8)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_pipeline_when_frame_is_mixed_then_it_classifies(library):
    X, y = load_penguins(as_frame=True, return_X_y=True)
    X = pl.from_pandas(X) if library == "polars" else X
    classifier = skdl.MLPClassifier(hidden_layer_sizes=(16,), max_epochs=30, n_members=1, random_state=0)
    pipeline = make_pipeline(DeepImputer(**QUICK, add_indicator=True), classifier)
    assert cross_val_score(pipeline, X, y, cv=2).min() > 0.95


# --- fits --------------------------------------------------------------------------------------------------------


def test_fit_when_seed_is_the_same_then_the_same(quick, numbers):
    one, same = (quick().fit(numbers).transform(numbers) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_fit_when_seed_is_another_then_another_network(numbers):
    settings = QUICK | {"max_epochs": 5}
    one, other = (DeepImputer(**settings | {"random_state": seed}).fit(numbers) for seed in (0, 1))
    assert (parameters(one) != parameters(other)).any()


def test_fit_when_seed_is_given_then_global_generators_are_left_alone(quick, numbers):
    np.random.seed(3)
    torch.manual_seed(3)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    imputer = quick(dropout=0.2).fit(numbers)
    imputer.transform(numbers)
    imputer.sample(numbers, 2, random_state=0)
    imputer.score(numbers)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_clone_and_pickle_when_fitted_then_parameters_and_results_stay(quick, numbers):
    imputer = quick(missing_values=-1, add_indicator=True).fit(numbers)
    assert clone(imputer).get_params() == imputer.get_params() and not hasattr(clone(imputer), "network_shares_")
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(numbers), imputer.transform(numbers))
    np.testing.assert_array_equal(again.sample(numbers, 1, random_state=0), imputer.sample(numbers, 1, random_state=0))


@pytest.mark.parametrize("settings", [{}, {"warm_start": True}, {"early_stopping": True}], ids=str)
@pytest.mark.parametrize("n_rows", [161, 200])
def test_pickle_when_fitted_then_no_training_data_inside(quick, settings, n_rows):
    # 161 rows have quantiles that are values of theirs.
    x = np.random.default_rng(0).normal(size=(n_rows, 2))
    inside = pickle.dumps(quick(**settings).fit(x))
    middle = np.sort(x, axis=0)[1:-1]
    scaled = (middle - x.mean(axis=0)) / x.std(axis=0)
    for values in (middle, middle.astype(np.float32), scaled, scaled.astype(np.float32)):
        assert not any(value.tobytes() in inside for value in values.ravel())


def test_pickle_when_level_is_rare_then_not_inside(quick):
    names = [f"often{i}" for i in range(32)] * 5 + ["only once"]
    imputer = quick().fit(pd.DataFrame({"t": names, "n": np.arange(161.0)}))
    assert b"often31" in pickle.dumps(imputer) and b"only once" not in pickle.dumps(imputer)


def test_history_when_trained_then_one_row_an_epoch(numbers):
    imputer = DeepImputer(**QUICK | {"max_epochs": 6, "learning_rate": 0.01}).fit(numbers)
    assert imputer.n_iter_ == len(imputer.history_) == len(imputer.loss_curve_) == 6
    assert imputer.history_["loss"].tolist() == imputer.loss_curve_
    assert imputer.loss_curve_[-1] < imputer.loss_curve_[0]


def test_early_stopping_when_nothing_improves_then_stops(numbers):
    settings = QUICK | {"max_epochs": 100, "n_iter_no_change": 2, "learning_rate": 0.3, "lr_schedule": "constant"}
    imputer = DeepImputer(**settings, early_stopping=True).fit(numbers)
    assert imputer.n_iter_ < 100
    assert len(imputer.validation_scores_) == imputer.n_iter_
    assert np.isfinite(imputer.history_["validation_loss"]).all()
    assert DeepImputer(**settings | {"max_epochs": 3}).fit(numbers).validation_scores_ is None


def test_warm_start_when_fitted_again_then_goes_on():
    a = np.random.default_rng(0).uniform(-2, 2, size=300)
    x = np.stack([a, a**2], axis=1)
    imputer = DeepImputer(**QUICK | {"max_epochs": 5}, warm_start=True, learning_rate=0.01, lr_schedule="constant")
    first = imputer.fit(x).loss_curve_
    seen = imputer.t_
    second = imputer.fit(x).loss_curve_
    assert max(second) < first[0] and imputer.t_ == 2 * seen
    with pytest.raises(ValueError, match="architecture was changed"):
        imputer.set_params(hidden_layer_sizes=(3,)).fit(x)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add_indicator", True),
        ("clip", False),
        ("round_integers", True),
        ("keep_empty_features", True),
        ("missing_values", -1),
    ],
)
def test_warm_start_when_a_parameter_of_the_table_changes_then_refused(numbers, name, value):
    imputer = DeepImputer(**QUICK, warm_start=True, missing_values=np.float64("nan")).fit(numbers)
    imputer.set_params(missing_values=float("nan")).fit(numbers)
    with pytest.raises(ValueError, match=f"{name}={value!r} was .* in the fit that this one continues"):
        imputer.set_params(**{name: value}).fit(numbers)


def test_warm_start_when_strategy_becomes_gaussian_then_no_network(numbers):
    imputer = DeepImputer(**QUICK | {"max_epochs": 5}, warm_start=True, learning_rate=0.01).fit(numbers)
    imputer.set_params(strategy="gaussian").fit(numbers)
    gaussian = DeepImputer(strategy="gaussian", random_state=0).fit(numbers)
    assert imputer.network_ is None
    np.testing.assert_array_equal(imputer.transform(numbers), gaussian.transform(numbers))


@pytest.mark.parametrize("strategy", ["deep", "gaussian"])
def test_warm_start_when_there_is_no_network_yet_then_fits_afresh(numbers, strategy):
    imputer = DeepImputer(**QUICK | {"strategy": "gaussian"}, warm_start=True).fit(numbers[:60])
    again = imputer.set_params(strategy=strategy).fit(numbers)
    fresh = DeepImputer(**QUICK | {"strategy": strategy}).fit(numbers)
    np.testing.assert_array_equal(again.transform(numbers), fresh.transform(numbers))


def test_fit_when_fitted_again_on_fewer_columns_then_as_new(quick, numbers):
    imputer = quick(add_indicator=True).fit(as_frame(numbers, "pandas")).fit(numbers[:, :3])
    assert imputer.n_features_in_ == 3 and not hasattr(imputer, "feature_names_in_")
    fresh = quick(add_indicator=True).fit(numbers[:, :3])
    np.testing.assert_array_equal(imputer.transform(numbers[:, :3]), fresh.transform(numbers[:, :3]))


# --- callbacks ---------------------------------------------------------------------------------------------------


class Recorder:
    """Notes the tasks of a fit, and stops it after epoch ``last``."""

    def __init__(self, last=None):
        self.last, self.ended, self.fitted = last, [], []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        self.ended.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.ended.append(context.task_name)
        if context.task_name == "epoch":
            self.fitted.append(fitted_estimator)
            return context.task_id + 1 == self.last
        return None


def test_callback_when_network_is_trained_then_every_epoch_is_a_task(numbers):
    recorder = Recorder()
    imputer = DeepImputer(**QUICK | {"max_epochs": 4}).set_callbacks(recorder).fit(numbers)
    assert recorder.ended == ["epoch"] * imputer.n_iter_ + ["fit", "teardown"]
    plain = DeepImputer(**QUICK | {"max_epochs": 4}).fit(numbers)
    np.testing.assert_array_equal(imputer.transform(numbers), plain.transform(numbers))
    for fitted in recorder.fitted:
        assert np.isfinite(fitted.transform(numbers)).all()


def test_callback_when_networks_learn_then_it_sees_what_they_have_learned():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    x[:, 2] = x[:, 0] * x[:, 1]
    x[::4, 2] = np.nan
    recorder = Recorder()
    imputer = DeepImputer(max_epochs=20, random_state=0).set_callbacks(recorder).fit(x)
    first, *_, last = (fitted.score(x) for fitted in recorder.fitted)
    assert first + 0.1 < last
    assert abs(last - imputer.score(x)) < 0.05


def test_callback_when_it_interrupts_then_the_warning_points_at_the_call_of_fit(numbers):
    class Interrupting(Recorder):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if context.task_name == "epoch":
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 1 epochs") as told:
        DeepImputer(**QUICK | {"max_epochs": 4}).set_callbacks(Interrupting()).fit(numbers)
    assert told[0].filename == __file__


def test_callback_when_gaussian_then_only_the_fit_is_a_task(numbers):
    recorder = Recorder()
    DeepImputer(strategy="gaussian").set_callbacks(recorder).fit(numbers)
    assert recorder.ended == ["fit", "teardown"]


def test_callback_when_it_returns_true_then_fit_stops(numbers):
    imputer = DeepImputer(**QUICK | {"max_epochs": 6}).set_callbacks(Recorder(last=2)).fit(numbers)
    assert imputer.n_iter_ == 2


def test_verbose_when_set_then_a_line_an_epoch(numbers, capsys):
    DeepImputer(**QUICK | {"max_epochs": 3}, verbose=1).fit(numbers)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[-1].startswith("DeepImputer epoch 3: loss")


def test_sample_when_columns_are_nearly_the_same_then_draws_are_as_close():
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    table = np.column_stack([x, 0.99 * x + np.sqrt(1 - 0.99**2) * rng.normal(size=500)])
    is_hidden = rng.random(500) < 0.4
    table[is_hidden, 1] = np.nan
    draws = DeepImputer(strategy="gaussian", clip=False).fit(table).sample(table, 40, random_state=0)
    spread = np.std([draw[is_hidden, 1] for draw in draws], axis=0).mean()
    assert spread == pytest.approx(np.sqrt(1 - 0.99**2), rel=0.12)


def test_transform_when_one_column_is_the_sum_of_others_then_nearly_recovered():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    x[:, 2] = x[:, 0] + x[:, 1]
    holes = np.where(np.eye(3, dtype=bool)[rng.integers(0, 3, 500)] & (rng.random((500, 1)) < 0.5), np.nan, x)
    completed = DeepImputer(strategy="gaussian", clip=False).fit(holes).transform(holes)
    assert np.sqrt(np.mean((completed - x)[np.isnan(holes)] ** 2)) < 0.02
