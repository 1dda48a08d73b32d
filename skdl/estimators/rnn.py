"""Recurrent networks for series: ``RNNClassifier`` and ``RNNRegressor``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, is_classifier
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn import functional as F

from skdl.data.sequences import Reversal, SequenceEncoder, Series, check_series, continued_channel
from skdl.data.table import DenseTable, Table
from skdl.engine.device import resolve_device
from skdl.engine.folds import Fold, held_out_rows
from skdl.engine.job import Job, Result
from skdl.engine.predict import network_outputs
from skdl.estimators.base import LONE_VALIDATION_FRACTION, NetworkEstimator
from skdl.estimators.explaining import class_outputs, explained_outputs
from skdl.estimators.parameters import (
    FITTED_DOC,
    TRAINING_DOC,
    TrainingParameters,
    documented,
    layer_sizes,
    with_entries,
)
from skdl.estimators.supervised import (
    CLASSIFICATION_CONSTRAINTS,
    CLASSIFICATION_DOC,
    CLASSIFICATION_LOSS_DOC,
    QUANTILE_DOC,
    REGRESSION_CONSTRAINTS,
    REGRESSION_LOSS_DOC,
    NetworkClassifierMixin,
    NetworkRegressorMixin,
)
from skdl.estimators.validation import FitData
from skdl.nn.explain import integrated_gradients
from skdl.nn.recurrent import CELLS, ConvLayer, RecurrentModule, RecurrentNetwork
from skdl.nn.skip import SkipPath
from skdl.tasks.blending import blend_weights
from skdl.tasks.classification import ClassificationTask
from skdl.tasks.regression import QuantilesTask, RegressionTask

#: Networks of an "auto" ensemble, and training series from which rows are held out for them.
AUTO_MEMBERS, HELD_OUT_ROWS = 4, 30
#: Training steps that "auto" epochs aim at, and bounds on the epochs, of forecasts as well.
AUTO_STEPS, FEWEST_EPOCHS, MOST_EPOCHS, MOST_FORECAST_EPOCHS = 1500, 15, 100, 30
#: Steps of a series from which "auto" takes convolutions and patches, and steps that they should leave.
STEM_STEPS, INNER_STEPS = 16, 24
#: Channels of the convolutions of an "auto" stem, and kernel sizes of any, the last one of all that follow.
AUTO_CONV, CONV_SIZES = (48, 96, 96), (7, 5, 3)
#: "auto" units, and those of forecasts from so many training series on.
AUTO_UNITS, MANY_UNITS, MANY_ROWS = 64, 128, 1000
#: Most series that the skip path is fitted to, evenly spaced.
SKIP_ROWS = 10_000
#: Steps of the shortest series from which random convolutions are tried.
CONVOLUTION_STEPS = 9

POOLINGS = ("last", "mean", "max", "attention")

SERIES_DOC = """
layout : {"channels_first", "time_first"}, default="channels_first"
    How series of several channels stand: (n, channels, time) or (n, time, channels).
series_scaling : {"auto", "last", "mean", "standard"} or None, default="auto"
    What is taken out of each series by itself before anything is learned: its last value, its mean, or its mean and
    its deviation. Where a channel goes on into the target, it is taken out of that channel alone and given back to the
    predictions (Kim et al. 2022), so that levels that were not there in training do no harm. "auto" is "last" where
    the last value of a channel is a better guess of all targets than their means are, else None.
"""

RECURRENT_DOC = """
cell : {"gru", "lstm", "rnn"}, default="gru"
    Gated recurrent unit (Cho et al. 2014), long short-term memory (Hochreiter and Schmidhuber 1997), or plain units
    with tanh.
hidden_size : int or "auto", default="auto"
    Units of a recurrent layer, in each direction. "auto" is 64, or 128 where a channel goes on into the target and
    there are 1,000 training series or more.
num_layers : int, default=1
    Recurrent layers.
bidirectional : bool or "auto", default="auto"
    Whether each layer runs backwards as well. "auto" does so unless a channel goes on into the target.
stem : {"auto", "patch", "conv"} or None, default="auto"
    What stands in front of the recurrent layers: a dense layer on patches of neighbouring steps (Lin et al. 2023),
    convolutions with batch normalisation and relu, or nothing. "auto" takes patches where a channel goes on into the
    target, else convolutions; nothing for series of fewer than 16 steps.
patch_size : int or "auto", default="auto"
    Steps of a patch. Patches end where the series ends. "auto" is 8, less for short series, and for long ones so many
    that there are at most 32 patches.
conv_channels : tuple of int or "auto", default="auto"
    Channels of each convolution, of kernel sizes 7, 5, 3, 3, ... As many of them halve the series as leave about 24
    steps. "auto" is (48, 96, 96), and more of 96 for series of more than about 270 steps.
pooling : {"auto", "last", "mean", "max", "attention"} or tuple of them, default="auto"
    What the states of all steps become. "auto" is "last" where a channel goes on into the target, else ("last",
    "mean", "max").
hidden_layer_sizes : tuple of int or "auto", default="auto"
    Units of the dense layers after the pooling. "auto" is one layer of twice ``hidden_size`` where a channel goes on
    into the target, else none.
dropout : float in [0, 1), default=0.2
    Share of the inputs of dense layers, and of further recurrent layers, that a training step leaves out.
skip : {"auto", "linear", "convolution"} or None, default="auto"
    A ridge regression in closed form beside the networks: on the last steps one by one, or on shares of steps at which
    random convolutions exceed thresholds (Dempster et al. 2021). Both are blended by weights of at least 0, which are
    fitted to what each says of rows that it did not see; see ``blend_weights_``. "auto" takes convolutions for
    classification, for regression whichever predicts held-out rows better, and needs held-out rows: without them there
    is no such path. None is the pure network.
validation : {"auto", "random", "blocks", "time"}, default="auto"
    Which rows networks hold out: random ones, stratified by the target; stretches of neighbouring rows, one for each
    network; or the last ones, the same for each. "auto" is "blocks" where a channel goes on into the target: windows
    that overlap would else give the held-out ones away. Rows should then be in the order of time.
"""

RNN_TRAINING_DOC = with_entries(
    TRAINING_DOC,
    learning_rate="""
learning_rate : float, default=2e-3
    Learning rate at the height of the schedule: the number to tune first.
""",
    lr_schedule="""
lr_schedule : {"constant", "cosine", "one_cycle", "step", "exponential", "plateau"}, default="one_cycle"
    How the learning rate moves over ``max_epochs``; see :class:`MLPClassifier`.
""",
    weight_decay="""
weight_decay : float, default=0.01
    Decoupled weight decay (Loshchilov and Hutter 2019).
""",
    gradient_clip="""
gradient_clip : float or None, default=1
    Largest norm of the gradient of all parameters together, which keeps long series from blowing up.
""",
    batch_size="""
batch_size : int or "auto", default="auto"
    Series of a training step, of like lengths where they differ. "auto" takes 64, or 32 for fewer than 1,000 series.
""",
    max_epochs="""
max_epochs : int or "auto", default="auto"
    Passes over the training series. "auto" takes as many as make about 1,500 steps, between 15 and 100; at most 30
    where a channel goes on into the target.
""",
    early_stopping="""
early_stopping : bool or "auto", default="auto"
    Whether to stop when the score of held-out rows no longer improves, and keep the parameters of the best epoch.
    "auto" does so if ``fit`` is given ``X_val``. Otherwise it holds rows out, from 30 on, for the blend with ``skip``
    alone: every network is trained to the end of its schedule.
""",
    n_members="""
n_members : int or "auto", default="auto"
    Networks to train and average. "auto" is 4 where rows are held out, else 1.
""",
)

RNN_FITTED_DOC = (
    FITTED_DOC.rstrip()
    + """
blend_weights_ : dict of str to float
    What the outputs of "network" and "skip" are multiplied by before they are added up; under reversible scaling,
    their distance from the level of the series.
n_channels_ : int
    Channels of the series.
n_static_ : int
    Columns of the table beside the series.
"""
)


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceNetworkEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NetworkEstimator):
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
        "series_scaling": [None, StrOptions({"auto", "last", "mean", "standard"})],
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
        "skip": [None, StrOptions({"auto", "linear", "convolution"})],
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

    def _make_encoder(self, dtype: torch.dtype) -> SequenceEncoder:
        # What is given back to a logarithm of the mean would be a factor.
        scaling = None if self._has_log_link() else self.series_scaling
        return SequenceEncoder(dtype, scaling)

    def _has_log_link(self) -> bool:
        return bool(getattr(self._task, "has_log_link", False))

    def _prepare(self, data: FitData, train_rows: NDArray[np.intp], classes: ArrayLike | None = None) -> None:
        # Scorers and callbacks see the networks alone while these are trained.
        self._skip: SkipPath | None = None
        self.blend_weights_ = {"network": 1.0}
        super()._prepare(data, train_rows, classes)

    def _stops_early(self, n_rows: int, has_validation: bool = False) -> bool:
        if self.early_stopping == "auto":
            return has_validation or n_rows >= HELD_OUT_ROWS or self.skip in ("linear", "convolution")
        return bool(self.early_stopping)

    def _n_members(self, stops: bool) -> int:
        if isinstance(self.n_members, str):
            return len(self._optimizer_states) if self._goes_on() else (AUTO_MEMBERS if stops else 1)
        return self.n_members

    def _folds(self, data: FitData, n_members: int, random_state: np.random.RandomState) -> list[Fold]:
        kind = self.validation
        if kind == "auto":
            kind = "blocks" if self._is_forecast(data) else "random"
        fraction = self.validation_fraction
        folds = super()._folds(data, n_members, random_state)
        if kind == "random":
            return folds
        if kind == "blocks" and n_members > 1 and isinstance(fraction, str):
            return [Fold(np.setdiff1d(data.rows, block), block) for block in np.array_split(data.rows, n_members)]
        n_latest = held_out_rows(LONE_VALIDATION_FRACTION if isinstance(fraction, str) else fraction, len(data.rows))
        return [Fold(data.rows[:-n_latest], data.rows[-n_latest:])] * n_members

    def _is_forecast(self, data: FitData) -> bool:
        """Whether a channel goes on into the target."""
        if is_classifier(self):
            return False
        return continued_channel(data.X[data.rows], data.y[data.rows], data.weight_of(data.rows)) is not None

    def _jobs(self, data: FitData, folds: list[Fold], held_out: FitData | None, *rest: Any) -> list[Job]:
        jobs = super()._jobs(data, folds, held_out, *rest)
        if self.early_stopping == "auto" and held_out is None:
            # The schedule ends at its best, and networks that stop where their held-out rows like it best make those
            # rows look easier than others are.
            for job in jobs:
                job.settings = replace(job.settings, keep_best=False, n_iter_no_change=None)
        return jobs

    def _auto_epochs(self, n_rows: int, stops: bool) -> int:
        n_steps = -(-n_rows // self._auto_batch_size(n_rows))
        most = MOST_EPOCHS if self._encoder.target_channel is None else MOST_FORECAST_EPOCHS
        return int(np.clip(round(AUTO_STEPS / n_steps), FEWEST_EPOCHS, most))

    def _auto_batch_size(self, n_rows: int) -> int:
        return 64 if n_rows >= 1000 else 32

    def _dropout(self) -> float:
        return self.dropout

    # --- the network ---------------------------------------------------------------------------------------------

    def _make_network(self, encoder: SequenceEncoder, n_outputs: int) -> RecurrentNetwork:
        is_forecast = encoder.target_channel is not None
        stem = self._stem(encoder)
        hidden_size = self._hidden_size(encoder)
        hidden: tuple[int, ...] = (2 * hidden_size,) if is_forecast else ()
        if not isinstance(self.hidden_layer_sizes, str):
            hidden = layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        return RecurrentNetwork(
            layout=encoder.layout,
            n_steps=encoder.n_steps,
            n_outputs=n_outputs,
            cell=self.cell,
            hidden_size=hidden_size,
            num_layers=self.num_layers,
            bidirectional=not is_forecast if isinstance(self.bidirectional, str) else bool(self.bidirectional),
            patch_size=self._patch_size(encoder) if stem == "patch" else 1,
            conv=self._conv(encoder) if stem == "conv" else (),
            pooling=self._pooling(is_forecast),
            hidden=hidden,
            reversal=self._reversal(encoder),
        )

    def _reversal(self, encoder: SequenceEncoder) -> Reversal | None:
        if not isinstance(self._task, RegressionTask):
            return None
        return encoder.reversal(self._task.location, self._task.scale)

    def _stem(self, encoder: SequenceEncoder) -> str | None:
        if self.stem != "auto":
            return self.stem
        if encoder.median_steps < STEM_STEPS:
            return None
        return "conv" if encoder.target_channel is None else "patch"

    def _hidden_size(self, encoder: SequenceEncoder) -> int:
        if not isinstance(self.hidden_size, str):
            return self.hidden_size
        is_large = encoder.target_channel is not None and encoder.n_series >= MANY_ROWS
        return MANY_UNITS if is_large else AUTO_UNITS

    def _patch_size(self, encoder: SequenceEncoder) -> int:
        if not isinstance(self.patch_size, str):
            return self.patch_size
        # About six patches of a short series, at most 32 of a long one.
        return max(min(8, encoder.median_steps // 6), math.ceil(encoder.median_steps / 32))

    def _conv(self, encoder: SequenceEncoder) -> tuple[ConvLayer, ...]:
        n_halved = max(round(math.log2(encoder.median_steps / INNER_STEPS)), 0)
        if isinstance(self.conv_channels, str):
            # A layer for each time that a long series is halved.
            channels = AUTO_CONV + AUTO_CONV[-1:] * max(n_halved - len(AUTO_CONV), 0)
        else:
            channels = layer_sizes("conv_channels", self.conv_channels)
            if not channels:
                raise ValueError("conv_channels must name at least one layer. Use stem=None for none.")
        sizes = (*CONV_SIZES, *[CONV_SIZES[-1]] * len(channels))
        # The first layer halves last: what it skipped would never be seen.
        halves = [i >= 1 and i <= n_halved for i in range(len(channels))]
        halves[0] = n_halved >= len(channels)
        return tuple(ConvLayer(n, k, 2 if half else 1) for n, k, half in zip(channels, sizes, halves, strict=False))

    def _pooling(self, is_forecast: bool) -> tuple[str, ...]:
        if isinstance(self.pooling, str):
            if self.pooling != "auto":
                return (self.pooling,)
            return ("last",) if is_forecast else ("last", "mean", "max")
        ways = tuple(str(way) for way in self.pooling)
        if not ways or not set(ways) <= set(POOLINGS):
            raise ValueError(f"pooling must be some of {list(POOLINGS)}. Got {self.pooling!r}.")
        return ways

    # --- the skip path -------------------------------------------------------------------------------------------

    def _skip_kinds(self) -> tuple[str, ...]:
        """Features that the skip path may work on; none where there is no path."""
        if self.skip is None or (self.skip == "auto" and self._has_log_link()):
            return ()
        if self._has_log_link():
            raise ValueError(f"skip={self.skip!r} predicts means, not their logarithms. Set skip=None with this loss.")
        if self.skip != "auto":
            return (self.skip,)
        if self._encoder.shortest < CONVOLUTION_STEPS:
            return ("linear",)
        return ("convolution",) if is_classifier(self) else ("linear", "convolution")

    def _note_held_out(self, data: FitData, held_out: list[NDArray[np.intp]], results: list[Result]) -> None:
        """Fit the skip path and blend it with the networks by what both say of rows that they did not see."""
        super()._note_held_out(data, held_out, results)
        kinds = self._skip_kinds()
        if not kinds:
            return
        if self.out_of_fold_ is None:
            if self.skip != "auto":
                raise ValueError(
                    f"skip={self.skip!r} is blended with the network by rows that neither has seen, and none are held "
                    "out. Set early_stopping='auto' and leave X_val out, or set skip=None."
                )
            return
        rows = data.rows[:: -(-len(data.rows) // SKIP_ROWS)]
        folds = [np.flatnonzero(np.isin(rows, fold)) for fold in held_out]
        self._blend(data, rows, [fold for fold in folds if len(fold)], self._held_out_outputs(data, held_out, results))

    def _held_out_outputs(
        self, data: FitData, held_out: list[NDArray[np.intp]], results: list[Result]
    ) -> NDArray[np.float64]:
        """Mean outputs ``(n, O)`` of the networks for rows that they held out; NaN elsewhere."""
        sums, counts = np.zeros((len(data.y), self.n_outputs_)), np.zeros((len(data.y), 1))
        for rows, result in zip(held_out, results, strict=False):
            if result.validation_outputs is not None:
                sums[rows] += result.validation_outputs.numpy()
                counts[rows] += 1
        with np.errstate(invalid="ignore"):
            return sums / counts

    def _blend(
        self, data: FitData, rows: NDArray[np.intp], folds: list[NDArray[np.intp]], outputs: NDArray[np.float64]
    ) -> None:
        x_BD = self._encoder.transform(data.X[rows]).values
        weight = self._weight(data, rows)
        target = self._task.encode(data.y[rows], torch.float64)
        skip = self._new_skip()
        generator = torch.Generator().manual_seed(0)
        of_skip = skip.fit(x_BD, self._skip_target(target), folds, weight, generator)
        known = np.flatnonzero(np.isfinite(outputs[rows]).all(axis=1) & np.isin(np.arange(len(rows)), np.hstack(folds)))
        base = self._base(x_BD[known])
        parts = [outputs[rows[known]], of_skip[known]]
        settings = {"quantile": torch.tensor(getattr(self, "quantile", 0.5), dtype=torch.float64)}
        share = None if weight is None else weight[known]
        weights = blend_weights(parts, target[known], self._task.loss, settings, base, share)
        self._skip, self.blend_weights_ = skip, dict(zip(("network", "skip"), weights.tolist(), strict=True))
        self._note_blended(data, rows[known], of_skip[known], outputs)

    def _note_blended(
        self, data: FitData, rows: NDArray[np.intp], of_skip: NDArray[np.float64], outputs: NDArray[np.float64]
    ) -> None:
        """Keep what the blend says of rows that it did not see: ``of_skip`` is for some of those with outputs."""
        held_out = np.flatnonzero(np.isfinite(outputs).all(axis=1))
        x_BD = self._encoder.transform(data.X[held_out]).values
        is_given = np.isin(held_out, rows)
        skip_outputs = np.empty((len(held_out), self.n_outputs_))
        skip_outputs[is_given] = of_skip
        if not is_given.all():
            # The skip path was not fitted to these rows at all.
            assert self._skip is not None
            skip_outputs[~is_given] = self._skip.outputs(x_BD[torch.as_tensor(~is_given)])
        self.out_of_fold_[held_out] = self._task.values(self._blended(x_BD, outputs[held_out], skip_outputs))

    def _blended(
        self, x_BD: Tensor, of_network: NDArray[np.float64], of_skip: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The sum of both outputs, as seen from the level of the series, by the weights of the blend."""
        base, weights = self._base(x_BD), self.blend_weights_
        return base + weights["network"] * (of_network - base) + weights["skip"] * (of_skip - base)

    def _new_skip(self) -> SkipPath:
        encoder, levels = self._encoder, None
        if isinstance(self._task, RegressionTask):
            losses = {"absolute_error": (0.5,), "quantile": (getattr(self, "quantile", 0.5),)}
            levels = self._task.levels if isinstance(self._task, QuantilesTask) else losses.get(str(self.loss))
        return SkipPath(
            self._skip_kinds(),
            encoder.layout,
            encoder.shortest,
            self._reversal(encoder),
            with_steps=not is_classifier(self),
            levels=levels,
        )

    def _skip_target(self, target: Tensor) -> Tensor:
        """The targets of the skip path: labels as -1 and 1."""
        if not isinstance(self._task, ClassificationTask):
            return target
        if not target.is_floating_point():
            target = F.one_hot(target, self.n_outputs_).double()
        return 2 * target - 1

    def _base(self, x_BD: Tensor) -> NDArray[np.float64]:
        """Outputs ``(B, O)`` of a model that has learned nothing: the level of the series where it is given back."""
        zeros = torch.zeros(len(x_BD), self.n_outputs_, dtype=torch.float64)
        reversal = self._reversal(self._encoder)
        return (zeros if reversal is None else reversal.apply(zeros, self._encoder.layout.parts(x_BD))).numpy()

    # --- predict -------------------------------------------------------------------------------------------------

    def _table_outputs(self, table: Table) -> NDArray[np.float64]:
        outputs = super()._table_outputs(table)
        if self._skip is None:
            return outputs
        x_BD = cast(DenseTable, table).values
        return self._blended(x_BD, outputs, self._skip.outputs(x_BD))

    def transform(self, X: Any) -> NDArray:
        """Embed series: what the output layer of the network sees of them.

        Parameters
        ----------
        X : array-like of series
            As in ``fit``.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_embedding)
            Of each network, one after the other, if there are several; float32, or float64 under ``dtype="float64"``.
        """
        table, device = self._table(X), resolve_device(self.device)
        return np.hstack([network_outputs(member, table, device, _embeddings) for member in self._members()])

    @property
    def _n_features_out(self) -> int:
        return sum(cast(RecurrentModule, member).output.in_features for member in self._members())

    def explain(self, X: Any, y: ArrayLike | None = None, *, method: str = "occlusion") -> NDArray[np.float64]:
        """Say which steps and channels an output rests on.

        Parameters
        ----------
        X : array-like of series
            As in ``fit``.
        y : array-like of shape (n_samples,), default=None
            Labels whose outputs are explained, by default the predicted ones; for regression the number of the output,
            by default the first.
        method : {"occlusion", "integrated_gradients"}, default="occlusion"
            "occlusion" is of the whole model: the fall of the output when a sixteenth of the steps of one channel
            becomes the mean of the channel, or the level of the series where that is taken out. "integrated_gradients"
            (Sundararajan et al. 2017) is of the networks alone, step by step, along the way from such a series.

        Returns
        -------
        maps : ndarray of shape (n_samples, n_channels, n_steps), or (n_samples, n_steps, n_channels) under "time_first"
            Larger where a step speaks for the output, 0 behind the end of a series; in units of the logit, or of the
            standardised target.
        """
        check_is_fitted(self, "network_")
        if method not in SERIES_EXPLANATIONS:
            raise ValueError(f"method={method!r} is not known. Use one of {sorted(SERIES_EXPLANATIONS)}.")
        checked = self._check_X(X, reset=False)
        x_BD = self._encoder.transform(checked).values
        target = torch.as_tensor(explained_outputs(self, checked, y))
        if len(target) != len(x_BD):
            raise ValueError(f"y has {len(target)} entries for {len(x_BD)} series. Give one for each.")
        maps = SERIES_EXPLANATIONS[method](self, x_BD, target)
        return np.swapaxes(maps, 1, 2) if self.layout == "time_first" else maps


def _occlusion(estimator: SequenceNetworkEstimator, x_BD: Tensor, target: Tensor) -> NDArray[np.float64]:
    """The fall of the outputs when stretches of single channels are blanked."""

    def chosen(rows: Tensor) -> Tensor:
        outputs = estimator._table_outputs(DenseTable(rows))
        combined = outputs if outputs.ndim == 2 else estimator._task.combine(outputs)
        return class_outputs(estimator, torch.as_tensor(combined)).gather(1, target[:, None])[:, 0]

    whole = chosen(x_BD)
    layout = estimator._encoder.layout
    n_steps = layout.n_steps(x_BD.shape[1])
    width = -(-n_steps // STRETCHES)
    maps = torch.zeros(len(x_BD), estimator.n_channels_, n_steps, dtype=torch.float64)
    for channel in range(estimator.n_channels_):
        for start in range(0, n_steps, width):
            blanked = x_BD.clone()
            stretch = layout.parts(blanked).series_BCT[:, channel, start : start + width]
            stretch.zero_()
            maps[:, channel, start : start + width] = (whole - chosen(blanked))[:, None]
    return _within(maps, layout.parts(x_BD).lengths_B)


def _integrated_gradients(estimator: SequenceNetworkEstimator, x_BD: Tensor, target: Tensor) -> NDArray[np.float64]:
    """Integrated gradients of the networks, an indicator's with those of its channel."""
    layout, n_channels = estimator._encoder.layout, estimator.n_channels_
    blank = x_BD.clone()
    layout.parts(blank).series_BCT.zero_()
    sums = torch.zeros(len(x_BD), x_BD.shape[1], dtype=torch.float64)
    for member in estimator._members():
        # A row takes the place of an image that is one pixel high, so that only its series is led up to.
        module = cast(Any, lambda x, member=member: class_outputs(estimator, member(x.flatten(1))))
        rows, start = x_BD[:, None, None], blank[:, None, None]
        sums += integrated_gradients(module, rows, target, baseline=start)[:, 0].double() / len(estimator._members())
    maps = layout.parts(sums).series_BCT
    own = maps[:, :n_channels].clone()
    for place, channel in enumerate(estimator._encoder.indicated):
        own[:, channel] += maps[:, n_channels + place]
    return _within(own, layout.parts(x_BD).lengths_B)


def _within(maps_BCT: Tensor, lengths_B: Tensor) -> NDArray[np.float64]:
    inside_BT = torch.arange(maps_BCT.shape[2]) < lengths_B[:, None]
    return (maps_BCT * inside_BT.unsqueeze(1)).numpy()


#: Methods by their names, and the stretches that a series is parted into.
SERIES_EXPLANATIONS: dict[str, Callable[[SequenceNetworkEstimator, Tensor, Tensor], NDArray[np.float64]]] = {
    "occlusion": _occlusion,
    "integrated_gradients": _integrated_gradients,
}
STRETCHES = 16


def _embeddings(module: RecurrentModule, x: Tensor, codes: Tensor | None) -> Tensor:
    return module.embeddings(x)


@documented(
    loss=CLASSIFICATION_LOSS_DOC,
    classification=CLASSIFICATION_DOC,
    series=SERIES_DOC,
    network=RECURRENT_DOC,
    training=RNN_TRAINING_DOC,
    fitted=RNN_FITTED_DOC,
)
@dataclass(kw_only=True, eq=False, repr=False)
class RNNClassifier(NetworkClassifierMixin, SequenceNetworkEstimator):
    """Recurrent network for classification of series.

    X may be an array of series ``(n, channels, time)``, a list of arrays ``(channels, time)`` of unequal lengths, rows
    ``(n, time)`` of one channel, or a tuple of one of these and a table with a row a series. NaN is a missing value,
    and at the end of a series it is padding, which changes nothing.

    Parameters
    ----------
    {loss}
    {classification}
    {series}
    {network}
    {training}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    {fitted}

    See Also
    --------
    RNNRegressor : The same for numeric targets and forecasts.

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

    _parameter_constraints = {**SequenceNetworkEstimator._parameter_constraints, **CLASSIFICATION_CONSTRAINTS}


RNN_LOSS_DOC = (
    REGRESSION_LOSS_DOC
    + """
quantiles : tuple of float or None, default=None
    Quantiles, in rising order, that ``loss="quantile"`` predicts at once, in place of ``quantile``. They never cross.
"""
)


@documented(
    loss=RNN_LOSS_DOC,
    quantile=QUANTILE_DOC,
    series=SERIES_DOC,
    network=RECURRENT_DOC,
    training=RNN_TRAINING_DOC,
    fitted=RNN_FITTED_DOC,
)
@dataclass(kw_only=True, eq=False, repr=False)
class RNNRegressor(NetworkRegressorMixin, SequenceNetworkEstimator):
    """Recurrent network for regression on series and for forecasts.

    y holds one value a series, several targets, or the steps of a horizon; :func:`skdl.window` cuts such X and y out of
    long tables. X is as in :class:`RNNClassifier`.

    Parameters
    ----------
    {loss}
    {quantile}
    {series}
    {network}
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    RNNClassifier : The same for labels.
    skdl.window : Windows of long tables.

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

    quantiles: Any = None

    _parameter_constraints = {
        **SequenceNetworkEstimator._parameter_constraints,
        **REGRESSION_CONSTRAINTS,
        "quantiles": [None, "array-like"],
    }

    def _make_task(self) -> RegressionTask:
        if self.quantiles is None:
            return super()._make_task()
        if self.loss != "quantile":
            raise ValueError(f"quantiles go with loss='quantile'. Got loss={self.loss!r}; set it, or quantiles=None.")
        levels = np.asarray(self.quantiles, dtype=float)
        if levels.ndim != 1 or len(levels) == 0 or np.any(np.diff(levels) <= 0) or levels[0] <= 0 or levels[-1] >= 1:
            raise ValueError(f"quantiles must rise and lie between 0 and 1. Got {self.quantiles!r}.")
        return QuantilesTask(tuple(levels.tolist()))

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict values.

        Parameters
        ----------
        X : array-like of series
            As in ``fit``. Series may be longer or shorter than there.
        return_std : bool, default=False
            Whether to give the standard deviation of each prediction's error as well; see
            :meth:`MLPRegressor.predict`. Not for several quantiles.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, horizon); (..., n_quantiles) for several quantiles
            Values in the units of y as float64.
        std : ndarray like y
            If ``return_std``.
        """
        if return_std and self.quantiles is not None:
            raise ValueError("return_std=True is for means. The quantiles say how sure each prediction is.")
        return super().predict(X, return_std)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Coefficient of determination, of the quantile nearest to the median where there are several.

        Parameters
        ----------
        X : array-like of series
            As in ``fit``.
        y : array-like of shape (n_samples,) or (n_samples, horizon)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the score.

        Returns
        -------
        score : float
            The larger the better, at most 1.
        """
        if self.quantiles is None:
            return super().score(X, y, sample_weight)
        nearest = int(np.abs(np.asarray(self.quantiles, dtype=float) - 0.5).argmin())
        return r2_score(y, self.predict(X)[..., nearest], sample_weight=sample_weight)

    def forecast(self, X: Any, n_steps: int) -> NDArray[np.float64]:
        """Forecast further than the horizon of the fit: each forecast is the past of the next one.

        Errors add up on the way. Where there is data enough, a fit on targets of the whole horizon, which ``predict``
        then gives at once, is the better forecast.

        Parameters
        ----------
        X : array-like of series of one channel
            As in ``fit``.
        n_steps : int
            Steps to forecast.

        Returns
        -------
        y : ndarray of shape (n_samples, n_steps); (n_samples, n_steps, n_quantiles) for several quantiles
            In the units of y. Of several quantiles the one nearest to the median goes on, so that bands beyond the
            first horizon are too narrow.

        Raises
        ------
        ValueError
            If series have several channels, whose future is not known, or a table beside them.
        """
        check_is_fitted(self, "network_")
        past = self._check_X(X, reset=False)
        if past.shape[1] != 1 or past.static is not None:
            raise ValueError(
                "forecast goes on with what it predicts, which is one channel without a table beside it. "
                "Fit on targets of the whole horizon and use predict."
            )
        series = [values[0, :length] for values, length in zip(past.values, past.lengths, strict=True)]
        parts: list[NDArray[np.float64]] = []
        while sum(part.shape[1] for part in parts) < n_steps:
            part = self.predict(_padded_rows(series))
            parts.append(part[:, np.newaxis] if self._task.is_single else part)
            middle = parts[-1]
            if self.quantiles is not None:
                middle = middle[..., int(np.abs(np.asarray(self.quantiles, dtype=float) - 0.5).argmin())]
            # As long as before: what the network has not seen is how long series become.
            series = [np.append(one, more)[-len(one) :] for one, more in zip(series, middle, strict=True)]
        return np.concatenate(parts, axis=1)[:, :n_steps]


def _padded_rows(series: list[NDArray]) -> Series:
    lengths = np.array([len(one) for one in series])
    values = np.full((len(series), 1, lengths.max()), np.nan)
    for row, one in enumerate(series):
        values[row, 0, : len(one)] = one
    return Series(values, lengths)
