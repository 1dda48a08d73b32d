"""Checks of images: arrays, lists, image files and flat rows become one array, or paths.

Pixels keep their values here; images of 8 bits stay so.

Axes: n images, h rows of pixels, w pixels a row, c channels, last.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.images.image_files import (
    DEEP_MODES,
    ImageShape,
    checked_paths,
    converted,
    files_shape,
    no_path,
    plain_mode,
    resized,
)
from skdl.data.tables.frames import check_unique_names, is_frame, refuse_lazy
from skdl.data.tensors import as_array

#: Lengths of an axis that may hold channels, where nothing says which axis does: gray, RGB, RGBA.
CHANNEL_COUNTS = (1, 3, 4)
#: Channels that image files can have: gray, RGB.
FILE_CHANNELS = (1, 3)

# --- from what users have to one array, or to paths ------------------------------------------------------------------


@dataclass(frozen=True)
class ImageReading:
    """How X is read as images.

    Parameters
    ----------
    image_shape : tuple of int or None
        ``(h, w)`` or ``(h, w, c)`` of the images that flat rows are made of.
    channels : {"auto", "first", "last"}
    resize : tuple of int or None
        ``(h, w)`` that images are brought to.
    path_column : str or None
        Column of a frame that holds paths.
    dtype : str
        "float64" where pixels of that type keep it.
    reader : str
        Who reads them, for errors.
    """

    image_shape: Sequence[int] | None
    channels: str
    resize: Sequence[int] | None
    path_column: str | None
    dtype: str
    reader: str


def read_images(reading: ImageReading, X: Any) -> NDArray | None:
    """Images as one array, or as the paths of their files; None for rows of numbers, which scikit-learn checks first.

    Parameters
    ----------
    reading : ImageReading
    X : array, tensor, sequence of images or of paths, Series, DataFrame
        - Arrays and tensors ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``. Under "auto" the channels are the
          last axis if its length is 1, 3 or 4, else the first one if its length is, else the shorter of the two.
        - Sequences of arrays, tensors or Pillow images, of one size unless ``resize`` is set.
        - Sequences of paths to image files, or a DataFrame whose column ``path_column`` holds them.
        - Rows: see :func:`images_of_rows`.

    Returns
    -------
    ndarray of shape (n, h, w, c) or (n,), or None
        Pixels of type uint8, or float32, or float64 where ``dtype`` says so and float32 cannot hold them; or paths, as
        objects of type str.

    Raises
    ------
    ValueError, TypeError
        With the remedy.
    """
    check_sizes("image_shape", reading.image_shape, (2, 3))
    check_sizes("resize", reading.resize, (2,))
    _refuse_lone(X)
    cells = _cells(X, reading.path_column)
    if cells is not None:
        if not cells:
            raise ValueError("Found X with 0 image(s) while a minimum of 1 is required. Pass at least one image.")
        if isinstance(cells[0], bytes | bytearray):
            raise TypeError("X holds the bytes of image files. Open each: PIL.Image.open(io.BytesIO(data)).")
        if any(isinstance(cell, str | os.PathLike) for cell in cells):
            return checked_paths(cells)
        if hasattr(cells[0], "read"):
            raise TypeError("X holds open files. Pass their paths, or open each as an image: PIL.Image.open(file).")
    if cells is not None and any(_is_image(cell) for cell in cells):
        images = _stacked(cells, reading.channels, reading.resize)
    else:
        array = _array(X)
        if array is None or array.ndim < 3:
            return None
        images = _channels_last(array, reading.channels)
    return _finished(reading, _not_empty(reading, images))


def images_of_rows(reading: ImageReading, rows: NDArray) -> NDArray:
    """Checked rows ``(n, h * w * c)`` as images ``(n, h, w, c)``; signals ``(n, 1, n_features, 1)`` without a shape.

    Each row is an image in C order, channels last unless ``channels="first"``.
    """
    return _finished(reading, _unflattened(reading, rows))


def _finished(reading: ImageReading, images: NDArray) -> NDArray:
    return resized(_pixels(images, reading.dtype), reading.resize)


class CheckedImages(np.ndarray):
    """Checked images, or paths. Handed in again, by a scorer say, they are what they are."""

    def __array_wrap__(self, array: NDArray, context: Any = None, return_scalar: bool = False) -> Any:
        # What is computed of checked images is not checked.
        return array[()] if return_scalar else np.asarray(array)


def check_sizes(name: str, value: Any, lengths: tuple[int, ...]) -> None:
    """Refuse what is neither None nor a tuple of so many integers of at least 1.

    Raises
    ------
    ValueError
        With the parameter's name.
    """
    if value is None:
        return
    axes = ("height", "width", "channels")
    wanted = " or ".join(f"({', '.join(axes[:length])})" for length in lengths)
    integers = all(isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 1 for size in value)
    if len(value) not in lengths or not integers:
        raise ValueError(f"{name} must be {wanted}, integers of at least 1. Got {value!r}.")


def _refuse_lone(X: Any) -> None:
    """Refuse what is one image or one path, or has no rows yet."""
    if isinstance(X, str | os.PathLike):
        raise ValueError(f"X is one path, {os.fspath(X)!r}. Pass a list of the paths of the image files.")
    if isinstance(X, Iterator):
        raise TypeError(f"X is a {type(X).__name__}, which can be read only once. Pass list(X).")
    if _is_pillow_image(X):
        raise ValueError("X is one image. Pass a list of images: [image].")
    refuse_lazy(X)


def _cells(X: Any, path_column: str | None) -> list[Any] | None:
    """The elements of a sequence of objects, or of the column of paths; None for numbers in an array or a frame."""
    if isinstance(X, np.ndarray):
        return X.tolist() if X.ndim == 1 and X.dtype.kind in "OUT" else None
    if isinstance(X, list | tuple):
        return list(X)
    if is_frame(X):
        return None if path_column is None else _frame_cells(X, path_column)
    if nw.dependencies.is_into_series(X):
        return nw.from_native(X, series_only=True).to_list()
    return None


def _frame_cells(X: Any, path_column: str) -> list[Any]:
    check_unique_names(X)
    frame = nw.from_native(X, eager_only=True)
    if path_column not in frame.columns:
        raise ValueError(
            f"path_column={path_column!r} is not a column of X, which has {list(frame.columns)}. Set it to the column "
            "that holds the paths."
        )
    cells = frame.get_column(path_column).to_list()
    if not all(isinstance(cell, str | os.PathLike) for cell in cells):
        row = next(i for i, cell in enumerate(cells) if not isinstance(cell, str | os.PathLike))
        if _is_image(cells[row]):
            raise ValueError(f"Column {path_column!r} holds images, not paths. Pass list(X[{path_column!r}]).")
        raise ValueError(no_path(row, cells[row]))
    return cells


def _is_pillow_image(cell: Any) -> bool:
    # Without Pillow imported, no cell can be one of its images.
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(cell, pillow.Image)


def _is_image(cell: Any) -> bool:
    return _is_pillow_image(cell) or (isinstance(cell, np.ndarray | Tensor) and cell.ndim >= 2)


def _array(X: Any) -> NDArray | None:
    """X as an array of any number of axes; None where it is not one, or not for numpy to say."""
    X = as_array(X)
    if isinstance(X, np.ndarray):
        return np.asarray(X)
    if is_frame(X) or sp.issparse(X):
        return None
    try:
        array = np.asarray(X)
    except ValueError:
        return None
    return array if array.ndim >= 3 else None


def _layout(channels: str, shape: Sequence[int]) -> str:
    """Where the channels of images ``(.., a, b, c)`` stand: "first" or "last"."""
    if channels != "auto":
        return channels
    for axis, place in ((-1, "last"), (-3, "first")):
        if shape[axis] in CHANNEL_COUNTS:
            return place
    return "first" if shape[-3] < shape[-1] else "last"


def _channels_last(array: NDArray, channels: str) -> NDArray:
    """A view ``(n, h, w, c)`` of images of three or four axes."""
    if array.ndim == 3:
        return array[..., np.newaxis]
    if array.ndim != 4:
        raise ValueError(
            f"X has {array.ndim} axes, {array.shape}. Pass images as (n, h, w), (n, h, w, channels) or "
            "(n, channels, h, w), or flat rows as (n, h * w * channels) with image_shape=(h, w, channels)."
        )
    return np.moveaxis(array, 1, 3) if _layout(channels, array.shape) == "first" else array


def _not_empty(reading: ImageReading, images: NDArray) -> NDArray:
    if 0 in images.shape:
        n, h, w, c = images.shape
        raise ValueError(
            f"Found {n} image(s) of {h} x {w} pixels and {c} channel(s) while a minimum of 1 of each is required "
            f"by {reading.reader}. Pass at least one image."
        )
    return images


def _pixels(images: NDArray, dtype: str) -> NDArray:
    """Finite pixels of a type that is trained on."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind == "c":
        raise ValueError("Complex data not supported: pixels must be real numbers. Pass np.abs(X), for example.")
    if images.dtype.kind not in "biufO":
        raise ValueError(f"Pixels must be numbers, and X has the type {images.dtype}. Convert it to uint8 or float32.")
    is_held_by_float32 = np.result_type(images.dtype, np.float32) == np.float32
    floats = np.float64 if dtype == "float64" and not is_held_by_float32 else np.float32
    try:
        with np.errstate(over="ignore"):
            pixels = images.astype(floats, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Pixels must be numbers: {error}. Convert X to uint8 or float32.") from error
    if images.dtype.kind in "fO":
        _check_finite(pixels, images)
    return pixels


def _check_finite(pixels: NDArray, images: NDArray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(pixels.sum(dtype=np.float64)):
            return
    for row, image in enumerate(pixels):
        if np.isfinite(image).all():
            continue
        if np.isfinite(images[row].astype(np.float64)).all():
            raise ValueError(
                f"Image {row} of X holds pixels that are too large for float32. Divide X by a constant, or set "
                "dtype='float64'."
            )
        what = "NaN" if np.isnan(image).any() else "infinity"
        raise ValueError(
            f"Input X contains {what}, first in image {row}. Replace such pixels, by np.nan_to_num(X) for example, or "
            "leave the image out."
        )


# --- flat rows -------------------------------------------------------------------------------------------------------


def _unflattened(reading: ImageReading, rows: NDArray) -> NDArray:
    n, n_features = rows.shape
    if reading.image_shape is None:
        return rows.reshape(n, 1, n_features, 1)
    h, w, c = _full_shape(reading.image_shape)
    if h * w * c != n_features:
        given = tuple(reading.image_shape)
        remedy = "Set it to the (height, width) or (height, width, channels) of the images that the rows are made of."
        if n_features % (h * w) == 0:
            remedy = f"For {n_features} features, set image_shape={(h, w, n_features // (h * w))}."
        raise ValueError(
            f"X has {n_features} features, but image_shape={given} makes {' x '.join(map(str, given))} = {h * w * c}. "
            f"{remedy}"
        )
    if reading.channels == "first":
        return np.moveaxis(rows.reshape(n, c, h, w), 1, 3)
    return rows.reshape(n, h, w, c)


def _full_shape(image_shape: Sequence[int]) -> ImageShape:
    shape = tuple(int(size) for size in image_shape)
    return (*shape, 1) if len(shape) == 2 else shape  # type: ignore[return-value]


# --- shapes ----------------------------------------------------------------------------------------------------------


def training_shape(reading: ImageReading, images: NDArray) -> ImageShape:
    """The shape of the images of a fit, which are pixels or paths.

    Raises
    ------
    ValueError
        If ``image_shape`` is another one.
    """
    h, w, c = files_shape(images, reading.resize) if images.ndim == 1 else images.shape[1:]
    _check_against_parameter(reading, (h, w, c))
    return h, w, c


def check_shape(images: NDArray, fitted: ImageShape, fitted_by: str) -> None:
    """Refuse images of another shape than those of ``fit``; the shape of files is seen when they are read.

    Raises
    ------
    ValueError
        With the remedy.
    """
    if images.ndim == 1:
        if fitted[2] not in FILE_CHANNELS:
            raise ValueError(
                f"Image files are read with 1 or 3 channels, but {fitted_by} was fitted on images of "
                f"{_spelled(fitted)}. Read them into arrays, or fit on files."
            )
        return
    h, w, c = images.shape[1:]
    if (h, w, c) != fitted:
        raise ValueError(
            f"X has images of {_spelled((h, w, c))}, but {fitted_by} was fitted on images of "
            f"{_spelled(fitted)}. {_shape_remedy((h, w, c), fitted)}"
        )


def _spelled(shape: ImageShape) -> str:
    h, w, c = shape
    return f"{h} x {w} pixels (height x width) and {c} channel{'s' if c > 1 else ''}"


def _shape_remedy(shape: ImageShape, fitted: ImageShape) -> str:
    if shape[:2] != fitted[:2] and shape[2] == fitted[2]:
        return (
            f"Resize them, or fit with resize={fitted[:2]}, which resizes in predict, too. "
            "A single image is passed as X[np.newaxis]."
        )
    if (shape[2], *shape[:2]) == fitted or (shape[1], shape[2], shape[0]) == fitted:
        return "The axes seem to be exchanged: set channels='first' or channels='last', or transpose X."
    if shape[:2] == fitted[:2]:
        return "Convert them to the same channels, for example all to gray or all to RGB."
    return "Pass images of that shape. A single image is passed as X[np.newaxis]."


def _check_against_parameter(reading: ImageReading, shape: ImageShape) -> None:
    if reading.image_shape is None or reading.resize is not None:
        return
    wanted = tuple(reading.image_shape)
    if shape[: len(wanted)] != wanted:
        raise ValueError(
            f"X has images of {_spelled(shape)}, but image_shape={wanted}. Set image_shape=None: images that are not "
            "flat rows bring their own shape."
        )


# --- lists of images, and their sizes --------------------------------------------------------------------------------


def _stacked(cells: list[Any], channels: str, resize: Sequence[int] | None) -> NDArray:
    """Single images, of one size unless they are resized, as one array."""
    images: list[NDArray] = []
    first: tuple[int, ...] = ()
    for row, cell in enumerate(cells):
        image = _single(cell, row, channels)
        first = first or image.shape
        if image.shape[2] != first[2]:
            raise ValueError(
                f"Image {row} of X has {image.shape[2]} channel(s), and image 0 has {first[2]}. Convert all of them to "
                "gray or all to RGB."
            )
        if images and (image.dtype == np.uint8) != (images[0].dtype == np.uint8):
            raise ValueError(
                f"Image {row} of X is of type {image.dtype}, and image 0 of {images[0].dtype}. Pixels of 8 bits go up "
                "to 255, and others rarely do: bring all images to one range and type."
            )
        if image.shape != first and resize is None:
            raise ValueError(
                f"Image {row} of X has {image.shape[0]} x {image.shape[1]} pixels (height x width), and image 0 has "
                f"{first[0]} x {first[1]}. Set resize=(height, width) to bring all images to one size."
            )
        images.append(resized(image[np.newaxis], resize)[0])
    return np.stack(images)


def _single(cell: Any, row: int, channels: str) -> NDArray:
    """One image ``(h, w, c)``."""
    if _is_pillow_image(cell):
        image = np.asarray(cell if cell.mode in DEEP_MODES else converted(cell, plain_mode(cell)))
        return image if image.ndim == 3 else image[..., np.newaxis]
    image = np.asarray(as_array(cell))
    if image.ndim not in (2, 3) or image.dtype.kind == "O":
        raise ValueError(
            f"Element {row} of X is not an image: {type(cell).__name__} of shape {image.shape}. Each must be an array "
            "(h, w), (h, w, channels) or (channels, h, w), or a Pillow image."
        )
    if 0 in image.shape:
        raise ValueError(f"Image {row} of X, of shape {image.shape}, has no pixels. Leave it out.")
    return _channels_last(image[np.newaxis], channels)[0]
