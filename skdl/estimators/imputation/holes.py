"""What a fitted imputer puts into the holes of a table: means, draws and their spread.

Axes: N rows, C columns of the table, D encoded columns, K of one column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdl.closed_form.gaussian import RowDistribution
from skdl.data.tables.columns import Column
from skdl.data.tables.table_cells import CellEncoder, LevelCells, NumberCells, TableCells
from skdl.estimators.imputation.cell_model import CellModel
from skdl.estimators.imputation.output_columns import ImputedRows
from skdl.nn.network import Ensemble, NetworkModule

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

    def with_cells(self, cells: Mapping[Hole, NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
        """Cells and which are present, with encoded ones in some holes."""
        x_ND, present_ND = self.x_ND.clone(), self.present_ND.clone()
        for hole, encoded in cells.items():
            x_ND[hole.rows, hole.encoded] = torch.from_numpy(encoded).to(x_ND.dtype)
            present_ND[hole.rows, hole.encoded] = True
        return x_ND, present_ND


@dataclass(frozen=True, eq=False)
class Hole:
    """The missing cells of one column: its number and encoder, its encoded columns, and the rows."""

    column: int
    encoder: CellEncoder
    encoded: slice
    rows: NDArray[np.intp]


class LevelHole(NamedTuple):
    """Missing levels of one column, and Cholesky factors ``(N, K - 1, K - 1)`` of their errors, but for the last one's.

    Errors of all levels of a column add up to nothing.
    """

    hole: Hole
    root: Tensor

    @classmethod
    def of(cls, hole: Hole, model: CellModel, present_ND: Tensor) -> LevelHole:
        """The levels that rows of these present cells lack."""
        all_but_last = slice(hole.encoded.start, hole.encoded.stop - 1)
        return cls(hole, model.error_roots(all_but_last, present_ND[hole.rows]))

    def drawn(self, mean_ND: NDArray[np.float64], error_ND: Tensor) -> NDArray[np.float64]:
        """Encoded levels, by a draw of all errors, which decides what levels the mean's probabilities lead to."""
        error = error_ND[self.hole.rows, self.hole.encoded][:, :-1]
        normal = torch.linalg.solve_triangular(self.root, error.unsqueeze(2), upper=False).squeeze(2)
        encoder = cast(LevelCells, self.hole.encoder)
        return encoder.draw(mean_ND[self.hole.rows, self.hole.encoded], torch.special.ndtr(normal).numpy())


@dataclass(frozen=True)
class HoleFiller:
    """The parts of a fitted imputer that say what missing cells are; the network is None where there is none."""

    cells: TableCells
    model: CellModel
    network: NetworkModule | Ensemble | None
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
        mean_ND, deviation_ND = self.means(block.x_ND, block.present_ND), self.model.deviation(block.present_ND)
        by_gaussian_ND = self.model.gaussian.complete(block.x_ND, block.present_ND)
        holes = list(self._holes(block.missing_NC))
        numbers = [hole for hole in holes if isinstance(hole.encoder, NumberCells)]
        levels = [LevelHole.of(hole, self.model, block.present_ND) for hole in holes if hole not in numbers]
        draws = []
        for gaussian in redrawn:
            error_ND = self.model.error(gaussian, block.x_ND, block.present_ND, by_gaussian_ND, generator)
            cells = {level.hole: level.drawn(mean_ND, error_ND) for level in levels}
            if levels and numbers:
                # Numbers follow the levels that were drawn, not the errors that led to those.
                x_ND, present_ND = block.with_cells(cells)
                given_ND = self.model.gaussian.complete(x_ND, present_ND)
                error_ND = self.model.error(gaussian, x_ND, present_ND, given_ND, generator)
                error_ND += given_ND - by_gaussian_ND
            cells |= {hole: self._drawn_numbers(hole, mean_ND, deviation_ND, error_ND.numpy()) for hole in numbers}
            values = {hole.column: hole.encoder.decode(encoded) for hole, encoded in cells.items()}
            draws.append(ImputedRows(block.missing_NC, values))
        return draws

    def _drawn_numbers(
        self, hole: Hole, mean_ND: NDArray[np.float64], deviation_ND: NDArray[np.float64], error_ND: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Encoded numbers, by a draw of the Gaussian's errors."""
        d = hole.encoded.start
        mean, deviation, error = (part_ND[hole.rows, d] for part_ND in (mean_ND, deviation_ND, error_ND))
        return (mean + self.model.reshaped(d, error, deviation, mean))[:, None]

    def std(self, block: EncodedRows) -> NDArray[np.float64]:
        """Standard deviations ``(N, C)`` of missing cells: 0 for the others, NaN in columns without any value."""
        mean_ND = self.means(block.x_ND, block.present_ND)
        deviation_ND = self.model.deviation(block.present_ND)
        std = np.where(self.cells.filled, 0.0, np.nan) * np.ones((len(mean_ND), 1))
        for hole in self._holes(block.missing_NC):
            deviation, mean = deviation_ND[hole.rows, hole.encoded], mean_ND[hole.rows, hole.encoded]
            if isinstance(hole.encoder, NumberCells):
                deviation = self.model.spread(hole.encoded.start, deviation[:, 0], mean[:, 0])[:, None]
            std[hole.rows, hole.column] = hole.encoder.spread(deviation, mean)
        return std

    def _holes(self, missing_NC: NDArray[np.bool_]) -> Iterator[Hole]:
        """The missing cells of each column that has some."""
        for column, encoded in self.cells.slices().items():
            rows = np.flatnonzero(missing_NC[:, column])
            if len(rows):
                yield Hole(column, self.cells.encoders[column], encoded, rows)
