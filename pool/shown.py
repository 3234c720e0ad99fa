"""A decoded picture → RGB as a viewer shows it: turned as its EXIF says, transparent parts on a ground, deep values scaled.

PIL's `convert("RGB")` alone, which the published code does, clips 16 bits at 255 (white), drops transparency (what lies
under it shows) and leaves a phone's photograph on its side; `pictures: published` is that.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

Pictures = Literal["white", "black", "published"]
PICTURES = ("white", "black", "published")
# what a viewer's picture differs in from PIL's plain conversion, and what a reader of counts is told
TRAITS = {
    "deep_picture": "more than 8 bits a value: scaled to 8, not clipped",
    "transparent_picture": "parts are transparent: shown on the ground that `pictures` names",
    "rotated_picture": "turned as its EXIF orientation says",
    "animated_picture": "several frames or pages: the first one is shown",
    "colour_profile": "an ICC profile other than sRGB, which nobody applies",
}
_DEEP = ("I", "F")
_FULL = {"white": 255, "black": 0}
# pixels that are converted at a time: on the way to RGB a pixel takes up to 40 bytes
_STRIP = 1 << 22
# what a damaged EXIF block raises; the picture itself may be sound
_NO_EXIF = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


class UnshownError(ValueError):
    """The picture's values cannot be shown: none of them is a number, say."""


def show(picture: Image.Image, pictures: Pictures = "white") -> Image.Image:
    """Return a loaded picture in RGB.

    16-bit values are scaled by 65,535. 32-bit integers and floats by what they span: 0 to 1 and 0 to 65,535 are taken as
    they are, anything else from its least to its largest value.

    Raises:
        UnshownError: a float picture holds NaN or infinity.
        ValueError: PIL knows no RGB for the mode (LAB, say).
    """
    if pictures == "published":
        return picture.convert("RGB")
    if is_turned(picture):
        picture = ImageOps.exif_transpose(picture)
    if is_deep(picture):
        return _from_deep(picture, _FULL[pictures])
    if picture.has_transparency_data:
        return _on_ground(picture, _FULL[pictures])
    return picture.convert("RGB")


def traits(picture: Image.Image) -> tuple[str, ...]:
    """Return the keys of `TRAITS` that hold of a loaded picture."""
    holds_of = {
        "deep_picture": is_deep(picture),
        "transparent_picture": picture.has_transparency_data and _lowest_alpha(picture) < 255,
        "rotated_picture": is_turned(picture),
        "animated_picture": _has_frames(picture),
        "colour_profile": b"sRGB" not in (picture.info.get("icc_profile") or b"sRGB"),
    }
    return tuple(name for name, holds in holds_of.items() if holds)


def is_deep(picture: Image.Image) -> bool:
    """Say whether values have more than 8 bits (PIL has RGB with 8 alone, and takes the high byte of 16 itself)."""
    return picture.mode in _DEEP or picture.mode.startswith("I;16")


def is_turned(picture: Image.Image) -> bool:
    """Say whether EXIF turns or mirrors the picture."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except _NO_EXIF:
        return False


def _has_frames(picture: Image.Image) -> bool:
    try:  # an MPO's other frames are previews of the first
        return bool(getattr(picture, "is_animated", False)) and picture.format != "MPO"
    except (*_NO_EXIF, EOFError):
        return False


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield a picture in strips of whole rows, each with the number of its first row; a small one as it is."""
    width, height = picture.size
    rows = max(1, _STRIP // max(1, width))
    if rows >= height:
        yield 0, picture
        return
    for top in range(0, height, rows):
        yield top, picture.crop((0, top, width, min(top + rows, height)))


def _lowest_alpha(picture: Image.Image) -> int:
    lows: list[Any] = [strip.convert("RGBA").getchannel("A").getextrema() for _, strip in _strips(picture)]
    return min(int(low[0]) for low in lows)


def _on_ground(picture: Image.Image, value: int) -> Image.Image:
    rgb = Image.new("RGB", picture.size)
    for top, strip in _strips(picture):
        seen = strip.convert("RGBA")
        ground = Image.new("RGBA", seen.size, (value,) * 3 + (255,))
        rgb.paste(Image.alpha_composite(ground, seen).convert("RGB"), (0, top))
    return rgb


def _from_deep(picture: Image.Image, ground: int) -> Image.Image:
    low, high = _span(picture)
    clear = picture.info.get("transparency")
    grey = Image.new("L", picture.size)
    for top, strip in _strips(picture):
        values_HW = np.asarray(strip).astype(np.float64)
        u8_HW = np.rint((values_HW - low) * (255 / (high - low or 1))).clip(0, 255).astype(np.uint8)
        if isinstance(clear, int):
            u8_HW[values_HW == clear] = ground
        grey.paste(Image.fromarray(u8_HW), (0, top))
    return grey.convert("RGB")


def _span(picture: Image.Image) -> tuple[float, float]:
    """Return which values are black and white."""
    low, high = 0.0, 1.0
    for top, strip in _strips(picture):
        values_HW = np.asarray(strip)
        if not np.isfinite(values_HW).all():
            raise UnshownError("a float picture with NaN or infinite values has no brightness to show")
        if values_HW.size:
            least, most = float(values_HW.min()), float(values_HW.max())
            low, high = (min(low, least), max(high, most)) if top else (least, most)
    if picture.mode == "F":
        return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    if picture.mode != "I" or (low >= 0 and 255 < high <= 65535):
        return 0.0, 65535.0
    return (0.0, 255.0) if low >= 0 and high <= 255 else (low, high)
