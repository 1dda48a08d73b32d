"""What every estimator does: check the data, make a job of it, train, keep the result.

A family of estimators declares its parameters and says in four short methods how X is checked and encoded and which
network it wants; see :class:`NetworkEstimator`.
"""

from __future__ import annotations

import math
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.validation import check_consistent_length, check_is_fitted, has_fit_parameter

from skdl.data.table import Table
from skdl.engine.device import resolve_device
from skdl.engine.job import Job, Plan, Result, Samples, Settings, State
from skdl.engine.optimizers import OptimizerKind
from skdl.engine.predict import network_outputs
from skdl.engine.schedules import Schedule
from skdl.engine.train import train
from skdl.estimators.monitor import FitMonitor, ValidationScorer
from skdl.estimators.parameters import TrainingParameters
from skdl.estimators.validation import check_target, check_weight
from skdl.nn.dense import DenseModule, DenseNetwork
from skdl.tasks.classification import ClassificationTask
from skdl.tasks.regression import RegressionTask

#: Training rows from which "auto" early stopping holds rows out.
EARLY_STOPPING_ROWS = 500
#: Steps that "auto" epochs aim at, and the bounds of what they may come to.
AUTO_STEPS, AUTO_EPOCHS = 3000, (30, 150)


def auto_batch_size(n_rows: int) -> int:
    """Rows of a step by the number of training rows."""
    if n_rows >= 2000:
        return 256
    return 128 if n_rows >= 600 else 32


def auto_epochs(n_rows: int, batch_size: int) -> int:
    """Passes by the number of training rows."""
    steps = math.ceil(n_rows / batch_size)
    return int(np.clip(math.ceil(AUTO_STEPS / steps), *AUTO_EPOCHS))


@dataclass
class _Data:
    """Checked training data. ``rows`` are those of positive weight."""

    X: Any
    y: NDArray
    weight: NDArray[np.float64] | None
    rows: NDArray[np.intp]

    def weight_of(self, rows: NDArray[np.intp]) -> NDArray[np.float64] | None:
        return None if self.weight is None else self.weight[rows]


class NetworkEstimator(TrainingParameters, metaclass=ABCMeta):
    """Base of all estimators that fit a network to X and y."""

    # --- what a family says ------------------------------------------------------------------------------------

    @abstractmethod
    def _check_X(self, X: Any, *, reset: bool) -> Any:
        """Check X as scikit-learn does, setting ``n_features_in_`` if ``reset``."""

    @abstractmethod
    def _make_encoder(self, dtype: torch.dtype) -> Any:
        """An unfitted encoder with ``fit(X, rows, weight)`` and ``transform(X) -> Table``."""

    @abstractmethod
    def _make_network(self, encoder: Any, n_outputs: int) -> DenseNetwork:
        """The network for what the encoder gives."""

    @abstractmethod
    def _make_task(self) -> ClassificationTask | RegressionTask:
        """An unfitted task for y."""

    # --- fit -----------------------------------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Any:
        """Fit the network.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Training data. Frames go in raw.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss. Samples of weight 0 are left out altogether.
        X_val, y_val : like X and y, default=None
            Validation data to use in place of held-out rows.
        sample_weight_val : array-like, default=None
            Weight of each validation sample in the validation score.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data is not valid, or the loss is not finite in the first epoch.
        """
        self._validate_params()
        data = self._check_data(X, y, sample_weight, reset=not self._goes_on())
        random_state = check_random_state(self.random_state)
        seed = int(random_state.randint(np.iinfo(np.int32).max))
        held_out = self._check_validation(X_val, y_val, sample_weight_val)
        train_rows, validation_rows = data.rows, data.rows[:0]
        if held_out is None and self._stops_early(len(data.rows)):
            train_rows, validation_rows = self._split(data, random_state)
        self._prepare(data, train_rows)
        table = self._encoder.transform(data.X)
        samples = self._samples(table, data, train_rows)
        validation, scorer = None, None
        if held_out is not None:
            validation = self._samples(self._encoder.transform(held_out.X), held_out, held_out.rows)
        elif len(validation_rows):
            validation = self._samples(table, data, validation_rows)
        if validation is not None and self.scoring is not None:
            scorer = self._make_scorer(*((held_out, held_out.rows) if held_out else (data, validation_rows)))
        settings = self._settings(samples, stops=self._stops_early(len(data.rows), held_out is not None))
        context = self._init_callback_context(max_subtasks=settings.max_epochs)
        shown = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        context.call_on_fit_task_begin(estimator=self, **shown)
        start = self._state() if self._goes_on() else None
        monitor = FitMonitor(self, self._module, context, shown, scorer)
        self._run(Job(self._plan(settings, samples), settings, samples, seed, validation, start, monitor))
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes={}, **shown)
        return self

    def _partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None, classes: ArrayLike | None) -> Any:
        """One epoch on the given rows, at a constant learning rate, from where the last call ended."""
        self._validate_params()
        is_first = not hasattr(self, "network_")
        data = self._check_data(X, y, sample_weight, reset=is_first)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if is_first:
            self._prepare(data, data.rows, classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"`classes={np.asarray(classes).tolist()}` is not the same as on the last call to partial_fit, "
                f"which was {self.classes_.tolist()}."
            )
        samples = self._samples(self._encoder.transform(data.X), data, data.rows)
        settings = self._settings(samples, stops=False, epochs=1, schedule=Schedule())
        start = None if is_first else self._state()
        # Each call continues the stream of random numbers where a lone fit would.
        job = Job(
            self._plan(settings, samples), settings, samples, seed + (start.n_steps if start else 0), None, start,
            FitMonitor(self, self._module),
        )
        self._run(job, keeps_moments=True)
        return self

    def _goes_on(self) -> bool:
        return bool(self.warm_start) and hasattr(self, "network_")

    def _check_data(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None, *, reset: bool) -> _Data:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None."
            )
        X = self._check_X(X, reset=reset)
        y = check_target(y, numeric=not is_classifier(self))
        n_rows = X.shape[0]
        if len(y) != n_rows:
            check_consistent_length(X, y)
        weight = check_weight(sample_weight, y)
        rows = np.arange(n_rows) if weight is None else np.flatnonzero(weight)
        return _Data(X, y, weight, rows)

    def _check_validation(self, X: Any, y: ArrayLike | None, sample_weight: ArrayLike | None) -> _Data | None:
        if X is None and y is None:
            if sample_weight is not None:
                raise ValueError("sample_weight_val was given without X_val and y_val.")
            return None
        if X is None or y is None:
            raise ValueError("X_val and y_val go together: give both or neither.")
        return self._check_data(X, y, sample_weight, reset=False)

    def _stops_early(self, n_rows: int, has_validation: bool = False) -> bool:
        if self.early_stopping == "auto":
            return has_validation or n_rows >= EARLY_STOPPING_ROWS
        return bool(self.early_stopping)

    def _split(self, data: _Data, random_state: np.random.RandomState) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Training and held-out rows; stratified by class where every class has rows for both."""
        from sklearn.model_selection import train_test_split

        n_held_out = math.ceil(self.validation_fraction * len(data.rows))
        if len(data.rows) - n_held_out < 1:
            raise ValueError(
                f"early_stopping needs rows to train on and rows to hold out; there are {len(data.rows)} in all. "
                "Set early_stopping=False."
            )
        stratify = None
        if is_classifier(self) and data.y.ndim == 1:
            labels, counts = np.unique(data.y[data.rows], return_counts=True)
            if counts.min() >= 2 and min(n_held_out, len(data.rows) - n_held_out) >= len(labels):
                stratify = data.y[data.rows]
        train_rows, held_out = train_test_split(
            data.rows, test_size=n_held_out, random_state=random_state, stratify=stratify
        )
        return np.sort(train_rows), np.sort(held_out)

    def _prepare(self, data: _Data, train_rows: NDArray[np.intp], classes: ArrayLike | None = None) -> None:
        """Fit the task on all rows' labels or the training rows' values, and the encoder on training rows."""
        if self._goes_on():
            return
        self._task = self._make_task()
        if isinstance(self._task, ClassificationTask):
            self._task.fit(data.y[data.rows], classes)
            self.classes_ = self._task.classes
        else:
            self._task.fit(data.y[train_rows], data.weight_of(train_rows))
        self.n_outputs_ = self._task.n_outputs
        self.out_activation_ = self._task.output_activation
        self._encoder = self._make_encoder(self._torch_dtype())
        self._encoder.fit(data.X, train_rows, data.weight_of(train_rows))
        self.t_ = 0

    def _torch_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    def _samples(self, table: Table, data: _Data, rows: NDArray[np.intp]) -> Samples:
        dtype = self._torch_dtype()
        weight = self._class_weighted(data.y[rows], data.weight_of(rows))
        everything = len(rows) == len(table)
        return Samples(
            table,
            self._task.encode(data.y[rows], dtype),
            None if weight is None else torch.as_tensor(weight / weight.mean(), dtype=dtype),
            None if everything else torch.as_tensor(rows),
        )

    def _class_weighted(self, y: NDArray, weight: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Weights of the samples times those of their classes."""
        class_weight = getattr(self, "class_weight", None)
        if class_weight is None or not is_classifier(self):
            return weight
        if y.ndim > 1:
            by_class = compute_sample_weight(class_weight, y)
        else:
            classes = np.unique(y)
            known = class_weight
            if isinstance(class_weight, dict):
                known = {label: value for label, value in class_weight.items() if label in classes}
            by_class = compute_class_weight(known, classes=classes, y=y, sample_weight=weight)[
                np.searchsorted(classes, y)
            ]
        if not np.any(by_class > 0):
            raise ValueError(f"class_weight={class_weight!r} gives every sample the weight 0.")
        return by_class if weight is None else by_class * weight

    def _make_scorer(self, data: _Data, rows: NDArray[np.intp]) -> ValidationScorer:
        from sklearn.metrics import check_scoring

        return ValidationScorer(
            check_scoring(self, scoring=self.scoring), _safe_indexing(data.X, rows), data.y[rows], data.weight_of(rows)
        )

    def _settings(
        self, samples: Samples, *, stops: bool, epochs: int | None = None, schedule: Schedule | None = None
    ) -> Settings:
        if epochs is None:
            batch_size = self._batch_size(samples)
            epochs = auto_epochs(len(samples), batch_size) if self.max_epochs == "auto" else self.max_epochs
        return Settings(
            learning_rate=self.learning_rate,
            schedule=schedule or Schedule(self.lr_schedule, self.lr_warmup),
            momentum=self.momentum,
            l1=self.l1,
            l2=self.l2,
            weight_decay=self.weight_decay,
            dropout=self.dropout,
            gradient_clip=self.gradient_clip,
            label_smoothing=getattr(self, "label_smoothing", 0.0),
            quantile=getattr(self, "quantile", None),
            max_epochs=epochs,
            n_iter_no_change=self.n_iter_no_change if stops else None,
            tol=self.tol,
            keep_best=stops,
        )

    def _batch_size(self, samples: Samples) -> int:
        return auto_batch_size(len(samples)) if self.batch_size == "auto" else self.batch_size

    def _plan(self, settings: Settings, samples: Samples) -> Plan:
        device = resolve_device(self.device)
        if self.dtype == "bfloat16" and device == "cpu":
            raise ValueError("dtype='bfloat16' needs a GPU, and this fit runs on the CPU. Use dtype='float32'.")
        return Plan(
            network=self._make_network(self._encoder, self.n_outputs_),
            loss=self._task.loss,
            optimizer=OptimizerKind(self.optimizer, self.nesterov),
            batch_size=self._batch_size(samples),
            device=device,
            dtype=self._torch_dtype(),
            matmul_dtype=torch.bfloat16 if self.dtype == "bfloat16" else None,
        )

    def _module(self, theta_P: torch.Tensor) -> DenseModule:
        return DenseModule.from_row(self._make_network(self._encoder, self.n_outputs_), theta_P, self.dropout)

    def _state(self) -> State:
        """Parameters and optimiser state to go on from."""
        network = self._make_network(self._encoder, self.n_outputs_)
        theta_P = self.network_.to_row(network)
        if len(theta_P) != network.n_numbers:
            raise ValueError(
                "The architecture was changed since the last fit, so training cannot go on from there. "
                "Set warm_start=False, or give the parameters of the network back their values."
            )
        moments, n_steps = self._optimizer_state
        if not moments or moments[0].shape != theta_P.shape or moments[0].dtype != self._torch_dtype():
            moments, n_steps = [], 0
        return State(theta_P.to(self._torch_dtype()), moments, n_steps)

    def _run(self, job: Job, keeps_moments: bool = False) -> None:
        """Train and take the result on."""
        (result,) = train([job])
        self._report(result)
        self.network_ = self._module(result.state.theta_P)
        keeps_moments = keeps_moments or self.warm_start
        self._optimizer_state = (result.state.moments if keeps_moments else [], result.state.n_steps)
        self.history_ = result.history_table()
        self.n_iter_ = len(result.history)
        self.loss_curve_ = self.history_["loss"].tolist()
        self.loss_ = self.loss_curve_[max(result.best_epoch - 1, 0)] if self.loss_curve_ else math.nan
        self.t_ += self.n_iter_ * len(job.train)
        self.n_layers_ = len(self.network_.linear_layers) + 1
        is_validated = job.validation is not None
        self.validation_scores_ = self.history_["validation_score"].tolist() if is_validated else None
        self.best_validation_score_ = max(self.validation_scores_, default=math.nan) if is_validated else None
        self.best_loss_ = None if is_validated else min(self.loss_curve_, default=math.nan)

    def _report(self, result: Result) -> None:
        """Say what went otherwise than planned."""
        if result.reason == "diverged":
            epoch = len(result.history)
            remedy = (
                f"Lower learning_rate (it is {self.learning_rate:g}), set gradient_clip, or scale features and target."
            )
            if result.best_epoch == 0:
                raise ValueError(f"Training diverged: the loss is not finite in epoch {epoch}. {remedy}")
            warnings.warn(
                f"Training diverged: the loss is not finite in epoch {epoch}. The parameters of epoch "
                f"{result.best_epoch} are kept. {remedy}",
                ConvergenceWarning,
                stacklevel=4,
            )
        if result.reason == "interrupted":
            warnings.warn(
                f"Training was interrupted in epoch {len(result.history) + 1}. The best parameters so far are kept.",
                UserWarning,
                stacklevel=4,
            )

    # --- predict -------------------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        """Outputs ``(n, O)`` of the network."""
        check_is_fitted(self, "network_")
        known = self.__dict__.get("_known_outputs")
        if known is not None and X is known[0]:
            return known[1].astype(np.float64)
        table = self._encoder.transform(self._check_X(X, reset=False))
        return network_outputs(self.network_, table, resolve_device(self.device)).astype(np.float64)

    def predict(self, X: Any) -> NDArray:
        """Predict labels or values.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or values in the units of y as float64.
        """
        outputs = self._outputs(X)
        return self._task.decode(outputs)


class ProbabilityMixin:
    """Probabilities of classifiers."""

    _outputs: Callable[[Any], NDArray[np.float64]]
    _task: ClassificationTask

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``. For multilabel targets each column is the probability of its label.
        """
        outputs = self._outputs(X)
        return self._task.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes)
            Computed from the logits, so that small probabilities do not become minus infinity.
        """
        outputs = self._outputs(X)
        return self._task.log_probabilities(outputs)
