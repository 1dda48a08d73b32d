import threading

import numpy as np
import pytest
import torch
from torch import nn

from skdl.nn.activations import ACTIVATIONS, get_activation


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation__when_named__then_value_and_slope_are_those_of_its_module(name):
    activation = ACTIVATIONS[name]
    z = torch.linspace(-4, 4, 41, dtype=torch.float64).view(1, 41, 1)
    grad = torch.linspace(1, 2, 41, dtype=torch.float64).view(1, 41, 1)
    leaf = z.clone().requires_grad_()
    expected = activation.module()(leaf)
    (expected_grad,) = torch.autograd.grad(expected, leaf, grad)
    given = z.clone()
    h = activation.forward(given)
    torch.testing.assert_close(h, expected.detach())
    torch.testing.assert_close(activation.backward(grad, given, h), expected_grad)


@pytest.mark.parametrize("activation", [torch.sin, nn.Hardswish, lambda z: z.clamp(-1, 1)])
def test_activation__when_callable__then_torch_differentiates_it(activation):
    z = torch.linspace(-4.1, 4, 41, dtype=torch.float64).view(1, 41, 1)
    leaf = z.clone().requires_grad_()
    expected = (activation() if isinstance(activation, type) else activation)(leaf)
    (expected_grad,) = torch.autograd.grad(expected.sum(), leaf)
    own = get_activation(activation)
    given = z.clone()
    h = own.forward(given)
    torch.testing.assert_close(h.detach(), expected.detach())
    torch.testing.assert_close(own.backward(torch.ones_like(z), given, h), expected_grad)
    assert not own.stackable


def test_get_activation__when_module_has_parameters__then_refused():
    with pytest.raises(ValueError, match="activation=PReLU has parameters of its own"):
        get_activation(nn.PReLU)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: z * torch.rand_like(z), "draws random numbers"),
        (nn.RReLU, "draws random numbers"),
        (lambda z: z - z.mean(), "depend on the other rows"),
        (lambda z: torch.softmax(z, 0), "depend on the other rows"),
        (lambda z: nn.functional.dropout(torch.relu(z), 0.01), "draws random numbers"),
        (lambda z: torch.relu(z - z[..., :1, :]), "depend on the other rows"),
        (lambda z: z / z.abs().max(), "depend on the other rows"),
    ],
)
def test_get_activation__when_outputs_depend_on_more_than_the_row__then_refused(function, message):
    with pytest.raises(ValueError, match=message):
        get_activation(function)


def test_get_activation__when_another_thread_draws_random_numbers__then_taken():
    ends = threading.Event()

    def draw():
        while not ends.is_set():
            torch.rand(10)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(30):
            get_activation(nn.Hardswish)
    finally:
        ends.set()
        thread.join()


def of_images(z):
    """Each feature map over its root mean square."""
    return z * (z.square().mean(dim=(-2, -1), keepdim=True) + 1).rsqrt()


def test_get_activation__when_it_is_of_images__then_they_are_what_it_is_tried_on():
    assert get_activation(of_images, axes=(4,)).name == "of_images"
    with pytest.raises(ValueError, match="depend on the other rows"):
        get_activation(lambda z: torch.relu(z - z.mean((0, 2, 3), keepdim=True)), axes=(4,))


@pytest.mark.parametrize(
    "function", [torch.sin, torch.sqrt, lambda z: torch.softmax(z, -1), nn.Hardswish, nn.Softmax2d]
)
def test_get_activation__when_outputs_depend_on_the_row__then_taken(function):
    state = torch.get_rng_state()
    assert not get_activation(function).stackable
    assert torch.equal(torch.get_rng_state(), state)


def test_get_activation__when_module_instance__then_refused():
    with pytest.raises(ValueError, match="must be a module class"):
        get_activation(nn.Hardswish())


@pytest.mark.parametrize("function", [lambda z: z.sum(), lambda z: z[:1], lambda z: "no tensor"])
@pytest.mark.parametrize(("axes", "shape"), [((2,), r"\(4, 1024\)"), ((4,), r"\(4, 64, 4, 4\)")])
def test_get_activation__when_shape_is_not_kept__then_error_names_the_shape(function, axes, shape):
    with pytest.raises(ValueError, match=f"must return a tensor of the shape it was given, {shape}"):
        get_activation(function, axes)


@pytest.mark.parametrize("axes", [(2,), (4,)])
def test_get_activation__when_it_has_no_gradient__then_refused(axes):
    with pytest.raises(ValueError, match="does not depend on the one it was given"):
        get_activation(lambda z: z.detach().relu(), axes)
    with pytest.raises(ValueError, match="must be a function of torch tensors"):
        get_activation(lambda z: torch.as_tensor(np.maximum(z.numpy(), 0)), axes)


def test_activation__when_it_takes_few_shapes__then_tried_where_it_is_trained():
    slopes = torch.ones(2)

    activation = get_activation(lambda z: (z * slopes)[:1])

    with pytest.raises(ValueError, match=r"must return a tensor of the shape it was given, \(3, 2\)"):
        activation.forward(torch.ones(1, 3, 2))


class Leaky(nn.Module):
    """With a slope that is a buffer, and one that is a plain tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("slope", torch.tensor(0.2))
        self.plain = torch.tensor(0.2)

    def forward(self, z):
        return torch.where(z > 0, z, z * (self.slope + self.plain) / 2)


def test_activation__when_module_has_buffers__then_they_have_their_values_among_new_layers():
    leaky = get_activation(Leaky, (4,))

    with torch.device("meta"):
        made = leaky.module()

    assert made.slope == made.plain == torch.tensor(0.2)
