"""Whether labels stay as they are when images are mirrored or moved, decided by nearest neighbours before training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from skdl.data.images.image_encoder import CHUNK_NUMBERS
from skdl.data.images.image_files import ImageShape
from skdl.data.sampling import sample_rows
from skdl.data.table import Table
from skdl.nn.augment import Augmentation

#: Most images that are looked at: one half is changed, and has its neighbours in the other half.
TRIED_IMAGES = 2000
#: Most pixels along an axis that these images are averaged to.
TRIED_SIDE = 16
#: Smallest share of the nearest neighbours' mean recall that has to be left when images are mirrored.
KEPT_SHARE = 0.97
#: The same of their accuracy when images are moved: neighbours mind a shift that networks learn to bear.
KEPT_SHARE_OF_MOVED = 0.75
#: Fewest mirrored images of a class whose own recall counts as well.
MIN_CLASS_IMAGES = 5
#: Most recall that such a class may lose, of 1.
MAX_LOST_RECALL = 0.5
#: Share by which the nearest neighbours' mean squared error may rise when images are moved.
MAX_ADDED_ERROR = 0.5
#: Standard errors up to which a rise is taken for chance.
STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Neighbours:
    """Some images ``(n, c, h, w)``, half of which are looked up among the others, with their labels or targets."""

    known: Tensor
    new: Tensor
    known_y: NDArray
    new_y: NDArray

    @classmethod
    def of(cls, table: Table, image_shape: ImageShape, rows: NDArray[np.intp], y: NDArray) -> Neighbours | None:
        """Draw from these rows of encoded images; None if their pixels are beyond the range of single precision."""
        some = rows[sample_rows(len(rows), TRIED_IMAGES)]
        # Every other image of each class, or of the sorted targets, in whatever order they come.
        some = some[np.argsort(y[some] if y.ndim == 1 else y[some].sum(axis=1), kind="stable")]
        images = _small_images(table, image_shape, torch.as_tensor(some))
        if not images.isfinite().all():
            return None
        return cls(images[::2], images[1::2], y[some[::2]], y[some[1::2]])

    def nearest_y(self, images: Tensor) -> NDArray:
        """The label or target of the known image that is nearest to each of these."""
        from sklearn.neighbors import NearestNeighbors

        nearest = NearestNeighbors(n_neighbors=1).fit(self.known.flatten(1).numpy())
        return self.known_y[nearest.kneighbors(images.flatten(1).numpy(), return_distance=False)[:, 0]]


def may_be_mirrored(table: Table, image_shape: ImageShape, rows: NDArray[np.intp], y: NDArray) -> bool:
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
    classes, label = np.unique(y, return_inverse=True)
    neighbours = Neighbours.of(table, image_shape, rows, label)
    if neighbours is None:
        return False
    own = neighbours.new_y
    n_of_class = np.bincount(own, minlength=len(classes))
    tried = n_of_class > 0
    if tried.sum() < 2:
        return False

    def recall(images: Tensor) -> NDArray[np.float64]:
        is_right = neighbours.nearest_y(images) == own
        return np.bincount(own, is_right, minlength=len(classes))[tried] / n_of_class[tried]

    plain, mirrored = recall(neighbours.new), recall(neighbours.new.flip(3))
    chance = 1 / len(plain)
    # Neighbours that know no more than chance, by two standard errors, have nothing to say.
    if plain.mean() <= chance + 2 * math.sqrt(chance * (1 - chance) / len(own)):
        return False
    lost = (plain - mirrored)[n_of_class[tried] >= MIN_CLASS_IMAGES]
    return bool(mirrored.mean() >= KEPT_SHARE * plain.mean() and (lost <= MAX_LOST_RECALL).all())


def may_be_moved(
    table: Table, image_shape: ImageShape, rows: NDArray[np.intp], y: NDArray, moves: Augmentation, is_labelled: bool
) -> bool:
    """Whether moved images are about as near to images of like labels or targets: False for places, sizes and angles.

    Parameters
    ----------
    table, image_shape, rows
        As in :func:`may_be_mirrored`.
    y : ndarray of shape (n_images,) or (n_images, n_targets)
        Labels, or targets.
    moves : Augmentation
        How images are moved.
    is_labelled : bool
        Whether y are labels of one class each, which are either right or wrong.
    """
    targets = np.unique(y, return_inverse=True)[1] if is_labelled else y.reshape(len(y), -1).astype(np.float64)
    if not is_labelled:
        spread = targets[rows].std(axis=0)
        targets = targets[:, spread > 0] / spread[spread > 0]
    neighbours = Neighbours.of(table, image_shape, rows, targets)
    if neighbours is None or len(neighbours.new) < 2:
        return True

    def errors(images: Tensor) -> NDArray[np.float64]:
        found, own = neighbours.nearest_y(images), neighbours.new_y
        return (found != own).astype(np.float64) if is_labelled else ((found - own) ** 2).sum(axis=1)

    plain = errors(neighbours.new)
    added = errors(moves.move(neighbours.new, torch.Generator().manual_seed(0))) - plain
    allowed = (1 - KEPT_SHARE_OF_MOVED) * (1 - plain.mean()) if is_labelled else MAX_ADDED_ERROR * plain.mean()
    by_chance = STANDARD_ERRORS * added.std() / math.sqrt(len(added))
    return bool(added.mean() <= max(allowed, by_chance))


def _small_images(table: Table, image_shape: ImageShape, rows: Tensor) -> Tensor:
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
