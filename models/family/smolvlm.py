"""SmolVLM and SmolVLM2: Idefics3's way with pictures, in classes of their own. Pictures alone: no video.

Their processor's class in transformers asks for num2words, for video alone: it is not needed here.
"""

from typing import Any

from .idefics3 import Idefics3


class SmolVLM(Idefics3):
    """`SmolVLMForConditionalGeneration`."""

    name = "smolvlm"
    kinds = ("smolvlm",)
    label = "SmolVLM (SmolVLMForConditionalGeneration)"
    hf = "SmolVLMForConditionalGeneration"

    def image_processor(self) -> Any:
        """Return SmolVLM's."""
        from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

        return SmolVLMImageProcessorPil


FAMILY = SmolVLM
