"""Checks of counts."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def check_counts(**counts: Any) -> None:
    """Refuse what is not an integer of at least 1, by its name.

    Raises
    ------
    ValueError
        With the name and the value.
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name} must be an integer of at least 1. Got {count!r}.")
