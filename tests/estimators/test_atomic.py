"""A fit that fails leaves the estimator as it was before."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import make_regression
from sklearn.exceptions import NotFittedError

from skdl import CNNClassifier, DeepImputer, MLPRegressor, RNNRegressor

X, y = make_regression(120, 6, noise=20, random_state=0)
HOLES = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
QUICK = {"max_epochs": 3, "random_state": 0}
GOES_ON = {**QUICK, "warm_start": True}


@pytest.mark.parametrize(
    "model",
    [
        MLPRegressor(**GOES_ON, loss="quantile", quantile=0.9),
        MLPRegressor(**GOES_ON),
        RNNRegressor(**GOES_ON, hidden_size=4),
    ],
    ids=["shift", "scale", "skip path"],
)
@pytest.mark.parametrize("changed", [{}, {"dtype": "float64"}], ids=["architecture", "precision"])
def test_fit_that_goes_on_and_is_refused(model, changed):
    model.fit(X, y)
    expected = model.predict(X)
    before = model.get_params()
    architecture = {"hidden_size": 5} if isinstance(model, RNNRegressor) else {"hidden_layer_sizes": (9,)}
    with pytest.raises(ValueError, match="architecture was changed"):
        model.set_params(**architecture, **changed).fit(X, y + 100)
    model.set_params(**before)
    assert_array_equal(model.predict(X), expected)


@pytest.mark.parametrize("wrong", [y[:-1], np.full(len(y), np.nan)], ids=["length", "missing"])
def test_fit_afresh_that_is_refused(wrong):
    model = MLPRegressor(**QUICK).fit(X, y)
    expected = model.predict(X)
    with pytest.raises(ValueError):
        model.fit(X[:, :3], wrong)
    assert_array_equal(model.predict(X), expected)
    assert model.n_features_in_ == 6


def test_fit_afresh_that_diverges():
    model = MLPRegressor(**QUICK).fit(X, y)
    expected = model.predict(X)
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(learning_rate=1e30).fit(X, 1000 * y)
    assert_array_equal(model.predict(X), expected)


def test_fit_of_images_of_another_shape():
    images, labels = np.random.default_rng(0).normal(size=(20, 8, 6)), np.arange(20) % 2
    model = CNNClassifier(max_epochs=1, random_state=0).fit(images, labels)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(images.transpose(0, 2, 1), labels[:-1])
    assert model.image_shape_ == (8, 6, 1)
    model.predict(images)


def test_partial_fit_that_is_refused():
    model = MLPRegressor(**QUICK).partial_fit(X, y)
    expected = model.predict(X)
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(learning_rate=1e30).partial_fit(X, y)
    assert_array_equal(model.predict(X), expected)


def test_first_fit_of_an_imputer_that_diverges():
    model = DeepImputer(**QUICK, learning_rate=1e30)
    with pytest.raises(ValueError, match="diverged"):
        model.fit(HOLES)
    with pytest.raises(NotFittedError):
        model.transform(HOLES)


@pytest.mark.parametrize("warm_start", [False, True])
def test_fit_of_an_imputer_that_is_refused(warm_start):
    model = DeepImputer(**QUICK, warm_start=warm_start).fit(HOLES)
    expected = model.transform(HOLES)
    with pytest.raises(ValueError, match=r"no values to learn from|diverged"):
        model.set_params(learning_rate=1e30).fit(HOLES if warm_start else np.full_like(HOLES, np.nan))
    assert_array_equal(model.transform(HOLES), expected)
