"""Convolutional networks for images: ``CNNClassifier`` and ``CNNRegressor``."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skdl.data.images.image_encoder import ImageEncoder
from skdl.data.table import Table
from skdl.engine.device import resolve_device, with_torch_defaults
from skdl.engine.predict import network_outputs
from skdl.estimators.base import NetworkEstimator
from skdl.estimators.checks import FitData
from skdl.estimators.embedding import EmbeddingMixin
from skdl.estimators.explaining import check_method, explained_outputs
from skdl.estimators.images.checks import check_images
from skdl.estimators.images.explaining import image_maps
from skdl.estimators.images.label_invariance import Neighbours
from skdl.estimators.parameters import (
    ACTIVATION_DOC,
    FITTED_DOC,
    TRAINING_DOC,
    TrainingParameters,
    documented,
    is_auto,
    layer_sizes,
    with_defaults,
    with_entries,
)
from skdl.estimators.quantiles import QUANTILES_DOC
from skdl.estimators.supervised import (
    CLASSIFICATION_CONSTRAINTS,
    CLASSIFICATION_DOC,
    CLASSIFICATION_FITTED,
    CLASSIFICATION_LOSS_DOC,
    CLASSIFICATION_METHODS,
    CLASSIFICATION_TRAINING,
    REGRESSION_CONSTRAINTS,
    REGRESSION_FITTED,
    REGRESSION_LOSS_DOC,
    REGRESSION_METHODS,
    REGRESSION_TRAINING,
    NetworkClassifierMixin,
    NetworkRegressorMixin,
)
from skdl.estimators.training import caller_level
from skdl.nn.activations import ACTIVATIONS, get_activation
from skdl.nn.augment import Augmentation
from skdl.nn.backbone import BackboneArchitecture
from skdl.nn.conv import ConvArchitecture, ImageModule, auto_channels
from skdl.nn.explain import EXPLANATIONS
from skdl.tasks.losses import takes_label_smoothing

#: What "auto" does to images, beside mirroring.
MOVES = Augmentation(shift=0.05, rotation=5, zoom=0.05)
#: "auto" label smoothing: networks of this size come to know few images by heart.
AUTO_LABEL_SMOOTHING = 0.1
#: "auto" epochs for n training images are ``epochs * (EPOCHS_ROWS / n) ** power``, from MIN_EPOCHS to MAX_EPOCHS.
EPOCHS_ROWS = 2000
#: Epochs and power in that formula, by optimiser.
EPOCHS = {"muon": (38, 2 / 3)}
#: Epochs and power of all other optimisers.
OTHER_EPOCHS = (40, 1 / 2)
#: Fewest "auto" epochs.
MIN_EPOCHS = 10
#: Most "auto" epochs.
MAX_EPOCHS = 100
#: Most pixels of the images of an "auto" batch: a network keeps some 0.7 kB a pixel.
BATCH_PIXELS = 2**20
#: Images that an "auto" batch may have however many pixels they have.
MIN_BATCH_IMAGES = 4

_SHARE = [Interval(Real, 0, 1, closed="left")]
AUGMENTATION_CONSTRAINTS = {
    "shift": _SHARE,
    "rotation": [Interval(Real, 0, 180, closed="both")],
    "zoom": _SHARE,
    "flip": ["boolean"],
    "cutout": _SHARE,
    "mixup": [Interval(Real, 0, 1, closed="both")],
}

IMAGE_DOC = """
image_shape : tuple of int or None, default=None
    (height, width) or (height, width, channels) of images passed as flat rows. With None, rows are signals of one
    channel, and images have their own shape.
channels : {"auto", "first", "last"}, default="auto"
    Position of the channel axis in images ``(n, h, w, c)`` or ``(n, c, h, w)``. "auto" is the last axis if its length
    is 1, 3 or 4, otherwise the first one if its length is, otherwise the shorter of the two.
resize : tuple of int or None, default=None
    (height, width) to which all images are resized.
path_column : str or None, default=None
    Column of a DataFrame with the paths of image files.
"""

CONV_DOC = """
conv_channels : tuple of int or "auto", default="auto"
    Number of channels of each block of convolution, pooling, normalisation and activation. A block halves the image as
    long as its shorter side is at least 4 pixels. "auto" uses as many blocks as halve the image, at least two, with 32,
    64, 128, ... channels up to 256.
kernel_size : int, default=3
    Height and width of the convolutions.
pooling : {"max", "average"}, default="max"
    How blocks halve the image.
hidden_layer_sizes : tuple of int, default=()
    Number of units of the dense layers after the last block, whose feature maps are first averaged to 2 x 2.
{activation}
normalization : {"batch", "layer", None}, default="batch"
    Normalisation before each activation of a block. "layer" normalises over all pixels and channels of an image.
residual : bool, default=True
    Whether each block ends with one more convolution with a skip connection around it (He et al. 2016).
dropout : float in [0, 1), default=0
    Fraction of the inputs of dense layers dropped in each training step.
backbone : torch.nn.Module or None, default=None
    A pretrained network to use instead of the blocks: a module that maps images ``(n, channels, h, w)`` to features
    ``(n, F)`` or ``(n, F, h, w)``, or the ``network_`` of another fitted CNN, whose dense layers are replaced. It is
    copied, never changed. ``freeze`` decides which of its layers are trained; ``requires_grad`` is ignored.
    ``conv_channels``, ``kernel_size``, ``pooling``, ``normalization`` and ``residual`` then have no effect.
freeze : "all", "gradual", int or None, default=None
    How many of the backbone's first layers keep their weights. "gradual" unfreezes them from the top down: the dense
    layers are trained alone at first, then one more of the backbone's layers at equal intervals, and all of them from a
    quarter of ``max_epochs`` on (Howard and Ruder 2018). A fit that continues an earlier one, by ``warm_start`` or a
    second ``partial_fit``, trains all of them. Frozen layers also keep their normalisation statistics. Under "all", on
    a fitted CNN without a backbone of its own, the dense layers see the feature maps of all its blocks (Evci et al.
    2022), because the last ones alone lack detail. It needs a ``backbone``.
head_lr_factor : float, default=1
    Factor on the learning rate of the dense layers on top of a ``backbone``; must be 1 without one.
augment : "auto", dict, callable or None, default="auto"
    Random changes to the training images, drawn afresh in each step. A dict sets some of "shift" (largest shift, as a
    fraction of each axis), "rotation" (in degrees), "zoom" (largest relative change of size), "flip" (True: half of the
    images are mirrored left to right), "cutout" (side of a blanked square, as a fraction of each axis; DeVries and
    Taylor 2017) and "mixup" (largest fraction of another image and its target that is mixed in; Zhang et al. 2018).
    "auto" is {AUTO}, and nothing for signals,
    nor where nearest neighbours say that the target depends on it, such as a position, a size or an angle.{FLIP}
    A callable takes standardised images ``(n, channels, h, w)`` and a :class:`torch.Generator` and returns images of
    the same shape.
test_time_augmentation : int, default=0
    Number of views of each image over which predictions are averaged, in addition to the image itself: shifted, turned,
    zoomed and mirrored as in training. The other changes of ``augment`` do not apply, nor does a callable.
""".replace("{activation}", ACTIVATION_DOC.strip()).replace("{AUTO}", str(MOVES.settings()))

CLASSIFIER_CONV_DOC = CONV_DOC.replace(
    "{FLIP}",
    """
    Images are also flipped, except for multilabel targets, if the nearest neighbour of a mirrored image has the right
    class nearly as often as that of the original, averaged over classes, and more often than by chance.""",
)
REGRESSOR_CONV_DOC = CONV_DOC.replace("{FLIP}", "")

CNN_CLASSIFICATION_DOC = with_entries(
    CLASSIFICATION_DOC,
    label_smoothing="""
label_smoothing : float in [0, 1) or "auto", default="auto"
    Fraction of each label's probability that is spread over all classes in training, under "cross_entropy". "auto" is
    0.1 under that loss.
""",
)

CNN_TRAINING_DOC = with_entries(
    with_defaults(TRAINING_DOC, optimizer='"muon"', weight_decay="0.7"),
    batch_size="""
batch_size : int or "auto", default="auto"
    Number of images per training step. "auto" is 64, or 32 for fewer than 600 training images, and fewer of large
    images: as many as have 1,048,576 pixels together, but at least 4.
""",
    max_epochs="""
max_epochs : int or "auto", default="auto"
    Number of passes over the training images, or the maximum under early stopping. "auto" is ``38 * (2000 / n) ** (2 /
    3)`` for n images under "muon", which needs about half the epochs of Adam, and ``40 * (2000 / n) ** (1 / 2)`` under
    other optimisers, between 10 and 100.
""",
    early_stopping="""
early_stopping : bool or "auto", default=False
    Whether to hold out ``validation_fraction`` of the images (none if ``fit`` is given ``X_val``), stop when their
    score no longer improves, and keep the parameters of the best epoch. "auto" does so whenever ``fit`` is given
    ``X_val``.
""",
    n_members="""
n_members : int or "auto", default="auto"
    Number of networks to train and average. "auto" is 1.
""",
    warm_start="""
warm_start : bool, default=False
    Whether ``fit`` continues from the parameters and the optimiser state of the last ``fit``, with its standardisation
    of the pixels, its choice under ``augment="auto"`` and its encoding of y. On the same images each network holds out
    the same ones as in the last ``fit``; on others, scores and ``out_of_fold_`` may include images that it was trained
    on then.
""",
)

CNN_FITTED_DOC = (
    with_entries(
        FITTED_DOC,
        n_features_in_="""
n_features_in_ : int
    Number of columns of X, if it was flat rows.
""",
        feature_names_in_="""
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of the columns of X, if it was a DataFrame of flat rows and all are strings.
""",
    ).rstrip()
    + """
image_shape_ : tuple of int
    (height, width, channels) of the images.
augmentation_ : skdl.nn.augment.Augmentation
    The random changes of ``augment``, those that "auto" found included.
"""
)

IMAGE_METHODS = {
    "training_X": """
X : array-like of images, paths or flat rows, n_samples of them
    Training data: an array of shape (n_samples, height, width), (n_samples, height, width, channels) or (n_samples,
    channels, height, width); a list of arrays or Pillow images; a list of paths of image files, or a DataFrame with
    them in ``path_column``; or flat rows of shape (n_samples, height * width * channels) with ``image_shape``, without
    which they are signals of one channel.
""",
    "X": """
X : array-like of images, paths or flat rows, n_samples of them
    Images, in any of the forms that ``fit`` accepts, with the height, width and number of channels of ``fit``; under
    ``resize`` height and width may differ.
""",
    "X_errors": """
NotFittedError
    If the estimator is not fitted.
TypeError
    If X is of a type that is not supported, such as a dict or a sparse matrix.
ValueError
    If images have another shape than in ``fit``, there are none, pixels are NaN or infinite, or a file does not exist
    or cannot be read.
""",
    "partial_fit": """
The first call fixes the shape of the images, how pixels are standardised, and what ``augment="auto"`` is: give it a
representative batch.
""",
}


@dataclass(kw_only=True, eq=False, repr=False)
class ImageNetworkEstimator(EmbeddingMixin, NetworkEstimator):
    """A convolutional network on images."""

    image_shape: Any = None
    channels: str = "auto"
    resize: Any = None
    path_column: str | None = None
    conv_channels: Any = "auto"
    kernel_size: int = 3
    pooling: str = "max"
    hidden_layer_sizes: Any = ()
    activation: Any = "relu"
    normalization: str | None = "batch"
    residual: bool = True
    dropout: float = 0.0
    backbone: Any = None
    freeze: Any = None
    head_lr_factor: float = 1.0
    augment: Any = "auto"
    test_time_augmentation: int = 0
    early_stopping: bool | str = False
    optimizer: str = "muon"
    weight_decay: float = 0.7

    _network_constraints = {
        "image_shape": [None, "array-like"],
        "channels": [StrOptions({"auto", "first", "last"})],
        "resize": [None, "array-like"],
        "path_column": [None, str],
        "conv_channels": [StrOptions({"auto"}), "array-like", Interval(Integral, 1, None, closed="left")],
        "kernel_size": [Interval(Integral, 1, None, closed="left")],
        "pooling": [StrOptions({"max", "average"})],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "normalization": [None, StrOptions({"batch", "layer"})],
        "residual": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "backbone": [None, torch.nn.Module],
        "freeze": [None, StrOptions({"all", "gradual"}), Interval(Integral, 0, None, closed="left")],
        "head_lr_factor": [Interval(Real, 0, None, closed="neither")],
        "augment": [None, StrOptions({"auto"}), dict, callable],
        "test_time_augmentation": [Interval(Integral, 0, None, closed="left")],
    }
    _parameter_constraints = {**TrainingParameters._training_constraints, **_network_constraints}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # Embeddings have the precision of the network.
        tags.transformer_tags.preserves_dtype = []
        return tags

    # --- fit -----------------------------------------------------------------------------------------------------

    def _validate_params(self) -> None:
        if isinstance(self.backbone, BaseEstimator):
            # A search, and whatever else clones, would hand it on without its fit.
            kind = type(self.backbone).__name__
            raise InvalidParameterError(
                f"backbone is a {kind}, and clone and searches forget the fit of an estimator that is a parameter. "
                "Pass the network of the fitted estimator: backbone=estimator.network_."
            )
        super()._validate_params()
        if self.backbone is not None:
            return
        for name, default in (("freeze", None), ("head_lr_factor", 1)):
            value = getattr(self, name)
            if value != default:
                raise ValueError(
                    f"{name}={value!r} goes with a backbone, and there is none. Set backbone, or {name}={default}."
                )

    def _check_X(self, X: Any, *, reset: bool) -> Any:
        return check_images(self, X, reset=reset)

    def _make_encoder(self, dtype: np.dtype) -> ImageEncoder:
        return ImageEncoder(dtype, self.resize)

    def _prepare(self, data: FitData, train_rows: NDArray[np.intp], classes: ArrayLike | None = None) -> None:
        super()._prepare(data, train_rows, classes)
        self._warn_of_one_value()
        if not self._continues():
            self._found_augmentation: Augmentation | None = None
            self._choose_augmentation(data, train_rows)

    def _warn_of_one_value(self) -> None:
        if self._encoder.pixels.width == 0 and self.image_shape_[0] > 1:
            warnings.warn(
                f"All pixels that {type(self).__name__} looked at are {self._encoder.pixels.low:.3g}, and nothing can "
                "be learned of them. Look at how the images were read.",
                UserWarning,
                stacklevel=caller_level(),
            )

    def _keep_encoding(self, data: FitData, rows: NDArray[np.intp]) -> None:
        super()._keep_encoding(data, rows)
        self._choose_augmentation(data, rows)

    def _choose_augmentation(self, data: FitData, rows: NDArray[np.intp]) -> None:
        """What ``augment`` says; under "auto" what was found by the first images that it was asked about."""
        if not is_auto(self.augment):
            self.augmentation_ = self._given_augmentation()
            return
        if self._found_augmentation is None:
            self._found_augmentation = self._auto_augment(data, rows)
        self.augmentation_ = self._found_augmentation

    def _given_augmentation(self) -> Augmentation:
        if self.augment is None:
            return Augmentation()
        if isinstance(self.augment, Mapping):
            constraints = AUGMENTATION_CONSTRAINTS
            unknown = sorted(set(self.augment) - set(constraints), key=str)
            if unknown:
                raise ValueError(f"augment has unknown keys {unknown}. Use some of {sorted(constraints)}.")
            validate_parameter_constraints(constraints, dict(self.augment), caller_name="augment")
            not_numbers = [name for name, value in self.augment.items() if value is True and name != "flip"]
            if not_numbers:
                raise ValueError(f"augment wants numbers for {not_numbers}, how much of each. Got True.")
            return Augmentation(**self.augment)
        _check_augment(self.augment)
        return Augmentation(function=self.augment)

    # --- "auto" --------------------------------------------------------------------------------------------------

    def _auto_batch_size(self, n_rows: int) -> int:
        height, width, _ = self.image_shape_
        most = max(BATCH_PIXELS // (height * width), MIN_BATCH_IMAGES)
        return min(64 if n_rows >= 600 else 32, most)

    def _auto_max_epochs(self, n_rows: int, stops: bool) -> int:
        epochs, power = EPOCHS.get(self.optimizer, OTHER_EPOCHS)
        return int(np.clip(round(epochs * (EPOCHS_ROWS / n_rows) ** power), MIN_EPOCHS, MAX_EPOCHS))

    def _auto_early_stopping(self, n_rows: int, has_validation: bool) -> bool:
        return has_validation

    def _auto_n_members(self, n_rows: int, holds_out: bool) -> int:
        return 1

    def _auto_augment(self, data: FitData, rows: NDArray[np.intp]) -> Augmentation:
        if self.image_shape_[0] == 1:
            return Augmentation()
        is_labelled = self._task.is_classification and not self._task.is_multilabel
        table = self._encoder.transform(data.X)
        neighbours = Neighbours.of(table, self.image_shape_, rows, data.y, is_labelled)
        if neighbours is None:
            return MOVES
        if not neighbours.may_be_moved(MOVES):
            return Augmentation()
        return replace(MOVES, flip=is_labelled and neighbours.may_be_mirrored())

    # --- the network ---------------------------------------------------------------------------------------------

    def _architecture(self) -> ConvArchitecture | BackboneArchitecture:
        hidden = layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        shared: dict[str, Any] = {
            "image_shape": self.image_shape_,
            "n_outputs": self.n_outputs_,
            "hidden": hidden,
            "activation": get_activation(self.activation, axes=(4, 2) if hidden else (4,)),
            "mean": self._encoder.mean,
            "scale": self._encoder.scale,
            "augmentation": self.augmentation_,
        }
        if self.backbone is not None:
            return BackboneArchitecture(
                backbone=self.backbone, freeze=self.freeze, head_rate_factor=self.head_lr_factor, **shared
            )
        return ConvArchitecture(
            channels=self._channels(),
            kernel_size=self.kernel_size,
            pooling=self.pooling,
            normalization=self.normalization,
            residual=self.residual,
            **shared,
        )

    def _channels(self) -> tuple[int, ...]:
        height, width, _ = self.image_shape_
        if is_auto(self.conv_channels):
            return auto_channels(height, width)
        channels = layer_sizes("conv_channels", self.conv_channels)
        if not channels:
            raise ValueError("conv_channels must name at least one block. Use conv_channels='auto', or an MLP.")
        return channels

    # --- predict -------------------------------------------------------------------------------------------------

    def _table_outputs(self, table: Table) -> NDArray[np.float64]:
        outputs = super()._table_outputs(table)
        if not self.test_time_augmentation:
            return outputs
        device = resolve_device(self.device)
        views = [
            [network_outputs(member, table, device, partial(_view, view=view)) for member in self._members()]
            for view in range(self.test_time_augmentation)
        ]
        n_members, n_images = len(self._members()), len(table)
        of_views = np.concatenate([outputs.reshape(1, n_members, n_images, -1), np.array(views)])
        combined = np.stack([self._task.combine(of_views[:, m]) for m in range(of_views.shape[1])])
        return combined if outputs.ndim == 3 else combined[0]

    @with_torch_defaults
    def explain(self, X: Any, y: ArrayLike | None = None, *, method: str = "gradcam") -> NDArray:
        """Show which pixels an output depends on.

        Parameters
        ----------
        {X}
        {explained_y}
        method : {"gradcam", "integrated_gradients", "occlusion"}, default="gradcam"
            "gradcam": feature maps weighted by how much they increase the output (Selvaraju et al. 2017).
            "integrated_gradients": gradients along the path from the mean image (Sundararajan et al. 2017).
            "occlusion": the decrease of the output when a patch is replaced by the mean pixel (Zeiler and Fergus 2014).

        Returns
        -------
        maps : ndarray of shape (n_samples, height, width)
            Larger where a pixel supports the output, in units of that output.

        Raises
        ------
        {X_errors}
        {explained_y_errors}

        Examples
        --------
        {explain_example}
        """
        check_is_fitted(self, "network_")
        check_method(method, EXPLANATIONS)
        checked = self._check_X(X, reset=False)
        target = torch.as_tensor(explained_outputs(self, checked, y))
        return image_maps(self, self._encoder.transform(checked), target, method)


def _view(module: ImageModule, x: Tensor, codes: Tensor | None, view: int) -> Tensor:
    return module.view_outputs(x, view)


def _check_augment(function: Any) -> None:
    """Refuse a callable that cannot be called as it will be."""
    try:
        inspect.signature(function).bind("images", "generator")
    except TypeError as error:
        raise TypeError(f"A callable augment is called as augment(images, generator): {error}.") from None
    except ValueError:
        # Builtins need not have a signature.
        return


@documented(
    loss=CLASSIFICATION_LOSS_DOC,
    classification=CNN_CLASSIFICATION_DOC,
    image=IMAGE_DOC,
    network=CLASSIFIER_CONV_DOC,
    training=with_entries(CNN_TRAINING_DOC, **CLASSIFICATION_TRAINING),
    fitted=with_entries(CNN_FITTED_DOC, **CLASSIFICATION_FITTED),
    **IMAGE_METHODS,
    **CLASSIFICATION_METHODS,
    partial_fit_example="""
>>> from sklearn.datasets import load_digits
>>> from skdl import CNNClassifier
>>> digits = load_digits(n_class=3)
>>> clf = CNNClassifier(conv_channels=8, random_state=0)
>>> clf = clf.partial_fit(digits.images[:40], digits.target[:40], classes=[0, 1, 2])
>>> clf.partial_fit(digits.images[40:80], digits.target[40:80]).n_iter_
2
""",
    predict_proba_example="""
>>> from sklearn.datasets import load_digits
>>> from skdl import CNNClassifier
>>> digits = load_digits(n_class=3)
>>> clf = CNNClassifier(conv_channels=8, max_epochs=2, random_state=0).fit(digits.images[:80], digits.target[:80])
>>> clf.predict_proba(digits.images[80:90]).shape
(10, 3)
""",
    transform_example="""
>>> from sklearn.datasets import load_digits
>>> from skdl import CNNClassifier
>>> digits = load_digits(n_class=3)
>>> clf = CNNClassifier(conv_channels=8, max_epochs=2, random_state=0).fit(digits.images[:80], digits.target[:80])
>>> clf.transform(digits.images[80:90]).shape  # 8 channels, averaged to 2 x 2
(10, 32)
""",
    explain_example="""
>>> from sklearn.datasets import load_digits
>>> from skdl import CNNClassifier
>>> digits = load_digits(n_class=3)
>>> clf = CNNClassifier(conv_channels=8, max_epochs=2, random_state=0).fit(digits.images[:80], digits.target[:80])
>>> clf.explain(digits.images[80:90], digits.target[80:90], method="occlusion").shape
(10, 8, 8)
""",
)
@dataclass(kw_only=True, eq=False, repr=False)
class CNNClassifier(NetworkClassifierMixin, ImageNetworkEstimator):
    """Convolutional network for classification of images.

    X may be an array of images ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``, a list of arrays or Pillow images,
    a list of paths to image files, or flat rows with ``image_shape``. Pixels may be uint8 or floating-point; they are
    standardised by the training images. Flat rows without ``image_shape`` are signals.

    Parameters
    ----------
    {loss}
    {classification}
    {image}
    {network}
    {training}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or (2, 2)
        The labels; for multilabel targets the numbers of the columns of y, or 0 and 1 for each of two columns.
    {fitted}

    See Also
    --------
    CNNRegressor : Regression on images.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdl import CNNClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = CNNClassifier(image_shape=(8, 8), max_epochs=5, random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.95
    True
    >>> clf.transform(X).shape
    (1797, 256)
    """

    label_smoothing: float | str = "auto"

    _parameter_constraints = {
        **ImageNetworkEstimator._parameter_constraints,
        **CLASSIFICATION_CONSTRAINTS,
        "label_smoothing": [StrOptions({"auto"}), *CLASSIFICATION_CONSTRAINTS["label_smoothing"]],
    }

    def _auto_label_smoothing(self) -> float:
        return AUTO_LABEL_SMOOTHING if takes_label_smoothing(self.loss) else 0.0

    def _loss_setting(self, name: str) -> float:
        if name == "label_smoothing" and is_auto(self.label_smoothing):
            return self._auto_label_smoothing()
        return super()._loss_setting(name)


@documented(
    loss=REGRESSION_LOSS_DOC,
    quantiles=QUANTILES_DOC,
    image=IMAGE_DOC,
    network=REGRESSOR_CONV_DOC,
    training=with_entries(CNN_TRAINING_DOC, **REGRESSION_TRAINING),
    fitted=with_entries(CNN_FITTED_DOC, **REGRESSION_FITTED),
    **IMAGE_METHODS,
    **REGRESSION_METHODS,
    partial_fit_example="""
>>> from sklearn.datasets import load_digits
>>> from skdl import CNNRegressor
>>> images = load_digits().images[:80]
>>> reg = CNNRegressor(conv_channels=8, random_state=0).partial_fit(images[:40], images[:40].mean((1, 2)))
>>> reg.partial_fit(images[40:], images[40:].mean((1, 2))).n_iter_
2
""",
    transform_example="""
>>> from sklearn.datasets import load_digits
>>> from skdl import CNNRegressor
>>> images = load_digits().images[:80]
>>> reg = CNNRegressor(conv_channels=8, max_epochs=2, random_state=0).fit(images, images.mean((1, 2)))
>>> reg.transform(images[:10]).shape  # 8 channels, averaged to 2 x 2
(10, 32)
""",
    explain_example="""
>>> from sklearn.datasets import load_digits
>>> from skdl import CNNRegressor
>>> images = load_digits().images[:80]
>>> reg = CNNRegressor(conv_channels=8, max_epochs=2, random_state=0).fit(images, images.mean((1, 2)))
>>> reg.explain(images[:10], method="occlusion").shape
(10, 8, 8)
""",
)
@dataclass(kw_only=True, eq=False, repr=False)
class CNNRegressor(NetworkRegressorMixin, ImageNetworkEstimator):
    """Convolutional network for regression on images.

    One or several targets are standardised for training and predicted in their own units. X is as in
    :class:`CNNClassifier`.

    Parameters
    ----------
    {loss}
    {quantiles}
    {image}
    {network}
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    CNNClassifier : Classification of images.

    Examples
    --------
    >>> import numpy as np
    >>> from skdl import CNNRegressor
    >>> images = np.random.default_rng(0).normal(size=(60, 8, 8))
    >>> CNNRegressor(max_epochs=2, random_state=0).fit(images, images.mean((1, 2))).predict(images).shape
    (60,)
    """

    _parameter_constraints = {**ImageNetworkEstimator._parameter_constraints, **REGRESSION_CONSTRAINTS}
