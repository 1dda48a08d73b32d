"""Whether images may be mirrored or moved, by the images and labels or targets alone."""

import numpy as np
import pytest
import torch

from skdl.data.table import DenseTable
from skdl.estimators.images.cnn import MOVES
from skdl.estimators.images.label_invariance import Neighbours

LABELS, ROWS = np.arange(60) % 2, np.arange(60)


def noisy_images(marked):
    """Images in a table, those of the second class brighter where they are marked."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=(len(LABELS), *marked.shape))
    images = noise + LABELS[:, None, None] * marked
    return DenseTable(torch.as_tensor(images.reshape(len(images), -1), dtype=torch.float32))


def halves(size):
    """Bright on the left, dark on the right."""
    return np.tile(np.where(np.arange(size) < size // 2, 1.0, -1.0), (size, 1))


def may_be_mirrored(table, image_shape, rows, labels):
    return Neighbours.of(table, image_shape, rows, labels, is_labelled=True).may_be_mirrored()


def may_be_moved(table, image_shape, rows, y, moves, is_labelled):
    return Neighbours.of(table, image_shape, rows, y, is_labelled).may_be_moved(moves)


@pytest.mark.parametrize("size", [6, 40])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_only_images_that_look_alike_mirrored_may_be(size, is_symmetric):
    marked = halves(size).T if is_symmetric else halves(size)
    assert may_be_mirrored(noisy_images(marked), (size, size, 1), ROWS, LABELS) == is_symmetric


def test_images_that_say_nothing_of_their_class_may_not_be():
    assert not may_be_mirrored(noisy_images(np.zeros((6, 6))), (6, 6, 1), ROWS, LABELS)


def test_images_of_one_class_may_not_be():
    assert not may_be_mirrored(noisy_images(halves(6).T), (6, 6, 1), ROWS[LABELS == 1], LABELS)


def blobs(n=300, side=16):
    """Images of a blob of some width somewhere, as a table; its place and its width."""
    rng = np.random.default_rng(0)
    place, width = rng.uniform(4, side - 4, size=(n, 2)), rng.uniform(1.7, 2.3, size=n)
    away = np.mgrid[:side, :side] - place[:, :, None, None]
    images = np.exp(-(away**2).sum(axis=1) / width[:, None, None] ** 2) + rng.normal(scale=0.1, size=(n, side, side))
    return DenseTable(torch.as_tensor(images.reshape(n, -1), dtype=torch.float32)), place, width


@pytest.mark.parametrize("scale", [1.0, 1e9])
def test_images_may_not_be_moved_where_their_place_is_the_target(scale):
    table, place, _ = blobs()
    # A constant target says nothing.
    targets = np.column_stack([scale * place, np.ones(300)])
    assert not may_be_moved(table, (16, 16, 1), np.arange(300), targets, MOVES, is_labelled=False)


def test_images_may_be_moved_where_neighbours_know_nothing_of_the_target_or_of_other_things():
    table, place, width = blobs()
    noise = np.random.default_rng(1).normal(size=300)
    for target in (noise, np.sign(width - 2) + 0.3 * noise, np.ones(300)):
        assert may_be_moved(table, (16, 16, 1), np.arange(300), target, MOVES, is_labelled=False)
    assert may_be_moved(table, (16, 16, 1), np.arange(300), width > 2, MOVES, is_labelled=True)
    assert may_be_moved(table, (16, 16, 1), np.arange(2), place, MOVES, is_labelled=False)


def test_images_may_not_be_moved_where_their_class_is_the_column_of_a_pixel():
    rng = np.random.default_rng(0)
    label = rng.integers(16, size=400)
    images = rng.normal(scale=0.2, size=(400, 12, 16))
    images[np.arange(400), :, label] += 1
    table = DenseTable(torch.as_tensor(images.reshape(400, -1), dtype=torch.float32))
    assert not may_be_moved(table, (12, 16, 1), np.arange(400), label.astype(str), MOVES, is_labelled=True)
