"""Augmentation on images whose pixels are known."""

import math

import pytest
import torch

from skdl.nn.augment import Augmentation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ramp(n=60, height=20, width=30):
    """Images whose two channels are the row and the column of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).double().expand(n, -1, -1, -1).clone()


def test_no_augmentation_is_the_identity():
    x, none = ramp(4), Augmentation()
    assert none.move(x, seeded()) is x and none.cut(x, seeded()) is x
    mixed, mixing = none.mix(x, seeded())
    assert mixed is x and mixing is None and none.settings() == {}


def test_settings_name_what_is_done():
    assert Augmentation(shift=0.1, flip=True).settings() == {"shift": 0.1, "flip": True}


def test_a_flip_mirrors_about_half_of_the_images():
    x = ramp(200)
    moved = Augmentation(flip=True).move(x, seeded())
    kept = (moved - x).abs().amax((1, 2, 3)) < 1e-9
    mirrored = (moved - x.flip(3)).abs().amax((1, 2, 3)) < 1e-9
    assert (kept ^ mirrored).all() and 60 < kept.sum() < 140


def test_a_shift_moves_all_pixels_of_an_image_by_the_same_way():
    x = ramp()
    way = (Augmentation(shift=0.2).move(x, seeded()) - x)[:, :, 6:14, 8:22]
    assert way.std((2, 3)).max() < 1e-9
    down, right = way[:, 0, 0, 0], way[:, 1, 0, 0]
    for shift, most in ((down, 0.2 * 20), (right, 0.2 * 30)):
        assert shift.abs().max() <= most + 1e-9 and shift.min() < -most / 2 and shift.max() > most / 2


def test_pixels_that_come_in_repeat_the_border():
    moved = Augmentation(shift=0.3).move(ramp(), seeded())
    assert moved[:, 0].min() >= 0 and moved[:, 0].max() <= 19 and moved[:, 1].max() <= 29


def test_a_zoom_stretches_about_the_centre():
    x = ramp()
    moved = Augmentation(zoom=0.25).move(x, seeded())[:, :, 4:16, 6:24]
    factor = moved[:, 0, 1, 0] - moved[:, 0, 0, 0]
    assert 0.75 <= factor.min() < 0.85 and 1.15 < factor.max() <= 1.25
    torch.testing.assert_close(moved[:, 1, 0, 1] - moved[:, 1, 0, 0], factor)
    torch.testing.assert_close(moved[:, 0, 5:7].mean((1, 2)), torch.full((60,), 9.5, dtype=torch.float64))


def test_a_rotation_keeps_lengths_whatever_the_shape():
    moved = Augmentation(rotation=30).move(ramp(height=20, width=40), seeded())[:, :, 8:12, 17:23]
    down, right = moved[:, :, 1, 0] - moved[:, :, 0, 0], moved[:, :, 0, 1] - moved[:, :, 0, 0]
    torch.testing.assert_close(down.norm(dim=1), torch.ones(60).double())
    torch.testing.assert_close(right.norm(dim=1), torch.ones(60).double())
    torch.testing.assert_close((down * right).sum(1), torch.zeros(60).double(), atol=1e-9, rtol=0)
    angle = torch.atan2(right[:, 0], right[:, 1])
    assert angle.abs().max() <= math.radians(30) and angle.min() < -0.2 and angle.max() > 0.2


def test_images_are_moved_alike_if_asked():
    augmentation, x = Augmentation(shift=0.2, rotation=20, zoom=0.2, flip=True), ramp(5)
    alike = augmentation.move(x, seeded(), alike=True)
    assert all(torch.equal(image, alike[0]) for image in alike) and not torch.allclose(alike, x)
    assert not torch.allclose(*augmentation.move(x, seeded())[:2])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_cutout_blanks_one_square_and_nothing_else(share):
    x = torch.ones(3000, 3, 10, 20)
    cut = Augmentation(cutout=share).cut(x, seeded())
    assert (x == 1).all() and set(cut.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(cut[:, 0], cut[:, 1])
    blank = cut[:, 0] == 0
    rows, columns = blank.any(2), blank.any(1)
    assert torch.equal(blank, rows[:, :, None] & columns[:, None, :])
    assert rows.sum(1).max() == round(share * 10) and columns.sum(1).max() == round(share * 20)
    assert blank.any((1, 2)).all()
    # Every pixel is as often cut, those of the border too.
    often = blank.double().mean(0)
    assert often.std() < 0.35 * often.mean()


def test_mixup_mixes_with_the_named_image():
    x = ramp(8) + torch.arange(8.0).view(-1, 1, 1, 1) * 100
    for seed in range(20):
        mixed, (order, share) = Augmentation(mixup=0.4).mix(x, seeded(seed))
        assert 0 <= share <= 0.4 and sorted(order.tolist()) == list(range(8))
        torch.testing.assert_close(mixed, (1 - share) * x + share * x[order])


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_of_it_on_thin_images(shape, dtype):
    augmentation = Augmentation(shift=0.3, rotation=90, zoom=0.5, flip=True, cutout=0.5, mixup=1)
    x = torch.randn(6, 2, *shape, dtype=dtype)
    out, _ = augmentation.mix(augmentation.cut(augmentation.move(x, seeded()), seeded()), seeded())
    assert out.shape == x.shape and out.dtype == dtype and out.isfinite().all()
