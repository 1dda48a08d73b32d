"""Imputation of missing cells."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import skdl
from skdl import DeepImputer
from skdl.datasets import load_penguins

QUICK = {"hidden_layer_sizes": (8,), "max_epochs": 1, "random_state": 0}


@parametrize_with_checks([DeepImputer(strategy="gaussian"), DeepImputer(hidden_layer_sizes=(8,), max_epochs=1)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_keeps_the_contract(estimator, check):
    check(estimator)


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


def test_transform_when_nothing_is_missing_then_it_is_the_identity(gaussian_table):
    x, holes, _ = gaussian_table
    np.testing.assert_array_equal(DeepImputer(**QUICK).fit(holes).transform(x), x)


def test_fit_when_a_column_is_empty_then_it_is_dropped_or_kept():
    x = np.random.default_rng(0).normal(size=(30, 3))
    x[:, 1] = np.nan
    assert DeepImputer(**QUICK).fit_transform(x).shape == (30, 2)
    kept = DeepImputer(**QUICK, keep_empty_features=True).fit_transform(x)
    assert (kept[:, 1] == 0).all()


def test_fit_when_all_cells_are_missing_then_it_says_so():
    with pytest.raises(ValueError, match="all of its cells are missing"):
        DeepImputer().fit(np.full((5, 2), np.nan))


def test_indicator_and_missing_values():
    x = np.random.default_rng(0).normal(size=(30, 2))
    x[::5, 0] = -1
    imputer = DeepImputer(**QUICK, missing_values=-1, add_indicator=True).fit(x)
    completed = imputer.transform(x)
    np.testing.assert_array_equal(completed[:, 2], x[:, 0] == -1)
    assert (completed[::5, 0] != -1).all()
    assert imputer.get_feature_names_out().tolist() == ["x0", "x1", "missingindicator_x0"]


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


def test_search_over_an_imputer_gives_the_same_together(gaussian_table):
    _, holes, _ = gaussian_table
    search = GridSearchCV(DeepImputer(**QUICK), {"learning_rate": [1e-3, 1e-2]}, cv=2)
    alone = clone(search).fit(holes[:300]).cv_results_["mean_test_score"]
    with skdl.train_together():
        together = clone(search).fit(holes[:300]).cv_results_["mean_test_score"]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_pipeline_with_a_classifier(gaussian_table):
    x, holes, _ = gaussian_table
    model = make_pipeline(DeepImputer(**QUICK), LogisticRegression()).fit(holes[:500], x[:500, 0] > 0)
    assert model.score(holes[500:800], x[500:800, 0] > 0) > 0.8
