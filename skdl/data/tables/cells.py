"""Cells as Python objects: which of them are missing, and the text of their levels."""

from __future__ import annotations

import decimal
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_missing_cell(cell: Any) -> bool:
    """None, NaN, NaT and pandas.NA: what is missing does not equal itself, or cannot tell."""
    if cell is None:
        return True
    if isinstance(cell, str):
        return False
    try:
        return bool(cell != cell)
    except (TypeError, ValueError):
        return type(cell).__name__ == "NAType"


def is_same_cell(cell: Any, value: Any) -> bool:
    """Whether a cell is a number or a text that stands for a missing one."""
    # True equals 1, but is no number here.
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, str | numbers.Real | decimal.Decimal):
        return False
    return isinstance(cell, str) == isinstance(value, str) and bool(cell == value)


def missing_cells(values: NDArray) -> NDArray[np.bool_]:
    """Which of a column's values are missing."""
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values)


def cell_text(cell: Any) -> str:
    """What a cell is a level by, beside text."""
    # Whole numbers become floats where a frame keeps a missing cell beside them.
    return str(int(cell)) if isinstance(cell, float | np.floating) and cell.is_integer() else str(cell)
