"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import make_blobs
from sklearn.utils import estimator_checks as checks
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

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

#: A fit that depends on nothing but the rows and their weights.
EXACT = {
    "dtype": "float64",
    "batch_size": 10**6,
    "dropout": 0.0,
    "early_stopping": False,
    "n_members": 1,
    "numeric_embedding": None,
}
SMALL = {"hidden_layer_sizes": (16,), "max_epochs": 40, "learning_rate": 0.02, "n_members": 1}
QUICK = SMALL | {"batch_size": 256}

CNN_SMALL = {"conv_channels": (8,), "residual": False, "max_epochs": 40, "learning_rate": 0.02}
#: Of a convolutional network: a fit that depends on nothing but the rows and their weights.
CNN_EXACT = {
    "dtype": "float64",
    "batch_size": 10**6,
    "normalization": None,
    "augment": None,
    "early_stopping": False,
    # An orthogonal factor makes as much of what is rounding as of the rest of a gradient.
    "optimizer": "adamw",
    "weight_decay": 0.1,
}

RNN_SMALL = {"hidden_size": 8, "hidden_layer_sizes": (), "max_epochs": 10, "learning_rate": 0.03, "n_members": 2}
#: Of a recurrent network: a fit that depends on nothing but the rows and their weights.
RNN_EXACT = {
    "dtype": "float64",
    "batch_size": 10**6,
    "early_stopping": False,
    "n_members": 1,
    "dropout": 0.0,
    "stem": None,
    "series_scaling": None,
    "skip": None,
}

IMPUTER_SMALL = {"hidden_layer_sizes": (4,), "max_epochs": 1}
IMPUTERS = [
    DeepImputer(**IMPUTER_SMALL),
    DeepImputer(strategy="gaussian"),
    DeepImputer(**IMPUTER_SMALL, n_members=1, early_stopping=True, dropout=0.1, dtype="float64"),
    DeepImputer(strategy="gaussian", add_indicator=True, keep_empty_features=True, clip=False),
]

ESTIMATORS = [
    MLPClassifier(),
    MLPRegressor(),
    # Its defaults are those of the two classes above; see test_defaults_do_not_depend_on_the_class.
    MLPEstimator(**SMALL),
    MLPEstimator(task="regression", **SMALL),
    MLPClassifier(**SMALL | EXACT),
    MLPRegressor(**SMALL | EXACT | {"max_epochs": 80}),
    MLPEstimator(**SMALL | EXACT, activation="tanh", numeric_scaling="standard"),
    MLPEstimator(task="regression", **SMALL | EXACT | {"max_epochs": 80}, optimizer="rmsprop", l1=1e-4, l2=1e-3),
    MLPClassifier(
        **SMALL | {"max_epochs": 15},
        normalization="layer",
        loss="focal",
        early_stopping=True,
        scoring="accuracy",
        numeric_embedding="piecewise_linear",
    ),
    MLPClassifier(**QUICK, normalization="batch", class_weight="balanced", lr_schedule="one_cycle", gradient_clip=1.0),
    MLPRegressor(**SMALL | {"n_members": 2}, loss="huber", early_stopping=True, validation_fraction=0.3),
    MLPRegressor(**QUICK | {"learning_rate": 0.03}, optimizer="sgd", activation="selu", dropout=0.1),
    MLPClassifier(**SMALL | EXACT | {"numeric_embedding": "periodic"}),
    MLPEstimator(task="regression", **QUICK, loss="absolute_error", normalization="layer"),
    CNNClassifier(**CNN_SMALL),
    CNNRegressor(**CNN_SMALL | {"max_epochs": 50}),
    CNNClassifier(**CNN_SMALL | CNN_EXACT),
    CNNRegressor(**CNN_SMALL | CNN_EXACT | {"max_epochs": 120}, hidden_layer_sizes=(16,)),
    RNNClassifier(**RNN_SMALL, batch_size=128),
    RNNRegressor(**RNN_SMALL, batch_size=128),
    RNNClassifier(**RNN_SMALL | RNN_EXACT | {"max_epochs": 25}, cell="lstm"),
    RNNRegressor(**RNN_SMALL | RNN_EXACT | {"max_epochs": 60, "hidden_size": 16, "learning_rate": 0.1}, pooling="last"),
    *IMPUTERS,
]

WEIGHT_CHECKS = ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")


def expected_failures(estimator):
    if isinstance(estimator, DeepImputer):
        return {}
    if not hasattr(estimator, "numeric_embedding"):
        exact = CNN_EXACT if hasattr(estimator, "image_shape") else RNN_EXACT
        is_exact = all(getattr(estimator, name) == value for name, value in exact.items())
        return {} if is_exact else dict.fromkeys(WEIGHT_CHECKS[:1], "minibatches and single precision")
    # What a periodic embedding is does not depend on the number of rows, as the number of bins does.
    settings = {name: estimator.get_params()[name] for name in EXACT}
    if settings in (EXACT, EXACT | {"numeric_embedding": "periodic"}):
        return {}
    return dict.fromkeys(WEIGHT_CHECKS, "minibatches, single precision or held-out rows depend on the number of rows")


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
# Checks that do not apply say so by a warning.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_keeps_the_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "estimator", ESTIMATORS[:4], ids=lambda estimator: f"{type(estimator).__name__}-{estimator.loss}"
)
@pytest.mark.parametrize("check", [checks.check_param_validation, checks.check_dataframe_column_names_consistency])
def test_estimator_passes_checks_that_are_not_part_of_the_suite(estimator, check):
    check(type(estimator).__name__, clone(estimator).set_params(max_epochs=2))


@pytest.mark.parametrize("imputer", IMPUTERS, ids=range(len(IMPUTERS)))
@pytest.mark.parametrize(
    "check",
    [
        checks.check_dataframe_column_names_consistency,
        checks.check_get_feature_names_out_error,
        checks.check_global_output_transform_pandas,
        checks.check_global_set_output_transform_polars,
        checks.check_inplace_ensure_writeable,
        checks.check_n_features_in_after_fitting,
        checks.check_param_validation,
        checks.check_readonly_memmap_input,
        checks.check_set_output_transform,
        checks.check_set_output_transform_pandas,
        checks.check_set_output_transform_polars,
        checks.check_transformer_get_feature_names_out,
        checks.check_transformer_get_feature_names_out_pandas,
    ],
    ids=lambda check: check.__name__,
)
# The checks give it a frame in fit and an array in transform too.
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_imputer_passes_checks_that_are_not_part_of_the_suite(imputer, check):
    check("DeepImputer", clone(imputer))


@pytest.mark.parametrize("Classifier", [MLPClassifier, MLPEstimator])
def test_balanced_class_weights_raise_the_weighted_f1(Classifier):
    X, y = make_blobs([400, 40], centers=[[0.0, 0.0], [1.5, 1.5]], random_state=0)
    # Classes are even where it is tested, so that the prior of training is wrong there.
    X_test, y_test = make_blobs([200, 200], centers=[[0.0, 0.0], [1.5, 1.5]], random_state=1)
    classifier = Classifier(**SMALL)
    checks.check_class_weight_balanced_classifiers(Classifier.__name__, classifier, X, y, X_test, y_test, None)


@pytest.mark.parametrize("classifier", [MLPClassifier(), MLPEstimator()])
def test_classifiers_have_their_tags_before_fit(classifier):
    tags = get_tags(classifier)
    assert is_classifier(classifier) and not is_regressor(classifier)
    assert tags.classifier_tags.multi_label and tags.classifier_tags.multi_class and tags.regressor_tags is None
    assert tags.input_tags.allow_nan and tags.input_tags.sparse and tags.target_tags.required


@pytest.mark.parametrize("regressor", [MLPRegressor(), MLPEstimator(task="regression")])
def test_regressors_have_their_tags_before_fit(regressor):
    tags = get_tags(regressor)
    assert is_regressor(regressor) and not is_classifier(regressor)
    assert tags.target_tags.multi_output and tags.classifier_tags is None
    assert tags.input_tags.allow_nan and tags.input_tags.sparse and tags.target_tags.required


@pytest.mark.parametrize(("task", "same"), [("classification", MLPClassifier), ("regression", MLPRegressor)])
def test_defaults_do_not_depend_on_the_class(task, same):
    own = {"task", "loss"}
    params = MLPEstimator(task=task).get_params()
    assert {name: params[name] for name in same().get_params().keys() - own} == {
        name: value for name, value in same().get_params().items() if name not in own
    }


def test_subclasses_have_the_parameters_of_their_own_constructors():
    class Wide(MLPClassifier):
        def __init__(self, *, width=100):
            self.width = width
            super().__init__(hidden_layer_sizes=(width,))

    names = MLPClassifier().get_params()
    assert clone(Wide(width=7)).get_params() == {"width": 7}
    MLPClassifier._get_param_names().clear()
    assert MLPClassifier().get_params() == names


def test_imputers_have_their_tags_before_fit():
    tags = get_tags(DeepImputer())
    assert tags.transformer_tags.preserves_dtype == ["float64", "float32"]
    assert tags.input_tags.allow_nan and not tags.input_tags.sparse and not tags.target_tags.required
    assert tags.requires_fit and not is_classifier(DeepImputer()) and not is_regressor(DeepImputer())


def test_poisson_regressor_is_tagged_for_targets_that_are_not_negative():
    # Without the tag scikit-learn's checks feed negative targets.
    assert get_tags(MLPRegressor(loss="poisson")).target_tags.positive_only
    assert not get_tags(MLPRegressor()).target_tags.positive_only
