"""Fine-tuning: what is frozen keeps every bit, and the head has a learning rate of its own."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from skdl.data.table import DenseTable
from skdl.engine.job import Job, Monitor, OptimizerKind, Plan, Samples, Settings, State
from skdl.engine.optimizers import RULES
from skdl.engine.run import Run
from skdl.engine.train import train
from skdl.nn.activations import get_activation
from skdl.nn.augment import Augmentation
from skdl.nn.backbone import BackboneArchitecture, _brought_to
from skdl.nn.conv import ConvArchitecture
from skdl.tasks.losses import CrossEntropy


def backbone():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, bias=False),
        nn.BatchNorm2d(5),
        nn.Conv2d(5, 6, 1),
    )


def plan_of(module, freeze=None, factor=1.0):
    return BackboneArchitecture(
        image_shape=(8, 7, 2),
        n_outputs=3,
        backbone=module,
        freeze=freeze,
        head_rate_factor=factor,
        hidden=(5,),
        activation=get_activation("relu"),
        mean=(0.5, 1.0),
        scale=(2.0, 1.0),
        augmentation=Augmentation(),
    )


def trained(network, optimizer="adamw", **settings):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 112, generator=generator, dtype=torch.float64)
    start = network.initial(torch.Generator().manual_seed(2), torch.float64)
    plan = Plan(network, CrossEntropy(), OptimizerKind(optimizer, False), 10, dtype=torch.float64)
    samples = Samples(DenseTable(x), torch.arange(20) % 3)
    (result,) = train([Job(plan, Settings(**settings), samples, 0, start=State(start.clone()))])
    return network.module(start), network.module(result.state.theta_P)


def names_of(before, after, equal):
    after = after.state_dict()
    return {
        name
        for name, value in before.state_dict().items()
        if value.is_floating_point() and torch.equal(value, after[name]) == equal
    }


LAYERS = [("0", ["0", "1"]), ("1", ["3", "4"]), ("2", ["5"])]


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("freeze", [None, 0, 1, 2, 3, "all"])
def test_frozen_layers_keep_every_bit_under_every_penalty(freeze, optimizer):
    network = plan_of(backbone(), freeze)
    before, after = trained(
        network, optimizer, learning_rate=0.01, weight_decay=0.5, l1=0.01, l2=0.1, gradient_clip=1.0, max_epochs=3
    )
    n_frozen = {None: 0, "all": 3}.get(freeze, freeze)
    kept = {f"extractor.{part}." for _, parts in LAYERS[:n_frozen] for part in parts}
    frozen = {name for name in before.state_dict() if name.startswith(tuple(kept)) and "batches" not in name}
    assert names_of(before, after, equal=True) == frozen
    moving = {name for name in before.state_dict() if "batches" not in name} - frozen
    assert names_of(before, after, equal=False) == moving


@pytest.mark.parametrize("freeze", [4, 99, np.int64(4)])
def test_more_frozen_layers_than_there_are_are_refused(freeze):
    with pytest.raises(ValueError, match=f"freeze={freeze}, but backbone=Sequential has 3 .*freeze='all'"):
        plan_of(backbone(), freeze).build()


class Scaled(nn.Module):
    """A part with parameters of its own beside those of the parts that it holds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((4, 2, 1, 1), 0.5))
        self.normalization = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.normalization(nn.functional.conv2d(x, self.weight))


@pytest.mark.parametrize(("freeze", "kept"), [(1, ["0"]), (2, ["0", "1"]), ("all", ["0", "1", "2"])])
def test_parameters_beside_those_of_parts_inside_freeze_with_their_layer(freeze, kept):
    module = nn.Sequential(nn.Conv2d(2, 2, 1), Scaled(), nn.Conv2d(4, 3, 1))
    before, after = trained(plan_of(module, freeze), learning_rate=0.01, weight_decay=0.5, max_epochs=2)
    names = {name for name in before.state_dict() if name.startswith("extractor.") and "batches" not in name}
    frozen = {name for name in names if name.startswith(tuple(f"extractor.{part}." for part in kept))}
    assert names_of(before, after, equal=True) & names == frozen


def test_what_stands_around_frozen_layers_trains_on():
    module = nn.Sequential(nn.Conv2d(2, 2, 1), Scaled(), nn.Conv2d(4, 3, 1))
    # A parameter of the whole, in front of all layers, as the class token of a vision transformer.
    module.register_parameter("token", nn.Parameter(torch.ones(1)))
    before, after = trained(plan_of(module, 1), learning_rate=0.01, max_epochs=2)
    changed = names_of(before, after, equal=False)
    assert "extractor.token" not in changed and "extractor.1.normalization.running_mean" in changed


def epochs_of(network, optimizer="adamw", **settings):
    """State of the module before and after each epoch."""
    x = torch.randn(20, 112, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = Plan(network, CrossEntropy(), OptimizerKind(optimizer, False), 10, dtype=torch.float64)

    class Watch(Monitor):
        def on_epoch_end(self, epochs):
            states.append(epochs[0].snapshot().clone())
            return False

    samples = Samples(DenseTable(x), torch.arange(20) % 3)
    job = Job(plan, Settings(**settings), samples, seed=0, monitor=Watch())
    states = [Run(job).theta_P.clone()]
    (result,) = train([job])
    assert result.error is None
    return [network.module(state).state_dict() for state in states]


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize(
    ("n_epochs", "n_unfrozen"), [(24, [0, 0, 1, 1, 2, 2] + [3] * 18), (5, [0, 2, 3, 3, 3]), (1, [0])]
)
def test_gradual_release_goes_from_the_top_down_and_what_is_still_keeps_every_bit(optimizer, n_epochs, n_unfrozen):
    penalties = {"weight_decay": 0.5, "l1": 0.001, "l2": 0.1, "gradient_clip": 1.0}
    states = epochs_of(plan_of(backbone(), "gradual"), optimizer, learning_rate=0.01, max_epochs=n_epochs, **penalties)
    for before, after, n in zip(states[:-1], states[1:], n_unfrozen, strict=True):
        kept = tuple(f"extractor.{part}." for _, parts in LAYERS[: 3 - n] for part in parts)
        numbers = [name for name, value in before.items() if value.is_floating_point()]
        assert {name for name in numbers if torch.equal(before[name], after[name])} == {
            name for name in numbers if name.startswith(kept)
        }


def test_a_released_layer_does_not_leap():
    states = epochs_of(plan_of(backbone(), "gradual"), learning_rate=0.001, max_epochs=60)
    steps = [
        float((after["extractor.0.weight"] - before["extractor.0.weight"]).abs().max())
        for before, after in pairwise(states)
    ]
    # Two steps an epoch, each of about the learning rate under Adam; moments that start at the release make it 7 times.
    assert max(steps[:15]) == 0 and 0 < max(steps[15:]) < 4 * 0.001


def test_phases_of_a_gradual_release_share_their_rows():
    network = plan_of(backbone(), "gradual")
    phases = [network.at(epoch, 24) for epoch in range(25)]
    assert [phase.n_frozen_now for phase in phases] == [3, 3, 2, 2, 1, 1, *[0] * 19]
    assert all(phase.slots == network.slots for phase in phases)
    assert plan_of(backbone(), 1).at(0, 12).n_frozen_now == 0


def test_the_backbone_is_never_changed_and_no_global_state_moved():
    module = backbone().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    trained(plan_of(module), learning_rate=0.1, max_epochs=2)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training and torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_fit_starts_from_the_numbers_of_the_backbone():
    module = backbone()
    network = plan_of(module)
    start = network.module(network.initial(torch.Generator().manual_seed(0), torch.float32))
    for name, value in module.state_dict().items():
        assert torch.equal(start.extractor.state_dict()[name], value)
    assert torch.equal(start.to_vector(network), network.initial(torch.Generator().manual_seed(0), torch.float32))


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_heads_learning_rate_is_multiplied(factor):
    settings = {"learning_rate": 0.01, "momentum": 0.0, "max_epochs": 1}

    def step(factor):
        network = plan_of(backbone(), factor=factor)
        x = torch.randn(20, 112, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        start = network.initial(torch.Generator().manual_seed(2), torch.float64)
        plan = Plan(network, CrossEntropy(), OptimizerKind("sgd", False), 20, dtype=torch.float64)
        samples = Samples(DenseTable(x), torch.arange(20) % 3)
        (result,) = train([Job(plan, Settings(**settings), samples, 0, start=State(start.clone()))])
        return network, result.state.theta_P - start

    (network, once), (_, times) = step(1.0), step(factor)
    for name, slot in network.slots.items():
        expected = once[slot.start : slot.stop] * (1 if name.startswith("extractor") else factor)
        torch.testing.assert_close(times[slot.start : slot.stop], expected, rtol=1e-9, atol=1e-12)


# --- what a head on a frozen network of ours sees ----------------------------------------------------------------


def own_network(shape):
    network = ConvArchitecture(
        image_shape=shape,
        n_outputs=3,
        channels=(4, 6),
        kernel_size=3,
        pooling="max",
        hidden=(),
        activation=get_activation("relu"),
        normalization="batch",
        residual=False,
        mean=(0.0,) * shape[2],
        scale=(1.0,) * shape[2],
        augmentation=Augmentation(),
    )
    return network.module(network.initial(torch.Generator().manual_seed(0), torch.float32))


def test_maps_of_twice_the_side_are_rearranged_without_loss():
    x = torch.randn(3, 5, 4, 4)
    assert torch.equal(_brought_to([2, 2], x), nn.functional.pixel_unshuffle(x, 2))
    assert torch.equal(_brought_to([2, 2], x[..., :2, :2]), x[..., :2, :2])
    row = x[:, :, :1]
    halves = torch.stack([row[..., 0::2], row[..., 1::2]], 2).flatten(1, 2)
    assert torch.equal(_brought_to([1, 2], row), halves)


@pytest.mark.parametrize(("freeze", "n_features"), [("all", 4 * 4 + 6), (1, 6), (None, 6), ("gradual", 6)])
def test_the_head_on_a_frozen_network_of_ours_sees_all_blocks(freeze, n_features):
    module = own_network((8, 8, 2))
    network = replace(plan_of(module, freeze), image_shape=(8, 8, 2))
    head = network.module(network.initial(torch.Generator(), torch.float32))
    x = torch.randn(2, 2, 8, 8)
    seen = head.features(x)
    assert seen.shape[1] == n_features
    torch.testing.assert_close(seen[:, -6:].mean((2, 3)), module.extractor(x).mean((2, 3)))


def test_the_head_of_a_frozen_network_of_signals_sees_all_blocks():
    module = own_network((1, 9, 2))
    network = replace(plan_of(module, "all"), image_shape=(1, 9, 2))
    head = network.module(network.initial(torch.Generator(), torch.float32))
    assert head.features(torch.randn(2, 2, 1, 9)).shape == (2, 2 * 4 + 6, 1, 2)


class Masked(nn.Module):
    """Infinite where nothing is looked at."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Conv2d(2, 4, 1)
        self.register_buffer("mask", torch.full((7, 7), float("-inf")).triu(1))

    def forward(self, x):
        return torch.softmax(self.weigh(x)[..., :7, :] + self.mask, -1)


@pytest.mark.parametrize("freeze", ["all", None])
def test_infinite_buffers_are_no_divergence(freeze):
    before, after = trained(plan_of(Masked(), freeze=freeze), max_epochs=2)

    assert names_of(before, after, equal=False) > {"output.weight"}
    assert torch.equal(after.extractor.mask, before.extractor.mask)


def test_no_other_devices_are_seeded(monkeypatch):
    seeded, plan = [], plan_of(backbone())
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)

    trained(plan, max_epochs=1)

    assert seeded == []


class Blurred(nn.Module):
    """With a kernel that is not saved, and features of single precision."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Conv2d(2, 4, 1)
        self.register_buffer("kernel", torch.ones(4, 1, 2, 2) / 4, persistent=False)

    def forward(self, x):
        return nn.functional.conv2d(self.weigh(x), self.kernel, groups=4).float()


def test_a_backbone_is_trained_in_double_precision():
    before, after = trained(plan_of(Blurred()), max_epochs=1)

    assert "extractor.weigh.weight" in names_of(before, after, equal=False)
    assert after(torch.zeros(2, 112, dtype=torch.float64)).dtype == torch.float64


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: torch.jit.script(backbone()), r"scripted or traced by torch\.jit"),
        (Complex, "has complex numbers"),
        (lambda: nn.LazyConv2d(3, 2), r"Call it once: backbone\(torch\.zeros\(1, 2, 8, 7\)\)"),
    ],
    ids=["scripted", "complex", "lazy"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_that_cannot_be_trained_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        _ = plan_of(module()).template


def test_layers_whose_weights_are_computed_freeze_with_what_they_are_computed_of():
    weight_norm = nn.utils.parametrizations.weight_norm
    module = nn.Sequential(weight_norm(nn.Conv2d(2, 4, 3)), nn.ReLU(), weight_norm(nn.Conv2d(4, 5, 3)))

    before, after = trained(plan_of(module, freeze=1), max_epochs=1)

    kept = {name for name in names_of(before, after, equal=True) if name.startswith("extractor")}
    parts = ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]
    assert kept == {f"extractor.0.{part}" for part in parts}
