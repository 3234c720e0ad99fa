"""Pictures for the model: as LLaVA 1.5 pads them, as the processor crops them, and bytes normalised later."""

import numpy as np
import pytest
import torch
from PIL import Image
from vinnow.models.encoding import make_encoder

RNG = np.random.default_rng(0)
SIZES = [(90, 40), (40, 90), (64, 64), (13, 100), (28, 28), (27, 29), (300, 200)]


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def expand2square(image: Image.Image) -> Image.Image:
    """LLaVA 1.5's padding: mean colour (122, 116, 104), content centred (spec §3)."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["pad", "square"])
def test_equals_the_processor(llama, size, mode):
    image = picture(size)
    pixels = make_encoder(llama, image_mode=mode).reader.pixels(image)
    expected = llama.image_processor(image, do_pad=mode == "pad", return_tensors="np")["pixel_values"][0]
    assert pixels.dtype == np.float32
    assert pixels.shape == (3, 28, 28)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_pad_is_llavas_expand2square(llama, size):
    image = picture(size)
    padded = make_encoder(llama, image_mode="pad").reader.pixels_u8(image)
    assert np.array_equal(padded, make_encoder(llama, image_mode="square").reader.pixels_u8(expand2square(image)))


def test_square_crops_what_pad_keeps(llama):
    image = Image.new("RGB", (90, 30), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 20, 30))
    assert make_encoder(llama, image_mode="pad").reader.pixels_u8(image).max() > 240
    assert make_encoder(llama, image_mode="square").reader.pixels_u8(image).max() == 0


def test_bytes_normalised_later_are_the_same_numbers(llama):
    encoder, shown = make_encoder(llama), [picture(s) for s in SIZES]
    u8 = np.stack([encoder.reader.pixels_u8(p) for p in shown])
    assert u8.dtype == np.uint8
    batch = encoder.reader.normalise(torch.from_numpy(u8))
    assert batch.dtype == torch.float32
    expected = llama.image_processor(shown, do_pad=True, return_tensors="pt")["pixel_values"]
    assert (batch - expected).abs().max() <= 1e-6
