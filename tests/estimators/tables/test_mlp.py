"""Raw tables of every kind through fit and predict."""

import datetime
import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_classification
from sklearn.metrics import r2_score

from skdl import MLPClassifier, MLPRegressor
from skdl.data.tables.table_encoder import TableEncoder
from skdl.datasets import load_penguins

SMALL = {
    "hidden_layer_sizes": (8,),
    "max_epochs": 15,
    "learning_rate": 0.02,
    "early_stopping": False,
    "n_members": 1,
    "random_state": 0,
}


def mixed(n=60):
    """Every kind of column, each with missing cells."""
    rng = np.random.RandomState(0)
    place = rng.choice(["north", "south", "west"], size=n)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "place": pd.Series(place, dtype="str"),
            "code": [f"level {i}" for i in rng.randint(0, 45, size=n)],
            "flag": pd.Series(rng.rand(n) > 0.5, dtype="boolean"),
            "day": pd.date_range("2024-01-01", periods=n, tz="Europe/Paris"),
            "span": pd.to_timedelta(rng.randint(1, 100, size=n), unit="h"),
        }
    )
    frame["born"] = pd.Series(
        [datetime.date(1990, 1, 1) + datetime.timedelta(days=int(d)) for d in range(n)], dtype=object
    )
    for j, name in enumerate(frame.columns):
        frame.loc[frame.index[j::9], name] = None
    return frame, np.where(place == "north", "cold", "warm")


@pytest.fixture(scope="module")
def table():
    return mixed()


@pytest.fixture
def classifier():
    return MLPClassifier(**SMALL)


def test_penguins_are_told_apart():
    X, y = load_penguins(as_frame=True, return_X_y=True)
    model = MLPClassifier(**SMALL | {"max_epochs": 40}).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.95


def test_column_kinds():
    X, y = mixed(n=300)
    # Each has a target of its own, in no order.
    codes = np.tile(np.arange(30), 10)
    target = np.random.RandomState(0).permutation(30)[codes]
    frame = X.assign(shop=codes, nothing=None)
    model = MLPRegressor(**SMALL).fit(frame, target)
    kinds = dict(zip(model.feature_names_in_, model.column_kinds_, strict=True))
    assert kinds == {
        "x": "numeric",
        "place": "categorical",
        "code": "categorical",
        "flag": "categorical",
        "day": "datetime",
        "span": "numeric",
        "born": "datetime",
        "shop": "code",
        "nothing": "empty",
    }
    numbers = frame[["x", "shop"]].fillna(0).to_numpy()
    assert MLPClassifier(**SMALL).fit(numbers, y).column_kinds_.tolist() == ["numeric", "numeric"]
    assert MLPRegressor(**SMALL).fit(numbers, target).column_kinds_.tolist() == ["numeric", "code"]
    assert MLPRegressor(**SMALL).fit(sp.csr_array(numbers), codes).column_kinds_.tolist() == ["numeric", "numeric"]
    assert not hasattr(MLPRegressor(), "column_kinds_")


def test_pandas_and_polars_give_the_same_model(table, classifier):
    frame, y = table
    other = pl.from_pandas(frame)
    p = classifier.fit(frame, y).predict_proba(frame)
    assert_array_equal(classifier.predict_proba(other), p)
    assert_array_equal(classifier.fit(other, y).predict_proba(other), p)
    assert_array_equal(classifier.feature_names_in_, frame.columns)


def test_the_target_may_be_a_series_of_any_library(table, classifier):
    frame, y = table
    p = classifier.fit(frame, y).predict_proba(frame)
    for series in (pd.Series(y, dtype="category"), pd.Series(y, dtype="string"), pl.Series(y), y.tolist()):
        assert_array_equal(classifier.fit(frame, series).predict_proba(frame), p)
        assert_array_equal(classifier.classes_, ["cold", "warm"])


def test_the_index_of_a_frame_means_nothing(table, classifier):
    frame, y = table
    p = classifier.fit(frame, y).predict_proba(frame)
    assert_array_equal(
        classifier.fit(frame.set_index(np.zeros(60)), pd.Series(y, index=range(60, 0, -1))).predict_proba(frame), p
    )


@pytest.mark.parametrize("name", mixed()[0].columns)
def test_a_missing_cell_of_any_column_is_predicted(table, classifier, name):
    frame, y = table
    classifier.fit(frame.ffill().bfill(), y)
    record = frame.iloc[[-1]].copy()
    record[name] = record[name].where([False])
    assert np.isfinite(classifier.predict_proba(record)).all()


def test_unknown_levels_are_all_one(table, classifier):
    frame, y = table
    classifier.fit(frame.ffill().bfill(), y)
    records = pd.concat([frame.ffill().iloc[[-1]]] * 3, ignore_index=True)
    for name in ("place", "code"):
        records[name] = ["never seen", "nor this", None]
        p = classifier.predict_proba(records)
        assert_allclose(p, p[[0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("embedding", ["piecewise_linear", "periodic"])
def test_rows_one_by_one_are_predicted_as_together(table, classifier, embedding):
    frame, y = table
    p = classifier.set_params(numeric_embedding=embedding).fit(frame, y).predict_proba(frame)
    alone = np.concatenate([classifier.predict_proba(frame.iloc[[i]]) for i in range(60)])
    assert_allclose(alone, p, rtol=1e-5)


@pytest.mark.parametrize(
    ("convert", "lengths"),
    [
        (lambda frame: frame.drop(columns="born"), [25, 25, 10]),
        (lambda frame: frame, [60]),
        (pl.from_pandas, [25, 25, 10]),
        (lambda frame: pl.from_pandas(frame).to_arrow(), [25, 25, 10]),
        (lambda frame: frame[["x"]].to_numpy(), [25, 25, 10]),
        (lambda frame: sp.csr_array(frame[["x"]].fillna(0).to_numpy()), [60]),
    ],
    ids=["pandas", "objects", "polars", "arrow", "array", "sparse"],
)
def test_long_tables_are_encoded_part_by_part(table, monkeypatch, convert, lengths):
    X, y = convert(table[0]), table[1]
    model = MLPClassifier(**SMALL | {"early_stopping": True, "n_members": 2}).fit(X, y)
    whole = model.predict_proba(X)
    encoded = []
    transform = type(model._encoder).transform

    def noted(encoder, part):
        encoded.append(part.shape[0])
        return transform(encoder, part)

    monkeypatch.setattr(type(model._encoder), "transform", noted)
    monkeypatch.setattr("skdl.estimators.tables.mlp.ENCODED_ROWS", 25)
    assert_allclose(model.predict_proba(X), whole, rtol=1e-5)
    assert encoded == lengths


def test_records_without_dtypes_are_predicted_as_the_frame(table, classifier):
    # As from JSON: every cell an object, missing cells None or NaN.
    frame, y = table
    p = classifier.fit(frame, y).predict_proba(frame)
    for missing in (None, np.nan):
        records = [{k: missing if pd.isna(v) else v for k, v in r.items()} for r in frame.to_dict("records")]
        alone = np.concatenate([classifier.predict_proba(pd.DataFrame([record])) for record in records])
        assert_allclose(alone, p, rtol=1e-5)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_numeric_frames_and_arrays_stand_for_each_other(make):
    X, y = make_classification(60, 4, random_state=0)
    frame = make({f"x{j}": X[:, j] for j in range(4)})
    p = MLPClassifier(**SMALL).fit(X, y).predict_proba(X)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        assert_array_equal(MLPClassifier(**SMALL).fit(frame, y).predict_proba(X), p)
    with pytest.warns(UserWarning, match="X has feature names"):
        assert_array_equal(MLPClassifier(**SMALL).fit(X, y).predict_proba(frame), p)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[["place", "x", *f.columns[2:]]], "must be in the same order"),
        (lambda f: f.drop(columns="x"), "seen at fit time, yet now missing:\n- x"),
        (lambda f: f.assign(more=1), "unseen at fit time:\n- more"),
        (lambda f: f.rename(columns={"x": "X"}), "should match"),
        (lambda f: f.rename(columns={"x": "place"}), "unique|more than once"),
        (lambda f: f.assign(x="text"), "Column 'x' is categorical, but it was numeric in fit"),
        (lambda f: f.assign(place=3.5), "Column 'place' is numeric, but it was categorical in fit"),
        (lambda f: f.assign(day=3), "Column 'day' is numeric, but it was datetime in fit"),
        (lambda f: f.iloc[:0], "0 sample"),
        (lambda f: f.assign(x=np.inf), "infinity"),
    ],
)
def test_frames_that_do_not_match_are_refused(table, classifier, change, message):
    frame, y = table
    classifier.fit(frame, y)
    with pytest.raises(ValueError, match=message):
        classifier.predict(change(frame))


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_refused_in_frames_as_in_arrays(make, value):
    X, y = make_classification(40, 3, n_redundant=0, random_state=0)
    X[5, 1] = value
    for table in (X, make({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})):
        with pytest.raises(ValueError, match="infinity"):
            MLPClassifier(**SMALL).fit(table, y)


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (pd.DataFrame(np.zeros((4, 2)), columns=["a", "a"]), ValueError, "unique|more than once"),
        (pd.DataFrame(np.zeros((4, 2)), columns=["a", 1]), TypeError, "string names"),
        (pd.DataFrame(index=range(4)), ValueError, r"0 feature"),
        (pd.DataFrame({"a": []}), ValueError, r"0 sample"),
        (pd.DataFrame({"a": [[1]] * 4}), TypeError, "Column 'a' holds cells of type list"),
        (pd.DataFrame({"a": pd.period_range("2020", periods=4, freq="M")}), TypeError, "to_timestamp"),
        (pl.DataFrame({"a": [1.0] * 4}).lazy(), (TypeError, ValueError), "collect|DataFrame"),
    ],
    ids=["twice", "mixed names", "no columns", "no rows", "lists", "periods", "lazy"],
)
def test_frames_that_cannot_be_fitted(classifier, frame, error, message):
    with pytest.raises(error, match=message):
        classifier.fit(frame, [0, 1, 0, 1])


def test_a_frame_that_says_nothing_predicts_the_shares_of_the_classes():
    y = np.array([0, 0, 0, 1] * 10)
    frame = pd.DataFrame({"only": ["same"] * 40, "empty": [None] * 40})
    model = MLPClassifier(**SMALL | {"max_epochs": 200, "dropout": 0.0}).fit(frame, y)
    assert_allclose(model.predict_proba(frame)[:, 1], 0.25, atol=0.03)


def test_names_that_are_numbers_are_positions():
    X, y = make_classification(40, 4, random_state=0)
    model = MLPClassifier(**SMALL).fit(pd.DataFrame(X), y)
    assert not hasattr(model, "feature_names_in_")
    assert_array_equal(model.predict_proba(pd.DataFrame(X)), MLPClassifier(**SMALL).fit(X, y).predict_proba(X))


# --- arrays and sparse matrices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "bool"]
)
def test_numeric_dtypes_are_the_same_numbers(dtype):
    X = np.random.RandomState(0).randint(0, 2 if dtype == "bool" else 100, size=(40, 3)).astype(dtype)
    y = X[:, 0] > X[:, 0].mean()
    expected = MLPClassifier(**SMALL).fit(X.astype(float), y).predict_proba(X.astype(float))
    assert_array_equal(MLPClassifier(**SMALL).fit(X, y).predict_proba(X), expected)


def test_lists_and_objects_of_numbers_are_arrays():
    X, y = make_classification(40, 4, random_state=0)
    p = MLPClassifier(**SMALL).fit(X, y).predict_proba(X)
    for other in (X.tolist(), X.astype(object), X.astype(">f8"), np.asfortranarray(X)):
        assert_array_equal(MLPClassifier(**SMALL).fit(other, y.tolist()).predict_proba(other), p)


def test_read_only_memory_maps(tmp_path):
    X, y = make_classification(40, 4, random_state=0)
    p = MLPClassifier(**SMALL).fit(X, y).predict_proba(X)
    for dtype in (np.float64, np.float32):
        for name, array in {"X": X.astype(dtype), "y": y, "w": np.ones(40)}.items():
            np.save(tmp_path / f"{name}.npy", array)
        mapped, labels, weight = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "Xyw")
        model = MLPClassifier(**SMALL).fit(mapped, labels, sample_weight=weight)
        assert_allclose(model.predict_proba(mapped), p, rtol=1e-4)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_array, sp.coo_array, sp.lil_matrix, sp.dok_array])
def test_sparse_formats_are_the_same_numbers(make):
    X = sp.random_array((60, 8), density=0.3, rng=np.random.default_rng(0), format="csr")
    y = X.toarray().sum(axis=1)
    model = MLPRegressor(**SMALL).fit(X, y)
    assert_array_equal(MLPRegressor(**SMALL).fit(make(X), y).predict(make(X)), model.predict(X))
    assert_allclose(model.predict(X.toarray()), model.predict(X), rtol=1e-6)


def test_unscaled_sparse_fits_are_dense_fits():
    X = sp.random_array((60, 8), density=0.3, rng=np.random.default_rng(0), format="csr")
    y = X.toarray().sum(axis=1)
    settings = SMALL | {"numeric_scaling": None, "numeric_embedding": None, "dtype": "float64"}
    dense = MLPRegressor(**settings).fit(X.toarray(), y).predict(X.toarray())
    assert_allclose(MLPRegressor(**settings).fit(X, y).predict(X), dense, rtol=1e-9)


def test_early_stopping_on_a_sparse_table():
    X = sp.random_array((120, 8), density=0.3, rng=np.random.default_rng(0), format="csr")
    settings = SMALL | {"early_stopping": True, "n_members": 2}
    model = MLPRegressor(**settings, scoring="r2").fit(X, X.toarray().sum(axis=1))
    assert len(model.validation_scores_) == model.n_iter_


def test_missing_values_for_a_model_of_sparse_tables():
    # There is no missing value in a sparse matrix, so none is known.
    X = sp.random_array((60, 3), density=0.5, rng=np.random.default_rng(0), format="csr")
    model = MLPRegressor(**SMALL).fit(X, X.toarray().sum(axis=1))
    dense = X.toarray()[:2]
    dense[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.predict(dense)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_array, sp.lil_matrix])
def test_missing_values_in_a_sparse_matrix_are_refused_with_the_remedy(make):
    X, y = sp.random_array((60, 3), density=0.5, rng=np.random.default_rng(0), format="csr"), np.arange(60.0)
    model = MLPRegressor(**SMALL).fit(X, y)
    X.data[0] = np.nan
    message = r"NaN, but sparse matrices take no missing values\. Pass a dense array or a DataFrame"
    for call in (lambda: MLPRegressor(**SMALL).fit(make(X), y), lambda: model.predict(make(X))):
        with pytest.raises(ValueError, match=message) as refused:
            call()
        assert "HistGradientBoosting" not in str(refused.value)
    assert np.isfinite(MLPRegressor(**SMALL).fit(X.toarray(), y).predict(X.toarray())).all()


def test_infinity_in_a_sparse_matrix_is_refused():
    X = sp.csr_array(np.array([[1.0, np.inf], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="infinity"):
        MLPRegressor(**SMALL).fit(X, [0.0, 1.0])


def test_huge_numbers_for_a_model_of_sparse_tables():
    X = sp.random_array((60, 3), density=0.5, rng=np.random.default_rng(0), format="csr")
    model = MLPRegressor(**SMALL).fit(X, X.toarray().sum(axis=1))
    assert np.isfinite(model.predict(sp.csr_array(np.full((1, 3), 1e300)))).all()


# --- columns of many levels --------------------------------------------------------------------------------------


def panel(effect, n_levels=100, n_rows=4):
    """A frame with a column of levels of so many rows each, which the target differs among, and one of numbers."""
    rng = np.random.RandomState(0)
    person = rng.permutation(np.repeat(np.arange(n_levels), n_rows))
    frame = pd.DataFrame({"x": rng.normal(size=len(person)), "person": [f"person {i}" for i in person]})
    frame.loc[person == 0, "person"] = None
    y = effect * rng.normal(size=n_levels)[person] + frame["x"] + 0.3 * rng.normal(size=len(person))
    return frame, y.to_numpy()


def test_levels_of_few_rows_count_by_their_mean_target():
    X, y = panel(effect=1)
    train = np.arange(len(y)) % 4 > 0
    model = MLPRegressor(random_state=0).fit(X[train], y[train])
    assert model.score(X[~train], y[~train]) > 0.8
    held_out = np.corrcoef(model.out_of_fold_, y[train])[0, 1] ** 2
    # What networks were told of rows that they held out is as good as what they are told of new ones.
    assert held_out < model.score(X[~train], y[~train]) + 0.05
    # Of persons that were not there, nothing is known.
    new = X[~train].assign(person="somebody else")
    assert np.std(model.predict(new) - new["x"]) < 0.3


def test_levels_that_tell_nothing_do_no_harm(monkeypatch):
    monkeypatch.setattr("skdl.data.tables.table_encoder.columns_with_means", lambda columns, y, classification: [0])
    X, y = panel(effect=0)
    train = np.arange(len(y)) % 4 > 0
    model = MLPRegressor(random_state=0).fit(X[train], y[train])
    assert model._encoder.level_means
    assert model.score(X[~train], y[~train]) > 0.85


@pytest.mark.parametrize("how", ["fit", "partial_fit", "warm start"])
def test_no_row_of_training_is_told_its_own_target(monkeypatch, how):
    X, y = panel(effect=1)
    seen = []
    table_of = TableEncoder.training_table

    def noted(encoder, X, y, rows, weight, groups):
        seen.append((len(X), len(y), groups))
        return table_of(encoder, X, y, rows, weight, groups)

    monkeypatch.setattr(TableEncoder, "training_table", noted)
    model = MLPRegressor(max_epochs=2, random_state=0, warm_start=True)
    if how == "partial_fit":
        model.partial_fit(X, y).partial_fit(X[:9], y[:9])
        assert seen == [(400, 400, None)]
        return
    groups = np.arange(400) % 7
    model.fit(X, y, groups=groups)
    if how == "warm start":
        model.fit(X[:200], y[:200])
        assert seen[1] == (200, 200, None)
    assert_array_equal(seen[0][2], groups)


def test_going_on_with_other_rows_predicts_by_their_means():
    X, y = panel(effect=1)
    model = MLPRegressor(random_state=0, warm_start=True, max_epochs=30).fit(X, y)
    first = model._encoder
    told = first.transform(X).values
    # Whoever was above the mean is below it now.
    now = np.random.default_rng(1).permutation(400)
    model.fit(X.iloc[now], X["x"].to_numpy()[now] * 2 - y[now])
    assert model.score(X, X["x"] * 2 - y) > 0.9
    # A fit that failed would have left the first encoder.
    assert_array_equal(first.transform(X).values, told)


def test_going_on_with_the_same_rows_keeps_their_means():
    X, y = panel(effect=1)
    model = MLPRegressor(**SMALL, warm_start=True).fit(X, y)
    before = model._encoder.transform(X).values
    assert_array_equal(model.fit(X, y)._encoder.transform(X).values, before)


@pytest.mark.parametrize("n_members", [1, 4])
def test_scorers_are_told_nothing_of_the_rows_that_they_score(n_members):
    X, y = panel(effect=1)
    told = []

    def scoring(model, X_scored, y_scored):
        values = model.predict(X_scored)
        assert_array_equal(model.predict(X_scored.copy()), values)
        assert_allclose(model.predict(X_scored[::3]), values[::3], rtol=1e-5, atol=1e-6)
        (means,) = model._encoder.level_means.values()
        told.extend(means.transform(X_scored["person"].to_numpy(dtype=object, na_value=None)).ravel())
        return r2_score(y_scored, values)

    model = MLPRegressor(random_state=0, max_epochs=2, n_members=n_members, early_stopping=True, scoring=scoring)
    # Of whole levels that are held out nothing is known, but by the targets of the very rows.
    model.fit(X, y, groups=X["person"].fillna("nobody"))
    assert len(told) > 0
    assert_array_equal(told, 0)
    assert np.any(model._encoder.level_means[0].means_LT != 0)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_means_of_levels_survive_files(library):
    X, y = panel(effect=1)
    X = X if library == "pandas" else pl.from_pandas(X)
    model = MLPClassifier(**SMALL).fit(X, y > 0)
    assert model._encoder.level_means
    expected = model.predict_proba(X)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), expected)
    saved = skops.io.dumps(model)
    loaded = skops.io.loads(saved, trusted=skops.io.get_untrusted_types(data=saved))
    assert_array_equal(loaded.predict_proba(X), expected)


@pytest.mark.parametrize(
    "cells",
    [
        [False, True],
        pd.Categorical([False, None, True]),
        pd.IntervalIndex.from_breaks([0.0, 1.0, 2.5]).astype("category"),
        pd.period_range("2020-01", periods=2, freq="M").astype("category"),
        [datetime.date(2020, 1, 31), datetime.date(2021, 1, 31)],
        [Decimal("1.50"), Decimal("2.5"), None],
        [(1, "a"), (2, "b"), frozenset("ab")],
        [1, 2.5, "text", None],
    ],
    ids=["flags", "flags or none", "intervals", "periods", "dates", "decimals", "tuples", "mixture"],
)
def test_levels_of_any_type_survive_skops(cells):
    codes = np.arange(60) % len(cells)
    X = pd.DataFrame({"level": pd.Series(cells).take(codes).reset_index(drop=True).astype("category")})
    model = MLPClassifier(**SMALL).fit(X, codes)
    assert len(np.unique(model.predict_proba(X), axis=0)) == len(cells)
    saved = skops.io.dumps(model)
    loaded = skops.io.loads(saved, trusted=skops.io.get_untrusted_types(data=saved))
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_means_of_levels_are_those_of_the_training_rows_alone():
    X, y = panel(effect=1)
    weight = np.ones(400)
    weight[200:] = 0
    changed = np.where(weight > 0, y, 1000)
    one, other = (MLPRegressor(**SMALL).fit(X, target, sample_weight=weight) for target in (y, changed))
    assert one._encoder.level_means
    assert_array_equal(one.predict(X), other.predict(X))


@pytest.mark.parametrize("zone", ["America/New_York", "Etc/GMT-3", "Europe/Berlin"])
def test_stamps_may_change_their_zone_but_not_lose_it(zone):
    t = pd.Series(pd.date_range("2024-06-01", periods=40, freq="h", tz=zone))
    model = MLPRegressor(**SMALL).fit(t.to_frame("t"), np.arange(40.0))
    predicted = model.predict(t.to_frame("t"))
    assert_array_equal(model.predict(t.dt.tz_convert("UTC").to_frame("t")), predicted)
    assert_array_equal(model.predict(pl.from_pandas(t.to_frame("t"))), predicted)
    with pytest.raises(ValueError, match="stamps without a time zone, but those of fit had one"):
        model.predict(t.dt.tz_localize(None).to_frame("t"))


@pytest.mark.parametrize("ids", [[2**60, 2**60 + 1, 2**60 + 2], [2**53, 2**53 + 1]])
def test_identifiers_that_floats_cannot_tell_apart_must_stay_categories(ids):
    X = pd.DataFrame({"user": np.resize(ids, 30)})
    model = MLPRegressor(**SMALL).fit(X.astype("category"), np.arange(30.0))
    assert np.isfinite(model.predict(X.astype("category"))).all()
    with pytest.raises(ValueError, match=r"Column 'user' has integers of 2\*\*53 or more.*Convert it to categories"):
        model.predict(X)
