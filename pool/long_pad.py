"""A long picture, padded to a square and resized, without the square: what PIL would give, in the picture's own memory.

A page of 1,000 × 30,000 pixels would be padded to 900 million. Resampling is linear and goes by axes, and padding is one
colour: each output value is the sum over the picture's own pixels, and the rest of the weights times that colour. PIL's
integer arithmetic is repeated to the bit (Pillow, `src/libImaging/Resample.c`: 22-bit weights, bicubic with a = -0.5,
horizontal pass first, 8 bits between the passes).
Axes: L pixels of the picture along the padded axis, T output pixels, R other rows, C colours.
"""

import math

import numpy as np
from PIL import Image

from ..store.arrays import Array

BITS = 22
# rows worked on at a time
STRIP = 1 << 20


def is_long(size: tuple[int, int]) -> bool:
    """Say whether the padded square would be more than four times the picture, and more than four million pixels."""
    width, height = size
    side = max(size)
    return side * side > max(4 * width * height, 4_000_000)


def pad_and_resize(picture: Image.Image, side: int, colour: tuple[int, int, int]) -> Array:
    """Return an RGB picture padded to a square with `colour` and resized to `side` by bicubic, uint8 [side, side, 3]."""
    width, height = picture.size
    square = max(width, height)
    before = (square - min(width, height)) // 2
    out = np.empty((side, side, 3), np.uint8)
    out[:] = colour
    weights_TL, rest_T, (first, last) = _weights(min(width, height), before, square, side)
    if last <= first:
        return out
    ground_C = np.array(colour, np.float64)
    if height > width:
        # the horizontal pass is the padded one; its rows are independent
        strips = range(0, height, max(1, STRIP // max(1, width)))
        bounds = [(top, min(height, top + strips.step)) for top in strips]
        resized = [_along(np.asarray(picture.crop((0, a, width, b))), weights_TL, rest_T, ground_C) for a, b in bounds]
        middle = Image.fromarray(np.concatenate(resized))
        out[:, first:last] = np.asarray(middle.resize((last - first, side), Image.Resampling.BICUBIC))
    else:
        narrow = np.asarray(picture.resize((side, height), Image.Resampling.BICUBIC))
        turned = _along(narrow.transpose(1, 0, 2), weights_TL, rest_T, ground_C)
        out[first:last] = turned.transpose(1, 0, 2)
    return out


def is_sliver(size: tuple[int, int], side: int) -> bool:
    """Say whether resizing the shorter side to `side` makes over four million pixels, of which a square is kept."""
    return side * side * max(size) > 4_000_000 * min(size)


def crop_and_resize(picture: Image.Image, side: int) -> Array:
    """Return the middle square of an RGB picture whose shorter side is resized to `side`, uint8 [side, side, 3].

    What resizing all of it and cropping then would show: PIL's box takes a part of the picture at the same scale. It may
    take its two passes in the other order, and then rounds (and clips noise) otherwise.
    """
    width, height = picture.size
    long = int(side * max(width, height) / min(width, height))
    begin = (long - side) // 2 * max(width, height) / long
    end = ((long - side) // 2 + side) * max(width, height) / long
    box = (0, begin, width, end) if height > width else (begin, 0, end, height)
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _along(pixels_RLC: Array, weights_TL: Array, rest_T: Array, ground_C: Array) -> Array:
    """Resample the second axis: exact in float64, whose whole numbers reach 2^53."""
    sums_RTC = np.einsum("rlc,tl->rtc", pixels_RLC.astype(np.float64), weights_TL, optimize=True)
    sums_RTC += rest_T[:, None] * ground_C + (1 << (BITS - 1))
    return np.floor(sums_RTC / (1 << BITS)).clip(0, 255).astype(np.uint8)


def _weights(length: int, before: int, square: int, side: int) -> tuple[Array, Array, tuple[int, int]]:
    """Return PIL's whole-number weights of the picture's pixels [T, L], those of the colour [T], and which outputs (T) hold
    any of the picture.
    """
    scale = square / side
    wide = max(scale, 1.0)
    support = 2.0 * wide
    rows, rests, touched = [], [], []
    for output in range(side):
        centre = (output + 0.5) * scale
        low = max(0, int(centre - support + 0.5))
        high = min(square, int(centre + support + 0.5))
        begin, end = max(low, before), min(high, before + length)
        if begin >= end:
            continue
        exact = _bicubic((np.arange(low, high) - centre + 0.5) / wide)
        exact /= math.fsum(exact) if len(exact) < 1 << 16 else exact.sum()
        # PIL rounds half away from zero
        whole = np.trunc(exact * (1 << BITS) + np.copysign(0.5, exact))
        row = np.zeros(length)
        row[begin - before : end - before] = whole[begin - low : end - low]
        rows.append(row)
        rests.append(whole.sum() - row.sum())
        touched.append(output)
    first, last = (touched[0], touched[-1] + 1) if touched else (0, 0)
    return np.array(rows), np.array(rests), (first, last)


def _bicubic(x: Array) -> Array:
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
