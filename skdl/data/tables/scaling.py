"""Numeric columns on one scale, by statistics of the training rows, with columns that say where values are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skdl.data.moments import mean_and_deviation, weighted_quantiles
from skdl.data.types import Weights

#: Where the smooth clip of robustly scaled columns levels off (Holzmueller et al. 2024).
CLIP = 3.0
#: Bound on scaled values that are not clipped smoothly, so that their squares stay finite in float32.
MAX_SCALED = 1e15
#: Probabilities of the quartiles.
QUARTILES = np.array([0.25, 0.5, 0.75])


def _robust(x: NDArray, weight: Weights) -> tuple[float, float]:
    """Median, and half-range if the middle half of the values is one value, else interquartile range."""
    if weight is None:
        # The same numbers as below, without checks that cost several times what finding them does. Sorting is done in
        # the processor's vectors, and so in less time than a partition at three places.
        places = np.ceil(len(x) * QUARTILES).astype(np.intp) - 1
        low, middle, high = map(float, np.sort(x)[places])
    else:
        low, middle, high = map(float, weighted_quantiles(x, QUARTILES, weight))
    spread = high - low
    if spread == 0:
        spread = (float(x.max()) - float(x.min())) / 2
    return middle, spread


def _standard(x: NDArray, weight: Weights) -> tuple[float, float]:
    mean, deviation = mean_and_deviation(np.asarray(x, dtype=np.float64), weight)
    return float(mean), float(deviation)


class Scaling(NamedTuple):
    """How one column is scaled."""

    #: Location and spread of its values.
    statistics: Callable[[NDArray, Weights], tuple[float, float]]
    #: Where scaled values level off, smoothly; None for no clip.
    clip: float | None = None


SCALINGS: dict[str, Scaling] = {"robust": Scaling(_robust, CLIP), "standard": Scaling(_standard)}


class NumericEncoder:
    """Scales numeric columns and marks their missing values.

    Parameters
    ----------
    scaling : {"robust", "standard", None}
        "robust": minus the median, over the interquartile range, then smoothly clipped to (-3, 3). "standard":
        minus the mean, over the standard deviation. None: as they are.
    """

    def __init__(self, scaling: str | None = "robust") -> None:
        self.scaling = scaling

    def fit(self, columns: Callable[[int], NDArray], n_columns: int, weight: Weights) -> NumericEncoder:
        """Learn from ``columns(j)``, the training values of column j."""
        self.center = np.zeros(n_columns)
        self.factor = np.ones(n_columns)
        had_missing = np.zeros(n_columns, dtype=bool)
        for j in range(n_columns):
            x = columns(j)
            # Single precision as it is: quartiles are values of the column, and half the memory is gone through.
            x = np.ascontiguousarray(x, dtype=np.float32 if x.dtype == np.float32 else np.float64)
            known = weight
            missing = np.isnan(x)
            if missing.any():
                had_missing[j] = True
                x, known = x[~missing], None if weight is None else weight[~missing]
            if self.scaling is not None:
                self._fit_column(j, x, known)
        self.indicated = np.flatnonzero(had_missing)
        return self

    def _fit_column(self, j: int, x: NDArray, weight: Weights) -> None:
        assert self.scaling is not None
        if len(x) == 0:
            self.factor[j] = 0.0
            return
        with np.errstate(over="ignore", invalid="ignore"):
            center, spread = SCALINGS[self.scaling].statistics(x, weight)
            self.center[j] = center
            # A constant column says nothing; nor does one too wide for float64.
            usable = spread > 0 and np.isfinite(spread) and np.isfinite(1 / spread)
            self.factor[j] = 1 / spread if usable else 0.0

    @property
    def n_outputs(self) -> int:
        return len(self.center) + len(self.indicated)

    def transform(self, x: NDArray, out: NDArray) -> None:
        """Encode rows ``(n, d)`` into ``out`` ``(n, n_outputs)``."""
        n_columns = len(self.center)
        if self.scaling is None:
            z = np.array(x, dtype=np.float64)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                z = np.subtract(x, self.center, dtype=np.float64)
                z *= self.factor
        if not np.vdot(z, z) < MAX_SCALED**2:
            # Some may be missing, or so large that their squares would overflow.
            np.clip(z, -MAX_SCALED, MAX_SCALED, out=z)
            z[np.isnan(z)] = 0.0
        values = out[:, :n_columns]
        values[...] = z
        clip = None if self.scaling is None else SCALINGS[self.scaling].clip
        if clip is not None:
            divisor = values / clip
            divisor *= divisor
            divisor += 1
            values /= np.sqrt(divisor, out=divisor)
        if len(self.indicated):
            out[:, n_columns:] = np.isnan(x[:, self.indicated])
