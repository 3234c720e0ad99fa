"""The processor of a LLaVA by its parts: how a picture is prepared, and how many tokens it becomes."""

from typing import Any

from transformers import LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ..specs import ConnectorSpec
from .towers import RGB, Tower


def image_processor(side: int, colours: tuple[RGB, RGB]) -> LlavaImageProcessorPil:
    """Return LLaVA's image processor for pictures of `side` × `side` pixels, with a tower's mean and deviation."""
    return LlavaImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(colours[0]),
        image_std=list(colours[1]),
    )


def make_processor(images: Any, tokenizer: Any, tower: Tower, patch: int, connector: ConnectorSpec) -> LlavaProcessor:
    """Return the processor whose config says how many tokens a picture becomes, for us and for Hugging Face's own code.

    A connector with queries gives their number, whatever the tower gives: the processor (not the model) then keeps all
    patches and adds what is missing or too much, a negative number as a rule.
    """
    patches = (images.crop_size["height"] // patch) * (images.crop_size["width"] // patch)
    count = connector.tokens(patches)
    strategy, extra = (tower.strategy, tower.extra) if count == patches else ("full", count - patches)
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=extra,
    )
