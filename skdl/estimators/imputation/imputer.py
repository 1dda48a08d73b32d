"""Imputation of missing cells: :class:`DeepImputer`.

Axes: N rows, D encoded columns.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.callback import with_callbacks
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, MissingValues, StrOptions
from sklearn.utils._set_output import _get_output_config, _wrap_data_with_container
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted
from torch import Tensor

from skdl.closed_form.completion import CellFeatures
from skdl.closed_form.gaussian import best_prior, fit_gaussian, usual_prior
from skdl.data.counts import check_counts
from skdl.data.tables.cells import is_missing_cell, is_same_cell
from skdl.data.tables.columns import MAX_EXACT_INTEGER
from skdl.data.tables.filled_frames import in_library
from skdl.data.tables.frames import check_flat_names, is_frame
from skdl.data.tables.table_cells import TableCells
from skdl.engine.device import resolve_device, with_torch_defaults
from skdl.engine.job import Samples
from skdl.estimators.atomic import atomic
from skdl.estimators.checks import check_table
from skdl.estimators.imputation.cell_model import CellModel
from skdl.estimators.imputation.hidden_cells import held_out_by_members, hidden_rows, training_rows, training_tables
from skdl.estimators.imputation.holes import EncodedRows, HoleFiller
from skdl.estimators.imputation.output_columns import ImputedRows, OutputColumns
from skdl.estimators.monitor import FitMonitor
from skdl.estimators.parameters import (
    TRAINING_DOC,
    TrainingParameters,
    documented,
    is_auto,
    layer_sizes,
    listed,
    with_defaults,
    with_entries,
)
from skdl.estimators.training import TrainedEstimator, caller_level, warn_of_numbers_as_text
from skdl.nn.activations import ACTIVATIONS, get_activation
from skdl.nn.reconstruction import ReconstructionArchitecture
from skdl.tasks.losses import Loss, ReconstructionError

#: Fewest rows of a table that networks are trained for: of fewer, too few are left to train on and to hold out.
MIN_TRAINED_ROWS = 20
#: "auto" members for fewer rows than LONG_ROWS.
AUTO_MEMBERS = 3
#: "auto" members for LONG_ROWS rows or more: one less is a third less time and about 1 % more error.
LONG_MEMBERS = 2
#: Rows from which "auto" members are LONG_MEMBERS.
LONG_ROWS = 3000
#: Cells of a table, rows times columns, from which "auto" hidden layers are LARGE_LAYERS.
MANY_CELLS = 10_000
#: "auto" hidden layers of tables with fewer cells.
SMALL_LAYERS = (64, 64)
#: "auto" hidden layers of tables with as many cells or more.
LARGE_LAYERS = (128, 128)
#: Rows of a table from which the "auto" batch size is LARGE_BATCH.
MANY_ROWS = 1000
#: "auto" batch size for fewer rows.
SMALL_BATCH = 128
#: "auto" batch size for as many rows or more.
LARGE_BATCH = 256
#: "auto" training steps for n rows of d encoded columns are the larger number of ``COLUMN_STEPS * d * sqrt(n)`` and
#: ``CELL_STEPS * sqrt(d * min(n, CELL_STEP_ROWS))``, within the bounds below.
COLUMN_STEPS = 2
#: Factor of the second number, which is the larger one where there are few columns.
CELL_STEPS = 9
#: Most rows that count in the second number.
CELL_STEP_ROWS = 700
#: Fewest "auto" training steps.
MIN_TRAINING_STEPS = 300
#: Most "auto" training steps.
MAX_TRAINING_STEPS = 2000
#: Most "auto" training steps times encoded columns, but for MIN_TRAINING_STEPS: each step of wide rows costs more.
MAX_STEP_CELLS = 200_000
#: How many times as many steps "auto" allows under early stopping.
STOPPED_STEPS = 4
#: How a table is read and comes back, which a fit that goes on from another one keeps.
TABLE_PARAMETERS = ("missing_values", "add_indicator", "keep_empty_features", "clip", "round_integers")
#: Share of the cells that are hidden to score an imputer.
SCORED_CELLS = 0.2


class MissingValue(MissingValues):
    """What scikit-learn lets stand for a missing cell; but not True and False, which are numbers there."""

    def is_satisfied_by(self, val: Any) -> bool:
        return not isinstance(val, bool) and (is_missing_cell(val) or super().is_satisfied_by(val))


IMPUTER_DOC = """
strategy : {"deep", "gaussian"}, default="deep"
    "gaussian" imputes the conditional mean of a Gaussian fitted by expectation maximisation (Dempster et al. 1977), in
    a fraction of a second. "deep" chooses the Gaussian's prior on held-out cells, and adds a correction learned by
    networks, in each column as far as it reduces the error.
missing_values : int, float, str, None or pandas.NA, default=numpy.nan
    A number or string that marks missing cells, in addition to NaN, None and pandas.NA, which always do.
add_indicator : bool, default=False
    Whether to append a column for each column that had missing cells in ``fit``: 1 where the cell was missing. The
    columns of a frame are then named as in ``get_feature_names_out``, even if their names are not strings.
keep_empty_features : bool, default=False
    Whether to keep columns without a single value in ``fit``. Missing numbers in them become zeros; columns of frames
    that are not of a numeric type stay unchanged.
clip : bool, default=True
    Whether to keep imputed numbers within the range of the column's values in ``fit``.
round_integers : bool, default=False
    Whether to impute whole numbers in columns that contain only whole numbers. Integer columns of frames then stay
    integer columns; otherwise those that had missing cells in ``fit`` always become float columns, and others do if
    cells are imputed. Columns with integers beyond ``2**53``, which floats cannot represent exactly, always stay
    integer columns and have their imputed cells rounded.
hidden_layer_sizes : int, sequence of int or "auto", default="auto"
    Number of units of each hidden layer. "auto" is ``(64, 64)`` for tables of fewer than 10,000 cells, and ``(128,
    128)`` otherwise.
activation : {activations}, default="relu"
    Activation of the hidden layers. A callable is as in :class:`MLPClassifier`.
dropout : float in [0, 1), default=0
    Fraction of the hidden units dropped in each training step.
""".replace("{activations}", f"{{{listed(ACTIVATIONS)}}} or callable")

IMPUTER_TRAINING_DOC = with_entries(
    with_defaults(TRAINING_DOC, weight_decay="0.01"),
    batch_size="""
batch_size : int or "auto", default="auto"
    Rows per training step. "auto" is 256 for tables of 1,000 rows or more, and 128 otherwise.
""",
    max_epochs="""
max_epochs : int or "auto", default="auto"
    Number of epochs, or the maximum under early stopping. Rows of a small table are repeated within an epoch, up to
    2,048 rows in total, with other cells hidden each time. "auto" makes ``2 * columns * sqrt(rows)`` steps, or ``9 *
    sqrt(columns * min(rows, 700))`` if that is more, at least 300 and at most 2,000 (above 100 columns ``200,000 /
    columns``), and four times as many under early stopping; each level of a categorical column counts as a column.
""",
    early_stopping="""
early_stopping : bool or "auto", default="auto"
    Whether to stop when the error on hidden cells of held-out rows no longer falls, and keep the best epoch. "auto" is
    False.
""",
    validation_fraction="""
validation_fraction : float in (0, 1) or "auto", default="auto"
    Fraction of the rows that each network holds out, at most 2,000. They determine how much of the correction is used
    in each column, and how far draws lie from the mean. "auto" is 0.2.
""",
    n_members="""
n_members : int or "auto", default="auto"
    Number of networks to train side by side and average. "auto" is 3, or 2 for 3,000 rows or more.
""",
    scoring="""
scoring : None, default=None
    Not used: there is no target to score, and any other value is an error. Held-out rows are judged by the error on
    hidden cells.
""",
    tol="""
tol : float or "auto", default="auto"
    Minimum improvement of the score that counts for ``n_iter_no_change``. "auto" is 0.
""",
    warm_start="""
warm_start : bool, default=False
    Whether ``fit`` continues from the parameters and the optimiser state of the last ``fit``, with its encoding of the
    columns and its Gaussian. On the same rows each network holds out the same rows as in the last ``fit``.
""",
    random_state="""
random_state : int, RandomState instance or None, default=None
    Determines initial weights, the order of the rows, dropout masks, the held-out rows and the hidden cells. None uses
    numpy's global random state, as everywhere in scikit-learn; no other global state is read or changed.
""",
)

IMPUTER_METHODS = {
    "X_errors": """
NotFittedError
    If the imputer is not fitted.
TypeError
    If X is sparse or of another type that is not supported.
ValueError
    If X has other columns than in ``fit``, no rows, infinite numbers, or text outside of a DataFrame.
""",
}


@documented(imputer=IMPUTER_DOC, training=IMPUTER_TRAINING_DOC, **IMPUTER_METHODS)
@dataclass(kw_only=True, eq=False, repr=False)
class DeepImputer(TransformerMixin, TrainedEstimator):
    """Imputation of missing cells in tables of mixed columns, by networks on top of a Gaussian.

    A Gaussian over all columns completes a row by its conditional mean. Networks are trained to correct it: observed
    cells are hidden from them and must be predicted from the others (denoising, Vincent et al. 2008; masked
    reconstruction, Du et al. 2024). ``transform`` only applies what ``fit`` learned and completes each row
    independently of the others, whether or not it was in ``fit``. Observed cells are returned unchanged.

    Categorical, boolean, text and date columns of frames are accepted as they are and keep their type; categorical
    columns gain the levels of ``fit`` that they lack, and a column without any value gets its type from ``fit``. The
    result for a frame is a frame of the same library, and for an array an array; see also ``set_output``. Levels not
    seen in ``fit`` stay unchanged and count as missing in the completion of other columns. In columns of more than 32
    levels, the 32 most frequent ones with at least five rows are imputed, or the most frequent one; in the completion
    of other columns, all rarer and unseen levels count as one further level.

    Parameters
    ----------
    {imputer}
    {training}

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, or the ensemble of several; None under ``strategy="gaussian"`` and with fewer than 20 rows.
    network_shares_ : ndarray of shape (n_encoded,)
        How much of the networks' correction is applied in each encoded column (one for each column of numbers, and one
        for each category of the others), from 0 to 1: the share that minimises the squared error of held-out cells.
        With 0 the Gaussian's estimate is used.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if all are strings.
    history_ : structured ndarray
        One row per epoch: epoch, loss, validation_loss, validation_score, learning_rate, seconds. Empty without
        networks.
    loss_curve_ : list of float
        Training loss of each epoch: half the squared error of standardised cells, averaged over all cells.
    loss_ : float
        Mean training loss during the epoch whose parameters were kept; NaN without networks.
    best_loss_ : float or None
        Smallest training loss of an epoch; NaN without networks, None under early stopping.
    validation_scores_ : list of float or None
        Under early stopping, the negative loss on hidden cells of held-out rows after each epoch; None otherwise.
    best_validation_score_ : float or None
        The best of these scores; with several networks, the mean of their best scores. None without early stopping.
    n_iter_ : int
        Number of epochs trained.
    n_layers_ : int
        Number of layers, including input and output; not set without networks.
    t_ : int
        Number of training samples seen.

    See Also
    --------
    sklearn.impute.IterativeImputer : Regression of each column on the others.
    sklearn.impute.SimpleImputer : A constant, or the mean, median or most frequent value of each column.

    Examples
    --------
    >>> import numpy as np
    >>> from skdl import DeepImputer
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=200)
    >>> X = np.stack([a, 2 * a + 1], axis=1)
    >>> X[::4, 1] = np.nan
    >>> imputer = DeepImputer(strategy="gaussian").fit(X)
    >>> np.round(imputer.transform([[1.0, np.nan]]))
    array([[1., 3.]])
    """

    strategy: str = "deep"
    missing_values: Any = np.nan
    add_indicator: bool = False
    keep_empty_features: bool = False
    clip: bool = True
    round_integers: bool = False
    hidden_layer_sizes: Any = "auto"
    activation: Any = "relu"
    dropout: float = 0.0
    weight_decay: float = 0.01

    _parameter_constraints = {
        **TrainingParameters._training_constraints,
        "strategy": [StrOptions({"deep", "gaussian"})],
        "missing_values": [MissingValue()],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "clip": ["boolean"],
        "round_integers": ["boolean"],
        "hidden_layer_sizes": [StrOptions({"auto"}), "array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "scoring": [None],
    }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # --- the network ---------------------------------------------------------------------------------------------

    def _architecture(self) -> ReconstructionArchitecture:
        sizes = self.hidden_layer_sizes
        sizes = self._auto_hidden_layer_sizes() if is_auto(sizes) else sizes
        hidden = layer_sizes("hidden_layer_sizes", sizes)
        n_columns = len(self._cells.column_of_D)
        return ReconstructionArchitecture(
            self._model.features.n_features, n_columns, hidden, get_activation(self.activation)
        )

    def _loss(self) -> Loss:
        return ReconstructionError()

    # --- "auto" --------------------------------------------------------------------------------------------------

    def _auto_hidden_layer_sizes(self) -> tuple[int, ...]:
        return SMALL_LAYERS if self._is_small else LARGE_LAYERS

    def _auto_batch_size(self, n_rows: int) -> int:
        return SMALL_BATCH if self._n_rows < MANY_ROWS else LARGE_BATCH

    def _auto_max_epochs(self, n_rows: int, stops: bool) -> int:
        n_columns = len(self._cells.column_of_D)
        most = max(min(MAX_TRAINING_STEPS, MAX_STEP_CELLS // n_columns), MIN_TRAINING_STEPS)
        by_columns = COLUMN_STEPS * n_columns * math.sqrt(self._n_rows)
        by_cells = CELL_STEPS * math.sqrt(n_columns * min(self._n_rows, CELL_STEP_ROWS))
        steps = float(np.clip(max(by_columns, by_cells), MIN_TRAINING_STEPS, most))
        steps *= STOPPED_STEPS if stops else 1
        # An epoch of fewer rows than a batch is one step.
        return math.ceil(steps * min(self._batch_size(n_rows), n_rows) / n_rows)

    def _auto_early_stopping(self, n_rows: int, has_validation: bool) -> bool:
        return False

    def _auto_n_members(self, n_rows: int, holds_out: bool) -> int:
        return AUTO_MEMBERS if n_rows < LONG_ROWS else LONG_MEMBERS

    # --- fit -----------------------------------------------------------------------------------------------------

    @atomic
    @with_callbacks
    @with_torch_defaults
    def fit(self, X: Any, y: Any = None) -> DeepImputer:
        """Learn how columns depend on each other.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows with or without missing cells.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : DeepImputer
            The fitted imputer.

        Raises
        ------
        ValueError
            If a parameter is not valid, X contains infinite numbers, all cells of X are missing, a column of X has the
            name of an indicator, column names have several levels, or the loss is not finite in the first epoch. The
            imputer is then as it was before.
        TypeError
            If X is sparse or has columns of a type that is not supported.
        """
        self._validate_params()
        random_state = check_random_state(self.random_state)
        X = self._check_X(X, reset=not self._continues())
        x_ND, present_ND = self._prepare(X, random_state)
        context = self._init_callback_context(max_subtasks=None)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        if self._trains():
            monitor = FitMonitor(self, self._module)
            if hasattr(self, "_skl_callbacks"):
                monitor.set_callback_context(context, {"X": X, "y": y})
            self._train(x_ND, present_ND, random_state, monitor)
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes={}, X=X, y=y)
        return self

    def _check_X(self, X: Any, *, reset: bool) -> Any:
        missing = self.missing_values
        if is_frame(X):
            check_flat_names(X)
        elif isinstance(missing, Real) and np.isinf(float(missing)):
            raise ValueError("missing_values must be finite or NaN. Replace infinities by NaN in X.")
        if sp.issparse(X):
            raise TypeError("Sparse data was passed, but a sparse matrix has no missing cells. Use X.toarray().")
        if not is_frame(X) and not _are_exact(X, missing):
            raise ValueError(
                "X is an array with integers beyond 2**53, which the floats of a completed array cannot tell apart. "
                "Pass a DataFrame, whose columns of integers stay so."
            )
        return check_table(self, X, reset=reset)

    def _prepare(self, X: Any, random_state: np.random.RandomState) -> tuple[Tensor, Tensor]:
        """Learn all but the networks; standardised cells ``(N, D)``, zeros where missing, and which are present."""
        generator = _generator(random_state)
        continues = self._continues()
        parameters = {name: getattr(self, name) for name in TABLE_PARAMETERS}
        if continues:
            _check_unchanged(self._table_parameters, parameters)
        self._table_parameters: dict[str, Any] = parameters
        x_ND, present_ND, missing_NC = self._prepared_cells(X, continues)
        self._n_rows = len(x_ND)
        if not continues:
            self._is_small = self._n_rows * len(self._cells.encoders) < MANY_CELLS
            self._output_columns = OutputColumns.of(
                X,
                self._cells,
                missing_NC,
                _check_feature_names_in(self),
                keep_empty=self.keep_empty_features,
                add_indicator=self.add_indicator,
            )
            warn_of_numbers_as_text(self._cells.numbers_as_text)
            self._fit_gaussian(x_ND, present_ND, generator)
            self.network_ = None
            self._set_history([], is_validated=False)
            self.t_ = 0
        return x_ND, present_ND

    def _fit_gaussian(self, x_ND: Tensor, present_ND: Tensor, generator: torch.Generator) -> None:
        column_of_D = torch.from_numpy(self._cells.column_of_D)
        self._prior_rows = usual_prior(*x_ND.shape)
        if self._trains():
            # It takes a few times as long as the Gaussian itself, which is little beside the networks.
            self._prior_rows = best_prior(x_ND, present_ND, column_of_D, generator)
        gaussian = fit_gaussian(x_ND, present_ND, generator, self._prior_rows)
        self._model = CellModel(gaussian, column_of_D)

    def _prepared_cells(self, X: Any, continues: bool) -> EncodedRows:
        """The encoded cells of X, by an encoding that is learned of them or goes on."""
        if not continues:
            self._cells = TableCells(self.clip, self.round_integers, self.missing_values)
        columns = self._cells.columns(X)
        if not continues and not self._cells.fit(columns).encoders:
            raise ValueError(
                "X has no values to learn from: all of its cells are missing. Drop such tables before imputation."
            )
        return EncodedRows.of(columns, self._cells, self._numpy_dtype())

    def _trains(self) -> bool:
        """Whether there are networks to train."""
        return self.strategy == "deep" and self._n_rows >= MIN_TRAINED_ROWS

    def _continues(self) -> bool:
        return super()._continues() and self.strategy == "deep" and self.network_ is not None

    def _train(
        self, x_ND: Tensor, present_ND: Tensor, random_state: np.random.RandomState, monitor: FitMonitor
    ) -> None:
        # A copy, so that a fit that fails leaves that of the last one as it was.
        model = self._model = copy.copy(self._model)
        if self._continues():
            model.features = model.features.to(x_ND.dtype)
        else:
            numbers, generator = torch.from_numpy(self._cells.numbers), _generator(random_state)
            model.follow(CellFeatures.of(model.gaussian, x_ND, present_ND, numbers, generator, self._prior_rows))
        validates = self._validates(self._n_rows)
        held_out = held_out_by_members(
            self._n_rows,
            self._n_members(self._n_rows, validates),
            self.validation_fraction,
            self._fold_draws(random_state),
        )
        seeds = random_state.randint(np.iinfo(np.int32).max, size=len(held_out)).tolist()
        judged = [hidden_rows(present_ND, rows, model.column_of_D, random_state) for rows in held_out]
        trained = [training_rows(self._n_rows, rows, random_state) for rows in held_out]
        n_taken = sum(len(rows) * self._likely_epochs(len(rows), validates) for rows in trained)
        tables = training_tables(model.table(x_ND, present_ND), model.column_of_D, seeds, n_taken)
        starts = self._states(len(held_out)) if self._continues() else [None] * len(held_out)
        training = [
            Samples(table, _targets(x_ND[rows], present_ND[rows]), None, rows)
            for table, rows in zip(tables, trained, strict=True)
        ]
        validation: list[Samples | None] = [None] * len(held_out)
        if validates:
            validation = [self._judged_samples(x_ND[rows], present_ND[rows], hidden) for rows, hidden in judged]
        settings = self._settings(training[0], stops=validates)
        self._run(self._member_jobs(settings, training, seeds, validation, starts, monitor))
        members, device = self._members(), resolve_device(self.device)
        parts = [
            # A fit that was interrupted may have fewer networks than were to be trained.
            model.judged(members[min(m, len(members) - 1)], x_ND[rows], present_ND[rows], is_hidden, device)
            for m, (rows, is_hidden) in enumerate(judged)
        ]
        model.fit_shares(parts)

    def _likely_epochs(self, n_rows: int, stops: bool) -> int:
        """Epochs to prepare for: early stopping seldom takes as many as it may."""
        most = self._most_epochs(n_rows, stops)
        return min(most, self._auto_max_epochs(n_rows, stops=False)) if stops else most

    def _judged_samples(self, x_BD: Tensor, present_BD: Tensor, is_hidden_BD: Tensor) -> Samples:
        return Samples(self._model.table(x_BD, present_BD & ~is_hidden_BD), _targets(x_BD, present_BD))

    # --- complete ------------------------------------------------------------------------------------------------

    @property
    def network_shares_(self) -> NDArray[np.float64]:
        """How much of the networks' correction is applied in each encoded column."""
        return self._model.shares_D

    def _hole_filler(self) -> HoleFiller:
        device = resolve_device(self.device)
        return HoleFiller(self._cells, self._model, self.network_, self._numpy_dtype(), device)

    @with_torch_defaults
    def transform(self, X: Any) -> Any:
        """Impute missing cells.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows, those of ``fit`` or others, with the columns of ``fit``.

        Returns
        -------
        X_new : {ndarray, DataFrame} of shape (n_samples, n_features_out)
            The rows without missing cells: a frame where X is one, else an array.

        Raises
        ------
        {X_errors}

        Examples
        --------
        >>> import pandas as pd
        >>> from skdl import DeepImputer
        >>> X = pd.DataFrame({"metres": [1.0, 2.0, 3.0, 4.0, None], "size": ["S", "S", "L", "L", "L"]})
        >>> filled = DeepImputer(strategy="gaussian").fit(X).transform(X)
        >>> int(X.isna().to_numpy().sum()), int(filled.isna().to_numpy().sum())
        (1, 0)
        """
        check_is_fitted(self, "network_shares_")
        X = self._check_X(X, reset=False)
        filler = self._hole_filler()
        return self._filled(X, list(map(filler.imputed, filler.blocks(X))))

    def _filled(self, X: Any, blocks: Sequence[ImputedRows]) -> Any:
        """X with what blocks of its rows have for its holes; a frame in the library that ``set_output`` names."""
        library = _get_output_config("transform", self)["dense"] if is_frame(X) else "default"
        return in_library(self._output_columns.filled(X, ImputedRows.joined(blocks)), library)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray:
        """Names of the columns of ``transform``'s result.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns, if ``fit`` was given none; otherwise they must be the same.

        Returns
        -------
        names : ndarray of str objects of shape (n_features_out,)
            Names of the columns kept, then those of the indicators.

        Raises
        ------
        NotFittedError
            If the imputer is not fitted.
        ValueError
            If ``input_features`` are not one per column, or not the names in ``fit``.
        """
        check_is_fitted(self, "network_shares_")
        return self._output_columns.names(_check_feature_names_in(self, input_features))

    # --- draws ---------------------------------------------------------------------------------------------------

    @with_torch_defaults
    def sample(self, X: Any, n_samples: int = 10, random_state: Any = None) -> list[Any]:
        """Complete tables with random draws instead of means, for multiple imputation.

        The missing cells of a row are drawn jointly, with the correlations of the Gaussian: levels by their
        probabilities, then numbers given those levels. The Gaussian is itself drawn anew for each table, because the
        rows of ``fit`` leave it uncertain (Rubin 1987), but for tables of more than 64 encoded columns, whose draws
        are those of one distribution. Deviations of numbers from their mean follow the errors of held-out cells.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_rows, n_features)
            Rows, with the columns of ``fit``.
        n_samples : int, default=10
            Number of tables.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        tables : list of {ndarray, DataFrame}, each of shape (n_rows, n_features_out)
            ``n_samples`` of them, each like the result of :meth:`transform`.

        Raises
        ------
        {X_errors}
        ValueError
            If ``n_samples`` is not an integer of at least 1.

        Examples
        --------
        >>> import numpy as np
        >>> from skdl import DeepImputer
        >>> x = np.random.default_rng(0).normal(size=(200, 1))
        >>> X = np.hstack([x, 2 * x + 1])
        >>> X[::4, 1] = np.nan
        >>> tables = DeepImputer(strategy="gaussian").fit(X).sample(X, n_samples=3, random_state=0)
        >>> len(tables), tables[0].shape
        (3, (200, 2))
        >>> bool(np.isnan(tables).any())
        False
        """
        check_is_fitted(self, "network_shares_")
        check_counts(n_samples=n_samples)
        random_state = check_random_state(random_state)
        X = self._check_X(X, reset=False)
        # By blocks, whose draws are joined then: column by column they take less memory than tables.
        # By a state of their own, so that the first tables do not depend on how many there are.
        redrawn = self._model.redrawn(n_samples, np.random.RandomState(random_state.randint(np.iinfo(np.int32).max)))
        filler = self._hole_filler()
        blocks = [filler.drawn(block, redrawn, _generator(random_state)) for block in filler.blocks(X)]
        tables = []
        for draws in zip(*blocks, strict=True):
            # What scikit-learn itself does with the result of ``transform``.
            tables.append(_wrap_data_with_container("transform", self._filled(X, draws), X, self))
        return tables

    @with_torch_defaults
    def imputation_std(self, X: Any) -> NDArray[np.float64]:
        """Standard deviation of each imputed cell.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows, with the columns of ``fit``.

        Returns
        -------
        std : ndarray of shape (n_samples, n_features)
            In the unit of the column, microseconds for dates and seconds for durations; for levels, the standard
            deviation of whether the most probable level is correct. 0 for observed cells, NaN in columns that had no
            value in ``fit``.

        Raises
        ------
        {X_errors}
        """
        check_is_fitted(self, "network_shares_")
        filler = self._hole_filler()
        return np.concatenate([filler.std(block) for block in filler.blocks(self._check_X(X, reset=False))])

    @with_torch_defaults
    def score(self, X: Any, y: Any = None) -> float:
        """Fraction of the variance of hidden cells that is explained.

        A fifth of the observed cells of X is hidden, always the same ones for the same table, and imputed.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows, with the columns of ``fit``.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        score : float
            1 minus the ratio of the squared error of standardised cells to that of the columns' training means: 1 is
            perfect, 0 is as good as the means. NaN, with a warning, if X is so small that no cell was hidden.

        Raises
        ------
        {X_errors}
        """
        check_is_fitted(self, "network_shares_")
        generator = torch.Generator().manual_seed(0)
        error, variance, n_hidden = 0.0, 0.0, 0
        filler = self._hole_filler()
        for block in filler.blocks(self._check_X(X, reset=False)):
            hidden_ND = torch.rand(len(block.x_ND), len(self._cells.encoders), generator=generator) < SCORED_CELLS
            hidden_ND = hidden_ND[:, self._model.column_of_D] & block.present_ND
            truth = block.x_ND.double()
            found = torch.from_numpy(filler.means(block.x_ND, block.present_ND & ~hidden_ND))
            error += float(((found - truth)[hidden_ND] ** 2).sum())
            variance += float((truth[hidden_ND] ** 2).sum())
            n_hidden += int(hidden_ND.sum())
        if n_hidden == 0:
            warnings.warn(
                "X has too few observed cells for a score: none of them was hidden.",
                UndefinedMetricWarning,
                stacklevel=caller_level(),
            )
            return math.nan
        return 1 - error / max(variance, 1e-12)


def _check_unchanged(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        # NaN and the like are not equal to themselves.
        are_missing = {is_missing_cell(value), is_missing_cell(before[name])}
        if are_missing == {True, False} or (are_missing == {False} and value != before[name]):
            raise ValueError(
                f"{name}={value!r} was {before[name]!r} in the fit that this one continues. Restore it, or call fit "
                "with warm_start=False."
            )


def _are_exact(X: Any, missing: Any) -> bool:
    """Whether floats can tell all integers of an array apart, but for those that stand for a missing cell."""
    if not isinstance(X, np.ndarray | list | tuple):
        return True
    try:
        X = np.asarray(X)
    except ValueError:
        # It is no array, as is said later.
        return True
    if X.dtype == object:
        # Integers beyond those of numpy's types are among them.
        cells = [cell for cell in X.flat if isinstance(cell, Integral)]
        return all(abs(int(cell)) <= MAX_EXACT_INTEGER or is_same_cell(cell, missing) for cell in cells)
    if X.dtype.kind not in "iu":
        return True
    integers = X[missing != X] if isinstance(missing, Real) else X
    return not integers.size or max(-int(integers.min()), int(integers.max())) <= MAX_EXACT_INTEGER


def _targets(x_BD: Tensor, present_BD: Tensor) -> Tensor:
    """Cells to find: NaN where nothing is known."""
    return x_BD.masked_fill(~present_BD, torch.nan)


def _generator(random_state: np.random.RandomState) -> torch.Generator:
    return torch.Generator().manual_seed(int(random_state.randint(np.iinfo(np.int32).max)))
