"""Which columns come back of an imputer, what they are called, and how their holes are filled.

Axes: N rows, C columns of the table.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from skdl.data.tables.columns import ColumnType
from skdl.data.tables.filled_frames import exact_integers, with_cells, with_columns, with_floats, with_names
from skdl.data.tables.frames import column_names, is_frame
from skdl.data.tables.table_cells import TableCells
from skdl.estimators.training import caller_level


class ImputedRows(NamedTuple):
    """Some rows of a table: which cells are missing ``(N, C)``, and each column's values for them, from the top."""

    missing_NC: NDArray[np.bool_]
    values: dict[int, NDArray]

    @classmethod
    def joined(cls, blocks: Sequence[ImputedRows]) -> ImputedRows:
        """The rows of several blocks, one after the other."""
        columns = sorted({c for block in blocks for c in block.values})
        values = {c: np.concatenate([block.values[c] for block in blocks if c in block.values]) for c in columns}
        return cls(np.concatenate([block.missing_NC for block in blocks]), values)


@dataclass(frozen=True)
class OutputColumns:
    """The columns of X that come back, and behind them an indicator of missing cells for each of some columns."""

    kept: list[int]
    indicated: list[int]
    #: Kept columns that had no value in ``fit``.
    empty: list[int]
    #: Names of all columns of X, as text.
    input_names: NDArray
    #: What each column of X was in ``fit``.
    types: list[ColumnType]
    #: Columns of integers that come back as floats, with or without holes.
    floating: list[int]

    @classmethod
    def of(
        cls,
        X: Any,
        cells: TableCells,
        missing_NC: NDArray[np.bool_],
        input_names: NDArray,
        *,
        keep_empty: bool,
        add_indicator: bool,
    ) -> OutputColumns:
        """Choose from the columns of X, of which these cells were learned and those are missing.

        Raises
        ------
        ValueError
            If a column has the name of an indicator.
        """
        kept, empty = np.arange(len(cells.filled)), np.flatnonzero(~cells.filled)
        if not keep_empty:
            _warn_of_empty_columns(X, empty)
            kept, empty = np.flatnonzero(cells.filled), empty[:0]
        indicated = np.flatnonzero(missing_NC.any(axis=0) & add_indicator)
        imputed = np.flatnonzero(missing_NC.any(axis=0) & (not cells.round_integers)).tolist()
        floating = exact_integers(X, imputed) if is_frame(X) else []
        columns = cls(kept.tolist(), indicated.tolist(), empty.tolist(), input_names, cells.types, floating)
        columns._check_names()
        return columns

    def _check_names(self) -> None:
        names, n_kept = self.names(self.input_names), len(self.kept)
        taken = sorted(set(names[:n_kept]) & set(names[n_kept:]))
        if taken:
            raise ValueError(
                f"add_indicator=True appends columns that are called {taken}, but X has columns of that name. "
                "Rename them."
            )

    def names(self, input_names: NDArray) -> NDArray:
        """Names of the columns that come back, where those of X are called so."""
        indicators = [f"missingindicator_{input_names[c]}" for c in self.indicated]
        return np.concatenate([input_names[self.kept], np.array(indicators, dtype=object)])

    def filled(self, X: Any, rows: ImputedRows) -> Any:
        """These columns of X, an array or a frame, with values in their holes."""
        cells = {c: (np.flatnonzero(rows.missing_NC[:, c]), values) for c, values in rows.values.items()}
        fill = self._filled_frame if is_frame(X) else self._filled_array
        return fill(X, rows.missing_NC, cells)

    def _filled_array(
        self, X: NDArray, missing_NC: NDArray[np.bool_], cells: Mapping[int, tuple[NDArray[np.intp], NDArray]]
    ) -> NDArray:
        filled = X[:, self.kept]
        filled[missing_NC[:, self.kept]] = 0
        for c, (rows, values) in cells.items():
            filled[rows, self.kept.index(c)] = values
        if not self.indicated:
            return filled
        return np.hstack([filled, missing_NC[:, self.indicated].astype(filled.dtype)])

    def _filled_frame(
        self, X: Any, missing_NC: NDArray[np.bool_], cells: Mapping[int, tuple[NDArray[np.intp], NDArray]]
    ) -> Any:
        filled = with_cells(X, {**cells, **self._zeros(X, missing_NC)}, self.kept, self.types)
        filled = with_floats(filled, [self.kept.index(c) for c in self.floating if c in self.kept])
        names, n_kept = self.names(self.input_names).tolist(), len(self.kept)
        # Indicators have text for names, which scikit-learn does not take beside names that are none.
        if self.indicated or all(isinstance(name, str) for name in column_names(filled)):
            filled = with_names(filled, names[:n_kept])
        indicators = zip(names[n_kept:], self.indicated, strict=True)
        return with_columns(filled, {name: missing_NC[:, c] for name, c in indicators})

    def _zeros(self, X: Any, missing_NC: NDArray[np.bool_]) -> dict[int, tuple[NDArray[np.intp], NDArray]]:
        """What stands in the holes of numeric columns of a frame that had no value in ``fit``."""
        numeric = [c for c in self.empty if nw.from_native(X, eager_only=True)[:, c].dtype.is_numeric()]
        holes = {c: np.flatnonzero(missing_NC[:, c]) for c in numeric}
        return {c: (rows, np.zeros(len(rows))) for c, rows in holes.items()}


def _warn_of_empty_columns(X: Any, empty: NDArray[np.intp]) -> None:
    if not len(empty):
        return
    names: Sequence[Any] = column_names(X) if is_frame(X) else range(X.shape[1])
    warnings.warn(
        f"Columns without a single value are left out: {[names[c] for c in empty]}. "
        "Set keep_empty_features=True to keep them.",
        UserWarning,
        stacklevel=caller_level(),
    )
