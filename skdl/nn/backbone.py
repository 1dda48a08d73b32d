"""Fine-tuning: a new head on a network that was trained before.

Axes: B images, H rows of pixels, W pixels a row, C channels, F feature maps.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from skdl.data.images.image_files import ImageShape
from skdl.nn.activations import Activation
from skdl.nn.augment import Augmentation
from skdl.nn.autograd import AutogradArchitecture, AutogradModule, draw_layer
from skdl.nn.conv import CHUNK_NUMBERS, POOLED_SIDE, ConvModule, ImageModule
from skdl.nn.dropout import Draws
from skdl.nn.network import Ensemble

#: Share of the epochs after which gradual unfreezing is complete: what is unfrozen late is trained at the low learning
#: rates of the end of a schedule alone.
UNFREEZE_SHARE = 0.25
#: Held while torch's global random state is borrowed.
GLOBAL_DRAWS = threading.Lock()
#: How far a channel's mean may be from that of a backbone's images, in standard deviations of these: beyond, pixels
#: have another unit.
MAX_MEAN_STEP = 4.0
#: How many times as large or as small as that of a backbone's images a channel's standard deviation may be: beyond,
#: pixels have another unit.
MAX_SPREAD_RATIO = 8.0


@dataclass(frozen=True)
class BackboneArchitecture(AutogradArchitecture):
    """The architecture of a network with a given feature extractor.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width, channels).
    n_outputs : int
    backbone : torch.nn.Module
        Of images ``(B, C, H, W)``, gives features ``(B, F)`` or ``(B, F, h, w)``; or an :class:`ImageModule`, whose
        feature extractor and standardisation are taken. Equal architectures share it, and it is never changed.
    freeze : "all", "gradual", int or None
        How many of its first layers keep their weights. Under "all", the head sees the maps of all blocks of a
        :class:`ConvModule` (Evci et al. 2022). "gradual": all of them at first, then one less at equal
        intervals over the first quarter of the epochs (Howard and Ruder 2018).
    head_rate_factor : float
        What the learning rate of the head is multiplied by.
    hidden : tuple of int
        Units of the dense layers of the head.
    activation : Activation
        Of the head.
    mean, scale : tuple of float
        Of each channel's pixels.
    augmentation : Augmentation
    n_frozen_now : int
        How many of the first layers keep still for now, but are trained in later epochs; see :meth:`at`.
    """

    image_shape: ImageShape
    n_outputs: int
    backbone: nn.Module
    freeze: str | int | None
    head_rate_factor: float
    hidden: tuple[int, ...]
    activation: Activation
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    augmentation: Augmentation
    n_frozen_now: int = 0

    @property
    def label(self) -> str:
        """Name of the backbone, units of the dense layers."""
        return "-".join(map(str, (type(self.backbone).__name__, *self.hidden, self.n_outputs)))

    def rate_factor(self, name: str) -> float:
        """What the learning rate of a parameter is multiplied by."""
        if not name.startswith("extractor."):
            return self.head_rate_factor
        # Moments of gradients are gathered all the same, or the first steps after unfreezing would be too long.
        return 0.0 if name in self._frozen_now_names else 1.0

    @cached_property
    def _frozen_now_names(self) -> set[str]:
        module = cast(BackboneModule, self.template)
        frozen_now = {id(parameter) for part in module.frozen_now for parameter in part.parameters(recurse=False)}
        return {name for name, parameter in module.named_parameters() if id(parameter) in frozen_now}

    def at(self, epoch: int, n_epochs: int) -> Self:
        """The architecture as it is trained after so many epochs of ``n_epochs``."""
        if self.freeze != "gradual":
            return self
        n_layers = cast(BackboneModule, self.template).n_backbone_layers
        n_unfrozen = min(int(epoch * n_layers / (UNFREEZE_SHARE * n_epochs)), n_layers)
        return replace(self, n_frozen_now=n_layers - n_unfrozen)

    def make(self) -> BackboneModule:
        return BackboneModule(self)

    def draw_initial(self, module: AutogradModule, generator: torch.Generator) -> None:
        """Fresh values for the head alone."""
        assert isinstance(module, BackboneModule)
        for part in (*module.hidden.modules(), module.output):
            draw_layer(part, generator, is_last=part is module.output)
        if self.freeze in ("all", "gradual") and not self.hidden:
            # There are more features than images, and what is drawn for the surplus would never be trained away.
            module.output.weight.zero_()


class BackboneModule(ImageModule):
    """The network of a :class:`BackboneArchitecture`."""

    def __init__(self, architecture: BackboneArchitecture) -> None:
        backbone, mean, scale = architecture.backbone, architecture.mean, architecture.scale
        sees_blocks = False
        if isinstance(backbone, Ensemble):
            backbone = backbone.members[0]
        if isinstance(backbone, ImageModule):
            # Its features are of images as it was trained on.
            if _are_alike((backbone.mean, backbone.scale), (mean, scale)):
                mean, scale = backbone.mean, backbone.scale
            sees_blocks = architecture.freeze == "all" and isinstance(backbone, ConvModule)
            backbone = backbone.extractor
        super().__init__(architecture.image_shape, mean, scale, architecture.augmentation)
        # The backbone has its values already, and is computed with.
        with torch.device("cpu"):
            self._take(backbone, architecture)
            shape, self.n_multiplications, largest = self._probed(architecture)
            #: The blocks whose maps the head sees, of a backbone that keeps still: its last ones lack detail.
            self.n_seen = len(cast(nn.Sequential, self.extractor)) if sees_blocks else 1
            shape = self._seen_shape(architecture, shape)
        self.add_image_head(shape, architecture.hidden, architecture.activation, architecture.n_outputs)
        self.chunk_rows = max(CHUNK_NUMBERS // largest, 1)
        self.n_layers = self.n_backbone_layers + len(architecture.hidden) + 2
        self.n_products = self.n_layers - 1

    def _take(self, backbone: nn.Module, architecture: BackboneArchitecture) -> None:
        """Copy the backbone, and freeze some of its layers."""
        _refuse_untrainable(architecture)
        self.extractor = copy.deepcopy(backbone).cpu().float()
        layers = list(_layers(self.extractor))
        self.n_backbone_layers = len(layers)
        if isinstance(architecture.freeze, Integral) and architecture.freeze > len(layers):
            raise ValueError(
                f"freeze={architecture.freeze}, but backbone={type(architecture.backbone).__name__} has {len(layers)} "
                "layer(s) with weights. Use freeze='all' for all of them."
            )
        n_frozen: dict[str | int | None, int] = {None: 0, "gradual": 0, "all": sys.maxsize}
        n_kept = cast(int, n_frozen.get(architecture.freeze, architecture.freeze))
        #: Names of the extractor's parts that never train, and of those that do not train yet: of modules that stand in
        #: two places, skops would save both.
        self.frozen_names = _names_of_first_parts(self.extractor, layers, n_kept)
        self.frozen_now_names = _names_of_first_parts(self.extractor, layers, architecture.n_frozen_now)
        for parameter in self.extractor.parameters():
            parameter.requires_grad_(True)
        for part in self.frozen:
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)

    @property
    def frozen(self) -> list[nn.Module]:
        """The parts of the extractor that never train."""
        return list(map(self.extractor.get_submodule, self.frozen_names))

    @property
    def frozen_now(self) -> list[nn.Module]:
        """The parts of the extractor that do not train yet."""
        return list(map(self.extractor.get_submodule, self.frozen_now_names))

    def _probed(self, architecture: BackboneArchitecture) -> tuple[tuple[int, int, int], int, int]:
        """Shape of an image's feature maps, multiplications an image, and numbers of the largest feature map."""
        multiplications, largest = 0, 1

        def look(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal multiplications, largest
            multiplications += cast(Tensor, part.weight)[0].numel() * output[0].numel()
            largest = max(largest, output[0].numel())

        hooks = [part.register_forward_hook(look) for part in _layers(self.extractor)]
        height, width, channels = self.image_shape
        self.eval()
        try:
            with torch.no_grad():
                output = self.extractor(torch.zeros(1, channels, height, width))
        except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
            raise ValueError(
                f"backbone={type(architecture.backbone).__name__} does not take images of {height} x {width} pixels "
                f"and {channels} channel(s): {error}. Use a module of such images, (n, channels, height, width), or "
                "bring X to those it takes: by resize, or by repeating the channel."
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        _, *shape = _feature_maps(output, 1).shape
        return cast(ImageShape, tuple(shape)), multiplications, largest

    def _seen_shape(self, architecture: BackboneArchitecture, shape: ImageShape) -> ImageShape:
        if self.n_seen == 1:
            return shape
        height, width, channels = architecture.image_shape
        with torch.no_grad():
            return cast(ImageShape, tuple(self.features(torch.zeros(1, channels, height, width)).shape[1:]))

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last feature map ``(B, F, h, w)`` of standardised images ``(B, C, H, W)``."""
        if self.n_seen == 1:
            return _feature_maps(self.extractor(x_BCHW), len(x_BCHW)).to(x_BCHW.dtype)
        maps = []
        for block in cast(nn.Sequential, self.extractor):
            x_BCHW = block(x_BCHW)
            maps.append(x_BCHW)
        pooled = [min(POOLED_SIDE, side) for side in x_BCHW.shape[2:]]
        return torch.cat([_brought_to(pooled, x) for x in maps], 1)

    def training_outputs(self, x: Tensor, draws: Draws) -> Tensor:
        """Outputs ``(B, O)`` of augmented images."""
        # Layers of the backbone that draw random numbers know torch's global state alone, which is given back. Other
        # threads, which may train such networks as well, have the same one.
        seed = int(torch.randint(2**62, (), generator=draws.generator, device=draws.generator.device))
        with GLOBAL_DRAWS, torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            _seed_global_draws(x.device, seed)
            if len(x) > 1:
                return super().training_outputs(x, draws)
            # A batch of one image has no variance, and torch's batch normalisation refuses it: its twin helps out.
            outputs = super().training_outputs(x.expand(2, -1), draws)[:1]
            # It was mixed with its twin, if at all.
            draws.mixing = None
            return outputs

    def train(self, mode: bool = True) -> BackboneModule:
        super().train(mode)
        # Normalisations that keep still keep their statistics, too.
        for part in (*self.frozen, *self.frozen_now):
            # Of what a part holds, something may not keep still.
            part.training = False
        return self


def _seed_global_draws(device: torch.device, seed: int) -> None:
    """Seed torch's global states of the processor and of one device; ``torch.manual_seed`` would those of all."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _refuse_untrainable(architecture: BackboneArchitecture) -> None:
    """Refuse modules without parameters of real numbers that could lie in a parameter vector."""
    backbone, name = architecture.backbone, f"backbone={type(architecture.backbone).__name__}"
    if any(isinstance(part, torch.jit.ScriptModule) for part in backbone.modules()):
        raise ValueError(f"{name} was scripted or traced by torch.jit. Pass the module that it was made of.")
    values = [*backbone.parameters(), *backbone.buffers()]
    if any(is_lazy(value) for value in values):
        height, width, channels = architecture.image_shape
        raise ValueError(
            f"{name} has lazy layers, which have no weights yet. Call it once: "
            f"backbone(torch.zeros(1, {channels}, {height}, {width}))."
        )
    if any(value.is_complex() for value in values):
        raise ValueError(f"{name} has complex numbers. Use a module whose parameters and buffers are real.")


def _are_alike(old: tuple[Sequence[float], ...], new: tuple[Sequence[float], ...]) -> bool:
    """Whether images whose channels have these means and deviations may have pixels of one unit."""
    if len(old[0]) != len(new[0]):
        return False
    (old_mean, old_scale), (mean, scale) = np.array(old), np.array(new)
    spread = scale / old_scale
    is_near = np.abs(mean - old_mean) <= MAX_MEAN_STEP * old_scale
    # Of a channel without any spread, whose scale is 1, nothing can be told.
    is_constant = (old_scale == 1) | (scale == 1)
    return bool((is_constant | (is_near & (spread <= MAX_SPREAD_RATIO) & (spread >= 1 / MAX_SPREAD_RATIO))).all())


def _feature_maps(output: Any, n_images: int) -> Tensor:
    """What a backbone gave for so many images as ``(B, F, h, w)``."""
    is_tensor = isinstance(output, Tensor) and output.is_floating_point()
    if not is_tensor or output.ndim not in (2, 4) or len(output) != n_images:
        got = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            "backbone must give one tensor of features, (n, features) or (n, features, height, width), as floats. "
            f"Got {got} for n={n_images}."
        )
    return output if output.ndim == 4 else output[:, :, None, None]


def _brought_to(pooled: list[int], x_BFHW: Tensor) -> Tensor:
    """Maps as ``(B, G, h, w)`` of few pixels: means of twice as many along each axis, side by side as channels."""
    (height, width), n_images = pooled, len(x_BFHW)
    down, right = (2 if side >= 2 * few else 1 for side, few in zip(x_BFHW.shape[2:], pooled, strict=True))
    means = F.adaptive_avg_pool2d(x_BFHW, (height * down, width * right))
    parts = means.reshape(n_images, -1, height, down, width, right).permute(0, 1, 3, 5, 2, 4)
    return parts.reshape(n_images, -1, height, width)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The parts with a weight of at least two axes: convolutions, dense layers and the like."""
    for part in module.modules():
        # Of parametrised layers it is no parameter, but computed of some.
        weight = getattr(part, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            yield part


def _names_of_first_parts(module: nn.Module, layers: list[nn.Module], n: int) -> list[str]:
    """The parts of the first n layers: all up to the next layer, or all there are."""
    if n == 0:
        return []
    if n >= len(layers):
        # Also those that only hold others, for they may have buffers or dropout of their own.
        return [name for name, _ in module.named_modules()]
    # What holds other parts may have parameters of its own, such as the projections of attention.
    parts = {
        part: name
        for name, part in module.named_modules()
        if part._parameters or not any(part.children()) or part in layers
    }
    names = list(parts.values())
    return names[: names.index(parts[layers[n]])]
