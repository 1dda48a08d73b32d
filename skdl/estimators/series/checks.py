"""Checks of what a user hands to an estimator as series."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from skdl.data.series.series_reading import Series, channel_names, series_and_table, series_values
from skdl.data.tensors import as_array, is_structured
from skdl.estimators.checks import forget_columns


def check_series(estimator: Any, X: Any, *, reset: bool) -> Series:
    """Series as one array, with the table beside them if X has one.

    See :func:`~skdl.data.series.series_reading.series_values`.

    If ``reset``, sets ``n_channels_`` and ``n_static_``, and ``n_features_in_`` and ``feature_names_in_`` for rows;
    otherwise X must be as in ``fit``.

    Raises
    ------
    ValueError, TypeError
        With the remedy; for rows in scikit-learn's words.
    """
    if isinstance(X, Series) and not reset:
        return X
    if reset:
        forget_columns(estimator)
    X, static = series_and_table(X)
    values = series_values(X, estimator.layout)
    if values is None:
        values = _check_series_rows(estimator, X, reset)[:, np.newaxis]
    series = Series.of(values, static, channel_names(X))
    if reset:
        estimator.n_channels_, estimator.n_static_ = series.shape[1], series.n_static
        estimator._channel_names, estimator._static_names = series.channel_names, series.static_names
    else:
        series.check_like(estimator.n_channels_, estimator._channel_names, estimator.n_static_, estimator._static_names)
    return series


def _check_series_rows(estimator: Any, X: Any, reset: bool) -> NDArray:
    """Values ``(n, T)`` of rows."""
    if type(X) is dict:
        raise TypeError("X is a dict. Pass a list of its series: list(X.values()).")
    if is_structured(X):
        raise TypeError("X is a structured array. Pass pandas.DataFrame(X).")
    try:
        return validate_data(
            estimator, as_array(X), reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan"
        )
    except ValueError as error:
        if "features as input" in str(error):
            remedy = "Series of other lengths than in fit go in as (n, 1, time), X[:, np.newaxis], or as a list."
            raise ValueError(f"{error} {remedy}") from error
        if "could not convert string" in str(error):
            remedy = "A long table, with a row for each step, is cut into series by skdl.window."
            raise ValueError(f"{error}. {remedy}") from error
        if "setting an array element" in str(error):
            remedy = "Where each cell of a column is a series, pass a list of them, such as list(frame[column])."
            raise ValueError(f"{error} {remedy}") from error
        raise
