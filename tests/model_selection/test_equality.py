"""Every search and meta-estimator of scikit-learn gives inside ``train_together`` what it gives outside."""

from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFECV, SelectKBest, SequentialFeatureSelector
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, get_scorer, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    RepeatedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from torch.nn import functional as F

import skdl
from skdl.data.tables.numeric_embeddings import NUMERIC_EMBEDDINGS

GRID = {"learning_rate": [0.005, 0.02, 0.1], "l1": [0.0, 0.01]}


def first_weights(estimator):
    return np.abs(estimator.coefs_[0]).sum(1)


def with_two_labels(y):
    return np.column_stack([y, 1 - y])


SEARCHES = {
    "grid": lambda net, X, y, n_jobs: GridSearchCV(net(), GRID, cv=3, n_jobs=n_jobs).fit(X, y),
    "randomized": lambda net, X, y, n_jobs: RandomizedSearchCV(
        net(), {"learning_rate": loguniform(1e-3, 1e-1)}, n_iter=5, cv=3, random_state=0, n_jobs=n_jobs
    ).fit(X, y),
    "halving grid": lambda net, X, y, n_jobs: HalvingGridSearchCV(
        net(), GRID, cv=3, min_resources=20, random_state=0, n_jobs=n_jobs
    ).fit(X, y),
    "halving grid over epochs": lambda net, X, y, n_jobs: HalvingGridSearchCV(
        net(), GRID, cv=3, resource="max_epochs", min_resources=1, max_resources=4, n_jobs=n_jobs, random_state=0
    ).fit(X, y),
    "halving random": lambda net, X, y, n_jobs: HalvingRandomSearchCV(
        net(), {"learning_rate": loguniform(1e-3, 1e-1)}, n_candidates=5, cv=3, random_state=0, n_jobs=n_jobs
    ).fit(X, y),
    "cross_validate": lambda net, X, y, n_jobs: cross_validate(
        net(), X, y, cv=3, return_estimator=True, return_train_score=True, return_indices=True, n_jobs=n_jobs
    ),
    "cross_val_score": lambda net, X, y, n_jobs: cross_val_score(
        net(), X, y, cv=RepeatedKFold(n_splits=3, n_repeats=2, random_state=0), n_jobs=n_jobs
    ),
    "cross_val_predict": lambda net, X, y, n_jobs: cross_val_predict(net(), X, y, cv=3, n_jobs=n_jobs),
    "learning_curve": lambda net, X, y, n_jobs: learning_curve(
        net(), X, y, cv=3, train_sizes=[0.3, 0.6, 1.0], n_jobs=n_jobs
    ),
    "learning_curve, incremental": lambda net, X, y, n_jobs: learning_curve(
        net(), X, y, cv=3, train_sizes=[0.3, 0.6, 1.0], exploit_incremental_learning=True, n_jobs=n_jobs
    ),
    "validation_curve": lambda net, X, y, n_jobs: validation_curve(
        net(), X, y, cv=3, param_name="hidden_layer_sizes", param_range=[(4,), (8,), (4, 4)], n_jobs=n_jobs
    ),
    "permutation_test_score": lambda net, X, y, n_jobs: permutation_test_score(
        net(), X, y, cv=2, n_permutations=4, random_state=0, n_jobs=n_jobs
    ),
    "bagging": lambda net, X, y, n_jobs: BaggingClassifier(
        net(), n_estimators=5, max_samples=0.7, max_features=0.8, random_state=0, n_jobs=n_jobs
    ).fit(X, y),
    "voting": lambda net, X, y, n_jobs: VotingClassifier(
        [("a", net()), ("b", net(learning_rate=0.05)), ("c", LogisticRegression())], voting="soft", n_jobs=n_jobs
    ).fit(X, y),
    "stacking": lambda net, X, y, n_jobs: StackingClassifier(
        [("a", net()), ("b", net(activation="tanh"))], net(hidden_layer_sizes=()), cv=3, n_jobs=n_jobs
    ).fit(X, y),
    "one versus rest": lambda net, X, y, n_jobs: OneVsRestClassifier(net(), n_jobs=n_jobs).fit(X, y + (X[:, 0] > 1)),
    "one versus one": lambda net, X, y, n_jobs: OneVsOneClassifier(net(), n_jobs=n_jobs).fit(X, y + (X[:, 0] > 1)),
    "many outputs": lambda net, X, y, n_jobs: MultiOutputClassifier(net(), n_jobs=n_jobs).fit(X, with_two_labels(y)),
    "chain": lambda net, X, y, n_jobs: ClassifierChain(net(), cv=2, random_state=0).fit(X, with_two_labels(y)),
    "calibration": lambda net, X, y, n_jobs: CalibratedClassifierCV(net(), cv=3, n_jobs=n_jobs).fit(X, y),
    "threshold": lambda net, X, y, n_jobs: TunedThresholdClassifierCV(net(), cv=3, n_jobs=n_jobs).fit(X, y),
    "RFECV": lambda net, X, y, n_jobs: RFECV(
        net(), cv=3, min_features_to_select=2, importance_getter=first_weights, n_jobs=n_jobs
    ).fit(X, y),
    "SequentialFeatureSelector": lambda net, X, y, n_jobs: SequentialFeatureSelector(
        net(max_epochs=2), n_features_to_select=2, cv=2, n_jobs=n_jobs
    ).fit(X, y),
    "search in a search": lambda net, X, y, n_jobs: cross_validate(
        GridSearchCV(net(), GRID, cv=2, n_jobs=n_jobs), X, y, cv=3, return_estimator=True, n_jobs=n_jobs
    ),
    "bagging in a search": lambda net, X, y, n_jobs: GridSearchCV(
        BaggingClassifier(net(), n_estimators=3, random_state=0, n_jobs=n_jobs),
        {"estimator__learning_rate": [0.01, 0.1]},
        cv=2,
        n_jobs=n_jobs,
    ).fit(X, y),
    "search in bagging in a search": lambda net, X, y, n_jobs: GridSearchCV(
        BaggingClassifier(
            GridSearchCV(net(max_epochs=1), {"l2": [0.0, 0.1]}, cv=2, n_jobs=n_jobs),
            n_estimators=2,
            random_state=0,
            n_jobs=n_jobs,
        ),
        {"max_samples": [0.7, 1.0]},
        cv=2,
        n_jobs=n_jobs,
    ).fit(X, y),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_together__when_search_of_scikit_learn__then_as_without(check, net, data, name):
    report = check(lambda: SEARCHES[name](net, *data, None))

    assert sum(stack.n_models for stack in report) > 0


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
@pytest.mark.parametrize("name", ["grid", "search in a search", "stacking", "bagging"])
def test_together__when_n_jobs_is_given__then_as_without(assert_equal_runs, net, data, name, n_jobs):
    plain = SEARCHES[name](net, *data, None)

    with skdl.train_together():
        together = SEARCHES[name](net, *data, n_jobs)

    assert_equal_runs(plain, together)


REGRESSIONS = {
    "grid": lambda net, X, y: GridSearchCV(net(), GRID, cv=3).fit(X, y),
    "bagging": lambda net, X, y: BaggingRegressor(net(), n_estimators=4, random_state=0, n_jobs=2).fit(X, y),
    "voting": lambda net, X, y: VotingRegressor([("a", net()), ("b", net(l2=0.1))], n_jobs=2).fit(X, y),
    "stacking": lambda net, X, y: StackingRegressor([("a", net()), ("b", Ridge())], Ridge(), n_jobs=2).fit(X, y),
    "many outputs": lambda net, X, y: MultiOutputRegressor(net(), n_jobs=2).fit(X, np.column_stack([y, X[:, 0]])),
    "transformed target": lambda net, X, y: GridSearchCV(
        TransformedTargetRegressor(net(), transformer=StandardScaler()), {"regressor__l2": [0.0, 0.1]}, cv=2
    ).fit(X, y),
    "quantiles": lambda net, X, y: GridSearchCV(
        net(loss="quantile"), {"quantile": [0.1, 0.5, 0.9]}, cv=2, refit=False, scoring="neg_mean_absolute_error"
    ).fit(X, y),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_together__when_regression__then_as_without(networks, regressor, values, name):
    with joblib.parallel_config(backend="sequential"):
        plain = REGRESSIONS[name](regressor, *values)

    with skdl.train_together():
        together = REGRESSIONS[name](regressor, *values)

    if hasattr(plain, "cv_results_"):
        assert_allclose(together.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-10)
    for one, other in zip(networks(plain), networks(together), strict=True):
        assert_allclose(other, one, rtol=1e-10, atol=1e-12)


def test_together__when_float32__then_weights_to_1e_4(check, net, data):
    check(lambda: GridSearchCV(net(dtype="float32", max_epochs=8), GRID, cv=5).fit(*data), rtol=1e-4)


def test_together__when_float32_regression__then_weights_to_1e_4(networks, regressor, values):
    def run():
        return GridSearchCV(regressor(dtype="float32", max_epochs=8), GRID, cv=5).fit(*values)

    plain = run()
    with skdl.train_together():
        together = run()

    assert together.best_params_ == plain.best_params_
    assert_allclose(together.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-4)
    for one, other in zip(networks(plain), networks(together), strict=True):
        assert np.linalg.norm(other - one) <= 1e-4 * np.linalg.norm(one)


SETTINGS = [
    {"learning_rate": [0.001, 0.01, 0.1]},
    {"l1": [0.0, 0.001, 0.1]},
    {"l2": [0.0, 0.001, 0.1]},
    {"weight_decay": [0.0, 0.1, 1.0]},
    {"dropout": [0.0, 0.2, 0.7]},
    {"label_smoothing": [0.0, 0.1, 0.5]},
    {"momentum": [0.0, 0.5, 0.9], "optimizer": ["sgd"]},
    {"random_state": [0, 1, 2]},
    {"class_weight": [None, "balanced", {0: 1.0, 1: 5.0}]},
    {"max_epochs": [1, 2, 5]},
    {"gradient_clip": [None, 0.01, 1.0]},
    {"lr_schedule": ["constant", "cosine", "one_cycle", "step", "exponential", "plateau"], "lr_warmup": [0.0, 0.5]},
    {"n_iter_no_change": [1, 2, 5], "early_stopping": [True], "max_epochs": [6]},
    {"tol": [0.0, 0.1], "early_stopping": [True], "n_iter_no_change": [1], "max_epochs": [6]},
    {"validation_fraction": [0.1, 0.3], "early_stopping": [True]},
    {"scoring": [None, "accuracy", "roc_auc"], "early_stopping": [True], "n_iter_no_change": [2]},
    {"early_stopping": [False, True]},
    # Adam has none.
    {"nesterov": [False, True]},
]


@pytest.mark.parametrize("grid", SETTINGS, ids=lambda grid: next(iter(grid)))
def test_together__when_settings_differ_inside_a_stack__then_as_without(check, net, data, grid):
    report = check(lambda: GridSearchCV(net(), grid, cv=2, refit=False).fit(*data))

    n_fits = 2 * np.prod([len(values) for values in grid.values()])
    assert sum(stack.n_models for stack in report) == n_fits
    # One plan: a stack for each core, or one for each of two numbers of rows.
    assert len(report) <= max(joblib.cpu_count(), 2)


def test_together__when_everything_differs_at_once__then_as_without(check, net, data):
    grid = {
        "learning_rate": loguniform(1e-3, 1e-1),
        "l1": [0.0, 0.01],
        "l2": [0.0, 0.01],
        "weight_decay": [0.0, 0.1],
        "dropout": [0.0, 0.3],
        "label_smoothing": [0.0, 0.2],
        "class_weight": [None, "balanced"],
        "random_state": [0, 1, 2],
        "max_epochs": [1, 2, 4],
        "early_stopping": [False, True],
        "lr_schedule": ["constant", "cosine", "plateau"],
        "gradient_clip": [None, 0.1],
        "n_members": [1, 3],
        "scoring": [None, "accuracy"],
        "normalization": [None, "batch", "layer"],
        "activation": ["relu", "tanh"],
        "optimizer": ["adamw", "sgd", "rmsprop"],
        "batch_size": [8, 32],
    }

    check(lambda: RandomizedSearchCV(net(), grid, n_iter=30, cv=2, random_state=0).fit(*data))


def test_together__when_architectures_differ__then_a_stack_for_each(check, net, data):
    grid = {"hidden_layer_sizes": [(), (4,), (8, 4)], "activation": ["relu", "tanh"], "learning_rate": [0.01, 0.1]}

    report = check(lambda: GridSearchCV(net(), grid, cv=2, refit=False).fit(*data))

    # Networks of other activations have the same widths.
    assert len({stack.network for stack in report}) == 3
    assert len(report) >= 6


def test_together__when_ensembles_stop_early__then_as_without(check, net, data):
    grid = {"learning_rate": [0.01, 0.1], "n_iter_no_change": [1, 3]}

    report = check(lambda: GridSearchCV(net(n_members=3, early_stopping=True, max_epochs=6), grid, cv=2).fit(*data))

    assert sum(stack.n_models for stack in report) == 3 * (4 * 2 + 1)


def test_together__when_estimators_are_not_ours__then_they_just_run(check, net, data):
    pipe = make_pipeline(StandardScaler(), net())
    grid = {"mlpclassifier": [net(), LogisticRegression(), RandomForestClassifier(5, random_state=0, n_jobs=2)]}

    report = check(lambda: GridSearchCV(pipe, grid, cv=3, refit=False, n_jobs=2).fit(*data))

    assert sum(stack.n_models for stack in report) == 3


def test_together__when_no_estimator_is_ours__then_no_stack(check, data):
    assert check(lambda: cross_val_score(RandomForestClassifier(5, random_state=0, n_jobs=2), *data, cv=3)) == []


def test_together__when_preprocessing_differs_by_candidate__then_as_without(check, net, data):
    pipe = make_pipeline(StandardScaler(), FeatureUnion([("pca", PCA()), ("best", SelectKBest(k=1))], n_jobs=2), net())
    grid = {"featureunion__pca__n_components": [1, 2], "mlpclassifier__learning_rate": [0.01, 0.1]}

    check(lambda: GridSearchCV(pipe, grid, cv=3).fit(*data))


@pytest.fixture(scope="module")
def frame(data):
    X, _ = data
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    frame["place"] = np.array(["north", "south", "east"], dtype=object)[np.digitize(X[:, 0], [-1.0, 1.0])]
    frame.loc[::7, "a"] = np.nan
    return frame


def test_together__when_column_transformer_on_a_frame__then_as_without(check, net, data, frame):
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(FunctionTransformer(np.nan_to_num), StandardScaler()), ["a", "b"]),
            ("place", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["place"]),
        ],
        n_jobs=2,
    )
    grid = {"mlpclassifier__l1": [0.0, 0.1], "columntransformer__numbers__standardscaler__with_mean": [True, False]}

    check(lambda: GridSearchCV(make_pipeline(columns, net()), grid, cv=3).fit(frame, data[1]))


@pytest.mark.parametrize("convert", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize("embedding", [None, "piecewise_linear", "periodic", "both"])
def test_together__when_raw_frame__then_as_without(monkeypatch, check, net, data, frame, convert, embedding):
    monkeypatch.setitem(NUMERIC_EMBEDDINGS, "both", replace(NUMERIC_EMBEDDINGS["both"], min_rows=1))
    grid = {"learning_rate": [0.01, 0.1], "numeric_embedding": [embedding]}

    check(lambda: GridSearchCV(net(), grid, cv=3).fit(convert(frame), data[1]))


@pytest.mark.parametrize("n_members", [1, 3])
def test_together__when_columns_are_scaled_by_relevance__then_as_without(check, net, data, n_members):
    grid = {"learning_rate": [0.01, 0.1], "relevance_scaling": [False, True]}

    check(lambda: GridSearchCV(net(early_stopping=True, n_members=n_members), grid, cv=3).fit(*data))


def test_together__when_frame_has_categories_alone__then_as_without(check, net, data, frame):
    check(lambda: GridSearchCV(net(), {"learning_rate": [0.01, 0.1]}, cv=2).fit(frame[["place"]], data[1]))


def test_together__when_sparse__then_as_without(check, net, data):
    from scipy.sparse import csr_array

    X = csr_array(data[0] * (np.abs(data[0]) > 0.5))

    check(lambda: GridSearchCV(net(), {"learning_rate": [0.01, 0.1]}, cv=2).fit(X, data[1]))


def test_together__when_weights_are_routed__then_as_without(check, net, data):
    X, y = data
    weight = np.random.default_rng(0).uniform(0.1, 5, len(y))
    weight[::9] = 0

    def run():
        with sklearn.config_context(enable_metadata_routing=True):
            estimator = net().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
            return GridSearchCV(estimator, GRID, cv=3, scoring=scorer).fit(X, y, sample_weight=weight)

    check(run)
    unweighted = GridSearchCV(net(), GRID, cv=3).fit(X, y)
    assert not np.array_equal(run().cv_results_["mean_test_score"], unweighted.cv_results_["mean_test_score"])


def balanced_and_raw(estimator, X, y):
    return {"raw": accuracy_score(y, estimator.predict(X)), "first": float(estimator.predict(X)[0])}


@pytest.mark.parametrize(
    ("scoring", "refit"),
    [
        (["accuracy", "f1", "roc_auc"], "roc_auc"),
        ({"a": "accuracy", "b": make_scorer(accuracy_score)}, "b"),
        (balanced_and_raw, "raw"),
        (lambda estimator, X, y: accuracy_score(y, estimator.predict(X)), True),
        ("f1", lambda results: int(np.argmin(results["mean_test_score"]))),
    ],
    ids=["names", "dict", "callable of several", "callable", "refit callable"],
)
def test_together__when_scored_otherwise__then_as_without(check, net, data, scoring, refit):
    check(lambda: GridSearchCV(net(), GRID, cv=3, scoring=scoring, refit=refit, return_train_score=True).fit(*data))


def test_together__when_probabilities_are_scored__then_to_rounding(net, data):
    def run():
        return cross_val_score(net(), *data, cv=3, scoring="neg_log_loss")

    plain = run()
    with skdl.train_together():
        assert_allclose(run(), plain, rtol=1e-12)


@pytest.mark.parametrize("parameter", ["loss", "activation"])
def test_together__when_function_is_a_users_own__then_alone_and_as_without(check, net, data, parameter):
    def own_loss(output, target):
        return F.cross_entropy(output, target, reduction="none", label_smoothing=0.1)

    def own_activation(x):
        return F.relu(x) ** 2

    function = {"loss": own_loss, "activation": own_activation}[parameter]
    grid = {parameter: [{"loss": "focal", "activation": "relu"}[parameter], function], "learning_rate": [0.01, 0.1]}
    if parameter == "loss":
        # The task takes a function's target as class indices for two classes or more.
        data = data[0], data[1] + (data[0][:, 0] > 1)

    report = check(lambda: GridSearchCV(net(), grid, cv=2, refit=False).fit(*data))

    assert [stack.n_models for stack in report].count(1) == 4


def test_together__when_warm_start_goes_on__then_as_without(check, net, data):
    estimator = net(warm_start=True).fit(*data)

    def run():
        goes_on = [clone(estimator).fit(*data) for _ in range(2)]
        return [one.fit(*data) for one in goes_on]

    check(run)


def test_together__when_permutation_importance__then_as_without(check, net, data):
    estimator = net().fit(*data)

    check(lambda: dict(permutation_importance(estimator, *data, n_repeats=3, random_state=0, n_jobs=2)))


def test_together__when_scorer_fits_a_network__then_as_without(check, net, data):
    X, y = data

    def scorer(estimator, X_val, y_val):
        return accuracy_score(y_val, net(random_state=1).fit(X, y).predict(X_val))

    check(lambda: cross_validate(net(), X, y, cv=3, scoring=scorer))


def test_together__when_fit_is_scored_by_another_fit__then_as_without(check, net, data):
    # The scorer is called while the stack is trained.
    X, y = data

    def scorer(estimator, X_val, y_val):
        return get_scorer("accuracy")(net(max_epochs=1).fit(X, y), X_val, y_val)

    check(lambda: cross_validate(net(early_stopping=True, scoring=scorer), X, y, cv=2))


def test_together__when_fit_is_scored_by_a_search__then_as_without(check, net, data):
    X, y = data

    def scorer(estimator, X_val, y_val):
        inner = GridSearchCV(net(max_epochs=1), {"l2": [0, 0.1]}, cv=2)
        return cross_val_score(inner, X, y, cv=2).mean()

    # The search ends with a lone fit of the thread that opened the context.
    check(lambda: GridSearchCV(net(max_epochs=2, early_stopping=True, scoring=scorer), {"l2": [0]}, cv=2).fit(X, y))


def test_together__when_random_state_is_none__then_random(net, networks, data):
    with skdl.train_together():
        folds = [cross_validate(net(random_state=None), *data, cv=2, return_estimator=True) for _ in range(2)]

    first, second, third, fourth = (row for fold in folds for row in networks(fold))
    for one, other in [(first, second), (first, third), (second, fourth)]:
        assert not np.array_equal(one, other)


def test_together__when_run_twice__then_equal(networks, net, data):
    def run():
        with skdl.train_together():
            return GridSearchCV(net(), GRID, cv=2).fit(*data)

    for one, other in zip(networks(run()), networks(run()), strict=True):
        assert_allclose(other, one, rtol=0, atol=1e-14 * np.abs(one).max())


def test_together__when_candidates_stand_in_another_order__then_each_as_before(net, data):
    rates = [0.001, 0.01, 0.03, 0.1]

    def run(rates):
        with skdl.train_together():
            search = GridSearchCV(net(dropout=0.2), {"learning_rate": rates}, cv=3, refit=False).fit(*data)
        return search.cv_results_["mean_test_score"]

    assert_array_equal(run(rates), run(rates[::-1])[::-1])
