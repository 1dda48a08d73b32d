"""Tables of mixed columns to tensors.

Numeric columns are scaled by statistics of the training rows, with a 0/1 column beside each one that had missing
values; boolean and two-level columns become -1 and +1; categorical columns with few levels become 0/1 columns, one
a level, those with many are left as level numbers for an embedding, and the mean target of their levels stands among
the numeric columns; dates become numbers. Missing values and levels that were not there in training become zeros: the
middle of a scaled column, no level of a categorical one. Where training rows had missing values, "missing" has a column
or a level of its own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import DTypeLike, NDArray

from skdl.data.sampling import sample_rows
from skdl.data.table import DenseTable, SparseTable, Table
from skdl.data.tables.categories import CategoricalEncoder, are_nominal, as_levels, distinct_rows, embedding_width
from skdl.data.tables.columns import Column, Kind
from skdl.data.tables.fitted_columns import FittedColumn, mixtures
from skdl.data.tables.frames import frame_columns, is_frame
from skdl.data.tables.level_means import LevelMeans, columns_with_means, has_many_levels, parts_of
from skdl.data.tables.numeric_embeddings import NUMERIC_EMBEDDINGS, NumericEmbedding
from skdl.data.tables.object_columns import numbers_as_text
from skdl.data.tables.piecewise import PiecewiseLinearEncoder
from skdl.data.tables.scaling import MAX_SCALED, NumericEncoder
from skdl.data.types import Weights

#: Rows encoded at a time, so that intermediate values stay small beside the table.
CHUNK_ROWS = 4096
#: Rows by which codes among numbers are told.
CODE_SAMPLE = 10_000


def _date_numbers(values: NDArray) -> NDArray[np.float64]:
    """Seconds since 1970, year, month, day of the month, day of the week and hour; NaN where missing."""
    missing = np.isnat(values)
    stamps = np.where(missing, np.datetime64(0, "us"), values)
    years, months, days = (stamps.astype(f"datetime64[{unit}]") for unit in "YMD")
    parts = [
        stamps.astype(np.int64) / 1e6,
        years.astype(np.int64) + 1970,
        (months - years).astype(np.int64) + 1,
        (days - months).astype(np.int64) + 1,
        (days.astype(np.int64) + 3) % 7,
        (stamps - days).astype("timedelta64[h]").astype(np.int64),
    ]
    numbers = np.stack(parts, axis=1).astype(np.float64)
    numbers[missing] = np.nan
    return numbers


def _label_numbers(y: NDArray, classification: bool) -> NDArray:
    """Labels as numbers; targets that are numbers already stay as they are."""
    return np.unique(y, return_inverse=True)[1] if classification and y.ndim == 1 else y


class TableEncoder:
    """Arrays, frames and sparse matrices to encoded tables.

    Parameters
    ----------
    numeric_scaling : {"robust", "standard", None}
        See :class:`NumericEncoder`.
    numeric_embedding : str or None
        A name in ``NUMERIC_EMBEDDINGS``. Columns of bins stand beside the scaled ones; a periodic embedding is left to
        the network, see ``n_periodic``.
    dtype : numpy.dtype
        Of the encoded numbers.
    with_level_means : bool, default=False
        Whether columns of many levels become means of the target as well. Rows that are trained on must then be encoded
        by :meth:`training_table`.

    Attributes
    ----------
    n_outputs : int
        Width of the encoded numbers.
    embeddings : tuple of (int, int)
        Levels and width of each column that is left to an embedding.
    n_periodic : int
        How many of the leading encoded columns are left to a periodic embedding.
    n_frequencies : int
        Frequencies of each of them.
    """

    def __init__(
        self,
        numeric_scaling: str | None = "robust",
        numeric_embedding: str | None = None,
        dtype: DTypeLike = np.float32,
        *,
        with_level_means: bool = False,
    ) -> None:
        self.numeric_scaling = numeric_scaling
        self.numeric_embedding = numeric_embedding
        self.dtype = np.dtype(dtype)
        self.with_level_means = with_level_means

    def fit(
        self,
        X: Any,
        y: NDArray,
        rows: NDArray[np.intp],
        weight: Weights = None,
        *,
        classification: bool = False,
        groups: NDArray[np.intp] | None = None,
    ) -> TableEncoder:
        """Learn from the given rows of a numeric array, a frame, or a CSR matrix, their targets, weights and groups."""
        #: What the columns of a frame were; None of arrays.
        self.fitted: list[FittedColumn] | None = None
        #: Means of the target by the levels of some of the categorical columns of a frame.
        self.level_means: dict[int, LevelMeans] = {}
        self.categorical: list[CategoricalEncoder] = []
        self.embeddings: tuple[tuple[int, int], ...] = ()
        self.n_periodic = self.n_frequencies = 0
        self.n_columns = X.shape[1]
        self.nominal: list[int] = []
        #: Columns of text that seem to hold numbers.
        self.numbers_as_text: list[Any] = []
        if sp.issparse(X):
            return self._fit_sparse(X[rows])
        self.is_sparse = False
        # All rows, which come in order, need no copy.
        chosen: Any = slice(None) if len(rows) == X.shape[0] else rows
        categories: list[NDArray] = []
        means: list[NDArray] = []
        if is_frame(X):
            columns = frame_columns(X)
            self.fitted = list(map(FittedColumn.of, columns))
            self.numbers_as_text = numbers_as_text(columns)
            numbers = self._numbers(columns)
            categories = [values[chosen] for values in self._values(columns, "categorical")]
            if self.with_level_means:
                told = self._columns_with_means([x[chosen] for x in numbers], categories, y, classification)
                self.level_means = {
                    i: LevelMeans(categories[i], y, weight, classification=classification) for i in told
                }
            if self.level_means:
                parts = parts_of(len(y), groups)
                means = self._means(categories, lambda levels, values: levels.of_other_parts(values, y, weight, parts))
        else:
            numbers = X.T

        def column(j: int) -> NDArray:
            return np.asarray(numbers[j][chosen]) if j < len(numbers) else means[j - len(numbers)]

        self._fit_numbers(column, len(numbers) + len(means), y, weight, classification)
        self.nominal = self._codes(column, len(numbers), categories, y, classification)
        return self._fit_categories([*categories, *(as_levels(column(j)) for j in self.nominal)], y, classification)

    def _fit_categories(self, columns: list[NDArray], y: NDArray, classification: bool) -> TableEncoder:
        self.categorical = [CategoricalEncoder().fit(values, y, classification) for values in columns]
        self.embeddings = tuple(
            (len(c.levels) + 1, embedding_width(len(c.levels))) for c in self.categorical if c.is_embedded
        )
        self.n_outputs = self._n_numbers + sum(c.n_outputs for c in self.categorical)
        return self

    def _fit_numbers(
        self, column: Callable[[int], NDArray], n_columns: int, y: NDArray, weight: Weights, classification: bool
    ) -> None:
        self.numeric = NumericEncoder(self.numeric_scaling).fit(column, n_columns, weight)
        name = self.numeric_embedding
        embedding = NumericEmbedding() if name is None else NUMERIC_EMBEDDINGS[name]
        self.piecewise = None
        if embedding.has_bins:
            self.piecewise = PiecewiseLinearEncoder().fit(column, n_columns, y, weight, classification)
        self.n_periodic, self.n_frequencies = embedding.n_periodic(n_columns, len(y)), embedding.n_frequencies

    def _codes(
        self,
        column: Callable[[int], NDArray],
        n_columns: int,
        categories: list[NDArray],
        y: NDArray,
        classification: bool,
    ) -> list[int]:
        """Which numeric columns hold codes. They are looked for where there are bins."""
        if self.piecewise is None or not self.piecewise.n_binned:
            return []
        target = _label_numbers(y, classification)
        rows = sample_rows(len(y), CODE_SAMPLE)
        # Copies of a row, as a sample with replacement has them, would make codes of all its numbers.
        columns = (*target.reshape(len(y), -1).T, *categories)
        numbers = (column(j)[rows] for j in range(n_columns))
        rows = rows[distinct_rows(itertools.chain(numbers, (values[rows] for values in columns)))]
        return [j for j in range(n_columns) if are_nominal(column(j)[rows], target[rows], classification)]

    @property
    def column_kinds(self) -> list[str]:
        """What each column is taken for: its kind, "code" for numbers that are categories as well, or "empty"."""
        if self.fitted is None:
            kinds: list[str] = ["numeric"] * self.n_columns
            numeric = list(range(self.n_columns))
        else:
            kinds = ["empty" if column.is_empty else column.kind for column in self.fitted]
            numeric = [j for j, column in enumerate(self.fitted) if column.kind == "numeric"]
        # The numbers of dates follow those of numeric columns, and may be codes for their part.
        for j in self.nominal:
            if j < len(numeric):
                kinds[numeric[j]] = "code"
        return kinds

    @property
    def _n_numbers(self) -> int:
        """How many encoded columns come of numeric ones."""
        return self.numeric.n_outputs + (self.piecewise.n_outputs if self.piecewise else 0)

    def _fit_sparse(self, X: Any) -> TableEncoder:
        """Scale to at most 1 without moving zeros."""
        self.is_sparse = True
        largest = np.zeros(X.shape[1])
        if X.nnz:
            largest = np.asarray(abs(X).max(axis=0).todense()).ravel()
        self.factors = np.ones_like(largest)
        if self.numeric_scaling is not None:
            np.divide(1, largest, out=self.factors, where=largest > np.finfo(np.float64).tiny)
        self.n_outputs = X.shape[1]
        return self

    def _values(self, columns: list[Column], kind: Kind) -> list[NDArray]:
        """The values of the columns of a frame that were of a kind in ``fit``."""
        assert self.fitted is not None
        pairs = zip(self.fitted, columns, strict=True)
        return [fitted.values(column, converts_numbers=True) for fitted, column in pairs if fitted.kind == kind]

    def _numbers(self, columns: list[Column]) -> list[NDArray]:
        """The numeric columns of a frame, dates spelled out."""
        numbers = self._values(columns, "numeric")
        for values in self._values(columns, "datetime"):
            numbers.extend(_date_numbers(values).T)
        return numbers

    @staticmethod
    def _columns_with_means(
        numbers: list[NDArray], categories: list[NDArray], y: NDArray, classification: bool
    ) -> list[int]:
        """Which categorical columns have level means."""
        many = [i for i, values in enumerate(categories) if has_many_levels(values)]
        if not many:
            return []
        # Copies of a row, as a sample with replacement has them, would make levels of one row tell everything.
        target = _label_numbers(y, classification).reshape(len(y), -1).T
        apart = distinct_rows((*numbers, *categories, *target))
        told = columns_with_means([categories[i][apart] for i in many], y[apart], classification)
        return [many[i] for i in told]

    def _means(
        self, categories: list[NDArray], means_of: Callable[[LevelMeans, NDArray], NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """The columns that stand for categories' level means, by what is said of a column's values."""
        return [column for i, levels in self.level_means.items() for column in means_of(levels, categories[i]).T]

    def transform(self, X: Any) -> Table:
        """Encode rows of the same columns as in ``fit``."""
        return self._transform(X, LevelMeans.transform)

    def training_table(
        self,
        X: Any,
        y: NDArray,
        rows: NDArray[np.intp],
        weight: Weights = None,
        groups: NDArray[np.intp] | None = None,
    ) -> Table:
        """Encode rows of which some are trained on: those of ``fit``, or others of the same columns."""
        if not self.level_means:
            return self.transform(X)
        parts = parts_of(len(rows), groups)

        def means_of(levels: LevelMeans, values: NDArray) -> NDArray[np.float64]:
            means_NT = levels.transform(values)
            means_NT[rows] = levels.of_other_parts(values[rows], y, weight, parts)
            return means_NT

        return self._transform(X, means_of)

    def with_means_of(
        self, X: Any, y: NDArray, rows: NDArray[np.intp], weight: Weights = None, *, keeps_others: bool
    ) -> TableEncoder:
        """The same encoder with the level means of these rows; of levels that they lack those it had, or none."""
        if not self.level_means:
            return self
        categories = self._values(self._columns(X), "categorical")
        encoder = copy.copy(self)
        encoder.level_means = {
            i: levels.relearned(categories[i][rows], y, weight, keeps_others=keeps_others)
            for i, levels in self.level_means.items()
        }
        return encoder

    def _transform(self, X: Any, means_of: Callable[[LevelMeans, NDArray], NDArray[np.float64]]) -> Table:
        if self.is_sparse:
            return self._transform_sparse(X)
        if self.fitted is None:
            X = self._array(X)
            out = self._empty(len(X))
            self._transform_numbers(lambda rows: X[rows], out)
            codes = self._transform_categories([as_levels(X[:, j]) for j in self.nominal], out)
            return DenseTable(torch.from_numpy(out), codes)
        columns = self._columns(X)
        categories = self._values(columns, "categorical")
        numbers = [*self._numbers(columns), *self._means(categories, means_of)]
        out = self._empty(len(columns[0].values))
        self._transform_numbers(lambda rows: np.stack([x[rows] for x in numbers], axis=1), out)
        codes = self._transform_categories([*categories, *(as_levels(numbers[j]) for j in self.nominal)], out)
        return DenseTable(torch.from_numpy(out), codes)

    @staticmethod
    def _array(X: Any) -> NDArray:
        """An array, or what takes the place of one: a sparse matrix or an all-numeric frame."""
        if not is_frame(X):
            return X.toarray() if sp.issparse(X) else X
        columns = frame_columns(X)
        values = [column.as_kind("numeric") for column in columns]
        for column, numbers in zip(columns, values, strict=True):
            if numbers is None:
                raise ValueError(f"Column {column.name!r} is {column.kind}, but fit was given an array of numbers.")
        return np.stack([np.asarray(numbers, dtype=np.float64) for numbers in values], axis=1)

    def _columns(self, X: Any) -> list[Column]:
        """The columns of a frame, or of an array that takes the place of an all-numeric frame."""
        assert self.fitted is not None
        if is_frame(X):
            return frame_columns(X, mixtures(self.fitted))
        if any(column.kind != "numeric" for column in self.fitted):
            raise ValueError(
                "X is an array, but fit was given a DataFrame with columns that are not numbers: pass one."
            )
        X = self._array(X)
        return [Column(column.name, "numeric", X[:, i]) for i, column in enumerate(self.fitted)]

    def _empty(self, n_rows: int) -> NDArray:
        return np.zeros((n_rows, self.n_outputs), dtype=self.dtype)

    def _transform_numbers(self, rows_of: Callable[[slice], NDArray], out: NDArray) -> None:
        numeric, width = self.numeric, self.numeric.n_outputs
        if width == 0:
            return
        for start in range(0, len(out), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            x = rows_of(rows)
            numeric.transform(x, out[rows, :width])
            if self.piecewise is not None:
                self.piecewise.transform(x, out[rows, width : self._n_numbers])

    def _transform_categories(self, columns: list[NDArray], out: NDArray) -> torch.Tensor | None:
        start = self._n_numbers
        codes = []
        for encoder, values in zip(self.categorical, columns, strict=True):
            if encoder.is_embedded:
                codes.append(encoder.codes(values))
            else:
                encoder.transform(values, out[:, start : start + encoder.n_outputs])
                start += encoder.n_outputs
        return torch.from_numpy(np.stack(codes, axis=1)) if codes else None

    def _transform_sparse(self, X: Any) -> SparseTable:
        scaled = sp.csr_matrix(X if sp.issparse(X) else self._array(X), dtype=np.float64, copy=True)
        if np.isnan(scaled.data).any():
            raise ValueError("Input X contains NaN, but fit was given a sparse matrix, which has no missing values.")
        with np.errstate(over="ignore"):
            scaled.data *= self.factors[scaled.indices]
        np.clip(scaled.data, -MAX_SCALED, MAX_SCALED, out=scaled.data)
        return SparseTable(scaled.astype(self.dtype))
