"""What the families of Qwen's towers share: flat patches, a merger that ends the tower's own pass, positions of three axes.

Pictures alone: no video. Axes: I pictures, P patches of a picture or batch, B rows, T tokens, R image tokens of the batch.
"""

from typing import Any

import torch

from ....pool.vision import USUAL
from ...protocol import Batch, base_of
from ..of_hf.family import HFFamily, unlike
from ..of_hf.processor import FolderProcessor, known
from ..of_hf.reader import PIXELS
from . import patches
from .lengths import group_lengths
from .patches import GRID, IMAGE, Patches
from .positions import positions

# a batch's image tokens as Hugging Face's own code is told of them
KINDS = "mm_token_type_ids"
# what of a tower's config the image processor calls by another name, or by the same
_CUT = {"patch_size": "patch_size", "temporal_patch_size": "temporal_patch_size", "spatial_merge_size": "merge_size"}


class QwenFamily(HFFamily):
    """A family whose tower is `model.visual` and takes `grid_thw`; its own file says the rest."""

    def image_processor(self) -> Any:
        """Return Qwen2-VL's."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        return Qwen2VLImageProcessorPil

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name image tokens and cuts of pictures that differ."""
        images, vision, here = processor.image_processor, config.vision_config, known(processor.tokenizer, IMAGE)
        cut = {ours: (getattr(vision, ours), getattr(images, theirs)) for ours, theirs in _CUT.items()}
        faults = unlike(cut, "the image processor")
        if config.image_token_id != here:
            faults.append(
                f"config.json has image_token_id {config.image_token_id}, the tokenizer's of {IMAGE} is {here}"
            )
        return faults

    def reader(self, processor: FolderProcessor, image_mode: str) -> Patches:
        """Return what cuts pictures into patches."""
        return Patches(processor, image_mode, self.label.partition(" (")[0])

    def tower(self, model: Any, media: dict[str, torch.Tensor]) -> Any:
        """Return what the tower gives of a batch's pictures, as Hugging Face names it."""
        tower = base_of(model).model.visual
        group_lengths(tower)
        return tower(media[PIXELS], grid_thw=media[GRID])

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> Any:
        """Return the merged tokens, [R, H]: the merger ends the tower's own pass, so both are shared, or neither is."""
        return self.tower(model, media).pooler_output

    def connect(self, model: Any, seen: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return them as they are."""
        return seen

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return the patches of one merged token, all zero."""
        return patches.blank(config.vision_config)

    def pictures(self, config: Any, count: int) -> dict[str, torch.Tensor]:
        """Return pictures of `USUAL` pixels, cut to whole merged patches."""
        return patches.usual(config.vision_config, USUAL, count)

    def arguments(self, model: Any, batch: Batch, seen: Any) -> dict[str, Any]:
        """Return the positions of three axes, [3, B, T]; where no picture is, the decoder's own are the same."""
        if GRID not in batch["media"] or batch.get("blank"):
            return {}
        merge = base_of(model).config.vision_config.spatial_merge_size
        places_3BT = positions(batch["attention_mask"], batch["image_at"], batch["media"][GRID], merge)
        return {"position_ids": places_3BT}

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return what `generate` takes, which finds positions by the kinds of tokens."""
        kinds_BT = self.image_mask(base_of(model).config, batch["input_ids"]).int()
        return super().generating(model, batch) | ({KINDS: kinds_BT} if batch["media"] else {})
