"""Networks as feature extractors: what the output layer sees of a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch import Tensor

from skdl.data.table import Table
from skdl.engine.device import resolve_device
from skdl.engine.predict import network_outputs


class EmbeddingMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """``transform`` of estimators whose networks are :class:`~skdl.nn.autograd.AutogradModule`."""

    device: str | torch.device
    _apply_to_table: Callable[[Any, Callable[[Table], NDArray]], NDArray]
    _members: Callable[[], list[Any]]

    def transform(self, X: Any) -> NDArray:
        """Embed samples: the input of the output layer, as features for other models.

        Parameters
        ----------
        {X}

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_embedding)
            With several networks, their embeddings side by side; float32, or float64 under ``dtype="float64"``.

        Raises
        ------
        {X_errors}

        Examples
        --------
        {transform_example}
        """
        return self._apply_to_table(X, self._table_embeddings)

    def _table_embeddings(self, table: Table) -> NDArray:
        device = resolve_device(self.device)
        return np.hstack([network_outputs(member, table, device, _embeddings) for member in self._members()])

    @property
    def _n_features_out(self) -> int:
        return sum(member.output.in_features for member in self._members())


def _embeddings(module: Any, x: Tensor, codes: Tensor | None) -> Tensor:
    return module.embeddings(x)
