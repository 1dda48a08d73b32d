"""StackedOptimizer against torch.optim and closed forms, three models of different settings at once."""

import numpy as np
import pytest
import torch

from skdl.engine.job import OptimizerKind, Settings
from skdl.engine.optimizers import RULES, StackedOptimizer
from skdl.engine.orthogonal import orthogonalized
from skdl.nn.network import Slot

K, P = 3, 7
RATES = [0.1, 0.01, 0.3]
#: Factors on the learning rates of numbers, and a matrix among those.
FACTORS = torch.tensor([0.0, 0.5, 1.0, 2.0, 0.0, 6.0, 1.0], dtype=torch.float64)
MATRIX = Slot(1, (2, 2))


def make_optimizer(kind, theta, *, n_weights=None, rate_factors_P=None, matrices=(), **of_models):
    """An optimiser for models whose settings are given as one list each."""
    settings = [Settings(**{name: values[k] for name, values in of_models.items()}) for k in range(len(theta))]
    moments = [torch.zeros_like(theta) for _ in range(RULES[kind.name].n_moments)]
    n_weights = n_weights or theta.shape[1]
    return StackedOptimizer(kind, settings, theta, moments, n_weights, rate_factors_P=rate_factors_P, matrices=matrices)


def step(optimizer, kind, grad, number, rates=RATES):
    rate = torch.tensor(rates, dtype=grad.dtype).unsqueeze(1)
    optimizer.step(grad, rate, rate * RULES[kind.name].bias_corrections(number, 1)[0])


def run(kind, theta, grads, **settings):
    optimizer = make_optimizer(kind, theta, **settings)
    for number, grad in enumerate(grads, start=1):
        step(optimizer, kind, grad.clone(), number)
    return theta


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steep_grads(n_steps=12):
    """Gradients far from 0, where Adam's epsilon plays no part."""
    grads = random(n_steps, K, P, seed=1)
    return grads + 0.5 * grads.sign()


def torch_run(make, theta, grads, clips=None):
    theta = theta.clone()
    for k in range(K):
        parameter = torch.nn.Parameter(theta[k].clone())
        optimizer = make([parameter], k)
        for grad in grads:
            parameter.grad = grad[k].clone()
            if clips:
                torch.nn.utils.clip_grad_norm_([parameter], clips[k])
            optimizer.step()
        theta[k] = parameter.data
    return theta


MOMENTA = [0.9, 0.5, 0.0]
TORCH = {
    "adam": lambda p, k: torch.optim.Adam(p, lr=RATES[k]),
    "adamw": lambda p, k, weight_decay=0.0: torch.optim.AdamW(p, lr=RATES[k], weight_decay=weight_decay),
    "rmsprop": lambda p, k: torch.optim.RMSprop(p, lr=RATES[k]),
    "sgd": lambda p, k, **penalty: torch.optim.SGD(p, lr=RATES[k], momentum=MOMENTA[k], **penalty),
}


@pytest.mark.parametrize("name", TORCH)
def test_step__then_equals_torch(name):
    theta, grads = random(K, P), steep_grads()
    expected = torch_run(TORCH[name], theta, grads)
    got = run(OptimizerKind(name), theta, grads, momentum=MOMENTA)
    # Adam's epsilon stands inside the bias correction here, as in section 2 of the paper, outside it in torch.
    rtol, atol = (0, 1e-6) if name.startswith("adam") else (1e-12, 0)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


def test_sgd__when_nesterov__then_equals_torch():
    momenta = [0.9, 0.5, 0.2]
    theta, grads = random(K, P), steep_grads()
    expected = torch_run(lambda p, k: torch.optim.SGD(p, lr=RATES[k], momentum=momenta[k], nesterov=True), theta, grads)
    torch.testing.assert_close(
        run(OptimizerKind("sgd", nesterov=True), theta, grads, momentum=momenta), expected, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e-12])
def test_adam__when_gradients_are_tiny__then_follows_the_paper(scale):
    theta, grads = random(K, P), random(10, K, P, seed=1) * scale
    mean = square = np.zeros((K, P))
    expected = theta.numpy().copy()
    for t, g in enumerate(grads.numpy(), start=1):
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        rate = np.array(RATES)[:, None] * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        expected -= rate * mean / (np.sqrt(square) + 1e-8)
    np.testing.assert_allclose(run(OptimizerKind("adam"), theta, grads), expected, rtol=1e-6)


def test_weight_decay__then_decoupled_as_in_adamw_and_on_weights_only():
    theta, grads = random(K, P), steep_grads()
    decays = [0.0, 0.1, 0.01]
    plain = torch_run(TORCH["adamw"], theta, grads)
    decayed = torch_run(lambda p, k: TORCH["adamw"](p, k, weight_decay=decays[k]), theta, grads)
    got = run(OptimizerKind("adamw"), theta.clone(), grads, weight_decay=decays, n_weights=4)
    torch.testing.assert_close(got[:, :4], decayed[:, :4], rtol=0, atol=1e-6)
    torch.testing.assert_close(got[:, 4:], plain[:, 4:], rtol=0, atol=1e-6)


def test_l2__then_part_of_the_gradient_and_on_weights_only():
    theta, grads = random(K, P), steep_grads()
    l2 = [0.5, 0.0, 0.05]
    plain = torch_run(TORCH["sgd"], theta, grads)
    penalised = torch_run(lambda p, k: TORCH["sgd"](p, k, weight_decay=l2[k]), theta, grads)
    got = run(OptimizerKind("sgd"), theta.clone(), grads, l2=l2, n_weights=4, momentum=MOMENTA)
    torch.testing.assert_close(got[:, :4], penalised[:, :4], rtol=1e-10, atol=0)
    torch.testing.assert_close(got[:, 4:], plain[:, 4:], rtol=1e-10, atol=0)


def test_gradient_clip__then_norm_of_each_model_is_bounded_by_its_own():
    theta, grads = random(K, P), steep_grads()
    # Biases count as well, though penalties leave them alone.
    expected = torch_run(TORCH["sgd"], theta, grads, clips=[0.5, 1e9, 2.0])
    got = run(OptimizerKind("sgd"), theta, grads, gradient_clip=[0.5, None, 2.0], momentum=MOMENTA, n_weights=4)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", RULES)
def test_step__when_gradient_is_zero__then_running_statistics_stay(name):
    theta = random(K, P)
    before = theta.clone()
    grads = steep_grads()
    grads[..., 5:] = 0
    penalties = {"l1": [0.1] * K, "weight_decay": [0.1] * K}
    run(OptimizerKind(name), theta, grads, n_weights=5, matrices=(MATRIX,), **penalties)
    assert torch.equal(theta[:, 5:], before[:, 5:])


@pytest.mark.parametrize("name", RULES)
def test_step__when_the_model_is_alone__then_as_in_company(name):
    kind, theta, grads = OptimizerKind(name), random(K, P), steep_grads()
    settings = {"rate_factors_P": FACTORS, "matrices": (MATRIX,)}
    together = run(kind, theta.clone(), grads, weight_decay=[0.1] * K, l1=[0.1] * K, **settings)
    lone = theta[:1].clone()
    optimizer = make_optimizer(kind, lone, weight_decay=[0.1], l1=[0.1], **settings)
    for number, grad in enumerate(grads, start=1):
        rate = RATES[0]
        optimizer.step(grad[:1].clone(), rate, float(rate * RULES[name].bias_corrections(number, 1)[0]))
    torch.testing.assert_close(lone, together[:1], rtol=1e-10, atol=1e-12)


# --- factors on the learning rate --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_rate_factors__then_each_number_goes_by_a_rate_of_its_own(name):
    theta, grads = random(K, P), steep_grads()
    settings = {"weight_decay": [0.1, 0.0, 0.3], "l1": [0.0, 0.1, 0.1], "l2": [0.1, 0.1, 0.0], "n_weights": 4}
    got = run(OptimizerKind(name), theta.clone(), grads, rate_factors_P=FACTORS, **settings)
    for p, factor in enumerate(FACTORS.tolist()):
        alone = theta.clone()
        optimizer = make_optimizer(OptimizerKind(name), alone, **settings)
        for number, grad in enumerate(grads, start=1):
            step(optimizer, OptimizerKind(name), grad.clone(), number, [factor * rate for rate in RATES])
        torch.testing.assert_close(got[:, p], alone[:, p], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", RULES)
def test_rate_factors__when_0__then_penalties_change_nothing_either(name):
    theta, grads = random(K, P), steep_grads()
    penalties = {"weight_decay": [0.1] * K, "l1": [0.1] * K, "l2": [0.1] * K}
    got = run(OptimizerKind(name), theta.clone(), grads, rate_factors_P=FACTORS, matrices=(MATRIX,), **penalties)
    assert torch.equal(got[:, FACTORS == 0], theta[:, FACTORS == 0])
    assert (got[:, FACTORS > 0] != theta[:, FACTORS > 0]).all()


def test_rate_factors__when_2_under_sgd_without_momentum__then_moves_twice_as_far():
    theta, grads = random(K, P), steep_grads()
    once = run(OptimizerKind("sgd"), theta.clone(), grads, momentum=[0.0] * K) - theta
    twice = run(OptimizerKind("sgd"), theta.clone(), grads, momentum=[0.0] * K, rate_factors_P=FACTORS) - theta
    torch.testing.assert_close(twice, FACTORS * once, rtol=1e-12, atol=1e-14)


# --- l1 ----------------------------------------------------------------------------------------------------------

SOFT_TARGETS = torch.tensor([2.0, -2.0, 0.5, 0.29, -0.29, 0.05, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "momentum"),
    [
        *((OptimizerKind(name), 0.9) for name in RULES),
        (OptimizerKind("sgd"), 0.0),
        (OptimizerKind("sgd", nesterov=True), 0.9),
    ],
    ids=[*RULES, "sgd_plain", "sgd_nesterov"],
)
def test_l1__when_trained_to_the_end__then_soft_threshold_with_exact_zeros(kind, momentum):
    # The minimum of (w - a)^2 / 2 + l1 |w| is a moved by l1 towards 0, and 0 where |a| <= l1.
    l1 = [0.3, 0.0, 0.1]
    theta = torch.ones(K, P, dtype=torch.float64)
    optimizer = make_optimizer(kind, theta, l1=l1, momentum=[momentum] * K)
    n_steps = 2000
    for number in range(1, n_steps + 1):
        rate = 0.05 * (1 - (number - 1) / n_steps)
        step(optimizer, kind, theta - SOFT_TARGETS, number, [rate] * K)
    threshold = torch.tensor(l1, dtype=torch.float64).unsqueeze(1)
    expected = SOFT_TARGETS.sign() * (SOFT_TARGETS.abs() - threshold).clamp(min=0)
    torch.testing.assert_close(theta, expected, rtol=0, atol=2e-3)
    assert (theta[[0, 2]][expected[[0, 2]] == 0] == 0).all()


def test_l1__then_acts_on_weights_only():
    theta, grads = random(K, P), steep_grads()
    plain = run(OptimizerKind("sgd"), theta.clone(), grads)
    got = run(OptimizerKind("sgd"), theta.clone(), grads, l1=[1.0] * K, n_weights=4)
    assert torch.equal(got[:, 4:], plain[:, 4:])
    assert not torch.allclose(got[:, :4], plain[:, :4])


# --- muon --------------------------------------------------------------------------------------------------------


def test_muon__then_matrices_move_by_the_orthogonal_factor_of_nesterov_momentum():
    theta, grads = random(K, P), steep_grads()
    decays = [0.0, 0.1, 0.3]
    got = run(OptimizerKind("muon"), theta.clone(), grads, matrices=(MATRIX,), weight_decay=decays)
    expected, velocity = theta[:, 1:5].clone(), torch.zeros(K, 4, dtype=torch.float64)
    rate, decay = torch.tensor(RATES, dtype=theta.dtype), torch.tensor(decays, dtype=theta.dtype)
    for grad in grads[..., 1:5]:
        velocity = 0.9 * velocity + grad
        ahead = (grad + 0.9 * velocity).view(K, 2, 2)
        expected = expected * (1 - rate * decay)[:, None] - 7 * rate[:, None] * orthogonalized(ahead).flatten(1)
    torch.testing.assert_close(got[:, 1:5], expected, rtol=1e-6, atol=1e-8)


def test_muon__then_other_numbers_move_as_under_adam_once_it_has_warmed_up():
    theta, grads = random(K, P), steep_grads(200)
    torch_adam = lambda p, k: torch.optim.Adam(p, lr=RATES[k], betas=(0.9, 0.95))  # noqa: E731
    rest = [0, 5, 6]
    got, expected = (
        # Where the last 100 steps lead from where the first 100 led.
        after(theta, grads) - after(theta, grads[:100])
        for after in (
            lambda theta, grads: run(OptimizerKind("muon"), theta.clone(), grads, matrices=(MATRIX,)),
            lambda theta, grads: torch_run(torch_adam, theta, grads),
        )
    )
    torch.testing.assert_close(got[:, rest], expected[:, rest], rtol=1e-2, atol=1e-3)


def test_muon__when_a_matrix_is_frozen__then_it_stays():
    theta, grads = random(K, P), steep_grads()
    frozen = torch.ones(P, dtype=torch.float64).index_fill_(0, torch.arange(1, 5), 0)
    got = run(OptimizerKind("muon"), theta.clone(), grads, matrices=(MATRIX,), rate_factors_P=frozen, l1=[0.1] * K)
    assert torch.equal(got[:, 1:5], theta[:, 1:5])


def test_muon__when_l1__then_zeros_and_shrinkage_are_about_those_of_the_lasso():
    # One row has one singular value, which the iteration brings to between 0.7 and 1.2: the penalty is off by as much.
    wanted = torch.tensor([[0.4, 3.0, -3.0, 0.2]], dtype=torch.float64)
    theta = torch.zeros(1, 4, dtype=torch.float64)
    optimizer = make_optimizer(OptimizerKind("muon"), theta, matrices=(Slot(0, (1, 4)),), l1=[1.0])
    for step in range(3000):
        rate = 0.01 * (1 - step / 3000)
        optimizer.step(theta - wanted, rate, rate)
    assert torch.equal(theta[0, [0, 3]], torch.zeros(2, dtype=torch.float64))
    assert 1.4 < theta[0, 1] < 2.3 and theta[0, 2] == pytest.approx(-theta[0, 1].item(), rel=1e-3)
