"""Recurrent networks for series: ``RNNClassifier`` and ``RNNRegressor``.

Axes: B series, D numbers of an encoded one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier
from sklearn.utils import Tags, _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skdl.closed_form.skip import SKIP_FEATURES
from skdl.data.counts import check_counts
from skdl.data.folds import Fold, block_folds, last_fold
from skdl.data.series.series_encoder import SERIES_SCALINGS, SeriesEncoder, continued_channel
from skdl.data.series.series_reading import Series, SeriesWithTable, series_values
from skdl.data.table import Table
from skdl.engine.device import with_torch_defaults
from skdl.engine.job import Plan, Samples
from skdl.estimators.base import LONE_VALIDATION_FRACTION
from skdl.estimators.checks import FitData
from skdl.estimators.embedding import EmbeddingMixin
from skdl.estimators.explaining import check_method, explained_outputs
from skdl.estimators.parameters import (
    FITTED_DOC,
    TRAINING_DOC,
    TrainingParameters,
    documented,
    is_auto,
    with_defaults,
    with_entries,
)
from skdl.estimators.quantiles import QUANTILES_DOC
from skdl.estimators.series.blended import BlendedEstimator
from skdl.estimators.series.checks import check_series
from skdl.estimators.series.explaining import SERIES_EXPLANATIONS
from skdl.estimators.series.recurrent_architecture import recurrent_architecture
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
from skdl.nn.recurrent import CELLS, POOLINGS, RecurrentArchitecture

#: Networks of an "auto" ensemble, if rows are held out.
AUTO_MEMBERS = 4
#: Training series from which "auto" early stopping holds rows out, whatever ``skip`` is.
HELD_OUT_ROWS = 30
#: Training steps that "auto" epochs aim at.
AUTO_STEPS = 1500
#: Fewest "auto" epochs.
MIN_EPOCHS = 15
#: Most "auto" epochs, but for forecasts.
MAX_EPOCHS = 100
#: Most "auto" epochs of forecasts.
MAX_FORECAST_EPOCHS = 30

SERIES_DOC = """
layout : {"channels_first", "time_first"}, default="channels_first"
    Axis order of series with several channels: (n, channels, time) or (n, time, channels).
series_scaling : {"auto", "last", "mean", "standard"} or None, default="auto"
    What is subtracted from each series before anything is learned: "last", its last value; "mean", its mean;
    "standard", its mean, and the rest is divided by its standard deviation. In forecasts, where the target continues a
    channel, this applies to that channel only and is undone in the predictions (Kim et al. 2022), so that a series at
    another level gets the same forecast relative to that level. "auto" is "last" if the last value of a channel
    predicts all targets better than their means do, and None otherwise. If under "auto" the last value says more about
    the targets than the shape of the series does, as in series that revert to a mean, it is also an input, clipped to
    the range of training: then, and under None, levels matter.
"""

RECURRENT_DOC = """
cell : {"gru", "lstm", "rnn"}, default="gru"
    Gated recurrent unit (Cho et al. 2014), long short-term memory (Hochreiter and Schmidhuber 1997), or plain units
    with tanh.
hidden_size : int or "auto", default="auto"
    Number of units of a recurrent layer, in each direction. "auto" is 64, or 128 in forecasts (where a channel
    continues into the target) with 1,000 training series or more.
num_layers : int, default=1
    Number of recurrent layers.
bidirectional : bool or "auto", default="auto"
    Whether each layer also runs backwards. "auto" does so except in forecasts.
stem : {"auto", "patch", "conv"} or None, default="auto"
    What precedes the recurrent layers: a dense layer on patches of neighbouring steps (Lin et al. 2023), convolutions
    with batch normalisation and relu, whose means over the steps are also inputs of the dense layers, or nothing.
    "auto" uses patches in forecasts and convolutions otherwise, and nothing for series of fewer than 16 steps.
patch_size : int or "auto", default="auto"
    Number of steps of a patch. The last patch ends where the series ends. "auto" is 8, fewer for short series, and for
    long series as many as limit the number of patches to 32.
conv_channels : tuple of int or "auto", default="auto"
    Number of channels of each convolution; kernel sizes are 7, 5, 3, 3, ... As many convolutions halve the series as
    leave about 24 steps. "auto" is (48, 96, 96), with further layers of 96 for series of more than about 270 steps.
pooling : {"auto", "last", "mean", "max", "attention"} or tuple of them, default="auto"
    How the states of all steps are combined. "auto" is "last" in forecasts, and ("last", "mean", "max") otherwise.
hidden_layer_sizes : tuple of int or "auto", default="auto"
    Number of units of the dense layers after the pooling. "auto" is one layer of twice ``hidden_size`` in forecasts,
    and none otherwise.
dropout : float in [0, 1), default=0.2
    Fraction of the inputs of dense layers, and of recurrent layers after the first, dropped in each training step; for
    recurrent layers the same ones at all steps of a series (Gal and Ghahramani 2016).
skip : {"auto", "linear", "convolution"} or None, default="auto"
    A closed-form ridge regression beside the networks, not a skip connection inside them: on the last steps ("linear"),
    or on the fractions of steps at which random convolutions exceed thresholds ("convolution", Dempster et al. 2021).
    Networks and regression are blended with non-negative weights, fitted to their predictions of held-out rows; see
    ``blend_weights_``. "auto" is whichever predicts held-out rows better, but "linear" for series of fewer than 9
    steps; without held-out rows there is no ridge regression. None is the networks alone.
validation : {"auto", "random", "blocks", "time"}, default="auto"
    Which rows networks hold out: "random", rows stratified by the rank of a single target; "blocks", stretches of
    neighbouring rows, one per network (the last one for a single network); "time", the last rows, the same for each
    network. "auto" is "blocks" in forecasts, because overlapping windows would leak the held-out ones, and "random"
    otherwise. Rows should then be in time order. On each side of a stretch, one row fewer than there are targets is
    left out of training, at most a quarter of the rows outside the stretch. If ``fit`` is given ``groups``, "auto" and
    "random" hold out whole groups, and the others are refused.
"""

#: Of classifiers, which make no forecasts.
CLASSIFIER_SERIES_DOC = with_entries(
    SERIES_DOC,
    series_scaling="""
series_scaling : {"auto", "last", "mean", "standard"} or None, default="auto"
    What is subtracted from each series before anything is learned: "last", its last value; "mean", its mean;
    "standard", its mean, and the rest is divided by its standard deviation. "auto" and None leave series as they are.
""",
)
CLASSIFIER_RECURRENT_DOC = with_entries(
    RECURRENT_DOC,
    hidden_size="""
hidden_size : int or "auto", default="auto"
    Number of units of a recurrent layer, in each direction. "auto" is 64.
""",
    bidirectional="""
bidirectional : bool or "auto", default="auto"
    Whether each layer also runs backwards. "auto" is True.
""",
    stem="""
stem : {"auto", "patch", "conv"} or None, default="auto"
    What precedes the recurrent layers: a dense layer on patches of neighbouring steps (Lin et al. 2023), convolutions
    with batch normalisation and relu, whose means over the steps are also inputs of the dense layers, or nothing.
    "auto" uses convolutions, and nothing for series of fewer than 16 steps.
""",
    pooling="""
pooling : {"auto", "last", "mean", "max", "attention"} or tuple of them, default="auto"
    How the states of all steps are combined. "auto" is ("last", "mean", "max").
""",
    hidden_layer_sizes="""
hidden_layer_sizes : tuple of int or "auto", default="auto"
    Number of units of the dense layers after the pooling. "auto" is none.
""",
    validation="""
validation : {"auto", "random", "blocks", "time"}, default="auto"
    Which rows networks hold out: "random", rows stratified by class; "blocks", stretches of neighbouring rows, one per
    network (the last one for a single network); "time", the last rows, the same for each network. Rows should be in
    time order for the last two. "auto" is "random". If ``fit`` is given ``groups``, "auto" and "random" hold out whole
    groups, and the others are refused.
""",
)

RNN_TRAINING_DOC = with_entries(
    with_defaults(TRAINING_DOC, learning_rate="2e-3", lr_schedule='"one_cycle"', weight_decay="0.01"),
    gradient_clip="""
gradient_clip : float or None, default=1
    Maximum norm of the gradient over all parameters, which keeps gradients of long series from exploding.
""",
    batch_size="""
batch_size : int or "auto", default="auto"
    Number of series per training step, of similar lengths if they differ. "auto" is 64, or 32 for fewer than 1,000
    series.
""",
    max_epochs="""
max_epochs : int or "auto", default="auto"
    Number of passes over the training series. "auto" aims at about 1,500 steps of the "auto" batch size, between 15 and
    100 epochs, or at most 30 in forecasts.
""",
    early_stopping="""
early_stopping : bool or "auto", default="auto"
    Whether to stop when the score of held-out rows no longer improves, and keep the parameters of the best epoch.
    "auto" does so if ``fit`` is given ``X_val``. Otherwise, with 30 series or more, or if ``skip`` names features, it
    holds rows out for the blend with ``skip``, ``out_of_fold_`` and standard deviations, and trains every network to
    the end of its schedule.
""",
    validation_fraction="""
validation_fraction : float in (0, 1) or "auto", default="auto"
    Fraction of the rows that each network holds out; see ``validation`` for which. With "auto", several networks hold
    out one fold each, so that every row trains all networks but one; a single network holds out 10 %, and so does each
    of several under ``validation="time"``.
""",
    n_members="""
n_members : int or "auto", default="auto"
    Number of networks to train and average. "auto" is 4 if rows are held out, and 1 otherwise.
""",
    warm_start="""
warm_start : bool, default=False
    Whether ``fit`` continues from the parameters and the optimiser state of the last ``fit``, with its encoding of the
    series and of y; the regression of ``skip`` and the blend weights are fitted anew. On the same rows each network
    holds out the same rows as in the last ``fit``; on other rows, scores and ``out_of_fold_`` may include rows that it
    was trained on then.
""",
)
CLASSIFIER_TRAINING_DOC = with_entries(
    RNN_TRAINING_DOC,
    early_stopping="""
early_stopping : bool or "auto", default="auto"
    Whether to stop when the score of held-out rows no longer improves, and keep the parameters of the best epoch.
    "auto" does so if ``fit`` is given ``X_val``. Otherwise, with 30 series or more, or if ``skip`` names features, it
    holds rows out for the blend with ``skip`` and for ``out_of_fold_``, and trains every network to the end of its
    schedule.
""",
    tol=CLASSIFICATION_TRAINING["tol"],
    max_epochs="""
max_epochs : int or "auto", default="auto"
    Number of passes over the training series. "auto" aims at about 1,500 steps of the "auto" batch size, between 15 and
    100 epochs.
""",
)

RNN_FITTED_DOC = (
    with_entries(
        FITTED_DOC,
        n_features_in_="""
n_features_in_ : int
    Number of columns of X, if it was rows of one channel.
""",
        feature_names_in_="""
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of the columns of X, if it was a DataFrame of such rows and all are strings.
""",
    ).rstrip()
    + """
blend_weights_ : dict of str to float
    Weights by which the outputs of "network" and "skip" are multiplied before they are added; if the level is removed,
    they multiply the difference from the level of the series.
n_channels_ : int
    Number of channels of the series.
n_static_ : int
    Number of columns of the table beside the series.
"""
)

SERIES_METHODS = {
    "training_X": """
X : array-like of series, n_samples of them
    Training data: an array of shape (n_samples, n_channels, n_steps), or (n_samples, n_steps, n_channels) under
    ``layout="time_first"``; a list of such arrays without the first axis, of any lengths, or of DataFrames with a row
    per step; rows of shape (n_samples, n_steps) of one channel; or a tuple, or :class:`skdl.SeriesWithTable`, of one of
    these and a table with a row per series. NaN is a missing value, at the end of a series padding.
""",
    "X": """
X : array-like of series, n_samples of them
    Series, in any of the forms that ``fit`` accepts, with the channels of ``fit`` and a table if there was one. They
    may be longer or shorter than in ``fit``; but if ``fit`` was given rows of one channel, rows must be as long.
""",
    "X_errors": """
NotFittedError
    If the estimator is not fitted.
TypeError
    If X is of a type that is not supported, such as a dict or a sparse matrix.
ValueError
    If X has other channels or another table than in ``fit``, no series, infinite numbers, or a series without any
    value.
""",
    "partial_fit": """
The first call fixes how series are encoded, such as the scales of channels, and the architecture that follows from
them: give it a representative batch. The ridge regression of ``skip`` and the blend weights are not trained: they stay
as ``fit`` left them, and without an earlier ``fit`` there are none.
""",
}


@dataclass(kw_only=True, eq=False, repr=False)
class SeriesNetworkEstimator(EmbeddingMixin, BlendedEstimator):
    """A recurrent network on series, with a closed-form path beside it."""

    layout: str = "channels_first"
    series_scaling: str | None = "auto"
    cell: str = "gru"
    hidden_size: int | str = "auto"
    num_layers: int = 1
    bidirectional: bool | str = "auto"
    stem: str | None = "auto"
    patch_size: int | str = "auto"
    conv_channels: Any = "auto"
    pooling: Any = "auto"
    hidden_layer_sizes: Any = "auto"
    dropout: float = 0.2
    skip: str | None = "auto"
    validation: str = "auto"
    learning_rate: float = 2e-3
    lr_schedule: str = "one_cycle"
    weight_decay: float = 0.01
    gradient_clip: float | None = 1.0

    _network_constraints = {
        "layout": [StrOptions({"channels_first", "time_first"})],
        "series_scaling": [None, StrOptions({"auto", *SERIES_SCALINGS})],
        "cell": [StrOptions(set(CELLS))],
        "hidden_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "num_layers": [Interval(Integral, 1, None, closed="left")],
        "bidirectional": ["boolean", StrOptions({"auto"})],
        "stem": [None, StrOptions({"auto", "patch", "conv"})],
        "patch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "conv_channels": [StrOptions({"auto"}), "array-like", Interval(Integral, 1, None, closed="left")],
        "pooling": [StrOptions({"auto", *POOLINGS}), "array-like"],
        "hidden_layer_sizes": [StrOptions({"auto"}), "array-like", Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "skip": [None, StrOptions({"auto", *SKIP_FEATURES})],
        "validation": [StrOptions({"auto", "random", "blocks", "time"})],
    }
    _parameter_constraints = {**TrainingParameters._training_constraints, **_network_constraints}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        # Embeddings have the precision of the network.
        tags.transformer_tags.preserves_dtype = []
        return tags

    # --- fit -----------------------------------------------------------------------------------------------------

    def _check_X(self, X: Any, *, reset: bool) -> Series:
        return check_series(self, X, reset=reset)

    def _make_encoder(self, dtype: np.dtype) -> SeriesEncoder:
        # What is given back to a logarithm of the mean would be a factor.
        scaling = None if self._task.has_log_link else self.series_scaling
        return SeriesEncoder(dtype, scaling)

    def _drawn_folds(
        self, data: FitData, n_members: int, fraction: float | None, random_state: np.random.RandomState
    ) -> list[Fold]:
        if data.groups is not None and self.validation in ("blocks", "time"):
            raise ValueError(
                f"validation={self.validation!r} holds out the last rows or successive ones, and groups whole groups. "
                "Leave groups out, or set validation='auto'."
            )
        kind = self._auto_validation(data) if is_auto(self.validation) else self.validation
        if kind == "random" or data.groups is not None:
            return super()._drawn_folds(data, n_members, fraction, random_state)
        # So many rows beside held-out ones forecast some of the same steps.
        gap = 0 if is_classifier(self) or data.y.ndim == 1 else data.y.shape[1] - 1
        if kind == "blocks" and n_members > 1:
            return block_folds(data.rows, n_members, fraction, gap)
        # All hold out the same rows, as many as one alone.
        return [last_fold(data.rows, LONE_VALIDATION_FRACTION if fraction is None else fraction, gap)] * n_members

    def _stops_early(self, validates: bool, has_validation: bool) -> bool:
        # The schedule ends at its best, and networks that stop where their held-out rows like it best make those rows
        # look easier than others are.
        return validates and (has_validation or not is_auto(self.early_stopping))

    def _shown_rows(self, data: FitData, rows: NDArray[np.intp]) -> Any:
        X = data.given_X
        if not isinstance(X, tuple):
            return _safe_indexing(X, rows)
        # scikit-learn takes no rows of a tuple.
        shown = SeriesWithTable(*X)[rows]
        return shown.series, shown.table

    # --- "auto"; of the architecture see recurrent_architecture.py, of skip see blended.py ------------------------

    def _auto_batch_size(self, n_rows: int) -> int:
        return 64 if n_rows >= 1000 else 32

    def _auto_max_epochs(self, n_rows: int, stops: bool) -> int:
        n_steps = -(-n_rows // self._auto_batch_size(n_rows))
        most = MAX_FORECAST_EPOCHS if self._encoder.is_forecast else MAX_EPOCHS
        return int(np.clip(round(AUTO_STEPS / n_steps), MIN_EPOCHS, most))

    def _auto_early_stopping(self, n_rows: int, has_validation: bool) -> bool:
        return has_validation or n_rows >= HELD_OUT_ROWS or self.skip not in (None, "auto")

    def _auto_n_members(self, n_rows: int, holds_out: bool) -> int:
        return min(AUTO_MEMBERS, n_rows) if holds_out else 1

    def _auto_validation(self, data: FitData) -> str:
        if is_classifier(self):
            return "random"
        goes_on = continued_channel(data.X[data.rows], data.y[data.rows], data.weight_of(data.rows))
        return "random" if goes_on is None else "blocks"

    # --- the network ---------------------------------------------------------------------------------------------

    def _architecture(self) -> RecurrentArchitecture:
        return recurrent_architecture(self, self._encoder, self.n_outputs_, self._denormalization())

    def _plan(self, samples: Samples) -> Plan:
        plan = super()._plan(samples)
        has_equal_lengths = samples.table.sizes is None
        return replace(
            plan,
            architecture=replace(cast(RecurrentArchitecture, plan.architecture), has_equal_lengths=has_equal_lengths),
        )

    # --- predict -------------------------------------------------------------------------------------------------

    def _apply_to_table(self, X: Any, compute: Callable[[Table], NDArray]) -> NDArray:
        check_is_fitted(self, "network_")
        rows, computed = [], []
        for rows_of_part, part in self._check_X(X, reset=False).by_length():
            rows.append(rows_of_part)
            computed.append(super()._apply_to_table(part, compute))
        return np.concatenate(computed, axis=-2)[..., np.argsort(np.concatenate(rows)), :]

    @with_torch_defaults
    def explain(self, X: Any, y: ArrayLike | None = None, *, method: str = "occlusion") -> NDArray[np.float64]:
        """Show which steps and channels an output depends on.

        Parameters
        ----------
        {X}
        {explained_y}
        method : {"occlusion", "integrated_gradients"}, default="occlusion"
            "occlusion" explains the whole model: the decrease of the output when a sixteenth of the steps of one
            channel is replaced by the mean of the channel, or by the level of the series if that is removed.
            "integrated_gradients" (Sundararajan et al. 2017) explains the networks alone, step by step, relative to
            such a series.

        Returns
        -------
        maps : ndarray of shape (n_samples, n_channels, n_steps), or (n_samples, n_steps, n_channels) under "time_first"
            Larger where a step supports the output, in units of that output; 0 after the end of a series.

        Raises
        ------
        {X_errors}
        {explained_y_errors}

        Examples
        --------
        {explain_example}
        """
        check_is_fitted(self, "network_")
        check_method(method, SERIES_EXPLANATIONS)
        checked = self._check_X(X, reset=False)
        x_BD = self._encoder.transform(checked).values
        target = torch.as_tensor(explained_outputs(self, checked, y))
        maps = SERIES_EXPLANATIONS[method](self, x_BD, target)
        return np.swapaxes(maps, 1, 2) if self.layout == "time_first" else maps


@documented(
    loss=CLASSIFICATION_LOSS_DOC,
    classification=CLASSIFICATION_DOC,
    series=CLASSIFIER_SERIES_DOC,
    network=CLASSIFIER_RECURRENT_DOC,
    training=CLASSIFIER_TRAINING_DOC,
    fitted=with_entries(
        RNN_FITTED_DOC,
        **CLASSIFICATION_FITTED,
        blend_weights_="""
blend_weights_ : dict of str to float
    Weights by which the outputs of "network" and "skip" are multiplied before they are added.
""",
    ),
    **SERIES_METHODS,
    **CLASSIFICATION_METHODS,
    partial_fit_example="""
>>> import numpy as np
>>> from skdl import RNNClassifier
>>> y = np.arange(60) % 3
>>> X = np.sin((1 + y[:, np.newaxis]) * np.arange(20) / 3)[:, np.newaxis]
>>> clf = RNNClassifier(hidden_size=8, random_state=0).partial_fit(X[:30], y[:30])
>>> clf.partial_fit(X[30:], y[30:]).n_iter_
2
""",
    predict_proba_example="""
>>> import numpy as np
>>> from skdl import RNNClassifier
>>> y = np.arange(60) % 3
>>> X = np.sin((1 + y[:, np.newaxis]) * np.arange(20) / 3)[:, np.newaxis]
>>> clf = RNNClassifier(hidden_size=8, n_members=2, max_epochs=2, random_state=0).fit(X, y)
>>> clf.predict_proba(X).shape
(60, 3)
""",
    transform_example="""
>>> import numpy as np
>>> from skdl import RNNClassifier
>>> y = np.arange(60) % 3
>>> X = np.sin((1 + y[:, np.newaxis]) * np.arange(20) / 3)[:, np.newaxis]
>>> clf = RNNClassifier(stem=None, hidden_size=8, n_members=1, max_epochs=2, random_state=0).fit(X, y)
>>> clf.transform(X).shape  # 8 units in 2 directions, combined in 3 ways
(60, 48)
""",
    explain_example="""
>>> import numpy as np
>>> from skdl import RNNClassifier
>>> y = np.arange(60) % 3
>>> X = np.sin((1 + y[:, np.newaxis]) * np.arange(20) / 3)[:, np.newaxis]
>>> clf = RNNClassifier(hidden_size=8, n_members=2, max_epochs=2, random_state=0).fit(X, y)
>>> clf.explain(X[:5], y[:5]).shape
(5, 1, 20)
""",
)
@dataclass(kw_only=True, eq=False, repr=False)
class RNNClassifier(NetworkClassifierMixin, SeriesNetworkEstimator):
    """Recurrent network for classification of series.

    X may be an array of series ``(n, channels, time)``, a list of arrays ``(channels, time)`` of unequal lengths, rows
    ``(n, time)`` of one channel, or a tuple of one of these and a table with one row per series. NaN is a missing
    value; at the end of a series it is padding, which has no effect.

    Parameters
    ----------
    {loss}
    {classification}
    {series}
    {network}
    {training}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or (2, 2)
        The labels; for multilabel targets the numbers of the columns of y, or 0 and 1 for each of two columns.
    {fitted}

    See Also
    --------
    RNNRegressor : Regression on series, and forecasts.

    Examples
    --------
    >>> import numpy as np
    >>> from skdl import RNNClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = [np.sin((1 + label) * np.arange(rng.integers(30, 50))) + rng.normal(size=1) for label in y]
    >>> RNNClassifier(max_epochs=10, random_state=0).fit(X, y).score(X, y)
    1.0
    """

    _parameter_constraints = {**SeriesNetworkEstimator._parameter_constraints, **CLASSIFICATION_CONSTRAINTS}


@documented(
    loss=REGRESSION_LOSS_DOC,
    quantiles=QUANTILES_DOC,
    series=SERIES_DOC,
    network=RECURRENT_DOC,
    training=with_entries(RNN_TRAINING_DOC, tol=REGRESSION_TRAINING["tol"]),
    fitted=with_entries(RNN_FITTED_DOC, **REGRESSION_FITTED),
    **SERIES_METHODS,
    **REGRESSION_METHODS,
    partial_fit_example="""
>>> import numpy as np
>>> from skdl import RNNRegressor, window
>>> X, y = window(np.sin(np.arange(80) / 4), lags=16, horizon=4)
>>> reg = RNNRegressor(hidden_size=8, random_state=0).partial_fit(X[:30], y[:30])
>>> reg.partial_fit(X[30:], y[30:]).n_iter_
2
""",
    transform_example="""
>>> import numpy as np
>>> from skdl import RNNRegressor, window
>>> X, y = window(np.sin(np.arange(80) / 4), lags=16, horizon=4)
>>> reg = RNNRegressor(hidden_size=8, n_members=1, max_epochs=2, random_state=0).fit(X, y)
>>> reg.transform(X).shape  # the dense layer has twice as many units
(61, 16)
""",
    explain_example="""
>>> import numpy as np
>>> from skdl import RNNRegressor, window
>>> X, y = window(np.sin(np.arange(80) / 4), lags=16, horizon=4)
>>> reg = RNNRegressor(hidden_size=8, n_members=2, max_epochs=2, random_state=0).fit(X, y)
>>> reg.explain(X[:5], [3] * 5).shape  # the last step of the horizon
(5, 1, 16)
""",
)
@dataclass(kw_only=True, eq=False, repr=False)
class RNNRegressor(NetworkRegressorMixin, SeriesNetworkEstimator):
    """Recurrent network for regression on series and for forecasts.

    y contains one value per series, several targets, or the steps of a horizon; :func:`skdl.window` makes such X and y
    from long tables. X is as in :class:`RNNClassifier`.

    Parameters
    ----------
    {loss}
    {quantiles}
    {series}
    {network}
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    RNNClassifier : Classification of series.
    skdl.window : Windows from long tables.

    Examples
    --------
    >>> import numpy as np
    >>> from skdl import RNNRegressor, window
    >>> rng = np.random.default_rng(0)
    >>> load = np.sin(np.arange(400) / 4) + 0.1 * rng.normal(size=400)
    >>> X, y = window(load, lags=24, horizon=6)
    >>> forecaster = RNNRegressor(max_epochs=5, random_state=0).fit(X, y)
    >>> forecaster.predict(X[-1:]).shape
    (1, 6)
    >>> forecaster.forecast(window(load, lags=24, last=True), 15).shape
    (1, 15)
    """

    _parameter_constraints = {**SeriesNetworkEstimator._parameter_constraints, **REGRESSION_CONSTRAINTS}

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict values.

        Parameters
        ----------
        {X}
        return_std : bool, default=False
            Whether to also return the standard deviation of each prediction's error.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, horizon); (..., n_quantiles) for several quantiles
            Values in the units of y as float64.
        std : ndarray like y
            Only if ``return_std``: the square root of the sum of two variances, that between the networks at the
            sample, and the part of the squared error on held-out or validation rows that the first one does not
            explain, in the units of y. Without such rows in the last ``fit``, only the first variance is used, with a
            warning. If the level is removed, series without any value in its channel get at least the standard
            deviation of y in training.

        Raises
        ------
        {X_errors}
        ValueError
            If ``return_std`` with ``loss="quantile"``, or with neither held-out or validation rows nor several
            networks.
        """
        if not return_std:
            return super().predict(X)
        check_is_fitted(self, "network_")
        series = self._check_X(X, reset=False)
        mean, std = super().predict(series, return_std=True)
        # Networks agree on the usual level, and held-out rows were those of series with a level.
        unknown = self._encoder.lacks_level(series)
        std[unknown] = np.maximum(std[unknown], self._task.scale[0] if self._task.is_single else self._task.scale)
        return mean, std

    def forecast(self, X: Any, n_steps: int) -> NDArray[np.float64]:
        """Forecast beyond the horizon of the fit, by feeding predictions back as input.

        Errors accumulate. If there are enough data, a fit on targets of the whole horizon, which ``predict`` then
        returns at once, forecasts better.

        Targets of the fit must be the steps that follow the series, in order and in the units of the channel, as
        :func:`skdl.window` returns them. The estimator cannot check this; with other targets, forecasts are
        meaningless.

        Parameters
        ----------
        {X}
        n_steps : int
            Number of steps to forecast.

        Returns
        -------
        y : ndarray of shape (n_samples, n_steps); (n_samples, n_steps, n_quantiles) for several quantiles
            In the units of y. With several quantiles, the one nearest to the median is fed back, so bands beyond the
            first horizon are too narrow.

        Raises
        ------
        {X_errors}
        ValueError
            If series have several channels, whose future is not known, or ``n_steps`` is not a positive integer.

        Examples
        --------
        >>> import numpy as np
        >>> from skdl import RNNRegressor, window
        >>> load = np.sin(np.arange(80) / 4)
        >>> X, y = window(load, lags=16, horizon=4)
        >>> reg = RNNRegressor(hidden_size=8, n_members=2, max_epochs=2, random_state=0).fit(X, y)
        >>> reg.forecast(window(load, lags=16, last=True), 10).shape
        (1, 10)
        """
        check_is_fitted(self, "network_")
        check_counts(n_steps=n_steps)
        past = self._check_X(X, reset=False)
        if past.shape[1] != 1:
            raise ValueError(
                "forecast feeds its predictions back as input, so series must have one channel. "
                f"X has {past.shape[1]}. Fit on targets of the whole horizon and use predict."
            )
        series = [values[0, :length] for values, length in zip(past.values, past.lengths, strict=True)]
        parts: list[NDArray[np.float64]] = []
        while sum(part.shape[1] for part in parts) < n_steps:
            part = self.predict(Series.of(cast(NDArray, series_values(series, "channels_first")), past.static))
            parts.append(part[:, np.newaxis] if self._task.is_single else part)
            # As long as before: what the network has not seen is how long series become.
            ahead = zip(series, self._middle(parts[-1]), strict=True)
            series = [np.append(one, more)[-len(one) :] for one, more in ahead]
        return np.concatenate(parts, axis=1)[:, :n_steps]
