"""A checkpoint's tokenizer and image processor, from its folder or its base's."""

from transformers import AutoTokenizer, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ..store.errors import InputError
from ..store.reading import shown, with_fields, wrong
from .folders import LOCAL, processor_folder, read_object

_KNOWN = {
    **{"patch_size": int | None, "num_additional_image_tokens": int | None},
    **{"vision_feature_select_strategy": str | None, "image_token": str | None},
}


def load_processor(path: str) -> LlavaProcessor:
    """Load tokenizer and image processor (the PIL one: the default class needs torchvision).

    Raises:
        InputError: the folder has no processor, or lacks what the number of image tokens is computed from.
    """
    folder = processor_folder(path)
    file = folder / "processor_config.json"
    settings = with_fields(read_object(file), _KNOWN, str(file), "processor's settings") if file.is_file() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
        images = LlavaImageProcessorPil.from_pretrained(folder, **LOCAL)
    except Exception as error:  # the tokenizers library raises bare ones on a damaged file
        raise InputError(
            f"{str(folder)!r} has no usable tokenizer or image processor: {type(error).__name__}: {wrong(error)}."
        ) from error
    if not settings.get("patch_size"):
        raise InputError(f"{str(folder)!r}: processor_config.json lacks patch_size, so image tokens cannot be counted.")
    if not isinstance(tokenizer.model_max_length, (int, float)):
        raise InputError(
            f"{str(folder)!r}: tokenizer_config.json has model_max_length {shown(tokenizer.model_max_length)}."
        )
    return LlavaProcessor(images, tokenizer, **{k: settings[k] for k in _KNOWN if settings.get(k) is not None})
