"""DenseStack and DenseModule against plain torch with autograd, one network at a time."""

import copy
import math
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdl.nn.activations import ACTIVATIONS, get_activation
from skdl.nn.dense import DenseArchitecture, DenseModule, DenseStack
from skdl.nn.periodic import PeriodicEmbedding

ALL_ACTIVATIONS = [*ACTIVATIONS, torch.sin, nn.Hardswish]
NORMALIZATIONS = [None, "batch", "layer"]
LEVELS = ((4, 2), (3, 1))
#: Of two of the three numeric inputs.
PERIODIC = PeriodicEmbedding(2, n_frequencies=5, width=3, scale=0.5)


def make_network(activation="tanh", normalization=None, hidden=(5, 4), embeddings=(), periodic=None):
    return DenseArchitecture(3, 2, hidden, get_activation(activation), normalization, embeddings, periodic)


def random_theta(network, n_models, dtype=torch.float64, seed=0):
    """Numbers of which none is special: biases, shifts and statistics are not 0, gains not 1."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.stack([network.initial(generator, dtype) for _ in range(n_models)])
    for name, slot in network.slots.items():
        if not name.startswith(("weight", "embedding")):
            slot.view(rows).add_(torch.rand(n_models, *slot.shape, generator=generator, dtype=dtype) / 2)
    return rows


@dataclass
class Inputs:
    x: torch.Tensor
    codes: torch.Tensor | None = None
    masks: list[torch.Tensor] | None = None
    rows: torch.Tensor | None = None


def make_inputs(network, n_models, *, dropout=False, padding=False, dtype=torch.float64, n_rows=7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    inputs = Inputs(torch.randn(n_models, n_rows, network.n_inputs, generator=generator, dtype=dtype))
    if network.embeddings:
        columns = [torch.randint(n, (n_models, n_rows), generator=generator) for n, _ in network.embeddings]
        inputs.codes = torch.stack(columns, -1)
    if dropout:
        kept = [torch.rand(n_models, n_rows, h, generator=generator) > 0.3 for h in network.hidden]
        inputs.masks = [mask.to(dtype) / 0.7 for mask in kept]
    if padding:
        n_real = n_rows - torch.arange(n_models).view(-1, 1, 1) - 1
        inputs.rows = (torch.arange(n_rows).view(1, -1, 1) < n_real).to(dtype)
    return inputs


def reference(network, theta_P, x, codes=None, masks=None):
    """One network in its plainest form; gives running statistics as well."""
    p = {name: slot.view(theta_P) for name, slot in network.slots.items()}
    statistics = {}
    h = x
    if codes is not None:
        h = torch.cat([x, *(F.embedding(codes[:, e], p[f"embedding{e}"]) for e in range(codes.shape[1]))], 1)
    for c in range(network.periodic.n_columns if network.periodic else 0):
        waves = torch.cos(2 * math.pi * x[:, c : c + 1] * p["frequency"][c] + p["phase"][c])
        h = torch.cat([h, waves @ p["projection"][c].T], 1)
    for i, width in enumerate(network.hidden):
        z = F.linear(h, p[f"weight{i}"].T, p[f"bias{i}"])
        if network.normalization == "batch":
            mean, variance = p[f"mean{i}"].detach().clone(), p[f"variance{i}"].detach().clone()
            z = F.batch_norm(z, mean, variance, p[f"gain{i}"], p[f"shift{i}"], training=True, momentum=0.1, eps=1e-5)
            statistics |= {f"mean{i}": mean, f"variance{i}": variance}
        elif network.normalization == "layer":
            z = F.layer_norm(z, (width,), p[f"gain{i}"], p[f"shift{i}"], eps=1e-5)
        h = network.activation.module()(z)
        if masks is not None:
            h = h * masks[i]
    last = len(network.hidden)
    return F.linear(h, p[f"weight{last}"], p[f"bias{last}"]), statistics


def check_against_reference(network, n_models, **kinds):
    theta = random_theta(network, n_models)
    inputs = make_inputs(network, n_models, **kinds)
    before, grad = theta.clone(), torch.full_like(theta, math.nan)
    for name, slot in network.slots.items():
        if name.startswith(("mean", "variance")):
            slot.view(grad).zero_()
    # What fills a row up is nobody's parameter.
    grad[:, sum(math.prod(slot.shape) for slot in network.slots.values()) :] = 0
    stack = DenseStack(network, theta, grad)
    with torch.no_grad():
        output, tape = stack.forward(inputs.x, inputs.codes, inputs.masks, inputs.rows)
        grad_output = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
        if inputs.rows is not None:
            grad_output = grad_output * inputs.rows.transpose(1, 2)
        stack.backward(grad_output, tape)
    for k in range(n_models):
        real = slice(None) if inputs.rows is None else inputs.rows[k, :, 0] > 0
        leaf = before[k].clone().requires_grad_()
        codes = None if inputs.codes is None else inputs.codes[k][real]
        masks = None if inputs.masks is None else [mask[k][real] for mask in inputs.masks]
        expected, statistics = reference(network, leaf, inputs.x[k][real], codes, masks)
        (expected_grad,) = torch.autograd.grad(expected, leaf, grad_output[k].t()[real])
        torch.testing.assert_close(output[k].t()[real], expected.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(grad[k], expected_grad, rtol=1e-9, atol=1e-11)
        for name, value in statistics.items():
            torch.testing.assert_close(network.slots[name].view(theta)[k], value, rtol=1e-10, atol=1e-12)


# --- the stack against autograd ----------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("activation", ALL_ACTIVATIONS)
def test_stack__when_one_model__then_equals_autograd(activation, normalization):
    network = make_network(activation, normalization, embeddings=LEVELS)
    check_against_reference(network, 1, dropout=True)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("embeddings", "periodic", "kinds"),
    [
        ((), None, {}),
        ((), None, {"dropout": True}),
        (LEVELS, None, {}),
        ((), PERIODIC, {}),
        ((), None, {"padding": True}),
        (LEVELS, PERIODIC, {"dropout": True, "padding": True}),
    ],
    ids=["plain", "dropout", "embeddings", "periodic", "padding", "all"],
)
def test_stack__when_three_models__then_each_equals_autograd(activation, normalization, embeddings, periodic, kinds):
    network = make_network(activation, normalization, embeddings=embeddings, periodic=periodic)
    check_against_reference(network, 3, **kinds)


@pytest.mark.parametrize("periodic", [None, PERIODIC], ids=["", "periodic"])
@pytest.mark.parametrize("embeddings", [(), LEVELS], ids=["numeric", "embedded"])
@pytest.mark.parametrize("hidden", [(), (1,), (6, 5, 4, 3)], ids=str)
def test_stack__when_depth_varies__then_equals_autograd(hidden, embeddings, periodic):
    check_against_reference(make_network("gelu", "layer" if hidden else None, hidden, embeddings, periodic), 3)


def test_stack__when_columns_are_embedded_only__then_equals_autograd():
    check_against_reference(replace(make_network(embeddings=LEVELS), n_inputs=0), 3)


class StackFunction(torch.autograd.Function):
    """DenseStack as a node of autograd's graph, so that gradcheck can look at it."""

    @staticmethod
    def forward(ctx, theta, network, inputs):
        ctx.save_for_backward(theta)
        ctx.network, ctx.inputs = network, inputs
        return StackFunction.run(theta, network, inputs)[0]

    @staticmethod
    def backward(ctx, grad_output):
        (theta,) = ctx.saved_tensors
        _, tape, stack, grad = StackFunction.run(theta, ctx.network, ctx.inputs)
        stack.backward(grad_output, tape)
        return grad, None, None

    @staticmethod
    def run(theta, network, inputs):
        grad = torch.zeros_like(theta)
        # Batch norm writes its running statistics into the parameters.
        stack = DenseStack(network, theta.detach().clone(), grad)
        output, tape = stack.forward(inputs.x, inputs.codes, inputs.masks, inputs.rows)
        return output, tape, stack, grad


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("activation", ALL_ACTIVATIONS)
def test_stack__when_differentiated_numerically__then_gradient_agrees(activation, normalization):
    n_models = 2 if get_activation(activation).stackable else 1
    network = make_network(activation, normalization, (3, 2), ((3, 1),), PERIODIC)
    inputs = make_inputs(network, n_models, dropout=True, padding=n_models > 1, n_rows=5)
    theta = random_theta(network, n_models).requires_grad_()

    def outputs(theta):
        output = StackFunction.apply(theta, network, inputs)
        return output if inputs.rows is None else output * inputs.rows.transpose(1, 2)

    assert torch.autograd.gradcheck(outputs, theta, eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_stack__when_padding_is_garbage__then_nothing_changes(normalization):
    network = make_network("silu", normalization, embeddings=LEVELS, periodic=PERIODIC)
    inputs = make_inputs(network, 3, padding=True)
    outcomes = []
    for fill in (0.0, 1e6):
        x = torch.where(inputs.rows > 0, inputs.x, fill)
        theta = random_theta(network, 3)
        grad = torch.zeros_like(theta)
        stack = DenseStack(network, theta, grad)
        output, tape = stack.forward(x, inputs.codes, None, inputs.rows)
        real = output * inputs.rows.transpose(1, 2)
        stack.backward(real, tape)
        outcomes.append((real, grad, theta))
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_stack__when_neighbour_is_not_finite__then_others_are_bit_equal():
    network = make_network("relu", "batch", embeddings=LEVELS, periodic=PERIODIC)
    inputs = make_inputs(network, 3, dropout=True)
    outcomes = []
    for value in (0.5, math.nan):
        theta = random_theta(network, 3)
        theta[1] = value
        grad = torch.zeros_like(theta)
        stack = DenseStack(network, theta, grad)
        output, tape = stack.forward(inputs.x, inputs.codes, inputs.masks)
        stack.backward(output, tape)
        outcomes.append([tensor[[0, 2]] for tensor in (output, grad, theta)])
    for one, other in zip(*outcomes, strict=True):
        assert torch.equal(one, other)


def test_stack__when_products_are_bfloat16__then_close_to_float32():
    network = make_network("relu", "layer", (32, 32), LEVELS, PERIODIC)
    theta = random_theta(network, 2, torch.float32)
    inputs = make_inputs(network, 2, dtype=torch.float32, n_rows=64)
    outcomes = []
    for matmul_dtype in (None, torch.bfloat16):
        grad = torch.zeros_like(theta)
        stack = DenseStack(network, theta.clone(), grad, matmul_dtype)
        output, tape = stack.forward(inputs.x, inputs.codes)
        stack.backward(output, tape)
        assert output.dtype == grad.dtype == torch.float32
        outcomes.append((output, grad))
    for exact, rounded in zip(*outcomes, strict=True):
        error = (exact - rounded).norm() / exact.norm()
        assert 0 < error < 0.02


# --- batch norm's running statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [False, True])
def test_running_statistics__when_several_steps__then_equal_batch_norm_1d(padding):
    network = make_network("relu", "batch", (4,))
    theta = random_theta(network, 3)
    norms = [nn.BatchNorm1d(4, dtype=torch.float64) for _ in range(3)]
    for k, norm in enumerate(norms):
        norm.running_mean.copy_(network.slots["mean0"].view(theta)[k])
        norm.running_var.copy_(network.slots["variance0"].view(theta)[k])
    stack = DenseStack(network, theta)
    for seed in range(4):
        inputs = make_inputs(network, 3, padding=padding, seed=seed)
        stack.forward(inputs.x, rows_KB1=inputs.rows)
        z = torch.baddbmm(stack.theta.biases[0].unsqueeze(1), inputs.x, stack.theta.weights[0])
        for k, norm in enumerate(norms):
            norm(z[k] if inputs.rows is None else z[k][inputs.rows[k, :, 0] > 0])
    for k, norm in enumerate(norms):
        torch.testing.assert_close(network.slots["mean0"].view(theta)[k], norm.running_mean)
        torch.testing.assert_close(network.slots["variance0"].view(theta)[k], norm.running_var)


@pytest.mark.parametrize("padded", [False, True])
def test_running_statistics__when_batch_has_one_row__then_variance_does_not_shrink(padded):
    # One row says nothing of a variance; torch refuses it, and the last batch of an epoch may come to it.
    network = make_network("relu", "batch", (4,))
    theta = random_theta(network, 1)
    before = network.slots["variance0"].view(theta).clone()
    x = torch.randn(1, 3 if padded else 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([1.0, 0, 0], dtype=torch.float64).view(1, 3, 1) if padded else None
    DenseStack(network, theta).forward(x, rows_KB1=rows)
    torch.testing.assert_close(network.slots["variance0"].view(theta), before)


# --- layout and first numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("periodic", [None, PERIODIC], ids=["", "periodic"])
@pytest.mark.parametrize("embeddings", [(), LEVELS], ids=["numeric", "embedded"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("hidden", [(), (5, 4)], ids=str)
def test_slots__then_they_cover_the_row_once(hidden, normalization, embeddings, periodic):
    network = make_network("relu", normalization, hidden, embeddings, periodic)
    theta = torch.zeros(2, network.n_parameters)
    for slot in network.slots.values():
        slot.view(theta).add_(1)
    n_used = sum(math.prod(slot.shape) for slot in network.slots.values())
    assert torch.equal(theta[:, :n_used], torch.ones(len(theta), n_used))
    assert not theta[:, n_used:].any() and network.n_parameters - n_used < 16
    is_weight = torch.zeros(1, network.n_parameters)
    for name, slot in network.slots.items():
        if name.startswith(("weight", "embedding", "projection")):
            slot.view(is_weight).fill_(1)
    assert is_weight[0, : network.n_weights].all() and not is_weight[0, network.n_weights :].any()


@pytest.mark.parametrize("activation", ["relu", "selu", "elu", "tanh"])
def test_initial__when_wide__then_variances_follow_the_rule(activation):
    network = DenseArchitecture(300, 200, (400,), get_activation(activation), "batch", ((500, 100),))
    theta = network.initial(torch.Generator().manual_seed(0), torch.float64)[None]
    values = {name: slot.view(theta)[0] for name, slot in network.slots.items()}
    hidden_variance = 2 / (400 + 400)
    assert values["weight0"].var().item() == pytest.approx(hidden_variance, rel=0.02)
    assert values["weight1"].var().item() == pytest.approx(2 / (400 + 200), rel=0.02)
    assert abs(values["weight0"].mean().item()) < 3 * math.sqrt(hidden_variance / values["weight0"].numel())
    assert values["embedding0"][1:].var().item() == pytest.approx(1 / 100, rel=0.03)
    for name in ("bias0", "bias1", "shift0", "mean0"):
        assert not values[name].any()
    for name in ("gain0", "variance0"):
        assert (values[name] == 1).all()
    assert not values["embedding0"][0].any()


def test_initial__when_periodic__then_frequencies_have_the_scale_and_phases_go_round():
    network = replace(make_network(), n_inputs=500, periodic=PeriodicEmbedding(500, scale=0.25))
    theta = network.initial(torch.Generator().manual_seed(0), torch.float64)[None]
    values = {name: slot.view(theta)[0] for name, slot in network.slots.items()}
    assert values["frequency"].std().item() == pytest.approx(0.25, rel=0.03)
    assert values["phase"].std().item() == pytest.approx(2 * math.pi / math.sqrt(12), rel=0.03)
    # 16 frequencies: uniform in (-1/4, 1/4).
    assert values["projection"].abs().max().item() == pytest.approx(0.25, rel=0.01)
    assert values["projection"].std().item() == pytest.approx(0.5 / math.sqrt(12), rel=0.03)


def test_initial__when_same_seed__then_same_numbers_in_every_precision():
    network = make_network("relu", "batch", embeddings=LEVELS, periodic=PERIODIC)
    double = network.initial(torch.Generator().manual_seed(3), torch.float64)
    single = network.initial(torch.Generator().manual_seed(3), torch.float32)
    other = network.initial(torch.Generator().manual_seed(4), torch.float64)
    assert torch.equal(double.float(), single)
    assert not torch.equal(double, other)


# --- the module --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("activation", ALL_ACTIVATIONS)
def test_module__when_made_of_a_row__then_predicts_as_the_stack(activation, normalization, dtype):
    network = make_network(activation, normalization, embeddings=LEVELS, periodic=PERIODIC)
    n_models = 3 if network.activation.stackable else 1
    theta = random_theta(network, n_models, dtype)
    inputs = make_inputs(network, n_models, dtype=dtype)
    output = DenseStack(network, theta).predict(inputs.x, inputs.codes)
    for k in range(n_models):
        module = DenseModule.from_vector(network, theta[k], dropout=0.5)
        torch.testing.assert_close(module(inputs.x[k], inputs.codes[k]).detach(), output[k].t())


@pytest.mark.parametrize("periodic", [None, PERIODIC], ids=["", "periodic"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("hidden", [(), (5, 4)], ids=str)
def test_module__when_turned_back_into_a_row__then_nothing_is_lost(hidden, normalization, periodic):
    network = make_network("relu", normalization, hidden, LEVELS, periodic)
    row = random_theta(network, 1)[0]
    module = DenseModule.from_vector(network, row, dropout=0.1)
    assert torch.equal(module.to_vector(network), row)
    assert torch.equal(pickle.loads(pickle.dumps(module)).to_vector(network), row)


def test_module__when_the_network_has_waves_and_the_module_has_none__then_lookup_error():
    module = DenseModule.from_vector(make_network(), random_theta(make_network(), 1)[0])
    with pytest.raises(LookupError):
        module.to_vector(make_network(periodic=PERIODIC))


def test_module__when_row_changes_afterwards__then_module_does_not():
    network = make_network("relu", "batch")
    row = random_theta(network, 1)[0]
    kept = row.clone()
    module = DenseModule.from_vector(network, row)
    row.zero_()
    assert torch.equal(module.to_vector(network), kept)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("embeddings", [(), LEVELS], ids=["numeric", "embedded"])
def test_module__when_made__then_global_random_state_stays(normalization, embeddings):
    network = make_network("relu", normalization, embeddings=embeddings, periodic=PERIODIC)
    row = random_theta(network, 1)[0]
    before = torch.get_rng_state()
    DenseModule.from_vector(network, row)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("periodic", [None, PERIODIC], ids=["", "periodic"])
def test_module__when_trained_by_autograd__then_steps_as_the_stack_does(periodic):
    network = make_network("gelu", "batch", periodic=periodic)
    theta = random_theta(network, 1)
    module = DenseModule.from_vector(network, theta[0]).train()
    inputs = make_inputs(network, 1)
    grad = torch.zeros_like(theta)
    stack = DenseStack(network, theta, grad)
    output, tape = stack.forward(inputs.x)
    stack.backward(output, tape)
    own = module(inputs.x[0])
    (own.square().sum() / 2).backward()
    torch.testing.assert_close(own.detach(), output[0].t())
    # Statistics have moved in both; gradients go back through copies of the module's places.
    torch.testing.assert_close(module.to_vector(network), theta[0])
    grads = copy.deepcopy(module)
    for target, source in zip(grads.parameters(), module.parameters(), strict=True):
        target.data.copy_(source.grad)
    trained = network.slots["mean0"].start
    torch.testing.assert_close(grads.to_vector(network)[:trained], grad[0, :trained])


def test_module__when_training_with_dropout__then_units_drop_at_the_rate():
    network = DenseArchitecture(1, 1, (4000,), get_activation("identity"))
    row = torch.zeros(network.n_parameters)
    network.slots["bias0"].view(row).fill_(1)
    network.slots["weight1"].view(row).fill_(1)
    module = DenseModule.from_vector(network, row, dropout=0.25)
    assert module(torch.zeros(1, 1)).item() == 4000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kept = module.train()(torch.zeros(1, 1)).item() * 0.75 / 4000
    assert kept == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("way", ["in place", "data", "parameter", "assigned state"])
def test_outputs_follow_parameters_that_a_caller_changes(way):
    torch.manual_seed(0)
    network = DenseArchitecture(3, 2, (4,), get_activation("relu"))
    theta = torch.randn(2, network.n_parameters)
    module, other = (DenseModule.from_vector(network, row) for row in theta)
    x = torch.randn(5, 3)
    module.outputs(x)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            layer = module.get_submodule(name.rpartition(".")[0])
            attribute = name.rpartition(".")[2]
            if way == "in place":
                getattr(layer, attribute).copy_(parameter)
            elif way == "data":
                getattr(layer, attribute).data = parameter.data.clone()
            elif way == "parameter":
                setattr(layer, attribute, torch.nn.Parameter(parameter.clone()))
        if way == "assigned state":
            module.load_state_dict(other.state_dict(), assign=True)
    torch.testing.assert_close(module.outputs(x), other(x).detach())
