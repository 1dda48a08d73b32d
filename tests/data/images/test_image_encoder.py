"""Images as tables of pixels, in the memory they are in, and the statistics of their channels."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skdl.data.images import image_encoder
from skdl.data.images.image_encoder import ImageEncoder
from skdl.data.images.image_files import checked_paths
from skdl.data.sampling import sample_rows


def encoded(X, rows=None, weight=None, dtype=np.float32):
    rows = np.arange(len(X)) if rows is None else np.asarray(rows)
    return ImageEncoder(dtype).fit(X, None, rows, weight, classification=True)


def noise(*shape, dtype=np.uint8):
    rng = np.random.RandomState(0)
    return rng.randint(256, size=shape).astype(np.uint8) if dtype == np.uint8 else rng.normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_statistics_are_those_of_each_channel_in_the_training_rows(dtype):
    X = noise(20, 6, 5, 3, dtype=dtype)
    X[15:] = 0
    encoder = encoded(X, rows=np.arange(15))
    pixels = X[:15].astype(float)
    assert_allclose(encoder.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    assert_allclose(encoder.scale, pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    assert all(type(number) is float for number in (*encoder.mean, *encoder.scale))


@pytest.mark.parametrize(
    "view",
    [lambda X: np.moveaxis(X, 3, 1).copy().transpose(0, 2, 3, 1), np.asfortranarray, lambda X: X[:, :, :, ::2]],
)
def test_images_in_another_order_are_flattened_as_they_are_drawn(view):
    X = view(noise(20, 6, 5, 4))
    table, flat = encoded(X).transform(X), torch.from_numpy(X.reshape(20, -1).copy())
    assert np.shares_memory(table.images.numpy(), X)
    rows = torch.tensor([3, 0, 19])
    assert_array_equal(table.take(rows)[0], flat[rows])
    assert_array_equal(table.slice(4, 9)[0], flat[4:9])
    assert (len(table), table.n_columns) == flat.shape
    other = encoded(X.copy()).transform(view(noise(20, 6, 5, 4)))
    assert table.fingerprint() == other.fingerprint() and table.equals(other)
    other.images[7, 1, 1, 1] += 1
    assert not table.equals(other)


def test_statistics_are_those_of_images_that_come_in_turn(monkeypatch):
    monkeypatch.setattr(image_encoder, "STATISTICS_ROWS", 100)
    encoder = encoded(np.stack([np.zeros((4, 4, 1), np.uint8), np.full((4, 4, 1), 200, np.uint8)] * 100)[:199])
    assert_allclose(encoder.mean, 100, atol=25)
    assert_allclose(encoder.scale, 100, atol=10)


def test_statistics_do_not_depend_on_the_chunks(monkeypatch):
    X = noise(20, 6, 5, 2)
    weight = np.random.RandomState(1).rand(20)
    whole = encoded(X, weight=weight)
    monkeypatch.setattr(image_encoder, "CHUNK_NUMBERS", 3 * 60)
    chunked = encoded(X, weight=weight)
    assert_allclose(chunked.mean, whole.mean, rtol=1e-12)
    assert_allclose(chunked.scale, whole.scale, rtol=1e-12)


def test_weights_count_as_repeated_images():
    X = noise(6, 4, 4, 2, dtype=np.float32)
    weight = np.array([1.0, 2, 3, 1, 2, 1])
    weighted, repeated = encoded(X, weight=weight), encoded(np.repeat(X, weight.astype(int), axis=0))
    assert_allclose(weighted.mean, repeated.mean, rtol=1e-10)
    assert_allclose(weighted.scale, repeated.scale, rtol=1e-10)


def test_statistics_of_files_are_those_of_their_pixels(save):
    X = noise(7, 5, 6, 3)
    files, arrays = encoded(checked_paths(save(X)), rows=[1, 2, 5]), encoded(X, rows=[1, 2, 5])
    assert files.mean == arrays.mean and files.scale == arrays.scale


@pytest.mark.parametrize("value", [0, 7, 255, 0.1, -1e30])
def test_constant_channels_have_scale_one(value):
    X = noise(5, 4, 4, 2, dtype=np.float32)
    X[..., 1] = value
    encoder = encoded(X)
    assert encoder.scale[1] == 1.0 != encoder.scale[0]
    assert_allclose(encoder.mean[1], np.float32(value), rtol=1e-12)


def test_small_differences_around_a_large_value_are_no_constant():
    X = 1000 + noise(50, 4, 4, 1, dtype=np.float64) * 1e-6
    assert_allclose(encoded(X).scale[0], X.std(), rtol=1e-6)


@pytest.mark.parametrize("limit", ["STATISTICS_ROWS", "STATISTICS_NUMBERS"])
def test_statistics_of_many_images_are_taken_from_some_of_them(monkeypatch, limit):
    X = np.arange(101.0, dtype=np.float32).reshape(-1, 1, 1, 1)
    monkeypatch.setattr(image_encoder, limit, 11)
    encoder = encoded(X)
    some = sample_rows(101, 11)
    assert_allclose([*encoder.mean, *encoder.scale], [some.mean(), some.std()])


def test_encoders_pickle_without_data():
    X = noise(500, 8, 8, 1)
    encoder = encoded(X)
    dump = pickle.dumps(encoder)
    assert len(dump) < 1000
    copy = pickle.loads(dump)
    assert (copy.mean, copy.scale, copy.image_shape, copy.n_outputs) == (encoder.mean, encoder.scale, (8, 8, 1), 64)


@pytest.mark.parametrize(
    "view", [lambda X: X[::-1], lambda X: X[::2], lambda X: X[:, ::-1], lambda X: X.transpose(0, 2, 1, 3)]
)
def test_views_of_every_order_become_tables(view):
    X = view(noise(6, 5, 5, 2))
    assert_array_equal(encoded(X).transform(X).slice(0, len(X))[0], X.reshape(len(X), -1))


def test_mapped_files_are_shared_without_a_warning(tmp_path):
    np.save(tmp_path / "images.npy", noise(6, 5, 5))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    images = mapped[..., np.newaxis]
    table = encoded(images).transform(images)
    assert table.values.data_ptr() == mapped.ctypes.data
    del mapped, images
    assert_array_equal(table.take(torch.tensor([3]))[0], noise(6, 5, 5).reshape(6, -1)[[3]])


def test_an_encoder_of_double_precision_gives_doubles():
    X = noise(4, 3, 3, 1, dtype=np.float32)
    assert encoded(X, dtype=np.float64).transform(X).values.dtype == torch.float64
