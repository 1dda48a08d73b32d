"""What every estimator of a target does: check X and y, make jobs of them, predict.

A family of estimators declares its parameters and says in a few short methods how X is checked and encoded, which
network it wants and what "auto" means; see :class:`NetworkEstimator` and the class that it builds on.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier
from sklearn.callback import with_callbacks
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import check_is_fitted

from skdl.data.folds import Fold, cross_folds, group_folds, mean_by_row, n_held_out_rows, random_folds, trained_rows
from skdl.data.table import Encoder, Table
from skdl.engine.device import resolve_device, with_torch_defaults
from skdl.engine.dispatch import shared
from skdl.engine.job import Job, Result, Samples
from skdl.engine.predict import network_outputs
from skdl.engine.schedules import Schedule
from skdl.estimators.atomic import atomic
from skdl.estimators.checks import FitData, check_fit_data, check_groups, check_labels, relative_weight
from skdl.estimators.monitor import FitMonitor, ValidationScorer
from skdl.estimators.parameters import is_auto
from skdl.estimators.training import TrainedEstimator, caller_level
from skdl.estimators.weights import MeanWeight, check_class_weight, with_class_weight
from skdl.tasks.classification import ClassificationTask
from skdl.tasks.losses import Loss
from skdl.tasks.regression import RegressionTask
from skdl.tasks.task import Task

#: A first call of ``partial_fit`` with fewer rows than this is warned of.
MIN_FIRST_ROWS = 10
#: "auto" tolerance of early stopping for classes: where they can be told apart without error, the loss falls for
#: hundreds of epochs, and nothing is gained.
CLASSIFICATION_TOL = 1e-4
#: Share of the rows that a lone network holds out.
LONE_VALIDATION_FRACTION = 0.1


#: Some rows, and the outputs ``(n, O)`` of a network for them.
RowOutputs = tuple[NDArray[np.intp], NDArray[np.float64]]


def held_out_outputs(folds: list[Fold], results: list[Result]) -> list[RowOutputs]:
    """The rows that each network held out, with its outputs for them."""
    return [
        (fold.held_out, result.validation_outputs.numpy().astype(np.float64))
        for fold, result in zip(folds, results, strict=True)
        if result.validation_outputs is not None
    ]


class ScaledJobs(NamedTuple):
    """Jobs whose columns have the scales that networks are trained on."""

    jobs: list[Job]
    #: Whether the fit was interrupted while the scales were found out.
    is_interrupted: bool = False


class NetworkEstimator(TrainedEstimator):
    """Base of all estimators that fit a network to X and y."""

    _task: Task
    #: The family's own kind of :class:`~skdl.data.table.Encoder`.
    _encoder: Any
    _mean_weight: MeanWeight
    #: Whether epochs of several networks are compared by :meth:`~skdl.tasks.losses.Loss.robust_loss`.
    _robust_score = False
    #: X and the outputs for it, where a scorer asks for predictions that the training has made already.
    _scored_outputs: tuple[Any, NDArray] | None = None

    # Groups are for the splitter of a search unless the estimator asks for them as well.
    __metadata_request__fit = {"groups": False}

    # --- what a family says ------------------------------------------------------------------------------------

    @abstractmethod
    def _check_X(self, X: Any, *, reset: bool) -> Any:
        """Check X as scikit-learn does, setting ``n_features_in_`` if ``reset``."""

    @abstractmethod
    def _make_encoder(self, dtype: np.dtype) -> Encoder:
        """An unfitted encoder of checked X."""

    @abstractmethod
    def _make_task(self) -> Task:
        """An unfitted task for y."""

    def _check_held_out(self, holds_out: bool) -> None:
        """Refuse, before anything is trained, what cannot be with or without held-out rows: here nothing."""

    def _stops_early(self, validates: bool, has_validation: bool) -> bool:
        """Whether validation rows, of the caller's own or held out, say when training ends and which epoch is kept."""
        return validates

    def _blend(self, data: FitData, folds: list[Fold], unseen: list[RowOutputs]) -> None:
        """Fit what is blended with the networks, by their outputs for rows that they held out: here nothing."""

    def _learn_errors(self, data: FitData, validation: FitData | None, results: list[Result]) -> None:
        """Learn from rows that the networks did not train on how large errors are: regressors do."""

    def _loss(self) -> Loss:
        return self._task.loss

    def _auto_tol(self) -> float:
        return CLASSIFICATION_TOL if self._task.is_classification else super()._auto_tol()

    # --- fit -----------------------------------------------------------------------------------------------------

    @atomic
    @with_callbacks
    @with_torch_defaults
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train the network, or several.

        Parameters
        ----------
        {training_X}
        {training_y}
        X_val, y_val : like X and y, default=None
            Validation data to use instead of held-out rows.
        sample_weight_val : array-like of shape (n_validation_samples,), default=None
            Weight of each validation sample in the validation score.
        {groups}

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data is not valid, or the loss is not finite in the first epoch. The estimator is then
            as it was before: fitted by the last ``fit``, or not at all.
        TypeError
            If X or y is of a type that is not supported.
        """
        self._validate_params()
        if self.scoring is not None:
            self._check_scoring()
        given = self._check_data(X, y, sample_weight, reset=not self._continues())
        data = replace(given, weight=relative_weight(given.weight), groups=check_groups(groups, len(given.y)))
        validation = self._check_validation(X_val, y_val, sample_weight_val)
        random_state = check_random_state(self.random_state)
        # Of a lone group none can be held out, as of a lone row.
        n_rows = len(data.rows) if data.n_apart > 1 else 1
        validates = self._validates(n_rows, validation is not None)
        holds_out = validates and validation is None
        n_members = self._n_members(data.n_apart if holds_out else len(data.rows), holds_out)
        seeds = random_state.randint(np.iinfo(np.int32).max, size=n_members)
        if holds_out:
            fraction = self._held_out_fraction(data, n_members)
            folds = self._drawn_folds(data, n_members, fraction, self._fold_draws(random_state))
        else:
            folds = [Fold(data.rows, data.rows[:0])] * n_members
        self._prepare(data, trained_rows(folds))
        self._check_held_out(holds_out)
        monitor = FitMonitor(self, self._module)
        jobs, is_interrupted = self._with_scaled_columns(self._jobs(data, folds, validation, seeds, validates, monitor))
        shown = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        context = self._init_callback_context(max_subtasks=jobs[0].settings.max_epochs)
        context.call_on_fit_task_begin(estimator=self, **shown)
        if hasattr(self, "_skl_callbacks"):
            monitor.set_callback_context(context, shown)
        results = self._run(jobs, is_interrupted=is_interrupted)
        unseen = held_out_outputs(folds, results) if holds_out else []
        if unseen:
            of_unseen = [(rows, self._task.expected(outputs)) for rows, outputs in unseen]
            self.out_of_fold_ = mean_by_row(len(data.y), of_unseen)
            self._blend(data, folds, unseen)
        self._learn_errors(data, validation, results)
        # Calls of partial_fit may follow, whose weights are of the same scale.
        self._mean_weight = self._mean_weight_with(given, MeanWeight())
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes={}, **shown)
        return self

    def _jobs(
        self,
        data: FitData,
        folds: list[Fold],
        validation: FitData | None,
        seeds: NDArray[np.int_],
        validates: bool,
        monitor: FitMonitor,
    ) -> list[Job]:
        """A job for each member: its rows to train on and to be validated on, and where it starts."""
        table = shared(self._training_table(data, trained_rows(folds)))
        training = [self._samples(table, data, fold.train) for fold in folds]
        held_out: list[Samples | None] = [None] * len(folds)
        if validation is not None:
            validation_table = shared(self._encoder.transform(validation.X))
            held_out = [self._samples(validation_table, validation, validation.rows)] * len(folds)
        elif validates:
            held_out = [self._samples(table, data, fold.held_out) for fold in folds]
        if held_out[0] is not None and self.scoring is not None:
            monitor.set_scorers([self._scorer(data, fold, validation) for fold in folds])
        settings = self._settings(training[0], stops=self._stops_early(validates, validation is not None))
        settings = replace(settings, robust_score=self._robust_score and len(folds) > 1)
        starts = self._states(len(folds)) if self._continues() else [None] * len(folds)
        return self._member_jobs(settings, training, seeds, held_out, starts, monitor)

    def _training_table(self, data: FitData, rows: NDArray[np.intp]) -> Table:
        """X encoded, of which these rows are trained on."""
        return self._encoder.transform(data.X)

    def _with_scaled_columns(self, jobs: list[Job]) -> ScaledJobs:
        """The jobs of ``fit`` with their tables as networks are trained on them, here as the encoder gives them."""
        return ScaledJobs(jobs)

    @atomic
    @with_torch_defaults
    def _partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None, classes: ArrayLike | None) -> Self:
        """One epoch on the given rows, at a constant learning rate, from where the last call ended."""
        self._validate_params()
        is_first = not hasattr(self, "network_")
        data = self._check_data(X, y, sample_weight, reset=is_first)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if classes is not None:
            self._check_classes(np.asarray(classes), is_first)
        if is_first:
            if len(data.rows) < MIN_FIRST_ROWS:
                warnings.warn(
                    "The first call of partial_fit fixes the scales of the columns and of y, and the categories. It "
                    f"was given n_samples={len(data.rows)}. Begin with a batch that is like the rest.",
                    UserWarning,
                    stacklevel=caller_level(),
                )
            learned_of = replace(data, weight=relative_weight(data.weight))
            self._prepare(learned_of, data.rows, classes)
            table = self._training_table(learned_of, data.rows)
        else:
            self._keep_encoding(data, data.rows)
            # Rows of later calls are taken for others than those of which the encoder learned.
            table = self._encoder.transform(data.X)
        mean_weight = self._mean_weight_with(data, MeanWeight() if is_first else self._mean_weight)
        samples = self._samples(table, data, data.rows, mean_weight)
        settings = self._settings(samples, stops=False, epochs=1, schedule=Schedule())
        n_members = self._n_members(len(data.rows), holds_out=False) if is_first else len(self._optimizer_states)
        starts = [None] * n_members if is_first else self._states(n_members)
        monitor = FitMonitor(self, self._module)
        # Another call draws other orders and masks.
        seeds = check_random_state((seed + self.t_) % 2**32).randint(np.iinfo(np.int32).max, size=n_members)
        unvalidated = [None] * n_members
        self._run(self._member_jobs(settings, [samples] * n_members, seeds, unvalidated, starts, monitor), is_part=True)
        self._mean_weight = mean_weight
        return self

    def _check_classes(self, classes: NDArray, is_first: bool) -> None:
        """Refuse classes of ``partial_fit`` that are none, or others than before."""
        if not is_classifier(self):
            raise ValueError(f"`classes` is only valid for classifiers; {type(self).__name__} is a regressor.")
        if len(classes) == 0:
            raise ValueError("classes must name all labels that y can have. Got none.")
        check_labels(classes, "classes")
        if is_first:
            return
        task = cast(ClassificationTask, self._task)
        # Those of several labels per sample stand in the order of the columns of y.
        given = classes if task.is_multilabel else np.unique(classes)
        if not any(np.array_equal(given, known) for known in (task.classes, task.label_values)):
            raise ValueError(
                f"`classes={classes.tolist()}` is not the same as on the last call to partial_fit, which was "
                f"{task.classes.tolist()}."
            )

    def _check_data(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None, *, reset: bool) -> FitData:
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        data = check_fit_data(self._check_X(X, reset=reset), y, sample_weight, estimator=self)
        return replace(data, given_X=X)

    def _check_validation(self, X: Any, y: ArrayLike | None, sample_weight: ArrayLike | None) -> FitData | None:
        if X is None and y is None:
            if sample_weight is not None:
                raise ValueError("sample_weight_val was given without X_val and y_val.")
            return None
        if X is None or y is None:
            raise ValueError("X_val and y_val go together: give both or neither.")
        try:
            checked = self._check_X(X, reset=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"X_val is not like X: {error}") from error
        given = check_fit_data(checked, y, sample_weight, estimator=self, y_name="y_val")
        return replace(given, weight=relative_weight(given.weight), given_X=X)

    def _held_out_fraction(self, data: FitData, n_members: int) -> float | None:
        """Share of the rows, or groups, that each member holds out; None where they divide all among them.

        Raises
        ------
        ValueError
            If there are too few.
        """
        n_rows, things = data.n_apart, "rows" if data.groups is None else "groups"
        count = f"{'n_samples' if data.groups is None else 'n_groups'}={n_rows}"
        asked = self.validation_fraction
        if is_auto(asked) and n_members > 1:
            if n_rows < n_members:
                raise ValueError(
                    f"n_members={n_members} networks that hold out different {things} need at least as many {things}; "
                    f"{count}. Lower n_members, or set early_stopping=False."
                )
            return None
        fraction = LONE_VALIDATION_FRACTION if is_auto(asked) else asked
        if n_held_out_rows(fraction, n_rows) >= n_rows:
            remedy = "Set" if is_auto(asked) else "Lower validation_fraction, or set"
            raise ValueError(
                f"Early stopping needs {things} to train on and {things} to hold out; {count}. "
                f"{remedy} early_stopping=False."
            )
        return fraction

    def _drawn_folds(
        self, data: FitData, n_members: int, fraction: float | None, random_state: np.random.RandomState
    ) -> list[Fold]:
        """The rows that each member trains on and holds out, a fraction that :meth:`_held_out_fraction` says.

        Here they are drawn at random, by groups or the target.
        """
        if data.groups is not None:
            return group_folds(data.rows, data.groups[data.rows], n_members, fraction, random_state)
        y = data.y[data.rows]
        if fraction is None:
            return cross_folds(data.rows, y, n_members, random_state)
        return random_folds(data.rows, y, n_members, fraction, random_state)

    def _prepare(self, data: FitData, train_rows: NDArray[np.intp], classes: ArrayLike | None = None) -> None:
        """Fit the task on all rows' labels or the training rows' values, and the encoder on training rows."""
        if self._continues():
            self._keep_encoding(data, train_rows)
            return
        for name in ("network_", "classes_", "history_"):
            self.__dict__.pop(name, None)
        self._task = self._make_task()
        if isinstance(self._task, ClassificationTask):
            # A class whose samples all have weight 0 is a class.
            self._task.fit(data.y, classes)
            self.classes_ = self._task.label_values
        else:
            cast(RegressionTask, self._task).fit(data.y[train_rows], data.weight_of(train_rows))
        self.n_outputs_ = self._task.n_outputs
        self.out_activation_ = self._task.output_activation
        self._encoder = self._make_encoder(self._numpy_dtype())
        self._encoder.fit(
            data.X,
            data.y[train_rows],
            train_rows,
            data.weight_of(train_rows),
            classification=self._task.is_classification,
            groups=data.groups_of(train_rows),
        )
        self.t_ = 0

    def _keep_encoding(self, data: FitData, rows: NDArray[np.intp]) -> None:
        """Go on with the last fit's task and encoder, by parameters that may have changed since."""
        task = self._make_task()
        if type(task) is not type(self._task):
            raise ValueError(
                "The task was changed since the last fit, so training cannot continue from there. "
                "Call fit with warm_start=False."
            )
        # Copies, so that a fit that fails leaves those of the last one as they were.
        self._task, self._encoder = copy.copy(self._task), copy.copy(self._encoder)
        self._task.continue_as(task)
        if isinstance(self._task, RegressionTask):
            self._task.update_constant_targets(data.y[rows])
        self._encoder.dtype = self._numpy_dtype()

    def _samples(
        self, table: Table, data: FitData, rows: NDArray[np.intp], mean_weight: MeanWeight | None = None
    ) -> Samples:
        """The rows as they are trained on, their weights over a mean weight, by default their own."""
        dtype = self._torch_dtype()
        weight = self._weight(data, rows)
        mean_weight = mean_weight or MeanWeight().including(weight, len(rows))
        weight = mean_weight.scaled(weight, len(rows))
        everything = len(rows) == len(table)
        return Samples(
            table,
            self._task.encode(data.y[rows], dtype, data.y_name),
            None if weight is None else torch.as_tensor(weight, dtype=dtype),
            None if everything else torch.as_tensor(rows),
        )

    def _mean_weight_with(self, data: FitData, before: MeanWeight) -> MeanWeight:
        """The mean weight of what was there before and of the data."""
        return before.including(self._weight(data, data.rows), len(data.rows))

    def _weight(self, data: FitData, rows: NDArray[np.intp]) -> NDArray[np.float64] | None:
        """Weights of the rows in the loss, with those of their classes; None where all weigh the same."""
        class_weight = getattr(self, "class_weight", None) if self._task.is_classification else None
        if isinstance(class_weight, dict):
            check_class_weight(class_weight, cast(ClassificationTask, self._task).classes)
        return with_class_weight(data.weight_of(rows), class_weight, data.y[rows])

    def _scorer(self, data: FitData, fold: Fold, validation: FitData | None) -> ValidationScorer:
        """The scorer of a fold's network, on validation rows of the caller's own or those that it holds out."""
        shown, rows = (data, fold.held_out) if validation is None else (validation, validation.rows)
        weight = None if shown.given_weight is None else shown.given_weight[rows]
        X = self._shown_rows(shown, rows)
        encoder = self._fold_encoder(data, fold) if validation is None else None
        table = None if encoder is None else encoder.transform(X)
        return ValidationScorer(self._check_scoring(), X, shown.y[rows], weight, encoder, table)

    def _shown_rows(self, data: FitData, rows: NDArray[np.intp]) -> Any:
        """Rows of X as scorers see them."""
        return _safe_indexing(data.X, rows)

    def _fold_encoder(self, data: FitData, fold: Fold) -> Encoder | None:
        """An encoder for scores of rows that a network holds out; None if targets have no part in any encoding."""
        return None

    # --- predict -------------------------------------------------------------------------------------------------

    def _combined_outputs(self, X: Any) -> NDArray[np.float64]:
        """Outputs ``(n, O)`` of the network, or of its members together."""
        known = self._scored_outputs
        if known is not None and X is known[0]:
            return known[1].astype(np.float64)
        return self._combined(self._member_outputs(X))

    def _combined(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs ``(n, O)`` of a lone network as they are; those of several, ``(M, n, O)``, together."""
        return outputs if outputs.ndim == 2 else self._task.combine(outputs)

    def _member_outputs(self, X: Any) -> NDArray[np.float64]:
        """Outputs ``(n, O)`` of a lone network, ``(M, n, O)`` of several."""
        return self._apply_to_table(X, self._table_outputs)

    def _apply_to_table(self, X: Any, compute: Callable[[Table], NDArray]) -> NDArray:
        """What ``compute`` makes of the encoded X, ``(..., n, O)``, here of all rows at once."""
        return compute(self._table(X))

    def _table(self, X: Any) -> Table:
        """X encoded as in ``fit``."""
        if "network_" not in self.__dict__:
            check_is_fitted(self, "network_")
        return self._encoder.transform(self._check_X(X, reset=False))

    def _table_outputs(self, table: Table) -> NDArray[np.float64]:
        return network_outputs(self.network_, table, resolve_device(self.device)).astype(np.float64)

    def predict(self, X: Any) -> NDArray:
        """Predict labels.

        Parameters
        ----------
        {X}

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            The most probable class of each sample; for multilabel targets, 1 for the labels of probability above 0.5.

        Raises
        ------
        {X_errors}
        """
        # First, because it raises NotFittedError before `_task` is read.
        outputs = self._combined_outputs(X)
        return self._task.decode(outputs)
