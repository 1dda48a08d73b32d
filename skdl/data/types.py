"""Types of arrays that many modules speak of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: A weight for each row, ``(n,)``; None if all weigh the same.
Weights = Floats | None
