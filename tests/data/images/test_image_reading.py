"""Images: what users have becomes one array or paths; what cannot is refused with a remedy."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_X_y

from skdl.data.images.image_encoder import ImageEncoder
from skdl.data.images.image_files import ImageFiles
from skdl.estimators.images.checks import check_images


class Estimator(BaseEstimator):
    """The parameters that say how X is read."""

    def __init__(self, image_shape=None, channels="auto", resize=None, path_column=None, dtype="float32"):
        self.image_shape = image_shape
        self.channels = channels
        self.resize = resize
        self.path_column = path_column
        self.dtype = dtype


class NearestMean(ClassifierMixin, Estimator):
    """The nearest of the classes' mean images, as an estimator that reads X as images."""

    def fit(self, X, y):
        if y is None:
            raise ValueError("This NearestMean estimator requires y to be passed, but the target y is None.")
        X = self._flat(check_images(self, X, reset=True))
        X, y = check_X_y(X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.means_ = np.stack([X[codes == k].mean(axis=0) for k in range(len(self.classes_))])
        return self

    def predict(self, X):
        check_is_fitted(self)
        X = self._flat(check_images(self, X, reset=False))
        return self.classes_[((X[:, None] - self.means_) ** 2).sum(axis=2).argmin(axis=1)]

    @staticmethod
    def _flat(X):
        return X.reshape(len(X), -1).astype(np.float64)


def check(X, *, estimator=None, reset=True, **parameters):
    return check_images(estimator or Estimator(**parameters), X, reset=reset)


def fitted(X, **parameters):
    estimator = Estimator(**parameters)
    check_images(estimator, X, reset=True)
    return estimator


def encoded(X, rows=None, weight=None, dtype=np.float32, **settings):
    rows = np.arange(len(X)) if rows is None else np.asarray(rows)
    return ImageEncoder(dtype, **settings).fit(X, None, rows, weight, classification=True)


def noise(*shape, dtype=np.uint8):
    rng = np.random.RandomState(0)
    return rng.randint(256, size=shape).astype(np.uint8) if dtype == np.uint8 else rng.normal(size=shape).astype(dtype)


@parametrize_with_checks([NearestMean(), NearestMean(dtype="float64")])
def test_scikit_learns_checks_of_rows(estimator, check):
    check(estimator)


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda X: X, list])
def test_masked_pixels_are_missing(wrap):
    X = np.ma.masked_less(noise(3, 4, 4) / 255, 0.01)
    X[1, 2, 2] = np.ma.masked
    with pytest.raises(ValueError, match=r"contains NaN, first in image"):
        check(wrap(X))


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((2, 8, 9), "auto", (8, 9, 1)),
        ((2, 8, 9), "first", (8, 9, 1)),
        ((2, 8, 9, 3), "auto", (8, 9, 3)),
        ((2, 3, 8, 9), "auto", (8, 9, 3)),
        ((2, 4, 8, 9), "auto", (8, 9, 4)),
        ((2, 1, 8, 9), "auto", (8, 9, 1)),
        ((2, 3, 8, 4), "auto", (3, 8, 4)),
        ((2, 7, 8, 9), "auto", (8, 9, 7)),
        ((2, 2, 12, 12), "auto", (12, 12, 2)),
        ((2, 9, 8, 7), "auto", (9, 8, 7)),
        ((2, 7, 8, 7), "auto", (7, 8, 7)),
        ((2, 7, 8, 9), "first", (8, 9, 7)),
        ((2, 3, 8, 9), "last", (3, 8, 9)),
    ],
)
def test_axes_of_arrays(shape, channels, expected):
    X = noise(*shape)
    estimator = Estimator(channels=channels)
    images = check(X, estimator=estimator)
    assert images.shape == (2, *expected) and estimator.image_shape_ == expected
    moved = len(shape) == 4 and shape[1:] != expected
    assert_array_equal(images, X.transpose(0, 2, 3, 1) if moved else X.reshape(2, *expected))


@pytest.mark.parametrize(
    ("given", "precision", "expected"),
    [
        ("uint8", "float32", "uint8"),
        ("uint8", "float64", "uint8"),
        ("bool", "float32", "float32"),
        ("int64", "float64", "float64"),
        (">f8", "float64", "float64"),
        ("uint16", "float32", "float32"),
        ("float16", "float64", "float32"),
        (">f4", "float32", "float32"),
        ("float32", "float64", "float32"),
        ("float64", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("object", "float32", "float32"),
    ],
)
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 20)])
def test_types_of_pixels(given, precision, expected, shape):
    X = np.arange(60).reshape(shape).astype(given)
    images = check(X, dtype=precision)
    assert images.dtype == np.dtype(expected)
    assert_array_equal(images.ravel(), X.ravel().astype(float))


def test_images_of_eight_bits_are_not_copied():
    X = noise(5, 6, 7, 3)
    images = check(X)
    assert np.shares_memory(images, X)
    values, codes = encoded(images).transform(images).slice(0, 5)
    assert codes is None and values.dtype == torch.uint8 and values.shape == (5, 126)
    assert values.data_ptr() == X.ctypes.data
    assert_array_equal(values, X.reshape(5, -1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_of_the_estimators_precision_are_not_copied(dtype):
    X = noise(4, 3, 3, dtype=dtype)
    images = check(X, dtype=dtype)
    assert images.dtype == dtype and np.shares_memory(images, X)
    table = encoded(images, dtype=dtype).transform(images)
    assert table.values.data_ptr() == X.ctypes.data


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_tensors(dtype):
    X = torch.arange(24).view(2, 3, 4).to(dtype)
    images = check(X)
    assert_array_equal(images[..., 0], np.arange(24).reshape(2, 3, 4))
    if dtype != torch.bfloat16:
        assert images.ctypes.data == X.data_ptr()


def test_a_tensor_that_needs_a_gradient():
    assert_array_equal(check(torch.ones(2, 3, 4, requires_grad=True)), np.ones((2, 3, 4, 1)))


def test_nested_lists():
    X = noise(2, 3, 4)
    assert_array_equal(check(X.tolist())[..., 0], X)


def test_what_is_checked_already_passes_again():
    for X, parameters in [
        (noise(2, 3, 4, 5), {"channels": "first"}),
        (noise(2, 7), {"channels": "first"}),
        (noise(2, 60), {"channels": "first", "image_shape": (4, 5, 3)}),
        (noise(2, 9, 9, 3), {"resize": (4, 5)}),
    ]:
        estimator = Estimator(**parameters)
        images = check(X, estimator=estimator)
        assert_array_equal(check(images, estimator=estimator, reset=False), images)


# --- rows and frames of numbers --------------------------------------------------------------------------------------


def test_rows_are_images_of_the_given_shape():
    X = noise(2, 24)
    assert_array_equal(check(X, image_shape=(4, 6)), X.reshape(2, 4, 6, 1))
    assert_array_equal(check(X, image_shape=(2, 4, 3)), X.reshape(2, 2, 4, 3))
    assert_array_equal(check(X, image_shape=(2, 4, 3), channels="first"), X.reshape(2, 3, 2, 4).transpose(0, 2, 3, 1))
    assert np.shares_memory(check(X, image_shape=(4, 6)), X)


def test_rows_without_a_shape_are_signals():
    X = noise(2, 24, dtype=np.float32)
    estimator = Estimator()
    assert_array_equal(check(X, estimator=estimator), X.reshape(2, 1, 24, 1))
    assert estimator.image_shape_ == (1, 24, 1) and estimator.n_features_in_ == 24


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_of_numbers_are_rows(library):
    columns = {f"p{i}": [float(i), 1.0] for i in range(6)}
    estimator = Estimator(image_shape=(2, 3))
    images = check(library(columns), estimator=estimator)
    assert_array_equal(images[0, ..., 0], np.arange(6).reshape(2, 3))
    assert estimator.n_features_in_ == 6
    if library is not pa.table:
        assert list(estimator.feature_names_in_) == list(columns)


def test_images_set_no_number_of_features_and_forget_that_of_rows():
    estimator = fitted(noise(3, 6))
    assert estimator.n_features_in_ == 6
    check(noise(3, 4, 5), estimator=estimator)
    assert not hasattr(estimator, "n_features_in_")


def test_images_may_be_predicted_after_a_fit_on_their_rows():
    X = noise(3, 24)
    estimator = fitted(X, image_shape=(4, 6))
    assert_array_equal(check(X.reshape(3, 4, 6), estimator=estimator, reset=False), X.reshape(3, 4, 6, 1))


# --- lists, Pillow images, sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series])
def test_sequences_of_arrays_and_pillow_images(kind):
    X = noise(3, 5, 6, 3)
    images = [Image.fromarray(x) for x in X]
    if kind is np.array:
        cells = np.empty(3, dtype=object)
        cells[:] = images
    else:
        cells = kind(images)
    assert_array_equal(check(cells), X)
    assert_array_equal(check([*X]), X)
    assert_array_equal(check([torch.from_numpy(x).permute(2, 0, 1) for x in X]), X)


def test_gray_images_may_have_two_or_three_axes():
    X = noise(2, 5, 6)
    assert_array_equal(check([X[0], X[1][..., None]])[..., 0], X)


@pytest.mark.parametrize(
    ("mode", "n_channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_modes_of_pillow_images_and_files(mode, n_channels, save):
    image = Image.fromarray(noise(4, 5, 3)).convert(mode)
    suffix = "tiff" if mode == "CMYK" else "png"
    (path,) = save([image], suffix)
    images = check([image])
    assert images.shape == (1, 4, 5, n_channels) and images.dtype == np.uint8
    table = ImageFiles([path])
    assert table.image_shape == (4, 5, n_channels)
    assert_array_equal(table.slice(0, 1)[0], images.reshape(1, -1))


def test_pillow_images_of_sixteen_bits_keep_their_values():
    pixels = np.array([[0, 4095], [300, 65535]], dtype=np.uint16)
    assert_array_equal(check([Image.fromarray(pixels)])[0, ..., 0], pixels)


def test_resize_is_pillows_bilinear_filter():
    X = noise(2, 9, 12, 3)
    expected = [np.asarray(Image.fromarray(x).resize((4, 6), Image.Resampling.BILINEAR)) for x in X]
    for kind in (X, [*X], [Image.fromarray(x) for x in X]):
        assert_array_equal(check(kind, resize=(6, 4)), expected)


def test_resized_images_of_several_sizes():
    estimator = Estimator(resize=(4, 5))
    images = check([noise(8, 9), noise(5, 3), noise(4, 5)], estimator=estimator)
    assert images.shape == (3, 4, 5, 1) and estimator.image_shape_ == (4, 5, 1)
    assert_array_equal(images[2, ..., 0], noise(4, 5))
    # Later images may have other sizes again.
    assert check([noise(30, 40)], estimator=estimator, reset=False).shape == (1, 4, 5, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resized_floats_keep_their_range_and_type(dtype):
    ramp = np.tile(np.linspace(-3, 5, 8), (1, 6, 1)).astype(dtype)
    X = np.stack([ramp, -ramp], axis=-1)
    images = check(X, resize=(6, 4), dtype=dtype)
    assert images.dtype == dtype
    # The triangle of the filter, twice as wide for half the size, averages a ramp to itself but at the edges.
    assert_allclose(images[0, :, 1:3, 0], np.tile(ramp[0, 0].reshape(4, 2).mean(axis=1)[1:3], (6, 1)), rtol=1e-5)
    assert_array_equal(images[..., 1], -images[..., 0])


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint16, np.int32, np.float16])
def test_resized_images_of_other_types_are_means_in_lists_as_well(dtype):
    X = (noise(3, 8, 8) > 200).astype(dtype)
    images = check([*X], resize=(4, 4))
    assert images.dtype == np.float32
    assert_array_equal(images, check(X, resize=(4, 4)))
    assert 0 < images.mean() < 0.5 and len(np.unique(images)) > 2


def test_a_fourth_channel_does_not_dim_the_others_when_resized():
    X = noise(1, 8, 8, 4)
    X[..., 3] = 0
    assert_array_equal(check(X, resize=(4, 4))[..., :3], check(X[..., :3], resize=(4, 4)))


# --- paths -----------------------------------------------------------------------------------------------------------


def test_paths_of_every_kind(save, tmp_path, tmpdir):
    paths = save(noise(3, 4, 5))
    frames = [library({"file": paths, "other": [1, 2, 3]}) for library in (pd.DataFrame, pl.DataFrame, pa.table)]
    kinds = [paths, tuple(paths), np.array(paths), np.array(paths, dtype=object), pd.Series(paths), pl.Series(paths)]
    kinds += [[folder / os.path.basename(path) for path in paths] for folder in (tmp_path, tmpdir)] + frames
    for X in kinds:
        estimator = Estimator(path_column="file")
        checked = check(X, estimator=estimator)
        assert checked.dtype == object and checked.tolist() == paths
        assert estimator.image_shape_ == (4, 5, 1) and not hasattr(estimator, "n_features_in_")
        assert check(checked, estimator=estimator, reset=False).tolist() == paths


def test_files_become_pixels(save):
    X = noise(4, 5, 6, 3)
    paths = check(save(X))
    encoder = encoded(paths)
    table = encoder.transform(paths)
    flat = torch.from_numpy(X).reshape(4, -1)
    assert isinstance(table, ImageFiles) and table.prefetches
    assert len(table) == 4 and table.n_columns == encoder.n_outputs == 90 and encoder.image_shape == (5, 6, 3)
    for rows in ([0], [3, 1, 1], [2, 0, 3, 1, 2], []):
        values, codes = table.take(torch.tensor(rows, dtype=torch.int64))
        assert codes is None and values.dtype == torch.uint8 and torch.equal(values, flat[rows])
    for start, stop in [(0, 4), (1, 3), (3, 10), (4, 8)]:
        assert torch.equal(table.slice(start, stop)[0], flat[start:stop])
    assert torch.equal(table.to("cpu").take(torch.tensor([2]))[0], flat[[2]])


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (noise(2, 3, 4, 5, 6), {}, r"X has 5 axes, \(2, 3, 4, 5, 6\)\. Pass images as \(n, h, w\)"),
        (noise(0, 4, 5), {}, "Found 0 image.* a minimum of 1 .* Pass at least one"),
        (noise(2, 0, 5), {}, "of 0 x 5 pixels .* a minimum of 1"),
        ([], {}, "Found X with 0 image.* Pass at least one"),
        (pl.DataFrame({"f": []}, schema={"f": pl.String}), {"path_column": "f"}, "Found X with 0 image"),
        (np.array([]), {}, "Expected 2D array, got 1D array"),
        (noise(2, 24), {"image_shape": (5, 5)}, r"24 features, but image_shape=\(5, 5\) makes 5 x 5 = 25\. Set it to"),
        (noise(2, 24), {"image_shape": (4, 2)}, r"For 24 features, set image_shape=\(4, 2, 3\)"),
        (noise(2, 24), {"image_shape": (24,)}, "image_shape must be"),
        (noise(2, 4, 6), {"image_shape": (6, 4)}, "X has images of 4 x 6 .* Set image_shape=None"),
        ([noise(4, 5), noise(4, 6)], {}, r"Image 1 of X has 4 x 6 .* image 0 has 4 x 5\. Set resize="),
        ([noise(4, 5, 3), noise(4, 5)], {}, r"Image 1 of X has 1 channel.* image 0 has 3\. Convert all"),
        ([noise(4, 5, 3), noise(4, 5)], {"resize": (2, 2)}, "Image 1 of X has 1 channel"),
        ([noise(4, 5), noise(4, 5) / 255], {}, "Image 1 of X is of type float64, and image 0 of uint8.* one range"),
        ([noise(4, 5), noise(0, 5)], {"resize": (2, 2)}, r"Image 1 of X, of shape \(0, 5\), has no pixels. Leave"),
        ([noise(4, 5), 3], {}, "Element 1 of X is not an image: int"),
        ([noise(4, 5), noise(2, 4, 5, 3)], {}, r"Element 1 of X is not an image: ndarray of shape \(2, 4, 5, 3\)"),
        (noise(2, 4, 5) * 1j, {}, "Complex data not supported"),
        (np.full((2, 3, 4), "a"), {}, "Pixels must be numbers.* Convert"),
        (np.full((2, 3, 4), {}), {}, "Pixels must be numbers.* Convert"),
        (np.full((2, 3, 4), "2024", dtype="datetime64[D]"), {}, "Pixels must be numbers.* Convert"),
        (np.full((2, 3, 4), 1e300), {}, "Image 0 .* too large for float32. Divide"),
        (np.full((2, 3), 1e300), {}, "Image 0 .* too large for float32. Divide"),
        (np.array([["a.png", "b.png"]]), {}, "could not convert string.* pass their paths as a list"),
        (pd.DataFrame({"f": ["a.png"]}), {}, "could not convert string.* set path_column"),
        (pd.DataFrame({"f": ["a.png"]}), {"path_column": "g"}, r"path_column='g' is not a column of X, which has \['f"),
        (pd.DataFrame({"f": [1, 2]}), {"path_column": "f"}, "Row 0 of X is not a path but 1"),
        (pd.DataFrame({"f": list(noise(2, 4, 4))}), {"path_column": "f"}, r"holds images.* Pass list\(X\['f'\]\)"),
        (pd.DataFrame({"f": list(noise(2, 4, 4))}), {}, r"pass a list of them: list\(frame\[column\]\)"),
        (pd.DataFrame([["a.png"] * 2], columns=["f", "f"]), {"path_column": "f"}, r"more than once: \['f'\]. Rename"),
        ([b"GIF89a", b"GIF89a"], {}, r"bytes of image files\. Open each: PIL\.Image\.open"),
        ([io.BytesIO(b"GIF89a")] * 2, {}, r"open files\. Pass their paths, or open each as an image"),
        (sp.csr_array(np.eye(3)), {}, "[Ss]parse"),
        ((Path(name) for name in ["a.png", "b.png"]), {}, r"X is a generator.* Pass list\(X\)"),
        ("a.png", {}, r"X is one path, 'a.png'\. Pass a list"),
        (Image.fromarray(noise(3, 3)), {}, "X is one image. Pass a list"),
        (pl.LazyFrame({"f": [1]}), {}, r"Pass X.collect\(\)"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(X, parameters, message):
    with pytest.raises((ValueError, TypeError), match=message):
        check(X, **parameters)


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "object"])
def test_pixels_must_be_finite(value, name, dtype):
    X = np.ones((4, 3, 3)).astype(dtype)
    X[2, 1, 1] = value
    with pytest.raises(ValueError, match=f"Input X contains {name}, first in image 2. Replace"):
        check(X)


def test_finite_pixels_whose_sum_is_not_are_accepted():
    X = np.full((4, 3, 3), 1e308)
    assert_array_equal(check(X, dtype="float64")[..., 0], X)
    with pytest.raises(ValueError, match=r"so large that their squares overflow\. Divide"):
        encoded(check(np.concatenate([X, -X]), dtype="float64"), dtype=np.float64)


def test_a_path_without_a_file_is_named_with_its_row(save, tmp_path):
    paths = [*save(noise(2, 3, 3)), str(tmp_path / "gone.png")]
    with pytest.raises(ValueError, match=r"Row 2 of X is text, '.*gone\.png', and there is no image file.*absolute"):
        check(paths)
    for cell in (None, np.nan, 3):
        with pytest.raises(ValueError, match=f"Row 1 of X is not a path but {cell}"):
            check([paths[0], cell])
        with pytest.raises(ValueError, match=r"Row 1 of X is not a path but"):
            check(pd.DataFrame({"f": [paths[0], cell]}, dtype=object), path_column="f")
    with pytest.raises(ValueError, match=r"Row 1 of X is not a path but of type ndarray\."):
        check([paths[0], noise(1, 9, 9)[0]])
    with pytest.raises(ValueError, match=r"Row 0 of X, '.*', is a folder\. Pass the paths of the files in it"):
        check([str(tmp_path)])


def test_files_of_sixteen_bits_are_refused(save):
    paths = check(save([np.full((3, 3), 4095, dtype=np.uint16)]))
    with pytest.raises(ValueError, match=r"row 0 of X\) has more than 8 bits.* pass the images as arrays"):
        encoded(paths)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (noise(2, 9, 9, 3), r"9 x 9 .* fitted on images of 6 x 7 .* Resize them, or fit with resize=\(6, 7\)"),
        (noise(2, 6, 7, 1), "6 x 7 .* 1 channel, but Estimator was fitted on .* 3 channels. Convert them to the same"),
        (noise(2, 6, 7), "Convert them to the same channels"),
        (noise(2, 3, 6, 7), None),
        (noise(6, 7, 3), r"A single image is passed as X\[np.newaxis\]"),
        (noise(2, 126), "A single image is passed"),
    ],
)
def test_images_of_another_shape_are_refused_at_predict(X, message):
    estimator = fitted(noise(4, 6, 7, 3))
    if message is None:
        assert check(X, estimator=estimator, reset=False).shape == (2, 6, 7, 3)
        return
    with pytest.raises(ValueError, match=message):
        check(X, estimator=estimator, reset=False)


def test_exchanged_axes_are_told_at_predict():
    estimator = fitted(noise(4, 6, 7, 2), channels="last")
    with pytest.raises(ValueError, match="axes seem to be exchanged: set channels"):
        check(noise(4, 2, 6, 7), estimator=estimator, reset=False)


def test_files_of_another_size_or_colour_than_in_fit_are_refused_at_predict(save):
    X = noise(3, 4, 5)
    encoder = encoded(check(X))
    with pytest.raises(ValueError, match=r"row 0 of X\) has 8 x 5 pixels.* had 4 x 5"):
        encoder.transform(check(save(noise(2, 8, 5)), estimator=fitted(X), reset=False)).slice(0, 2)
    with pytest.raises(ValueError, match=r"row 0 of X\) is coloured"):
        encoder.transform(check(save(noise(2, 4, 5, 3)), estimator=fitted(X), reset=False)).slice(0, 2)


def test_files_are_refused_where_images_of_two_channels_were_fitted(save):
    estimator = fitted(noise(3, 4, 5, 2), channels="last")
    with pytest.raises(
        ValueError, match=r"Image files.* 1 or 3 channels.* 4 x 5 .* 2 channels.* Read them into arrays"
    ):
        check(save(noise(2, 4, 5, 3)), estimator=estimator, reset=False)


def test_rows_of_another_width_are_refused_in_scikit_learns_words():
    estimator = fitted(noise(4, 24), image_shape=(4, 6))
    with pytest.raises(ValueError, match="X has 23 features, but Estimator is expecting 24 features as input"):
        check(noise(4, 23), estimator=estimator, reset=False)


def test_files_without_pillow_name_what_to_install(save, monkeypatch):
    paths = save(noise(1, 3, 3))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install pillow"):
        check(paths)
    with pytest.raises(ImportError, match=r"pip install pillow"):
        check(noise(1, 3, 3), resize=(2, 2))
    assert_array_equal(check(noise(1, 3, 3), resize=(3, 3))[..., 0], noise(1, 3, 3))
