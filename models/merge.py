"""Whole Hugging Face folders out of what is kept in parts: an adapter on its base, or trained weights alone."""

import os

from ..store.errors import InputError
from ..store.files import whole_folder
from .check import check_model
from .family.of_llava.files import put_projector
from .folders import ADAPTER, MORES, TRAINED, check_folder
from .load import load
from .tensors import refuse_unsound


def merge(path: str, out: str, projector: str | None = None, dtype: str = "float32") -> str:
    """Write the model that `path` stands for as one folder, and return that folder.

    Hugging Face loads it alone, unless its config.json names a connector (`family/of_llava/model.py`).
    `projector`: one of LLaVA's files to take the projector from. A LoRA's products are added up in `dtype`.

    Raises:
        InputError: there is nothing to merge, MoReS, a folder that exists already, or files that do not fit.
    """
    folder = check_folder(path)
    if (folder / MORES).is_file():
        raise InputError(
            f"{path!r} is a model with MoReS, which cannot be merged: it edits hidden states at chosen tokens, and no "
            "weight does that. Load the folder as it is (features, evaluate and models.load can)."
        )
    if projector is None and not any((folder / n).is_file() for n in (ADAPTER, TRAINED)):
        raise InputError(
            f"{path!r} is a whole model already: there is no adapter to merge, and no --projector is given."
        )
    if os.path.exists(out):
        raise InputError(f"{out!r} is there already; give another folder.")
    check_model(path)
    loaded = load(path, dtype)
    model = loaded.model
    if projector is not None:
        put_projector(model, projector)
        refuse_unsound(f"the projector in {projector!r}, cast to {dtype},", model.named_parameters())
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    refuse_unsound(f"the merged model in {dtype}", model.named_parameters())
    with whole_folder(out) as temporary:
        model.save_pretrained(temporary)
        loaded.processor.save_pretrained(temporary)
    return out
