"""A picture as a Hugging Face processor makes it, in bytes, and the text that stands for it."""

import copy
import re
import threading
from abc import abstractmethod
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from ....pool.encode import EncodeError
from ....pool.vision import Size
from ....store.arrays import Array
from ....store.errors import InputError, suggest
from .processor import FolderProcessor, known

PIXELS = "pixel_values"
# expansions that are kept, by size of picture
_KEPT = 4096


class HFReader:
    """The `PictureReader` of a family; what differs stands in `expanded`, `laid` and `normalised`.

    `image`: the token whose places features take; `mark`: what the model's own chat template writes for a picture;
    `around`: text before and after a picture's ids that melts with its neighbours when it is tokenised.
    """

    image: str
    mark: str
    around: tuple[str, str] = ("", "")
    fixed: int | None = None

    def __init__(self, processor: FolderProcessor, image_mode: str, label: str) -> None:
        """Check that the processor can do this.

        Raises:
            InputError: another image mode than the processor's own way, a processor that does not normalise, or a
                tokenizer without the image token.
        """
        if image_mode not in ("pad", "square"):
            raise InputError(f"unknown image mode {image_mode!r}{suggest(image_mode, ('pad', 'square'))}")
        if image_mode == "square":
            raise InputError(f"image mode 'square': {label} takes pictures as they are; leave the mode as it is.")
        images = processor.image_processor
        idle = [name for name in ("do_rescale", "do_normalize") if not getattr(images, name, True)]
        if idle:
            raise InputError(
                f"the image processor of this {label} has {', '.join(idle)} off: pictures are scaled and normalised here. "
                "Take the model's own processor files."
            )
        self.processor, self.image_mode = processor, image_mode
        self.tokenizer, self.images, self.settings = processor.tokenizer, processor.image_processor, processor.settings
        self.image_id = known(self.tokenizer, self.image)
        # a tokenizer keeps settings of its last call, and threads that share one take each other's: this one is pictures'
        self._own, self._alone = copy.deepcopy(self.tokenizer), threading.Lock()
        self._expansions = lru_cache(_KEPT)(self._expansion)

    def ids(self, size: Size | None) -> list[int]:
        """Return all token ids of a picture, without what is `around` it."""
        return list(self._expansions(size))

    def prepare(self, picture: Image.Image) -> dict[str, Array]:
        """Return a picture as `laid` has it, its values in bytes."""
        try:
            return self.laid(self.cut(picture), (picture.width, picture.height))
        except ValueError as error:
            raise EncodeError(f"a picture of {picture.width} × {picture.height} pixels: {error}.") from error

    def among(self, count: int) -> "HFReader":
        """Return this: a picture is the same beside others."""
        return self

    def finish(self, media: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the media, normalised where they are bytes."""
        values = media.get(PIXELS)
        if values is None or values.dtype != torch.uint8:
            return media
        return media | {PIXELS: self.normalised(values)}

    @abstractmethod
    def expanded(self, size: Size | None) -> str:
        """Return the text that Hugging Face's processor puts in place of a picture's mark, without what is `around` it.

        It begins and ends in special tokens. Raises ValueError for a size that the processor does not take.
        """

    def cut(self, picture: Image.Image) -> dict[str, Array]:
        """Return what the image processor makes of a picture, its values not yet scaled."""
        return dict(self.images.preprocess(picture, do_rescale=False, do_normalize=False, return_tensors="np"))

    def laid(self, cut: dict[str, Array], size: Size) -> dict[str, Array]:
        """Return one picture's media of what the processor gives: the first axis of each is tiles, patches or 1."""
        return {PIXELS: as_bytes(cut[PIXELS])}

    def normalised(self, values: torch.Tensor) -> torch.Tensor:
        """Return [..., 3, H, W] in float32, scaled and normalised as the processor does."""
        mean, std = (torch.tensor(v, device=values.device)[:, None, None] for v in self._colours())
        return (values.float().mul_(float(self.images.rescale_factor)) - mean) / std

    def _colours(self) -> tuple[list[float], list[float]]:
        return list(self.images.image_mean), list(self.images.image_std)

    def _expansion(self, size: Size | None) -> tuple[int, ...]:
        try:
            text = self.expanded(size)
        except ValueError as error:
            shown = "a picture" if size is None else f"a picture of {size[0]} × {size[1]} pixels"
            raise EncodeError(f"{shown}: {error}.") from error
        # thousands of one token in a row: the tokenizer reads one of each run
        runs = re.compile(f"(?:{re.escape(self.image)})+")
        counts = iter([len(run[0]) // len(self.image) for run in runs.finditer(text)])
        short = runs.sub(lambda _: self.image, text)
        with self._alone:
            ids = self._own(short, add_special_tokens=False, verbose=False)["input_ids"]
        return tuple(token for one in ids for token in [one] * (next(counts) if one == self.image_id else 1))


def as_bytes(values: Any) -> Array:
    """Return resized pixels as the bytes that they are."""
    pixels = np.asarray(values)
    return pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
