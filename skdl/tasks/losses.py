"""Losses per sample, with their gradients, for stacks of networks.

Axes: K models, B batch rows, O outputs, C classes.

A loss is asked with the outputs ``(K, O, B)`` and the encoded target, ``(K, 1, B)`` for labels and ``(K, O, B)`` for
numbers. A training step asks for the gradient ``(K, O, B)`` alone; the rest is asked for many steps in one call: before
them, what the outputs are held against, and after them the loss of every sample, ``(K, B)``. The few outputs stand in
front of the many rows, so that sums over outputs run along memory. Numbers that may differ from model to model, which a
loss names, come as tensors ``(K, 1, 1)`` in ``settings``.

A new loss is one class here and one entry in ``CLASSIFICATION_LOSSES`` or ``REGRESSION_LOSSES``; its settings are
parameters of the estimators by the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LossSettings = dict[str, Tensor]

#: Numbers that a processor's loop takes at a time: twice its widest vectors.
VECTOR_NUMBERS = 32
#: Most classes whose target probabilities are made for many steps at once; of more, they would take too much memory.
MAX_PREPARED_CLASSES = 64


@dataclass(frozen=True)
class Loss:
    """Base of all losses. Losses of equal fields are equal, and their jobs may share a stack."""

    #: False where the loss must see one model, and the rows of one step, at a time.
    stackable = True
    #: Whether outputs are logarithms of the mean, of targets that are not negative.
    has_log_link = False
    #: Whether it is the negative log-likelihood of labels.
    is_cross_entropy = False
    #: Numbers that may differ from model to model. One that is 0 in all of them is as good as absent, and left out.
    setting_names: ClassVar[tuple[str, ...]] = ()
    #: Further ones that act in training only, such as label smoothing: validation losses do without them.
    training_setting_names: ClassVar[tuple[str, ...]] = ()

    def quantiles(self, settings: Mapping[str, float]) -> tuple[float, ...]:
        """The quantiles of the target that minimise it, by the settings of one model; none where a mean does."""
        return ()

    def prepared(self, target: Tensor, n_outputs: int, dtype: torch.dtype, settings: LossSettings) -> Tensor:
        """The target as training compares outputs with it, such as smoothed probabilities; by default as it is."""
        return target

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        """The loss of every sample, ``(K, B)``, by the target or by the prepared target."""
        raise NotImplementedError

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        """The gradient of every sample's loss in its outputs, ``(K, O, B)``, in new memory."""
        raise NotImplementedError

    def robust_loss(self, loss: Tensor, n_outputs: int) -> Tensor:
        """The losses of samples by which epochs are compared when several networks are averaged.

        Where one network is far off, the mean of all is less so: large losses of few samples say little of it, and
        count less. By default losses count as they are.
        """
        return loss

    def loss_gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        """:meth:`loss` and :meth:`gradient`."""
        return self.loss(output, target, settings), self.gradient(output, target, settings)


def first_settings(settings: LossSettings, k: int) -> LossSettings:
    """The settings of the first ``k`` models."""
    return {name: vector[:k] for name, vector in settings.items()}


def row_losses(loss: Loss, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
    """The losses of rows that are filled up to whole vectors of the processor.

    The numbers left over after the last whole vector go through scalar code, which rounds differently, and how many
    there are would depend on the number of stacked models.
    """
    n_rows = output.shape[2]
    rest = -n_rows % VECTOR_NUMBERS
    if rest == 0 or not loss.stackable:
        return loss.loss(output, target, settings)
    return loss.loss(F.pad(output, (0, rest)), F.pad(target, (0, rest)), settings)[:, :n_rows]


def in_whole_vectors(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise function of numbers that are filled up to whole vectors, for the sake of :func:`row_losses`.

    A softmax over the outputs does without: it goes model by model.
    """
    rest = -x.numel() % VECTOR_NUMBERS
    if rest == 0:
        return function(x)
    return function(F.pad(x.reshape(-1), (0, rest)))[:-rest].view(x.shape)


# --- classification ------------------------------------------------------------------------------------------------

#: What a robust cross-entropy adds to a network's probability of the true label for the chance that others give it,
#: before all is divided by one more than this: (18 p + 1) / 19.
OTHERS_CHANCE = 1 / 18


def _robust_cross_entropy(loss: Tensor) -> Tensor:
    return loss.neg().exp_().add_(OTHERS_CHANCE).div_(1 + OTHERS_CHANCE).log_().neg_()


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy of one label out of C; targets are class indices ``(K, 1, B)``, prepared ones probabilities."""

    is_cross_entropy = True

    training_setting_names = ("label_smoothing",)

    def prepared(self, target: Tensor, n_outputs: int, dtype: torch.dtype, settings: LossSettings) -> Tensor:
        return target if n_outputs > MAX_PREPARED_CLASSES else self._probabilities(target, n_outputs, dtype, settings)

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        log_p = torch.log_softmax(output, 1)
        if not target.is_floating_point():
            if "label_smoothing" not in settings:
                return log_p.gather(1, target).squeeze(1).neg_()
            target = self._probabilities(target, output.shape[1], output.dtype, settings)
        return log_p.mul_(target).sum(1).neg_()

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        if not target.is_floating_point():
            target = self._probabilities(target, output.shape[1], output.dtype, settings)
        return torch.softmax(output, 1).sub_(target)

    def robust_loss(self, loss: Tensor, n_outputs: int) -> Tensor:
        return in_whole_vectors(_robust_cross_entropy, loss)

    @staticmethod
    def _probabilities(target: Tensor, n_classes: int, dtype: torch.dtype, settings: LossSettings) -> Tensor:
        k, _, n_rows = target.shape
        smoothing = settings.get("label_smoothing")
        if smoothing is None:
            return torch.zeros(k, n_classes, n_rows, dtype=dtype, device=target.device).scatter_(1, target, 1.0)
        probability = (smoothing / n_classes).repeat(1, n_classes, n_rows)
        return probability.scatter_add_(1, target, (1 - smoothing).expand(target.shape).contiguous())


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Cross-entropy of independent yes/no labels, summed over them; targets are 0 or 1, ``(K, O, B)``."""

    is_cross_entropy = True

    training_setting_names = ("label_smoothing",)

    def prepared(self, target: Tensor, n_outputs: int, dtype: torch.dtype, settings: LossSettings) -> Tensor:
        smoothing = settings.get("label_smoothing")
        return target if smoothing is None else target * (1 - smoothing) + smoothing / 2

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return F.softplus(output).addcmul_(output, target, value=-1).sum(1)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return in_whole_vectors(torch.sigmoid, output).sub_(target)

    def robust_loss(self, loss: Tensor, n_outputs: int) -> Tensor:
        # By the mean over labels, for no network gives the true ones of many labels much of a chance.
        return in_whole_vectors(_robust_cross_entropy, loss / n_outputs) * n_outputs


@dataclass(frozen=True)
class FocalCrossEntropy(Loss):
    """Focal loss (Lin et al. 2017): cross-entropy times ``(1 - p) ** gamma``, so that easy samples weigh less."""

    gamma: float = 2.0

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        log_pt = torch.log_softmax(output, 1).gather(1, target)
        return self._focal(log_pt).squeeze(1)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        log_pt = torch.log_softmax(output, 1).gather(1, target)
        # d loss / d log p_t, then the chain rule through the softmax: d log p_t / d z_c = [c = t] - p_c.
        slope = in_whole_vectors(self._slope, log_pt)
        return (-slope * torch.softmax(output, 1)).scatter_add_(1, target, slope)

    def _focal(self, log_pt: Tensor) -> Tensor:
        return -((1 - log_pt.exp()).pow(self.gamma) * log_pt)

    def _slope(self, log_pt: Tensor) -> Tensor:
        """The derivative of the loss in ``log p_t``."""
        pt = log_pt.exp()
        rest = 1 - pt
        return self.gamma * rest.clamp(min=1e-12).pow(self.gamma - 1) * pt * log_pt - rest.pow(self.gamma)


@dataclass(frozen=True)
class BinaryFocalCrossEntropy(FocalCrossEntropy):
    """Focal loss of independent yes/no labels, summed over them; targets are 0 or 1, ``(K, O, B)``."""

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        signed = (2 * target - 1) * output
        return self._focal(F.logsigmoid(signed)).sum(1)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        sign = 2 * target - 1
        return in_whole_vectors(self._signed_slope, sign * output).mul_(sign)

    def _signed_slope(self, signed: Tensor) -> Tensor:
        log_pt = F.logsigmoid(signed)
        return self._slope(log_pt) * (1 - log_pt.exp())


# --- regression: targets (K, O, B), averaged over the outputs --------------------------------------------------------


@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared error, as scikit-learn has it."""

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return (output - target).square_().mean(1) / 2

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return (output - target).div_(output.shape[1])

    def robust_loss(self, loss: Tensor, n_outputs: int) -> Tensor:
        """The root of the mean squared error over a sample's outputs: of a lone one, the absolute error."""
        return (2 * loss).sqrt_()


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The absolute error, whose minimum is the median."""

    def quantiles(self, settings: Mapping[str, float]) -> tuple[float, ...]:
        return (0.5,)

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return (output - target).abs_().mean(1)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return (output - target).sign_().div_(output.shape[1])


@dataclass(frozen=True)
class Huber(Loss):
    """Half the squared error within ``delta`` standard deviations of the target, linear beyond (Huber 1964)."""

    delta: float = 1.0

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        residual = output - target
        clipped = residual.clamp(-self.delta, self.delta)
        return (clipped * (residual - clipped / 2)).mean(1)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return (output - target).clamp_(-self.delta, self.delta).div_(output.shape[1])


@dataclass(frozen=True)
class Quantile(Loss):
    """Pinball loss, whose minimum is the quantile (Koenker and Bassett 1978)."""

    setting_names = ("quantile",)

    def quantiles(self, settings: Mapping[str, float]) -> tuple[float, ...]:
        return (settings["quantile"],)

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        residual = output - target
        return _pinball_slope(residual, settings["quantile"]).mul_(residual).mean(1)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return _pinball_slope(output - target, settings["quantile"]).div_(output.shape[1])


@dataclass(frozen=True)
class Quantiles(Loss):
    """Pinball losses of several quantiles of each target; outputs are ``(K, T * Q, B)``, a target's side by side."""

    levels: tuple[float, ...] = (0.5,)

    def quantiles(self, settings: Mapping[str, float]) -> tuple[float, ...]:
        return self.levels

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        residual, levels_Q1 = self._residual(output, target)
        return _pinball_slope(residual, levels_Q1).mul_(residual).mean((1, 2))

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return _pinball_slope(*self._residual(output, target)).flatten(1, 2).div_(output.shape[1])

    def _residual(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        levels_Q1 = torch.tensor(self.levels, dtype=output.dtype, device=output.device).unsqueeze(1)
        return output.unflatten(1, (-1, len(self.levels))) - target.unsqueeze(2), levels_Q1


def _pinball_slope(residual: Tensor, quantile: Tensor) -> Tensor:
    return (residual > 0).to(residual.dtype) - quantile


@dataclass(frozen=True)
class Poisson(Loss):
    """Half the Poisson deviance up to a constant; the output is the logarithm of the mean."""

    has_log_link = True

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return output.exp().addcmul_(target, output, value=-1).mean(1)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return in_whole_vectors(torch.exp, output).sub_(target).div_(output.shape[1])


# --- reconstruction: targets (K, O, B), NaN where there is none ------------------------------------------------------


@dataclass(frozen=True)
class ReconstructionError(Loss):
    """Half the squared error of the outputs that have a target, over the number of all outputs."""

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return (output - target).nan_to_num_(nan=0.0).square_().mean(1) / 2

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return (output - target).nan_to_num_(nan=0.0).div_(output.shape[1])


# --- a user's own ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CustomLoss(Loss):
    """A user's function ``(output, target) -> loss per sample``, differentiated by torch.

    The function sees one model and rows in front: outputs ``(B, O)`` and labels ``(B,)`` or numbers ``(B, O)``,
    both ``(B,)`` where there is one regression output. Losses of all outputs, ``(B, O)``, are averaged over them.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    stackable = False

    def __post_init__(self) -> None:
        if isinstance(self.function, type):
            name = self.function.__name__
            raise ValueError(
                f"loss={name} is a class. Pass a function, or an instance such as {name}(reduction='none')."
            )
        if isinstance(self.function, nn.Module) and any(p.requires_grad for p in self.function.parameters()):
            raise ValueError(
                f"loss={type(self.function).__name__} has parameters of its own, which would not be trained. "
                "Freeze them: loss.requires_grad_(False)."
            )

    def loss(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        # The function may itself ask for derivatives.
        with torch.inference_mode(False), torch.enable_grad():
            return self._called(_rows_in_front(output).requires_grad_(), target).detach().unsqueeze(0)

    def gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
        return self.loss_gradient(output, target, settings)[1]

    def loss_gradient(self, output: Tensor, target: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf_BO = _rows_in_front(output).requires_grad_()
            loss = self._called(leaf_BO, target)
            if not loss.requires_grad:
                raise ValueError("The callable loss returned a tensor that does not depend on its first argument.")
            (gradient_BO,) = torch.autograd.grad(loss.sum(), leaf_BO)
        return loss.detach().unsqueeze(0), gradient_BO.t().contiguous().unsqueeze(0)

    def _called(self, output_BO: Tensor, target: Tensor) -> Tensor:
        """The function's loss of each sample, ``(B,)``."""
        # The function may work in place: on copies.
        output_BO, target_BT = output_BO.clone(), _rows_in_front(target)
        n_rows, n_outputs = output_BO.shape
        labels = not target.is_floating_point()
        try:
            loss = self.function(
                output_BO[:, 0] if n_outputs == 1 and not labels else output_BO,
                target_BT[:, 0] if n_outputs == 1 or labels else target_BT,
            )
        except RuntimeError as error:
            if "numpy()" not in str(error):
                raise
            raise TypeError(
                "A callable loss must use torch operations so that it can be differentiated: torch.abs, not np.abs."
            ) from error
        # Any other shape is that of a mistake, such as rows that were broadcast against rows.
        if not isinstance(loss, Tensor) or loss.shape not in ((n_rows,), (n_rows, 1), (n_rows, n_outputs)):
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ValueError(
                f"A callable loss must return one loss per sample, a tensor of shape ({n_rows},), or one per output, "
                f"({n_rows}, {n_outputs}). Got {got} instead. Torch's own losses do so with reduction='none'."
            )
        return loss.reshape(len(loss), -1).to(output_BO.dtype).mean(1)


def _rows_in_front(numbers_1OB: Tensor) -> Tensor:
    """A copy ``(B, O)`` of the numbers of one model: those of a caller's inference mode have no derivatives."""
    return numbers_1OB.detach()[0].t().clone(memory_format=torch.contiguous_format)


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


def takes_label_smoothing(loss: object) -> bool:
    """Whether a loss for classification, by its name or a function, smooths labels."""
    return isinstance(loss, str) and "label_smoothing" in CLASSIFICATION_LOSSES[loss][0].training_setting_names


def has_log_link(loss: object) -> bool:
    """Whether a loss for regression, by its name or a function, has outputs that are logarithms of the mean."""
    return isinstance(loss, str) and loss in REGRESSION_LOSSES and REGRESSION_LOSSES[loss].has_log_link
