"""Piecewise-linear encoding of numeric columns (Gorishniy, Rubachev and Babenko, NeurIPS 2022).

The range of a column is cut into bins; a value becomes one number per bin: 1 for each bin below it, the share of the
way through its own bin, 0 for each bin above. A linear layer on top is any function with kinks at the bin edges, so
that thresholds and steps in a column, which a plain network learns slowly, are cheap.

Edges are quantiles, which put them where the data is, together with the thresholds of a decision tree of that one
column, which puts them where the target changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdl.data.moments import weighted_quantiles
from skdl.data.sampling import sample_rows
from skdl.data.types import Weights

#: Bins, each an encoded column, that all numeric columns together aim at: each column at an equal part of them, half of
#: it in quantiles, beside as many thresholds as are worth it.
TOTAL_BINS = 256
#: Fewest bins that a column aims at.
MIN_COLUMN_BINS = 8
#: Most bins that a column aims at.
MAX_COLUMN_BINS = 64
#: Training rows that a bin should have.
ROWS_PER_BIN = 64
#: Most numeric columns that are embedded; for bins, those of three values or more count. With more, the encoding would
#: be all of the network, so it is left out.
MAX_EMBEDDED_COLUMNS = 256
#: A split of a node must explain more squared deviations of rows than so many times the variance of the node.
MIN_EXPLAINED = 12.0
#: Rows from which edges are found.
EDGE_ROWS = 50_000
#: A leaf of a column's tree must have one in so many rows, within the bounds MIN_LEAF_ROWS and MAX_LEAF_ROWS.
LEAF_SHARE = 200
#: Fewest rows that a leaf must have.
MIN_LEAF_ROWS = 5
#: Most rows that a leaf must have: rare values may say much of the target.
MAX_LEAF_ROWS = 20


def bins_per_column(n_columns: int, n_rows: int) -> int:
    """How many bins each of so many columns aims at."""
    return int(np.clip(min(TOTAL_BINS // n_columns, n_rows // ROWS_PER_BIN), MIN_COLUMN_BINS, MAX_COLUMN_BINS))


def tree_thresholds(x: NDArray, y: NDArray, weight: Weights, n_leaves: int, classification: bool) -> NDArray:
    """Where a decision tree of one column splits it, as far as chance would not split it as well."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    tree_class = DecisionTreeClassifier if classification else DecisionTreeRegressor
    leaf_rows = int(np.clip(len(x) // LEAF_SHARE, MIN_LEAF_ROWS, MAX_LEAF_ROWS))
    tree = tree_class(max_leaf_nodes=n_leaves, min_samples_leaf=leaf_rows, random_state=0)
    # Trees work in float32, and add up a column: without their centre, values keep more digits; huge ones are of no use
    # as thresholds.
    center, largest = np.median(x), np.finfo(np.float32).max / (4 * len(x))
    with np.errstate(over="ignore"):
        centered = np.clip(x - center, -largest, largest)
    tree.fit(centered[:, None], y, weight)
    return tree.tree_.threshold[_is_significant(tree.tree_)] + center


def _is_significant(tree: Any) -> NDArray[np.bool_]:
    """The splits of a tree that explain, or lead to some that do, more than the best split of noise would.

    Of noise of variance s^2 a split of n rows explains about s^2 / n; the best of all cuts several times as much.
    """
    is_split = tree.feature >= 0
    impurity = tree.n_node_samples * tree.impurity
    explained = impurity - impurity[tree.children_left] - impurity[tree.children_right]
    is_significant = is_split & (explained > MIN_EXPLAINED * tree.impurity)
    # Children stand behind their parents.
    for node in np.flatnonzero(is_split)[::-1]:
        is_significant[node] |= is_significant[tree.children_left[node]] | is_significant[tree.children_right[node]]
    return is_significant


def column_edges(x: NDArray, thresholds: NDArray, weight: Weights, n_bins: int) -> NDArray:
    """Edges of the bins of one column without missing values: quantiles, beside the thresholds of a tree."""
    quantiles = weighted_quantiles(x, np.linspace(0, 1, max(n_bins // 2, 2) + 1), weight)
    edges = np.unique(np.concatenate([quantiles, thresholds, [x.min(), x.max()]]))
    with np.errstate(over="ignore"):
        # Bins must have a width that the range of the column can be divided by.
        divisible = np.isfinite((edges[-1] - edges[0]) / np.diff(edges)).all()
    return edges if divisible else np.empty(0)


def _has_three_values(x: NDArray) -> bool:
    """Whether a column has three values or more, missing ones aside."""
    present = x[~np.isnan(x)]
    return len(present) > 0 and bool(((present != present.min()) & (present != present.max())).any())


class PiecewiseLinearEncoder:
    """Bins of every numeric column, and the encoding by them.

    Attributes
    ----------
    edges, means : list of ndarray
        Of each column's bins; empty for columns without bins.
    n_binned, n_informative : int
        Columns with bins, and those of them that tell something of the target by themselves.
    """

    def fit(
        self,
        columns: Callable[[int], NDArray],
        n_columns: int,
        y: NDArray,
        weight: Weights,
        classification: bool,
    ) -> PiecewiseLinearEncoder:
        """Learn from ``columns(j)``, the training values of column j, NaN where missing, and the target."""
        n_rows, sample = len(y), sample_rows(len(y), EDGE_ROWS)
        # Columns of two values, such as zeros and ones, need no bins.
        is_cut = [_has_three_values(np.asarray(columns(j)[sample], dtype=np.float64)) for j in range(n_columns)]
        if sum(is_cut) > MAX_EMBEDDED_COLUMNS:
            is_cut = [False] * n_columns
        n_bins = bins_per_column(max(n_columns, 1), n_rows)
        y = y[sample]
        weight = None if weight is None else weight[sample]
        self.n_binned, self.n_informative = sum(is_cut), 0
        self.edges: list[NDArray] = []
        self.means: list[NDArray] = []
        for j in range(n_columns):
            x = np.asarray(columns(j)[sample], dtype=np.float64)
            present = ~np.isnan(x)
            present_weight = None if weight is None else weight[present]
            edges = means = np.empty(0)
            if is_cut[j]:
                thresholds = tree_thresholds(x[present], y[present], present_weight, 2 * n_bins, classification)
                self.n_informative += len(thresholds) > 0
                edges = column_edges(x[present], thresholds, present_weight, n_bins)
            if len(edges):
                means = np.average(self._encode(x[present], edges), axis=0, weights=present_weight)
            self.edges.append(edges)
            self.means.append(means)
        return self

    @property
    def n_outputs(self) -> int:
        return sum(map(len, self.means))

    @staticmethod
    def _encode(x: NDArray, edges: NDArray) -> NDArray:
        with np.errstate(over="ignore"):
            return np.clip((x[:, None] - edges[:-1]) / np.diff(edges), 0, 1)

    def transform(self, x: NDArray, out: NDArray) -> None:
        """Encode rows ``(n, d)`` into ``out`` ``(n, n_outputs)``, each bin around its training mean, missing as 0."""
        start = 0
        for j, (edges, means) in enumerate(zip(self.edges, self.means, strict=True)):
            if len(edges) == 0:
                continue
            stop = start + len(means)
            encoded = self._encode(x[:, j], edges) - means
            np.nan_to_num(encoded, copy=False, nan=0.0)
            out[:, start:stop] = encoded
            start = stop
