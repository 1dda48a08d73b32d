"""Convolutional networks for images.

Axes: B images, H rows of pixels, W pixels a row, C channels, F channels of the last feature map, O outputs. Images
come as rows of ``H * W * C`` raw pixels and are standardised here, a batch at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skdl.data.images.image_files import ImageShape
from skdl.nn.activations import Activation
from skdl.nn.augment import Augmentation
from skdl.nn.autograd import AutogradArchitecture, AutogradModule, draw_layer
from skdl.nn.dropout import Draws

#: Numbers of the largest feature map that are computed at a time.
CHUNK_NUMBERS = 1_000_000
#: Shortest side that a block still halves.
MIN_HALVED_SIDE = 4
#: Channels of the first block of "auto" networks; they double from block to block.
FIRST_CHANNELS = 32
#: Most channels of a block of "auto" networks.
MAX_CHANNELS = 256

#: Height and width that the last feature map is averaged to: where something is seen still matters a little.
POOLED_SIDE = 2


def is_halved(height: int, width: int) -> bool:
    """Whether a block halves an image of this size; signals, of height 1, are halved along their width."""
    return (width if height == 1 else min(height, width)) >= MIN_HALVED_SIDE


def auto_channels(height: int, width: int) -> tuple[int, ...]:
    """Channels of each block: as many blocks as halve the image, at least two."""
    n_blocks = 0
    while is_halved(height, width):
        height, width, n_blocks = max(height // 2, 1), width // 2, n_blocks + 1
    return tuple(min(FIRST_CHANNELS * 2**i, MAX_CHANNELS) for i in range(max(n_blocks, 2)))


@dataclass(frozen=True)
class ConvArchitecture(AutogradArchitecture):
    """The architecture of a convolutional network.

    Blocks of convolution, pooling, normalisation and activation, means over the quarters of each
    channel, then dense layers.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width, channels). Images of height 1 are signals: everything happens along their width.
    n_outputs : int
    channels : tuple of int
        Channels of each block. A block halves the image as long as its shorter side is at least 4.
    kernel_size : int
    pooling : {"max", "average"}
    hidden : tuple of int
        Units of the dense layers after the last block.
    activation : Activation
    normalization : {None, "batch", "layer"}
    residual : bool
        Whether each block ends with one more convolution around which its input is carried (He et al. 2016).
    mean, scale : tuple of float
        Of each channel's pixels: images are standardised by them.
    augmentation : Augmentation
    """

    image_shape: ImageShape
    n_outputs: int
    channels: tuple[int, ...]
    kernel_size: int
    pooling: str
    hidden: tuple[int, ...]
    activation: Activation
    normalization: str | None
    residual: bool
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    augmentation: Augmentation

    @property
    def label(self) -> str:
        """Channels of the blocks and units of the dense layers."""
        return "-".join(map(str, ("conv", *self.channels, *self.hidden, self.n_outputs)))

    def make(self) -> ConvModule:
        return ConvModule(self)

    def draw_initial(self, module: AutogradModule, generator: torch.Generator) -> None:
        """He's initial weights, smaller ones in the output layer."""
        for part in module.modules():
            draw_layer(part, generator, is_last=part is module.output)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that takes the running statistics for a batch of a single value, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class Residual(nn.Module):
    """Layers whose input is added to their output."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ImageModule(AutogradModule):
    """A network for images: a feature extractor, and a head of dense layers on means of its feature maps.

    **Shape**: raw pixels ``(B, H, W, C)`` or ``(B, H * W * C)``, of 8 bits or floating; outputs ``(B, O)``.
    """

    #: Images ``(B, C, H, W)`` to feature maps ``(B, F, h, w)``.
    extractor: nn.Module

    def __init__(
        self, image_shape: ImageShape, mean: Sequence[float], scale: Sequence[float], augmentation: Augmentation
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.mean, self.scale = tuple(mean), tuple(scale)
        self.augmentation = augmentation

    def add_image_head(
        self, shape: tuple[int, int, int], hidden: Sequence[int], activation: Activation, n_outputs: int
    ) -> None:
        """Dense layers on means of feature maps ``(F, h, w)`` of this shape."""
        n_channels, height, width = shape
        self.pooled = (min(POOLED_SIDE, height), min(POOLED_SIDE, width))
        self.add_head(n_channels * math.prod(self.pooled), hidden, activation.module, n_outputs)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last feature map ``(B, F, h, w)`` of standardised images ``(B, C, H, W)``."""
        return self.extractor(x_BCHW)

    def penultimate(self, features: Tensor) -> Tensor:
        """What the output layer sees of a feature map, ``(B, E)``."""
        return self.hidden(F.adaptive_avg_pool2d(features, self.pooled).flatten(1))

    def head(self, features: Tensor) -> Tensor:
        """Outputs ``(B, O)`` of a feature map."""
        return self.output(self.penultimate(features))

    def standardized(self, pixels: Tensor) -> Tensor:
        """Standardised images ``(B, C, H, W)`` of raw pixels, channels last in memory."""
        weight = self.output.weight
        x = pixels.reshape(-1, *self.image_shape).to(weight.dtype)
        if len(set(self.mean)) == 1 and len(set(self.scale)) == 1:
            x = (x - self.mean[0]).mul_(1 / self.scale[0])
        else:
            mean, scale = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (self.mean, self.scale))
            x = (x - mean).div_(scale)
        return x.permute(0, 3, 1, 2)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        return self.head(self.features(self.standardized(x)))

    def embed(self, x: Tensor) -> Tensor:
        """What the output layer sees, ``(B, E)``."""
        return self.penultimate(self.features(self.standardized(x)))

    def view_outputs(self, x: Tensor, view: int) -> Tensor:
        """Outputs ``(B, O)`` of images that are all moved alike, in a way that the number of the view decides."""
        with torch.inference_mode():
            images = self.standardized(x)
            generator = torch.Generator(images.device).manual_seed(view)
            return self.head(self.features(self.augmentation.move(images, generator, alike=True)))

    def training_outputs(self, x: Tensor, draws: Draws) -> Tensor:
        """Outputs ``(B, O)`` of augmented images."""
        augmentation, generator = self.augmentation, draws.generator
        images = augmentation.cut(augmentation.move(self.standardized(x), generator), generator)
        if augmentation.function is not None:
            images = _changed(augmentation.function, images, generator)
        images, draws.mixing = augmentation.mix(images, generator)
        return self.head(self.features(images))


def _changed(
    function: Callable[[Tensor, torch.Generator], Tensor], images: Tensor, generator: torch.Generator
) -> Tensor:
    changed = function(images, generator)
    if not isinstance(changed, Tensor) or changed.shape != images.shape or not changed.is_floating_point():
        got = (
            f"{changed.dtype} of shape {tuple(changed.shape)}"
            if isinstance(changed, Tensor)
            else type(changed).__name__
        )
        raise ValueError(
            f"A callable augment must return images of the shape it was given, {tuple(images.shape)}, as a tensor of "
            f"floats. Got {got} instead."
        )
    # What went through numpy comes back in double precision.
    return changed.to(images.dtype)


class ConvModule(ImageModule):
    """The convolutional network of a :class:`ConvArchitecture`."""

    def __init__(self, architecture: ConvArchitecture) -> None:
        super().__init__(architecture.image_shape, architecture.mean, architecture.scale, architecture.augmentation)
        height, width, n_in = architecture.image_shape
        self.is_signal = height == 1
        self.n_multiplications = largest = 0
        blocks: list[nn.Module] = []
        for n_out in architecture.channels:
            layers: list[nn.Module] = [*self._convolution(architecture, n_in, n_out, height, width)]
            largest = max(largest, height * width * n_out)
            if is_halved(height, width):
                # Pooling first leaves a quarter of the numbers to what follows.
                layers.append(self._pool(architecture))
                height, width = (height if self.is_signal else height // 2), width // 2
            layers += self._norm_activation(architecture, n_out)
            if architecture.residual:
                inner = self._convolution(architecture, n_out, n_out, height, width)
                layers.append(Residual([*inner, *self._norm_activation(architecture, n_out)]))
            blocks.append(nn.Sequential(*layers))
            n_in = n_out
        self.extractor = nn.Sequential(*blocks)
        self.add_image_head((n_in, height, width), architecture.hidden, architecture.activation, architecture.n_outputs)
        self.chunk_rows = max(CHUNK_NUMBERS // largest, 1)
        self.n_layers = len(architecture.channels) * (2 if architecture.residual else 1) + len(architecture.hidden) + 2
        self.n_products = self.n_layers - 1

    def _convolution(
        self, architecture: ConvArchitecture, n_in: int, n_out: int, height: int, width: int
    ) -> Iterator[nn.Module]:
        k = architecture.kernel_size
        size = (1, k) if self.is_signal else (k, k)
        self.n_multiplications += height * width * n_in * n_out * math.prod(size)
        padding = (size[0] // 2, size[1] // 2)
        if k % 2 == 0:
            # One pixel less in front than behind keeps the size.
            rows = 0 if self.is_signal else k // 2 - 1
            yield nn.ZeroPad2d((k // 2 - 1, k // 2, rows, 0 if self.is_signal else k // 2))
            padding = (0, 0)
        # A bias would be taken out again by the normalisation.
        yield nn.Conv2d(n_in, n_out, size, padding=padding, bias=architecture.normalization is None)

    def _pool(self, architecture: ConvArchitecture) -> nn.Module:
        size = (1, 2) if self.is_signal else (2, 2)
        return nn.MaxPool2d(size) if architecture.pooling == "max" else nn.AvgPool2d(size)

    def _norm_activation(self, architecture: ConvArchitecture, n_channels: int) -> list[nn.Module]:
        norms: dict[str | None, list[nn.Module]] = {
            None: [],
            "batch": [BatchNorm2d(n_channels)],
            "layer": [nn.GroupNorm(1, n_channels)],
        }
        activation = architecture.activation.module()
        if isinstance(activation, nn.ReLU) and architecture.normalization is not None:
            # Nobody needs what the normalisation gave: one copy less.
            activation.inplace = True
        return [*norms[architecture.normalization], activation]
