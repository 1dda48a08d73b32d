"""Networks whose optimum is known: linear models of scikit-learn, textbook cases, statistics of the target."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor, QuantileRegressor, Ridge
from torch.nn import functional as F

from skdl import MLPClassifier, MLPRegressor

#: The whole table in a step, in double precision, with nothing drawn at random but the first weights.
EXACT = {
    "dtype": "float64",
    "batch_size": 10**6,
    "dropout": 0.0,
    "early_stopping": False,
    "n_members": 1,
    "numeric_embedding": None,
    "numeric_scaling": None,
    "weight_decay": 0.0,
    "random_state": 0,
}
#: A linear model, trained until it stands still.
LINEAR = EXACT | {"hidden_layer_sizes": (), "learning_rate": 0.03, "max_epochs": 1500}
TINY = EXACT | {"hidden_layer_sizes": (8,), "max_epochs": 20}


def numbers(n=60, d=4, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


@pytest.fixture(scope="module")
def X():
    return numbers()


@pytest.fixture(scope="module")
def y(X):
    return 3 * X @ [1.0, -2.0, 0.0, 0.5] + 10 + numbers(60, 1, seed=1)[:, 0]


def test_textbook_case_is_learned():
    X = np.array([[1.0, 2, 3], [4, 5, 6]])
    model = MLPRegressor(**EXACT | {"activation": "sigmoid", "hidden_layer_sizes": (16,), "max_epochs": 1000})
    assert_allclose(model.set_params(learning_rate=0.01).fit(X, 2 * X).predict(X), 2 * X, atol=1e-3)


@pytest.mark.parametrize("l2", [1e-3, 0.3])
def test_linear_squared_error_is_ridge(X, y, l2):
    ridge = Ridge(alpha=len(X) * l2).fit(X, y)
    model = MLPRegressor(**LINEAR, l2=l2).fit(X, y)
    assert_allclose(model.predict(X), ridge.predict(X), rtol=1e-5)
    assert_allclose(model.coefs_[0][:, 0] * y.std(), ridge.coef_, rtol=1e-4, atol=1e-5)


def test_linear_squared_error_of_two_targets_is_ridge_with_twice_the_penalty(X, y):
    # The loss is a mean over the targets.
    Y = np.stack([y, X[:, 2] + 5 * X[:, 3]], axis=1)
    ridge = Ridge(alpha=len(X) * 0.1 * 2).fit(X, Y)
    assert_allclose(MLPRegressor(**LINEAR, l2=0.1).fit(X, Y).predict(X), ridge.predict(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_cross_entropy_is_logistic_regression(X, y, n_classes):
    labels = np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))
    logistic = LogisticRegression(C=1 / (len(X) * 0.01), tol=1e-8, max_iter=1000).fit(X, labels)
    model = MLPClassifier(**LINEAR | {"max_epochs": 4000}, l2=0.01).fit(X, labels)
    assert_allclose(model.predict_proba(X), logistic.predict_proba(X), atol=1e-5)


def test_linear_poisson_is_poisson_regressor(X):
    counts = np.random.RandomState(0).poisson(np.exp(1 + X @ [0.5, -0.3, 0.0, 0.2]))
    l2 = 0.02
    # y is divided by its mean inside, so the penalty weighs that much less.
    poisson = PoissonRegressor(alpha=l2 * counts.mean(), tol=1e-9, max_iter=1000).fit(X, counts)
    assert_allclose(
        MLPRegressor(**LINEAR, loss="poisson", l2=l2).fit(X, counts).predict(X), poisson.predict(X), rtol=1e-5
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "learning_rate": 0.01},
        {"optimizer": "rmsprop", "learning_rate": 0.01},
        {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.05},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": False},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    ],
    ids=["adamw", "rmsprop", "sgd", "heavy ball", "nesterov"],
)
def test_l1_gives_the_zeros_of_lasso(settings):
    X, y = make_regression(80, 12, n_informative=3, noise=5.0, random_state=0)
    l1 = 0.1
    lasso = Lasso(alpha=l1 * y.std(), tol=1e-10).fit(X, y)
    model = MLPRegressor(**LINEAR | settings, l1=l1).fit(X, y)
    coefs = model.coefs_[0][:, 0] * y.std()
    assert 3 <= np.count_nonzero(lasso.coef_) < 12
    assert_allclose(coefs == 0, lasso.coef_ == 0)
    assert_allclose(coefs, lasso.coef_, rtol=1e-2, atol=1e-2)


def test_l1_and_l2_leave_biases_alone(X, y):
    model = MLPRegressor(**LINEAR, l1=1e3, loss="absolute_error").fit(X, y)
    assert np.all(model.coefs_[0] == 0)
    # With no weights left the best bias is the median.
    assert_allclose(model.predict(X[:1]), np.median(y), atol=0.1 * y.std())


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_linear_quantile_is_quantile_regressor_and_covers(X, y, quantile):
    model = MLPRegressor(**LINEAR | {"learning_rate": 0.01}, loss="quantile", quantile=quantile).fit(X, y)
    other = QuantileRegressor(quantile=quantile, alpha=0).fit(X, y)
    assert abs(np.mean(y <= model.predict(X)) - quantile) <= 0.07
    assert_allclose(model.predict(X), other.predict(X), atol=0.15 * y.std())


def test_loss_of_the_median_is_half_the_absolute_error(X, y):
    median = MLPRegressor(**TINY | {"max_epochs": 1}, loss="quantile", quantile=0.5).fit(X, y)
    absolute = MLPRegressor(**TINY | {"max_epochs": 1}, loss="absolute_error").fit(X, y)
    assert_allclose(2 * median.loss_, absolute.loss_, rtol=1e-12)


def test_robust_losses_ignore_outliers(X):
    y = X @ [1.0, 2.0, 0.0, 0.0]
    spoiled = y.copy()
    spoiled[:3] += 50
    error = {
        loss: np.abs(MLPRegressor(**LINEAR, loss=loss).fit(X, spoiled).predict(X) - y)[3:].mean()
        for loss in ("squared_error", "huber", "absolute_error")
    }
    # 57 of 60 rows are on one plane, which is where the median goes.
    assert error["absolute_error"] < 1e-3
    assert error["huber"] < error["squared_error"] / 3


@pytest.mark.parametrize("top", [3, 5, 7])
def test_a_weight_is_a_row_so_often_where_quartiles_are_tied(top):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(60, 3))
        weight = np.r_[top, rng.integers(0, top + 1, 59)]
        # Quartiles of multiples of four rows lie between two of them.
        weight[1] = -(weight.sum() - weight[1]) % 4
        rows = np.repeat(np.arange(60), weight)
        model = MLPRegressor(**TINY | {"numeric_scaling": "robust"})
        weighted = model.fit(X, X[:, 0], sample_weight=weight).predict(X)
        assert_allclose(weighted, model.fit(X[rows], X[rows, 0]).predict(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("normalization", [None, "layer"])
def test_weight_two_is_a_row_twice_and_weight_zero_is_no_row(X, y, Estimator, normalization):
    target = y > np.median(y) if Estimator is MLPClassifier else y
    weight = np.random.RandomState(2).randint(0, 3, size=len(X))
    repeated = np.repeat(np.arange(len(X)), weight)
    weighted = Estimator(**TINY | {"numeric_scaling": "robust"}, normalization=normalization)
    weighted.fit(X, target, sample_weight=weight)
    twice = Estimator(**TINY | {"numeric_scaling": "robust"}, normalization=normalization)
    twice.fit(X[repeated], target[repeated])
    outputs = "predict_proba" if Estimator is MLPClassifier else "predict"
    assert_allclose(getattr(weighted, outputs)(X), getattr(twice, outputs)(X), rtol=1e-8)


@pytest.mark.parametrize("factor", [1e-300, 1e-6, 7.0, 1e300, 8e307])
def test_the_scale_of_weights_does_not_matter(X, y, factor):
    weight = np.random.RandomState(2).uniform(0.5, 2, size=len(X))
    one = MLPRegressor(**TINY).fit(X, y, sample_weight=weight)
    other = MLPRegressor(**TINY).fit(X, y, sample_weight=factor * weight)
    assert_allclose(one.predict(X), other.predict(X), rtol=1e-9)


@pytest.mark.parametrize("weight", [1e-310, 1e-3, 1.0, 3e200])
def test_equal_weights_are_none(X, y, weight):
    model = MLPRegressor(max_epochs=3, n_members=2, random_state=0)
    expected = model.fit(X, y).predict(X)
    assert_allclose(model.fit(X, y, sample_weight=np.full(len(X), weight)).predict(X), expected, rtol=0)


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
@pytest.mark.parametrize("factor", [1e-3, 3.0, 10.0, 1e3])
@pytest.mark.parametrize("seed", range(3))
def test_the_scale_of_weights_moves_no_edge_of_a_bin(factor, seed, fit):
    rng = np.random.RandomState(seed)
    X, weight = rng.normal(size=(80, 5)), rng.uniform(0.2, 1.2, size=80)
    labels = X[:, 0] + rng.normal(size=80) > 0
    model = MLPClassifier(max_epochs=2, n_members=1, early_stopping=False, dtype="float64", random_state=0)
    expected = getattr(model, fit)(X, labels, sample_weight=weight).predict_proba(X)
    other = clone(model)
    other = getattr(other, fit)(X, labels, sample_weight=factor * weight)
    assert_allclose(other.predict_proba(X), expected, rtol=1e-8)


@pytest.mark.parametrize("class_weight", [{"a": 1.0, "b": 5.0, "c": 0.5}, "balanced"])
def test_class_weight_is_the_same_as_sample_weights(X, y, class_weight):
    labels = np.array(list("abc"))[np.digitize(y, [0.0, 12.0])]
    if class_weight == "balanced":
        counts = {label: np.sum(labels == label) for label in "abc"}
        by_label = {label: len(labels) / (3 * count) for label, count in counts.items()}
    else:
        by_label = class_weight
    weight = np.array([by_label[label] for label in labels])
    one = MLPClassifier(**TINY, class_weight=class_weight).fit(X, labels)
    other = MLPClassifier(**TINY).fit(X, labels, sample_weight=weight)
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-9)


def test_class_weight_and_sample_weight_multiply(X, y):
    labels = (y > 10).astype(int)
    weight = np.random.RandomState(2).uniform(0.5, 2, size=len(X))
    one = MLPClassifier(**TINY, class_weight={0: 1, 1: 3}).fit(X, labels, sample_weight=weight)
    other = MLPClassifier(**TINY).fit(X, labels, sample_weight=weight * np.where(labels == 1, 3, 1))
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-9)


def test_balanced_class_weights_count_sample_weights(X, y):
    # A class whose rows weigh twice is twice as frequent: balancing takes the factor back.
    labels = (y > 10).astype(int)
    one = MLPClassifier(**TINY, class_weight="balanced").fit(X, labels, sample_weight=np.where(labels == 1, 2.0, 1.0))
    other = MLPClassifier(**TINY, class_weight="balanced").fit(X, labels)
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-9)


def test_balanced_class_weights_of_several_labels_count_sample_weights(X, y):
    labels = np.stack([y > 10, X[:, 0] > 0], axis=1).astype(int)
    weight = np.random.RandomState(2).randint(0, 3, size=len(X))
    repeated = np.repeat(np.arange(len(X)), weight)
    one = MLPClassifier(**TINY, class_weight="balanced").fit(X, labels, sample_weight=weight)
    other = MLPClassifier(**TINY, class_weight="balanced").fit(X[repeated], labels[repeated])
    assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-8)


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"normalization": "batch"}, {"normalization": "layer"}])
def test_prediction_of_a_row_does_not_depend_on_its_company(X, y, settings):
    model = MLPRegressor(**TINY | settings | {"batch_size": 16}).fit(X, y)
    together = model.predict(X)
    assert_allclose(together, model.predict(X), rtol=0, atol=0)
    assert_allclose(together, np.concatenate([model.predict(row[None]) for row in X]), rtol=1e-12)
    assert_allclose(together[::-1], model.predict(X[::-1]), rtol=1e-12)


def test_dropout_acts_in_training_only(X, y):
    without, with_dropout = (MLPRegressor(**TINY | {"dropout": rate}).fit(X, y) for rate in (0.0, 0.5))
    assert with_dropout.loss_curve_[0] != without.loss_curve_[0]
    assert not with_dropout.network_.training


@pytest.mark.parametrize("n_classes", [2, 3])
def test_label_smoothing_bounds_the_confidence(n_classes):
    labels = np.arange(30) % n_classes
    smooth = MLPClassifier(**LINEAR, label_smoothing=0.2).fit(np.eye(n_classes)[labels], labels)
    # The best prediction for a smoothed label is the smoothed label.
    best = 0.8 * np.eye(n_classes)[labels] + 0.2 / n_classes
    assert_allclose(smooth.predict_proba(np.eye(n_classes)[labels]), best, atol=1e-4)


@pytest.mark.parametrize(("Estimator", "name"), [(MLPClassifier, "cross_entropy"), (MLPRegressor, "squared_error")])
def test_own_loss_equals_the_named_one(X, y, Estimator, name):
    target = np.digitize(y, [5.0, 12.0]) if Estimator is MLPClassifier else y
    own = {
        "cross_entropy": lambda z, t: F.cross_entropy(z, t, reduction="none"),
        "squared_error": lambda p, t: (p - t) ** 2 / 2,
    }[name]
    named, custom = (Estimator(**TINY, loss=loss).fit(X, target) for loss in (name, own))
    assert_allclose(named.loss_curve_, custom.loss_curve_, rtol=1e-9)
    for weights, own_weights in zip(named.coefs_, custom.coefs_, strict=True):
        assert_allclose(weights, own_weights, rtol=1e-7, atol=1e-9)


def test_predictions_come_in_the_units_of_y(X, y):
    model = MLPRegressor(**TINY).fit(X, y)
    scaled = MLPRegressor(**TINY).fit(X, 1e6 * y - 3e8)
    assert_allclose(scaled.predict(X), 1e6 * model.predict(X) - 3e8, rtol=1e-9)
    assert scaled.predict(X).dtype == np.float64


@pytest.mark.parametrize("target", ["labels", "two labels", "many labels", "counts", "values"])
def test_ensemble_predicts_the_mean_of_its_members(X, y, target):
    targets = {
        "labels": np.digitize(y, [5.0, 12.0]),
        "two labels": (y > 10).astype(int),
        "many labels": np.stack([y > 10, y > 5], axis=1).astype(int),
        "counts": np.floor(np.abs(y)),
        "values": y,
    }
    Estimator = MLPRegressor if target in ("counts", "values") else MLPClassifier
    loss = {"loss": "poisson"} if target == "counts" else {}
    model = Estimator(**TINY | {"n_members": 3, "batch_size": 16} | loss).fit(X, targets[target])
    output = "predict" if Estimator is MLPRegressor else "predict_proba"
    together, alone = getattr(model, output)(X), []
    for member in model.network_.members:
        one = copy.copy(model)
        one.network_ = member
        alone.append(getattr(one, output)(X))
    assert np.ptp(alone, axis=0).max() > 1e-3
    assert_allclose(together, np.mean(alone, axis=0), rtol=1e-9)
    if output == "predict_proba":
        assert_allclose(np.exp(model.predict_log_proba(X)), together, rtol=1e-9)
