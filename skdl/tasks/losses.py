"""Losses per sample, with their gradients, for stacks of networks.

Axes: K models, B batch rows, O outputs, C classes.

A loss is called with the outputs ``(K, B, O)`` and the encoded target and returns the loss of every sample
``(K, B)`` and its gradient ``(K, B, O)``. Numbers that may differ from model to model come as tensors ``(K, 1, 1)``
in ``settings``.

A new loss is one class here and one entry in ``CLASSIFICATION_LOSSES`` or ``REGRESSION_LOSSES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

LossSettings = dict[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """Base of all losses. Losses of equal fields are equal, and their jobs may share a stack."""

    #: False where the loss must see one model at a time.
    stackable = True

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


# --- classification ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy of one label out of C; targets are class indices ``(K, B)``."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        # With the few classes in front of the many rows, each step runs along the rows.
        index = target.unsqueeze(1)
        log_p = F.log_softmax(output.transpose(1, 2).contiguous(), 1)
        gradient = log_p.exp()
        smoothing = settings.get("label_smoothing")
        if smoothing is None:
            gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=output.dtype))
            return log_p.gather(1, index).squeeze(1).neg_(), gradient.transpose(1, 2)
        wanted = (smoothing / output.shape[-1]).expand_as(log_p).contiguous()
        wanted.scatter_add_(1, index, (1 - smoothing).expand_as(index).contiguous())
        return (wanted * log_p).sum(1).neg_(), gradient.sub_(wanted).transpose(1, 2)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Cross-entropy of independent yes/no labels, summed over them; targets are 0 or 1, ``(K, B, O)``."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        smoothing = settings.get("label_smoothing")
        if smoothing is not None:
            target = target * (1 - smoothing) + smoothing / 2
        loss = F.softplus(output).addcmul_(output, target, value=-1)
        return loss.sum(-1), torch.sigmoid(output).sub_(target)


@dataclass(frozen=True)
class FocalCrossEntropy(Loss):
    """Focal loss (Lin et al. 2017): cross-entropy times ``(1 - p) ** gamma``, so that easy samples weigh less."""

    gamma: float = 2.0

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        index = target.unsqueeze(-1)
        log_p = F.log_softmax(output, -1)
        log_pt = log_p.gather(-1, index)
        pt = log_pt.exp()
        modulation = (1 - pt).pow(self.gamma)
        loss = -(modulation * log_pt).squeeze(-1)
        # d loss / d log p_t, then the chain rule through the softmax: d log p_t / d z_c = [c = t] - p_c.
        slope = self.gamma * (1 - pt).clamp(min=1e-12).pow(self.gamma - 1) * pt * log_pt - modulation
        gradient = -slope * log_p.exp()
        return loss, gradient.scatter_add_(-1, index, slope)


@dataclass(frozen=True)
class BinaryFocalCrossEntropy(Loss):
    """Focal loss of independent yes/no labels, summed over them."""

    gamma: float = 2.0

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        sign = 2 * target - 1
        log_pt = F.logsigmoid(sign * output)
        pt = log_pt.exp()
        modulation = (1 - pt).pow(self.gamma)
        slope = self.gamma * (1 - pt).clamp(min=1e-12).pow(self.gamma - 1) * pt * log_pt - modulation
        return -(modulation * log_pt).sum(-1), slope * (1 - pt) * sign


# --- regression: targets (K, B, O), averaged over the outputs --------------------------------------------------------


@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared error, as scikit-learn has it."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        residual = output - target
        return residual.square().mean(-1) / 2, residual / output.shape[-1]


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The absolute error, whose minimum is the median."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        residual = output - target
        return residual.abs().mean(-1), residual.sign() / output.shape[-1]


@dataclass(frozen=True)
class Huber(Loss):
    """Half the squared error within ``delta`` standard deviations of the target, linear beyond (Huber 1964)."""

    delta: float = 1.0

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        residual = output - target
        clipped = residual.clamp(-self.delta, self.delta)
        return (clipped * (residual - clipped / 2)).mean(-1), clipped / output.shape[-1]


@dataclass(frozen=True)
class Quantile(Loss):
    """Pinball loss, whose minimum is the quantile (Koenker and Bassett 1978)."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        quantile = settings["quantile"]
        residual = output - target
        slope = (residual > 0).to(output.dtype) - quantile
        return (slope * residual).mean(-1), slope / output.shape[-1]


@dataclass(frozen=True)
class Poisson(Loss):
    """Half the Poisson deviance up to a constant; the output is the logarithm of the mean."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        mean = output.exp()
        return (mean - target * output).mean(-1), (mean - target) / output.shape[-1]


# --- a user's own ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CustomLoss(Loss):
    """A user's function ``(output, target) -> loss per sample``, differentiated by torch.

    The function sees one model: outputs and targets without the model axis, and without the last axis too where
    there is one regression output. A loss of several numbers a sample is averaged over them.
    """

    function: Callable[[Tensor, Tensor], Tensor] = field()
    stackable = False

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        leaf = output.detach().requires_grad_()
        single = output.shape[-1] == 1 and target.ndim == output.ndim
        with torch.enable_grad():
            seen = leaf[0, :, 0] if single else leaf[0]
            loss = self.function(seen, target[0, :, 0] if single else target[0])
            if not isinstance(loss, Tensor) or loss.ndim == 0 or len(loss) != output.shape[1]:
                got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
                raise ValueError(
                    f"A callable loss must return one loss per sample, a tensor of shape ({output.shape[1]},). "
                    f"Got {got} instead. Torch's own losses do so with reduction='none'."
                )
            loss = loss.reshape(len(loss), -1).mean(1)
            if not loss.requires_grad:
                raise ValueError("The callable loss returned a tensor that does not depend on its first argument.")
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach().unsqueeze(0), gradient


#: name: (loss for one label of several classes, loss for yes/no labels)
CLASSIFICATION_LOSSES: dict[str, tuple[Loss, Loss]] = {
    "cross_entropy": (CrossEntropy(), BinaryCrossEntropy()),
    "focal": (FocalCrossEntropy(), BinaryFocalCrossEntropy()),
}

REGRESSION_LOSSES: dict[str, Loss] = {
    "squared_error": SquaredError(),
    "absolute_error": AbsoluteError(),
    "huber": Huber(),
    "quantile": Quantile(),
    "poisson": Poisson(),
}
