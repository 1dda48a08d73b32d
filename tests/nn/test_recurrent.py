"""Recurrent networks beside torch's own layers, and what padding must not change."""

import pytest
import torch
from torch import nn

from skdl.data.series.row_layout import N_TAIL, Denormalization, RowLayout
from skdl.nn.dropout import Draws, Dropout
from skdl.nn.recurrent import (
    CELLS,
    POOLINGS,
    BatchNorm1d,
    ConvLayer,
    PatchStem,
    Recurrence,
    RecurrentArchitecture,
    Steps,
)

TORCH = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
NAMES = ("weight_in", "weight_hidden", "bias_in", "bias_hidden")
LENGTHS = [11, 7, 16, 3]
STEMS = {
    "points": {"patch_size": 1, "conv": ()},
    "patches": {"patch_size": 4, "conv": ()},
    "conv": {"patch_size": 1, "conv": (ConvLayer(5, 7, 2), ConvLayer(6, 3, 1))},
}


def plan(**changes):
    settings = {
        "layout": RowLayout(2, 1),
        "n_steps": 16,
        "n_outputs": 3,
        "cell": "gru",
        "hidden_size": 4,
        "num_layers": 2,
        "bidirectional": True,
        "patch_size": 1,
        "conv": (),
        "pooling": tuple(POOLINGS),
        "hidden": (5,),
        "denormalization": None,
    }
    return RecurrentArchitecture(**settings | changes)


def module_of(network, seed=0):
    theta_P = network.initial(torch.Generator().manual_seed(seed), torch.float64)
    # Networks with a denormalization start from an output layer of zeros, which would hide everything.
    theta_P += 0.1 * torch.randn(len(theta_P), dtype=torch.float64, generator=torch.Generator().manual_seed(1)).abs()
    return network.module(theta_P)


def rows(lengths=LENGTHS, n_steps=16, seed=0):
    """Encoded rows of two channels and one number beside them; padding is zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(len(lengths), 2, n_steps, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, :, :length] = torch.randn(2, length, dtype=torch.float64, generator=generator)
    tail = torch.tensor([[0.5, 2.0, 1.5, length] for length in lengths], dtype=torch.float64)
    assert tail.shape[1] == 1 + N_TAIL
    return torch.cat([x.flatten(1), tail], dim=1)


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_is_torchs_layer(cell):
    own, reference = Recurrence(cell, 3, 4), TORCH[cell](3, 4)
    with torch.no_grad():
        own.draw_initial(torch.Generator().manual_seed(0), 6)
        for name, parameter in zip(NAMES, reference.parameters(), strict=True):
            parameter.copy_(getattr(own, name))
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(own(x.permute(1, 2, 0)), reference(x)[0].permute(1, 2, 0))


def test_two_directions_of_two_layers_are_torchs_packed_layers():
    network = plan(pooling=("last",), hidden=(), layout=RowLayout(2, 0))
    module = module_of(network)
    reference = nn.GRU(2, 4, 2, bidirectional=True, dtype=torch.float64)
    parts = [part for layer in module.layers for part in layer.directions]
    with torch.no_grad():
        names = [name for name, _ in reference.named_parameters()]
        for part, start in zip(parts, range(0, len(names), 4), strict=True):
            for own, name in zip(NAMES, names[start:], strict=False):
                reference.get_parameter(name).copy_(getattr(part, own))
    x = rows()
    series = x[:, :32].view(-1, 2, 16).permute(2, 0, 1)
    packed = nn.utils.rnn.pack_padded_sequence(series, torch.tensor(LENGTHS), enforce_sorted=False)
    _, ends = reference(packed)
    got = module.pooling(module.states(Steps.of(series.permute(1, 2, 0), torch.tensor(LENGTHS))))
    torch.testing.assert_close(got, torch.cat([ends[-2], ends[-1]], dim=1))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(
    "denormalization", [None, Denormalization((1.0, 2.0, 0.5), (0.0, 1.0, -1.0))], ids=["plain", "reversed"]
)
def test_padding_and_company_change_nothing(cell, stem, denormalization):
    module = module_of(plan(cell=cell, denormalization=denormalization, **STEMS[stem]))
    together = module.outputs(rows())
    assert together.std(0).min() > 1e-4
    torch.testing.assert_close(module.outputs(rows(n_steps=57)), together, rtol=0, atol=1e-12)
    alone = torch.cat([module.outputs(rows()[[row]]) for row in range(4)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(module.outputs(rows()[order]), together[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stem", STEMS)
def test_padding_changes_no_gradient(stem):
    network = plan(**STEMS[stem])
    gradients = []
    for n_steps in (16, 40):
        module = module_of(network).train()
        module(rows(n_steps=n_steps)).square().sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_masked_batch_normalisation_is_torchs_on_the_values_that_count():
    own, reference = BatchNorm1d(3), nn.BatchNorm1d(3)
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < torch.tensor([[8], [5]])).unsqueeze(1).float()
    flat = torch.cat([x[0], x[1, :, :5]], dim=1).unsqueeze(0)
    expected = reference(flat)
    got = own(x * mask, mask)
    torch.testing.assert_close(torch.cat([got[0], got[1, :, :5]], dim=1).unsqueeze(0), expected)
    torch.testing.assert_close(own.running_mean, reference.running_mean)
    torch.testing.assert_close(own.running_var, reference.running_var)


def test_patches_end_where_the_series_ends():
    stem = PatchStem(1, 3, 1)
    with torch.no_grad():
        stem.dense.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        stem.dense.bias.zero_()
    x = torch.tensor([[[1.0, 2, 3, 4, 5]], [[6.0, 7, 0, 0, 0]]])
    patches = stem(Steps.of(x, torch.tensor([5, 2])))
    # GELU of so large numbers is the number itself.
    torch.testing.assert_close(patches.x_BFT[:, 0], torch.tensor([[210.0, 543], [760, 0]]))
    assert patches.lengths_B.tolist() == [2, 1]


def test_last_of_both_directions_has_seen_the_whole_series():
    module = module_of(plan(pooling=("last",), num_layers=1, hidden=(), layout=RowLayout(2, 1)))
    x = rows().requires_grad_()
    pooled = module.pooling(module.states(Steps.of(x[:, :32].view(-1, 2, 16), torch.tensor(LENGTHS))))
    for half in pooled.split(4, dim=1):
        (gradient,) = torch.autograd.grad(half.sum(), x, retain_graph=True)
        reached = gradient[:, :32].view(-1, 2, 16).abs().sum(1) > 0
        assert [int(row.sum()) for row in reached] == LENGTHS


def test_an_output_that_is_given_back_starts_at_the_level():
    network = plan(denormalization=Denormalization((2.0, 2.0, 2.0), (1.0, 1.0, 1.0)))
    module = network.module(network.initial(torch.Generator().manual_seed(0), torch.float64))
    # Twice the level, 2, plus 1.
    torch.testing.assert_close(module.outputs(rows()), torch.full((4, 3), 5.0, dtype=torch.float64))


# --- models side by side ---------------------------------------------------------------------------------------------

EVEN = {
    "units": {"cell": "gru", "bidirectional": False, "num_layers": 1},
    "both directions of two layers": {"cell": "gru"},
    "tanh": {"cell": "rnn"},
    "patches": {"cell": "gru", "patch_size": 4},
    "given back": {"cell": "gru", "denormalization": Denormalization((1.0, 2.0, 0.5), (0.0, 1.0, -1.0))},
}


def steps_of(network, thetas, tables, lengths, rates):
    """Outputs and gradients of one training step of a batch of six rows, in which each model has so many of its own."""
    theta_KP, grad_KP = torch.stack(thetas), torch.full((len(thetas), network.n_parameters), 7.0, dtype=torch.float64)
    generators = [torch.Generator().manual_seed(int(1000 * rate)) for rate in rates]
    noise = network.noise(generators, rates, lengths, 6, torch.float64)
    stack = network.stack(theta_KP, grad_KP)
    outputs, tape = stack.forward(torch.stack(tables), None, noise.draw(0, len(thetas), len(tables[0])))
    # Rows that fill up a batch have no gradient.
    own_KB = torch.arange(len(tables[0])) < torch.tensor(lengths)[:, None]
    direction = torch.randn(outputs[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    stack.backward(direction * own_KB.unsqueeze(1), tape)
    return outputs, grad_KP


@pytest.mark.parametrize("name", EVEN)
def test_models_side_by_side_are_the_models_one_by_one(name):
    network = plan(**EVEN[name], has_equal_lengths=True)
    assert network.stacks_on("cpu")
    thetas = [module_of(network, seed).to_vector(network) for seed in range(3)]
    tables = [rows([16] * 6, seed=seed) for seed in range(3)]
    lengths, rates = [6, 6, 4], [0.2, 0.0, 0.5]
    outputs, grads = steps_of(network, thetas, tables, lengths, rates)
    for k, length in enumerate(lengths):
        # A lone model's batch has no rows but its own.
        lone, grad = steps_of(network, [thetas[k]], [tables[k]], [6], [rates[k]])
        if length == 6:
            torch.testing.assert_close(outputs[k], lone[0], rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(grads[k], grad[0], rtol=1e-9, atol=1e-11)
        else:
            lone, _ = steps_of(network, [thetas[k]], [tables[k][:length]], [length], [rates[k]])
            torch.testing.assert_close(outputs[k][:, :length], lone[0], rtol=1e-10, atol=1e-12)
    predicted = network.stack(torch.stack(thetas)).predict(torch.stack(tables))
    for theta_P, table, output in zip(thetas, tables, predicted, strict=True):
        torch.testing.assert_close(output.t(), network.module(theta_P).outputs(table), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [{"has_equal_lengths": False}, {"cell": "lstm"}, {"conv": (ConvLayer(5, 7, 2),)}],
    ids=["unequal lengths", "lstm", "convolutions"],
)
def test_what_company_does_not_make_faster_stays_alone(changes):
    assert not plan(**{"has_equal_lengths": True} | changes).stacks_on("cpu")
    assert not plan(has_equal_lengths=True).stacks_on("cuda")


def test_dropout_between_layers_is_the_same_at_all_steps():
    layer = Dropout().train()
    layer.draws = Draws([torch.Generator().manual_seed(0)], [0.5], [3])
    factors = layer(torch.ones(3, 8, 5))
    assert torch.equal(factors, factors[:, :, :1].expand(-1, -1, 5))
    assert sorted(factors.unique().tolist()) == [0.0, 2.0]
