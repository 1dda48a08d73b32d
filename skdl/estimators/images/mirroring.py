"""Whether augmentation may mirror images, decided by nearest neighbours before training."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from skdl.data.images.image_encoder import CHUNK_NUMBERS
from skdl.data.sampling import sample_rows
from skdl.data.table import Table

#: Most images that say whether images may be mirrored: one half is mirrored, and has its neighbours in the other half.
TRIED_IMAGES = 2000
#: Most pixels along an axis that these images are averaged to.
TRIED_SIDE = 16
#: Smallest share of the nearest neighbours' mean recall that has to be left when images are mirrored.
KEPT_SHARE = 0.97
#: Fewest mirrored images of a class whose own recall counts as well.
MIN_CLASS_IMAGES = 5
#: Most recall that such a class may lose, of 1.
MAX_LOST_RECALL = 0.5


def may_be_mirrored(table: Table, image_shape: tuple[int, int, int], rows: NDArray[np.intp], y: NDArray) -> bool:
    """Whether mirrored images are still nearest to images of their own class.

    Parameters
    ----------
    table : Table
        Encoded images.
    image_shape : tuple of int
        (height, width, channels).
    rows : ndarray of int
        Those that may be looked at.
    y : ndarray of shape (n_images,)
        Labels.
    """
    from sklearn.neighbors import KNeighborsClassifier

    some = rows[sample_rows(len(rows), TRIED_IMAGES)]
    classes, label = np.unique(y[some], return_inverse=True)
    # Every other image of each class, in whatever order they come.
    order = np.argsort(label, kind="stable")
    known, new = order[::2], order[1::2]
    n_of_class = np.bincount(label[new], minlength=len(classes))
    tried = n_of_class > 0
    if tried.sum() < 2:
        return False
    images = _small_images(table, image_shape, torch.as_tensor(some))
    if not images.isfinite().all():
        # Their pixels are doubles beyond the range of the singles that are looked at here.
        return False
    nearest = KNeighborsClassifier(1).fit(images[known].flatten(1).numpy(), label[known])

    def recall(x: Tensor) -> NDArray[np.float64]:
        is_right = nearest.predict(x.flatten(1).numpy()) == label[new]
        return np.bincount(label[new], is_right, minlength=len(classes))[tried] / n_of_class[tried]

    plain, mirrored = recall(images[new]), recall(images[new].flip(3))
    chance = 1 / len(plain)
    # Neighbours that know no more than chance, by two standard errors, have nothing to say.
    if plain.mean() <= chance + 2 * math.sqrt(chance * (1 - chance) / len(new)):
        return False
    lost = (plain - mirrored)[n_of_class[tried] >= MIN_CLASS_IMAGES]
    return bool(mirrored.mean() >= KEPT_SHARE * plain.mean() and (lost <= MAX_LOST_RECALL).all())


def _small_images(table: Table, image_shape: tuple[int, int, int], rows: Tensor) -> Tensor:
    """Images ``(n, c, h, w)`` of the rows, of at most 16 pixels along an axis."""
    height, width, n_channels = image_shape
    sides = min(height, TRIED_SIDE), min(width, TRIED_SIDE)
    small = torch.empty(len(rows), n_channels, *sides)
    size = max(CHUNK_NUMBERS // math.prod(image_shape), 1)
    for some, out in zip(rows.split(size), small.split(size), strict=True):
        pixels, _ = table.take(some)
        images = pixels.view(-1, *image_shape).permute(0, 3, 1, 2).float()
        out.copy_(F.adaptive_avg_pool2d(images, sides))
    return small
