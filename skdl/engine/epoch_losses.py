"""The losses of an epoch's rows, and their gradients.

Axes: K models, N rows of the longest job, B batch rows, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skdl.engine.batches import Batch
from skdl.nn.augment import Mixing
from skdl.tasks.losses import Loss, LossSettings, first_settings, row_losses

#: Outputs that may wait for their losses.
MOST_WAITING = 2**18


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
        self._waiting: list[tuple[Tensor, Tensor]] = []
        #: Of those that wait: the first one's place in the epoch, the number of models, and how many steps may wait.
        self._first_row, self._n_models, self._most_steps = 0, 0, 0

    def settings(self, k: int) -> LossSettings:
        """The settings of the first ``k`` models."""
        if k not in self._settings:
            self._settings[k] = first_settings(self._settings[len(self.loss_KN)], k)
        return self._settings[k]

    def wanted(self, target_KTB: Tensor) -> Tensor:
        """What the outputs of the first models are held against, for the target of many steps."""
        settings = self.settings(len(target_KTB))
        return self.loss.wanted(target_KTB, self._n_outputs, self.loss_KN.dtype, settings)

    def gradient(self, batch: Batch, output: Tensor, mixing: Mixing | None = None) -> Tensor:
        """The gradient ``(K, O, B)`` of each row's loss; the losses themselves may come later."""
        settings = self.settings(batch.n_models)
        if mixing is None and self.loss.stackable:
            if batch.n_models != self._n_models or len(self._waiting) >= self._most_steps:
                self.settle()
                self._first_row, self._n_models = batch.start, batch.n_models
                self._most_steps = MOST_WAITING // output.numel()
            self._waiting.append((output, batch.target_KTB))
            return self.loss.gradient(output, batch.target_KTB, settings)
        values_KB, grad_KOB = self.loss.both(output, batch.target_KTB, settings)
        if mixing is not None:
            other_KB, other_grad_KOB = self.loss.both(output, batch.target_KTB[..., mixing.order_B], settings)
            values_KB, grad_KOB = values_KB.lerp(other_KB, mixing.share), grad_KOB.lerp(other_grad_KOB, mixing.share)
        self.loss_KN[: batch.n_models, batch.start : batch.start + output.shape[2]] = values_KB
        return grad_KOB

    def settle(self) -> None:
        """Work out the losses that wait."""
        if self._waiting:
            output, target = (torch.cat(tensors, 2) for tensors in zip(*self._waiting, strict=True))
            values_KB = row_losses(self.loss, output, target, self.settings(self._n_models))
            self.loss_KN[: self._n_models, self._first_row : self._first_row + output.shape[2]] = values_KB
        # The next loss is the first to wait again.
        self._waiting, self._most_steps = [], 0
