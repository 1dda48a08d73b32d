"""Encoded tables: what an encoder makes of X and what the engine draws minibatches from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Rows that the fingerprint of a table is taken of at least.
FINGERPRINT_ROWS = 8
#: Encoded numbers to take at once: enough to make up for the call, few enough to stay in the cache.
TAKE_NUMEL = 131_072


class Table(ABC):
    """Encoded samples, drawn by row number."""

    n_columns: int
    #: How many columns are embedded.
    n_embedded: int = 0
    #: Encoded numbers that should be taken at once.
    take_numel: int = TAKE_NUMEL
    #: Whether rows are slow to come and should be fetched while those before them are trained on.
    prefetches: bool = False
    #: The size ``(n,)`` of each row, where a batch of rows of like sizes is cheaper; None where all cost the same.
    sizes: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Numbers ``(len(rows), D)`` of some rows, and levels ``(len(rows), E)`` of their embedded columns, if any."""

    @abstractmethod
    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """The same of consecutive rows."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Table:
        """A table of the same rows whose tensors are on a device."""


class Encoder(Protocol):
    """What makes encoded tables of X, of one kind, by what it learned of the training rows."""

    #: Of encoded numbers. A fit that goes on from another one may set it anew.
    dtype: np.dtype

    def fit(
        self,
        X: Any,
        y: NDArray,
        rows: NDArray[np.intp],
        weight: NDArray[np.float64] | None = None,
        *,
        classification: bool = False,
        groups: NDArray[np.intp] | None = None,
    ) -> Self:
        """Learn from some rows of X; ``y``, ``weight`` and ``groups`` are those of the rows alone."""

    def transform(self, X: Any, /) -> Table:
        """Encode rows, those of ``fit`` or others."""


class ComparableTable(Table):
    """A table that can be told to be the same as another one."""

    @abstractmethod
    def fingerprint(self) -> Hashable:
        """A hashable sample of the content: different for most different tables, and for tables of another class."""

    @abstractmethod
    def equals(self, other: Any, /) -> bool:
        """Whether all numbers are those of another table with an equal fingerprint."""


class DenseTable(ComparableTable):
    """A table in memory: numbers ``(n, D)``, levels ``(n, E)`` of embedded columns, and sizes ``(n,)`` of rows."""

    def __init__(self, values: Tensor, codes: Tensor | None = None, sizes: Tensor | None = None) -> None:
        self.values = values
        self.codes = codes
        self.sizes = sizes
        self.n_columns = values.shape[1]
        self.n_embedded = 0 if codes is None else codes.shape[1]

    def __len__(self) -> int:
        return self.values.shape[0]

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        codes = None if self.codes is None else self.codes.index_select(0, rows)
        return self.values.index_select(0, rows), codes

    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Consecutive rows, without copying."""
        if start == 0 and stop >= self.values.shape[0]:
            return self.values, self.codes
        return self.values[start:stop], None if self.codes is None else self.codes[start:stop]

    def fingerprint(self) -> Hashable:
        """A few of the numbers, by which most tables that differ can be told apart."""
        n_rows = len(self)
        rows = self.values[:: max(n_rows // FINGERPRINT_ROWS, 1)]
        return self.values.shape, self.values.dtype, rows.numpy().tobytes()

    def equals(self, other: DenseTable) -> bool:
        """Whether all numbers and levels are equal."""
        if (self.codes is None) != (other.codes is None):
            return False
        return torch.equal(self.values, other.values) and (
            self.codes is None or other.codes is None or torch.equal(self.codes, other.codes)
        )

    def to(self, device: torch.device | str) -> DenseTable:
        codes, sizes = (None if part is None else part.to(device) for part in (self.codes, self.sizes))
        return DenseTable(self.values.to(device), codes, sizes)


class SparseTable(Table):
    """A scipy CSR matrix, made dense one minibatch at a time."""

    def __init__(self, matrix: Any, device: torch.device | str = "cpu") -> None:
        self.matrix = matrix
        self.device = device
        self.n_columns = matrix.shape[1]

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def _dense(self, matrix: Any) -> tuple[Tensor, None]:
        return torch.as_tensor(np.asarray(matrix.todense()), device=self.device), None

    def take(self, rows: Tensor) -> tuple[Tensor, None]:
        return self._dense(self.matrix[rows.cpu().numpy()])

    def slice(self, start: int, stop: int) -> tuple[Tensor, None]:
        return self._dense(self.matrix[start:stop])

    def to(self, device: torch.device | str) -> SparseTable:
        return SparseTable(self.matrix, device)
