"""Cells with a backward pass of their own, beside torch's loops and its numerical derivatives."""

import pytest
import torch
from torch.func import vmap

from skdl.nn.recurrent import CELLS

KINDS = [pytest.param(kind, id=name) for name, kind in CELLS.items() if kind.steps is not None]
# Steps, networks, units, series.
T, N, H, B = 5, 3, 4, 6


def inputs(n_gates, *models):
    """What the gates get of the inputs, the weight, and the bias, for networks of so many models."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(*models, T, N, n_gates * H, B), (*models, N, n_gates * H, H), (*models, N, n_gates * H, 1)]
    return [torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_numerical_ones(kind):
    # The engine never asks for gradients of states that nothing was made of.
    tensors = inputs(kind.n_gates)
    assert torch.autograd.gradcheck(lambda *x: kind.steps.apply(*x)[0], tensors, check_undefined_grad=False)


@pytest.mark.parametrize("kind", KINDS)
def test_states_and_gradients_are_those_of_torchs_loop_for_each_network(kind):
    projected, weight, bias = tensors = inputs(kind.n_gates)
    states, *_ = kind.steps.apply(*tensors)
    expected = []
    for n in range(N):
        # The identity as input weight gives the gates what was projected.
        identity, nothing = torch.eye(kind.n_gates * H, dtype=torch.float64), torch.zeros_like(bias[n, :, 0])
        weights, start = [identity, weight[n], nothing, bias[n, :, 0]], torch.zeros(1, B, H, dtype=torch.float64)
        expected.append(kind.loop(projected[:, n].mT, [start], weights, training=True).mT)
    torch.testing.assert_close(states, torch.stack(expected, dim=1))
    direction = torch.randn(states.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    of_ours = torch.autograd.grad(states, tensors, direction)
    torch.testing.assert_close(of_ours, torch.autograd.grad(torch.stack(expected, dim=1), tensors, direction))


@pytest.mark.parametrize("kind", KINDS)
def test_models_side_by_side_are_the_models_one_by_one(kind):
    of_models = inputs(kind.n_gates, 2)
    lone = torch.stack([kind.steps.apply(*(x[k] for x in of_models))[0] for k in range(2)])
    # The models' axis may stand anywhere, and what they share has none.
    moved = [of_models[0].movedim(0, 3), of_models[1].movedim(0, 1), of_models[2]]
    torch.testing.assert_close(vmap(lambda *x: kind.steps.apply(*x)[0], in_dims=(3, 1, 0))(*moved), lone)
    shared = vmap(lambda *x: kind.steps.apply(*x)[0], in_dims=(0, None, 0))(of_models[0], of_models[1][0], of_models[2])
    torch.testing.assert_close(shared[0], lone[0])
    torch.testing.assert_close(
        torch.autograd.grad(shared[0].sum(), of_models[1])[0], torch.autograd.grad(lone[0].sum(), of_models[1])[0]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_of_one_network_and_one_series_leaves_its_parameters_alone(kind):
    tensors = [x[:1, :1, :, :1] if x.ndim == 4 else x[:1] for x in inputs(kind.n_gates)]
    before = [x.clone() for x in tensors]
    kind.steps.apply(*tensors)[0].sum().backward()
    assert all(torch.equal(x, b) for x, b in zip(tensors, before, strict=True))
