"""Explanations of images: heat maps of encoded pixels."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skdl.data.table import Table
from skdl.engine.device import resolve_device
from skdl.estimators.explaining import class_outputs
from skdl.nn.conv import ImageModule
from skdl.nn.explain import EXPLANATIONS

#: Images that are explained at a time.
EXPLAINED_IMAGES = 256


def image_maps(estimator: Any, table: Table, target: Tensor, method: str) -> NDArray[np.float64]:
    """The mean over the networks of an estimator of how much each pixel ``(n, height, width)`` supports an output."""
    device, explain = resolve_device(estimator.device), EXPLANATIONS[method]
    members = estimator._members()
    maps = np.zeros((len(table), *estimator.image_shape_[:2]))
    for member in members:
        # The network itself stays where it is.
        network = cast(ImageModule, member if device == "cpu" else copy.deepcopy(member).to(device))
        module = _Explained(network, estimator)
        for start in range(0, len(table), EXPLAINED_IMAGES):
            stop = min(start + EXPLAINED_IMAGES, len(table))
            pixels, _ = table.slice(start, stop)
            part = explain(module, network.standardized(pixels.to(device)), target[start:stop].to(device))
            maps[start:stop] += part.detach().cpu().numpy() / len(members)
    return maps


class _Explained:
    """A network with one output per class, also where it has one logit for two."""

    def __init__(self, network: ImageModule, estimator: Any) -> None:
        self.network, self.estimator = network, estimator

    def __call__(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        return self.network.features(x)

    def head(self, features: Tensor) -> Tensor:
        return class_outputs(self.estimator, self.network.head(features))
