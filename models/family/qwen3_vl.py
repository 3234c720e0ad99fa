"""Qwen3-VL: Qwen's patches and positions, and features of the tower's middle that the decoder adds behind its first layers.

Those (deepstack) come from mergers of their own inside the tower, one a chosen block. A merger makes image tokens of the
tower's values as the last one does, so all of them are the connector, though they run in the middle of the tower's pass.
Axes: B rows, T tokens, R image tokens of the batch, H the decoder's width.
"""

from typing import Any, NamedTuple

import torch

from ..protocol import Batch, Components
from .of_hf.processor import FolderProcessor
from .of_qwen.deepstack import place_by_number
from .of_qwen.family import QwenFamily


class Seen(NamedTuple):
    """`tokens` [R, H] take the image tokens' places; each of `deeper` [R, H] is added there behind one layer more."""

    tokens: torch.Tensor
    deeper: list[torch.Tensor]


class Qwen3VL(QwenFamily):
    """`Qwen3VLForConditionalGeneration`."""

    name = "qwen3_vl"
    kinds = ("qwen3_vl",)
    label = "Qwen3-VL (Qwen3VLForConditionalGeneration)"
    hf = "Qwen3VLForConditionalGeneration"
    components = Components(
        vision=("model.visual",),
        connector=("model.visual.merger", "model.visual.deepstack_merger_list"),
        decoder=("model.language_model",),
        head=("lm_head",),
    )

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name, beside what all of Qwen's have, features of the middle that Hugging Face's code would leave out."""
        vision, text = config.vision_config, config.text_config
        blocks, faults = list(vision.deepstack_visual_indexes), super().faults(config, processor)
        if blocks != sorted(set(blocks)) or any(not 0 <= block < vision.depth for block in blocks):
            faults.append(
                f"config.json has deepstack_visual_indexes {blocks}, which are not blocks of its tower of {vision.depth} "
                "in rising order"
            )
        if len(blocks) > text.num_hidden_layers:
            faults.append(
                f"config.json has {len(blocks)} deepstack_visual_indexes, one for each of the decoder's first layers, of "
                f"which there are {text.num_hidden_layers}"
            )
        return faults

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write three layers of tower and decoder, two of them with deeper features; heads are wider than their share."""
        from .of_qwen.tiny import TEMPLATE, write_tiny

        vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 48}
        vision |= {"num_position_embeddings": 36, "deepstack_visual_indexes": [0, 1]}
        text = {"num_hidden_layers": 3, "head_dim": 16}
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
        return write_tiny(self, out, texts, TEMPLATE, (vision, text | {"rope_parameters": rope}))

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> Seen:
        """Return merged tokens and deeper features: mergers run inside the tower's own pass."""
        output = self.tower(model, media)
        return Seen(output.pooler_output, list(output.deepstack_features))

    def connect(self, model: Any, seen: Seen, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the merged tokens as they are; the deeper ones are `arguments`."""
        return seen.tokens

    def arguments(self, model: Any, batch: Batch, seen: Seen | None) -> dict[str, Any]:
        """Return positions, and the deeper features with their places.

        Of a blank picture none is placed, but all are handed over: so the mergers are a part of every batch's graph.
        """
        if seen is None:
            return {}
        place_by_number(self.decoder(model))
        places = batch["image_at"]
        deeper = [features_RH[: len(places[0])] for features_RH in seen.deeper]
        return super().arguments(model, batch, seen) | {"visual_pos_masks": places, "deepstack_visual_embeds": deeper}


FAMILY = Qwen3VL
