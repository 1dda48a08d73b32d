"""Checked images as tables of pixels, and the statistics of their channels.

Pixels are not scaled here. The encoder learns the mean and the standard deviation of each channel, and the network
applies them to a batch at a time, so that images of 8 bits stay so until they are on the device.

Axes: n images, h rows of pixels, w pixels a row, c channels, last.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from skdl.data.images.image_files import ImageFiles, ImageShape, files_shape
from skdl.data.images.pixel_range import PixelRange, check_unit
from skdl.data.sampling import sample_rows
from skdl.data.table import FINGERPRINT_ROWS, ComparableTable, DenseTable, Table
from skdl.data.types import Weights

#: Most training images that the statistics of the channels are taken from.
STATISTICS_ROWS = 5_000
#: Most numbers in these images, but for a single image.
STATISTICS_NUMBERS = 20_000_000
#: Numbers of images that are looked at or decoded at a time, so that intermediate values stay small beside the images.
CHUNK_NUMBERS = 4_000_000
#: Most images that are looked at to tell whether their unit is that of fit; none where both have 8 bits.
UNIT_ROWS = 256
#: The same of image files, which have to be decoded for it.
UNIT_FILES = 32


class ImageEncoder:
    """Checked images to tables of pixels, and the statistics by which a network standardises them.

    Parameters
    ----------
    dtype : numpy.dtype
        Of pixels that are not of 8 bits.
    resize : tuple of int, optional
        Height and width that image files are brought to.

    Attributes
    ----------
    image_shape : tuple of int
        Height, width and channels.
    mean, scale : tuple of float
        Mean and standard deviation of each channel, in units of the raw pixels. The scale of a constant channel is 1.
    n_outputs : int
        Numbers of an image, h * w * c.
    pixels : PixelRange
        From where to where the pixels go.
    """

    def __init__(self, dtype: DTypeLike, resize: Sequence[int] | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.resize = resize

    def fit(
        self,
        X: NDArray,
        y: NDArray | None,
        rows: NDArray[np.intp],
        weight: Weights = None,
        *,
        classification: bool = False,
        groups: NDArray[np.intp] | None = None,
    ) -> ImageEncoder:
        """Learn the statistics of the channels from the given rows.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, c) or (n,)
            Checked pixels, or paths.
        y : ignored
        rows : ndarray of shape (n_training,)
            At most 5,000 of them are looked at, at random; fewer, where images are large.
        weight : ndarray of shape (n_training,), optional
        classification : ignored
        """
        h, w, c = files_shape(X, self.resize) if X.ndim == 1 else X.shape[1:]
        self.image_shape: ImageShape = (h, w, c)
        self.n_outputs = h * w * c
        most = min(STATISTICS_ROWS, max(STATISTICS_NUMBERS // self.n_outputs, 1))
        chosen = sample_rows(len(rows), most)
        moments = self._moments(X, rows[chosen], np.ones(len(chosen)) if weight is None else weight[chosen])
        scale = moments.deviation()
        if not np.isfinite(scale).all():
            raise ValueError("The pixels of X are so large that their squares overflow. Divide X by a constant.")
        usable = scale >= np.finfo(self.dtype).tiny
        self.mean = tuple(moments.mean.tolist())
        self.scale = tuple(np.where(usable, scale, 1.0).tolist())
        self.pixels = moments.pixels(_is_8_bit(X))
        return self

    def _moments(self, X: NDArray, rows: NDArray[np.intp], weight: NDArray[np.float64]) -> _Moments:
        n_channels = self.image_shape[2]
        moments = _Moments(n_channels)
        start = 0
        for images in self._chunks(X, rows):
            stop = start + len(images)
            moments.add(images.reshape(len(images), -1, n_channels), weight[start:stop])
            start = stop
        return moments

    def _chunks(self, X: NDArray, rows: NDArray[np.intp]) -> Iterator[NDArray]:
        """The pixels of the rows, some images at a time."""
        files = ImageFiles(X, self.image_shape, self.resize) if X.ndim == 1 else None
        size = max(CHUNK_NUMBERS // self.n_outputs, 1)
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            yield X[chunk] if files is None else files.take(torch.from_numpy(chunk))[0].numpy()

    def transform(self, X: NDArray) -> Table:
        """A table of the images, in the memory of X where it has the type and the order that is wanted.

        Raises
        ------
        ValueError
            See :func:`~skdl.data.images.pixel_range.check_unit`.
        """
        if not (_is_8_bit(X) and self.pixels.is_8_bit):
            self._check_unit(X)
        if X.ndim == 1:
            return ImageFiles(X, self.image_shape, self.resize)
        if X.dtype != np.uint8:
            X = X.astype(self.dtype, copy=False)
        images = _tensor(X)
        return DenseTable(images.flatten(1)) if images.is_contiguous() else ImageArray(images)

    def _check_unit(self, X: NDArray) -> None:
        most = min(UNIT_FILES if X.ndim == 1 else UNIT_ROWS, max(CHUNK_NUMBERS // self.n_outputs, 1))
        rows = sample_rows(len(X), most)
        check_unit(self._moments(X, rows, np.ones(len(rows))).pixels(_is_8_bit(X)), self.pixels)


def _is_8_bit(X: NDArray) -> bool:
    # Image files are decoded to 8 bits.
    return X.ndim == 1 or X.dtype == np.uint8


class ImageArray(ComparableTable):
    """A table of images ``(n, h, w, c)`` that do not lie row by row in memory, such as ones with channels first.

    Copied into order as a whole they would take their memory twice, so each batch is copied as it is drawn.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.n_columns = math.prod(images.shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> tuple[Tensor, None]:
        """Pixels ``(len(rows), h * w * c)``."""
        return self.images[rows].flatten(1), None

    def slice(self, start: int, stop: int) -> tuple[Tensor, None]:
        """Consecutive rows."""
        return self.images[start:stop].flatten(1), None

    def to(self, device: torch.device | str) -> ImageArray:
        return ImageArray(self.images.to(device))

    def fingerprint(self) -> Hashable:
        """A few of the pixels, by which most tables that differ can be told apart."""
        some = self.images[:: max(len(self) // FINGERPRINT_ROWS, 1)]
        return "images", self.images.shape, self.images.dtype, some.numpy().tobytes()

    def equals(self, other: ImageArray) -> bool:
        """Whether all pixels are equal."""
        return torch.equal(self.images, other.images)


class _Moments:
    """Weighted mean and variance of each channel, and its range, chunk by chunk (Chan et al. 1983)."""

    def __init__(self, n_channels: int) -> None:
        self.weight = 0.0
        self.n_images = 0
        self.mean = np.zeros(n_channels)
        self.variance = np.zeros(n_channels)
        self.low = np.full(n_channels, np.inf)
        self.high = np.full(n_channels, -np.inf)
        self.is_whole = True

    def add(self, pixels: NDArray, weight: NDArray[np.float64]) -> None:
        """Take in pixels ``(n, h * w, c)`` of images of the given weights ``(n,)``."""
        x = pixels.astype(np.float64)
        self.n_images += len(x)
        np.minimum(self.low, x.min(axis=(0, 1)), out=self.low)
        np.maximum(self.high, x.max(axis=(0, 1)), out=self.high)
        self.is_whole = self.is_whole and (pixels.dtype == np.uint8 or bool((x == np.rint(x)).all()))
        added = weight.sum()
        share = weight / added
        with np.errstate(over="ignore", invalid="ignore"):
            mean = share @ x.mean(axis=1)
            x -= mean
            squares = share @ np.square(x, out=x).mean(axis=1)
            step = mean - self.mean
            self.weight += added
            # The share of these images in all so far.
            part = added / self.weight
            self.mean += part * step
            self.variance += part * (squares - self.variance + (1 - part) * step**2)

    def deviation(self) -> NDArray[np.float64]:
        """Standard deviations; 0 where they are nothing but the rounding of a constant."""
        deviation = np.sqrt(self.variance)
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        return np.where(deviation <= 100 * np.finfo(np.float64).eps * largest, 0.0, deviation)

    def pixels(self, is_8_bit: bool) -> PixelRange:
        """The range of all channels together."""
        low, high, mean = float(self.low.min()), float(self.high.max()), float(self.mean.mean())
        return PixelRange(is_8_bit, low, high, mean, self.is_whole, self.n_images)


class _Writable:
    """The memory of an array that may only be read, as if it could be written."""

    def __init__(self, array: NDArray) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
        self.array = array


def _tensor(array: NDArray) -> Tensor:
    """A tensor in the memory of an array, if torch can read it there."""
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = np.ascontiguousarray(array)
    # torch warns of memory that it may not write. Nobody writes to a table, and a copy of mapped files would not fit.
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))
