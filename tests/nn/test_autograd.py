"""AutogradArchitecture and AutogradStack against plain torch modules that are built and trained by hand."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdl.data.table import DenseTable
from skdl.engine.batches import Batches, DeviceTables
from skdl.engine.device import Streams
from skdl.engine.job import Job, OptimizerKind, Plan, Samples, Settings, State
from skdl.engine.train import train
from skdl.nn.activations import get_activation
from skdl.nn.augment import Augmentation
from skdl.nn.autograd import AutogradArchitecture, AutogradModule, draw_layer
from skdl.nn.conv import BatchNorm2d, ConvArchitecture
from skdl.nn.dropout import Draws, Dropout
from skdl.tasks.losses import CrossEntropy

BASE = ConvArchitecture(
    image_shape=(8, 6, 2),
    n_outputs=3,
    channels=(4, 5),
    kernel_size=3,
    pooling="max",
    hidden=(7,),
    activation=get_activation("tanh"),
    normalization="batch",
    residual=False,
    mean=(3.0, -2.0),
    scale=(2.0, 5.0),
    augmentation=Augmentation(),
)
VARIANTS = {
    "batch": BASE,
    "layer": replace(BASE, normalization="layer"),
    "plain": replace(BASE, normalization=None),
    "average": replace(BASE, pooling="average"),
    "residual": replace(BASE, residual=True),
    "residual-layer": replace(BASE, residual=True, normalization="layer"),
    "signal": replace(BASE, image_shape=(1, 16, 2)),
    "residual-signal": replace(BASE, image_shape=(1, 17, 2), residual=True),
    "odd": replace(BASE, image_shape=(7, 9, 2)),
    "wide kernel": replace(BASE, kernel_size=5),
    "one statistic": replace(BASE, mean=(1.5, 1.5), scale=(2.0, 2.0)),
    "no hidden layer": replace(BASE, hidden=()),
}


class Residual(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


def handmade(network):
    """The network in torch's own layers, of standardised images."""
    height, width, n_in = network.image_shape
    is_signal = height == 1
    sides = [width] if is_signal else [height, width]
    norms = {"batch": nn.BatchNorm2d, "layer": lambda n: nn.GroupNorm(1, n), None: lambda n: nn.Identity()}
    kernel = (1, network.kernel_size) if is_signal else network.kernel_size
    pool = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}[network.pooling]((1, 2) if is_signal else 2)

    def convolution(n_in, n_out):
        return nn.Conv2d(n_in, n_out, kernel, padding="same", bias=network.normalization is None)

    def rest(n):
        return [norms[network.normalization](n), nn.Tanh()]

    layers = []
    for n_out in network.channels:
        layers.append(convolution(n_in, n_out))
        if min(sides) >= 4:
            layers.append(pool)
            sides = [side // 2 for side in sides]
        layers += rest(n_out)
        if network.residual:
            layers.append(Residual([convolution(n_out, n_out), *rest(n_out)]))
        n_in = n_out
    pooled = (1, 2) if is_signal else (2, 2)
    layers += [nn.AdaptiveAvgPool2d(pooled), nn.Flatten()]
    n_in *= pooled[0] * pooled[1]
    for n_units in network.hidden:
        layers += [nn.Linear(n_in, n_units), nn.Tanh()]
        n_in = n_units
    return nn.Sequential(*layers, nn.Linear(n_in, network.n_outputs))


def floating(module):
    """Parameters, then floating buffers, in the order of the module."""
    return [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]


def random_theta(network, dtype=torch.float64):
    """Numbers of which none is special."""
    generator = torch.Generator().manual_seed(0)
    theta_P = network.initial(generator, dtype)
    for slot in network.slots.values():
        if len(slot.shape) == 1:
            theta_P[slot.start : slot.stop] += torch.rand(slot.shape, generator=generator, dtype=dtype) / 2
    return theta_P


def twin(network, theta_P):
    """The handmade network with the same numbers."""
    theirs = handmade(network).to(theta_P.dtype)
    ours = floating(network.module(theta_P))
    for mine, other in zip(floating(theirs), ours, strict=True):
        assert mine.shape == other.shape
        mine.data.copy_(other)
    return theirs


def make_pixels(network, n=10, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, int(np.prod(network.image_shape)), generator=generator, dtype=dtype) * 3


def standardized(network, pixels):
    x = pixels.view(-1, *network.image_shape)
    mean, scale = (torch.tensor(v, dtype=x.dtype) for v in (network.mean, network.scale))
    return ((x - mean) / scale).permute(0, 3, 1, 2)


def draws(network, seed=0, dropout=0.0):
    return network.noise([torch.Generator().manual_seed(seed)], [dropout], [10], 10, torch.float64)


def stacked(network, theta_P):
    # What is in the gradient from the step before must go.
    grad_KP = torch.zeros_like(theta_P[None])
    grad_KP[0, : sum(p.numel() for p in network.module(theta_P).parameters())] = 7.0
    return network.stack(theta_P[None], grad_KP), grad_KP[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_gradients_and_running_statistics_are_torchs(name):
    network = VARIANTS[name]
    theta_P, pixels = random_theta(network), make_pixels(network)
    theirs = twin(network, theta_P)
    stack, grad_P = stacked(network, theta_P)
    expected = theirs(standardized(network, pixels))
    output, tape = stack.forward(pixels[None], None, draws(network))
    torch.testing.assert_close(output[0].t(), expected.detach(), rtol=1e-9, atol=1e-9)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    stack.backward(direction, tape)
    expected.backward(direction[0].t())
    names = [n for n, _ in network.module(theta_P).named_parameters()]
    for full_name, parameter in zip(names, theirs.parameters(), strict=True):
        torch.testing.assert_close(network.slots[full_name].view(grad_P), parameter.grad, rtol=1e-8, atol=1e-10)
    assert (grad_P[sum(p.numel() for p in theirs.parameters()) :] == 0).all()
    for mine, other in zip(floating(network.module(theta_P)), floating(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["batch", "layer", "residual-signal"])
def test_predictions_while_training_are_those_of_eval_mode(name):
    network = VARIANTS[name]
    theta_P, pixels = random_theta(network), make_pixels(network)
    stack, _ = stacked(network, theta_P)
    before = theta_P.clone()
    expected = twin(network, theta_P).eval()(standardized(network, pixels)).detach()
    torch.testing.assert_close(stack.predict(pixels[None])[0].t(), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(theta_P, before)


@pytest.mark.parametrize("name", ["batch", "plain", "residual"])
def test_the_engine_trains_as_a_plain_torch_loop(name):
    network = VARIANTS[name]
    pixels, target = make_pixels(network, 12), torch.arange(12) % 3
    start = random_theta(network)
    theirs = twin(network, start)
    plan = Plan(network, CrossEntropy(), OptimizerKind("sgd", False), 12, dtype=torch.float64)
    samples = Samples(DenseTable(pixels), target)

    settings = Settings(learning_rate=0.05, momentum=0.9, max_epochs=6)
    (result,) = train([Job(plan, settings, samples, 0, start=State(start.clone()))])
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs(standardized(network, pixels)), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose([record.loss for record in result.history], losses, rtol=1e-8)
    assert losses[-1] < losses[0]
    for mine, other in zip(floating(network.module(result.state.theta_P)), floating(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_goes_to_a_module_and_back(name, dtype):
    network = VARIANTS[name]
    theta_P = random_theta(network, dtype)
    module = network.module(theta_P)
    assert theta_P.dtype == dtype == next(module.parameters()).dtype and not module.training
    assert torch.equal(module.to_vector(network), theta_P)
    module.output.weight.data.zero_()
    assert theta_P[network.slots["output.weight"].start] != 0, "the module must not share the row's memory"


def test_a_module_of_another_network_is_told_by_its_shapes():
    module = BASE.module(random_theta(BASE))
    with pytest.raises(LookupError, match="another shape"):
        module.to_vector(replace(BASE, channels=(4, 6)))


def test_slots_follow_each_other_weights_first_and_statistics_last():
    network = VARIANTS["residual"]
    stop = 0
    for slot in network.slots.values():
        assert slot.start == stop
        stop = slot.stop
    assert stop <= network.n_parameters < stop + 16
    names = list(network.slots)
    is_weight = [len(slot.shape) > 1 for slot in network.slots.values()]
    n_weights = sum(is_weight)
    assert all(is_weight[:n_weights])
    assert network.n_weights == network.slots[names[n_weights]].start
    is_running = ["running" in name for name in names]
    assert is_running == sorted(is_running) and sum(is_running) == 2 * 4


def test_initial_numbers_follow_he_and_the_state_of_a_fresh_normalisation():
    network = replace(BASE, channels=(64, 64))
    module = network.module(network.initial(torch.Generator().manual_seed(0), torch.float64))
    convolution = module.extractor[1][0].weight
    assert convolution.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all() and (part.bias == 0).all()
            assert (part.running_mean == 0).all() and (part.running_var == 1).all()
        if isinstance(part, nn.Linear):
            assert (part.bias == 0).all()


def test_initial_numbers_depend_on_the_generator_alone():
    torch.manual_seed(1)
    one = BASE.initial(torch.Generator().manual_seed(3), torch.float32)
    torch.manual_seed(2)
    assert torch.equal(one, BASE.initial(torch.Generator().manual_seed(3), torch.float32))
    assert not torch.equal(one, BASE.initial(torch.Generator().manual_seed(4), torch.float32))


AUGMENTED = replace(
    BASE,
    augmentation=Augmentation(shift=0.2, rotation=20, zoom=0.2, flip=True, cutout=0.3, mixup=0.4),
)


def test_training_draws_from_its_generator_and_moves_no_global_state():
    theta_P, pixels = random_theta(AUGMENTED), make_pixels(AUGMENTED)
    torch.manual_seed(5)
    np.random.seed(5)
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    outputs = []
    for seed in (0, 0, 1):
        # Another global state, where outputs must not come from.
        stack, _ = stacked(AUGMENTED, theta_P.clone())
        output, tape = stack.forward(pixels[None], None, draws(AUGMENTED, seed, dropout=0.5))
        stack.backward(torch.ones_like(output), tape)
        outputs.append(output)
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_dropout_keeps_the_given_share_and_scales_what_is_left():
    layer = Dropout()
    layer.draws = Draws([torch.Generator().manual_seed(0)], [0.25], [400])
    out = layer.train()(torch.ones(400, 100))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(layer.eval()(torch.ones(3, 1)), torch.ones(3, 1))


def test_dropout_of_a_fitted_module_is_that_of_the_training():
    module = BASE.module(random_theta(BASE), dropout=0.3)
    assert {part.p for part in module.modules() if isinstance(part, Dropout)} == {0.3}


def test_dropout_reaches_the_dense_layers_of_a_training_step():
    theta_P, pixels = random_theta(BASE), make_pixels(BASE)
    stack, _ = stacked(BASE, theta_P)
    first, _ = stack.forward(pixels[None], None, draws(BASE, dropout=0.5))
    second, _ = stack.forward(pixels[None], None, draws(BASE, dropout=0.0))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 1), (1, 2, 3)])
@pytest.mark.parametrize("normalization", ["batch", "layer", None])
def test_a_batch_of_one_row_is_trained_on(shape, normalization):
    n = shape[2]
    channels = (3,) if shape[:2] == (1, 1) else (3, 3)
    network = replace(
        BASE, image_shape=shape, channels=channels, normalization=normalization, mean=(0.0,) * n, scale=(1.0,) * n
    )
    theta_P = random_theta(network)
    before = theta_P.clone()
    stack, grad_P = stacked(network, theta_P)
    output, tape = stack.forward(make_pixels(network, 1)[None], None, draws(network))
    stack.backward(torch.ones_like(output), tape)
    assert output.isfinite().all() and grad_P.isfinite().all() and (grad_P != 0).any()
    assert theta_P.isfinite().all()
    if shape == (1, 1, 1):
        assert torch.equal(theta_P, before), "one value has no variance to take up"


def test_batch_normalisation_of_a_single_value_takes_the_running_statistics():
    layer = BatchNorm2d(2).train()
    layer.running_mean.copy_(torch.tensor([1.0, 2.0]))
    layer.running_var.copy_(torch.tensor([4.0, 9.0]))
    out = layer(torch.tensor([3.0, 8.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, 2.0]), rtol=1e-4, atol=1e-5)


def test_a_change_of_the_row_is_a_change_of_the_module():
    theta_P, pixels = random_theta(BASE), make_pixels(BASE)
    stack, _ = stacked(BASE, theta_P)
    theta_P += 0.01 * torch.sin(torch.arange(len(theta_P), dtype=torch.float64))
    expected = twin(BASE, theta_P).eval()(standardized(BASE, pixels)).detach()
    torch.testing.assert_close(stack.predict(pixels[None])[0].t(), expected, rtol=1e-9, atol=1e-9)


def test_the_template_stays_as_it_is():
    network = replace(BASE)
    for parameter in network.template.parameters():
        parameter.data.fill_(3)
    before = copy.deepcopy(network.template.state_dict())
    stack, _ = stacked(network, random_theta(network))
    output, tape = stack.forward(make_pixels(network)[None], None, draws(network))
    stack.backward(torch.ones_like(output), tape)
    for name, value in network.template.state_dict().items():
        assert torch.equal(value, before[name])


def test_mixup_trains_on_the_mixture_of_two_losses():
    network = replace(BASE, normalization=None, augmentation=Augmentation(mixup=0.9))
    pixels, target = make_pixels(network, 12), torch.arange(12) % 3
    start = random_theta(network)
    seen = []

    class Watched(CrossEntropy):
        # It is given the rows of the batch and no others.
        stackable = False

        def gradient(self, output, target, settings):
            seen.append(target.argmax(1))
            return super().gradient(output, target, settings)

    plan = Plan(network, Watched(), OptimizerKind("sgd", False), 12, dtype=torch.float64)
    job = Job(plan, Settings(learning_rate=0.1, momentum=0.0, max_epochs=1), Samples(DenseTable(pixels), target), 3)
    job.start = State(start.clone())
    (result,) = train([job])
    # The same draws once more, by hand.
    generator = Streams(3, "cpu").noise
    order = torch.randperm(12, generator=generator)
    share = torch.rand((), generator=generator, dtype=torch.float64) * 0.9
    theirs = twin(network, start)
    rows = {tuple(row.tolist()): i for i, row in enumerate(pixels)}
    assert len(rows) == 12
    # The order of the batch, from the labels that the loss was given.
    (own, other), images = (t.flatten() for t in seen), None
    assert torch.equal(own[order], other)
    shuffled = _batch_order(job, plan)
    images = standardized(network, pixels[shuffled])
    labels = target[shuffled]
    assert torch.equal(labels, own)
    output = theirs(torch.lerp(images, images[order], share))
    losses = F.cross_entropy(output, labels, reduction="none"), F.cross_entropy(output, labels[order], reduction="none")
    loss = ((1 - share) * losses[0] + share * losses[1]).mean()
    loss.backward()
    assert result.history[0].loss == pytest.approx(loss.item(), rel=1e-9)
    for mine, other in zip(network.module(result.state.theta_P).parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other - 0.1 * other.grad, rtol=1e-8, atol=1e-10)


# --- what a network of another kind has to say --------------------------------------------------------------------


class Sums(AutogradModule):
    """Dense layers on the running sums of a row, the smallest network that says what it must."""

    n_multiplications, n_layers, chunk_rows = 100, 3, 8

    def __init__(self, n_outputs):
        super().__init__()
        self.add_head(6, (4,), nn.Tanh, n_outputs)
        self.norm = nn.BatchNorm1d(6)

    def embed(self, x):
        return self.hidden(self.norm(x.cumsum(1)))

    def forward(self, x, codes=None):
        return self.output(self.embed(x))


@dataclass(frozen=True)
class SumsNetwork(AutogradArchitecture):
    n_outputs: int = 3
    label = "sums"

    def make(self):
        return Sums(self.n_outputs)

    def draw_initial(self, module, generator):
        for part in module.modules():
            draw_layer(part, generator, is_last=part is module.output)


SUMS = SumsNetwork()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_network_of_another_kind_trains_on_a_module_and_its_first_values(optimizer):
    network = SUMS
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = x.sum(1).gt(0).long()
    plan = Plan(network, CrossEntropy(), OptimizerKind(optimizer, False), 20, dtype=torch.float64)
    settings = Settings(learning_rate=0.05, max_epochs=20)
    (result,) = train([Job(plan, settings, Samples(DenseTable(x), target), 0)])
    assert result.error is None and result.history[-1].loss < 0.5 * result.history[0].loss
    module = network.module(result.state.theta_P)
    seen = module.embeddings(x)
    assert seen.shape == (40, 4) and not seen.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(module.output(seen), module.outputs(x))


@pytest.mark.parametrize("network", [BASE, VARIANTS["no hidden layer"], SUMS], ids=["conv", "lone", "sums"])
def test_the_output_layer_is_what_muon_leaves_out_and_what_sees_the_embedding(network):
    names = [name for name, slot in network.slots.items() if slot in network.matrices]
    weights = [name for name, parameter in network.template.named_parameters() if parameter.ndim > 1]
    assert names == [name for name in weights if name != "output.weight"] and "output.weight" in weights
    module, seen = network.module(random_theta(network)), []
    module.output.register_forward_pre_hook(lambda part, inputs: seen.append(inputs[0]))
    x = make_pixels(network) if network is not SUMS else torch.randn(5, 6, dtype=torch.float64)
    module.outputs(x)
    assert torch.equal(module.embeddings(x), seen[0]) and seen[0].shape[1] == module.output.in_features


def test_a_module_is_built_without_torchs_random_numbers():
    state = torch.random.get_rng_state()
    module = SUMS.build()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(value.device.type == "cpu" for value in module.state_dict().values())
    assert module.norm.running_mean.eq(0).all() and module.norm.num_batches_tracked == 0


def _batch_order(job, plan):
    """The order in which the engine draws the rows of the first epoch."""

    index = torch.arange(len(job.train), dtype=torch.float64).unsqueeze(1)
    samples = Samples(DenseTable(index), job.train.target)
    batches = Batches([samples], plan.batch_size, DeviceTables("cpu"), torch.float64)
    (batch,) = batches.epoch([Streams(job.seed, "cpu").shuffle])
    return batch.x_KBD[0, :, 0].long()
