"""A fixed random subsample of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sample_rows(n_rows: int, most: int) -> NDArray[np.intp]:
    """At most so many of the rows 0 to ``n_rows - 1``, in rising order; all of them where there are no more.

    At random, because rows may come in a rhythm: labels in turn, or a step of each of several series. Always the same
    rows, so that a fit does not depend on what was drawn before.
    """
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(0).choice(n_rows, most, replace=False, shuffle=False))
