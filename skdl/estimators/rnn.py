"""Recurrent networks for series: ``RNNClassifier`` and ``RNNRegressor``."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, is_classifier
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor
from torch.nn import functional as F

from skdl.data.sequences import Reversal, SequenceEncoder, Series, check_series, continued_channel
from skdl.data.table import DenseTable, Table
from skdl.engine.device import resolve_device
from skdl.engine.folds import Fold, held_out_rows
from skdl.engine.job import Job, Result
from skdl.engine.predict import network_outputs
from skdl.estimators.base import LONE_VALIDATION_FRACTION, NetworkEstimator
from skdl.estimators.monitor import FitMonitor
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
from skdl.nn.recurrent import CELLS, ConvLayer, RecurrentModule, RecurrentNetwork
from skdl.nn.skip import SkipPath
from skdl.tasks.blending import blend_weights
from skdl.tasks.classification import ClassificationTask
from skdl.tasks.regression import QuantilesTask, RegressionTask

#: Networks of an "auto" ensemble, and training series from which rows are held out for them.
AUTO_MEMBERS, HELD_OUT_ROWS = 4, 30
#: Training steps that "auto" epochs aim at, and bounds on the epochs.
AUTO_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 1500, 15, 100
#: Steps of a series from which "auto" takes convolutions and patches, and steps that they should leave.
STEM_STEPS, INNER_STEPS = 16, 24
#: Convolutions of an "auto" stem: channels and kernel sizes.
AUTO_CONV = ((48, 7), (96, 5), (96, 3))
#: "auto" units, and those of forecasts from so many training series on.
AUTO_UNITS, MANY_UNITS, MANY_ROWS = 64, 128, 1000
#: Most series that the skip path is fitted to, evenly spaced.
SKIP_ROWS = 20_000
#: Steps of the shortest series from which random convolutions are tried.
CONVOLUTION_STEPS = 9

POOLINGS = ("last", "mean", "max", "attention")


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
        return int(np.clip(round(AUTO_STEPS / n_steps), FEWEST_EPOCHS, MOST_EPOCHS))

    def _auto_batch_size(self, n_rows: int) -> int:
        return 64 if n_rows >= 1000 else 32

    def _dropout(self) -> float:
        return self.dropout

    # --- the network ---------------------------------------------------------------------------------------------

    def _make_network(self, encoder: SequenceEncoder, n_outputs: int) -> RecurrentNetwork:
        is_forecast = encoder.target_channel is not None
        stem = self._stem(encoder)
        hidden_size = self._hidden_size(encoder)
        hidden = (2 * hidden_size,) if is_forecast else ()
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
        if encoder.n_steps < STEM_STEPS:
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
        return max(min(8, encoder.n_steps // 6), math.ceil(encoder.n_steps / 32))

    def _conv(self, encoder: SequenceEncoder) -> tuple[ConvLayer, ...]:
        layers = AUTO_CONV
        if not isinstance(self.conv_channels, str):
            channels = layer_sizes("conv_channels", self.conv_channels)
            if not channels:
                raise ValueError("conv_channels must name at least one layer. Use stem=None for none.")
            layers = tuple((n, 7 if i == 0 else 5 if i == 1 else 3) for i, n in enumerate(channels))
        strides = [1] * len(layers)
        # Later layers halve first: they have more channels to save.
        order = [*range(1, len(layers)), 0]
        doublings = max(round(math.log2(encoder.n_steps / INNER_STEPS)), 0)
        for i in range(doublings):
            strides[order[i % len(order)]] *= 2
        return tuple(ConvLayer(n, size, stride) for (n, size), stride in zip(layers, strides, strict=True))

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
        blended = base + sum(w * (part - base) for w, part in zip(weights, parts, strict=True))
        self.out_of_fold_ = np.full((len(data.y), *self.out_of_fold_.shape[1:]), np.nan)
        self.out_of_fold_[rows[known]] = self._task.values(blended)

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
        base = self._base(x_BD)
        weights = self.blend_weights_
        return base + weights["network"] * (outputs - base) + weights["skip"] * (self._skip.outputs(x_BD) - base)

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


def _embeddings(module: RecurrentModule, x: Tensor, codes: Tensor | None) -> Tensor:
    return module.embeddings(x)


@dataclass(kw_only=True, eq=False, repr=False)
class RNNClassifier(NetworkClassifierMixin, SequenceNetworkEstimator):
    """Recurrent network for classification of series."""

    _parameter_constraints = {**SequenceNetworkEstimator._parameter_constraints, **CLASSIFICATION_CONSTRAINTS}


@dataclass(kw_only=True, eq=False, repr=False)
class RNNRegressor(NetworkRegressorMixin, SequenceNetworkEstimator):
    """Recurrent network for regression on series and for forecasts."""

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
