"""What a fitted imputer puts into the holes of a table: means, draws and their spread.

Axes: N rows, C columns of the table, D encoded columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.closed_form.gaussian import RowDistribution
from skdl.data.columns import Column
from skdl.data.table_cells import NumberCells, TableCells
from skdl.estimators.imputation.cell_model import CellModel
from skdl.estimators.imputation.output_columns import ImputedRows

#: Rows that are imputed at a time.
IMPUTED_ROWS = 20_000


class EncodedRows(NamedTuple):
    """Some rows of a table: standardised cells, zeros where missing, and which are present ``(N, D)``."""

    x_ND: Tensor
    present_ND: Tensor
    #: Which cells of the table are missing ``(N, C)``.
    missing_NC: NDArray[np.bool_]

    @classmethod
    def of(cls, columns: list[Column], cells: TableCells, dtype: np.dtype) -> EncodedRows:
        """The cells of columns, encoded."""
        encoded, missing_NC = cells.encode(columns, dtype)
        x_ND = torch.from_numpy(encoded)
        present_ND = ~torch.isnan(x_ND)
        return cls(x_ND.nan_to_num_(nan=0.0), present_ND, missing_NC)


class Hole(NamedTuple):
    """The missing cells of one column: its number and encoder, its encoded columns, and the rows."""

    column: int
    encoder: Any
    encoded: slice
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class HoleFiller:
    """The parts of a fitted imputer that say what missing cells are; the network is None where there is none."""

    cells: TableCells
    model: CellModel
    network: Any
    dtype: np.dtype
    device: str

    def blocks(self, X: Any) -> Iterator[EncodedRows]:
        """The rows of a table, so many at a time, which saves memory: they do not depend on their company."""
        # What a column holds, all of its rows tell together.
        columns = self.cells.columns(X)
        for start in range(0, len(columns[0].values), IMPUTED_ROWS):
            rows = [column.rows(start, start + IMPUTED_ROWS) for column in columns]
            yield EncodedRows.of(rows, self.cells, self.dtype)

    def means(self, x_ND: Tensor, present_ND: Tensor) -> NDArray[np.float64]:
        """Standardised rows with the mean of their missing cells."""
        return self.model.completed(self.network, x_ND, present_ND, self.device)

    def imputed(self, block: EncodedRows) -> ImputedRows:
        """The mean, or most probable level, of each missing cell."""
        rows = np.flatnonzero(block.missing_NC.any(axis=1))
        if not len(rows):
            return ImputedRows(block.missing_NC, {})
        mean_ND = self.means(block.x_ND[rows], block.present_ND[rows])
        holes = self._holes(block.missing_NC[rows])
        values = {hole.column: hole.encoder.decode(mean_ND[hole.rows, hole.encoded]) for hole in holes}
        return ImputedRows(block.missing_NC, values)

    def drawn(
        self, block: EncodedRows, redrawn: Sequence[RowDistribution], generator: torch.Generator
    ) -> list[ImputedRows]:
        """Draws of the missing cells, one by each redrawn Gaussian."""
        mean_ND = self.means(block.x_ND, block.present_ND)
        deviation_ND = self.model.deviation(block.present_ND)
        draws = []
        for error_ND in self.model.errors(block.x_ND, block.present_ND, redrawn, generator):
            values = self._drawn_values(mean_ND, deviation_ND, error_ND, block.missing_NC, generator)
            draws.append(ImputedRows(block.missing_NC, values))
        return draws

    def _drawn_values(
        self,
        mean_ND: NDArray[np.float64],
        deviation_ND: NDArray[np.float64],
        error_ND: NDArray[np.float64],
        missing_NC: NDArray[np.bool_],
        generator: torch.Generator,
    ) -> dict[int, NDArray]:
        """One draw of every missing cell, by a draw of the Gaussian's errors."""
        values = {}
        for column, encoder, encoded, rows in self._holes(missing_NC):
            mean = mean_ND[rows, encoded]
            if isinstance(encoder, NumberCells):
                d = encoded.start
                mean = mean + self.model.reshaped(d, error_ND[rows, d], deviation_ND[rows, d], mean[:, 0])[:, None]
            uniform = torch.rand(len(rows), generator=generator, dtype=torch.float64).numpy()
            values[column] = encoder.draw(mean, uniform)
        return values

    def std(self, block: EncodedRows) -> NDArray[np.float64]:
        """Standard deviations ``(N, C)`` of missing cells: 0 for the others, NaN in columns without any value."""
        mean_ND = self.means(block.x_ND, block.present_ND)
        deviation_ND = self.model.deviation(block.present_ND)
        std = np.where(self.cells.filled, 0.0, np.nan) * np.ones((len(mean_ND), 1))
        for column, encoder, encoded, rows in self._holes(block.missing_NC):
            deviation = deviation_ND[rows, encoded]
            if isinstance(encoder, NumberCells):
                d = encoded.start
                deviation = self.model.spread(d, deviation[:, 0], mean_ND[rows, d])[:, None]
            std[rows, column] = encoder.spread(deviation, mean_ND[rows, encoded])
        return std

    def _holes(self, missing_NC: NDArray[np.bool_]) -> Iterator[Hole]:
        """The missing cells of each column that has some."""
        for column, encoded in self.cells.slices().items():
            rows = np.flatnonzero(missing_NC[:, column])
            if len(rows):
                yield Hole(column, self.cells.encoders[column], encoded, rows)
