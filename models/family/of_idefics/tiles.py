"""Pictures cut into squares, a row of squares a line of text, and the whole picture as one more square behind them.

Hugging Face's own code pads a batch's rows to equally many squares with zeros, and finds those again by their values: here
squares travel as they are, one behind the other. Axes: N squares (tiles), R rows and C columns of them, S pixels a side.
"""

import math
from typing import Any

import numpy as np
import torch

from ....pool.vision import Size
from ....store.arrays import Array
from ..of_hf.processor import FolderProcessor, known
from ..of_hf.reader import PIXELS, HFReader, as_bytes

IMAGE, AROUND, WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"
# tokens of a square where the processor does not say, and the longest side that any picture is brought to
_TOKENS, _LONGEST = 169, 4096


class Tiles(HFReader):
    """Cuts pictures as the processor does."""

    mark = IMAGE

    def __init__(self, processor: FolderProcessor, image_mode: str, label: str) -> None:
        """Find the tokenizer's own names of marks. Raises InputError as `HFReader`, or without the token around squares."""
        self.image, self.edge, self.whole = names(processor.tokenizer)
        known(processor.tokenizer, self.edge)
        super().__init__(processor, image_mode, label)
        self.tokens = tokens_of(processor)

    def expanded(self, size: Size | None) -> str:
        """Return the squares' marks: rows and columns in words, each row a line, the whole picture last."""
        assert size is not None
        rows, columns = grid(self.images, size)
        square, lines = self.image * self.tokens, ""
        for row in range(1, rows + 1):
            lines += "".join(f"{self.edge}<row_{row}_col_{c}>{square}" for c in range(1, columns + 1)) + "\n"
        return f"{lines}{lines and chr(10)}{self.edge}{self.whole}{square}{self.edge}"

    def laid(self, cut: dict[str, Array], size: Size) -> dict[str, Array]:
        """Return the squares, uint8 [N, 3, S, S]: all of each is picture, so that there is nothing to mask."""
        return {PIXELS: as_bytes(cut[PIXELS][0])}


def names(tokenizer: Any) -> tuple[str, str, str]:
    """Return what a tokenizer calls an image's token, the one around a square, and the mark of the whole picture."""
    attributes = {"image_token": IMAGE, "fake_image_token": AROUND, "global_image_token": WHOLE}
    image, edge, whole = (getattr(tokenizer, name, None) or usual for name, usual in attributes.items())
    return image, edge, whole


def tokens_of(processor: FolderProcessor) -> int:
    """Return how many tokens a square becomes, as the processor's settings have it."""
    return int(processor.settings.get("image_seq_len") or _TOKENS)


def grid(images: Any, size: Size) -> tuple[int, int]:
    """Return rows and columns of the squares that a picture is cut into; 0, 0 where it is one square alone.

    Raises:
        ValueError: the processor does not say how large pictures become.
    """
    if not images.do_image_splitting:
        return 0, 0
    width, height = _resized(images, size) if images.do_resize else size
    side = int(images.max_image_size["longest_edge"])
    # the longer side first; the other one follows it, and is rounded up in turn
    ratio = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        height = math.ceil(int(width / ratio) / side) * side
    else:
        height = math.ceil(height / side) * side
        width = math.ceil(int(height * ratio) / side) * side
    rows, columns = height // side, width // side
    return (0, 0) if rows * columns == 1 else (rows, columns)


def _resized(images: Any, size: Size) -> Size:
    width, height = size
    longest = images.size["longest_edge"]
    if not longest:
        if not (images.size["height"] and images.size["width"]):
            raise ValueError("the processor's size has neither longest_edge nor height and width")
        return int(images.size["width"]), int(images.size["height"])
    ratio = width / height
    # the shorter side is made even
    if width >= height:
        width, height = longest, int(longest / ratio)
        height = max(1, height + height % 2)
    else:
        width, height = int(longest * ratio), longest
        width = max(1, width + width % 2)
    if max(width, height) > _LONGEST:
        ratio = width / height
        width, height = (_LONGEST, int(_LONGEST / ratio)) if width >= height else (int(_LONGEST * ratio), _LONGEST)
    return max(1, width), max(1, height)


def zero_colour(images: Any) -> bool:
    """Say whether a picture of one colour could become all zeros: the model's own code takes such for padding."""
    values = np.arange(256, dtype=np.float32) * np.float32(images.rescale_factor)
    return all(bool((values == np.float32(mean)).any()) for mean in images.image_mean)


def padded(pixels_N3SS: torch.Tensor, owner_I: torch.Tensor, counts_I: torch.Tensor, rows: int) -> torch.Tensor:
    """Return squares as Hugging Face's model takes them, [rows, most squares of a row, 3, S, S], zeros behind."""
    owner_N = owner_I.repeat_interleave(counts_I)
    counts_B = owner_N.bincount(minlength=rows)
    place_N = torch.arange(len(owner_N), device=owner_N.device) - (counts_B.cumsum(0) - counts_B)[owner_N]
    out = pixels_N3SS.new_zeros(rows, int(counts_B.max()), *pixels_N3SS.shape[1:])
    out[owner_N, place_N] = pixels_N3SS
    return out
