"""Heat maps of networks whose answers are known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdl.nn import explain
from skdl.nn.explain import EXPLANATIONS, gradcam, integrated_gradients, occlusion


class Network(nn.Module):
    """A head on feature maps."""

    def __init__(self, features, head):
        super().__init__()
        self.features, self.head = features, head
        self.requires_grad_(False).double().eval()

    def forward(self, x):
        return self.head(self.features(x))


class Corner(nn.Module):
    """The mean of the upper left quarter of the first feature map."""

    def forward(self, features):
        corner = features[:, 0, : features.shape[2] // 2, : features.shape[3] // 2].mean(dim=(1, 2))
        return torch.stack([corner, -corner], dim=1)


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return Network(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 5, 3)))


@pytest.fixture
def convolutional():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    head = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 4 * 3, 16), nn.Tanh(), nn.Linear(16, 3))
    return Network(features, head)


def weights(linear, target):
    return linear.head[1].weight[target].view(-1, 2, 6, 5)


TARGET = torch.tensor([0, 2, 1, 2])


# --- known answers ---------------------------------------------------------------------------------------------------


def test_integrated_gradients_of_a_linear_network_are_weights_times_inputs(linear):
    x = images(4, 2, 6, 5)
    expected = (weights(linear, TARGET) * x).sum(dim=1)
    torch.testing.assert_close(integrated_gradients(linear, x, TARGET, n_steps=1), expected)
    baseline = images(1, 2, 6, 5) + 1
    expected = (weights(linear, TARGET) * (x - baseline)).sum(dim=1)
    torch.testing.assert_close(integrated_gradients(linear, x, TARGET, baseline=baseline), expected)


def test_integrated_gradients_sum_to_the_difference_where_each_image_is_normalised():
    torch.manual_seed(0)
    norm = nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.GroupNorm(1, 8), nn.ReLU())
    module = Network(norm, nn.Sequential(nn.Flatten(), nn.Linear(8 * 4 * 3, 3))).double()
    x = images(4, 2, 6, 5)
    difference = (module(x) - module(torch.zeros_like(x))).gather(1, TARGET[:, None])[:, 0]
    found = integrated_gradients(module, x, TARGET).sum(dim=(1, 2))
    torch.testing.assert_close(found, difference, atol=0.2 * float(difference.abs().max()), rtol=0)


def test_occlusion_of_a_linear_network_by_single_pixels_is_weights_times_inputs(linear):
    x = images(4, 2, 6, 5)
    expected = (weights(linear, TARGET) * x).sum(dim=1)
    torch.testing.assert_close(occlusion(linear, x, TARGET, patch=1), expected)


@pytest.mark.parametrize(("patch", "stride"), [(2, 2), (3, 2), ((2, 3), (1, 3)), ((6, 1), None), (10, 10), (4, 3)])
def test_occlusion_is_the_mean_over_the_patches_that_cover_a_pixel(linear, patch, stride):
    x = images(4, 2, 6, 5)
    (ph, pw) = (min(p, s) for p, s in zip((patch, patch) if isinstance(patch, int) else patch, (6, 5), strict=True))
    sh, sw = (
        (max(ph // 2, 1), max(pw // 2, 1))
        if stride is None
        else ((min(stride, ph), min(stride, pw)) if isinstance(stride, int) else stride)
    )
    total, count = torch.zeros(4, 6, 5, dtype=torch.float64), torch.zeros(6, 5)
    for top in sorted({min(i, 6 - ph) for i in range(0, 6, sh)}):
        for left in sorted({min(j, 5 - pw) for j in range(0, 5, sw)}):
            hidden = x.clone()
            hidden[:, :, top : top + ph, left : left + pw] = 0
            fall = (linear(x) - linear(hidden))[torch.arange(4), TARGET]
            total[:, top : top + ph, left : left + pw] += fall[:, None, None]
            count[top : top + ph, left : left + pw] += 1
    torch.testing.assert_close(occlusion(linear, x, TARGET, patch, (sh, sw)), total / count)


def test_gradcam_is_the_positive_part_of_weighted_feature_maps():
    torch.manual_seed(0)
    module = Network(nn.Conv2d(1, 4, 3), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    x = images(4, 1, 8, 9)
    maps = module.features(x)
    # Under a mean over the pixels, every pixel of a map has the slope of the map's weight over their number.
    cam = torch.einsum("bfhw,bf->bhw", maps, module.head[2].weight[TARGET] / (6 * 7)).relu()
    expected = F.interpolate(cam[:, None], (8, 9), mode="bilinear", align_corners=False)[:, 0]
    assert expected.max() > 0
    torch.testing.assert_close(gradcam(module, x, TARGET), expected)


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_a_network_that_looks_at_one_corner(method):
    module = Network(nn.Identity(), Corner())
    x = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    x[:, :, :8, :8] = 3.0
    x[:, :, 8:, 8:] = -3.0
    maps = EXPLANATIONS[method](module, x, torch.tensor([0, 0]))
    assert maps.shape == (2, 16, 16)
    inside, outside = maps[:, :8, :8], maps.clone()
    # Patches may reach over the edge of the corner by less than their width.
    outside[:, :9, :9] = 0
    assert inside.min() > 0 and outside.abs().max() < 1e-12
    if method != "gradcam":
        # The other output is the same with the other sign.
        torch.testing.assert_close(EXPLANATIONS[method](module, x, torch.tensor([1, 0]))[0], -maps[0])


# --- invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [None, 0.7])
def test_integrated_gradients_sum_to_the_difference_of_outputs(convolutional, shift):
    x = images(4, 2, 8, 6)
    baseline = torch.zeros_like(x) if shift is None else torch.full_like(x[:1], shift)
    difference = (convolutional(x) - convolutional(baseline))[torch.arange(4), TARGET]
    total = integrated_gradients(convolutional, x, TARGET, 1000, None if shift is None else baseline).sum(dim=(1, 2))
    assert 0 < (total - difference).norm() < 1e-3 * difference.norm()


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_maps_do_not_depend_on_the_chunks_or_on_the_company(convolutional, method, monkeypatch):
    x = images(4, 2, 8, 6)
    together = EXPLANATIONS[method](convolutional, x, TARGET)
    alone = torch.cat([EXPLANATIONS[method](convolutional, x[i : i + 1], TARGET[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, together)
    largest = []
    convolutional.features.register_forward_hook(lambda module, inputs, output: largest.append(len(inputs[0])))
    monkeypatch.setattr(explain, "CHUNK_NUMBERS", 3 * 96)
    torch.testing.assert_close(EXPLANATIONS[method](convolutional, x, TARGET), together)
    assert max(largest) == 3


@pytest.mark.parametrize("method", EXPLANATIONS)
@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_and_the_images_stay_as_they_were(convolutional, method, trains, dtype):
    module = convolutional.to(dtype).requires_grad_(trains)
    x = images(3, 2, 8, 6).to(dtype)
    before, numbers = x.clone(), [p.clone() for p in module.state_dict().values()]
    with torch.no_grad():
        maps = EXPLANATIONS[method](module, x, TARGET[:3])
    assert maps.dtype == dtype and not maps.requires_grad and torch.isfinite(maps).all()
    assert torch.equal(x, before) and not x.requires_grad
    assert all(torch.equal(p, q) for p, q in zip(module.state_dict().values(), numbers, strict=True))
    assert all(p.grad is None and p.requires_grad == trains for p in module.parameters())


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_signals_are_images_of_one_row(method):
    torch.manual_seed(0)
    module = Network(nn.Conv2d(1, 3, (1, 3), padding=(0, 1)), nn.Sequential(nn.Flatten(), nn.Linear(3 * 20, 3)))
    maps = EXPLANATIONS[method](module, images(4, 1, 1, 20), TARGET)
    assert maps.shape == (4, 1, 20) and torch.isfinite(maps).all() and maps.abs().max() > 0


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_no_images_have_no_maps(convolutional, method):
    assert EXPLANATIONS[method](convolutional, images(0, 2, 8, 6), TARGET[:0]).shape == (0, 8, 6)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_no_steps_are_refused(linear):
    with pytest.raises(ValueError, match=r"n_steps must be at least 1\. Got 0"):
        integrated_gradients(linear, images(4, 2, 6, 5), TARGET, n_steps=0)


@pytest.mark.parametrize(("patch", "stride"), [(0, 1), (2, 0), (2, 3), ((2, 3), (3, 3))])
def test_patches_that_leave_pixels_out_are_refused(linear, patch, stride):
    with pytest.raises(ValueError, match="patch and stride must be at least 1"):
        occlusion(linear, images(4, 2, 6, 5), TARGET, patch, stride)
