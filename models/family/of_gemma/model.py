"""Gemma 3 as Hugging Face's class has it, but that the connector's product is a module: gradients are taken of it."""

from typing import Any

import torch
import transformers
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector

from ...products import Product


class Projector(Gemma3MultiModalProjector):
    """Patches [I, P, D] → image tokens [I, R, H]: averages over squares of patches, a norm, a product."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.product = Product(self, "mm_input_projection_weight")

    def forward(self, vision_outputs: torch.Tensor) -> torch.Tensor:
        """Return what Hugging Face's own does."""
        side = self.patches_per_image
        square = vision_outputs.transpose(1, 2).unflatten(2, (side, side)).contiguous()
        pooled = self.avg_pool(square).flatten(2).transpose(1, 2)
        return self.product(self.mm_soft_emb_norm(pooled)).type_as(vision_outputs)


class Gemma3ForConditionalGeneration(transformers.Gemma3ForConditionalGeneration):
    """Hugging Face's, by its name: folders that it saves say of what class they are."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = Projector(config)
        self.post_init()
