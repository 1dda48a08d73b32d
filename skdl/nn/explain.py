"""Explanations of convolutional networks: heat maps of the pixels that an output depends on.

Axes: B images, C channels, H and W pixels, F feature maps of h x w, O outputs, S steps, P patches.

Inputs are standardised, so that 0 is the mean pixel. Networks are in eval mode, where an image's output depends on no
other image, and no network is changed: gradients are taken for inputs and feature maps, never for parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

#: Numbers of input images that go through a network at once.
CHUNK_NUMBERS = 1 << 20
#: Occluding patches along the height, and along the width, of an image, by default.
PATCHES = 8
#: Share of the difference of outputs that integrated gradients may miss by evenly spaced points of the line.
MAX_MISSED = 0.1
#: Where they miss more, the points are evenly spaced numbers to this power: they are dense close to the baseline.
LINE_POWER = 6


class FeatureModule(Protocol):
    """A network that is a head on feature maps: ``module(x)`` equals ``module.head(module.features(x))``.

    **Shape**: x ``(B, C, H, W)``, features ``(B, F, h, w)``, outputs ``(B, O)``.
    """

    def __call__(self, x: Tensor) -> Tensor: ...

    def features(self, x: Tensor) -> Tensor: ...

    def head(self, features: Tensor) -> Tensor: ...


def gradcam(module: FeatureModule, x: Tensor, target: Tensor) -> Tensor:
    """Feature maps weighted by how much they raise an output: Grad-CAM.

    Parameters
    ----------
    module : FeatureModule
    x : Tensor of shape (B, C, H, W)
        Standardised images.
    target : Tensor of shape (B,)
        Index of the output that is explained, for each image.

    Returns
    -------
    Tensor of shape (B, H, W)
        At least 0, in units of the output; as fine as the feature maps, from which it is interpolated.

    References
    ----------
    Selvaraju et al. (2017), Grad-CAM: Visual explanations from deep networks via gradient-based localization.
    """
    maps = [_gradcam(module, x[rows], target[rows]) for rows in _chunks(len(x), x[:1].numel())]
    return torch.cat(maps)


def _gradcam(module: FeatureModule, x: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        features = module.features(x)
    gradient = _gradient(module.head, features, target)
    weight = gradient.mean(dim=(2, 3), keepdim=True)
    cam = (weight * features).sum(dim=1, keepdim=True).relu()
    return F.interpolate(cam, size=x.shape[2:], mode="bilinear", align_corners=False).squeeze(1)


def integrated_gradients(
    module: FeatureModule, x: Tensor, target: Tensor, n_steps: int = 32, baseline: Tensor | None = None
) -> Tensor:
    """Gradients along the straight line from a baseline to the image, times the way: integrated gradients.

    The numbers of an image sum to the difference between its output and that of the baseline, up to an error of the
    quadrature: a few hundredths of it, and about a tenth where each image is normalised by itself.

    Parameters
    ----------
    module : FeatureModule
    x : Tensor of shape (B, C, H, W)
        Standardised images.
    target : Tensor of shape (B,)
        Index of the output that is explained, for each image.
    n_steps : int, default=32
        Points of the line where gradients are taken.
    baseline : Tensor, default=None
        An image, or one for each, that says nothing: of a shape that broadcasts to that of x. None is the mean pixel.

    Returns
    -------
    Tensor of shape (B, H, W)
        The sum over the channels, of either sign, in units of the output.

    Raises
    ------
    ValueError
        If there are no steps.

    References
    ----------
    Sundararajan, Taly and Yan (2017), Axiomatic attribution for deep networks.
    """
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1. Got {n_steps}.")
    start = torch.zeros_like(x) if baseline is None else baseline.to(x).expand_as(x)
    difference = _outputs(module, x, target) - _outputs(module, start, target)
    maps = _line_integral(module, start, x, target, n_steps, 1)
    missed = (maps.sum(dim=(1, 2)) - difference).abs()
    rows = (missed > MAX_MISSED * difference.abs()).nonzero()[:, 0]
    if len(rows):
        # Where each image is divided by its own deviation, outputs change close to the baseline alone.
        dense = _line_integral(module, start[rows], x[rows], target[rows], n_steps, LINE_POWER)
        is_closer = (dense.sum(dim=(1, 2)) - difference[rows]).abs() < missed[rows]
        maps[rows[is_closer]] = dense[is_closer]
    return maps


def _line_integral(module: FeatureModule, start: Tensor, x: Tensor, target: Tensor, n_steps: int, power: int) -> Tensor:
    """Integrated gradients by points that are evenly spaced numbers to a power."""
    even = (torch.arange(n_steps, dtype=x.dtype, device=x.device) + 0.5) / n_steps
    position, weight = even**power, even ** (power - 1)
    weight /= weight.sum()
    way, gradient = x - start, torch.zeros_like(x)
    for pairs in _chunks(len(x) * n_steps, x[:1].numel()):
        image, step = _unravelled(pairs, n_steps, x.device)
        point = start[image] + position[step].view(-1, 1, 1, 1) * way[image]
        gradient.index_add_(0, image, weight[step].view(-1, 1, 1, 1) * _gradient(module, point, target[image]))
    return (way * gradient).sum(dim=1)


def occlusion(
    module: FeatureModule,
    x: Tensor,
    target: Tensor,
    patch: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
) -> Tensor:
    """How far an output falls when a patch of the image is replaced by the mean pixel.

    Parameters
    ----------
    module : FeatureModule
    x : Tensor of shape (B, C, H, W)
        Standardised images.
    target : Tensor of shape (B,)
        Index of the output that is explained, for each image.
    patch : int or (int, int), default=None
        Height and width of the patch, in pixels. None is an eighth of the image's.
    stride : int or (int, int), default=None
        Pixels from one patch to the next, downwards and across. None is half the patch.

    Returns
    -------
    Tensor of shape (B, H, W)
        Mean fall over the patches that cover a pixel, of either sign, in units of the output.

    Raises
    ------
    ValueError
        If patch or stride is below 1, or the stride leaves pixels between the patches.

    References
    ----------
    Zeiler and Fergus (2014), Visualizing and understanding convolutional networks.
    """
    sizes = tuple(x.shape[2:])
    patches = [
        min(p, size) for p, size in zip(_height_width(patch, [-(-s // PATCHES) for s in sizes]), sizes, strict=True)
    ]
    strides = _height_width(stride, [max(p // 2, 1) for p in patches])
    if min(*patches, *strides) < 1 or any(s > p for s, p in zip(strides, patches, strict=True)):
        raise ValueError(
            f"patch and stride must be at least 1, and the stride at most the patch, for every pixel to be covered. "
            f"Got patch={tuple(patches)} and stride={tuple(strides)}."
        )
    down_PH, across_PW = (_covers(*each, x) for each in zip(sizes, patches, strides, strict=True))
    n_patches = len(down_PH) * len(across_PW)
    fall = x.new_empty(len(x) * n_patches)
    whole = _outputs(module, x, target)
    with torch.no_grad():
        for pairs in _chunks(len(fall), x[:1].numel()):
            image, place = _unravelled(pairs, n_patches, x.device)
            down, across = down_PH[place // len(across_PW)], across_PW[place % len(across_PW)]
            kept = 1 - down[:, None, :, None] * across[:, None, None, :]
            fall[pairs] = whole[image] - _chosen(module(x[image] * kept), target[image])
    fall = fall.view(len(x), len(down_PH), len(across_PW))
    # A patch is the product of a stretch of rows and one of columns, and so is the number of patches over a pixel.
    total = torch.einsum("bij,ih,jw->bhw", fall, down_PH, across_PW)
    return total / (down_PH.sum(0)[:, None] * across_PW.sum(0))


#: Methods by their names.
EXPLANATIONS: dict[str, Callable[[FeatureModule, Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}


def _chunks(n: int, n_numbers: int) -> Iterator[slice]:
    """Stretches of n images of so many numbers each."""
    size = max(CHUNK_NUMBERS // max(n_numbers, 1), 1)
    # No images are one empty stretch.
    return (slice(start, min(start + size, n)) for start in range(0, max(n, 1), size))


def _unravelled(pairs: slice, n_each: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The image, and the number of its step or patch, of each pair."""
    numbers = torch.arange(pairs.start, pairs.stop, device=device)
    return numbers // n_each, numbers % n_each


def _height_width(value: int | tuple[int, int] | None, default: list[int]) -> list[int]:
    if value is None:
        return default
    return [value, value] if isinstance(value, int) else [*value]


def _covers(size: int, patch: int, stride: int, like: Tensor) -> Tensor:
    """Which pixels of an axis each patch covers, ``(P, size)`` of 0 and 1; the last patch ends with the axis."""
    starts = torch.arange(0, size - patch + stride, stride, device=like.device).clamp(max=size - patch)
    pixel = torch.arange(size, device=like.device)
    return ((pixel >= starts[:, None]) & (pixel < starts[:, None] + patch)).to(like.dtype)


def _outputs(module: FeatureModule, x: Tensor, target: Tensor) -> Tensor:
    """The target output ``(B,)`` of each image, without a graph."""
    with torch.no_grad():
        # A copy goes in, for the first layer may work in place.
        chunks = [_chosen(module(x[rows].clone()), target[rows]) for rows in _chunks(len(x), x[:1].numel())]
    return torch.cat(chunks) if chunks else x.new_empty(0)


def _chosen(outputs: Tensor, target: Tensor) -> Tensor:
    """The target output ``(B,)`` of each image."""
    return outputs.gather(1, target.view(-1, 1)).squeeze(1)


def _gradient(function: Callable[[Tensor], Tensor], x: Tensor, target: Tensor) -> Tensor:
    """Gradient of each image's target output for its own part of x."""
    # Copies, for tensors of a caller's inference mode have no derivatives.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        # A copy goes in, for the first layer may work in place.
        output = _chosen(function(leaf.clone()), target.clone()).sum()
        return torch.autograd.grad(output, leaf)[0]
