"""Convolutional networks: what "auto" makes of an image's size, and raw pixels of every kind."""

from itertools import pairwise

import pytest
import torch

from skdl.nn.activations import get_activation
from skdl.nn.augment import Augmentation
from skdl.nn.conv import ConvArchitecture, auto_channels


def network(shape, channels=None, mean=(0.0,), scale=(1.0,)):
    height, width, _ = shape
    relu = get_activation("relu")
    channels = channels or auto_channels(height, width)
    return ConvArchitecture(shape, 2, channels, 3, "max", (), relu, "batch", False, mean, scale, Augmentation())


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (8, 8), (28, 28), (1, 500), (224, 224), (4, 300), (300, 2)])
def test_auto_networks_end_with_a_small_map_and_never_with_none(size):
    channels = auto_channels(*size)
    assert len(channels) >= 2 and all(a <= b for a, b in pairwise(channels))
    plan = network((*size, 1))
    module = plan.module(plan.initial(torch.Generator().manual_seed(0), torch.float32))
    features = module.features(torch.zeros(2, 1, *size))
    sides = [side for side in features.shape[2:] if side > 1] or [1]
    assert min(features.shape[2:]) >= 1 and min(sides) < 8


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("flat", [True, False])
def test_raw_pixels_are_standardised_a_channel_at_a_time(dtype, flat):
    plan = network((3, 4, 2), (3,), mean=(10.0, 20.0), scale=(2.0, 5.0))
    module = plan.module(plan.initial(torch.Generator().manual_seed(0), torch.float64))
    pixels = torch.arange(48).view(2, 3, 4, 2).to(dtype)
    before = pixels.clone()
    x = module.standardized(pixels.view(2, -1) if flat else pixels)
    expected = (before.double() - torch.tensor([10.0, 20.0])) / torch.tensor([2.0, 5.0])
    torch.testing.assert_close(x, expected.permute(0, 3, 1, 2))
    assert torch.equal(pixels, before)
