"""Augmentation of images: a fresh variant of each image at each training step.

Axes: B images, H rows of pixels, W pixels a row, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Mixing(NamedTuple):
    """With which row of the batch each row was mixed, and the share of that other row."""

    order_B: Tensor
    share: Tensor


@dataclass(frozen=True)
class Augmentation:
    """What may be done to an image without making it another thing.

    Parameters
    ----------
    shift : float, default=0
        Largest shift along each axis, as a share of its length. Pixels that come in repeat the border.
    rotation : float, default=0
        Largest turn to either side, in degrees.
    zoom : float, default=0
        Largest change of size, as a share of the size.
    flip : bool, default=False
        Whether half of the images are mirrored left to right.
    cutout : float, default=0
        Side of the square that is set to the mean pixel, as a share of each axis (DeVries and Taylor 2017).
    mixup : float, default=0
        Largest share of another image of the batch, and of its label, that is mixed in (Zhang et al. 2018). The share
        is drawn evenly from 0 to this.
    function : callable, optional
        A function of standardised images ``(B, C, H, W)`` and a :class:`torch.Generator` that returns such images.
    """

    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    cutout: float = 0.0
    mixup: float = 0.0
    function: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def settings(self) -> dict[str, float]:
        """What is done, by name."""
        names = (field.name for field in fields(self) if field.name != "function")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def move(self, x_BCHW: Tensor, generator: torch.Generator, *, alike: bool = False) -> Tensor:
        """Shift, turn, zoom and flip each image on its own, or all alike."""
        if self.rotation or self.zoom:
            return self._resample(x_BCHW, generator, 1 if alike else len(x_BCHW))
        if self.shift or self.flip:
            return self._rearrange(x_BCHW, generator, 1 if alike else len(x_BCHW))
        return x_BCHW

    def _rearrange(self, x_BCHW: Tensor, generator: torch.Generator, n: int) -> Tensor:
        """Shift by whole pixels and flip: nothing has to be interpolated."""
        height, width = x_BCHW.shape[2:]
        device = x_BCHW.device
        rows, columns = (
            (torch.arange(size, device=device) + self._integers(n, round(self.shift * size), generator)).clamp_(
                0, size - 1
            )
            for size in (height, width)
        )
        if self.flip:
            columns = torch.where(self._uniform(n, x_BCHW, generator)[:, None] < 0.5, columns, columns.flip(1))
        images = torch.arange(len(x_BCHW), device=device)[:, None, None]
        # Channels are last in memory, so that whole pixels are copied.
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return x_BHWC[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _resample(self, x_BCHW: Tensor, generator: torch.Generator, n: int) -> Tensor:
        """Shift, turn, zoom and flip, bilinearly."""
        height, width = x_BCHW.shape[2:]

        def evenly(most: float) -> Tensor:
            return self._uniform(n, x_BCHW, generator).mul_(2).sub_(1).mul_(most)

        angle = evenly(math.radians(self.rotation))
        # Coordinates run from -1 to 1 along both axes, whatever their lengths.
        down, right, factor, stretch = evenly(2 * self.shift), evenly(2 * self.shift), evenly(self.zoom), width / height
        cosine, sine = angle.cos() * (1 + factor), angle.sin() * (1 + factor)
        mirror = torch.ones_like(angle)
        if self.flip:
            mirror = torch.where(self._uniform(n, x_BCHW, generator) < 0.5, -mirror, mirror)
        rows = torch.stack([cosine * mirror, -sine / stretch, right, sine * stretch * mirror, cosine, down], dim=1)
        theta = rows.view(-1, 2, 3).expand(len(x_BCHW), -1, -1)
        grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
        moved = F.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)
        return moved.contiguous(memory_format=torch.channels_last)

    def cut(self, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Blank a square of each standardised image."""
        if self.cutout == 0:
            return x_BCHW
        n_images, _, height, width = x_BCHW.shape
        inside = []
        for size in (height, width):
            length = max(round(self.cutout * size), 1)
            # The square may stick out, so that the border is cut as often as the middle.
            first = (self._uniform(n_images, x_BCHW, generator) * (size + length - 1)).long()[:, None] - (length - 1)
            place = torch.arange(size, device=x_BCHW.device)
            inside.append((place >= first) & (place < first + length))
        is_cut = inside[0][:, :, None] & inside[1][:, None, :]
        return x_BCHW.masked_fill(is_cut[:, None], 0.0)

    def mix(self, x_BCHW: Tensor, generator: torch.Generator) -> tuple[Tensor, Mixing | None]:
        """Mix each image with another one of the batch."""
        if self.mixup == 0:
            return x_BCHW, None
        device = x_BCHW.device
        order_B = torch.randperm(len(x_BCHW), generator=generator, device=device)
        share = torch.rand((), generator=generator, device=device, dtype=x_BCHW.dtype) * self.mixup
        return torch.lerp(x_BCHW, x_BCHW[order_B], share), Mixing(order_B, share)

    @staticmethod
    def _uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
        """A number between 0 and 1 for each image, ``(n,)``."""
        return torch.rand(n, generator=generator, device=generator.device, dtype=like.dtype)

    @staticmethod
    def _integers(n: int, most: int, generator: torch.Generator) -> Tensor:
        """An integer from -most to most for each image, ``(n, 1)``."""
        return torch.randint(-most, most + 1, (n, 1), generator=generator, device=generator.device)
