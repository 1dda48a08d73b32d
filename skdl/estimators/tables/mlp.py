"""Multilayer perceptrons for tables: ``MLPClassifier``, ``MLPRegressor`` and ``MLPEstimator``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import ClassifierTags, RegressorTags, Tags, _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skdl.data.folds import Fold
from skdl.data.table import Table
from skdl.data.tables.frames import has_objects, is_frame
from skdl.data.tables.numeric_embeddings import NUMERIC_EMBEDDINGS
from skdl.data.tables.scaling import SCALINGS
from skdl.data.tables.table_encoder import TableEncoder
from skdl.engine.job import Job, Result, State
from skdl.estimators.base import NetworkEstimator, ScaledJobs
from skdl.estimators.checks import FitData, check_table
from skdl.estimators.parameters import (
    ACTIVATION_DOC,
    FITTED_DOC,
    TRAINING_DOC,
    TrainingParameters,
    documented,
    is_auto,
    layer_sizes,
    with_entries,
)
from skdl.estimators.quantiles import QUANTILES_DOC, QuantilesMixin
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
    ProbabilityMixin,
    classification_task,
)
from skdl.estimators.tables.calibration import Calibration
from skdl.estimators.tables.relevance import gains_by_scaling, scaled_jobs
from skdl.estimators.training import warn_of_numbers_as_text
from skdl.nn.activations import ACTIVATIONS, get_activation
from skdl.nn.dense import DenseArchitecture, DenseModule
from skdl.nn.periodic import PeriodicEmbedding
from skdl.tasks.classification import ClassificationTask
from skdl.tasks.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, has_log_link
from skdl.tasks.regression import RegressionTask


def _relevance_scaling_doc(wide: str = "") -> str:
    return f"""
relevance_scaling : bool or "auto", default="auto"
    Whether each encoded column is multiplied, in training, by a factor of 0.2 to 4 that grows with its correlation with
    the target on the network's own training rows: among many uninformative columns, the informative ones are then
    learned first. If the ``numeric_embedding`` has bins, "auto" does so {wide}
    if fewer than 60 % of at least 10 numeric columns, each by itself, split the target better than chance would, or if
    the first two networks, trained for five epochs both ways, have a clearly smaller loss on their validation rows with
    it. Under ``warm_start`` the choice is kept. Sparse matrices, the columns of a periodic embedding, embedded
    categories and ``partial_fit`` are not scaled. Penalties and weight decay act on the weights of scaled columns.
""".replace(" \n", "\n")


NETWORK_DOC = f"""
hidden_layer_sizes : tuple of int, default=(128, 128)
    Number of units of each hidden layer; ``()`` is a linear model.
{ACTIVATION_DOC.strip()}
normalization : {{None, "batch", "layer"}}, default=None
    Normalisation before each activation.
dropout : float in [0, 1) or "auto", default="auto"
    Fraction of the hidden units dropped in each training step. "auto" is 0.05 for classification and 0 for regression,
    where dropout biases predicted means.
numeric_scaling : {{"robust", "standard", None}}, default="robust"
    Scaling of numeric columns by statistics of the training rows. "robust": minus the median, divided by the
    interquartile range, then smoothly clipped to (-3, 3) (Holzmueller et al. 2024). "standard": minus the mean, divided
    by the standard deviation. None: unchanged. Columns of sparse matrices are divided by their largest absolute value
    instead.
numeric_embedding : {{None, "piecewise_linear", "periodic", "both"}}, default="both"
    What is added to each scaled numeric column. "piecewise_linear" cuts its range into bins, at quantiles and where a
    small decision tree on the column alone would split it, and adds one number per bin (Gorishniy et al. 2022). It aims
    at 256 bins in total, with 8 to 64 per column and at least 64 rows per bin above 8; columns of few values get fewer,
    those of two or one none, and columns that the tree finds very informative up to two and a half times as many.
    "periodic" adds 3 numbers per column, mixed from cosines of 16 frequencies; frequencies, phases and mixture are
    trained with the network (Gorishniy et al. 2022, Holzmueller et al. 2024). "both" adds the bins and, with at most 32
    numeric columns and at least 500 training rows, cosines of 8 frequencies. With bins, numbers that stand for
    categories are also encoded as categories. None gives a faster and plainer network. Sparse matrices have no
    embedding; with more than 256 numeric columns there is no "periodic", and with more than 256 of three or more
    distinct values there are no bins.
{_relevance_scaling_doc("in classification of more than 50 columns, or").lstrip()}"""

CLASSIFIER_NETWORK_DOC = with_entries(
    NETWORK_DOC,
    dropout="""
dropout : float in [0, 1) or "auto", default="auto"
    Fraction of the hidden units dropped in each training step. "auto" is 0.05.
""",
    relevance_scaling=_relevance_scaling_doc("with more than 50 columns, or"),
)
REGRESSOR_NETWORK_DOC = with_entries(
    NETWORK_DOC,
    dropout="""
dropout : float in [0, 1) or "auto", default="auto"
    Fraction of the hidden units dropped in each training step. "auto" is 0: dropout biases predicted means.
""",
    relevance_scaling=_relevance_scaling_doc(),
)

TABLE_TRAINING_DOC = with_entries(
    TRAINING_DOC,
    batch_size="""
batch_size : int or "auto", default="auto"
    Rows per training step. "auto" is 256 for 2,000 training rows or more, 128 for 600 or more, and 32 otherwise.
""",
    max_epochs="""
max_epochs : int or "auto", default="auto"
    Number of passes over the n training rows, or the maximum under early stopping. "auto" is ``26 * sqrt(4000 / n)``,
    between 12 and 64; under early stopping ``160 * sqrt(4000 / n)``, between 12 and 640.
""",
    early_stopping="""
early_stopping : bool or "auto", default="auto"
    Whether to hold out ``validation_fraction`` of the rows (none if ``fit`` is given ``X_val``), stop when their score
    no longer improves, and keep the parameters of the best epoch. "auto" does so with 16 rows or more, and whenever
    ``fit`` is given ``X_val``.
""",
    n_members="""
n_members : int or "auto", default="auto"
    Number of networks to train side by side and average. "auto" is 8 if rows are held out for early stopping, and 1
    otherwise. Under early stopping by a cross-entropy, the logits of several networks are divided by the square root of
    the temperature, at least 1, that suits their validation rows best (Guo et al. 2017), and shifted so that the mean
    probability of each class on those rows is its share of them.
""",
    n_iter_no_change="""
n_iter_no_change : int or "auto", default="auto"
    Number of epochs without a better validation score after which training stops. "auto" is the number of epochs up to
    the last better one plus 3, but at most 40.
""",
    scoring="""
scoring : str, callable or None, default=None
    Validation score: a name from :func:`sklearn.metrics.get_scorer_names`, a callable ``scorer(estimator, X, y)``, or
    None for the negative loss. With several networks None is robust, since rows that one of them gets wrong by far say
    little of their mean: in a cross-entropy, (18 p + 1) / 19 takes the place of the probability p of the true label,
    and of the squared error of a row its root counts. Among epochs with equal scores, the one with the smallest
    validation loss is best. Without validation rows, no scores are computed.
""",
    warm_start="""
warm_start : bool, default=False
    Whether ``fit`` continues from the parameters and the optimiser state of the last ``fit``, with its encoding of the
    columns, except that means of categories are learned anew, and of y. On the same rows each network holds out the
    same rows as in the last ``fit``; on other rows, scores and ``out_of_fold_`` may include rows that it was trained on
    then.
""",
)
CLASSIFIER_TRAINING_DOC = with_entries(
    TABLE_TRAINING_DOC,
    **CLASSIFICATION_TRAINING,
    scoring="""
scoring : str, callable or None, default=None
    Validation score: a name from :func:`sklearn.metrics.get_scorer_names`, a callable ``scorer(estimator, X, y)``, or
    None for the negative loss. With several networks the negative cross-entropy is made robust, since rows that one of
    them gets wrong by far say little of their mean: (18 p + 1) / 19 takes the place of the probability p of the true
    label. Among epochs with equal scores, the one with the smallest validation loss is best. Without validation rows,
    no scores are computed.
""",
)
REGRESSOR_TRAINING_DOC = with_entries(
    TABLE_TRAINING_DOC,
    **REGRESSION_TRAINING,
    n_members="""
n_members : int or "auto", default="auto"
    Number of networks to train side by side and average. "auto" is 8 if rows are held out for early stopping, and 1
    otherwise.
""",
    scoring="""
scoring : str, callable or None, default=None
    Validation score: a name from :func:`sklearn.metrics.get_scorer_names`, a callable ``scorer(estimator, X, y)``, or
    None for the negative loss. With several networks the squared error is made robust, since rows that one of them gets
    wrong by far say little of their mean: of each row's squared error the root counts. Among epochs with equal scores,
    the one with the smallest validation loss is best. Without validation rows, no scores are computed.
""",
)

#: "auto" epochs for n training rows are ``epochs * sqrt(EPOCHS_ROWS / n)``, within bounds.
EPOCHS_ROWS = 4000
#: Epochs in that formula, their lower and their upper bound, under early stopping, which finds the end by itself.
STOPPED_EPOCHS = (160, 12, 640)
#: The same without early stopping.
FIXED_EPOCHS = (26, 12, 64)
#: "auto" patience, as in :mod:`skdl.estimators.training`. Where y follows from X nearly without noise, errors fall
#: slowly for long.
AUTO_PATIENCE = 40, 3
#: Training rows from which "auto" early stopping holds rows out.
EARLY_STOPPING_ROWS = 16
#: Networks of an "auto" ensemble, if rows are held out.
AUTO_MEMBERS = 8
#: "auto" dropout of classifiers.
AUTO_DROPOUT = 0.05
#: Rows that are encoded at a time for a prediction: encoded, they take many times as much memory.
ENCODED_ROWS = 65_536
#: In classification of more columns than this, "auto" scales by relevance without a trial.
WIDE_COLUMNS = 50
#: With as many columns that have bins, or more, "auto" scales by relevance without a trial if few of them are
#: informative.
MIN_BINNED_COLUMNS = 10
#: Few are informative if less than this share of them tells something of the target by itself.
INFORMATIVE_SHARE = 0.6

TABLE_FITTED_DOC = (
    FITTED_DOC.rstrip()
    + """
column_kinds_ : ndarray of str, shape (`n_features_in_`,)
    What each column was taken for: "numeric", "code" (numbers that stand for categories, encoded as both),
    "categorical", "datetime", or "empty" without any value.
relevance_scaling_ : bool
    Whether the last ``fit`` scaled encoded columns by relevance. ``partial_fit`` alone does not set it.
coefs_, intercepts_ : list of ndarray
    Weights ``(n_in, n_out)`` and biases of each layer, from input to output. Several networks have none:
    asking for them raises AttributeError.
"""
)
CLASSIFIER_FITTED = {
    **CLASSIFICATION_FITTED,
    "best_validation_score_": """
best_validation_score_ : float or None
    The best of the last call's scores; with several networks, the mean of their best scores, before their
    logits are calibrated (see ``n_members``). None if it had no validation rows.
""",
}

TABLE_METHODS = {
    "training_X": """
X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
    Training data: a pandas or polars frame with numeric, boolean, categorical, text and date columns, a numeric array,
    or a sparse matrix. Frames and arrays may have missing values.
""",
    "X": """
X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
    Samples, with the columns of ``fit``.
""",
    "X_errors": """
NotFittedError
    If the estimator is not fitted.
TypeError
    If X is of a type that is not supported, such as a dict or a lazy frame.
ValueError
    If X has other columns than in ``fit``, no rows, infinite numbers, or text outside of a DataFrame.
""",
    "partial_fit": """
The first call fixes how columns are encoded, such as their categories and scales: give it a representative batch.
""",
}


@dataclass(kw_only=True, eq=False, repr=False)
class TableNetworkEstimator(NetworkEstimator):
    """A dense network on an encoded table."""

    hidden_layer_sizes: Any = (128, 128)
    activation: Any = "relu"
    normalization: str | None = None
    dropout: float | str = "auto"
    numeric_scaling: str | None = "robust"
    numeric_embedding: str | None = "both"
    relevance_scaling: bool | str = "auto"

    _robust_score = True
    _network_constraints = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "normalization": [None, StrOptions({"batch", "layer"})],
        "dropout": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="left")],
        "numeric_scaling": [None, StrOptions(set(SCALINGS))],
        "numeric_embedding": [None, StrOptions(set(NUMERIC_EMBEDDINGS))],
        "relevance_scaling": ["boolean", StrOptions({"auto"})],
    }
    _parameter_constraints = {**TrainingParameters._training_constraints, **_network_constraints}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def _check_X(self, X: Any, *, reset: bool) -> Any:
        return check_table(self, X, reset=reset)

    def _member_outputs(self, X: Any) -> NDArray[np.float64]:
        # Sparse matrices are made dense by the minibatch, and what a column of objects is its cells tell together.
        is_table = is_frame(X) or (isinstance(X, np.ndarray) and X.ndim == 2)
        if not is_table or len(X) <= ENCODED_ROWS or has_objects(X):
            return super()._member_outputs(X)
        outputs_of = super()._member_outputs
        starts = range(0, len(X), ENCODED_ROWS)
        parts = [outputs_of(_safe_indexing(X, slice(start, start + ENCODED_ROWS))) for start in starts]
        return np.concatenate(parts, axis=-2)

    def _make_encoder(self, dtype: np.dtype) -> TableEncoder:
        return TableEncoder(self.numeric_scaling, self.numeric_embedding, dtype, with_level_means=True)

    def _prepare(self, data: FitData, train_rows: NDArray[np.intp], classes: ArrayLike | None = None) -> None:
        super()._prepare(data, train_rows, classes)
        if self._continues():
            # The rows may be others, of other means, or the same: then they must not be told their own targets.
            self._encoder = self._encoder.with_means_of(
                data.X, data.y[train_rows], train_rows, data.weight_of(train_rows), keeps_others=True
            )
        else:
            warn_of_numbers_as_text(self._encoder.numbers_as_text)

    def _training_table(self, data: FitData, rows: NDArray[np.intp]) -> Table:
        return self._encoder.training_table(data.X, data.y[rows], rows, data.weight_of(rows), data.groups_of(rows))

    def _fold_encoder(self, data: FitData, fold: Fold) -> TableEncoder | None:
        # A level mean of all rows would give away the targets of those that are scored.
        rows = fold.train
        encoder = self._encoder.with_means_of(data.X, data.y[rows], rows, data.weight_of(rows), keeps_others=False)
        return encoder if encoder.level_means else None

    def _architecture(self) -> DenseArchitecture:
        encoder: TableEncoder = self._encoder
        return DenseArchitecture(
            n_inputs=encoder.n_outputs,
            n_outputs=self.n_outputs_,
            hidden=layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes),
            activation=get_activation(self.activation),
            normalization=self.normalization,
            embeddings=encoder.embeddings,
            periodic=PeriodicEmbedding(encoder.n_periodic, encoder.n_frequencies) if encoder.n_periodic else None,
        )

    def _with_scaled_columns(self, jobs: list[Job]) -> ScaledJobs:
        scales = self._scales_by_relevance(jobs)
        self.relevance_scaling_ = bool(scales)
        if scales:
            jobs = scaled_jobs(jobs, self._encoder.n_periodic)
        return ScaledJobs(jobs, is_interrupted=scales is None)

    def _finished(self, jobs: list[Job], results: list[Result]) -> list[Result]:
        first = jobs[0]
        if first.start is None:
            self._calibration = Calibration()
        if len(jobs) > 1 and first.settings.keep_best and first.plan.loss.is_cross_entropy:
            self._calibration = Calibration.of(jobs, results)
        return list(map(self._calibration.applied, jobs, results))

    def _states(self, n_members: int) -> list[State]:
        # Networks go on from what their training ended with.
        architecture = self._architecture()
        return [self._calibration.undone(architecture, state) for state in super()._states(n_members)]

    def _scales_by_relevance(self, jobs: list[Job]) -> bool | None:
        """Whether to scale; None if the fit was interrupted before it was known."""
        if self._encoder.is_sparse or self._encoder.n_outputs == 0:
            return False
        if not is_auto(self.relevance_scaling):
            return bool(self.relevance_scaling)
        if self._continues() and self.t_ > 0 and hasattr(self, "relevance_scaling_"):
            return self.relevance_scaling_
        return self._auto_relevance_scaling(jobs)

    # --- "auto" --------------------------------------------------------------------------------------------------

    def _auto_batch_size(self, n_rows: int) -> int:
        if n_rows >= 2000:
            return 256
        return 128 if n_rows >= 600 else 32

    def _auto_max_epochs(self, n_rows: int, stops: bool) -> int:
        epochs, fewest, most = STOPPED_EPOCHS if stops else FIXED_EPOCHS
        return int(np.clip(round(epochs * math.sqrt(EPOCHS_ROWS / n_rows)), fewest, most))

    def _auto_patience(self) -> tuple[int, int]:
        return AUTO_PATIENCE

    def _auto_early_stopping(self, n_rows: int, has_validation: bool) -> bool:
        return has_validation or n_rows >= EARLY_STOPPING_ROWS

    def _auto_n_members(self, n_rows: int, holds_out: bool) -> int:
        return min(AUTO_MEMBERS, n_rows) if holds_out else 1

    def _dropout(self) -> float:
        return self._auto_dropout() if is_auto(self.dropout) else self.dropout

    def _auto_dropout(self) -> float:
        return AUTO_DROPOUT if self._task.is_classification else 0.0

    def _auto_relevance_scaling(self, jobs: list[Job]) -> bool | None:
        bins = self._encoder.piecewise
        if bins is None:
            return False
        if self._task.is_classification and self.n_features_in_ > WIDE_COLUMNS:
            return True
        if bins.n_binned >= MIN_BINNED_COLUMNS and bins.n_informative < INFORMATIVE_SHARE * bins.n_binned:
            return True
        return gains_by_scaling(jobs, self._encoder.n_periodic)

    # --- what was fitted -----------------------------------------------------------------------------------------

    @property
    def column_kinds_(self) -> NDArray[np.str_]:
        """What each column was taken for."""
        check_is_fitted(self, "_encoder")
        return np.array(self._encoder.column_kinds)

    @property
    def coefs_(self) -> list[NDArray]:
        """Weights ``(n_in, n_out)`` of each layer, from input to output."""
        return [layer.weight.detach().numpy().T for layer in self._linear_layers()]

    @property
    def intercepts_(self) -> list[NDArray]:
        """Biases ``(n_out,)`` of each layer, from input to output."""
        return [layer.bias.detach().numpy() for layer in self._linear_layers()]

    def _linear_layers(self) -> list[nn.Linear]:
        check_is_fitted(self, "network_")
        members = cast(list[DenseModule], self._members())
        if len(members) > 1:
            raise AttributeError(
                f"This model has {len(members)} networks, each with weights of its own: see network_.members, "
                "or set n_members=1."
            )
        return members[0].linear_layers


@documented(
    loss=CLASSIFICATION_LOSS_DOC,
    classification=CLASSIFICATION_DOC,
    network=CLASSIFIER_NETWORK_DOC,
    training=CLASSIFIER_TRAINING_DOC,
    fitted=with_entries(TABLE_FITTED_DOC, **CLASSIFIER_FITTED),
    **TABLE_METHODS,
    **CLASSIFICATION_METHODS,
    partial_fit_example="""
>>> from sklearn.datasets import load_iris
>>> from skdl import MLPClassifier
>>> X, y = load_iris(return_X_y=True)
>>> clf = MLPClassifier(random_state=0)
>>> clf.partial_fit(X[::2], y[::2], classes=[0, 1, 2]).partial_fit(X[1::2], y[1::2]).n_iter_
2
""",
    predict_proba_example="""
>>> from sklearn.datasets import load_iris
>>> from skdl import MLPClassifier
>>> X, y = load_iris(return_X_y=True)
>>> clf = MLPClassifier(n_members=2, max_epochs=10, random_state=0).fit(X, y)
>>> p = clf.predict_proba(X)
>>> p.shape
(150, 3)
>>> bool((clf.classes_[p.argmax(axis=1)] == clf.predict(X)).all())
True
""",
)
@dataclass(kw_only=True, eq=False, repr=False)
class MLPClassifier(NetworkClassifierMixin, TableNetworkEstimator):
    """Multilayer perceptron for classification of tables.

    Targets may be binary, multiclass or multilabel. X may be a pandas or polars frame with numeric, boolean,
    categorical, text and date columns and missing values, a numeric array, or a sparse matrix.

    Parameters
    ----------
    {loss}
    {classification}
    {network}
    {training}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or (2, 2)
        The labels; for multilabel targets the numbers of the columns of y, or 0 and 1 for each of two columns.
    {fitted}

    See Also
    --------
    MLPRegressor : Regression on tables.

    Examples
    --------
    >>> from skdl import MLPClassifier
    >>> from skdl.datasets import load_penguins
    >>> X, y = load_penguins(return_X_y=True, as_frame=True)
    >>> MLPClassifier(random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints = {**TableNetworkEstimator._parameter_constraints, **CLASSIFICATION_CONSTRAINTS}


@documented(
    loss=REGRESSION_LOSS_DOC,
    quantiles=QUANTILES_DOC,
    network=REGRESSOR_NETWORK_DOC,
    training=REGRESSOR_TRAINING_DOC,
    fitted=with_entries(TABLE_FITTED_DOC, **REGRESSION_FITTED),
    **TABLE_METHODS,
    **REGRESSION_METHODS,
    partial_fit_example="""
>>> from sklearn.datasets import load_diabetes
>>> from skdl import MLPRegressor
>>> X, y = load_diabetes(return_X_y=True)
>>> MLPRegressor(random_state=0).partial_fit(X[:200], y[:200]).partial_fit(X[200:], y[200:]).n_iter_
2
""",
)
@dataclass(kw_only=True, eq=False, repr=False)
class MLPRegressor(NetworkRegressorMixin, TableNetworkEstimator):
    """Multilayer perceptron for regression on tables.

    One or several targets are standardised for training and predicted in their own units. X may be a pandas or polars
    frame with numeric, boolean, categorical, text and date columns and missing values, a numeric array, or a sparse
    matrix.

    Parameters
    ----------
    {loss}
    {quantiles}
    {network}
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    MLPClassifier : Classification of tables.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdl import MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> MLPRegressor(random_state=0).fit(X, y).predict(X).shape
    (442,)
    """

    _parameter_constraints = {**TableNetworkEstimator._parameter_constraints, **REGRESSION_CONSTRAINTS}


def _classifies(estimator: MLPEstimator) -> bool:
    return estimator.task == "classification"


@documented(
    classification=CLASSIFICATION_DOC,
    quantiles=QUANTILES_DOC,
    network=NETWORK_DOC,
    training=TABLE_TRAINING_DOC,
    fitted=with_entries(
        TABLE_FITTED_DOC,
        best_validation_score_=CLASSIFIER_FITTED["best_validation_score_"],
        out_of_fold_="""
out_of_fold_ : ndarray of shape (n_samples, n_classes), (n_samples,) or (n_samples, n_targets), or None
    Probabilities of the classes, or predicted values, of each training sample, by networks that did not train on it;
    NaN for samples that no network held out. Quantiles are those of the networks, without the shift of ``predict``, and
    several are side by side along a last axis. None if no rows were held out.
""",
        out_activation_="""
out_activation_ : str
    "logistic" for two classes and for multilabel targets, "softmax" for more classes, "identity" for regression.
""",
    ),
    **TABLE_METHODS,
    training_y="""
y : array-like of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_targets)
    Labels, or 0 and 1 in a column for each of several labels; for regression, numbers.
sample_weight : array-like of shape (n_samples,), default=None
    Weight of each sample in the loss. Samples of weight 0 are ignored, except that their labels are classes.
""",
    groups=REGRESSION_METHODS["groups"],
)
@dataclass(kw_only=True, eq=False, repr=False)
class MLPEstimator(ProbabilityMixin, QuantilesMixin, TableNetworkEstimator):
    """Multilayer perceptron for tables, with the task as a parameter.

    X is as in :class:`MLPClassifier`. ``label_smoothing`` and ``class_weight`` are not used for regression, nor
    ``quantile`` and ``quantiles`` for classification.

    Parameters
    ----------
    task : {"classification", "regression"}, default="classification"
        The type of target, which also determines whether scikit-learn treats the estimator as a classifier or a
        regressor.
    loss : str or callable, default="auto"
        "auto" is "cross_entropy" for classification and "squared_error" for regression; otherwise as in
        :class:`MLPClassifier` and :class:`MLPRegressor`.
    {classification}
    {quantiles}
    {network}
    {training}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or (2, 2)
        The labels, for classification; see :class:`MLPClassifier`.
    {fitted}

    See Also
    --------
    MLPClassifier : With the task fixed to classification.
    MLPRegressor : With the task fixed to regression.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdl import MLPEstimator
    >>> X, y = load_diabetes(return_X_y=True)
    >>> MLPEstimator(task="regression", max_epochs=10, random_state=0).fit(X, y).n_iter_
    10
    """

    task: str = "classification"
    loss: Any = "auto"
    label_smoothing: float = 0.0
    class_weight: Any = None

    _parameter_constraints = {
        **TableNetworkEstimator._parameter_constraints,
        **CLASSIFICATION_CONSTRAINTS,
        **REGRESSION_CONSTRAINTS,
        "task": [StrOptions({"classification", "regression"})],
        "loss": [StrOptions({"auto", *CLASSIFICATION_LOSSES, *REGRESSION_LOSSES}), callable],
    }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if _classifies(self):
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_label=True)
        else:
            tags.estimator_type = "regressor"
            tags.regressor_tags = RegressorTags()
            tags.target_tags.multi_output = True
            tags.target_tags.positive_only = has_log_link(self.loss)
        return tags

    def _make_task(self) -> ClassificationTask | RegressionTask:
        losses: Any = CLASSIFICATION_LOSSES if _classifies(self) else REGRESSION_LOSSES
        loss = self._auto_loss() if is_auto(self.loss) else self.loss
        if isinstance(loss, str) and loss not in losses:
            raise ValueError(f"loss={loss!r} is not a loss for {self.task}. Use one of {sorted(losses)} or a callable.")
        return classification_task(loss, self.label_smoothing) if _classifies(self) else self._regression_task(loss)

    def _auto_loss(self) -> str:
        return "cross_entropy" if _classifies(self) else "squared_error"

    def partial_fit(
        self, X: Any, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> MLPEstimator:
        """Train for one epoch on some rows.

        There is no early stopping and no schedule. For regression, the first call fixes the scale of y.

        {partial_fit}

        Parameters
        ----------
        {training_X}
        y : array-like of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_targets)
            Labels, or 0 and 1 in a column for each of several labels; for regression, numbers.
        classes : array-like of shape (n_classes,), default=None
            For classification, all labels that any call will contain; required in the first call unless its y contains
            them all.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.

        Returns
        -------
        self : MLPEstimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data is not valid, X is not like that of the first call, y has labels that neither
            ``classes`` nor the y of the first call names, ``classes`` differ from those of the first call or are given
            for regression, or the loss is not finite. The estimator is then as it was before.
        TypeError
            If X or y is of a type that is not supported.

        Warns
        -----
        UserWarning
            If the first call has fewer than 10 samples.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skdl import MLPEstimator
        >>> X, y = load_iris(return_X_y=True)
        >>> estimator = MLPEstimator(task="classification", random_state=0)
        >>> estimator.partial_fit(X[::2], y[::2], classes=[0, 1, 2]).partial_fit(X[1::2], y[1::2]).n_iter_
        2
        """
        return self._partial_fit(X, y, sample_weight, classes)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict labels for classification, values for regression.

        Parameters
        ----------
        {X}
        return_std : bool, default=False
            Whether to also return the standard deviation of each prediction's error, for regression; see
            :meth:`MLPRegressor.predict`.

        Returns
        -------
        y : ndarray of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_targets)
            The most probable class of each sample; for multilabel targets, 1 for the labels of probability above 0.5;
            for regression, values in the units of y as float64, several quantiles along a last axis.
        std : ndarray like y
            Only if ``return_std``; in the units of y.

        Raises
        ------
        {X_errors}
        ValueError
            If ``return_std`` for classification, with ``loss="quantile"``, or with neither held-out or validation rows
            nor several networks.
        """
        return super().predict(X, return_std)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy for classification, coefficient of determination for regression.

        Parameters
        ----------
        {X}
        y : array-like of shape (n_samples,), (n_samples, n_labels) or (n_samples, n_targets)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the score.

        Returns
        -------
        score : float
            The larger the better, at most 1. Of several quantiles, that nearest to the median is scored.

        Raises
        ------
        {X_errors}
        """
        scorer: Callable[..., float] = (ClassifierMixin if _classifies(self) else QuantilesMixin).score
        return scorer(self, X, y, sample_weight)

    @available_if(_classifies)
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes, for classification.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Samples, with the columns of ``fit``.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``. For multilabel targets each column is the probability of its label.

        Raises
        ------
        AttributeError
            If ``task="regression"``.
        NotFittedError, ValueError, TypeError
            As in :meth:`MLPClassifier.predict_proba`.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skdl import MLPEstimator
        >>> X, y = load_iris(return_X_y=True)
        >>> estimator = MLPEstimator(n_members=2, max_epochs=5, random_state=0).fit(X, y)
        >>> estimator.predict_proba(X).shape
        (150, 3)
        """
        return super().predict_proba(X)

    @available_if(_classifies)
    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithms of the probabilities of the classes, for classification.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Samples, with the columns of ``fit``.

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``, computed from the logits, so that small probabilities do not become minus
            infinity.

        Raises
        ------
        AttributeError
            If ``task="regression"``.
        NotFittedError, ValueError, TypeError
            As in :meth:`MLPClassifier.predict_log_proba`.
        """
        return super().predict_log_proba(X)
