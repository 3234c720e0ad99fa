"""LLaVA's pictures: padded to a square or cropped, all of one size and number of tokens. Axes: I pictures, H, W pixels."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from ....pool.long_pad import crop_and_resize, is_long, is_sliver, pad_and_resize
from ....pool.vision import Size
from ....store.arrays import Array
from ....store.errors import InputError, suggest

PIXELS = "pixel_values"


class SquarePictures:
    """Prepares pictures as `LlavaProcessor` does; the `PictureReader` of LLaVA.

    `image_mode`: `pad` to a square with the mean colour (LLaVA 1.5), or `square`, the processor's own resize
    and centre crop (LLaVA's stage 1).
    """

    def __init__(self, processor: Any, image_mode: str = "pad") -> None:
        """Check that the processor can do this.

        Raises:
            InputError: unknown image mode, or a processor that would encode wrongly without a word.
        """
        if image_mode not in ("pad", "square"):
            raise InputError(f"unknown image mode {image_mode!r}{suggest(image_mode, ('pad', 'square'))}")
        self.images, self.image_mode = processor.image_processor, image_mode
        if image_mode == "pad" and not hasattr(self.images, "pad_to_square"):
            raise InputError(
                f"{type(self.images).__name__} cannot pad to a square; use LlavaImageProcessorPil, "
                "or image mode 'square'."
            )
        self.tokenizer, self.image_id = processor.tokenizer, int(processor.image_token_id)
        self.fixed: int | None = count_image_tokens(processor)
        self.mark, self.around = str(processor.image_token), ("", "")
        self._mean = torch.tensor(self.images.image_mean, dtype=torch.float32)
        self._std = torch.tensor(self.images.image_std, dtype=torch.float32)
        if self.tokenizer.convert_ids_to_tokens(self.image_id) != processor.image_token:
            raise InputError(
                f"the tokenizer does not know the image token {processor.image_token!r}; add it as a special token."
            )

    def ids(self, size: Size | None) -> list[int]:
        """Return the image token as often as a picture has features."""
        assert self.fixed is not None
        return [self.image_id] * self.fixed

    def prepare(self, picture: Image.Image) -> dict[str, Array]:
        """Return `pixels_u8` [1, 3, H, W], in this order in memory: a GPU's convolution goes by it."""
        return {PIXELS: np.ascontiguousarray(self.pixels_u8(picture)[None])}

    def among(self, count: int) -> "SquarePictures":
        """Return this: a picture is the same beside others."""
        return self

    def finish(self, media: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the media, normalised."""
        return {name: self.normalise(pixels) for name, pixels in media.items()}

    def pixels(self, picture: Image.Image) -> Array:
        """Return the normalised picture, float32 [3, H, W]."""
        return self.normalise(torch.from_numpy(self.pixels_u8(picture)[None]))[0].numpy()

    def pixels_u8(self, picture: Image.Image) -> Array:
        """Return the resized and cropped picture, uint8 [3, H, W]: a quarter of the bytes."""
        if (side := self._side()) and picture.size == (side, side) and picture.mode == "RGB":
            return np.array(picture).transpose(2, 0, 1)  # as it is
        if self.image_mode == "pad" and is_long(picture.size) and (side := self._side()):
            colour = [int(x * 255) for x in self.images.image_mean]
            return pad_and_resize(picture, side, (colour[0], colour[1], colour[2])).transpose(2, 0, 1)
        if self.image_mode == "square" and (side := self._side()) and is_sliver(picture.size, side):
            return crop_and_resize(picture, side).transpose(2, 0, 1)
        done = self.images.preprocess(
            picture,
            do_rescale=False,
            do_normalize=False,
            do_pad=self.image_mode == "pad",
            return_tensors="np",
        )[PIXELS][0]
        return np.clip(np.rint(np.asarray(done)), 0, 255).astype(np.uint8)

    def _side(self) -> int | None:
        """Return the processor's side if it only resizes a square, bicubic, to what it then crops; None if it does else."""
        size, crop = self.images.size, self.images.crop_size
        sides = {size[k] for k in ("shortest_edge", "height", "width") if size[k]} | {crop["height"], crop["width"]}
        plain = self.images.do_resize and self.images.do_center_crop and int(self.images.resample) == 3
        return sides.pop() if plain and len(sides) == 1 else None

    def normalise(self, u8_I3HW: torch.Tensor) -> torch.Tensor:
        """Scale and normalise uint8 [I, 3, H, W] on its own device; f32, equal to the processor's."""
        mean, std = (v.to(u8_I3HW.device)[:, None, None] for v in (self._mean, self._std))
        return (u8_I3HW.float() * float(self.images.rescale_factor) - mean) / std


def count_image_tokens(processor: Any) -> int:
    """Return how many image tokens one picture becomes, as `LlavaProcessor` counts (576 for CLIP-L/14 at
    336). A connector with queries is told by a negative number of additional tokens.

    Raises:
        InputError: the processor's config lacks what the count needs, or would count one token too few (spec:
            LLaVA §9).
    """
    crop, patch = processor.image_processor.crop_size, processor.patch_size
    if not patch or not crop:
        raise InputError("the processor lacks patch_size or crop_size, so image tokens cannot be counted.")
    tokens = (crop["height"] // patch) * (crop["width"] // patch)
    extra = processor.num_additional_image_tokens or 0
    if processor.vision_feature_select_strategy != "default":
        if tokens + extra < 1:
            raise InputError(
                f"the processor counts {tokens} patches and {extra} additional tokens a picture, which leaves none: "
                "num_additional_image_tokens in processor_config.json is wrong."
            )
        return tokens + extra
    if extra < 1:
        # "default" drops a class token; Hugging Face's own default of 0 such tokens fails only inside the
        # model
        raise InputError(
            "the processor drops a class token (strategy 'default') but counts none: "
            "set num_additional_image_tokens to 1 in processor_config.json."
        )
    return tokens + extra - 1
