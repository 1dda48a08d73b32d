"""Image files as rows of a table: their paths, and their decoding in background threads.

What Pillow is needed for is here: files, their modes, and other sizes.

Axes: n images, h rows of pixels, w pixels a row, c channels, last.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.table import FINGERPRINT_ROWS, ComparableTable

#: Threads that decode image files at most.
MAX_THREADS = 8
#: Tasks that the files of a batch are parted into: some for each thread, since files take their time unevenly.
TASKS = 4 * MAX_THREADS
#: Pillow modes of one channel of 8 bits, and those that lose nothing of use by becoming one.
GRAY_MODES = frozenset({"1", "L", "LA"})
#: Pillow modes of more than 8 bits a channel.
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})

#: Most characters of a cell that an error shows; of a longer one it tells the type.
MAX_SHOWN_CHARACTERS = 80

ImageShape = tuple[int, int, int]

# --- modes and sizes -------------------------------------------------------------------------------------------------


def pillow() -> Any:
    """Pillow's Image module, which is optional to install."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Image files and resize= need Pillow. Install it by: pip install pillow") from error
    return Image


def plain_mode(image: Any) -> str:
    """The mode of 8 bits a channel that a Pillow image is brought to."""
    # Of a GIF, Pillow calls gray what has all 256 levels.
    return "L" if image.mode in GRAY_MODES and image.format != "GIF" else "RGB"


def converted(image: Any, mode: str) -> Any:
    """A Pillow image of a plain mode. What is transparent becomes white, as on paper."""
    if not image.has_transparency_data:
        return image.convert(mode)
    paper = pillow().new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert(mode)


def resized(images: NDArray, resize: Sequence[int] | None) -> NDArray:
    """Images ``(n, h, w, c)`` brought to another height and width by Pillow's bilinear filter."""
    if resize is None or images.shape[1:3] == tuple(resize):
        return images
    height, width = resize
    # Means of whole numbers or of truth values are fractions.
    keeps_type = images.dtype in (np.uint8, np.float64)
    out = np.empty((len(images), height, width, images.shape[3]), images.dtype if keeps_type else np.float32)
    for image, small in zip(images, out, strict=True):
        _resize_channels(image, small)
    return out


def _resize_channels(image: NDArray, out: NDArray) -> None:
    # Channel by channel, for Pillow multiplies colours by a fourth channel, and has no image of two or five.
    image_module = pillow()
    size = (out.shape[1], out.shape[0])
    for j in range(image.shape[2]):
        channel = image[..., j] if image.dtype == np.uint8 else image[..., j].astype(np.float32)
        whole = image_module.fromarray(np.ascontiguousarray(channel))
        out[..., j] = np.asarray(whole.resize(size, image_module.Resampling.BILINEAR))


# --- paths -----------------------------------------------------------------------------------------------------------


def no_path(row: int, cell: Any) -> str:
    """What is said of a cell that is not a path."""
    shown = repr(cell)
    if len(shown) > MAX_SHOWN_CHARACTERS:
        shown = f"of type {type(cell).__name__}"
    return f"Row {row} of X is not a path but {shown}. Leave the row out, or give the path of its image file."


def checked_paths(cells: Sequence[Any]) -> NDArray:
    """Paths of files that exist, as text ``(n,)``.

    Raises
    ------
    ValueError
        With the row of what is not a path, or of the file that is not there.
    """
    paths = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        if not isinstance(cell, str | os.PathLike):
            raise ValueError(no_path(row, cell))
        paths[row] = os.fsdecode(cell)
        if os.path.isdir(paths[row]):
            raise ValueError(
                f"Row {row} of X, {paths[row]!r}, is a folder. Pass the paths of the files in it, as by "
                "sorted(pathlib.Path(folder).glob('*.png'))."
            )
        if not os.path.isfile(paths[row]):
            raise ValueError(
                f"Row {row} of X is text, {paths[row]!r}, and there is no image file of this name. Pass paths that are "
                f"absolute or relative to {os.getcwd()!r}."
            )
    return paths


def _open(path: str, row: int) -> Any:
    """An image file, opened but not decoded."""
    image_module = pillow()
    try:
        return image_module.open(path)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(path, row, error) from error


def _unreadable(path: str, row: int, error: Exception) -> ValueError:
    remedy = "Repair it, or leave the row out."
    if type(error).__name__ == "DecompressionBombError":
        remedy = "Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if the file can be trusted."
    return ValueError(f"Image file {path!r} (row {row} of X) cannot be read: {str(error).rstrip('.')}. {remedy}")


def files_shape(paths: Sequence[str] | NDArray, resize: Sequence[int] | None = None) -> ImageShape:
    """Shape (h, w, c) of the images of the files, by the first one, or of its channels and ``resize``.

    Raises
    ------
    ValueError
        If the first file is not an image.
    """
    with _open(paths[0], 0) as image:
        n_channels = 1 if plain_mode(image) == "L" else 3
        width, height = image.size
    if resize is not None:
        height, width = resize
    return int(height), int(width), n_channels


# --- the table -------------------------------------------------------------------------------------------------------


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of a process that decode files. A forked process, which inherits none, starts its own."""
    return ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="skdl-images")


class ImageFiles(ComparableTable):
    """A table whose rows are image files, decoded when they are drawn.

    Nothing is kept of an image once it has been handed out.

    Parameters
    ----------
    paths : sequence of str
    image_shape : tuple of int, optional
        Height, width and channels, 1 or 3, of the images; by default those of the first file.
    resize : tuple of int, optional
        Height and width that images of other sizes are brought to, those of ``image_shape`` if that is given. Without
        it such images are refused.
    device : torch.device or str, default="cpu"
        Where the pixels are handed out.

    Notes
    -----
    Gray files may stand among coloured ones, and are coloured. Palettes become RGB, and what is transparent becomes
    white. Of files with several images the first one is read, and the orientation that a camera notes is not applied.

    Raises
    ------
    ValueError
        When rows are drawn, with the file and its row: if a file cannot be read, has another size or more than 8 bits
        a channel, or is coloured where the others are gray.
    ImportError
        If Pillow is not installed.
    """

    prefetches = True

    def __init__(
        self,
        paths: Sequence[str] | NDArray,
        image_shape: ImageShape | None = None,
        resize: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.paths = paths
        self.image_shape = files_shape(paths, resize) if image_shape is None else image_shape
        self.resize = resize
        self.device = torch.device(device)
        h, w, c = self.image_shape
        self.n_columns = h * w * c

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Tensor) -> tuple[Tensor, None]:
        """Pixels ``(len(rows), h * w * c)`` of type uint8."""
        numbers = rows.tolist()
        # Models that train side by side draw the same rows.
        places = {row: i for i, row in enumerate(dict.fromkeys(numbers))}
        pixels = self._decoded(list(places))
        if len(places) < len(numbers):
            pixels = pixels.index_select(0, torch.tensor([places[row] for row in numbers], device="cpu"))
        return pixels.to(self.device, non_blocking=True), None

    def slice(self, start: int, stop: int) -> tuple[Tensor, None]:
        """Consecutive rows."""
        rows = range(len(self))[start:stop]
        return self._decoded(list(rows)).to(self.device, non_blocking=True), None

    def to(self, device: torch.device | str) -> ImageFiles:
        return ImageFiles(self.paths, self.image_shape, self.resize, device)

    def fingerprint(self) -> Hashable:
        """A few of the paths, by which most tables that differ can be told apart."""
        return "files", len(self), self.image_shape, tuple(self.paths[:: max(len(self) // FINGERPRINT_ROWS, 1)])

    def equals(self, other: object) -> bool:
        """Whether the files are the same, and are read the same way."""
        return (
            isinstance(other, ImageFiles)
            and self.image_shape == other.image_shape
            and (self.resize is None) == (other.resize is None)
            and list(self.paths) == list(other.paths)
        )

    def _decoded(self, rows: list[int]) -> Tensor:
        pinned = self.device.type == "cuda"
        pixels = torch.empty(len(rows), self.n_columns, dtype=torch.uint8, device="cpu", pin_memory=pinned)
        images = pixels.numpy().reshape(len(rows), *self.image_shape)
        # Several files a task: to hand a small one to a thread takes longer than to decode it.
        size = -(-len(rows) // TASKS) or 1
        starts = range(0, len(rows), size)
        tasks = _threads(os.getpid()).map(lambda i: self._decode_all(rows[i : i + size], images[i : i + size]), starts)
        # Drawing the results raises the first error.
        for _ in tasks:
            pass
        return pixels

    def _decode_all(self, rows: list[int], out: NDArray[np.uint8]) -> None:
        for row, image in zip(rows, out, strict=True):
            self._decode(row, image)

    def _decode(self, row: int, out: NDArray[np.uint8]) -> None:
        """Decode the file of one row into ``out`` ``(h, w, c)``."""
        path = self.paths[row]
        with _open(path, row) as image:
            self._check_file(image, row)
            if image.size != (out.shape[1], out.shape[0]):
                # A large JPEG is decoded at a fraction of its size, which still is twice what is wanted.
                image.draft(image.mode, (2 * out.shape[1], 2 * out.shape[0]))
            try:
                plain = converted(image, "L" if out.shape[2] == 1 else "RGB")
            except MemoryError:
                raise
            except Exception as error:
                raise _unreadable(path, row, error) from error
        decoded = np.asarray(plain).reshape(plain.size[1], plain.size[0], out.shape[2])
        out[...] = resized(decoded[np.newaxis], out.shape[:2])[0]

    def _check_file(self, image: Any, row: int) -> None:
        h, w, c = self.image_shape
        where = f"Image file {self.paths[row]!r} (row {row} of X)"
        if image.mode in DEEP_MODES:
            raise ValueError(
                f"{where} has more than 8 bits a channel (Pillow's mode {image.mode!r}), which files are reduced to. "
                "Read it into an array and pass the images as arrays, which keep their values."
            )
        if c == 1 and plain_mode(image) != "L":
            raise ValueError(
                f"{where} is coloured (Pillow's mode {image.mode!r}), but the first image in fit was gray. Convert the "
                "files to gray, or all to RGB."
            )
        if self.resize is None and image.size != (w, h):
            raise ValueError(
                f"{where} has {image.size[1]} x {image.size[0]} pixels (height x width), but the first image in fit "
                f"had {h} x {w}. Set resize=({h}, {w}), or another size, to bring all images to one."
            )
