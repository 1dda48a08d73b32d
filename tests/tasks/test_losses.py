"""Losses against torch.nn.functional, scikit-learn and autograd."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn import metrics
from torch.nn import functional as F

from skdl.tasks import losses

K, B, C = 3, 6, 4


def per_model(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype).view(-1, 1, 1)


def outputs(width, seed=0):
    return 3 * torch.randn(K, width, B, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels():
    return torch.randint(C, (K, 1, B), generator=torch.Generator().manual_seed(1))


def yes_or_no(width):
    return torch.randint(2, (K, width, B), generator=torch.Generator().manual_seed(2)).double()


def values(width, seed=3):
    return torch.randn(K, width, B, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counts(width):
    return torch.randint(5, (K, width, B), generator=torch.Generator().manual_seed(4)).double()


def rows_of(target):
    """The target of one model as torch's losses take it: labels ``(B,)``, numbers ``(B, O)``."""
    return target.t() if target.is_floating_point() else target[0]


def cross_entropy(z, t, s=0.0):
    return F.cross_entropy(z, t, reduction="none", label_smoothing=float(s))


def binary_cross_entropy(z, t, s=0.0):
    # One logit is the second of two whose first is 0.
    two = torch.stack([torch.zeros_like(z), z], 1)
    return cross_entropy(two, t.long(), s).sum(-1)


def focal(gamma):
    def loss(z, t):
        p = torch.softmax(z, -1).gather(-1, t[:, None])[:, 0]
        return -((1 - p) ** gamma) * p.log()

    return loss


def binary_focal(gamma):
    def loss(z, t):
        p = torch.where(t > 0, torch.sigmoid(z), torch.sigmoid(-z))
        return (-((1 - p) ** gamma) * p.log()).sum(-1)

    return loss


def pinball(z, t, q):
    return torch.maximum(q * (t - z), (q - 1) * (t - z)).mean(-1)


@dataclass
class Case:
    """``reference(output, target, *settings)`` sees one model; ``settings`` hold one number per model."""

    name: str
    loss: losses.Loss
    target: torch.Tensor
    reference: Callable
    width: int = C
    settings: dict = field(default_factory=dict)

    def of_model(self, k):
        return [values[k] for values in self.settings.values()]

    @property
    def tensors(self):
        return {name: per_model(values) for name, values in self.settings.items()}


SMOOTHING = {"label_smoothing": [0.0, 0.1, 0.5]}
CASES = [
    Case("cross_entropy", losses.CrossEntropy(), labels(), cross_entropy),
    Case("cross_entropy_smooth", losses.CrossEntropy(), labels(), cross_entropy, settings=SMOOTHING),
    Case("binary", losses.BinaryCrossEntropy(), yes_or_no(1), binary_cross_entropy, 1),
    Case("multilabel", losses.BinaryCrossEntropy(), yes_or_no(3), binary_cross_entropy, 3),
    Case("binary_smooth", losses.BinaryCrossEntropy(), yes_or_no(2), binary_cross_entropy, 2, SMOOTHING),
    *(Case(f"focal_{g}", losses.FocalCrossEntropy(g), labels(), focal(g)) for g in (0.0, 0.5, 1.0, 2.0)),
    *(
        Case(f"binary_focal_{g}", losses.BinaryFocalCrossEntropy(g), yes_or_no(2), binary_focal(g), 2)
        for g in (0.0, 0.5, 1.0, 2.0)
    ),
    Case(
        "squared_error",
        losses.SquaredError(),
        values(2),
        lambda z, t: F.mse_loss(z, t, reduction="none").mean(-1) / 2,
        2,
    ),
    Case(
        "absolute_error",
        losses.AbsoluteError(),
        values(2),
        lambda z, t: F.l1_loss(z, t, reduction="none").mean(-1),
        2,
    ),
    *(
        Case(
            f"huber_{d}",
            losses.Huber(d),
            values(2),
            lambda z, t, d=d: F.huber_loss(z, t, reduction="none", delta=d).mean(-1),
            2,
        )
        for d in (0.3, 1.0)
    ),
    Case("quantile", losses.Quantile(), values(2), pinball, 2, {"quantile": [0.05, 0.5, 0.9]}),
    Case(
        "poisson",
        losses.Poisson(),
        counts(2),
        lambda z, t: F.poisson_nll_loss(z, t, log_input=True, reduction="none").mean(-1),
        2,
    ),
    Case(
        "focal_name",
        losses.CLASSIFICATION_LOSSES["focal"][0],
        labels(),
        focal(2.0),
    ),
]


def asked(loss, output, target, settings):
    """The losses and their gradient, as training asks for them."""
    return loss.loss_gradient(output, loss.prepared(target, output.shape[1], output.dtype, settings), settings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss__when_three_models__then_value_and_gradient_equal_autograd_of_the_reference(case):
    output = outputs(case.width)
    loss_KB, grad_KOB = asked(case.loss, output.clone(), case.target, case.tensors)
    assert loss_KB.shape == (K, B)
    for k in range(K):
        leaf = output[k].clone().requires_grad_()
        expected = case.reference(leaf.t(), rows_of(case.target[k]), *case.of_model(k))
        (expected_grad,) = torch.autograd.grad(expected.sum(), leaf)
        torch.testing.assert_close(loss_KB[k], expected.detach())
        torch.testing.assert_close(grad_KOB[k], expected_grad)


class LossFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, output, case):
        loss, ctx.gradient = asked(case.loss, output.detach().clone(), case.target, case.tensors)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        return upstream.unsqueeze(1) * ctx.gradient, None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss__when_differentiated_numerically__then_gradient_agrees(case):
    output = outputs(case.width, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: LossFunction.apply(z, case), output)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_robust__then_row_losses_that_one_network_alone_makes_large_count_less(case):
    # Two rows more than fill the vectors of the processor.
    loss = torch.linspace(0, 200, 34)
    robust = case.loss.robust_loss(loss, case.width)
    if case.loss.is_cross_entropy:
        # Of several labels, each has a loss of its own.
        n_labels = case.width if isinstance(case.loss, losses.BinaryCrossEntropy) else 1
        torch.testing.assert_close(robust, -n_labels * ((18 * torch.exp(-loss / n_labels) + 1) / 19).log())
        assert torch.equal(robust[:1], case.loss.robust_loss(loss[:1], case.width))
    elif case.name == "squared_error":
        torch.testing.assert_close(robust, (2 * loss).sqrt())
    else:
        assert torch.equal(robust, loss)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss__when_models_stand_side_by_side__then_each_is_its_own_to_the_last_bit(case):
    # A batch that leaves most of a vector over: beside others, its numbers would fall elsewhere in a vector.
    output, target = outputs(case.width).float(), case.target
    target = target.float() if target.is_floating_point() else target
    settings = {name: value.float() for name, value in case.tensors.items()}
    wanted = case.loss.prepared(target, case.width, torch.float32, settings)
    together = losses.row_losses(case.loss, output, wanted, settings), case.loss.gradient(output, wanted, settings)
    torch.testing.assert_close(together[0], case.loss.loss(output.clone(), wanted, settings))
    for k in range(K):
        own = {name: value[k : k + 1] for name, value in settings.items()}
        z, t = output[k : k + 1].clone(), wanted[k : k + 1].clone()
        lone = losses.row_losses(case.loss, z, t, own), case.loss.gradient(z, t, own)
        assert all(torch.equal(part[0], of_all[k]) for part, of_all in zip(lone, together, strict=True))


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": [0.0, 0.0, 0.0]}], ids=["none", "zero"])
def test_cross_entropy__when_asked_with_labels__then_as_with_what_is_wanted(settings):
    settings = {name: per_model(values) for name, values in settings.items()}
    output, loss = outputs(C), losses.CrossEntropy()
    wanted = loss.prepared(labels(), C, torch.float64, settings)
    assert wanted.dtype == torch.float64 and torch.equal(wanted.argmax(1, keepdim=True), labels())
    for got, expected in zip(
        loss.loss_gradient(output, labels(), settings), loss.loss_gradient(output, wanted, settings), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_cross_entropy__when_there_are_many_classes__then_labels_stay_and_say_the_same(monkeypatch):
    settings = {"label_smoothing": per_model([0.0, 0.1, 0.5])}
    output, loss = outputs(C), losses.CrossEntropy()
    expected = loss.loss_gradient(output, loss.prepared(labels(), C, torch.float64, settings), settings)
    monkeypatch.setattr(losses, "MAX_PREPARED_CLASSES", C - 1)
    wanted = loss.prepared(labels(), C, torch.float64, settings)
    assert torch.equal(wanted, labels())
    for got, of_probabilities in zip(loss.loss_gradient(output, wanted, settings), expected, strict=True):
        torch.testing.assert_close(got, of_probabilities)


def test_custom_loss__when_function_asks_for_derivatives__then_values_are_there_too():
    def slope(output, target):
        (derivative,) = torch.autograd.grad((output - target).pow(3).sum(), output, create_graph=True)
        return derivative.abs()

    z, t = outputs(1)[:1], values(1)[:1]
    got = losses.CustomLoss(slope).loss(z, t, {})
    torch.testing.assert_close(got, 3 * (z - t)[:, 0].square())
    assert not got.requires_grad


def test_row_losses__when_loss_sees_one_model_at_a_time__then_it_sees_no_other_rows():
    seen = []

    class Own(losses.SquaredError):
        stackable = False

        def loss(self, output, target, settings):
            seen.append(output.shape[2])
            return super().loss(output, target, settings)

    losses.row_losses(Own(), outputs(2), values(2), {})
    assert seen == [B]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss__when_called__then_inputs_stay(case):
    output = outputs(case.width)
    kept, target = output.clone(), case.target.clone()
    _, gradient = asked(case.loss, output, case.target, case.tensors)
    gradient.zero_()
    assert torch.equal(output, kept) and torch.equal(case.target, target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", [c for c in CASES if c.name != "poisson"], ids=lambda case: case.name)
def test_loss__when_outputs_are_extreme__then_finite(case, dtype):
    signs = torch.where(outputs(case.width) > 0, 1e4, -1e4).to(dtype)
    target = case.target if case.target.dtype == torch.int64 else case.target.to(dtype)
    settings = {name: per_model(v, dtype) for name, v in case.settings.items()}
    loss, gradient = asked(case.loss, signs, target, settings)
    assert loss.isfinite().all() and gradient.isfinite().all()
    assert loss.dtype == gradient.dtype == dtype


def test_label_smoothing__when_zero_beside_others__then_as_without():
    output = outputs(C)
    plain, plain_grad = asked(losses.CrossEntropy(), output, labels(), {})
    smoothing = {"label_smoothing": per_model([0, 0.2, 0])}
    mixed, mixed_grad = asked(losses.CrossEntropy(), output, labels(), smoothing)
    for k in (0, 2):
        torch.testing.assert_close(mixed[k], plain[k])
        torch.testing.assert_close(mixed_grad[k], plain_grad[k])
    assert not torch.allclose(mixed[1], plain[1])


# --- scikit-learn's metrics --------------------------------------------------------------------------------------


def mean_loss(loss, output, target, **settings):
    tensors = {name: per_model([value]) for name, value in settings.items()}
    return loss.loss(output[:1], target[:1], tensors).mean().item()


def test_losses__when_averaged__then_equal_scikit_learn_metrics():
    z, t = outputs(2), values(2)
    zn, tn = z[0].numpy(), t[0].numpy()
    assert mean_loss(losses.SquaredError(), z, t) == pytest.approx(metrics.mean_squared_error(tn, zn) / 2)
    assert mean_loss(losses.AbsoluteError(), z, t) == pytest.approx(metrics.mean_absolute_error(tn, zn))
    assert mean_loss(losses.Quantile(), z, t, quantile=0.8) == pytest.approx(
        metrics.mean_pinball_loss(tn, zn, alpha=0.8)
    )


def test_cross_entropies__when_averaged__then_equal_log_loss():
    z, t = outputs(C), labels()
    expected = metrics.log_loss(t[0, 0], softmax(z[0].numpy(), axis=0).T, labels=range(C))
    assert mean_loss(losses.CrossEntropy(), z, t) == pytest.approx(expected)
    z, t = outputs(1), yes_or_no(1)
    expected = metrics.log_loss(t[0, 0], expit(z[0, 0].numpy()), labels=[0, 1])
    assert mean_loss(losses.BinaryCrossEntropy(), z, t) == pytest.approx(expected)


def test_poisson__when_compared_between_outputs__then_half_the_deviance():
    z, other, t = outputs(1) / 3, outputs(1, seed=9) / 3, counts(1)
    difference = mean_loss(losses.Poisson(), z, t) - mean_loss(losses.Poisson(), other, t)
    deviances = [metrics.mean_poisson_deviance(t[0, 0], out[0, 0].exp().numpy()) for out in (z, other)]
    assert difference == pytest.approx((deviances[0] - deviances[1]) / 2)


@pytest.mark.parametrize(
    ("loss", "settings", "statistic"),
    [
        (losses.SquaredError(), {}, np.mean),
        (losses.AbsoluteError(), {}, np.median),
        (losses.Quantile(), {"quantile": 0.75}, lambda y: np.quantile(y, 0.75)),
        (losses.Poisson(), {}, lambda y: np.log(np.mean(y))),
    ],
    ids=["mean", "median", "quantile", "log_mean"],
)
def test_regression_loss__when_constant_is_predicted__then_statistic_is_best(loss, settings, statistic):
    y = np.random.default_rng(0).gamma(2, size=101)
    grid = np.linspace(-1, 4, 5001)
    target = torch.from_numpy(y).view(1, 1, -1).expand(len(grid), -1, -1)
    output = torch.from_numpy(grid).view(-1, 1, 1).expand(-1, 1, len(y)).contiguous()
    tensors = {name: per_model([value] * len(grid)) for name, value in settings.items()}
    best = grid[loss.loss(output, target, tensors).mean(1).argmin()]
    assert best == pytest.approx(statistic(y), abs=2e-3)


# --- a user's own loss -------------------------------------------------------------------------------------------


def test_custom_loss__when_torchs_own__then_equals_the_built_in_loss():
    z, t = outputs(1)[:1], values(1)[:1]
    own = losses.CustomLoss(lambda output, target: F.huber_loss(output, target, reduction="none"))
    for got, expected in zip(own.loss_gradient(z, t, {}), losses.Huber().loss_gradient(z, t, {}), strict=True):
        torch.testing.assert_close(got, expected)
    z, t = outputs(C)[:1], labels()[:1]
    own = losses.CustomLoss(lambda output, target: F.cross_entropy(output, target, reduction="none"))
    for got, expected in zip(own.loss_gradient(z, t, {}), asked(losses.CrossEntropy(), z, t, {}), strict=True):
        torch.testing.assert_close(got, expected)


def test_custom_loss__when_function_works_in_place__then_its_arguments_are_its_own():
    output, target = torch.randn(1, 1, 6), torch.randn(1, 1, 6)
    before = target.clone()
    in_place = losses.CustomLoss(lambda a, b: a.sub_(b).square_().add_(b.zero_()))
    for loss, gradient in (
        in_place.loss_gradient(output, target, {}),
        losses.CustomLoss(lambda a, b: (a - b) ** 2).loss_gradient(output, target, {}),
    ):
        torch.testing.assert_close(loss, (output - before).square()[:, 0])
        torch.testing.assert_close(gradient, 2 * (output - before))
    assert torch.equal(target, before)


@pytest.mark.parametrize(
    ("output", "target", "shapes"),
    [
        (outputs(1)[:1], values(1)[:1], ((B,), (B,))),
        (outputs(2)[:1], values(2)[:1], ((B, 2), (B, 2))),
        (outputs(C)[:1], labels()[:1], ((B, C), (B,))),
    ],
    ids=["single", "multi_output", "classes"],
)
def test_custom_loss__when_called__then_function_sees_one_model(output, target, shapes):
    seen = []

    def function(output, target):
        seen.append((tuple(output.shape), tuple(target.shape)))
        return output.reshape(len(output), -1).sum(1)

    loss, gradient = losses.CustomLoss(function).loss_gradient(output, target, {})
    assert seen == [shapes]
    assert loss.shape == (1, B) and not loss.requires_grad
    assert torch.equal(gradient, torch.ones_like(output))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda z, t: (z - t).square().mean(),
            r"per sample, a tensor of shape \(6,\), or .*Got a tensor of shape \(\)",
        ),
        (lambda z, t: (z - t)[:2], r"Got a tensor of shape \(2,\)"),
        (lambda z, t: z[:, None] - t, r"one per output, \(6, 1\). Got a tensor of shape \(6, 6\)"),
        (lambda z, t: 1.5, r"Got 1\.5 instead.*reduction='none'"),
        (lambda z, t: (z - t).detach().square(), "does not depend on its first argument"),
    ],
    ids=["scalar", "short", "rows against rows", "number", "detached"],
)
def test_custom_loss__when_function_is_wrong__then_error_says_how(function, message):
    with pytest.raises(ValueError, match=message):
        losses.CustomLoss(function).loss_gradient(outputs(1)[:1], values(1)[:1], {})


def test_losses__when_fields_are_equal__then_equal_and_hashable():
    assert losses.Huber(0.5) == losses.Huber(0.5) and hash(losses.Huber(0.5)) == hash(losses.Huber(0.5))
    assert losses.Huber(0.5) != losses.Huber(1.0)
    assert losses.SquaredError() != losses.AbsoluteError()
    assert losses.CustomLoss(math.sin) == losses.CustomLoss(math.sin) != losses.CustomLoss(math.cos)


class Weighted(torch.nn.Module):
    """A loss with a number of its own, as a parameter or as a buffer."""

    def __init__(self, holds):
        super().__init__()
        number = torch.ones(())
        self.number = torch.nn.Parameter(number) if holds == "parameter" else None
        self.register_buffer("constant", number)

    def forward(self, output, target):
        return self.constant * (output - target).square()


def test_custom_loss__when_one_number_a_row_stands_in_a_column__then_taken():
    loss = losses.CustomLoss(lambda output, target: (output - target).square().mean(1, keepdim=True))
    assert loss.loss(values(3)[:1], values(3)[:1], {}).shape == (1, values(3).shape[2])


def test_custom_loss__when_module_has_parameters__then_refused():
    with pytest.raises(ValueError, match="loss=Weighted has parameters of its own, which would not be trained"):
        losses.CustomLoss(Weighted("parameter"))
    losses.CustomLoss(Weighted("parameter").requires_grad_(False))
    assert losses.CustomLoss(Weighted("buffer")).loss(values(1)[:1], values(1)[:1], {}).eq(0).all()
