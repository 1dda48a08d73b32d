"""Atomic fits: one that fails leaves the estimator as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def atomic(fit: Method) -> Method:
    """Leave an estimator as it was before a fit that fails: with the last fit's network and encoding, or unfitted.

    Otherwise one part would be of the last fit and another of this one. What ``fit`` changes must be attributes, and
    not parts of the objects that these are.
    """

    @wraps(fit)
    def run(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(estimator))
        try:
            return fit(estimator, *args, **kwargs)
        except BaseException:
            vars(estimator).clear()
            vars(estimator).update(before)
            raise

    return run  # type: ignore[return-value]
