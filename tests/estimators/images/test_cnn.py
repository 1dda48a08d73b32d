"""Convolutional networks as estimators: what X may be, what a fit leaves behind, fine-tuning, and what is refused."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

from skdl import CNNClassifier, CNNRegressor, train_together
from skdl.nn.conv import ConvArchitecture

SMALL = {
    "conv_channels": (4, 6),
    "residual": False,
    "max_epochs": 4,
    "learning_rate": 0.02,
    "batch_size": 16,
    "random_state": 0,
}
EXACT = {"dtype": "float64", "batch_size": 10**6, "normalization": None, "augment": None}
METHODS = ["gradcam", "integrated_gradients", "occlusion"]


def stripes(n=40, shape=(8, 10), n_classes=3, seed=0):
    """Images of 8 bits with bright rows, bright columns or neither, in noise."""
    rng = np.random.RandomState(seed)
    y = np.arange(n) % n_classes
    images = rng.randint(0, 80, size=(n, *shape))
    for image, label in zip(images, y, strict=True):
        if label == 0:
            image[::3] += 150
        elif label == 1:
            image[:, ::3] += 150
    return images.astype(np.uint8), y


@pytest.fixture(scope="module")
def gray():
    return stripes()


@pytest.fixture(scope="module")
def colour():
    return stripes(shape=(8, 10, 3))


@pytest.fixture(scope="module")
def fitted(gray):
    return CNNClassifier(**SMALL).fit(*gray)


@pytest.fixture
def save(tmp_path):
    """Write images as PNG files; their paths."""

    def save(images):
        paths = [tmp_path / f"{i}.png" for i in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        return [str(path) for path in paths]

    return save


def networks_equal(one, other):
    pairs = zip(one.network_.state_dict().values(), other.network_.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- what X may be ---------------------------------------------------------------------------------------------------

GRAY_KINDS = {
    "one channel last": lambda X: (X[..., None], {}),
    "one channel first": lambda X: (X[:, None], {}),
    "named first": lambda X: (X[:, None], {"channels": "first"}),
    "list of arrays": lambda X: (list(X), {}),
    "tuple of arrays": lambda X: (tuple(X), {}),
    "object array of arrays": lambda X: (np.array([*X, None], dtype=object)[:-1], {}),
    "list of Pillow images": lambda X: ([Image.fromarray(x) for x in X], {}),
    "nested lists": lambda X: (X.tolist(), {}),
    "flat rows": lambda X: (X.reshape(len(X), -1), {"image_shape": (8, 10)}),
    "flat rows of one channel": lambda X: (X.reshape(len(X), -1), {"image_shape": (8, 10, 1)}),
    "pandas rows": lambda X: (
        pd.DataFrame(X.reshape(len(X), -1), columns=[f"p{j}" for j in range(80)]),
        {"image_shape": (8, 10)},
    ),
    "polars rows": lambda X: (pl.DataFrame(X.reshape(len(X), -1)), {"image_shape": (8, 10)}),
    "tensor": lambda X: (torch.from_numpy(X), {}),
    "float32": lambda X: (X.astype(np.float32), {}),
    "float64": lambda X: (X.astype(float), {}),
    "int64": lambda X: (X.astype(int), {}),
    "objects": lambda X: (X.astype(object), {}),
    "reversed twice": lambda X: (X[::-1].copy()[::-1], {}),
    "Fortran order": lambda X: (np.asfortranarray(X), {}),
    "resized to its size": lambda X: (X, {"resize": (8, 10)}),
}


@pytest.mark.parametrize("kind", GRAY_KINDS)
def test_equal_pixels_give_equal_probabilities(gray, fitted, kind):
    X, y = gray
    given, parameters = GRAY_KINDS[kind](X)
    model = CNNClassifier(**SMALL, **parameters).fit(given, y)
    assert_array_equal(model.predict_proba(given), fitted.predict_proba(X))
    assert model.image_shape_ == (8, 10, 1)


COLOUR_KINDS = {
    "channels first": lambda X: (np.moveaxis(X, 3, 1), {}),
    "named first": lambda X: (np.moveaxis(X, 3, 1), {"channels": "first"}),
    "named last": lambda X: (X, {"channels": "last"}),
    "list of Pillow images": lambda X: ([Image.fromarray(x) for x in X], {}),
    "list of arrays": lambda X: (list(X), {}),
    "flat rows": lambda X: (X.reshape(len(X), -1), {"image_shape": (8, 10, 3)}),
    "flat rows, channels first": lambda X: (
        np.moveaxis(X, 3, 1).reshape(len(X), -1),
        {"image_shape": (8, 10, 3), "channels": "first"},
    ),
}


@pytest.mark.parametrize("kind", COLOUR_KINDS)
def test_equal_colours_give_equal_probabilities(colour, kind):
    X, y = colour
    given, parameters = COLOUR_KINDS[kind](X)
    model = CNNClassifier(**SMALL, **parameters).fit(given, y)
    assert_array_equal(model.predict_proba(given), CNNClassifier(**SMALL).fit(X, y).predict_proba(X))
    assert model.image_shape_ == (8, 10, 3)


@pytest.mark.parametrize(
    ("wrap", "parameters"),
    [
        (list, {}),
        (lambda paths: [Path(path) for path in paths], {}),
        (np.array, {}),
        (pd.Series, {}),
        (pl.Series, {}),
        (lambda paths: pd.DataFrame({"id": range(len(paths)), "file": paths}), {"path_column": "file"}),
        (lambda paths: pl.DataFrame({"id": range(len(paths)), "file": paths}), {"path_column": "file"}),
    ],
    ids=["list", "Path", "array", "pandas series", "polars series", "pandas frame", "polars frame"],
)
@pytest.mark.parametrize("data", ["gray", "colour"])
def test_files_are_the_pixels_in_them(save, request, data, wrap, parameters):
    X, y = request.getfixturevalue(data)
    files = wrap(save(X))
    model = CNNClassifier(**SMALL, **parameters).fit(files, y)
    p = CNNClassifier(**SMALL).fit(X, y).predict_proba(X)
    assert_array_equal(model.predict_proba(files), p)
    # Arrays may be predicted by what was fitted on files.
    assert_array_equal(model.predict_proba(X), p)
    assert model.explain(files).shape == (40, 8, 10) and model.transform(files).shape == (40, 24)


def test_files_are_read_under_another_default_device(save, gray):
    X, y = gray
    files = save(X)
    model = CNNClassifier(**SMALL, device="cpu").fit(X, y)
    with torch.device("meta"):
        again = CNNClassifier(**SMALL, device="cpu").fit(files, y)
        assert_array_equal(again.predict_proba(files), model.predict_proba(X))
        assert_array_equal(model.transform(files[:3]), model.transform(X[:3]))


def test_files_train_with_early_stopping_scoring_and_a_search(save, gray):
    X, y = gray
    paths = save(X)
    settings = SMALL | {"early_stopping": True, "scoring": "accuracy"}
    one, other = CNNClassifier(**settings).fit(paths, y), CNNClassifier(**settings).fit(X, y)
    assert one.validation_scores_ == other.validation_scores_
    grid = {"learning_rate": [0.01, 0.02]}
    searches = [GridSearchCV(CNNClassifier(**SMALL), grid, cv=2).fit(given, y) for given in (paths, X)]
    assert_array_equal(*(search.cv_results_["mean_test_score"] for search in searches))


def test_images_of_several_sizes_are_resized_in_fit_and_predict(gray):
    X, y = gray
    mixed = [Image.fromarray(x).resize((10 + i % 3, 8 + i % 2)) for i, x in enumerate(X)]
    model = CNNClassifier(**SMALL, resize=(6, 7)).fit(mixed, y)
    assert model.image_shape_ == (6, 7, 1) and model.explain(mixed).shape == (40, 6, 7)
    by_hand = np.stack([np.asarray(image.resize((7, 6), Image.Resampling.BILINEAR)) for image in mixed])
    assert_array_equal(model.predict_proba(mixed), CNNClassifier(**SMALL).fit(by_hand, y).predict_proba(by_hand))


def test_signals_are_images_of_one_row(gray):
    X, y = gray
    rows = X.reshape(len(X), -1).astype(np.float32)
    model = CNNClassifier(**SMALL).fit(rows, y)
    assert model.image_shape_ == (1, 80, 1) and model.n_features_in_ == 80
    assert model.augmentation_.settings() == {}
    assert_array_equal(model.predict_proba(rows), CNNClassifier(**SMALL).fit(rows[:, None], y).predict_proba(rows))
    assert model.explain(rows).shape == (40, 1, 80)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3, 4), (1, 2), (2, 1), (1, 1, 5), (2, 9)])
@pytest.mark.parametrize("settings", [{}, {"kernel_size": 7, "residual": True}])
def test_tiny_images_are_trained_on_and_explained(shape, settings):
    X = np.random.RandomState(0).randint(0, 256, size=(24, *shape)).astype(np.uint8)
    model = CNNClassifier(max_epochs=1, random_state=0, **settings).fit(X, np.arange(24) % 2)
    assert np.isfinite(model.predict_proba(X)).all()
    assert all(np.isfinite(model.explain(X, method=method)).all() for method in METHODS)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_that_may_only_be_read(gray, fitted, dtype):
    X = gray[0].astype(dtype)
    X.flags.writeable = False
    before = X.copy()
    model = CNNClassifier(**SMALL).fit(X, gray[1])
    assert_array_equal(model.predict_proba(X), fitted.predict_proba(gray[0]))
    model.explain(X, method="integrated_gradients")
    assert_array_equal(X, before)


@pytest.mark.parametrize("normalization", ["batch", None])
def test_the_unit_of_pixels_does_not_matter(gray, normalization):
    X, y = gray
    settings = SMALL | {"dtype": "float64", "normalization": normalization}
    p = CNNClassifier(**settings).fit(X.astype(float), y).predict_proba(X.astype(float))
    scaled = X / 255 - 3
    assert_allclose(CNNClassifier(**settings).fit(scaled, y).predict_proba(scaled), p, rtol=1e-6)


def test_statistics_are_those_of_training_images_alone(gray):
    X, y = gray
    model = CNNClassifier(**SMALL).fit(X, y, X_val=X[:3] // 2 + 100, y_val=y[:3])
    assert model.network_.mean == pytest.approx((X.mean(),)) and model.network_.scale == pytest.approx((X.std(),))


def test_constant_images_are_predicted_by_the_share_of_classes():
    X, y = np.full((40, 6, 6), 7.0), np.repeat([0, 1], [10, 30])
    with pytest.warns(UserWarning, match="All pixels that CNNClassifier looked at are 7, and nothing can be learned"):
        model = CNNClassifier(**SMALL | {"max_epochs": 60}, augment=None).fit(X, y)
    assert_allclose(model.predict_proba(X), [[0.25, 0.75]] * 40, atol=0.1)


def test_one_class_is_certain(gray):
    assert_array_equal(CNNClassifier(**SMALL).fit(gray[0], np.ones(40)).predict_proba(gray[0]), np.ones((40, 1)))


# --- the unit of the pixels -------------------------------------------------------------------------------------------

#: What images of 8 bits become that are scaled before they are trained on.
SCALED = {
    "from 0 to 1": lambda X: X / 255,
    "from 0 to 1, float32": lambda X: (X / np.float32(255)).astype(np.float32),
    "from -1 to 1": lambda X: X / 127.5 - 1,
    "standardised": lambda X: (X - X.mean()) / X.std(),
}


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform", "explain"])
def test_images_of_another_unit_than_those_of_fit_are_refused(gray, fitted, kind, method):
    X, y = gray
    scaled = SCALED[kind](X)
    with pytest.raises(ValueError, match=r"X has floats from .* fitted on pixels of 8 bits from 0 to .*X \* 255"):
        getattr(fitted, method)(scaled)
    model = CNNClassifier(**SMALL | {"max_epochs": 1}).fit(scaled, y)
    with pytest.raises(ValueError, match=r"X has pixels of 8 bits from .* with a mean of .* on floats.*X / 255"):
        getattr(model, method)(X)
    # A single image of 8 bits is brighter than any that was fitted on.
    with pytest.raises(ValueError, match="8 bits"):
        getattr(model, method)(X[:1])


def test_images_of_another_unit_are_refused_as_files_lists_rows_and_validation_images(save, gray):
    X, y = gray
    scaled, paths = X / 255, save(X)
    model = CNNClassifier(**SMALL).fit(scaled, y)
    for given in (list(X), [Image.fromarray(x) for x in X], paths):
        with pytest.raises(ValueError, match=r"8 bits from .*X / 255"):
            model.predict(given)
    with pytest.raises(ValueError, match=r"X \* 255"):
        CNNClassifier(**SMALL).fit(paths, y).predict(list(scaled))
    with pytest.raises(ValueError, match=r"X \* 255"):
        CNNClassifier(**SMALL).fit(X, y, X_val=scaled, y_val=y)
    with pytest.raises(ValueError, match=r"X / 255"):
        CNNClassifier(**SMALL).partial_fit(scaled, y).partial_fit(X, y)
    rows = CNNClassifier(**SMALL, image_shape=(8, 10)).fit(scaled.reshape(40, 80), y)
    with pytest.raises(ValueError, match=r"X / 255"):
        rows.predict(X.reshape(40, 80))


@pytest.mark.parametrize("convert", [np.float32, np.float64, np.int64, lambda X: X.astype(object), np.ndarray.tolist])
def test_images_of_one_unit_may_be_of_another_type_than_those_of_fit(gray, fitted, convert):
    X, y = gray
    p = fitted.predict_proba(X)
    assert_array_equal(fitted.predict_proba(convert(X)), p)
    model = CNNClassifier(**SMALL).fit(convert(X), y)
    assert_array_equal(model.predict_proba(X), p)
    # Dark images, and those of one colour, are of no unit that could be told.
    for dark in (X[:1] // 30, X // 200, np.zeros((1, 8, 10), np.uint8), np.full((2, 8, 10), 255, np.uint8)):
        assert_array_equal(fitted.predict_proba(convert(dark)), model.predict_proba(dark))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_images_of_one_colour_are_of_any_unit(gray, fitted, value):
    X, y = gray
    flat = np.full((3, 8, 10), value)
    assert np.isfinite(fitted.predict_proba(flat)).all()
    black = np.full((3, 8, 10), round(value), np.uint8)
    assert np.isfinite(CNNClassifier(**SMALL).fit(X / 255, y).predict_proba(black)).all()
    with pytest.warns(UserWarning, match="All pixels"):
        assert np.isfinite(CNNClassifier(**SMALL).fit(flat, y[:3]).predict_proba(X)).all()


# --- the shape of the images is asked for more than once -------------------------------------------------------------

UNUSUAL = pytest.mark.parametrize("shape", [(4, 4, 5), (3, 3, 2), (1, 8, 10)])


@UNUSUAL
def test_rows_of_images_with_an_unusual_number_of_channels_are_explained(shape):
    X = np.random.RandomState(0).normal(size=(24, int(np.prod(shape))))
    model = CNNClassifier(**SMALL, image_shape=shape).fit(X, np.arange(24) % 2)
    assert model.explain(X).shape == (24, *shape[:2])


@UNUSUAL
def test_rows_of_images_with_an_unusual_number_of_channels_are_scored(shape):
    X = np.random.RandomState(0).normal(size=(24, int(np.prod(shape))))
    settings = SMALL | {"early_stopping": True, "scoring": "accuracy"}
    model = CNNClassifier(**settings, image_shape=shape).fit(X, np.arange(24) % 2)
    assert len(model.validation_scores_) == 4


def test_channels_named_first_are_so_where_all_axes_have_one_length():
    X = np.random.RandomState(0).normal(size=(24, 3, 3, 3))
    y = (X[:, 0].mean(axis=(1, 2)) > 0).astype(int)
    first = CNNClassifier(**SMALL, channels="first").fit(X, y)
    X_last = np.moveaxis(X, 1, 3)
    last = CNNClassifier(**SMALL, channels="last").fit(X_last, y)
    assert_array_equal(first.predict_proba(X), last.predict_proba(X_last))
    assert_array_equal(first.explain(X), last.explain(X_last))


def test_spread_of_regressors_whose_channels_are_first_where_all_axes_have_one_length():
    X = np.random.RandomState(0).normal(size=(24, 3, 3, 3))
    y, X_last = X[:, 0].mean(axis=(1, 2)), np.moveaxis(X, 1, 3)
    settings = SMALL | {"early_stopping": True, "n_members": 2}
    first = CNNRegressor(**settings, channels="first").fit(X, y).predict(X, return_std=True)
    last = CNNRegressor(**settings, channels="last").fit(X_last, y).predict(X_last, return_std=True)
    assert_array_equal(first, last)


# --- what a fit leaves behind ----------------------------------------------------------------------------------------


def test_digits_are_told_apart_in_a_pipeline():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    model = make_pipeline(MinMaxScaler(), CNNClassifier(image_shape=(8, 8), max_epochs=8, random_state=0))
    assert model.fit(X, y).score(X_test, y_test) > 0.97


def test_embeddings_of_a_network_are_features_of_a_pipeline():
    X, y = load_digits(return_X_y=True)
    network = CNNClassifier(image_shape=(8, 8), max_epochs=3, random_state=0)
    model = make_pipeline(network, MinMaxScaler(), LogisticRegression(max_iter=500)).fit(X[:1200], y[:1200])
    assert model.score(X[1200:], y[1200:]) > 0.93


def test_fitted_attributes(gray, fitted):
    assert fitted.n_iter_ == len(fitted.history_) == 4 and fitted.t_ == 160
    assert fitted.n_outputs_ == 3 and fitted.out_activation_ == "softmax" and fitted.n_layers_ == 4
    assert not hasattr(fitted, "n_features_in_") and not hasattr(fitted, "feature_names_in_")
    assert isinstance(fitted.network_, nn.Module) and not fitted.network_.training
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]


def test_network_computes_the_probabilities_from_raw_pixels(gray, fitted):
    with torch.no_grad():
        logits = fitted.network_(torch.from_numpy(gray[0]))
    assert_allclose(torch.softmax(logits.double(), 1).numpy(), fitted.predict_proba(gray[0]), rtol=1e-5)
    assert_allclose(np.log(fitted.predict_proba(gray[0])), fitted.predict_log_proba(gray[0]), rtol=1e-6)


def test_the_output_layer_sees_the_embedding(gray, fitted):
    embedded = torch.from_numpy(fitted.transform(gray[0]))
    assert embedded.dtype == torch.float32 and embedded.shape == (40, 24)
    with torch.no_grad():
        logits = fitted.network_.output(embedded)
        assert_allclose(logits.numpy(), fitted.network_(torch.from_numpy(gray[0])).numpy(), atol=1e-5)


@pytest.mark.parametrize(("library", "frame"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_embeddings_come_as_the_frame_that_is_asked_for(gray, fitted, library, frame):
    model = copy.deepcopy(fitted).set_output(transform=library)
    out = model.transform(gray[0])
    assert isinstance(out, frame)
    assert list(out.columns) == model.get_feature_names_out().tolist() == [f"cnnclassifier{i}" for i in range(24)]
    assert_array_equal(out.to_numpy(), fitted.transform(gray[0]))


@pytest.mark.parametrize("hidden", [(), (5,), (9, 7)])
@pytest.mark.parametrize("n_members", [1, 2])
def test_embeddings_are_as_wide_as_the_last_layer_of_each_network(gray, hidden, n_members):
    model = CNNClassifier(**SMALL, hidden_layer_sizes=hidden, n_members=n_members).fit(*gray)
    width = n_members * (hidden[-1] if hidden else 24)
    assert model.transform(gray[0]).shape == (40, width) == (40, len(model.get_feature_names_out()))


def test_fit_transform_is_fit_and_transform(gray, fitted):
    assert_array_equal(CNNClassifier(**SMALL).fit_transform(*gray), fitted.transform(gray[0]))


def test_images_one_by_one_are_predicted_as_together(gray, fitted):
    alone = np.concatenate([fitted.predict_proba(gray[0][i : i + 1]) for i in range(40)])
    assert_allclose(alone, fitted.predict_proba(gray[0]), rtol=1e-5)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform", "explain", "predict_log_proba"])
def test_what_needs_a_fit_says_so(gray, method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(CNNClassifier(), method)(gray[0])


TARGETS = {
    "binary": (CNNClassifier, lambda y: np.where(y > 0, "b", "a")),
    "multiclass": (CNNClassifier, lambda y: np.array(["x", "y", "z"])[y]),
    "multilabel": (CNNClassifier, lambda y: np.stack([y == 0, y > 0, y == 2], axis=1).astype(int)),
    "regression": (CNNRegressor, lambda y: y * 2.5 + 1),
    "two targets": (CNNRegressor, lambda y: np.stack([y, -3.0 * y], axis=1)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("task", TARGETS)
def test_maps_of_every_task(gray, task, n_members, method):
    Estimator, target = TARGETS[task]
    X, y = gray[0][:9], target(gray[1])
    model = Estimator(**SMALL, n_members=n_members).fit(gray[0], y)
    maps = model.explain(X, method=method)
    assert maps.shape == (9, 8, 10) and maps.dtype == np.float64 and np.isfinite(maps).all() and maps.any()
    if y.dtype.kind == "U":
        assert_array_equal(maps, model.explain(X, model.predict(X), method=method))
        other = np.roll(model.classes_, 1)[np.searchsorted(model.classes_, model.predict(X))]
        assert not np.allclose(maps, model.explain(X, other, method=method))
    else:
        assert_array_equal(maps, model.explain(X, np.zeros(9, int), method=method))
        if y.ndim == 2:
            assert not np.allclose(maps, model.explain(X, np.ones(9, int), method=method))


def test_maps_of_two_classes_are_of_opposite_signs(gray):
    model = CNNClassifier(**SMALL).fit(gray[0], gray[1] > 0)
    maps = [model.explain(gray[0], np.full(40, label), method="integrated_gradients") for label in (False, True)]
    assert_allclose(maps[0], -maps[1], atol=1e-6)


def test_integrated_gradients_are_in_units_of_the_logit(gray, fitted):
    with torch.no_grad():
        mean = torch.full((1, 80), fitted.network_.mean[0])
        base, logits = fitted.network_(mean), fitted.network_(torch.from_numpy(gray[0]))
    maps = fitted.explain(gray[0], np.full(40, 2), method="integrated_gradients")
    assert_allclose(maps.sum(axis=(1, 2)), (logits - base)[:, 2].numpy(), rtol=0.03, atol=0.05)


def test_explanations_leave_the_network_as_it_was(gray, fitted):
    before = pickle.dumps(fitted.network_.state_dict())
    for method in METHODS:
        fitted.explain(gray[0], method=method)
    assert pickle.dumps(fitted.network_.state_dict()) == before and not fitted.network_.training


@pytest.mark.parametrize("n_members", [1, 2])
def test_test_time_augmentation_averages_over_views(gray, n_members):
    model = CNNClassifier(**SMALL, n_members=n_members).fit(*gray)
    bare = model.predict_proba(gray[0])
    model.set_params(test_time_augmentation=3)
    p = model.predict_proba(gray[0])
    assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert not np.allclose(p, bare) and np.abs(p - bare).mean() < 0.2
    assert_array_equal(p, model.predict_proba(gray[0]))
    assert_allclose(p[:7], model.predict_proba(gray[0][:7]), rtol=1e-4, atol=1e-6)


def test_views_are_those_of_the_augmentation(gray):
    # The only view that a shift and a flip of an image that is the same everywhere can give is the image.
    model = CNNClassifier(**SMALL, augment={"shift": 0.2, "flip": True}).fit(*gray)
    flat = np.full((4, 8, 10), 50, np.uint8)
    bare = model.predict_proba(flat)
    assert_allclose(model.set_params(test_time_augmentation=4).predict_proba(flat), bare, rtol=1e-4)


def test_test_time_augmentation_without_augmentation_changes_nothing(gray):
    model = CNNClassifier(**SMALL, augment=None).fit(*gray)
    bare = model.predict_proba(gray[0])
    assert_allclose(model.set_params(test_time_augmentation=2).predict_proba(gray[0]), bare, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile", "poisson"])
@pytest.mark.parametrize("n_targets", [1, 2])
def test_every_loss_of_regression_learns(gray, loss, n_targets):
    X, label = gray
    y = np.where(label == 0, 3.0, 1.0)
    y = y if n_targets == 1 else np.stack([y, 5 - y], axis=1)
    settings = SMALL | {"max_epochs": 40, "learning_rate": 0.01}
    model = CNNRegressor(**settings, loss=loss, augment=None).fit(X, y)
    assert model.predict(X).shape == y.shape and model.predict(X).dtype == np.float64
    assert model.score(X, y) > 0.7


def test_regression_has_a_spread_of_several_networks(gray):
    mean, std = (
        CNNRegressor(**SMALL, n_members=3, early_stopping=True)
        .fit(gray[0], gray[1] * 1.0)
        .predict(gray[0], return_std=True)
    )
    assert mean.shape == std.shape == (40,) and (std > 0).all()


# --- weights ---------------------------------------------------------------------------------------------------------


def assert_same_network(one, other):
    for a, b in zip(one.network_.parameters(), other.network_.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_a_weight_of_zero_takes_the_image_out(gray):
    X, y = gray
    weight = np.where(np.arange(40) < 25, 1.0, 0.0)
    assert_same_network(
        CNNClassifier(**SMALL | EXACT).fit(X, y, weight), CNNClassifier(**SMALL | EXACT).fit(X[:25], y[:25])
    )


@pytest.mark.parametrize("Estimator", [CNNClassifier, CNNRegressor])
def test_weights_count_as_repeated_images(gray, Estimator):
    X, y = gray
    times = np.arange(40) % 4
    repeated = np.repeat(np.arange(40), times)
    assert_same_network(
        Estimator(**SMALL | EXACT).fit(X, y, times), Estimator(**SMALL | EXACT).fit(X[repeated], y[repeated])
    )


def test_class_weights_are_weights_of_their_images(gray):
    X, y = gray
    by_class = {0: 1.0, 1: 3.0, 2: 0.5}
    weighted = CNNClassifier(**SMALL | EXACT, class_weight=by_class).fit(X, y)
    plain = CNNClassifier(**SMALL | EXACT).fit(X, y)
    assert not networks_equal(weighted, plain)
    # The statistics of the pixels are of the images as they are, the loss is weighted.
    assert weighted.network_.mean == plain.network_.mean
    doubled = CNNClassifier(**SMALL | EXACT, class_weight={label: 2 * w for label, w in by_class.items()}).fit(X, y)
    assert_same_network(weighted, doubled)


# --- early stopping, members, callbacks, going on ----------------------------------------------------------------


@pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss"])
@pytest.mark.parametrize("given", [True, False])
def test_early_stopping_keeps_the_best_epoch(gray, scoring, given):
    X, y = gray
    model = CNNClassifier(**SMALL | {"max_epochs": 12}, early_stopping=True, n_iter_no_change=3, scoring=scoring)
    model.fit(X[:30], y[:30], **({"X_val": X[30:], "y_val": y[30:]} if given else {}))
    assert len(model.validation_scores_) == model.n_iter_ <= 12
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert (model.out_of_fold_ is None) == given
    if given and scoring == "accuracy":
        assert model.score(X[30:], y[30:]) == model.best_validation_score_


def test_auto_early_stopping_waits_for_validation_images(gray):
    X, y = gray
    assert CNNClassifier(**SMALL, early_stopping="auto").fit(X, y).validation_scores_ is None
    model = CNNClassifier(**SMALL, early_stopping="auto").fit(X[:30], y[:30], X_val=X[30:], y_val=y[30:])
    assert len(model.validation_scores_) == model.n_iter_


@pytest.mark.parametrize(
    ("side", "n_images", "expected"), [(8, 100, 32), (8, 600, 64), (128, 600, 64), (256, 600, 16), (2000, 600, 4)]
)
def test_auto_batches_of_large_images_are_small(side, n_images, expected):
    model = CNNClassifier()
    model.image_shape_ = (side, side, 3)
    assert model._batch_size(n_images) == expected


def test_early_stopping_of_a_single_image_is_refused(gray):
    with pytest.raises(ValueError, match=r"Set early_stopping=False"):
        CNNClassifier(**SMALL, early_stopping=True).fit(gray[0][:1], gray[1][:1])


def test_an_ensemble_is_in_eval_mode(gray):
    assert not CNNClassifier(**SMALL | {"max_epochs": 1}, n_members=2).fit(*gray).network_.training


def test_members_are_averaged(gray):
    model = CNNRegressor(**SMALL, n_members=2).fit(gray[0], gray[1] * 1.0)
    with torch.no_grad():
        outputs = model.network_(torch.from_numpy(gray[0])).double().numpy()[..., 0]
    assert not np.allclose(*outputs)
    assert_allclose(model.predict(gray[0]), outputs.mean(axis=0) * gray[1].std() + gray[1].mean(), rtol=1e-5)


def test_warm_start_goes_on_with_as_many_networks_under_auto(gray):
    model = CNNClassifier(**SMALL | {"n_members": 2}, warm_start=True).fit(*gray)
    assert len(model.set_params(n_members="auto").fit(*gray).network_.members) == 2


def test_warm_start_goes_on(gray):
    X, y = gray
    settings = SMALL | EXACT | {"lr_schedule": "constant"}
    whole = CNNClassifier(**settings | {"max_epochs": 6}).fit(X, y)
    model = CNNClassifier(**settings | {"max_epochs": 3}, warm_start=True).fit(X, y)
    half = copy.deepcopy(model)
    model.fit(X, y)
    assert_same_network(model, whole)
    assert model.t_ == whole.t_ and not networks_equal(half, whole)


def test_warm_start_leaves_no_layer_out(gray):
    model = CNNClassifier(**SMALL | {"residual": True}, warm_start=True).fit(*gray)
    with pytest.raises(ValueError, match="architecture was changed"):
        model.set_params(residual=False).fit(*gray)


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_warm_start_takes_running_statistics_along(gray, normalization):
    X, y = gray
    settings = SMALL | {"max_epochs": 1, "learning_rate": 1e-12, "augment": None}
    model = CNNClassifier(**settings, warm_start=True, normalization=normalization).fit(X, y)
    first = model.predict_proba(X)
    norm = next(part for part in model.network_.modules() if isinstance(part, nn.BatchNorm2d | nn.GroupNorm))
    before = getattr(norm, "running_mean", norm.weight).clone()
    again = model.fit(X, y)
    if normalization == "layer":
        assert_allclose(again.predict_proba(X), first, rtol=1e-6)
    else:
        norm = next(part for part in again.network_.modules() if isinstance(part, nn.BatchNorm2d))
        # Of 3 steps at a momentum of 0.1 each, 0.9 ** 3 is left of the distance; a fresh start would give ``before``.
        assert (norm.running_mean / before).mean().item() == pytest.approx((1 - 0.9**6) / (1 - 0.9**3), rel=0.05)


def test_another_architecture_does_not_go_on(gray):
    model = CNNClassifier(**SMALL, warm_start=True).fit(*gray)
    with pytest.raises(ValueError, match=r"architecture was changed.*warm_start=False"):
        model.set_params(conv_channels=(4, 7)).fit(*gray)


def test_partial_fit_learns_from_parts(gray):
    X, y = gray
    model = CNNClassifier(**SMALL | {"learning_rate": 0.01})
    for _ in range(15):
        for part in (slice(0, 40, 2), slice(1, 40, 2)):
            model.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert model.score(X, y) > 0.9 and model.t_ == 600
    with pytest.raises(ValueError, match="8 x 10"):
        model.partial_fit(X[:, :6], y)


def test_partial_fit_may_begin_without_some_classes(gray):
    X, y = gray
    model = CNNClassifier(**SMALL).partial_fit(X[y == 0], y[y == 0], classes=[0, 1, 2])
    assert model.predict_proba(X).shape == (40, 3)


def test_partial_fit_of_a_regressor(gray):
    model = CNNRegressor(**SMALL)
    for _ in range(3):
        model.partial_fit(gray[0], gray[1] * 1.0)
    assert model.t_ == 120 and model.predict(gray[0]).shape == (40,)


def test_verbose_prints_a_line_an_epoch(gray, capsys):
    CNNClassifier(**SMALL, verbose=2).fit(*gray)
    lines = capsys.readouterr().out.splitlines()
    CNNClassifier(**SMALL).fit(*gray)
    assert 2 <= len(lines) <= 4 and capsys.readouterr().out == ""


def test_ctrl_c_keeps_the_network_so_far(gray):
    steps = []

    def augment(images, generator):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return images

    with pytest.warns(UserWarning, match="interrupted after 1 epochs"):
        model = CNNClassifier(**SMALL, augment=augment).fit(*gray)
    assert model.n_iter_ == 1 and np.isfinite(model.predict_proba(gray[0])).all()


# --- randomness, copies, company -------------------------------------------------------------------------------------

RICH = SMALL | {
    "dropout": 0.3,
    "augment": {"shift": 0.2, "rotation": 20, "zoom": 0.2, "flip": True, "cutout": 0.3, "mixup": 0.3},
}


@pytest.mark.parametrize("settings", [RICH, RICH | {"early_stopping": True, "n_members": 2}])
def test_same_seed_same_network_and_no_global_state_moved(gray, settings):
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    one = CNNClassifier(**settings).fit(*gray)
    one.set_params(test_time_augmentation=2).predict(gray[0])
    one.explain(gray[0])
    assert torch.equal(states[0], torch.random.get_rng_state()) and torch.get_num_threads() == states[2]
    assert_array_equal(states[1], np.random.get_state()[1])
    torch.manual_seed(4)
    assert networks_equal(one, CNNClassifier(**settings).fit(*gray))
    assert not networks_equal(one, CNNClassifier(**settings | {"random_state": 1}).fit(*gray))


def test_the_callers_threads_are_given_back(gray, two_threads):
    model = CNNClassifier(**SMALL).fit(*gray)
    model.predict(gray[0])
    model.explain(gray[0])
    with pytest.raises(ValueError):
        CNNClassifier(**SMALL, augment=lambda images, generator: None).fit(*gray)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("n_members", [1, 2])
def test_pickles_and_copies_predict_the_same(gray, n_members):
    model = CNNClassifier(**RICH, n_members=n_members).fit(*gray)
    p = model.predict_proba(gray[0])
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert_array_equal(other.predict_proba(gray[0]), p)
        assert_array_equal(other.explain(gray[0]), model.explain(gray[0]))
    assert networks_equal(clone(model).fit(*gray), model) and not hasattr(clone(model), "network_")


def test_a_pickle_holds_each_parameter_once(gray):
    X, y = gray
    model = CNNClassifier(max_epochs=1, n_members=1, early_stopping=False, random_state=0).fit(X, y)
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.network_.state_dict().values())
    assert len(pickle.dumps(model)) < 1.2 * n_bytes + 50_000


def test_a_pickle_does_not_grow_with_the_images():
    settings = SMALL | {"max_epochs": 1, "batch_size": 200}
    sizes = [
        len(pickle.dumps(CNNClassifier(**settings, early_stopping=True).fit(X, y)))
        for X, y in (stripes(60), stripes(600))
    ]
    # What networks say of held-out images is kept, 3 numbers per image; an image is 80.
    assert sizes[1] - sizes[0] < 540 * 40


GRID = {
    "augment": [None, "auto", {"mixup": 0.3, "cutout": 0.2}],
    "learning_rate": [0.01, 0.02],
}


def sides(n, n_classes, seed=0):
    """Images with a bright square on the left (class 0) or on the right (class 1), or of mere noise."""
    rng = np.random.RandomState(seed)
    y = np.arange(n) % n_classes
    images = rng.normal(0, 0.3, size=(n, 12, 12))
    for image, label in zip(images, y, strict=True):
        row, column = rng.randint(10), 7 * label + rng.randint(3)
        if label < 2:
            image[row : row + 3, column : column + 3] += 2
    return images, y


@pytest.mark.parametrize("order", ["in turns", "shuffled", "sorted"])
def test_auto_augment_does_not_mirror_what_is_told_apart_by_its_side(order):
    X, y = sides(200, 2)
    rows = {"in turns": np.arange(200), "shuffled": np.random.RandomState(1).permutation(200), "sorted": y.argsort()}
    assert not CNNClassifier(**SMALL).fit(X[rows[order]], y[rows[order]]).augmentation_.flip


def test_auto_augment_looks_at_images_of_all_classes_where_labels_come_in_turns(monkeypatch):
    monkeypatch.setattr("skdl.estimators.images.label_invariance.TRIED_IMAGES", 40)
    assert CNNClassifier(**SMALL | {"max_epochs": 1}).fit(*stripes(120)).augmentation_.flip


@pytest.mark.parametrize("function", [lambda: None, lambda images: images, lambda images, generator, more: images])
def test_augment_must_take_images_and_a_generator(gray, function):
    with pytest.raises(TypeError, match=r"is called as augment\(images, generator\)"):
        CNNClassifier(max_epochs=1, augment=function).fit(*gray)


def test_augment_wants_numbers_where_something_has_an_amount(gray):
    with pytest.raises(ValueError, match=r"augment wants numbers for \['rotation'\]"):
        CNNClassifier(**SMALL, augment={"rotation": True, "flip": True}).fit(*gray)


def test_auto_augment_listens_to_small_classes_too():
    X, y = sides(600, 3)
    rows = np.flatnonzero((y == 2) | (np.arange(600) < 60))
    assert not CNNClassifier(**SMALL | {"max_epochs": 1}).fit(X[rows], y[rows]).augmentation_.flip


def test_auto_augment_mirrors_what_looks_alike_mirrored(gray):
    assert CNNClassifier(**SMALL).fit(*stripes(120)).augmentation_.flip


@pytest.mark.filterwarnings("ignore:The first call of partial_fit:UserWarning")
@pytest.mark.parametrize("n", [2, 10, 30])
def test_auto_augment_does_not_mirror_where_few_images_say_nothing(n):
    X, y = load_digits(return_X_y=True)
    model = CNNClassifier(**SMALL).partial_fit(X[:n].reshape(-1, 8, 8), y[:n], classes=np.arange(10))
    assert not model.augmentation_.flip


def test_partial_fit_goes_on_with_the_augmentation_that_is_set(gray):
    model = CNNClassifier(**SMALL).partial_fit(*gray, classes=[0, 1, 2])
    before = model.augmentation_
    assert model.partial_fit(*gray).augmentation_ == before
    assert model.set_params(augment={"cutout": 0.5}).partial_fit(*gray).augmentation_.cutout == 0.5
    assert model.set_params(augment="auto").partial_fit(*gray).augmentation_ == before
    with pytest.raises(ValueError, match="nonsense"):
        model.set_params(augment={"nonsense": 0.5, 1: 2}).partial_fit(*gray)
    model = CNNClassifier(**SMALL, augment=None).partial_fit(*gray, classes=[0, 1, 2])
    assert model.set_params(augment="auto").partial_fit(*gray).augmentation_ == before


def test_scorers_cannot_hand_in_other_images_unchecked(gray):
    def narrow(estimator, X, y):
        return estimator.score(X[:, :, :5], y)

    def broken(estimator, X, y):
        return estimator.score(X * np.nan, y)

    for scoring, message in ((narrow, "8 x 5 pixels"), (broken, "NaN")):
        with pytest.raises(ValueError, match=message):
            CNNClassifier(**SMALL, early_stopping=True, scoring=scoring).fit(*gray)


def test_a_search_over_augmentations_is_the_same_together(gray):
    X, y = gray
    with joblib.parallel_config(backend="sequential"):
        plain = GridSearchCV(CNNClassifier(**SMALL), GRID, cv=2).fit(X, y)
    with train_together():
        together = GridSearchCV(CNNClassifier(**SMALL), GRID, cv=2).fit(X, y)
    assert_array_equal(plain.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"])
    assert plain.best_params_ == together.best_params_
    assert networks_equal(plain.best_estimator_, together.best_estimator_)


def test_a_search_in_two_processes_is_the_same(gray):
    X, y = gray
    grid = {"augment": [None, "auto"]}
    scores = [
        GridSearchCV(CNNClassifier(**SMALL), grid, cv=2, n_jobs=n_jobs).fit(X, y).cv_results_["mean_test_score"]
        for n_jobs in (1, 2)
    ]
    assert_array_equal(*scores)


def test_fits_of_other_architectures_are_no_company_to_each_other(gray):
    X, y = gray
    grid = {"conv_channels": [(3,), (4, 6)], "early_stopping": [True, False]}
    with joblib.parallel_config(backend="sequential"):
        plain = GridSearchCV(CNNClassifier(**SMALL), grid, cv=2).fit(X, y)
    with train_together():
        together = GridSearchCV(CNNClassifier(**SMALL), grid, cv=2).fit(X, y)
    assert_array_equal(plain.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"])


PEAK_OF_A_FIT_ON_FILES = """
import resource, sys
import numpy as np
from skdl import CNNClassifier

def peak(n_files):
    paths = [f"{sys.argv[1]}/{i}.png" for i in range(n_files)]
    model = CNNClassifier(
        conv_channels=(1,), residual=False, max_epochs=1, batch_size=8, random_state=0, device="cpu"
    )
    assert len(model.fit(paths, np.arange(n_files) % 2).predict(paths)) == n_files
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

# Later fits find less of the memory in one piece than the first ones.
few = [peak(40) for _ in range(6)][-1]
print(peak(int(sys.argv[2])) - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is another one elsewhere")
def test_more_files_need_no_more_memory(tmp_path):
    n_files = 300
    pixels = np.random.RandomState(0).randint(256, size=(8, 256, 256, 3), dtype=np.uint8)
    for i in range(n_files):
        Image.fromarray(pixels[i % 8]).save(tmp_path / f"{i}.png", compress_level=0)
    command = [sys.executable, "-c", PEAK_OF_A_FIT_ON_FILES, str(tmp_path), str(n_files)]
    # Memory of one thread that another could have used would be counted twice.
    env = os.environ | {"MALLOC_ARENA_MAX": "1"}
    more = int(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=env).stdout)
    # Nothing of an image is kept: neither its pixels, 51 MB for the files that are more, nor three quarters of them.
    assert more < (n_files - 40) * pixels[0].nbytes * 3 / 4


def test_a_fit_plans_its_network_once(gray, monkeypatch):
    built, build = [], ConvArchitecture.build
    monkeypatch.setattr(ConvArchitecture, "build", lambda self: built.append(self) or build(self))
    CNNClassifier(**SMALL, early_stopping=True, scoring="accuracy").fit(*gray)
    # One to look at, and one to draw initial values in.
    assert len(built) == 2 and built[0] is built[1]


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def plain_backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(5, 6, 3))


def numbers(module):
    return {name: value.clone() for name, value in module.state_dict().items() if value.is_floating_point()}


@pytest.mark.parametrize("freeze", ["all", 1, None])
@pytest.mark.parametrize("kind", ["torch", "fitted", "ensemble"])
def test_fine_tuning_leaves_what_is_frozen_and_the_users_module(gray, fitted, freeze, kind):
    X, y = gray
    backbone = {
        "torch": plain_backbone,
        "fitted": lambda: fitted.network_,
        "ensemble": lambda: CNNClassifier(**SMALL, n_members=2).fit(X, y).network_,
    }[kind]()
    before, mode = numbers(backbone), backbone.training
    model = CNNClassifier(**SMALL | {"l1": 1e-3, "l2": 1e-3}, backbone=backbone, freeze=freeze, head_lr_factor=2.0)
    model.fit(X, y)
    assert all(torch.equal(value, before[name]) for name, value in numbers(backbone).items())
    assert backbone.training == mode
    source = {"torch": backbone, "fitted": None, "ensemble": None}[kind]
    if source is None:
        source = (backbone.members[0] if kind == "ensemble" else backbone).extractor
    old, new = numbers(source), numbers(model.network_.extractor)
    kept = [name for name in old if torch.equal(old[name], new[name])]
    if freeze == "all":
        assert kept == list(old)
    elif freeze == 1:
        # The first convolution and its normalisation, not the second convolution.
        weights = [name for name in old if old[name].ndim > 1]
        assert weights[0] in kept and weights[1] not in kept
        assert any("running" in name for name in kept)
    else:
        assert kept == []
    assert np.isfinite(model.predict_proba(X)).all() and np.isfinite(model.explain(X)).all()


@pytest.mark.parametrize("unit", [1, 1 / 255, 1000])
def test_a_backbone_sees_images_of_another_unit_as_those_of_its_own(gray, fitted, unit):
    X, y = gray[0].astype(float), gray[1]
    models = [CNNClassifier(**SMALL, backbone=fitted.network_, freeze="all").fit(X * u, y) for u in (1, unit)]
    # Its own images are standardised by its own mean, those of another unit by theirs, which is the same one here.
    assert_allclose(models[1].predict_proba(X * unit), models[0].predict_proba(X), rtol=1e-3, atol=1e-4)


def test_a_constant_channel_does_not_make_another_unit(colour):
    X, y = colour
    flat = X.copy()
    flat[..., 2] = 100
    for first, second in ((X, flat), (flat, X)):
        backbone = CNNClassifier(**SMALL).fit(first, y).network_
        tuned = CNNClassifier(**SMALL, backbone=backbone, freeze="all").fit(second, y)
        assert tuned.network_.mean == backbone.mean


def test_gradual_release_is_the_frozen_fit_at_first_and_the_whole_one_when_it_goes_on(gray):
    X, y = gray
    settings = SMALL | {"backbone": plain_backbone()}
    one = {
        freeze: CNNClassifier(**settings | {"max_epochs": 1}, freeze=freeze).fit(X, y) for freeze in ("all", "gradual")
    }
    assert networks_equal(one["all"], one["gradual"])
    parts = {
        freeze: CNNClassifier(**settings, freeze=freeze).partial_fit(X, y, classes=[0, 1, 2])
        for freeze in ("all", "gradual")
    }
    assert networks_equal(parts["all"], parts["gradual"])
    before = numbers(parts["gradual"].network_)
    after = numbers(parts["gradual"].partial_fit(X, y).network_)
    assert not any(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("goes_on", ["warm_start", "partial_fit"])
def test_a_gradual_fit_goes_on_with_all_layers_where_the_moments_are_gone(gray, goes_on):
    X, y = gray
    model = CNNClassifier(**SMALL, backbone=plain_backbone(), freeze="gradual").fit(X, y)
    before = numbers(model.network_)
    if goes_on == "partial_fit":
        model.partial_fit(X, y)
    else:
        model.set_params(warm_start=True, max_epochs=1).fit(X, y)
    after = numbers(model.network_)
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_images_on_top_of_a_backbone_are_mixed_in_batches_of_one_too(gray):
    X, y = gray
    settings = SMALL | {"augment": {"mixup": 0.5}, "batch_size": 13}
    model = CNNClassifier(**settings, backbone=plain_backbone()).fit(X, y)
    assert np.isfinite(model.loss_curve_).all()


def test_a_gradual_fit_goes_on_with_all_layers_and_is_the_same_in_company(gray):
    X, y = gray
    model = CNNClassifier(**SMALL, backbone=plain_backbone(), freeze="gradual", n_members=2, warm_start=True)
    with train_together():
        assert networks_equal(clone(model).fit(X, y), model.fit(X, y))
    before = numbers(model.network_)
    after = numbers(model.set_params(max_epochs=1).fit(X, y).network_)
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_a_fine_tuned_network_pickles_clones_and_goes_on(gray, fitted):
    model = CNNClassifier(**SMALL, backbone=fitted.network_, freeze=1, warm_start=True).fit(*gray)
    p = model.predict_proba(gray[0])
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(gray[0]), p)
    assert networks_equal(clone(model).fit(*gray), model)
    assert not np.array_equal(model.fit(*gray).predict_proba(gray[0]), p)


def test_a_fitted_estimator_as_a_backbone_is_refused_with_the_remedy_that_searches_keep(gray, fitted):
    for backbone in (fitted, clone(fitted), FrozenEstimator(fitted)):
        with pytest.raises(ValueError, match=r"forget the fit .*backbone=estimator\.network_"):
            CNNClassifier(**SMALL, backbone=backbone).fit(*gray)
    before = numbers(fitted.network_)
    model = CNNClassifier(**SMALL, backbone=fitted.network_, freeze="all")
    search = GridSearchCV(model, {"backbone": [fitted.network_]}, cv=2).fit(*gray)
    alone = clone(model).fit(*gray)
    assert networks_equal(search.best_estimator_, alone) and model.backbone is fitted.network_
    assert all(torch.equal(value, before[name]) for name, value in numbers(fitted.network_).items())


def test_a_head_of_its_own_learning_rate_does_not_slow_the_backbone(gray):
    backbone, settings = plain_backbone(), SMALL | {"max_epochs": 1, "batch_size": 40, "augment": None}
    models = [CNNClassifier(**settings, backbone=backbone, head_lr_factor=f).fit(*gray).network_ for f in (1, 1e-9)]
    # One step: the backbone's is the same, the head's has next to no length.
    torch.testing.assert_close(models[0].extractor[0].weight, models[1].extractor[0].weight)
    assert not torch.allclose(models[0].output.weight, models[1].output.weight)


def test_precision_of_a_fine_tuned_network(gray):
    model = CNNClassifier(**SMALL, backbone=plain_backbone(), dtype="float64").fit(*gray)
    assert {p.dtype for p in model.network_.parameters()} == {torch.float64}
    assert model.transform(gray[0]).dtype == np.float64


class DropsByFunction(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, self.training)


@pytest.mark.parametrize(
    "noisy",
    [
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5)),
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.5)),
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AlphaDropout(0.5)),
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), DropsByFunction()),
        lambda: nn.Dropout(0.5),
    ],
    ids=["Dropout", "Dropout2d", "AlphaDropout", "function", "bare"],
)
def test_noise_of_a_backbone_comes_from_the_seed_alone(gray, noisy):
    torch.manual_seed(3)
    backbone = noisy()
    state = torch.random.get_rng_state()
    one = CNNClassifier(**SMALL, backbone=backbone).fit(*gray)
    moved = not torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(4)
    assert networks_equal(one, CNNClassifier(**SMALL, backbone=backbone).fit(*gray)) and not moved


def test_noise_of_a_backbone_comes_from_the_seed_alone_in_threads(gray):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 8, 3))
    model = CNNClassifier(**SMALL, backbone=backbone)
    expected = clone(model).fit(*gray)
    state = torch.random.get_rng_state()
    fitted = joblib.Parallel(4, backend="threading")(joblib.delayed(clone(model).fit)(*gray) for _ in range(8))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(networks_equal(one, expected) for one in fitted)


class Tied(nn.Module):
    """Two convolutions of one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x.expand(-1, 4, -1, -1)).relu())


def test_weights_that_a_backbone_shares_stay_shared(gray):
    torch.manual_seed(0)
    extractor = CNNClassifier(**SMALL, backbone=Tied()).fit(*gray).network_.extractor
    assert torch.equal(extractor.first.weight, extractor.second.weight)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Conv2d(1, 5, (8, 10)), nn.BatchNorm2d(5)],
        lambda: [nn.Flatten(), nn.Linear(80, 5), nn.BatchNorm1d(5)],
    ],
    ids=["2d", "1d"],
)
def test_a_last_batch_of_one_image_under_a_normalised_backbone(gray, layers):
    model = CNNClassifier(**SMALL | {"batch_size": 39}, backbone=nn.Sequential(*layers())).fit(*gray)
    assert np.isfinite(model.predict_proba(gray[0])).all()


def test_a_callable_augmentation_may_come_back_from_numpy(gray):
    def brighter(images, generator):
        return torch.from_numpy(images.double().numpy() + 0.5)

    double = CNNClassifier(**SMALL | {"augment": brighter}).fit(*gray).predict_proba(gray[0])
    single = CNNClassifier(**SMALL | {"augment": lambda images, generator: images + 0.5}).fit(*gray)
    assert_allclose(double, single.predict_proba(gray[0]), rtol=1e-4)


# --- what is refused -------------------------------------------------------------------------------------------------


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (np.zeros((4, 8, 8, 1, 1)), {}, r"5 axes.*\(n, h, w, channels\)"),
        (np.zeros((0, 8, 8)), {}, "at least one image"),
        ([], {}, "at least one image"),
        ([np.zeros((8, 8)), np.zeros((8, 9))] * 2, {}, r"Set resize=\(height, width\)"),
        ([np.zeros((8, 8)), np.zeros((8, 8, 3))] * 2, {}, "gray or all to RGB"),
        (np.zeros((4, 8, 8)) + np.nan, {}, r"NaN, first in image 0\. Replace"),
        (np.zeros((4, 8, 8)) + np.inf, {}, r"infinity, first in image 0\. Replace"),
        (np.full((4, 8, 8), "a", dtype=object), {}, "uint8 or float32"),
        (np.zeros((4, 64)), {"image_shape": (8, 9)}, r"Set it to the \(height, width\)"),
        (np.zeros((4, 192)), {"image_shape": (8, 8)}, r"image_shape=\(8, 8, 3\)"),
        (np.zeros((4, 64)), {"image_shape": (0, 8)}, "integers of at least 1"),
        (["nowhere.png"] * 4, {}, r"Row 0.*no image file.*Pass paths"),
        ("nowhere.png", {}, "Pass a list of the paths"),
        (pd.DataFrame({"a": ["b"] * 4}), {"path_column": "file"}, "Set it to the column"),
    ],
)
def test_images_that_are_none(X, parameters, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(**SMALL, **parameters).fit(X, [0, 1, 0, 1])


def test_an_unreadable_file_is_named_with_its_row(save, gray):
    paths = save(gray[0])
    Path(paths[17]).write_text("no image")
    with pytest.raises(ValueError, match=r"17\.png.*row 17.*Repair it"):
        CNNClassifier(**SMALL).fit(paths, gray[1])


@pytest.mark.parametrize("resize", [(4,), (4, 4, 4), (0, 4), (-1, 3), ("a", "b"), (2.5, 4), ()])
def test_a_size_that_is_none_is_refused_by_its_name(gray, resize):
    with pytest.raises(ValueError, match="resize"):
        CNNClassifier(**SMALL, resize=resize).fit(*gray)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 8, 10, 3), "all to gray or all to RGB"),
        ((4, 8, 9), r"resize=\(8, 10\)"),
        ((8, 10), r"passed as X\[np.newaxis\]"),
    ],
)
def test_other_images_in_predict_are_refused(fitted, shape, message):
    for method in ("predict", "transform", "explain"):
        with pytest.raises(ValueError, match=message):
            getattr(fitted, method)(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"conv_channels": ()}, "conv_channels"),
        ({"conv_channels": (0,)}, "at least 1"),
        ({"conv_channels": (2.5,)}, "integers"),
        ({"conv_channels": "many"}, "'conv_channels' parameter"),
        ({"hidden_layer_sizes": ("a",)}, "integers"),
        ({"kernel_size": 0}, "'kernel_size' parameter"),
        ({"pooling": "sum"}, "'pooling' parameter"),
        ({"normalization": "group"}, "'normalization' parameter"),
        ({"augment": {"blur": 1}}, r"unknown keys \['blur'\]\. Use some of"),
        ({"augment": {"shift": 2}}, "'shift' parameter of augment"),
        ({"augment": "strong"}, "'augment' parameter"),
        ({"augment": False}, "'augment' parameter of CNNClassifier must be None, .* Got False instead"),
        ({"augment": lambda images, generator: images[:1]}, "images of the shape it was given"),
        ({"augment": lambda images, generator: None}, "images of the shape it was given.*Got NoneType"),
        ({"augment": lambda images, generator: images.to(torch.uint8)}, "as a tensor of floats. Got torch.uint8"),
        ({"freeze": -1}, "'freeze' parameter"),
        (
            {"freeze": "some"},
            r"'freeze' parameter of CNNClassifier must be .*'gradual'.*\[0, inf\)\. Got 'some' instead",
        ),
        ({"backbone": nn.Linear}, "'backbone' parameter"),
        ({"backbone": CNNClassifier()}, r"backbone is a CNNClassifier.* Pass .*: backbone=estimator\.network_"),
        ({"backbone": make_pipeline(CNNClassifier())}, r"backbone is a Pipeline.*estimator\.network_"),
        ({"backbone": nn.Conv2d(3, 4, 3)}, r"does not take images of 8 x 10 pixels and 1 channel.*resize"),
        ({"backbone": nn.Conv2d(1, 4, 11)}, "does not take images of 8 x 10 pixels"),
        ({"backbone": nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(2))}, "must give one tensor of features"),
        ({"backbone": Applied(torch.Tensor.long)}, r"as floats. Got torch.int64 \(1, 1, 8, 10\)"),
        ({"backbone": Applied(lambda x: x.mean(0, keepdim=True))}, r"Got torch.float32 \(1, 1, 8, 10\) for n=\d\d"),
        ({"backbone": nn.LSTM(10, 4)}, "does not take images of 8 x 10 pixels"),
        ({"backbone": nn.LazyConv2d(4, 3)}, r"Call it once: backbone\(torch.zeros\(1, 1, 8, 10\)\)"),
        ({"freeze": "all"}, "freeze='all' goes with a backbone, and there is none. Set backbone, or freeze=None"),
        ({"freeze": 0}, "freeze=0 goes with a backbone"),
        ({"head_lr_factor": 2.5}, "head_lr_factor=2.5 goes with a backbone, .* Set backbone, or head_lr_factor=1"),
        ({"backbone": nn.Conv2d(1, 4, 3), "freeze": 99}, "freeze=99, but backbone=Conv2d has 1 .*Use freeze='all'"),
        ({"backbone": nn.Conv2d(1, 4, 3), "freeze": True}, "'freeze' parameter .*'all'.* Got True"),
        ({"dtype": "bfloat16", "device": "cpu"}, "Use dtype='float32'"),
        ({"test_time_augmentation": -1}, "'test_time_augmentation' parameter"),
    ],
)
def test_parameters_that_are_none(gray, parameters, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(**SMALL | parameters).fit(*gray)
    with pytest.raises(ValueError, match=message):
        CNNClassifier(**SMALL | parameters).partial_fit(*gray)


@pytest.mark.parametrize(
    ("y", "method", "message"),
    [
        ([None] * 40, "gradcam", "does not know"),
        ([7] * 40, "gradcam", r"does not know: \[7\]\. It knows \[0, 1, 2\]"),
        ([0, 1], "gradcam", "Give one for each"),
        (None, "lime", r"Use one of \['gradcam'"),
        (1, "gradcam", "one for each|1d array"),
    ],
)
def test_explanations_of_what_is_not_there(gray, fitted, y, method, message):
    with pytest.raises(ValueError, match=message):
        fitted.explain(gray[0], y, method=method)


@pytest.mark.parametrize("y", [[1] * 40, [-1] * 40, [0.7] * 40])
def test_explanations_of_targets_that_are_not_there(gray, y):
    with pytest.raises(ValueError, match="numbers of outputs"):
        CNNRegressor(**SMALL).fit(gray[0], gray[1]).explain(gray[0], y)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 11])
def test_kernels_of_every_size_train_without_a_warning(gray, kernel_size):
    model = CNNClassifier(**SMALL, kernel_size=kernel_size).fit(*gray)
    assert np.isfinite(model.predict_proba(gray[0])).all()


def test_pixels_of_double_precision_are_looked_at_as_such():
    rng = np.random.default_rng(0)
    classifier = CNNClassifier(**SMALL | {"max_epochs": 1}, augment="auto", dtype="float64")
    images = rng.random((60, 8, 8)) * 1e39
    assert np.isfinite(classifier.fit(images, np.arange(60) % 2).predict_proba(images)).all()
    # Beyond 2 ** 24, whole numbers of single precision have gaps.
    whole = 2**25 + rng.integers(0, 2, size=(60, 8, 8))
    assert classifier.fit(whole, np.arange(60) % 2).network_.scale[0] == pytest.approx(whole.std(), rel=1e-6)


class OwnMean(torch.nn.Module):
    """A module with a buffer that its forward pass changes in place, between layers whose inputs are kept."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        h = self.first(x).relu()
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * h.detach().mean((0, 2, 3)))
        return self.second(h - self.mean[:, None, None])


def spectral():
    second = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(4, 4, 3))
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), second)


@pytest.mark.parametrize("make", [OwnMean, spectral])
@pytest.mark.parametrize("freeze", [None, "gradual", "all"])
def test_a_backbone_may_change_its_buffers_in_place(gray, make, freeze):
    model = CNNClassifier(**SMALL, backbone=make(), freeze=freeze).fit(*gray)
    assert np.isfinite(model.predict_proba(gray[0])).all()
    if make is OwnMean:
        # A frozen backbone keeps its statistics, too.
        assert (model.network_.extractor.mean.abs().max() > 0) == (freeze != "all")
