"""The processor of a LLaVA, from its folder or by its components: how a picture is prepared, and its number of tokens."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ....store.errors import InputError
from ....store.reading import shown, with_fields, wrong
from ...folders import LOCAL, read_object
from ...specs import ConnectorSpec
from ..of_hf.processor import take_template
from .towers import RGB, Tower

_KNOWN = {
    **{"patch_size": int | None, "num_additional_image_tokens": int | None},
    **{"vision_feature_select_strategy": str | None, "image_token": str | None},
}


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


def load_processor(folder: Path) -> LlavaProcessor:
    """Load tokenizer and image processor of a folder (the PIL one: the default class needs torchvision).

    Raises:
        InputError: the folder has no processor, or lacks what the number of image tokens is computed from.
    """
    file = folder / "processor_config.json"
    settings = with_fields(read_object(file), _KNOWN, str(file), "processor's settings") if file.is_file() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
        images = LlavaImageProcessorPil.from_pretrained(folder, **LOCAL)
    except Exception as error:  # the tokenizers library raises bare ones on a damaged file
        raise InputError(
            f"{str(folder)!r} has no usable tokenizer or image processor: {type(error).__name__}: {wrong(error)}."
        ) from error
    take_template(tokenizer, folder)
    if not settings.get("patch_size"):
        raise InputError(f"{str(folder)!r}: processor_config.json lacks patch_size, so image tokens cannot be counted.")
    if not isinstance(tokenizer.model_max_length, (int, float)):
        raise InputError(
            f"{str(folder)!r}: tokenizer_config.json has model_max_length {shown(tokenizer.model_max_length)}."
        )
    return LlavaProcessor(images, tokenizer, **{k: settings[k] for k in _KNOWN if settings.get(k) is not None})
