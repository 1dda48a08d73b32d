"""The embeddings of numeric columns by name."""

from __future__ import annotations

from dataclasses import dataclass

from skdl.data.tables.piecewise import MAX_EMBEDDED_COLUMNS


@dataclass(frozen=True)
class NumericEmbedding:
    """Bins that the encoder adds, and a periodic embedding that is left to the network.

    Parameters
    ----------
    has_bins : bool, default=False
        Whether :class:`~skdl.data.tables.piecewise.PiecewiseLinearEncoder` adds its columns.
    n_frequencies : int, default=0
        Frequencies of each column in a periodic embedding; 0 for none.
    max_columns : int, default=256
        Most numeric columns that are embedded periodically.
    min_rows : int, default=0
        Fewest training rows with which they are.
    """

    has_bins: bool = False
    n_frequencies: int = 0
    max_columns: int = MAX_EMBEDDED_COLUMNS
    min_rows: int = 0

    def n_periodic(self, n_columns: int, n_rows: int) -> int:
        """How many of so many numeric columns are embedded periodically: all or none."""
        is_periodic = self.n_frequencies > 0 and n_columns <= self.max_columns and n_rows >= self.min_rows
        return n_columns if is_periodic else 0


NUMERIC_EMBEDDINGS: dict[str, NumericEmbedding] = {
    "piecewise_linear": NumericEmbedding(has_bins=True),
    "periodic": NumericEmbedding(n_frequencies=16),
    # Beside bins half of the frequencies bring as much. In measurements they brought nothing to more columns than this,
    # at twice the time, and did harm with fewer rows.
    "both": NumericEmbedding(has_bins=True, n_frequencies=8, max_columns=32, min_rows=500),
}
