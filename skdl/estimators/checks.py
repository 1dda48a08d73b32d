"""Checks of what a user hands to an estimator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, validate_data

from skdl.data.tables.categories import numbered
from skdl.data.tables.cells import is_missing_cell
from skdl.data.tables.frames import check_unique_names, column_names, is_frame, refuse_lazy
from skdl.data.tensors import as_array, is_structured
from skdl.tasks.classification import label_type_error

#: Weights are rounded to multiples of their next power of two over this.
WEIGHT_STEPS = 2.0**40


def check_table(estimator: BaseEstimator, X: Any, *, reset: bool) -> Any:
    """X as a numeric array with NaN for missing, a CSR matrix, or the frame it is.

    Raises
    ------
    ValueError, TypeError
        In scikit-learn's words, with the remedy where text stands in an array or NaN in a sparse matrix.
    """
    if not reset and _is_as_fitted(estimator, X):
        return X
    X = as_array(X)
    if is_frame(X):
        check_unique_names(X)
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if len(X) == 0 or X.shape[1] == 0:
            raise ValueError(
                f"Found a frame with {len(X)} sample(s) and {X.shape[1]} feature(s) while a minimum of 1 is required."
            )
        return X
    refuse_lazy(X)
    if type(X) is dict or is_structured(X):
        raise TypeError(f"X is a {'dict' if type(X) is dict else 'structured array'}. Pass pandas.DataFrame(X).")
    if isinstance(X, np.ndarray) and X.dtype.kind in "mM":
        raise TypeError("X is an array of dates or durations, which are encoded in a DataFrame's columns: pass one.")
    try:
        return validate_data(
            estimator,
            _with_nan(X),
            reset=reset,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            ensure_all_finite=True if sp.issparse(X) else "allow-nan",
        )
    except ValueError as error:
        if "could not convert string" in str(error):
            remedy = "Text is encoded in the columns of a DataFrame, not in an array: pass one."
            raise ValueError(f"{error}. {remedy}") from error
        if sp.issparse(X) and "contains NaN" in str(error):
            # scikit-learn recommends other estimators, as if these took no NaN in any form.
            raise ValueError(
                "Input X contains NaN, but sparse matrices take no missing values. Pass a dense array or a DataFrame, "
                "in which NaN is a missing value, to fit and predict; or impute first."
            ) from None
        raise


def _with_nan(X: Any) -> Any:
    """An array of objects with NaN for pandas.NA, which numpy does not take for a number."""
    if not isinstance(X, np.ndarray) or X.dtype != object:
        return X
    is_missing = np.frompyfunc(is_missing_cell, 1, 1)(X).astype(bool)
    return np.where(is_missing, np.nan, X) if is_missing.any() else X


def _is_as_fitted(estimator: Any, X: Any) -> bool:
    """Whether X is a plain array, or a frame of the columns of ``fit``, in which there is nothing to check.

    For a few rows scikit-learn's own checks take longer than the prediction.
    """
    if is_frame(X):
        names = estimator.__dict__.get("feature_names_in_")
        return names is not None and len(X) > 0 and column_names(X) == names.tolist()
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.dtype.char in "fd"
        and X.shape[0] > 0
        and X.shape[1] == estimator.n_features_in_
        and "feature_names_in_" not in estimator.__dict__
        and _is_finite(X)
    )


def _is_finite(X: NDArray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(X.sum())


def forget_columns(estimator: Any) -> None:
    """Take back what an earlier fit, on rows of columns, has left."""
    for name in ("n_features_in_", "feature_names_in_"):
        estimator.__dict__.pop(name, None)


def check_target(y: Any, *, numeric: bool, name: str = "y") -> NDArray:
    """Check y and make it a 1-D or 2-D array; a single column is flattened with scikit-learn's warning."""
    if sp.issparse(y):
        y = y.toarray()
    if not numeric:
        check_labels(y, name)
    elif np.asarray(y).dtype.kind in "mM":
        raise TypeError(f"{name} holds dates or durations. Convert it to numbers, in the unit of the predictions.")
    dtype = np.float64 if numeric else None
    try:
        y = check_array(y, ensure_2d=False, dtype=dtype, input_name=name, ensure_min_samples=0)
    except ValueError as error:
        if "contains NaN" in str(error):
            raise ValueError(f"{error} Drop rows without a value of {name}.") from None
        if "could not convert string" in str(error):
            raise ValueError(
                f"{name} holds text: {error}. Regression takes numbers; for labels use the classifier of the same "
                "family."
            ) from None
        raise
    if y.ndim == 0:
        raise ValueError(f"{name} should be a 1d array, got {y!r} instead.")
    if y.ndim == 2 and y.shape[1] == 1:
        return column_or_1d(y, warn=True)
    return y


def _refuse_masked(values: Any, name: str) -> None:
    """Refuse values some of which are masked: what stands under a mask is not meant."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values. Leave out the rows that have them.")


def check_labels(labels: Any, name: str) -> None:
    """Refuse an array of objects that are missing, or of types that cannot be sorted together."""
    cells = np.asarray(labels)
    if cells.dtype != object:
        return
    if any(is_missing_cell(cell) for cell in cells.flat):
        raise ValueError(
            f"Input {name} contains NaN or None. Drop rows without a label, or give them one of their own, such as "
            "'none'."
        )
    types = {type(cell) for cell in cells.flat}
    if len(types) > 1 and not all(issubclass(of_cell, str) for of_cell in types):
        raise label_type_error(cells, name)


def check_weight(sample_weight: Any, y: NDArray) -> NDArray[np.float64] | None:
    """Weights of at least 0, one per sample; None if no weights were given."""
    if sample_weight is None:
        return None
    _refuse_masked(sample_weight, "sample_weight")
    weight = _check_sample_weight(sample_weight, y, dtype=np.float64, ensure_non_negative=True)
    # Only ratios matter, and sums of huge weights would overflow.
    with np.errstate(over="ignore"):
        return weight if np.isfinite(weight.sum()) else weight / weight.max()


def relative_weight(weight: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Weights over the largest one, to twelve digits; None where all samples weigh the same.

    Weights of another scale differ in the last digits, and by them an edge of a bin would be another value.
    """
    if weight is None or not weight.any():
        return weight
    mantissa, exponent = np.frexp(weight / weight.max())
    rounded = np.ldexp(np.round(mantissa * WEIGHT_STEPS) / WEIGHT_STEPS, exponent)
    # What is positive stays so.
    rounded[weight > 0] = np.maximum(rounded[weight > 0], np.finfo(np.float64).tiny)
    return None if (rounded == 1).all() else rounded


def check_groups(groups: Any, n_samples: int) -> NDArray | None:
    """The number of each sample's group ``(n_samples,)``.

    Raises
    ------
    ValueError
        If they are not one for each sample, or some are missing.
    """
    if groups is None:
        return None
    _refuse_masked(groups, "groups")
    groups = np.asarray(as_array(groups))
    if groups.shape != (n_samples,):
        raise ValueError(
            f"groups has the shape {groups.shape}, but X has {n_samples} rows. Pass a column with a group for each row."
        )
    if any(map(is_missing_cell, groups.tolist())):
        raise ValueError("groups contains missing values. Give those rows groups of their own.")
    return numbered(groups)


@dataclass(frozen=True)
class FitData:
    """Checked data of a fit. ``rows`` are those of positive weight."""

    X: Any
    y: NDArray
    weight: NDArray[np.float64] | None
    rows: NDArray[np.intp]
    y_name: str = "y"
    #: The group of each sample, whose rows are held out together.
    groups: NDArray | None = None
    #: Weights of the scale that they were given in, which a user's scorer sees, and X as it was given.
    given_weight: NDArray[np.float64] | None = None
    given_X: Any = None

    @property
    def n_apart(self) -> int:
        """How many rows, or groups of them, may be held out one without another."""
        return len(self.rows) if self.groups is None else len(np.unique(self.groups[self.rows]))

    def weight_of(self, rows: NDArray[np.intp]) -> NDArray[np.float64] | None:
        return None if self.weight is None else self.weight[rows]

    def groups_of(self, rows: NDArray[np.intp]) -> NDArray[np.intp] | None:
        return None if self.groups is None else self.groups[rows]


def check_fit_data(X: Any, y: Any, sample_weight: Any, *, estimator: BaseEstimator, y_name: str = "y") -> FitData:
    """Put X, which is checked already, together with its checked target and weights."""
    _refuse_masked(y, y_name)
    y = check_target(as_array(y), numeric=not is_classifier(estimator), name=y_name)
    if len(y) != X.shape[0]:
        check_consistent_length(X, y)
    weight = check_weight(sample_weight, y)
    rows = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
    return FitData(X, y, weight, rows, y_name, given_weight=weight)
