"""The losses of an epoch's rows, and their gradients.

Axes: K models, N rows of the longest job, B batch rows, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skdl.engine.batches import Batch
from skdl.nn.augment import Mixing
from skdl.tasks.losses import Loss, LossSettings, first_settings, row_losses

#: Most outputs that wait for their losses, but for those of a single step.
MAX_WAITING_OUTPUTS = 2**18


class EpochLosses:
    """The losses of an epoch's rows, and their gradients.

    A training step needs the gradient alone, so the losses wait until many steps can be worked out in one call.

    Parameters
    ----------
    loss : Loss
    settings : LossSettings
    n_rows : int
        Rows of the longest job.
    n_outputs : int
    like_KP : Tensor
        The models' parameters, for their number, precision and device.
    """

    def __init__(self, loss: Loss, settings: LossSettings, n_rows: int, n_outputs: int, like_KP: Tensor) -> None:
        self.loss = loss
        # In one piece from the start: small tensors that outlive a step would cut up the memory of the large ones.
        self.loss_KN = torch.zeros(len(like_KP), n_rows, dtype=like_KP.dtype, device=like_KP.device)
        self._settings = {len(like_KP): settings}
        self._n_outputs = n_outputs
        #: For each number of models: space ``(K, O, N)`` for the outputs that wait, and each step's place in it. They
        #: are copied, for many small tensors that outlive a step would cut up the memory of the large ones.
        self._spaces: dict[int, tuple[Tensor, Sequence[Tensor]]] = {}
        #: Of the waiting outputs: the place of their first row in the epoch, the number of models, each step's target.
        self._first_row, self._n_models = 0, 0
        self._targets: list[Tensor] = []

    def settings(self, k: int) -> LossSettings:
        """The settings of the first ``k`` models."""
        if k not in self._settings:
            self._settings[k] = first_settings(self._settings[len(self.loss_KN)], k)
        return self._settings[k]

    def prepared(self, target_KTB: Tensor) -> Tensor:
        """What the outputs of the first models are held against, for the target of many steps."""
        settings = self.settings(len(target_KTB))
        return self.loss.prepared(target_KTB, self._n_outputs, self.loss_KN.dtype, settings)

    def gradient(self, batch: Batch, output: Tensor, mixing: Mixing | None = None) -> Tensor:
        """The gradient ``(K, O, B)`` of each row's loss; the losses themselves may come later."""
        settings = self.settings(batch.n_models)
        if mixing is None and self.loss.stackable:
            self._wait(batch, output)
            return self.loss.gradient(output, batch.target_KTB, settings)
        values_KB, grad_KOB = self.loss.loss_gradient(output, batch.target_KTB, settings)
        if mixing is not None:
            other_KB, other_grad_KOB = self.loss.loss_gradient(output, batch.target_KTB[..., mixing.order_B], settings)
            values_KB, grad_KOB = values_KB.lerp(other_KB, mixing.share), grad_KOB.lerp(other_grad_KOB, mixing.share)
        self.loss_KN[: batch.n_models, batch.start : batch.start + output.shape[2]] = values_KB
        return grad_KOB

    def _wait(self, batch: Batch, output: Tensor) -> None:
        """Put a step's outputs with those that wait."""
        k, _, n_rows = output.shape
        if k != self._n_models or len(self._targets) == len(self._spaces[k][1]):
            self.flush()
            self._first_row, self._n_models = batch.start, k
            if k not in self._spaces:
                self._spaces[k] = self._space(output)
        place = self._spaces[k][1][len(self._targets)]
        (place if place.shape[2] == n_rows else place[:, :, :n_rows]).copy_(output)
        self._targets.append(batch.target_KTB)

    def _space(self, output: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Space for the outputs of many steps like this one, and the place of each."""
        k, n_outputs, n_rows = output.shape
        n_steps = max(MAX_WAITING_OUTPUTS // output.numel(), 1)
        space = output.new_empty(k, n_outputs, min(n_steps * n_rows, self.loss_KN.shape[1]))
        return space, space.split(n_rows, 2)

    def flush(self) -> None:
        """Work out the losses that wait."""
        if not self._targets:
            return
        k, target = self._n_models, torch.cat(self._targets, 2)
        output = self._spaces[k][0][:, :, : target.shape[2]]
        rows = slice(self._first_row, self._first_row + target.shape[2])
        self.loss_KN[:k, rows] = row_losses(self.loss, output, target, self.settings(k))
        # The next loss is the first to wait again.
        self._targets, self._n_models = [], 0
