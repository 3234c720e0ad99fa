"""A checkpoint's tokenizer and image processor, from its folder or its base's."""

from transformers import AutoTokenizer, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ..store.errors import InputError
from .folders import LOCAL, processor_folder, read_object

_KNOWN = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens", "image_token")


def load_processor(path: str) -> LlavaProcessor:
    """Load tokenizer and image processor (the PIL one: the default class needs torchvision).

    Raises:
        InputError: the folder has no processor, or lacks what the number of image tokens is computed from.
    """
    folder = processor_folder(path)
    file = folder / "processor_config.json"
    settings = read_object(file) if file.is_file() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
        images = LlavaImageProcessorPil.from_pretrained(folder, **LOCAL)
    except Exception as error:  # the tokenizers library raises bare ones on a damaged file
        raise InputError(
            f"{str(folder)!r} has no usable tokenizer or image processor: {type(error).__name__}: {error}."
        ) from error
    if not settings.get("patch_size"):
        raise InputError(f"{str(folder)!r}: processor_config.json lacks patch_size, so image tokens cannot be counted.")
    return LlavaProcessor(images, tokenizer, **{k: settings[k] for k in _KNOWN if k in settings})
