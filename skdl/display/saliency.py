"""Images with heat maps over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from skdl.data.images.image_files import ImageFiles
from skdl.estimators.images.checks import check_images

#: Most images side by side, by default.
MAX_COLUMNS = 5
#: Height and width for each image, in inches.
INCHES = 2.0
#: Colour map of maps that are at least 0, by default.
POSITIVE_CMAP = "inferno"
#: Colour map of maps of either sign, by default.
SIGNED_CMAP = "RdBu_r"


class SaliencyDisplay:
    """Images with heat maps that show what an estimator responds to.

    Use :meth:`from_estimator` to create a display.

    Parameters
    ----------
    images : array-like of shape (n, h, w) or (n, h, w, c)
        Pixels. One channel is drawn in gray, three as RGB, four as RGB without the last one, and any other number as
        the mean in gray. Pixels of type uint8 range from 0 to 255; others from the smallest to the largest value in
        images.
    maps : array-like of shape (n, h, w)
        One value for each pixel of each image.
    labels : sequence of length n, default=None
        Title of each image. None is no titles.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of matplotlib Axes of shape (n,)
        The axes of each image.

    Raises
    ------
    ValueError
        If there are no images, or if the numbers of images, maps and labels differ.

    Examples
    --------
    >>> import numpy as np
    >>> from skdl.display import SaliencyDisplay
    >>> display = SaliencyDisplay(np.zeros((2, 8, 8)), np.random.rand(2, 8, 8), labels=["cat", "dog"])
    >>> display.plot().axes_.shape
    (2,)
    """

    def __init__(self, images: ArrayLike, maps: ArrayLike, labels: Sequence[Any] | NDArray | None = None) -> None:
        self.images = np.asarray(images)
        self.maps = np.asarray(maps)
        self.labels = labels
        if self.images.ndim not in (3, 4) or self.maps.ndim != 3 or not len(self.images):
            raise ValueError(
                "images must be of shape (n, h, w) or (n, h, w, c), and maps of shape (n, h, w), with n at least 1. "
                f"Got {self.images.shape} and {self.maps.shape}; a single image is passed as image[np.newaxis]."
            )
        if len(self.maps) != len(self.images) or (labels is not None and len(labels) != len(self.images)):
            n_labels = "" if labels is None else f" and {len(labels)} label(s)"
            raise ValueError(
                f"Each image needs a map, and a label if there are any. Got {len(self.images)} image(s), "
                f"{len(self.maps)} map(s){n_labels}."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        method: str = "gradcam",
        labels: Sequence[Any] | NDArray | None = None,
        ax: Any = None,
        n_columns: int | None = None,
        cmap: Any = None,
        alpha: float = 0.7,
    ) -> SaliencyDisplay:
        """Explain the predictions of a fitted estimator, and plot.

        Parameters
        ----------
        estimator : CNNClassifier, CNNRegressor or Pipeline
            A fitted estimator. A pipeline must end with one of the former; the images are drawn as its other steps
            transform them.
        X : like X in ``fit``
            Images. All of them are drawn.
        y : array-like of shape (n,), default=None
            Labels or outputs to explain; see ``estimator.explain``. None is the prediction.
        method : {"gradcam", "integrated_gradients", "occlusion"}, default="gradcam"
            How the maps are made.
        labels : sequence of length n, default=None
            Title of each image. None is y, or the predictions of a classifier.
        ax, n_columns, cmap, alpha
            See :meth:`plot`.

        Returns
        -------
        display : SaliencyDisplay
            The plotted display.

        Raises
        ------
        ValueError
            If images are not like those of ``fit``, ``method`` is not known, or there are fewer axes than images.
        TypeError
            If the estimator cannot explain images.
        ImportError
            If matplotlib is not installed.
        """
        while isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        if not hasattr(estimator, "explain"):
            raise TypeError(
                f"from_estimator draws what CNNClassifier or CNNRegressor explains. Got {type(estimator).__name__}, "
                "which has no explain. Pass one of them, fitted, or a pipeline that ends with it; of a search, its "
                "best_estimator_."
            )
        maps = estimator.explain(X, y, method=method)
        if labels is None:
            if y is not None:
                labels = np.asarray(y)
            elif is_classifier(estimator):
                labels = estimator.predict(X)
        display = cls(_drawn(estimator, X), maps, labels)
        return display.plot(ax, n_columns=n_columns, cmap=cmap, alpha=alpha)

    def plot(
        self, ax: Any = None, *, n_columns: int | None = None, cmap: Any = None, alpha: float = 0.7
    ) -> SaliencyDisplay:
        """Draw each image with its map on top.

        Each map uses the full colour range: from 0 to its largest value or, if any map has negative values, symmetric
        around 0.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Axes to draw on, one for each image. None creates a figure.
        n_columns : int, default=None
            Number of images per row of a new figure. None is all of them, at most 5.
        cmap : str or matplotlib Colormap, default=None
            Colours of the maps. None is "inferno", or "RdBu_r" if there are negative values.
        alpha : float in [0, 1], default=0.7
            Opacity of a map at its largest absolute value; it falls to 0 with the value.

        Returns
        -------
        display : SaliencyDisplay
            With ``figure_`` and ``axes_``.

        Raises
        ------
        ValueError
            If there are fewer axes than images, or no columns.
        ImportError
            If matplotlib is not installed.
        """
        self.axes_ = self._new_axes(n_columns) if ax is None else self._given_axes(ax)
        self.figure_ = self.axes_[0].figure
        is_signed = bool((self.maps < 0).any())
        if cmap is None:
            cmap = SIGNED_CMAP if is_signed else POSITIVE_CMAP
        for axes, image, heat in zip(self.axes_, _shown(self.images), self.maps, strict=True):
            height, width = image.shape[:2]
            # A signal, which is one row high, is stretched to a band.
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect="auto" if height == 1 else "equal")
            largest = float(np.abs(heat).max()) or 1.0
            axes.imshow(
                heat,
                cmap=cmap,
                # Where a map says nothing, the image is seen as it is.
                alpha=alpha * np.abs(heat) / largest,
                vmin=-largest if is_signed else 0.0,
                vmax=largest,
                # Maps may be coarser than the images.
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                aspect="auto" if height == 1 else "equal",
            )
            axes.set_axis_off()
        for axes, label in zip(self.axes_, [] if self.labels is None else self.labels, strict=False):
            axes.set_title(str(label))
        return self

    def _new_axes(self, n_columns: int | None) -> NDArray:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("SaliencyDisplay needs matplotlib. Install it by: pip install matplotlib") from error
        n = len(self.images)
        n_columns = min(n, MAX_COLUMNS) if n_columns is None else min(n, n_columns)
        if n_columns < 1:
            raise ValueError(f"n_columns must be at least 1. Got {n_columns}.")
        n_lines = -(-n // n_columns)
        size = (INCHES * n_columns, INCHES * n_lines)
        _, axes = plt.subplots(n_lines, n_columns, figsize=size, squeeze=False, layout="constrained")
        for surplus in axes.ravel()[n:]:
            surplus.remove()
        return axes.ravel()[:n]

    def _given_axes(self, ax: Any) -> NDArray:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if len(axes) < len(self.images):
            raise ValueError(
                f"There are {len(self.images)} images and {len(axes)} axes. Pass one for each image, or ax=None."
            )
        return axes[: len(self.images)]


def _drawn(estimator: Any, X: Any) -> NDArray:
    """The pixels of X as the estimator sees them, ``(n, h, w, c)``."""
    images = check_images(estimator, X, reset=False)
    if images.ndim > 1:
        return images
    files = ImageFiles(images, estimator.image_shape_, estimator.resize)
    return files.slice(0, len(files))[0].numpy().reshape(-1, *estimator.image_shape_)


def _shown(images: NDArray) -> NDArray[np.float64]:
    """Images ``(n, h, w)`` or ``(n, h, w, 3)`` of numbers from 0 to 1."""
    if images.ndim == 4 and images.shape[3] not in (3, 4):
        shown = images.mean(axis=3, dtype=np.float64)
    else:
        shown = images[..., :3] if images.ndim == 4 else images
    if images.dtype == np.uint8:
        return shown / 255.0
    low, high = float(shown.min()), float(shown.max())
    return (shown.astype(np.float64) - low) / ((high - low) or 1.0)
