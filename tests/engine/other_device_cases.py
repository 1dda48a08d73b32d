"""Fits and predictions on a device that is not there: nothing is mixed, and results are those of the processor.

``test_other_device.py`` runs them.
"""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose
from PIL import Image
from pretend_device import IS_POSSIBLE, NAME, Elsewhere, as_cuda
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

import skdl
from skdl import CNNClassifier, CNNRegressor, DeepImputer, MLPClassifier, MLPRegressor, RNNClassifier, RNNRegressor
from skdl.datasets import load_penguins

pytestmark = pytest.mark.skipif(not IS_POSSIBLE, reason="this torch cannot be told of a device by Python alone")

QUICK = {"max_epochs": 2, "random_state": 0}
RNG = np.random.RandomState(0)
X, Y = load_iris(return_X_y=True)
IMAGES, LABELS = RNG.randint(256, size=(40, 8, 8)).astype(np.uint8), np.arange(40) % 3
SERIES = [RNG.normal(size=(2, n)) for n in RNG.randint(5, 12, size=40)]
HOLES = np.where(RNG.rand(*X.shape) < 0.2, np.nan, X)
BACKBONE = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.2))
CONV = QUICK | {"conv_channels": (4, 6)}
#: Torch has fused steps of the other cells for some devices, which the processor cannot stand in for.
CELL = QUICK | {"cell": "rnn", "n_members": 2}

CASES = {
    "table": (MLPClassifier(**QUICK), X, Y),
    "frame": (MLPClassifier(**QUICK), *load_penguins(return_X_y=True, as_frame=True)),
    "sparse": (MLPClassifier(**QUICK), sp.csr_matrix(X), Y),
    "dropout and batch norm": (MLPClassifier(**QUICK, dropout=0.2, normalization="batch"), X, Y),
    "layer norm": (MLPClassifier(**QUICK, normalization="layer"), X, Y),
    "penalties": (MLPClassifier(**QUICK, l1=1e-3, l2=1e-3, gradient_clip=1.0), X, Y),
    "stopping by a scorer": (MLPClassifier(**QUICK, early_stopping=True, scoring="accuracy"), X, Y),
    "plateau": (MLPClassifier(**QUICK, early_stopping=True, lr_schedule="plateau", optimizer="sgd"), X, Y),
    "muon": (MLPClassifier(**QUICK, optimizer="muon", n_members=1), X, Y),
    "focal loss": (MLPClassifier(**QUICK, loss="focal", class_weight="balanced"), X, Y),
    "activation of the user": (MLPClassifier(**QUICK, activation=torch.nn.Hardswish, dropout=0.1), X, Y),
    "loss of the user": (MLPRegressor(**QUICK, loss=lambda output, target: (output - target).abs()), X, Y),
    "several targets": (MLPRegressor(**QUICK), X, X[:, :2]),
    "quantile": (MLPRegressor(**QUICK, loss="quantile"), X, Y),
    "relevance": (MLPRegressor(**QUICK, relevance_scaling=True), X, Y),
    "images": (CNNClassifier(**CONV), IMAGES, LABELS),
    "channels first": (CNNClassifier(**CONV), np.stack([IMAGES] * 3, axis=1), LABELS),
    "signals": (CNNRegressor(**CONV), X, Y),
    "augmentation": (
        CNNClassifier(**CONV, augment={"rotation": 9, "zoom": 0.1, "flip": True, "cutout": 0.3, "mixup": 0.4}),
        IMAGES,
        LABELS,
    ),
    "augmentation of the user": (
        CNNClassifier(**CONV, augment=lambda x, g: x + torch.randn(x.shape, generator=g, device=x.device)),
        IMAGES,
        LABELS,
    ),
    "views": (CNNClassifier(**CONV, test_time_augmentation=2, n_members=2, normalization="layer"), IMAGES, LABELS),
    "frozen": (CNNClassifier(**QUICK, backbone=BACKBONE, freeze="all"), IMAGES, LABELS),
    "released": (CNNClassifier(**QUICK, backbone=BACKBONE, freeze="gradual"), IMAGES, LABELS),
    "series": (RNNClassifier(**CELL, skip=None), SERIES, LABELS),
    "forecast": (RNNRegressor(**CELL), *skdl.window(np.sin(np.arange(120) / 5), lags=12, horizon=3)),
    "series and a table": (
        RNNRegressor(**CELL, dropout=0.2, skip=None),
        skdl.SeriesWithTable(SERIES, pd.DataFrame({"a": RNG.normal(size=40), "b": [*"wxyz"] * 10})),
        RNG.normal(size=40),
    ),
    "imputer": (DeepImputer(**QUICK), HOLES, None),
}


def outputs(model, data):
    names = ["predict_proba" if hasattr(model, "predict_proba") else "predict", "transform", "explain"]
    return [np.asarray(getattr(model, name)(data), dtype=float) for name in names if hasattr(model, name)]


@pytest.mark.parametrize("name", CASES)
def test_fits_and_predictions_are_those_of_the_processor(name):
    model, data, y = CASES[name]
    expected = outputs(model.set_params(device="cpu").fit(data, y), data)
    with as_cuda():
        found = outputs(model.set_params(device="cuda").fit(data, y), data)
        if hasattr(model, "partial_fit"):
            model.partial_fit(data, y)
    # The network comes back, and opens where there is no such device.
    assert not any(isinstance(value, Elsewhere) for value in model.network_.state_dict().values())
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_products_in_half_precision():
    model = MLPClassifier(max_epochs=12, random_state=0, device="cuda", dtype="bfloat16")
    with as_cuda():
        assert model.fit(X, Y).score(X, Y) > 0.9


def test_image_files_too(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    expected = CNNClassifier(**CONV, device="cpu").fit(paths, LABELS).predict_proba(paths)
    with as_cuda():
        assert_allclose(
            CNNClassifier(**CONV, device="cuda").fit(paths, LABELS).predict_proba(paths), expected, rtol=1e-4
        )


def test_searches_trained_together_too():
    search = GridSearchCV(
        MLPClassifier(**QUICK, device="cuda"), {"learning_rate": [0.01, 0.1], "dropout": [0, 0.2]}, cv=2
    )
    with as_cuda():
        plain = search.fit(X, Y).cv_results_["mean_test_score"]
        with skdl.train_together() as run:
            together = search.fit(X, Y).cv_results_["mean_test_score"]
    assert_allclose(together, plain)
    assert {stack.device for stack in run.report_} == {f"{NAME}:0"}


def test_the_device_refuses_what_a_real_one_would():
    with as_cuda():
        there, here = torch.ones(3, device=f"{NAME}:0"), torch.ones(3)
        assert_allclose((there + 1).cpu(), 2)
        for mixed in (lambda: there + here, lambda: here.add_(there), lambda: torch.cat([here, there])):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, generator=torch.Generator(), device=f"{NAME}:0")
