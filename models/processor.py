"""A checkpoint's tokenizer and image processor, from its folder or its base's."""

from typing import Any

from .folders import chain, processor_folder, read_object
from .hub import refuse_foreign
from .registry import find


def load_processor(path: str) -> Any:
    """Load tokenizer and image processor.

    Raises:
        InputError: the folder has no processor, it lacks what its family reads of it, or no family is of its type.
    """
    root = chain(path)[-1]
    settings = read_object(root / "config.json")
    refuse_foreign(root, settings)
    return find(settings["model_type"]).load_processor(processor_folder(path))
