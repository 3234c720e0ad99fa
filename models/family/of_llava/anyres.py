"""Pictures of any resolution: the whole of one, made small, then its tiles on the grid that fits it best.

LLaVA-NeXT's and LLaVA-OneVision's. Of the tiles' features no padding is left, and behind each line of them stands a learned
one, `image_newline`. Axes: I pictures, N tiles of a batch, R image tokens, D the tower's width, H the decoder's.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ....pool.vision import USUAL, Size
from ....store.arrays import Array
from ....store.errors import InputError
from ...protocol import Batch, Components, base_of
from ..of_hf.family import HFFamily, switched_off, unlike
from ..of_hf.processor import FolderProcessor, known
from ..of_hf.reader import PIXELS, HFReader, as_bytes
from . import names
from .seeing import chosen_states
from .words import template_of

IMAGE = "<image>"
# height and width of each picture, [I, 2], and how many tiles it has, the whole included, [I]
SIZES, TILES = "image_sizes", "tiles"


class AnyRes(HFReader):
    """Cuts pictures as Hugging Face's processor does; the whole of one is its first tile."""

    image, mark = IMAGE, IMAGE

    def laid(self, cut: dict[str, Array], size: Size) -> dict[str, Array]:
        """Return tiles uint8 [N, 3, side, side], the picture's height and width, and its number of tiles."""
        tiles = as_bytes(cut[PIXELS][0])
        return {PIXELS: tiles, SIZES: np.array([size[::-1]], np.int64), TILES: np.array([len(tiles)], np.int64)}

    def lines(self, size: Size, side: int) -> tuple[int, int]:
        """Return how many lines of how many features are left of a picture's tiles, of `side` × `side` each, unpadded."""
        width, height = size
        rows, columns = (n * side for n in grid_of(size, self.images.image_grid_pinpoints, tile_of(self.images)))
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return rows, columns


class AnyResFamily(HFFamily):
    """A family whose readers are `AnyRes`."""

    components = Components(
        vision=("model.vision_tower",),
        connector=("model.multi_modal_projector", "model.image_newline"),
        decoder=("model.language_model",),
        head=("lm_head",),
    )
    # transformers 4 named its tensors as it named LLaVA's
    layouts = names.LAYOUTS[1:]
    old = names.OLD

    @abstractmethod
    def pack(self, base: Any, shown: list[torch.Tensor], sizes_I2: torch.Tensor) -> list[torch.Tensor]:
        """Return each picture's image tokens [tokens, H] of its tiles' projected features [tiles, patches, H]."""

    @abstractmethod
    def counts(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Return in words where numbers of tokens differ."""

    def check_config(self, config: Any) -> None:
        """Refuse grids that are not of whole tiles."""
        side, grids = config.vision_config.image_size, config.image_grid_pinpoints
        broken = [grid for grid in grids if any(n % side or not n for n in grid)]
        if broken or not grids:
            raise InputError(f"image_grid_pinpoints has {broken or grids}: no whole tiles of {side} pixels.")

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name image tokens, tiles, grids and numbers of tokens that differ."""
        images, side = processor.image_processor, config.vision_config.image_size
        faults = unlike(
            {"image_token_index": (config.image_token_id, known(processor.tokenizer, IMAGE))},
            f"the tokenizer's of {IMAGE} is",
        )
        faults += unlike({"image_size": (side, tile_of(images))}, "the image processor")
        grids = {"image_grid_pinpoints": [[list(g) for g in x.image_grid_pinpoints] for x in (config, images)]}
        faults += unlike({name: (ours, theirs) for name, (ours, theirs) in grids.items()}, "the image processor")
        faults += switched_off(images, "do_rescale", "do_normalize")
        return faults or self.counts(config, processor)

    def modern(self, name: str, model: Any) -> str:
        """Return the name in memory of a tensor that transformers 4 named."""
        return "model.image_newline" if name == "image_newline" else names.modern(name, model)

    def template(self, config: Any, tokenizer: Any) -> str:
        """Return `own` where the folder's chat template ends answers, else the one that the decoder was trained with."""
        return template_of(config, tokenizer, IMAGE)

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return [N, patches, D]: the configured layers of the tower, side by side."""
        base = base_of(model)
        return chosen_states(base.model.vision_tower, media[PIXELS], base.config)

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return projected features, unpadded and with their ends of lines, [R, H], picture by picture."""
        shown = list(self.connector(model)(seen).split(media[TILES].tolist()))
        return torch.cat(self.pack(base_of(model).model, shown, media[SIZES]))

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return one tile of zeros, and the end of its line."""
        return _zeros(config, (config.vision_config.image_size,) * 2, 1, 1)

    def pictures(self, config: Any, count: int) -> dict[str, torch.Tensor]:
        """Return pictures of `USUAL` pixels."""
        rows, columns = grid_of(USUAL, config.image_grid_pinpoints, config.vision_config.image_size)
        return _zeros(config, USUAL, 1 + rows * columns, count)

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return what `generate` takes: all pictures with as many tiles as the one of most, zeros behind the rest."""
        media = batch["media"]
        if not media:
            return super().generating(model, batch)
        tiles = pad_sequence(media[PIXELS].split(media[TILES].tolist()), batch_first=True)
        return super().generating(model, batch | {"media": {PIXELS: tiles, SIZES: media[SIZES]}})


def grid_of(size: Size, grids: list[list[int]], side: int) -> tuple[int, int]:
    """Return the rows and columns of tiles of `side` pixels that a picture is cut into."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(size[::-1], grids)
    return height // side, width // side


def tile_of(images: Any) -> int:
    """Return the side of the tiles that an image processor makes, in pixels."""
    crop, size = (dict(x or {}) for x in (images.crop_size, images.size))
    return int(crop.get("height") or size.get("height") or size.get("shortest_edge") or 0)


def _zeros(config: Any, size: Size, tiles: int, count: int) -> dict[str, torch.Tensor]:
    side = config.vision_config.image_size
    return {
        PIXELS: torch.zeros(count * tiles, 3, side, side),
        SIZES: torch.tensor([size[::-1]]).repeat(count, 1),
        TILES: torch.full((count,), tiles),
    }
