"""Explanations of series: heat maps of steps and channels.

Axes: B series, C channels, T steps, D numbers of an encoded row; see :mod:`skdl.data.series.row_layout`. In encoded
rows 0 is the mean of a channel, or the level of the series where that is taken out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.table import DenseTable
from skdl.estimators.explaining import class_outputs
from skdl.nn.explain import integrated_gradients

#: Stretches that a series is parted into by occlusion.
STRETCHES = 16


def _occlusion(estimator: Any, x_BD: Tensor, target: Tensor) -> NDArray[np.float64]:
    """The fall of the outputs when stretches of single channels are blanked."""

    def chosen(rows: Tensor) -> Tensor:
        outputs = estimator._table_outputs(DenseTable(rows))
        return class_outputs(estimator, torch.as_tensor(estimator._combined(outputs))).gather(1, target[:, None])[:, 0]

    whole = chosen(x_BD)
    layout = estimator._encoder.layout
    n_steps = layout.n_steps(x_BD.shape[1])
    width = -(-n_steps // STRETCHES)
    maps = torch.zeros(len(x_BD), estimator.n_channels_, n_steps, dtype=torch.float64)
    for channel in range(estimator.n_channels_):
        for start in range(0, n_steps, width):
            blanked = x_BD.clone()
            stretch = layout.parts(blanked).series_BCT[:, channel, start : start + width]
            stretch.zero_()
            maps[:, channel, start : start + width] = (whole - chosen(blanked))[:, None]
    return _within(maps, layout.parts(x_BD).lengths_B)


def _integrated_gradients(estimator: Any, x_BD: Tensor, target: Tensor) -> NDArray[np.float64]:
    """Integrated gradients of the networks, an indicator's with those of its channel."""
    layout, n_channels = estimator._encoder.layout, estimator.n_channels_
    blank = x_BD.clone()
    layout.parts(blank).series_BCT.zero_()
    sums = torch.zeros(len(x_BD), x_BD.shape[1], dtype=torch.float64)
    for member in estimator._members():
        # A row takes the place of an image that is one pixel high, so that only its series is led up to.
        module = cast(Any, lambda x, member=member: class_outputs(estimator, member(x.flatten(1))))
        rows, start = x_BD[:, None, None], blank[:, None, None]
        sums += integrated_gradients(module, rows, target, baseline=start)[:, 0].double() / len(estimator._members())
    maps = layout.parts(sums).series_BCT
    own = maps[:, :n_channels].clone()
    for place, channel in enumerate(estimator._encoder.indicated):
        own[:, channel] += maps[:, n_channels + place]
    return _within(own, layout.parts(x_BD).lengths_B)


def _within(maps_BCT: Tensor, lengths_B: Tensor) -> NDArray[np.float64]:
    inside_BT = torch.arange(maps_BCT.shape[2]) < lengths_B[:, None]
    return (maps_BCT * inside_BT.unsqueeze(1)).numpy()


#: Methods by their names.
SERIES_EXPLANATIONS: dict[str, Callable[[Any, Tensor, Tensor], NDArray[np.float64]]] = {
    "occlusion": _occlusion,
    "integrated_gradients": _integrated_gradients,
}
