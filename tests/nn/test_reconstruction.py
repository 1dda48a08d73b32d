"""Networks that complete rows against plain torch with autograd."""

import math
import pickle

import pytest
import torch

from skdl.nn.activations import get_activation
from skdl.nn.dense import DenseArchitecture
from skdl.nn.reconstruction import ReconstructionArchitecture
from skdl.tasks.losses import ReconstructionError

D, F, K, B = 3, 8, 3, 7


def make_network(hidden=(5, 4), activation="tanh"):
    return ReconstructionArchitecture(F, D, hidden, get_activation(activation))


def random_theta(network, n_models=K, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_models, network.n_parameters, generator=generator, dtype=dtype) / 3


def make_inputs(n_models=K, n_rows=B, dtype=torch.float64, seed=1):
    """A completion, which cells are missing, and what else a network may see."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_models, n_rows, F, generator=generator, dtype=dtype)
    x[..., D : 2 * D] = (torch.rand(n_models, n_rows, D, generator=generator) < 0.5).to(dtype)
    return x


def reference(network, theta_P, x_BF, masks=None):
    p = {name: slot.view(theta_P) for name, slot in network.slots.items()}
    h = x_BF
    for i in range(len(network.hidden)):
        h = network.activation.module()(h @ p[f"weight{i}"] + p[f"bias{i}"])
        if masks is not None:
            h = h * masks[i]
    last = len(network.hidden)
    correction = h @ p[f"weight{last}"].T + p[f"bias{last}"]
    return torch.where(x_BF[:, D : 2 * D] == 1, x_BF[:, :D] + correction, x_BF[:, :D])


def make_masks(network, n_models=K):
    generator = torch.Generator().manual_seed(2)
    return [(torch.rand(n_models, B, h, generator=generator) > 0.3).to(torch.float64) / 0.7 for h in network.hidden]


@pytest.mark.parametrize("has_masks", [False, True], ids=["plain", "dropout"])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_stack_when_backward_then_gradient_is_autograds(hidden, activation, has_masks):
    network = make_network(hidden, activation)
    theta, x = random_theta(network), make_inputs()
    masks = make_masks(network) if has_masks else None
    grad = torch.zeros_like(theta)
    with torch.no_grad():
        stack = network.stack(theta.clone(), grad)
        output, tape = stack.forward(x, None, masks)
        grad_output = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
        stack.backward(grad_output, tape)
    for k in range(K):
        leaf = theta[k].clone().requires_grad_()
        expected = reference(network, leaf, x[k], None if masks is None else [mask[k] for mask in masks])
        (expected_grad,) = torch.autograd.grad(expected, leaf, grad_output[k].t())
        torch.testing.assert_close(output[k].t(), expected.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(grad[k], expected_grad, rtol=1e-9, atol=1e-11)


def test_stack_when_fresh_then_changes_nothing():
    network = make_network()
    theta = network.initial(torch.Generator().manual_seed(0), torch.float64)[None]
    x = make_inputs(1)
    assert torch.equal(network.stack(theta).predict(x)[0].t(), x[0, :, :D])
    # It is not all zero: the first step moves it.
    grad = torch.zeros_like(theta)
    stack = network.stack(theta, grad)
    output, tape = stack.forward(x)
    stack.backward(torch.ones_like(output), tape)
    assert grad.abs().sum() > 0


def test_stack_when_cells_are_present_then_they_come_out_as_they_went_in():
    network = make_network()
    theta, x = random_theta(network), make_inputs()
    first, present = x[..., :D].transpose(1, 2), x[..., D : 2 * D].transpose(1, 2) == 0
    stack = network.stack(theta, torch.zeros_like(theta))
    for output in (stack.predict(x), stack.forward(x)[0]):
        assert torch.equal(output[present], first[present])
        assert (output[~present] != first[~present]).all()


def test_stack_when_nothing_is_missing_then_no_gradient():
    network = make_network()
    theta, x = random_theta(network), make_inputs()
    x[..., D : 2 * D] = 0
    grad = torch.full_like(theta, math.nan)
    stack = network.stack(theta, grad)
    output, tape = stack.forward(x)
    stack.backward(torch.ones_like(output), tape)
    for slot in network.slots.values():
        assert not slot.view(grad).any()


def test_stack_when_k_models_then_k_stacks_of_one():
    network = make_network()
    theta, x = random_theta(network), make_inputs()
    grad, grads = torch.zeros_like(theta), []
    stack = network.stack(theta.clone(), grad)
    output, tape = stack.forward(x)
    stack.backward(output, tape)
    for k in range(K):
        grads.append(torch.zeros_like(theta[:1]))
        alone = network.stack(theta[k : k + 1].clone(), grads[-1])
        own, tape = alone.forward(x[k : k + 1])
        alone.backward(own, tape)
        torch.testing.assert_close(own[0], output[k], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat(grads), grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_module_when_of_a_row_then_equals_the_stack(dtype, tolerance):
    network = make_network()
    theta, x = random_theta(network, dtype=dtype), make_inputs(dtype=dtype)
    predicted = network.stack(theta).predict(x)
    for k in range(K):
        module = network.module(theta[k], dropout=0.3)
        assert not module.training
        with torch.no_grad():
            torch.testing.assert_close(module(x[k]), predicted[k].t(), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(module.outputs(x[k]), predicted[k].t(), rtol=tolerance, atol=tolerance)


def test_module_when_made_a_row_then_the_row_it_came_from():
    network = make_network()
    theta = random_theta(network, 1)[0]
    for slot in network.slots.values():
        assert torch.equal(slot.view(network.module(theta).to_vector(network)[None]), slot.view(theta[None]))


def test_module_when_network_is_another_then_lookup_error():
    module = make_network((5, 4)).module(random_theta(make_network((5, 4)), 1)[0])
    with pytest.raises(LookupError):
        module.to_vector(make_network((5, 4, 3)))


def test_module_when_pickled_then_computes_the_same():
    network = make_network()
    module = network.module(random_theta(network, 1)[0])
    x = make_inputs(1)[0]
    assert torch.equal(pickle.loads(pickle.dumps(module)).outputs(x), module.outputs(x))


def test_network_when_described_then_as_its_dense_network():
    network, dense = make_network((5,)), DenseArchitecture(F, D, (5,), get_activation("tanh"))
    assert network.n_outputs == D and network.n_parameters == dense.n_parameters
    assert network == make_network((5,)) and network != make_network((6,)) and network != dense
    assert network.label == f"reconstruction-{dense.label}"


# --- the loss ----------------------------------------------------------------------------------------------------


def loss_inputs():
    generator = torch.Generator().manual_seed(3)
    output, target = torch.randn(2, K, D, B, generator=generator, dtype=torch.float64)
    target[torch.rand(K, D, B, generator=generator) < 0.4] = math.nan
    target[0, :, 0] = math.nan
    return output, target


def test_loss_when_targets_are_missing_then_the_others_squared_error():
    output, target = loss_inputs()
    loss = ReconstructionError().loss(output, target, {})
    expected = torch.nansum((output - target) ** 2, 1) / (2 * D)
    torch.testing.assert_close(loss, expected)
    assert loss[0, 0] == 0


def test_loss_when_differentiated_then_gradient_is_autograds():
    output, target = loss_inputs()
    gradient = ReconstructionError().gradient(output, target, {})
    leaf = output.clone().requires_grad_()
    error = torch.where(target.isnan(), 0.0, leaf - target.nan_to_num())
    (expected,) = torch.autograd.grad((error.square().sum(1) / (2 * D)).sum(), leaf)
    torch.testing.assert_close(gradient, expected)
    assert not gradient[target.isnan()].any()
