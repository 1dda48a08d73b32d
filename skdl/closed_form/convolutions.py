"""Random convolutions as features of series, in the manner of MiniRocket (Dempster, Schmidt and Webb, KDD 2021).

84 fixed kernels of nine weights, six of -1 and three of 2, run over the series at several dilations. A feature is the
share of the steps at which one of them exceeds a threshold, and a linear model of many such features is about the
strongest simple classifier of series that there is.

Unlike in the paper, thresholds are quantiles over several training series, not of one each; and all positions count,
with zeros beyond both ends.

Axes: B series, C channels, T steps, R kernels (84), Q thresholds of a kernel at one dilation.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from skdl.data.sampling import sample_rows

#: Taps of a kernel.
KERNEL_SIZE = 9
#: Taps of a kernel that have weight 2; the others have weight -1.
N_HEAVY = 3
#: One kernel for each choice of the taps of weight 2: 84.
N_KERNELS = math.comb(KERNEL_SIZE, N_HEAVY)
#: Most dilations.
MAX_DILATIONS = 12
#: Most training series that thresholds are learned from.
THRESHOLD_SERIES = 64
#: Numbers that are computed at a time: convolutions are compared while they are in the cache.
CHUNK_NUMBERS = 500_000
#: How far above a number that occurs a threshold is, as a share of the mean size of all: more than rounding, but not
#: much, for a few large series make that mean large.
TIE = 1e-6
#: What padding is set to before it is compared: below all thresholds.
LOWEST = -1e30


def kernels(n_channels: int, generator: torch.Generator) -> Tensor:
    """Weights ``(R, C, 9)``: of one channel, or of a random set of several for each kernel."""
    heavy = torch.tensor(list(combinations(range(KERNEL_SIZE), N_HEAVY)))
    pattern_RW = torch.full((len(heavy), KERNEL_SIZE), -1.0).scatter_(1, heavy, 2.0)
    most = min(n_channels, KERNEL_SIZE)
    # Small sets are as likely as large ones.
    sizes_R = (2 ** (torch.rand(len(heavy), generator=generator) * np.log2(most + 1))).long().clamp(1, most)
    places = torch.rand(len(heavy), n_channels, generator=generator).argsort(1).argsort(1)
    return (places < sizes_R[:, None]).unsqueeze(2) * pattern_RW.unsqueeze(1)


class RandomConvolutions:
    """Shares of steps at which random convolutions exceed thresholds.

    Parameters
    ----------
    n_features : int
        About so many.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features

    def fit(self, x_BCT: Tensor, lengths_B: Tensor, generator: torch.Generator) -> RandomConvolutions:
        """Choose dilations and learn thresholds from series whose padding is zero."""
        longest = max((int(lengths_B.median()) - 1) / (KERNEL_SIZE - 1), 1)
        n_each = max(self.n_features // N_KERNELS, 1)
        n_dilations = min(MAX_DILATIONS, n_each)
        steps = 2 ** np.linspace(0, np.log2(longest), n_dilations)
        self.dilations, counts = np.unique(steps.astype(int), return_counts=True)
        # Arrays, which skops knows how to save.
        self.weight = kernels(x_BCT.shape[1], generator).numpy()
        rows = torch.from_numpy(sample_rows(len(x_BCT), THRESHOLD_SERIES))
        known_BT = _inside(lengths_B[rows], x_BCT.shape[2])
        # The fractional parts of multiples of the golden ratio are spread evenly, however many there are.
        golden = (np.sqrt(5) + 1) / 2
        self.thresholds: list[NDArray[np.float32]] = []
        for dilation, count in zip(self.dilations, counts * (n_each // n_dilations), strict=True):
            output_RN = self._convolved(x_BCT[rows], dilation).transpose(0, 1)[:, known_BT]
            levels = torch.tensor((np.arange(1, N_KERNELS * count + 1) * golden) % 1, dtype=torch.float32).view(
                N_KERNELS, count
            )
            self.thresholds.append(_between(output_RN.sort(dim=1).values, levels).numpy())
        return self

    def _convolved(self, x_BCT: Tensor, dilation: int) -> Tensor:
        padding = int(dilation) * (KERNEL_SIZE // 2)
        return F.conv1d(x_BCT, torch.tensor(self.weight), padding=padding, dilation=int(dilation))

    def transform(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Features ``(B, n)``, whatever padding stands behind the series."""
        n_columns = sum(thresholds.size for thresholds in self.thresholds)
        out = x_BCT.new_empty(len(x_BCT), n_columns)
        # Series of like lengths together have little padding.
        order = lengths_B.argsort(stable=True)
        size = max(CHUNK_NUMBERS // (N_KERNELS * x_BCT.shape[2]), 1)
        for rows in order.split(size):
            longest = int(lengths_B[rows].max())
            out[rows] = self._shares(x_BCT[rows, :, :longest], lengths_B[rows])
        return out

    def _shares(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        padding_BT = ~_inside(lengths_B, x_BCT.shape[2])
        has_padding = bool(padding_BT.any())
        exceeds = x_BCT.new_empty(len(x_BCT), N_KERNELS, x_BCT.shape[2])
        parts = []
        for dilation, threshold_RQ in zip(self.dilations, self.thresholds, strict=True):
            output = self._convolved(x_BCT, dilation)
            if has_padding:
                output.masked_fill_(padding_BT.unsqueeze(1), LOWEST)
            for threshold_R in torch.tensor(threshold_RQ).unbind(1):
                # Comparing into floats and adding those up is ten times as fast as adding up booleans.
                torch.gt(output, threshold_R[:, None], out=exceeds)
                parts.append(exceeds.sum(2))
        return torch.cat(parts, dim=1) / lengths_B[:, None].to(x_BCT.dtype)


def _between(ordered_RN: Tensor, levels_RQ: Tensor) -> Tensor:
    """Thresholds at quantiles of sorted numbers, half-way between two of them.

    None is a number that occurs, such as the zero of a series that stands still: rounding would decide what exceeds it.
    """
    places = (levels_RQ * (ordered_RN.shape[1] - 1)).long()
    below, above = ordered_RN.gather(1, places), ordered_RN.gather(1, (places + 1).clamp(max=ordered_RN.shape[1] - 1))
    return (below + above) / 2 + TIE * ordered_RN.abs().mean()


def _inside(lengths_B: Tensor, n_steps: int) -> Tensor:
    return torch.arange(n_steps) < lengths_B[:, None]
