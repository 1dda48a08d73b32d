"""scikit-learn's meta-estimators, searches and inspection around a network."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import PartialDependenceDisplay, partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skdl import CNNClassifier, MLPClassifier, MLPEstimator, MLPRegressor, RNNClassifier, train_together

SMALL = {
    "hidden_layer_sizes": (8,),
    "max_epochs": 15,
    "learning_rate": 0.02,
    "early_stopping": False,
    "n_members": 1,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def labelled():
    return make_classification(120, 6, n_informative=4, n_classes=3, class_sep=2.0, random_state=0)


@pytest.fixture(scope="module")
def valued():
    X, y = make_regression(120, 6, n_informative=3, random_state=0)
    return X, y


@pytest.fixture(scope="module")
def frame(labelled):
    X, _ = labelled
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(6)])
    frame["place"] = np.array(["north", "south", None], dtype=object)[np.digitize(X[:, 0], [-1.0, 1.0])]
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(X)), unit="D")
    frame.loc[::7, "x1"] = np.nan
    return frame


@pytest.fixture
def classifier():
    return MLPClassifier(**SMALL)


@pytest.fixture
def regressor():
    return MLPRegressor(**SMALL)


# --- pipelines -------------------------------------------------------------------------------------------------------


def test_pipeline_gives_what_its_steps_give(classifier, labelled):
    X, y = labelled
    scaled = StandardScaler().fit_transform(X)
    alone = clone(classifier).fit(scaled, y).predict_proba(scaled)
    assert_array_equal(make_pipeline(StandardScaler(), classifier).fit(X, y).predict_proba(X), alone)


def test_raw_frame_goes_through_a_pipeline(classifier, frame, labelled):
    _, y = labelled
    pipeline = make_pipeline(classifier).fit(frame, y)
    assert pipeline.score(frame, y) > 0.8
    assert_array_equal(pipeline[-1].feature_names_in_, frame.columns)


@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_column_transformer_feeds_every_kind_of_output(classifier, frame, labelled, output):
    _, y = labelled
    columns = ColumnTransformer(
        [("place", OneHotEncoder(sparse_output=False), ["place"]), ("x", StandardScaler(), ["x0", "x1", "x2"])]
    )
    arrays = make_pipeline(clone(columns), clone(classifier)).fit(frame, y)
    chosen = make_pipeline(columns.set_output(transform=output), classifier).fit(frame, y)
    assert_allclose(chosen.predict_proba(frame), arrays.predict_proba(frame), rtol=1e-5)


# --- searches --------------------------------------------------------------------------------------------------------


def test_grid_search_chooses_what_it_says(frame, labelled, classifier):
    _, y = labelled
    grid = {"mlpclassifier__learning_rate": [1e-7, 2e-2], "mlpclassifier__l1": [0, 1e-4], "mlpclassifier__l2": [1e-4]}
    search = GridSearchCV(make_pipeline(classifier), grid, cv=2).fit(frame, y)
    assert search.best_params_["mlpclassifier__learning_rate"] == 2e-2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    refitted = clone(search.best_estimator_).fit(frame, y)
    assert_array_equal(search.predict_proba(frame), refitted.predict_proba(frame))


def test_randomized_search(valued, regressor):
    search = RandomizedSearchCV(regressor, {"learning_rate": loguniform(1e-4, 1e-1)}, n_iter=3, cv=2, random_state=0)
    search.fit(*valued)
    assert len(search.cv_results_["params"]) == 3
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])


def test_halving_search_spends_epochs(labelled, classifier):
    search = HalvingGridSearchCV(
        classifier.set_params(max_epochs=1),
        {"learning_rate": [1e-6, 1e-5, 3e-2]},
        resource="max_epochs",
        min_resources=4,
        max_resources=12,
        factor=3,
        cv=2,
        random_state=0,
    ).fit(*labelled)
    assert search.n_resources_ == [4, 12]
    assert search.best_estimator_.n_iter_ == 12
    assert search.best_params_["learning_rate"] == 3e-2


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_cross_validation_splits_by_the_task(task, labelled):
    X, y = labelled
    model = MLPEstimator(task=task, **SMALL)
    results = cross_validate(model, X, y, cv=3, return_estimator=True, return_indices=True)
    assert len(results["test_score"]) == 3
    shares = np.array([np.bincount(y[rows]) for rows in results["indices"]["test"]])
    # Stratified for classification, in order for regression.
    assert (np.ptp(shares, axis=0).max() <= 1) == (task == "classification")


@pytest.mark.parametrize("scoring", ["roc_auc_ovr", "neg_log_loss", "balanced_accuracy", "neg_brier_score"])
def test_scorers_of_probabilities_work_on_the_estimator_of_both_tasks(scoring, labelled):
    scores = cross_validate(MLPEstimator(**SMALL), *labelled, cv=2, scoring=scoring)["test_score"]
    assert np.isfinite(scores).all()


def test_cross_val_predict_and_learning_curve(labelled, classifier):
    X, y = labelled
    p = cross_val_predict(classifier, X, y, cv=3, method="predict_proba")
    assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    sizes, train_scores, _ = learning_curve(classifier, X, y, train_sizes=[0.3, 1.0], cv=2)
    assert sizes.tolist() == [18, 60] and train_scores.shape == (2, 2)


# --- ensembles and wrappers ------------------------------------------------------------------------------------------


def test_transformed_target(valued, regressor):
    X, y = valued
    positive = np.exp(y / 100)
    wrapped = TransformedTargetRegressor(clone(regressor), func=np.log, inverse_func=np.exp).fit(X, positive)
    assert_allclose(wrapped.predict(X), np.exp(regressor.fit(X, np.log(positive)).predict(X)), rtol=1e-9)


@pytest.mark.parametrize("bootstrap", [True, False])
def test_bagging(labelled, valued, classifier, regressor, bootstrap):
    # Bagging draws by sample weights where the estimator takes them.
    bag = BaggingClassifier(classifier, n_estimators=3, bootstrap=bootstrap, random_state=0).fit(*labelled)
    assert bag.score(*labelled) > 0.8
    members = [member.predict_proba(labelled[0]) for member in bag.estimators_]
    assert_allclose(bag.predict_proba(labelled[0]), np.mean(members, axis=0), rtol=1e-9)
    assert (
        BaggingRegressor(regressor, n_estimators=2, bootstrap=bootstrap, random_state=0).fit(*valued).score(*valued)
        > 0.5
    )


def test_voting(labelled, valued, classifier, regressor):
    X, y = labelled
    vote = VotingClassifier([("a", classifier), ("b", LogisticRegression())], voting="soft").fit(X, y)
    mean = (vote.estimators_[0].predict_proba(X) + vote.estimators_[1].predict_proba(X)) / 2
    assert_allclose(vote.predict_proba(X), mean)
    X, y = valued
    both = VotingRegressor([("a", regressor), ("b", clone(regressor).set_params(random_state=1))]).fit(X, y)
    assert_allclose(both.predict(X), np.mean([m.predict(X) for m in both.estimators_], axis=0))


def test_stacking(labelled, classifier):
    stack = StackingClassifier([("a", classifier), ("b", LogisticRegression())], cv=2).fit(*labelled)
    assert stack.score(*labelled) > 0.8


def test_one_vs_rest_and_chains(labelled, valued, classifier, regressor):
    X, y = labelled
    one = OneVsRestClassifier(classifier).fit(X, y)
    assert len(one.estimators_) == 3 and one.score(X, y) > 0.8
    Y = np.stack([y == 0, y == 1], axis=1).astype(int)
    assert ClassifierChain(classifier).fit(X, Y).predict(X).shape == (120, 2)
    X, y = valued
    both = MultiOutputRegressor(regressor).fit(X, np.stack([y, -y], axis=1))
    assert_allclose(both.predict(X)[:, 0], clone(regressor).fit(X, y).predict(X))


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration(labelled, classifier, method):
    X, y = labelled
    calibrated = CalibratedClassifierCV(classifier, method=method, cv=2).fit(X, y)
    assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_frozen_estimator_is_not_fitted_again(labelled, classifier):
    X, y = labelled
    frozen = FrozenEstimator(classifier.fit(X, y))
    before = classifier.predict_proba(X)
    calibrated = CalibratedClassifierCV(frozen).fit(X, y)
    assert calibrated.predict_proba(X).shape == (120, 3)
    assert_array_equal(clone(frozen).fit(X[:5], y[:5]).predict_proba(X), before)


# --- inspection ------------------------------------------------------------------------------------------------------


def test_permutation_importance_of_a_raw_frame(frame, labelled, classifier):
    _, y = labelled
    frame = frame.assign(constant="same")
    model = classifier.fit(frame, y)
    importance = permutation_importance(model, frame, y, n_repeats=2, random_state=0).importances_mean
    assert importance.shape == (9,)
    assert importance[-1] == 0 and importance[:6].max() > 0.05


def test_partial_dependence(valued, labelled, frame, regressor, classifier):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    X, y = valued
    model = regressor.fit(X, y)
    dependence = partial_dependence(model, X, [0], grid_resolution=4)
    grid = dependence["grid_values"][0]
    by_hand = [model.predict(np.c_[np.full(len(X), value), X[:, 1:]]).mean() for value in grid]
    assert_allclose(dependence["average"][0], by_hand, rtol=1e-6)
    # scikit-learn looks for the levels of a column by sorting them, which missing text does not bear.
    frame = frame.fillna({"place": "sea"})
    classifier.fit(frame, labelled[1])
    display = PartialDependenceDisplay.from_estimator(
        classifier, frame, ["x0", "place"], categorical_features=["place"], target=0, grid_resolution=3
    )
    assert display.axes_.size == 2
    matplotlib.pyplot.close("all")


def test_feature_elimination_by_first_layer_weights():
    X, y = make_regression(100, 6, n_informative=2, random_state=1, shuffle=False)
    model = MLPRegressor(**SMALL | {"hidden_layer_sizes": (), "numeric_embedding": None, "max_epochs": 60})
    rfe = RFE(model, n_features_to_select=2, importance_getter=lambda fitted: np.abs(fitted.coefs_[0]).sum(axis=1))
    assert_array_equal(np.flatnonzero(rfe.fit(X, y).support_), [0, 1])


def test_sequential_selection(labelled, classifier):
    selector = SequentialFeatureSelector(classifier.set_params(max_epochs=3), n_features_to_select=1, cv=2)
    assert selector.fit(*labelled).get_support().sum() == 1


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_members", [1, 2])
def test_pickled_estimators_predict_the_same(frame, labelled, classifier, n_members):
    _, y = labelled
    model = classifier.set_params(n_members=n_members).fit(frame, y)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(frame), model.predict_proba(frame))


@pytest.mark.parametrize(("n_members", "early_stopping"), [(1, False), (3, False), (3, True)])
def test_files_of_skops_predict_the_same_and_go_on(frame, labelled, classifier, n_members, early_stopping):
    _, y = labelled
    # Networks that are stopped early are calibrated.
    model = classifier.set_params(n_members=n_members, early_stopping=early_stopping, warm_start=True).fit(frame, y)
    saved = skops.io.dumps(model)
    loaded = skops.io.loads(saved, trusted=skops.io.get_untrusted_types(data=saved))
    assert_array_equal(loaded.predict_proba(frame), model.predict_proba(frame))
    assert_array_equal(loaded.fit(frame, y).predict_proba(frame), model.fit(frame, y).predict_proba(frame))


@pytest.mark.parametrize("kind", ["series", "frozen backbone", "first layer frozen"])
def test_files_of_skops_hold_skip_paths_and_frozen_layers(kind):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    if kind == "series":
        X = rng.normal(size=(40, 30)) + y[:, None]
        model = RNNClassifier(max_epochs=1, hidden_size=4, conv_channels=(4,), random_state=0).fit(X, y)
        assert model._skip is not None
    else:
        X = rng.normal(size=(40, 8, 8)) + y[:, None, None]
        backbone = CNNClassifier(max_epochs=1, conv_channels=(4,), random_state=0).fit(X, y).network_
        freeze = "all" if kind == "frozen backbone" else 1
        model = CNNClassifier(backbone=backbone, freeze=freeze, max_epochs=1, random_state=0, warm_start=True).fit(X, y)
    saved = skops.io.dumps(model)
    loaded = skops.io.loads(saved, trusted=skops.io.get_untrusted_types(data=saved))
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert_array_equal(loaded.fit(X, y).predict_proba(X), model.fit(X, y).predict_proba(X))


def test_joblib_dump_and_memory_map(tmp_path, labelled, classifier):
    X, y = labelled
    joblib.dump(classifier.fit(X, y), tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))


def test_clone_keeps_parameters_and_nothing_else(labelled, classifier):
    classifier.set_params(hidden_layer_sizes=[5, 4], activation=np.tanh)
    copied = clone(classifier)
    assert copied.get_params() == classifier.get_params()
    assert not hasattr(clone(MLPClassifier(**SMALL).fit(*labelled)), "network_")


def test_fitted_estimator_holds_no_training_rows(labelled):
    X, y = labelled
    big = np.tile(X, (100, 1))
    model = MLPClassifier(**SMALL | {"max_epochs": 1}).fit(big, np.tile(y, 100))
    assert len(pickle.dumps(model)) < big.nbytes / 5


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_parallel_backends_give_equal_results(frame, labelled, classifier, backend):
    _, y = labelled
    alone = cross_validate(classifier, frame, y, cv=3)["test_score"]
    with joblib.parallel_backend(backend, n_jobs=2):
        together = cross_validate(classifier, frame, y, cv=3)["test_score"]
    assert_array_equal(together, alone)


ESTIMATORS_ON_A_DEVICE = {
    "mlp": (MLPClassifier, {"n_members": 1}),
    "cnn": (CNNClassifier, {"image_shape": (1, 4)}),
    "rnn": (RNNClassifier, {}),
}


@pytest.mark.parametrize("kind", ESTIMATORS_ON_A_DEVICE)
def test_a_torch_device_is_the_device_of_its_name(kind):
    Estimator, parameters = ESTIMATORS_ON_A_DEVICE[kind]
    X, y = np.random.RandomState(0).normal(size=(24, 4)), np.arange(24) % 2
    X = X[:, None] if kind == "rnn" else X
    named = Estimator(**parameters, max_epochs=2, random_state=0, device="cpu")
    model = clone(named).set_params(device=torch.device("cpu"))
    assert clone(model).device == torch.device("cpu") == pickle.loads(pickle.dumps(model)).device
    p = named.fit(X, y).predict_proba(X)
    assert_array_equal(model.fit(X, y).predict_proba(X), p)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), p)
    assert_array_equal(model.partial_fit(X, y).predict_proba(X), named.partial_fit(X, y).predict_proba(X))
    search = {"device": ["cpu", torch.device("cpu")]}
    with train_together(device=torch.device("cpu")) as run:
        scores = GridSearchCV(named, search, cv=2, refit=False).fit(X, y).cv_results_["mean_test_score"]
    assert scores[0] == scores[1] and {stack.device for stack in run.report_} == {"cpu"}
