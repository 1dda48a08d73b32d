"""Which pixels are of another unit than those of fit, and of which nothing can be told."""

from dataclasses import replace

import pytest

from skdl.data.images.pixel_range import PixelRange, check_unit


def bytes_of(low, high, n_images=100):
    return PixelRange(True, low, high, (low + high) / 2, True, n_images)


def floats_of(low, high, n_images=100, is_whole=False):
    return PixelRange(False, low, high, (low + high) / 2, is_whole, n_images)


@pytest.mark.parametrize(
    ("given", "fitted"),
    [
        (bytes_of(0, 255), floats_of(0, 1)),
        (bytes_of(0, 30, n_images=1), floats_of(0, 1)),
        (bytes_of(255, 255, n_images=1), floats_of(0, 1)),
        (bytes_of(0, 255), floats_of(-2.1, 2.6)),
        (bytes_of(0, 255), floats_of(-1, 1)),
        (floats_of(0, 1), bytes_of(0, 255)),
        (floats_of(0, 0.3, n_images=1), bytes_of(0, 255)),
        (floats_of(-0.02, 1.03), bytes_of(0, 255)),
        (floats_of(-2.1, 2.6), bytes_of(0, 255)),
        (floats_of(0, 65535, is_whole=True), bytes_of(0, 255)),
        (floats_of(0, 1), bytes_of(0, 16)),
        # Bytes in another type.
        (floats_of(0, 255, is_whole=True), floats_of(0, 1)),
        (floats_of(0, 1), floats_of(0, 255, is_whole=True)),
        (floats_of(0, 65535, is_whole=True), floats_of(0, 255, is_whole=True)),
        (bytes_of(0, 255), floats_of(0, 65535, is_whole=True)),
        (bytes_of(90, 140, n_images=1), floats_of(0, 4095, is_whole=True)),
        (floats_of(90, 140, is_whole=True), floats_of(0, 4095, is_whole=True)),
    ],
)
def test_another_unit_is_refused_with_both_ranges(given, fitted):
    with pytest.raises(ValueError) as caught:
        check_unit(given, fitted)
    assert f"X has {given}, but the network was fitted on {fitted}. Scale X" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "fitted"),
    [
        # One kind, however far apart: what is trained on the one may be meant for the other.
        (floats_of(0, 1), floats_of(0, 255)),
        (bytes_of(0, 1), bytes_of(0, 255)),
        # One unit.
        (floats_of(0, 255), bytes_of(0, 255)),
        (bytes_of(0, 255), floats_of(0, 255)),
        (bytes_of(0, 255), floats_of(90, 120)),
        (floats_of(0, 250), bytes_of(0, 20)),
        (floats_of(0, 1), bytes_of(0, 1)),
        # Dark images, some of them noisy or smoothed.
        (floats_of(0, 1, is_whole=True), bytes_of(0, 255)),
        (floats_of(0, 8, n_images=1), bytes_of(0, 255)),
        (floats_of(-3, 4, n_images=1), bytes_of(0, 255)),
        (floats_of(0, 0.01), bytes_of(0, 255)),
        (bytes_of(0, 5), floats_of(0, 1)),
        # A dark image of more bits.
        (floats_of(90, 140, n_images=1, is_whole=True), floats_of(0, 4095, is_whole=True)),
        # Counts, of which a few are large.
        (floats_of(6, 49, is_whole=True), replace(floats_of(5, 5000, is_whole=True), mean=20.6)),
        (replace(floats_of(5, 5000, is_whole=True), mean=20.6), floats_of(6, 49, is_whole=True)),
        # Images of one colour.
        (bytes_of(0, 0), floats_of(0, 1)),
        (floats_of(0.5, 0.5), bytes_of(0, 255)),
        (floats_of(0, 1), bytes_of(7, 7)),
        # Few counts are no bytes.
        (floats_of(0, 1, is_whole=True), floats_of(0, 1)),
        (floats_of(0, 3000, is_whole=True), floats_of(0, 500)),
        (bytes_of(0, 255), floats_of(0, 255, is_whole=True)),
        (bytes_of(0, 255), floats_of(1, 1)),
    ],
)
def test_where_nothing_can_be_told_nothing_is_said(given, fitted):
    check_unit(given, fitted)
