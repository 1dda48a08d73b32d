"""The range of pixels, and whether that of other images is of the same unit.

Pixels of 8 bits go from 0 to 255, and floats go from 0 to 1, from 0 to 255, or are standardised. Means and deviations
cannot tell a single dark image from one that was divided by 255; from where to where pixels go mostly can.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Largest pixel of 8 bits.
MAX_BYTE = 255.0
#: A unit is another one from this factor between the widths of two ranges on.
OTHER_UNIT = 8.0
#: Largest number of an image whose white is 1, with what resampling adds at edges.
MAX_PIXEL_SHARE = 1.25
#: Fewest images whose range tells the unit: negative numbers say that pixels were standardised, and small ones that
#: they have 8 bits. A single image may be dark and noisy.
MIN_TELLING_IMAGES = 10


@dataclass(frozen=True)
class PixelRange:
    """From where to where the pixels of so many images go, their mean, and of which kind they are."""

    is_8_bit: bool
    low: float
    high: float
    mean: float
    is_whole: bool
    n_images: int

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def is_byte(self) -> bool:
        """Whether they are whole numbers of 0 to 255. Of zeros and ones of other types than 8 bits nobody knows."""
        return self.is_8_bit or (self.is_whole and self.low >= 0 and 1 < self.high <= MAX_BYTE)

    def __str__(self) -> str:
        kind = "pixels of 8 bits" if self.is_8_bit else "whole numbers" if self.is_whole else "floats"
        return f"{kind} from {self.low:.3g} to {self.high:.3g} with a mean of {self.mean:.3g}"


def check_unit(given: PixelRange, fitted: PixelRange) -> None:
    """Refuse whole numbers of 0 to 255 where numbers of another unit were fitted on, and the other way round.

    Nothing is said of dark images and floats of one value, which may be of either unit, and of floats beside floats.

    Raises
    ------
    ValueError
        With the ranges and means of both, and the remedy.
    """
    if given.is_byte == fitted.is_byte or not fitted.width:
        return
    if given.is_byte and _is_beyond(given, fitted.low, fitted.high):
        remedy = "Scale X as the images of fit: by X / 255, if they were divided by 255."
    elif _tells_bytes(given) and fitted.is_whole and _has_other_unit(fitted, given):
        remedy = "Scale X as the images of fit: by X.astype(float) * 257, if they have 16 bits."
    elif not given.is_byte and (_is_scaled(given, fitted) or _has_other_unit(given, fitted)):
        remedy = (
            "Scale X as the images of fit: by X * 255, if it was divided by 255. Where it is in their unit already, "
            "pass X.astype(np.uint8)."
        )
    else:
        return
    raise ValueError(f"X has {given}, but the network was fitted on {fitted}. {remedy}")


def _tells_bytes(given: PixelRange) -> bool:
    """Whether pixels are of 8 bits by their type, or by many images: a few may be dark ones of more bits."""
    return given.is_8_bit or (given.is_byte and given.n_images >= MIN_TELLING_IMAGES)


def _has_other_unit(pixels: PixelRange, of_bytes: PixelRange) -> bool:
    """Whether pixels are larger than those of 8 bits, and not for a few bright ones alone."""
    return _is_beyond(pixels, 0.0, MAX_BYTE) and pixels.mean > OTHER_UNIT * of_bytes.mean


def _is_beyond(given: PixelRange, low: float, high: float) -> bool:
    """Whether pixels are larger than any of this range's unit."""
    return given.high > high + OTHER_UNIT * (high - low)


def _is_scaled(given: PixelRange, fitted: PixelRange) -> bool:
    """Whether floats are what pixels of 8 bits become that are divided by 255, or standardised."""
    if given.width * OTHER_UNIT > fitted.width or given.width * MAX_BYTE * OTHER_UNIT < fitted.width:
        return False
    # Dark pixels of 8 bits are whole numbers, as floats too.
    is_share = given.low >= -1 and given.high <= MAX_PIXEL_SHARE and not given.is_whole
    # Resampling leaves numbers a little below zero.
    is_standardised = given.low < -given.width / OTHER_UNIT and given.n_images >= MIN_TELLING_IMAGES
    return is_share or is_standardised
