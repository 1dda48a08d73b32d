"""Figures of heat maps over images."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from skdl.display import SaliencyDisplay
from skdl.estimators.images.checks import check_images


class Explains(ClassifierMixin, BaseEstimator):
    """An estimator whose maps are the first channel of the images, of either sign by one of its methods."""

    def __init__(self, image_shape=None, channels="auto", resize=None, path_column=None, dtype="float32"):
        self.image_shape = image_shape
        self.channels = channels
        self.resize = resize
        self.path_column = path_column
        self.dtype = dtype

    def fit(self, X, y=None):
        check_images(self, X, reset=True)
        return self

    def predict(self, X):
        return np.array([f"class {i}" for i in range(len(X))])

    def explain(self, X, y=None, *, method):
        self.asked_ = (y, method)
        images = check_images(self, X, reset=False)
        if images.ndim == 1:
            return np.ones((len(images), *self.image_shape_[:2]))
        return images[..., 0].astype(float) - (100 if method == "occlusion" else 0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def noise(*shape):
    return np.random.RandomState(0).randint(256, size=shape).astype(np.uint8)


def drawn(axes):
    """The image and the map of an axes."""
    return [image.get_array() for image in axes.get_images()]


def test_each_image_is_drawn_with_its_map_over_it():
    images, maps = noise(3, 6, 7, 3), np.random.RandomState(0).rand(3, 6, 7)
    display = SaliencyDisplay(images, maps, ["a", 2, None])
    assert display.plot(alpha=0.3) is display
    assert isinstance(display.figure_, plt.Figure) and display.axes_.shape == (3,)
    for axes, image, heat, label in zip(display.axes_, images, maps, ["a", "2", "None"], strict=True):
        below, above = axes.get_images()
        assert_allclose(below.get_array(), image / 255)
        assert_array_equal(above.get_array(), heat)
        assert_allclose(above.get_alpha(), 0.3 * heat / heat.max())
        assert list(above.get_extent()) == [-0.5, 6.5, 5.5, -0.5] == list(below.get_extent())
        assert axes.get_title() == label
    display.figure_.canvas.draw()


@pytest.mark.parametrize(
    ("shape", "expected"), [((6, 7), (6, 7)), ((6, 7, 1), (6, 7)), ((6, 7, 2), (6, 7)), ((6, 7, 4), (6, 7, 3))]
)
def test_channels(shape, expected):
    images = noise(1, *shape)
    (axes,) = SaliencyDisplay(images, np.ones((1, 6, 7))).plot().axes_
    pixels = images[0] / 255
    wanted = {2: pixels, 3: pixels.mean(axis=-1) if shape[-1] < 3 else pixels[..., :3]}[len(shape)]
    assert drawn(axes)[0].shape == expected
    assert_allclose(drawn(axes)[0], wanted)


def test_floats_are_drawn_from_the_smallest_to_the_largest_number():
    images = np.random.RandomState(0).normal(size=(2, 5, 5))
    display = SaliencyDisplay(images, np.ones((2, 5, 5))).plot()
    both = np.stack([drawn(axes)[0] for axes in display.axes_])
    assert both.min() == 0 and both.max() == 1
    assert_allclose(np.corrcoef(both.ravel(), images.ravel())[0, 1], 1)
    (axes,) = SaliencyDisplay(np.full((1, 5, 5), 3.0), np.zeros((1, 5, 5))).plot().axes_
    assert_array_equal(drawn(axes)[0], 0)


@pytest.mark.parametrize(("sign", "cmap", "limits"), [(1, "inferno", (0, 2)), (-1, "RdBu_r", (-2, 2))])
def test_colours_of_maps_are_chosen_by_their_sign(sign, cmap, limits):
    maps = np.ones((1, 5, 5))
    maps[0, 0, 0] = 2 * sign
    above = SaliencyDisplay(noise(1, 5, 5), maps).plot().axes_[0].get_images()[1]
    assert above.get_cmap().name == cmap and above.get_clim() == limits
    above = SaliencyDisplay(noise(1, 5, 5), maps).plot(cmap="viridis").axes_[0].get_images()[1]
    assert above.get_cmap().name == "viridis"


def test_coarse_maps_are_drawn_over_the_whole_image():
    (axes,) = SaliencyDisplay(noise(1, 8, 6), np.ones((1, 2, 2))).plot().axes_
    assert list(axes.get_images()[1].get_extent()) == [-0.5, 5.5, 7.5, -0.5]


@pytest.mark.parametrize(
    ("n", "n_columns", "grid"), [(1, None, (1, 1)), (7, None, (2, 5)), (7, 3, (3, 3)), (2, 9, (1, 2))]
)
def test_grid(n, n_columns, grid):
    display = SaliencyDisplay(noise(n, 5, 5), np.ones((n, 5, 5))).plot(n_columns=n_columns)
    assert len(display.axes_) == n == len(display.figure_.axes)
    assert display.axes_[0].get_gridspec().get_geometry() == grid


def test_given_axes():
    figure, axes = plt.subplots(2, 2)
    display = SaliencyDisplay(noise(3, 5, 5), np.ones((3, 5, 5))).plot(axes)
    assert display.figure_ is figure and list(display.axes_) == list(axes.ravel()[:3])
    assert len(figure.axes) == 4 and not axes[1, 1].get_images()
    display = SaliencyDisplay(noise(1, 5, 5), np.ones((1, 5, 5))).plot(axes[1, 1])
    assert list(display.axes_) == [axes[1, 1]]


def test_signals_are_drawn_as_bands():
    (axes,) = SaliencyDisplay(noise(1, 1, 50), np.ones((1, 1, 50))).plot().axes_
    assert axes.get_aspect() == "auto"


def test_from_estimator():
    X = noise(2, 6, 7)
    estimator = Explains().fit(X)
    display = SaliencyDisplay.from_estimator(estimator, X, n_columns=1, alpha=0.2, cmap="magma")
    assert estimator.asked_ == (None, "gradcam")
    assert_array_equal(display.images[..., 0], X)
    assert_array_equal(display.maps, X)
    assert [axes.get_title() for axes in display.axes_] == ["class 0", "class 1"]
    assert display.axes_[0].get_gridspec().get_geometry() == (2, 1)
    above = display.axes_[0].get_images()[1]
    assert above.get_alpha().max() == 0.2 and above.get_cmap().name == "magma"


def test_from_estimator_with_targets_and_another_method():
    X = noise(2, 6, 7)
    estimator = Explains().fit(X)
    _, axes = plt.subplots(2)
    display = SaliencyDisplay.from_estimator(estimator, X, ["a", "b"], method="occlusion", ax=axes)
    assert estimator.asked_ == (["a", "b"], "occlusion") and display.maps.min() < 0
    assert [each.get_title() for each in axes] == ["a", "b"]
    display = SaliencyDisplay.from_estimator(estimator, X, ["a", "b"], labels=["one", "two"])
    assert [each.get_title() for each in display.axes_] == ["one", "two"]


def test_from_estimator_draws_flat_rows_and_files_as_images(tmp_path):
    X = noise(2, 6, 7)
    rows = X.reshape(2, 42)
    estimator = Explains(image_shape=(6, 7)).fit(rows)
    assert_array_equal(SaliencyDisplay.from_estimator(estimator, rows).images[..., 0], X)
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    estimator = Explains().fit(paths)
    assert_array_equal(SaliencyDisplay.from_estimator(estimator, paths).images[..., 0], X)


def test_from_estimator_draws_what_the_last_step_of_a_pipeline_sees():
    X = noise(3, 42)
    model = make_pipeline(MinMaxScaler(), Explains(image_shape=(6, 7))).fit(X)
    scaled = model[0].transform(X).reshape(3, 6, 7).astype(np.float32)
    for pipeline in (model, make_pipeline(model), make_pipeline(model[0], make_pipeline(model[1]))):
        display = SaliencyDisplay.from_estimator(pipeline, X)
        assert_array_equal(display.images[..., 0], scaled)
        assert_array_equal(display.maps, scaled)
        assert [axes.get_title() for axes in display.axes_] == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), make_pipeline(LogisticRegression()), GridSearchCV(Explains(), {})]
)
def test_from_estimator_refuses_what_cannot_explain(estimator):
    with pytest.raises(TypeError, match=r"Got \w+, which has no explain\. Pass one of them.*best_estimator_"):
        SaliencyDisplay.from_estimator(estimator, noise(2, 6, 7))


@pytest.mark.parametrize(
    ("images", "maps", "labels", "message"),
    [
        (noise(3, 5, 5), np.ones((2, 5, 5)), None, r"Got 3 image\(s\), 2 map\(s\)\."),
        (noise(3, 5, 5), np.ones((3, 5, 5)), ["a"], r"3 map\(s\) and 1 label"),
        (noise(5, 5), np.ones((5, 5)), None, r"a single image is passed as image\[np.newaxis\]"),
        (noise(0, 5, 5), np.ones((0, 5, 5)), None, "n at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(images, maps, labels, message):
    with pytest.raises(ValueError, match=message):
        SaliencyDisplay(images, maps, labels)


def test_too_few_axes_or_columns_are_refused():
    display = SaliencyDisplay(noise(3, 5, 5), np.ones((3, 5, 5)))
    with pytest.raises(ValueError, match="3 images and 2 axes"):
        display.plot(plt.subplots(2)[1])
    with pytest.raises(ValueError, match="n_columns must be at least 1"):
        display.plot(n_columns=0)


def test_without_matplotlib_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        SaliencyDisplay(noise(1, 5, 5), np.ones((1, 5, 5))).plot()


def test_matplotlib_is_not_imported_with_the_package():
    code = "import sys, skdl.display; print('matplotlib' in sys.modules, 'PIL' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
