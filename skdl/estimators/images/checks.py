"""Checks of what a user hands to an estimator as images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from skdl.data.images.image_reading import (
    CheckedImages,
    ImageReading,
    check_shape,
    images_of_rows,
    read_images,
    training_shape,
)
from skdl.data.tables.frames import is_frame
from skdl.data.tensors import as_array
from skdl.estimators.checks import forget_columns


def check_images(estimator: Any, X: Any, *, reset: bool) -> NDArray:
    """Images as one array, or as the paths of their files; see :func:`skdl.data.images.image_reading.read_images`.

    If ``reset``, sets ``image_shape_``, and ``n_features_in_`` and ``feature_names_in_`` for rows; otherwise images
    must have the shape of those in ``fit``.

    Raises
    ------
    ValueError, TypeError
        With the remedy; for rows in scikit-learn's words.
    """
    if isinstance(X, CheckedImages) and not reset and X.shape[1:] in ((), estimator.image_shape_):
        return X
    reading = ImageReading(
        image_shape=estimator.image_shape,
        channels=estimator.channels,
        resize=estimator.resize,
        path_column=estimator.path_column,
        dtype=estimator.dtype,
        reader=type(estimator).__name__,
    )
    images = read_images(reading, X)
    if images is None:
        images = images_of_rows(reading, _check_image_rows(estimator, X, reset))
    elif reset:
        forget_columns(estimator)
    if reset:
        estimator.image_shape_ = training_shape(reading, images)
    else:
        check_shape(images, estimator.image_shape_, reading.reader)
    return images.view(CheckedImages)


def _check_image_rows(estimator: Any, X: Any, reset: bool) -> NDArray:
    kept = [np.float32, np.float64, np.uint8]
    if estimator.dtype == "float64":
        # The first one is what others become.
        kept = [np.float64, np.float32, np.float16, np.uint8]
    try:
        return validate_data(estimator, as_array(X), reset=reset, dtype=kept)
    except (TypeError, ValueError) as error:
        if is_frame(X) and ("setting an array element" in str(error) or "must be a string or a real" in str(error)):
            remedy = "Where each cell of a column is an image, pass a list of them: list(frame[column])."
            raise ValueError(f"{error} {remedy}") from error
        if "could not convert string" in str(error):
            remedy = "To read image files, pass their paths as a list, or set path_column to the column that has them."
            raise ValueError(f"{error}. {remedy}") from error
        raise
