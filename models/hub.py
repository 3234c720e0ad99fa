"""Models that are not a local LLaVA folder: a hub's name (its copy in Hugging Face's cache is used), and other layouts.

Nothing is fetched here: what is not on this machine is refused, with the command that fetches it.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..store.errors import InputError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# model types of LLaVA's own classes and their offspring, which Hugging Face's class does not read
_ORIGINAL = ("llava_", "tinyllava", "tiny_llava", "bunny", "mipha")
# a class of Hugging Face's whose name begins alike, beside those of families here
_OTHERS = ("llava_next_video",)
_TOWERS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model", "dinov2", "siglip2", "siglip2_vision_model")
_CONVERT = (
    "it is a checkpoint of LLaVA's own code, not of Hugging Face's class: take one that was converted (llava-hf/…), "
    "convert it with transformers' convert_llava_weights_to_hf.py, or build one with `vinnow build` and take its projector "
    "by `vinnow merge --projector`"
)


def is_hub_name(name: str | os.PathLike[str]) -> bool:
    """Say whether a text is spelled as the name of a model of the hub: `org/name`."""
    return bool(_ID.fullmatch(os.fspath(name)))


def hub_copy(name: str | os.PathLike[str]) -> Path | None:
    """Return the folder of a hub's model in Hugging Face's cache (its revision `main`); None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    if not is_hub_name(name):
        return None
    for file in ("config.json", "adapter_config.json"):
        cached = try_to_load_from_cache(os.fspath(name), file)
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def fetching(name: str | os.PathLike[str]) -> str:
    """Return how a model of this name is fetched, "" if it is no hub's name."""
    from huggingface_hub import constants

    if not is_hub_name(name):
        return ""
    short = os.fspath(name).rsplit("/", 1)[1]
    return (
        f" Nor is it in Hugging Face's cache ({constants.HF_HUB_CACHE}). If a model of the hub is meant, fetch it and give "
        f"its folder: hf download {os.fspath(name)} --local-dir {short}"
    )


def refuse_foreign(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder whose config.json (`settings`) is not that of Hugging Face's LLaVA; says what to do with it.

    Raises:
        InputError: it is LLaVA's original layout, a language model or a vision tower alone, or another model.
    """
    # here: the commands that only look for a folder load no torch
    from .missing import aside, lacking
    from .registry import kinds

    kind, tower = settings.get("model_type"), settings.get("mm_vision_tower")
    where = f"{str(folder / 'config.json')!r}: model_type is {kind!r}"
    original = isinstance(kind, str) and kind.lower().startswith(_ORIGINAL) and kind not in (*_OTHERS, *kinds())
    if original or (tower and "vision_config" not in settings):
        apart = f" (mm_vision_tower {tower!r}: its vision tower lies elsewhere)" if tower else ""
        raise InputError(f"{where}{apart}: {_CONVERT}.")
    if kind in kinds():
        return
    if (why := lacking(kind, kinds())) is not None:
        raise InputError(f"{where}: {why}.")
    known = ", ".join(kinds())
    said = f"{where}, so {str(folder)!r} is a {kind!r} model, none of those that work here ({known}){aside(kind)}"
    classes = settings.get("architectures")
    classes = [c for c in classes if isinstance(c, str)] if isinstance(classes, list) else []
    if kind in _TOWERS:
        raise InputError(
            f"{said}: a vision tower alone. Build a LLaVA with it: `vinnow build --tower {folder} --llm …`."
        )
    if any(c.endswith("ForCausalLM") for c in classes) and "vision_config" not in settings:
        raise InputError(
            f"{said}: a language model alone, which sees no pictures. Build a LLaVA of it: `vinnow build --llm {folder} "
            "--tower …`."
        )
    near = get_close_matches(kind, kinds(), 3) if isinstance(kind, str) else []
    raise InputError(f"{said}{f'; nearest of those that are known: {near}' if near else ''}.")
