"""Losses per sample, with their gradients, for stacks of networks.

Axes: K models, B batch rows, O outputs, C classes.

A loss is called with the outputs ``(K, O, B)`` and the encoded target, ``(K, 1, B)`` for labels and ``(K, O, B)``
for numbers, and returns the loss of every sample ``(K, B)`` and its gradient ``(K, O, B)``. The few outputs stand in
front of the many rows, so that sums over outputs run along memory. Numbers that may differ from model to model come
as tensors ``(K, 1, 1)`` in ``settings``.

A new loss is one class here and one entry in ``CLASSIFICATION_LOSSES`` or ``REGRESSION_LOSSES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

LossSettings = dict[str, Tensor]

#: Numbers that a processor's loop takes at a time: twice its widest vectors.
VECTOR_ROWS = 32


@dataclass(frozen=True)
class Loss:
    """Base of all losses. Losses of equal fields are equal, and their jobs may share a stack."""

    #: False where the loss must see one model at a time.
    stackable = True

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def row_losses(loss: Loss, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient, of rows that are filled up to whole vectors of the processor.

    What is left over of a vector goes through other functions, whose exponentials round otherwise; and what is left
    over would depend on how many models stand side by side.
    """
    n_rows = output.shape[2]
    rest = -n_rows % VECTOR_ROWS
    if rest == 0 or not loss.stackable:
        return loss(output, target, settings)
    losses, gradient = loss(F.pad(output, (0, rest)), F.pad(target, (0, rest)), settings)
    return losses[:, :n_rows], gradient[:, :, :n_rows].contiguous()


# --- classification ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy of one label out of C; targets are class indices ``(K, 1, B)``."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        log_p = torch.log_softmax(output, 1)
        gradient = torch.softmax(output, 1)
        smoothing = settings.get("label_smoothing")
        if smoothing is None:
            gradient.scatter_(1, target, -1.0, reduce="add")
            return log_p.gather(1, target).squeeze(1).neg_(), gradient
        wanted = (smoothing / output.shape[1]).expand_as(log_p).contiguous()
        wanted.scatter_add_(1, target, (1 - smoothing).expand_as(target).contiguous())
        return (wanted * log_p).sum(1).neg_(), gradient.sub_(wanted)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Cross-entropy of independent yes/no labels, summed over them; targets are 0 or 1, ``(K, O, B)``."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        smoothing = settings.get("label_smoothing")
        if smoothing is not None:
            target = target * (1 - smoothing) + smoothing / 2
        loss = F.softplus(output).addcmul_(output, target, value=-1)
        return loss.sum(1), torch.sigmoid(output).sub_(target)


@dataclass(frozen=True)
class FocalCrossEntropy(Loss):
    """Focal loss (Lin et al. 2017): cross-entropy times ``(1 - p) ** gamma``, so that easy samples weigh less."""

    gamma: float = 2.0

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        log_p = torch.log_softmax(output, 1)
        log_pt = log_p.gather(1, target)
        pt = log_pt.exp()
        modulation = (1 - pt).pow(self.gamma)
        loss = -(modulation * log_pt).squeeze(1)
        # d loss / d log p_t, then the chain rule through the softmax: d log p_t / d z_c = [c = t] - p_c.
        slope = self.gamma * (1 - pt).clamp(min=1e-12).pow(self.gamma - 1) * pt * log_pt - modulation
        gradient = -slope * log_p.exp()
        return loss, gradient.scatter_add_(1, target, slope)


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
        return -(modulation * log_pt).sum(1), slope * (1 - pt) * sign


# --- regression: targets (K, O, B), averaged over the outputs --------------------------------------------------------


@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared error, as scikit-learn has it."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        residual = output - target
        return residual.square().mean(1) / 2, residual / output.shape[1]


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The absolute error, whose minimum is the median."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        residual = output - target
        return residual.abs().mean(1), residual.sign() / output.shape[1]


@dataclass(frozen=True)
class Huber(Loss):
    """Half the squared error within ``delta`` standard deviations of the target, linear beyond (Huber 1964)."""

    delta: float = 1.0

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        residual = output - target
        clipped = residual.clamp(-self.delta, self.delta)
        return (clipped * (residual - clipped / 2)).mean(1), clipped / output.shape[1]


@dataclass(frozen=True)
class Quantile(Loss):
    """Pinball loss, whose minimum is the quantile (Koenker and Bassett 1978)."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        quantile = settings["quantile"]
        residual = output - target
        slope = (residual > 0).to(output.dtype) - quantile
        return (slope * residual).mean(1), slope / output.shape[1]


@dataclass(frozen=True)
class Quantiles(Loss):
    """Pinball losses of several quantiles of each target; outputs are ``(K, T * Q, B)``, a target's side by side."""

    levels: tuple[float, ...] = (0.5,)

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        levels_Q1 = torch.tensor(self.levels, dtype=output.dtype, device=output.device).unsqueeze(1)
        residual = output.unflatten(1, (-1, len(self.levels))) - target.unsqueeze(2)
        slope = (residual > 0).to(output.dtype) - levels_Q1
        return (slope * residual).mean((1, 2)), slope.flatten(1, 2) / output.shape[1]


@dataclass(frozen=True)
class Poisson(Loss):
    """Half the Poisson deviance up to a constant; the output is the logarithm of the mean."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        mean = output.exp()
        return (mean - target * output).mean(1), (mean - target) / output.shape[1]


# --- reconstruction: targets (K, O, B), NaN where there is none ------------------------------------------------------


@dataclass(frozen=True)
class ReconstructionError(Loss):
    """Half the squared error of the outputs that have a target, over the number of all outputs."""

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        residual = (output - target).nan_to_num_(nan=0.0)
        return residual.square().mean(1) / 2, residual.div_(output.shape[1])


# --- a user's own ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CustomLoss(Loss):
    """A user's function ``(output, target) -> loss per sample``, differentiated by torch.

    The function sees one model and rows in front: outputs ``(B, O)`` and labels ``(B,)`` or numbers ``(B, O)``,
    both ``(B,)`` where there is one regression output. A loss of several numbers a sample is averaged over them.
    """

    function: Callable[[Tensor, Tensor], Tensor] = field()
    stackable = False

    def __post_init__(self) -> None:
        if isinstance(self.function, type):
            name = self.function.__name__
            raise ValueError(
                f"loss={name} is a class. Pass a function, or an instance such as {name}(reduction='none')."
            )

    def __call__(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        leaf_BO = output[0].t().contiguous().requires_grad_()
        target_BT = target[0].t().contiguous()
        n_rows, n_outputs = leaf_BO.shape
        labels = not target.is_floating_point()
        with torch.enable_grad():
            loss = self.function(
                leaf_BO[:, 0] if n_outputs == 1 and not labels else leaf_BO,
                target_BT[:, 0] if n_outputs == 1 or labels else target_BT,
            )
            if not isinstance(loss, Tensor) or loss.ndim == 0 or len(loss) != n_rows:
                got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
                raise ValueError(
                    f"A callable loss must return one loss per sample, a tensor of shape ({n_rows},). "
                    f"Got {got} instead. Torch's own losses do so with reduction='none'."
                )
            if not loss.requires_grad:
                raise ValueError("The callable loss returned a tensor that does not depend on its first argument.")
            loss = loss.reshape(len(loss), -1).mean(1)
            (gradient_BO,) = torch.autograd.grad(loss.sum(), leaf_BO)
        return loss.detach().unsqueeze(0), gradient_BO.t().contiguous().unsqueeze(0)


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
