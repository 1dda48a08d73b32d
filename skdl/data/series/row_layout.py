"""Series as rows of numbers, and what the network does with such rows.

A series is encoded as one row of numbers: its normalised channels step by step, with zeros where there is no value,
then the numbers beside it, then its level, its spread and its length. The network takes such rows apart again
(:class:`RowLayout`), so that the engine needs to know nothing of time.

Axes: B series, C channels, T steps, D numbers of a row, E numbers beside a series, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

#: Numbers of a row that follow those beside the series: level, spread and length.
N_TAIL = 3


class Parts(NamedTuple):
    """What a row of numbers is made of."""

    series_BCT: Tensor
    covariates_BE: Tensor
    level_B1: Tensor
    spread_B1: Tensor
    lengths_B: Tensor


@dataclass(frozen=True)
class RowLayout:
    """Where a row holds what. Rows of other tables may have other numbers of steps."""

    n_channels: int
    n_covariates: int

    def n_steps(self, n_columns: int) -> int:
        return (n_columns - self.n_covariates - N_TAIL) // self.n_channels

    def parts(self, x_BD: Tensor) -> Parts:
        """The parts of rows, as views."""
        n_steps = self.n_steps(x_BD.shape[1])
        stop = self.n_channels * n_steps
        series_BCT = x_BD[:, :stop].view(-1, self.n_channels, n_steps)
        level_B1, spread_B1, length_B1 = x_BD[:, stop + self.n_covariates :].split(1, dim=1)
        return Parts(series_BCT, x_BD[:, stop : stop + self.n_covariates], level_B1, spread_B1, length_B1[:, 0].long())


@dataclass(frozen=True)
class Denormalization:
    """How outputs in units of a series become outputs in units of the standardised targets (Kim et al. 2022).

    Parameters
    ----------
    gain, offset : tuple of float
        One a target.

    References
    ----------
    Kim et al. (2022), Reversible instance normalization for accurate time-series forecasting against distribution
    shift.
    """

    gain: tuple[float, ...]
    offset: tuple[float, ...]

    def apply(self, output_BO: Tensor, parts: Parts) -> Tensor:
        """Outputs ``(B, O)`` in units of the targets; O may be several outputs for each target."""
        gain, offset = self._vectors(output_BO)
        return (output_BO * parts.spread_B1 + parts.level_B1) * gain + offset

    def invert(self, target_BO: Tensor, parts: Parts) -> Tensor:
        """What :meth:`apply` would make of the targets."""
        gain, offset = self._vectors(target_BO)
        return ((target_BO - offset) / gain - parts.level_B1) / parts.spread_B1

    def _vectors(self, like_BO: Tensor) -> tuple[Tensor, Tensor]:
        gain, offset = (torch.tensor(v, dtype=like_BO.dtype, device=like_BO.device) for v in (self.gain, self.offset))
        n_each = like_BO.shape[1] // len(gain)
        return (gain, offset) if n_each == 1 else (gain.repeat_interleave(n_each), offset.repeat_interleave(n_each))
