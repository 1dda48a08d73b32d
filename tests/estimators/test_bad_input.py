"""Data that nobody would wish on a network: it is refused in words, or predicted without a NaN."""

import re
import warnings
from numbers import Integral

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import config_context
from sklearn.utils._param_validation import Interval

from skdl import (
    CNNClassifier,
    CNNRegressor,
    DeepImputer,
    MLPClassifier,
    MLPEstimator,
    MLPRegressor,
    RNNClassifier,
    RNNRegressor,
)

SMALL = {"hidden_layer_sizes": (4,), "max_epochs": 2, "early_stopping": False, "n_members": 1, "random_state": 0}
FEW = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
N = 12
ANY_FLOAT = st.floats(width=64)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALINGS = st.sampled_from(["robust", "standard", None])
#: What a message must say for a user to find the cause: the argument or column, and what is wrong with it.
WORDS = re.compile(
    "Column|Complex|Expected|NaN|Input|bytes|class|convert|diverged|feature|inconsistent|infinity|integer|label|names|"
    "sample|string|target|weight"
)


def outcome(model, X, y, new=None, **fit_params):
    """Fit and predict: "fitted", or the kind of refusal. All else is an error of the test."""
    with warnings.catch_warnings():
        # Warnings are allowed answers too; what they warn of is tested elsewhere.
        warnings.simplefilter("ignore")
        try:
            model.fit(X, y, **fit_params)
            predicted = model.predict(X if new is None else new)
        except (ValueError, TypeError) as error:
            return "refused" if WORDS.search(str(error)) else f"refused, saying too little: {error}"
        assert len(predicted) == len(X if new is None else new)
        if predicted.dtype.kind == "f":
            assert np.isfinite(predicted).all()
        if hasattr(model, "predict_proba"):
            p = model.predict_proba(X if new is None else new)
            assert np.isfinite(p).all() and np.allclose(p.sum(axis=1), 1, atol=1e-5)
            assert np.isfinite(model.predict_log_proba(X if new is None else new)).all()
    return "fitted"


Y = np.arange(N) % 2
EMBEDDINGS = st.sampled_from([None, "piecewise_linear", "periodic"])


@FEW
@given(hnp.arrays(np.float64, (N, 2), elements=ANY_FLOAT), SCALINGS, EMBEDDINGS)
def test_any_float_is_fitted_unless_it_is_infinite(X, scaling, embedding):
    model = MLPClassifier(**SMALL, numeric_scaling=scaling, numeric_embedding=embedding)
    expected = "refused" if np.isinf(X).any() else "fitted"
    assert outcome(model, X, Y) == expected
    assert outcome(model, pd.DataFrame(X, columns=["a", "b"]), Y) == expected


@FEW
@given(hnp.arrays(np.float64, (3, 2), elements=ANY_FLOAT), SCALINGS, st.sampled_from(["squared_error", "poisson"]))
def test_any_float_is_predicted_unless_it_is_infinite(new, scaling, loss):
    X = np.random.RandomState(0).normal(size=(N, 2))
    model = MLPRegressor(**SMALL | {"max_epochs": 20, "learning_rate": 0.05}, numeric_scaling=scaling, loss=loss)
    expected = "refused" if np.isinf(new).any() else "fitted"
    assert outcome(model, X, np.exp(X[:, 0]), new) == expected


@FEW
@given(
    hnp.arrays(np.float64, N, elements=st.floats(-1e300, 1e300)),
    st.sampled_from(["squared_error", "huber", "quantile"]),
)
def test_any_finite_target_is_fitted(y, loss):
    X = np.random.RandomState(0).normal(size=(N, 2))
    assert outcome(MLPRegressor(**SMALL, loss=loss), X, y) == "fitted"


def test_targets_at_the_end_of_floats_are_predicted_or_refused():
    X = np.random.RandomState(0).normal(size=(N, 2))
    assert outcome(MLPRegressor(**SMALL), X, np.where(Y == 0, 1.7e308, -1.7e308)) in ("fitted", "refused")


@FEW
@given(hnp.arrays(np.float64, N, elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-1e9, 1e9), ANY_FLOAT)))
def test_targets_of_a_classifier_are_labels(y):
    X = np.random.RandomState(0).normal(size=(N, 2))
    # Whole numbers beyond 64 bits are continuous to scikit-learn.
    is_label = np.isfinite(y).all() and np.all(y == np.floor(y)) and np.abs(y).max() < 2**63
    assert outcome(MLPClassifier(**SMALL), X, y) == ("fitted" if is_label else "refused")


@FEW
@given(hnp.arrays(np.float64, N, elements=ANY_FLOAT))
def test_counts_are_not_negative(y):
    X = np.random.RandomState(0).normal(size=(N, 2))
    expected = "fitted" if np.isfinite(y).all() and np.all(y >= 0) else "refused"
    assert outcome(MLPRegressor(**SMALL, loss="poisson"), X, y) == expected


@FEW
@given(hnp.arrays(np.float64, N, elements=ANY_FLOAT), st.booleans())
def test_weights_are_finite_and_not_negative(weight, classifies):
    X = np.random.RandomState(0).normal(size=(N, 2))
    model = (MLPClassifier if classifies else MLPRegressor)(**SMALL)
    valid = np.isfinite(weight).all() and np.all(weight >= 0) and np.any(weight > 0)
    assert outcome(model, X, Y, sample_weight=weight) == ("fitted" if valid else "refused")


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    ANY_FLOAT,
    st.text(max_size=3),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.binary(max_size=2),
    st.complex_numbers(),
    st.just(pd.NA),
    st.just(pd.NaT),
    st.tuples(st.integers()),
    st.lists(st.integers(), max_size=2),
)


@FEW
@given(st.lists(CELLS, min_size=N, max_size=N))
def test_objects_of_any_kind_are_fitted_or_refused(cells):
    column = np.empty(N, dtype=object)
    column[:] = cells
    assert outcome(MLPClassifier(**SMALL), pd.DataFrame({"a": column, "b": np.arange(N)}), Y) in ("fitted", "refused")


@FEW
@given(
    st.sampled_from([st.text(max_size=3), st.integers(), st.dates(), st.datetimes(), st.booleans(), FINITE]), st.data()
)
def test_objects_of_one_kind_are_fitted_with_any_of_them_missing(cells, data):
    column = data.draw(st.lists(st.one_of(st.none(), cells), min_size=N, max_size=N))
    train, new = (pd.DataFrame({"a": pd.Series(part, dtype=object)}) for part in (column[:8], column[8:]))
    assert outcome(MLPClassifier(**SMALL), train, Y[:8], new) == "fitted"


@FEW
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4), st.sampled_from(["array", "pandas", "polars"]))
def test_shapes_that_do_not_match_are_refused(n_rows, n_columns, n_targets, container):
    X = np.arange(float(n_rows * n_columns)).reshape(n_rows, n_columns)
    columns = {f"c{j}": X[:, j] for j in range(n_columns)}
    if container != "array":
        X = pd.DataFrame(columns, index=range(n_rows)) if container == "pandas" else pl.DataFrame(columns)
    valid = n_rows == n_targets and n_rows > 0 and n_columns > 0
    assert outcome(MLPRegressor(**SMALL), X, np.arange(float(n_targets))) == ("fitted" if valid else "refused")


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor, MLPEstimator])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalization": "batch"},
        {"batch_size": 1},
        {"n_members": 2},
        {"numeric_scaling": None},
        {"hidden_layer_sizes": ()},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_rows", [1, 2])
def test_very_few_rows_of_one_class(Estimator, settings, n_rows):
    X = np.arange(2.0 * n_rows).reshape(n_rows, 2)
    assert outcome(Estimator(**SMALL | settings), X, np.full(n_rows, 3)) == "fitted"


@pytest.mark.parametrize("n_members", [1, 2, 8])
def test_too_few_rows_to_hold_any_out(n_members):
    model = MLPClassifier(**SMALL | {"early_stopping": True, "n_members": n_members})
    remedy = "Set early_stopping=False" if n_members == 1 else "Lower n_members"
    # scikit-learn's checks look for the number of samples in these words.
    with pytest.raises(ValueError, match=f"n_samples=1. {remedy}"):
        model.fit([[0.0]], [0])


def test_more_members_than_rows_names_them():
    model = MLPRegressor(**SMALL | {"early_stopping": True, "n_members": 8})
    with pytest.raises(ValueError, match=r"n_members=8 .* n_samples=5\. Lower n_members"):
        model.fit(np.zeros((5, 1)), np.arange(5.0))


def test_too_large_a_share_to_hold_out_names_it():
    model = MLPRegressor(**SMALL | {"early_stopping": True, "n_members": 3}, validation_fraction=0.9)
    with pytest.raises(ValueError, match=r"n_samples=5\. Lower validation_fraction"):
        model.fit(np.zeros((5, 1)), np.arange(5.0))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (1, "y should be a 1d array"),
        ({"a": 1}, "y should be a 1d array"),
        (np.zeros((N, 1, 1)), "dim 3"),
        (np.zeros((1, N)), "inconsistent numbers of samples"),
        (Y + 1j, "Complex data not supported"),
        (Y.astype("S1"), "bytes"),
        (np.array([0, "a"] * 6, dtype=object), "Unknown label type: y contains values of type int, str"),
        (np.array([1, "a", 2.5] * 4, dtype=object), "Unknown label type: y contains values of type float, int, str"),
        (np.array(["a", None] * 6, dtype=object), "Input y contains NaN or None. Drop rows without a label"),
        (np.array([[1, None]] * N, dtype=object), "Input y contains NaN or None"),
        (pd.Series(["a", None] * 6, dtype="str"), "NaN"),
        (pd.Series(["a", pd.NA] * 6, dtype="string"), "Input y contains NaN or None"),
        (pl.Series(["a", None] * 6), "Input y contains NaN or None"),
        (np.linspace(0, 1, N), "continuous"),
        (np.stack([Y, Y + 1], axis=1), "multi|Unknown label type"),
        ([("a", "b")] * N, "multi|Unknown label type"),
        (pd.DataFrame({"a": ["x", "y"] * 6, "b": ["u", "v"] * 6}), "multi|Unknown label type"),
    ],
    ids=range(18),
)
def test_targets_that_are_no_labels(y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MLPClassifier(**SMALL).fit(np.zeros((N, 2)), y)


@pytest.mark.parametrize(
    "y",
    [
        np.array(["2020-01-01", "NaT"] * 6, dtype="datetime64[D]"),
        np.arange(N).astype("timedelta64[s]"),
        pd.Series(pd.date_range("2020-01-01", periods=N)),
        pl.Series(pd.date_range("2020-01-01", periods=N).to_numpy()),
    ],
    ids=range(4),
)
def test_targets_that_are_dates_are_no_numbers(y):
    with pytest.raises(TypeError, match=r"y holds dates or durations\. Convert it to numbers"):
        MLPRegressor(**SMALL).fit(np.zeros((N, 2)), y)


def test_continuous_targets_of_the_estimator_of_both_tasks_name_the_remedy():
    with pytest.raises(ValueError, match=r"task=['\"]regression"):
        MLPEstimator(**SMALL).fit(np.zeros((N, 2)), np.linspace(0, 1, N))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(N), "Expected 2D array"),
        (np.zeros((N, 2, 1)), "dim 3"),
        (None, "Expected 2D array"),
        (np.zeros((N, 2)) + 1j, "Complex data not supported"),
        (np.array([["a", "b"]] * N), "Text is encoded in the columns of a DataFrame"),
        (np.array([[b"a", b"b"]] * N), "could not convert"),
        (np.array([[[1], 2]] * N, dtype=object), "sequence"),
        ([[1.0], [1.0, 2.0]] * 6, "inhomogeneous|sequence"),
        (pd.Series(np.zeros(N)), "2-dimensional|2D"),
        (np.full((N, 1), np.inf), "Input X contains infinity"),
        (np.full((N, 1), "NaT", dtype="datetime64[D]"), "dates or durations, which are encoded in a DataFrame"),
        (np.ones((N, 1), dtype="timedelta64[s]"), "dates or durations, which are encoded in a DataFrame"),
        ({"a": np.zeros(N)}, r"X is a dict\. Pass pandas\.DataFrame\(X\)"),
        (np.zeros(N, dtype=[("a", float)]), r"X is a structured array\. Pass pandas\.DataFrame\(X\)"),
    ],
    ids=range(14),
)
def test_tables_that_are_none(X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MLPClassifier(**SMALL).fit(X, Y)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("no such device", "Unknown device 'no such device'"),
        ("meta", "Unknown device 'meta'"),
        ("", "Unknown device ''"),
        ("cpu:3", "not available on this machine"),
        ("cuda:99", "not available on this machine"),
        (torch.device("meta"), "Unknown device 'meta'"),
        (torch.device("cuda", 99), "device='cuda:99' is not available on this machine"),
        (0, "'device' parameter of MLPClassifier must be an instance of 'str' or .*device'. Got 0 instead"),
    ],
)
def test_unknown_devices_are_named(device, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**SMALL, device=device).fit(np.zeros((N, 2)), Y)


def test_bfloat16_is_for_other_devices():
    with pytest.raises(ValueError, match=r"bfloat16.*float32"):
        MLPClassifier(**SMALL, dtype="bfloat16", device="cpu").fit(np.zeros((N, 2)), Y)


@pytest.mark.parametrize("sizes", [[0], [1.5], [[3]], ["a"], [-1], (4, 0)])
def test_layer_sizes_are_whole_numbers(sizes):
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be integers of at least 1"):
        MLPClassifier(**SMALL | {"hidden_layer_sizes": sizes}).fit(np.zeros((N, 2)), Y)


WHOLE_NUMBERS = [
    pytest.param(Estimator, name, id=f"{Estimator.__name__}-{name}")
    for Estimator in (
        *(MLPClassifier, MLPRegressor, MLPEstimator),
        *(CNNClassifier, CNNRegressor, RNNClassifier, RNNRegressor, DeepImputer),
    )
    for name, allowed in Estimator._parameter_constraints.items()
    if any(isinstance(one, Interval) and one.type is Integral for one in allowed)
]


@pytest.mark.parametrize(("Estimator", "name"), WHOLE_NUMBERS)
def test_booleans_are_no_whole_numbers(Estimator, name):
    with pytest.raises(ValueError, match=rf"The '{name}' parameter of {Estimator.__name__} must be .* Got True"):
        Estimator(**{name: True}).fit(np.zeros((N, 2)), Y)


@pytest.mark.parametrize("sizes", [(), [], 3, (3,), [3, 2], np.array([3, 2]), np.int64(3)], ids=repr)
def test_layer_sizes_come_in_many_forms(sizes):
    model = MLPClassifier(**SMALL | {"hidden_layer_sizes": sizes}).fit(np.zeros((N, 2)), Y)
    assert [len(b) for b in model.intercepts_[:-1]] == np.atleast_1d(np.asarray(sizes, dtype=int)).tolist()


@pytest.mark.parametrize(
    "weights", [{0: -1.0, 1: 1.0}, {0: np.nan, 1: 1.0}, {0: np.inf, 1: 1.0}, {0: 0.0, 1: 0.0}, {0: "a"}]
)
def test_class_weights_are_weights(weights):
    with pytest.raises(ValueError, match="class_weight"):
        MLPClassifier(**SMALL, class_weight=weights).fit(np.zeros((N, 2)), Y)


def test_class_weights_of_labels_that_are_not_there_are_left_alone():
    X = np.random.RandomState(0).normal(size=(N, 2))
    # As scikit-learn's classifiers: a fold may lack a class.
    assert outcome(MLPClassifier(**SMALL, class_weight={0: 1, 1: 2, 9: 3}), X, Y) == "fitted"


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
@pytest.mark.parametrize("labels", [[-1, 1], [1, 2], [0, 5]])
def test_several_labels_are_columns_of_0_and_1(labels, fit):
    Y = np.random.RandomState(0).choice(labels, size=(N, 3))
    with pytest.raises(ValueError, match=r"y has a column for each label, which must be 1 where"):
        getattr(MLPClassifier(**SMALL), fit)(np.zeros((N, 2)), Y)


def test_several_labels_of_validation_rows_are_columns_of_0_and_1():
    X, Y = np.zeros((N, 2)), np.eye(3)[np.arange(N) % 3]
    with pytest.raises(ValueError, match=r"y_val has a column for each label.*Got \[5\.0\] as well"):
        MLPClassifier(**SMALL).fit(X, Y, X_val=X, y_val=5 * Y)


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_masked_targets_and_weights_are_refused(name):
    given = {"y": np.arange(N), "sample_weight": np.ones(N)}
    given[name] = np.ma.masked_less(given[name], 2)
    with pytest.raises(ValueError, match=f"{name} has masked values"):
        MLPRegressor(**SMALL).fit(np.zeros((N, 2)), **given)


def test_class_weights_of_several_labels_a_sample_are_refused():
    with pytest.raises(ValueError, match=r"dict is for one label per sample.*'balanced'"):
        MLPClassifier(**SMALL, class_weight={0: 1, 1: 2}).fit(np.zeros((N, 2)), np.stack([Y, 1 - Y], axis=1))


@pytest.mark.parametrize(("weights", "named"), [({0: 1, 7: 2}, "[7]"), ({"a": 5}, "['a']")])
def test_class_weights_of_labels_that_stand_for_others_are_refused(weights, named):
    with pytest.raises(ValueError, match=re.escape(f"labels that y does not have: {named}. Those of y are [0, 1]")):
        MLPClassifier(**SMALL, class_weight=weights).fit(np.zeros((N, 2)), Y)


def test_huge_numbers_are_predicted_without_a_warning():
    model = MLPClassifier(**SMALL).fit(np.random.RandomState(0).normal(size=(N, 2)), Y)
    assert np.isfinite(model.predict_proba(np.full((3, 2), 1e308))).all()


@pytest.mark.parametrize("factor", [1e39, 1e100, 1e300])
def test_huge_numbers_are_trained_on_without_a_warning(factor):
    X = np.random.RandomState(0).normal(size=(60, 2)) * [1, factor]
    model = MLPRegressor(**SMALL | {"numeric_embedding": "piecewise_linear"}).fit(X, X[:, 0])
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("y", [np.r_[np.nan, np.zeros(N - 1)], pd.array([None, *[1.0] * (N - 1)], dtype="Float64")])
def test_targets_of_regression_must_be_there(y):
    with pytest.raises(ValueError, match=r"Input y contains NaN\. Drop rows without a value of y"):
        MLPRegressor(**SMALL).fit(np.zeros((N, 2)), y)


@pytest.mark.parametrize(
    ("cells", "warns"),
    [
        ([f"{i / 7:.3f}" for i in range(60)], True),
        ([*[i / 7 for i in range(59)], "unknown"], True),
        # Codes of places, and words some of which are numbers.
        ([f"{i:05d}" for i in range(60)], False),
        ([f"{i / 7:.3f}" if i % 2 else f"word {i}" for i in range(60)], False),
        ([f"{i % 7 / 8}" for i in range(60)], False),
        ([f"{i / 7:.3f}" if i % 2 else "low" for i in range(60)], False),
        (pd.Categorical([f"{i / 7:.3f}" for i in range(60)]), False),
    ],
    ids=["text", "one text", "codes", "half", "few", "one word", "categories"],
)
def test_columns_of_numbers_as_text_are_warned_of(cells, warns, recwarn):
    X = pd.DataFrame({"a": np.arange(60), "b": pd.Series(cells, dtype=object if isinstance(cells, list) else None)})
    MLPRegressor(**SMALL).fit(X, np.arange(60)).predict(X)
    said = [str(warning.message) for warning in recwarn if "taken as categories" in str(warning.message)]
    assert len(said) == warns
    assert all("Column 'b'" in text and "pandas.to_numeric" in text for text in said)


def test_masked_cells_are_missing():
    X = np.random.RandomState(0).normal(size=(N, 2))
    masked = np.ma.masked_array(X, mask=np.zeros(X.shape, dtype=bool))
    masked[3, 1] = np.ma.masked
    with_nan = masked.filled(np.nan)
    model = MLPRegressor(**SMALL)
    np.testing.assert_array_equal(
        model.fit(masked, X[:, 0]).predict(masked), model.fit(with_nan, X[:, 0]).predict(with_nan)
    )
    imputer = DeepImputer(strategy="gaussian")
    np.testing.assert_array_equal(imputer.fit_transform(masked), imputer.fit_transform(with_nan))
    np.testing.assert_array_equal(imputer.transform(np.ma.masked_array(X)), X)


def test_regression_of_text_is_told_of_the_classifier():
    with pytest.raises(ValueError, match=r"y holds text: could not convert.*'a'.* use the classifier"):
        MLPRegressor().fit(np.eye(4), ["a", "b", "a", "b"])


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_validation_rows_that_are_not_like_x_are_named():
    X = pd.DataFrame({"a": np.arange(N), "b": ["u", "v"] * (N // 2)})
    with pytest.raises(ValueError, match="X_val is not like X: could not convert string"):
        MLPRegressor(**SMALL).fit(X, np.zeros(N), X_val=X.to_numpy(), y_val=np.zeros(N))


@pytest.mark.parametrize("batch_size", [np.int64(5), np.int8(5)])
def test_batch_sizes_may_be_numpys_integers(batch_size):
    X = np.random.RandomState(0).normal(size=(N, 2))
    expected = MLPClassifier(**SMALL, batch_size=5).fit(X, Y).predict_proba(X)
    assert np.array_equal(MLPClassifier(**SMALL, batch_size=batch_size).fit(X, Y).predict_proba(X), expected)


def test_parameters_are_not_looked_at_where_scikit_learn_is_told_not_to():
    X, y = np.zeros((4, 1)), np.arange(4) % 2
    model = MLPClassifier(**SMALL, l2=-1e-9)
    with pytest.raises(ValueError, match="'l2' parameter"):
        model.fit(X, y)
    with config_context(skip_parameter_validation=True):
        assert len(model.fit(X, y).predict(X)) == 4
