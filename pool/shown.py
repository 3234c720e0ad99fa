"""A decoded picture → RGB as a viewer shows it: turned as its EXIF says, transparent parts on a ground, deep values scaled.

PIL's `convert("RGB")` alone, which the published code does, clips 16 bits at 255 (white), drops transparency (what lies
under it shows) and leaves a phone's photograph on its side; `pictures: published` is that.
"""

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
        seen = picture.convert("RGBA")
        ground = Image.new("RGBA", seen.size, (_FULL[pictures],) * 3 + (255,))
        return Image.alpha_composite(ground, seen).convert("RGB")
    return picture.convert("RGB")


def traits(picture: Image.Image) -> tuple[str, ...]:
    """Return the keys of `TRAITS` that hold of a loaded picture."""
    found = {
        "deep_picture": is_deep(picture),
        "transparent_picture": picture.has_transparency_data and _lowest_alpha(picture) < 255,
        "rotated_picture": is_turned(picture),
        "animated_picture": _has_frames(picture),
        "colour_profile": b"sRGB" not in (picture.info.get("icc_profile") or b"sRGB"),
    }
    return tuple(name for name, holds in found.items() if holds)


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


def _lowest_alpha(picture: Image.Image) -> int:
    low: Any = picture.convert("RGBA").getchannel("A").getextrema()
    return int(low[0])


def _from_deep(picture: Image.Image, ground: int) -> Image.Image:
    values_HW = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values_HW).all():
        raise UnshownError("a float picture with NaN or infinite values has no brightness to show")
    low, high = _span(picture.mode, values_HW)
    u8_HW = np.rint((values_HW - low) * (255 / (high - low or 1))).clip(0, 255).astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        u8_HW[values_HW == clear] = ground
    return Image.fromarray(u8_HW).convert("RGB")


def _span(mode: str, values_HW: np.ndarray[Any, Any]) -> tuple[float, float]:
    low, high = (float(values_HW.min()), float(values_HW.max())) if values_HW.size else (0.0, 1.0)
    if mode == "F":
        return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    if mode != "I" or (low >= 0 and 255 < high <= 65535):
        return 0.0, 65535.0
    return (0.0, 255.0) if low >= 0 and high <= 255 else (low, high)
