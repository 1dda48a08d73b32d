"""The architecture of recurrent networks, and what "auto" means for its parameters.

``parameters`` is an estimator, of which public parameters alone are read.
"""

from __future__ import annotations

import math
from typing import Any

from skdl.data.series.row_layout import Denormalization
from skdl.data.series.series_encoder import SeriesEncoder
from skdl.estimators.parameters import is_auto, layer_sizes
from skdl.nn.recurrent import POOLINGS, ConvLayer, RecurrentArchitecture

#: Median steps of series from which the "auto" stem has convolutions or patches.
STEM_STEPS = 16
#: Steps that convolutions should leave of a series of median length, about.
INNER_STEPS = 24
#: Channels of each convolution of an "auto" stem; long series have more convolutions like the last one.
AUTO_CONV = (48, 96, 96)
#: Kernel size of each convolution of any stem, the last one also of all that follow.
CONV_SIZES = (7, 5, 3)
#: "auto" units of a recurrent layer.
AUTO_UNITS = 64
#: "auto" units of a recurrent layer in forecasts from MANY_ROWS training series on.
MANY_UNITS = 128
#: Training series from which forecasts have MANY_UNITS.
MANY_ROWS = 1000


def recurrent_architecture(
    parameters: Any, encoder: SeriesEncoder, n_outputs: int, denormalization: Denormalization | None
) -> RecurrentArchitecture:
    """The architecture for what the encoder gives."""
    is_forecast = encoder.is_forecast
    stem = _stem(parameters.stem, encoder)
    hidden_size = _hidden_size(parameters.hidden_size, encoder)
    hidden: tuple[int, ...] = (2 * hidden_size,) if is_forecast else ()
    if not is_auto(parameters.hidden_layer_sizes):
        hidden = layer_sizes("hidden_layer_sizes", parameters.hidden_layer_sizes)
    bidirectional = parameters.bidirectional
    return RecurrentArchitecture(
        layout=encoder.layout,
        n_steps=encoder.n_steps,
        n_outputs=n_outputs,
        cell=parameters.cell,
        hidden_size=hidden_size,
        num_layers=parameters.num_layers,
        bidirectional=not is_forecast if is_auto(bidirectional) else bool(bidirectional),
        patch_size=_patch_size(parameters.patch_size, encoder) if stem == "patch" else 1,
        conv=_conv(parameters.conv_channels, encoder) if stem == "conv" else (),
        pooling=_pooling(parameters.pooling, is_forecast),
        hidden=hidden,
        denormalization=denormalization,
    )


def _stem(stem: str | None, encoder: SeriesEncoder) -> str | None:
    if not is_auto(stem):
        return stem
    if encoder.median_steps < STEM_STEPS:
        return None
    return "patch" if encoder.is_forecast else "conv"


def _hidden_size(hidden_size: Any, encoder: SeriesEncoder) -> int:
    if not is_auto(hidden_size):
        return hidden_size
    is_large = encoder.is_forecast and encoder.n_series >= MANY_ROWS
    return MANY_UNITS if is_large else AUTO_UNITS


def _patch_size(patch_size: Any, encoder: SeriesEncoder) -> int:
    if not is_auto(patch_size):
        return patch_size
    # About six patches of a short series, at most 32 of a long one.
    return max(min(8, encoder.median_steps // 6), math.ceil(encoder.median_steps / 32))


def _conv(conv_channels: Any, encoder: SeriesEncoder) -> tuple[ConvLayer, ...]:
    n_halved = max(round(math.log2(encoder.median_steps / INNER_STEPS)), 0)
    if is_auto(conv_channels):
        # A layer for each time that a long series is halved.
        channels = AUTO_CONV + AUTO_CONV[-1:] * max(n_halved - len(AUTO_CONV), 0)
    else:
        channels = layer_sizes("conv_channels", conv_channels)
        if not channels:
            raise ValueError("conv_channels must name at least one layer. Use stem=None for none.")
    sizes = (*CONV_SIZES, *[CONV_SIZES[-1]] * len(channels))
    # The first layer halves last: what it skipped would never be seen.
    halves = [i >= 1 and i <= n_halved for i in range(len(channels))]
    halves[0] = n_halved >= len(channels)
    return tuple(ConvLayer(n, k, 2 if half else 1) for n, k, half in zip(channels, sizes, halves, strict=False))


def _pooling(pooling: Any, is_forecast: bool) -> tuple[str, ...]:
    if is_auto(pooling):
        return ("last",) if is_forecast else ("last", "mean", "max")
    if isinstance(pooling, str):
        return (pooling,)
    ways = tuple(str(way) for way in pooling)
    if not ways or not set(ways) <= set(POOLINGS):
        raise ValueError(f"pooling must be some of {list(POOLINGS)}. Got {pooling!r}.")
    return ways
