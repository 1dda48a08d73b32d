"""Whether labels stay as they are when images are mirrored or moved, decided by nearest neighbours before training."""

from __future__ import annotations

import math

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
#: Standard errors up to which a difference is taken for chance.
STANDARD_ERRORS = 2.0


class Neighbours:
    """Some images ``(n, c, h, w)``, half of which are looked up among the others, with their labels or targets.

    Parameters
    ----------
    images : Tensor (n, c, h, w)
        In the order of their labels or targets: every other one of them is known.
    y : ndarray of shape (n,) or (n, n_targets)
        Numbers of classes, or standardised targets.
    """

    def __init__(self, images: Tensor, y: NDArray) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.new, self.known_y, self.new_y = images[1::2], y[::2], y[1::2]
        self.index = NearestNeighbors(n_neighbors=1).fit(images[::2].flatten(1).numpy())

    @classmethod
    def of(
        cls, table: Table, image_shape: ImageShape, rows: NDArray[np.intp], y: NDArray, is_labelled: bool
    ) -> Neighbours | None:
        """Draw from encoded images; None if their pixels are beyond the range of single precision.

        Parameters
        ----------
        table : Table
            Encoded images.
        image_shape : tuple of int
            (height, width, channels).
        rows : ndarray of int
            Those that may be looked at.
        y : ndarray of shape (n_images,) or (n_images, n_targets)
            Labels, or targets.
        is_labelled : bool
            Whether y are labels of one class each, which are either right or wrong.
        """
        if is_labelled:
            targets = np.unique(y, return_inverse=True)[1]
        else:
            targets = y.reshape(len(y), -1).astype(np.float64)
            spread = targets[rows].std(axis=0)
            targets = targets[:, spread > 0] / spread[spread > 0]
        some = rows[sample_rows(len(rows), TRIED_IMAGES)]
        # Every other image of each class, or of the sorted targets, in whatever order they come.
        some = some[np.argsort(targets[some] if is_labelled else targets[some].sum(axis=1), kind="stable")]
        images = _small_images(table, image_shape, torch.as_tensor(some))
        return cls(images, targets[some]) if images.isfinite().all() else None

    def nearest_y(self, images: Tensor) -> NDArray:
        """The label or target of the known image that is nearest to each of these."""
        return self.known_y[self.index.kneighbors(images.flatten(1).numpy(), return_distance=False)[:, 0]]

    def may_be_mirrored(self) -> bool:
        """Whether mirrored images are still nearest to images of their own class."""
        own = self.new_y
        n_of_class = np.bincount(own)
        tried = n_of_class > 0
        if tried.sum() < 2:
            return False

        def recall(images: Tensor) -> NDArray[np.float64]:
            is_right = self.nearest_y(images) == own
            return np.bincount(own, is_right)[tried] / n_of_class[tried]

        plain, mirrored = recall(self.new), recall(self.new.flip(3))
        chance = 1 / len(plain)
        # Neighbours that know no more than chance have nothing to say.
        if plain.mean() <= chance + STANDARD_ERRORS * math.sqrt(chance * (1 - chance) / len(own)):
            return False
        lost = (plain - mirrored)[n_of_class[tried] >= MIN_CLASS_IMAGES]
        return bool(mirrored.mean() >= KEPT_SHARE * plain.mean() and (lost <= MAX_LOST_RECALL).all())

    def may_be_moved(self, moves: Augmentation) -> bool:
        """Whether moved images are about as near to images of like y: not if y are places, sizes or angles."""
        if len(self.new) < 2:
            return True
        is_labelled = self.new_y.ndim == 1

        def errors(images: Tensor) -> NDArray[np.float64]:
            found, own = self.nearest_y(images), self.new_y
            return (found != own).astype(np.float64) if is_labelled else ((found - own) ** 2).sum(axis=1)

        plain = errors(self.new)
        added = errors(moves.move(self.new, torch.Generator().manual_seed(0))) - plain
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
