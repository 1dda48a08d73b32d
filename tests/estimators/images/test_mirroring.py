"""Whether images may be mirrored, by the images and labels alone."""

import numpy as np
import pytest
import torch

from skdl.data.table import DenseTable
from skdl.estimators.images.mirroring import may_be_mirrored

LABELS, ROWS = np.arange(60) % 2, np.arange(60)


def noisy_images(marked):
    """Images in a table, those of the second class brighter where they are marked."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=(len(LABELS), *marked.shape))
    images = noise + LABELS[:, None, None] * marked
    return DenseTable(torch.as_tensor(images.reshape(len(images), -1), dtype=torch.float32))


def halves(size):
    """Bright on the left, dark on the right."""
    return np.tile(np.where(np.arange(size) < size // 2, 1.0, -1.0), (size, 1))


@pytest.mark.parametrize("size", [6, 40])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_only_images_that_look_alike_mirrored_may_be(size, is_symmetric):
    marked = halves(size).T if is_symmetric else halves(size)
    assert may_be_mirrored(noisy_images(marked), (size, size, 1), ROWS, LABELS) == is_symmetric


def test_images_that_say_nothing_of_their_class_may_not_be():
    assert not may_be_mirrored(noisy_images(np.zeros((6, 6))), (6, 6, 1), ROWS, LABELS)


def test_images_of_one_class_may_not_be():
    assert not may_be_mirrored(noisy_images(halves(6).T), (6, 6, 1), ROWS[LABELS == 1], LABELS)
