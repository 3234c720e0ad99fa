"""What a model's family says of pictures and words, as the pool sees it; `models/family/` implements it."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from PIL import Image

from ..store.arrays import Array

# one picture as a model takes it: name → array, whose leading axis may be of any length (tiles, patches, 1)
Media = Mapping[str, Array]
# width and height in pixels
Size = tuple[int, int]
# that of many data sets' pictures (COCO): what a price takes where none can be looked at
USUAL: Size = (640, 480)


class PictureReader(Protocol):
    """Prepares pictures for one processor, and says which token ids stand for one.

    `image_id`: the token that a picture's features take the place of. `fixed`: how many of them any picture becomes; None
    where that depends on its size. `image_mode`: as in `Encoder`. `mark`: what the model's own chat template writes for a
    picture. `around`: text before and behind `ids(size)` that is tokenised with what stands beside it.
    """

    tokenizer: Any
    image_id: int
    fixed: int | None
    image_mode: str
    mark: str
    around: tuple[str, str]

    def ids(self, size: Size | None) -> list[int]:
        """Return all token ids of a picture, text around its features included; `size` may be None where `fixed` is not."""
        ...

    def prepare(self, picture: Image.Image) -> dict[str, Array]:
        """Return an RGB picture as its model takes it, in as few bytes as can be (uint8 where normalising can wait)."""
        ...

    def among(self, count: int) -> "PictureReader":
        """Return what prepares a picture that is one of `count` of its record: some models see it otherwise than alone."""
        ...

    def finish(self, media: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch's media with all values as the model takes them, on their own device."""
        ...
