"""Metadata: sample weights and validation data through pipelines, searches and scorers, with routing on and off."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_classification
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skdl import MLPClassifier, MLPEstimator, MLPRegressor

SMALL = {
    "hidden_layer_sizes": (8,),
    "max_epochs": 8,
    "learning_rate": 0.02,
    "early_stopping": False,
    "n_members": 1,
    "random_state": 0,
}


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(90, 5, random_state=0)
    return X, y, np.random.RandomState(0).uniform(0.1, 5, size=90)


def weighted_scores(X, y, weight, folds):
    return [
        MLPClassifier(**SMALL)
        .fit(X[train], y[train], sample_weight=weight[train])
        .score(X[test], y[test], sample_weight=weight[test])
        for train, test in folds
    ]


def test_weights_reach_the_estimator_in_a_pipeline_without_routing(data):
    X, y, weight = data
    scaled = StandardScaler().fit_transform(X)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    pipeline.fit(X, y, mlpclassifier__sample_weight=weight)
    alone = MLPClassifier(**SMALL).fit(scaled, y, sample_weight=weight)
    assert_array_equal(pipeline.predict_proba(X), alone.predict_proba(scaled))
    assert np.any(pipeline.predict_proba(X) != MLPClassifier(**SMALL).fit(scaled, y).predict_proba(scaled))


def test_weights_are_cut_into_folds_without_routing(data):
    X, y, weight = data
    folds = [(np.arange(60), np.arange(60, 90)), (np.arange(30, 90), np.arange(30))]
    search = GridSearchCV(MLPClassifier(**SMALL), {"l2": [0.0]}, cv=folds).fit(X, y, sample_weight=weight)
    scores = weighted_scores(X, y, weight, folds)
    assert_allclose([search.cv_results_[f"split{i}_test_score"][0] for i in range(2)], scores)


@pytest.mark.usefixtures("routing")
def test_weights_reach_fit_and_scorer_of_a_search_over_a_pipeline(data):
    X, y, weight = data
    folds = [(np.arange(60), np.arange(60, 90)), (np.arange(30, 90), np.arange(30))]
    classifier = MLPClassifier(**SMALL).set_fit_request(sample_weight=True)
    scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
    search = GridSearchCV(make_pipeline(classifier), {"mlpclassifier__l2": [0.0]}, cv=folds, scoring=scorer)
    search.fit(X, y, sample_weight=weight)
    scores = weighted_scores(X, y, weight, folds)
    assert_allclose([search.cv_results_[f"split{i}_test_score"][0] for i in range(2)], scores)


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("requested", [True, False])
def test_a_request_decides_whether_weights_are_used(data, requested):
    X, y, weight = data
    classifier = (
        MLPClassifier(**SMALL).set_fit_request(sample_weight=requested).set_score_request(sample_weight=requested)
    )
    fits = cross_validate(
        classifier, X, y, cv=2, params={"sample_weight": weight} if requested else {}, return_estimator=True
    )["estimator"]
    unweighted = cross_validate(MLPClassifier(**SMALL), X, y, cv=2, return_estimator=True)["estimator"]
    same = np.array_equal(fits[0].predict_proba(X), unweighted[0].predict_proba(X))
    assert same != requested


@pytest.mark.usefixtures("routing")
def test_validation_data_pass_through_the_steps_of_a_pipeline(data):
    X, y, weight = data
    classifier = MLPClassifier(**SMALL | {"early_stopping": "auto"})
    classifier.set_fit_request(X_val=True, y_val=True, sample_weight=True, sample_weight_val=True)
    pipeline = Pipeline([("scale", StandardScaler()), ("net", classifier)], transform_input=["X_val"])
    # Any other request for the weights of a step has to be made in words.
    pipeline["scale"].set_fit_request(sample_weight=False)
    pipeline.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:], sample_weight=weight[:60], sample_weight_val=weight[60:])
    scaler = StandardScaler().fit(X[:60])
    alone = MLPClassifier(**SMALL | {"early_stopping": "auto"}).fit(
        scaler.transform(X[:60]),
        y[:60],
        sample_weight=weight[:60],
        X_val=scaler.transform(X[60:]),
        y_val=y[60:],
        sample_weight_val=weight[60:],
    )
    assert_array_equal(pipeline["net"].validation_scores_, alone.validation_scores_)


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor, MLPEstimator])
def test_every_argument_can_be_requested(Estimator):
    methods = Estimator().get_metadata_routing()
    assert set(methods.fit.requests) == {"X_val", "groups", "sample_weight", "sample_weight_val", "y_val"}
    assert set(methods.score.requests) == {"sample_weight"}
    assert "sample_weight" in methods.partial_fit.requests
    # As in scikit-learn's own regressors that give a standard deviation.
    assert set(methods.predict.requests) == (set() if Estimator is MLPClassifier else {"return_std"})


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("scoring", ["accuracy", make_scorer(accuracy_score)])
def test_weights_reach_the_scorer_of_early_stopping(data, scoring, enabled):
    X, y, weight = data
    with sklearn.config_context(enable_metadata_routing=enabled):
        model = MLPClassifier(**SMALL | {"early_stopping": True, "scoring": scoring, "max_epochs": 1})
        model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:], sample_weight_val=weight[60:])
    assert_allclose(model.validation_scores_, accuracy_score(y[60:], model.predict(X[60:]), sample_weight=weight[60:]))


@pytest.mark.usefixtures("routing")
def test_a_scorer_that_refuses_weights_is_called_without_them(data):
    X, y, weight = data
    scorer = make_scorer(accuracy_score).set_score_request(sample_weight=False)
    model = MLPClassifier(**SMALL | {"early_stopping": True, "scoring": scorer, "max_epochs": 1})
    model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:], sample_weight_val=weight[60:])
    assert_allclose(model.validation_scores_, accuracy_score(y[60:], model.predict(X[60:])))


def test_held_out_rows_bring_their_weights_to_the_scorer(data):
    X, y, weight = data
    seen = []

    def scorer(estimator, X, y, sample_weight=None):
        seen.append((X.copy(), sample_weight))
        return 0.0

    MLPClassifier(**SMALL | {"early_stopping": True, "scoring": scorer}).fit(X, y, sample_weight=weight)
    rows = [np.flatnonzero((row == X).all(axis=1))[0] for row in seen[0][0]]
    assert len(rows) == 9
    assert_array_equal(seen[0][1], weight[rows])


def test_a_scorer_without_weights_is_called_without_them(data):
    X, y, weight = data
    model = MLPClassifier(**SMALL | {"early_stopping": True, "scoring": lambda estimator, X, y: 0.5})
    assert set(model.fit(X, y, sample_weight=weight).validation_scores_) == {0.5}


def test_weights_count_in_the_validation_loss(data):
    X, y, weight = data
    y = np.where(y == 1, "yes", "no")
    model = MLPClassifier(**SMALL | {"early_stopping": True, "max_epochs": 1})
    model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:], sample_weight_val=weight[60:])
    log_p = model.predict_log_proba(X[60:])[np.arange(30), (y[60:] == "yes").astype(int)]
    assert_allclose(model.history_["validation_loss"][0], -np.average(log_p, weights=weight[60:]), rtol=1e-5)


def test_score_takes_weights(data):
    X, y, weight = data
    for model in (MLPClassifier(**SMALL), MLPEstimator(**SMALL)):
        model.fit(X, y)
        assert model.score(X, y, sample_weight=weight) == accuracy_score(y, model.predict(X), sample_weight=weight)


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("requested", [None, False, True])
def test_groups_reach_the_splitter_and_the_estimator_that_asks_for_them(data, requested):
    X, y, _ = data
    groups = np.arange(90) // 9
    settings = SMALL | {"early_stopping": True, "n_members": 2, "max_epochs": 2}
    classifier = MLPClassifier(**settings)
    if requested is not None:
        classifier.set_fit_request(groups=requested)
    fitted = cross_validate(
        classifier, X, y, cv=GroupKFold(3), params={"groups": groups}, return_estimator=True, return_indices=True
    )
    for model, train in zip(fitted["estimator"], fitted["indices"]["train"], strict=True):
        alone = MLPClassifier(**settings).fit(X[train], y[train], groups=groups[train] if requested else None)
        assert_array_equal(model.out_of_fold_, alone.out_of_fold_)
