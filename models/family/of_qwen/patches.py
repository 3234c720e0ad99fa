"""Pictures of any size as flat patches, two by two merged into tokens: the processor of Qwen2-VL and all after it.

Axes: I pictures, P patches of a picture or batch, C colours.
"""

from typing import Any

import torch

from ....pool.vision import Size
from ....store.arrays import Array
from ....store.errors import InputError
from ..of_hf.processor import FolderProcessor
from ..of_hf.reader import PIXELS, HFReader, as_bytes

GRID = "image_grid_thw"
START, IMAGE, VIDEO, END = "<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"


class Patches(HFReader):
    """Cuts pictures into patches as the processor does; bytes are normalised later."""

    image, mark = IMAGE, f"{START}{IMAGE}{END}"

    def __init__(self, processor: FolderProcessor, image_mode: str, label: str) -> None:
        """Check that words of a text cannot become a medium's marks: positions are counted by them.

        Raises:
            InputError: they can; or as `HFReader`.
        """
        super().__init__(processor, image_mode, label)
        for token in (START, VIDEO, END):
            ids = self.tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            if self.tokenizer.convert_tokens_to_ids(token) in ids:
                raise InputError(
                    f"a literal {token!r} in a text would become a mark of {label}: mark it as special in tokenizer.json."
                )

    def expanded(self, size: Size | None) -> str:
        """Return the marks around a picture's tokens, of which there are as many as merged patches."""
        assert size is not None
        patches = self.images.get_number_of_image_patches(size[1], size[0])
        return f"{START}{IMAGE * (patches // self.images.merge_size**2)}{END}"

    def laid(self, cut: dict[str, Array], size: Size) -> dict[str, Array]:
        """Return patches uint8 [P, values] and their grid i64 [1, 3]."""
        return {PIXELS: as_bytes(cut[PIXELS]), GRID: cut[GRID]}

    def normalised(self, values: torch.Tensor) -> torch.Tensor:
        """Return patches in float32; a patch's values lie colour by colour."""
        mean, std = (torch.tensor(v, device=values.device)[:, None] for v in self._colours())
        by_colour = values.float().mul_(float(self.images.rescale_factor)).unflatten(1, (3, -1))
        return ((by_colour - mean) / std).flatten(1)


def blank(vision: Any) -> dict[str, torch.Tensor]:
    """Return the patches of one merged token, all zero, of a tower's config."""
    side = vision.spatial_merge_size
    return _zeros(vision, side, side, 1)


def usual(vision: Any, size: Size, count: int) -> dict[str, torch.Tensor]:
    """Return `count` pictures of zeros of a size in pixels, cut to whole merged patches."""
    side = vision.spatial_merge_size
    width, height = (max(1, round(n / (vision.patch_size * side))) * side for n in size)
    return _zeros(vision, width, height, count)


def _zeros(vision: Any, width: int, height: int, count: int) -> dict[str, torch.Tensor]:
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    grid = torch.tensor([[1, height, width]]).repeat(count, 1)
    return {PIXELS: torch.zeros(count * height * width, values), GRID: grid}
