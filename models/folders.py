"""A checkpoint's folder before anything is loaded: its kind, the folders underneath, and what its small files say.

Four kinds: a whole model, and three that name a base: a PEFT adapter, the trained weights of one training alone
(`trained.py`), and MoReS (`mores_files.py`). Only the first bytes, headers and JSON are read here.
"""

import os
from pathlib import Path
from typing import Any

from ..store.errors import InputError
from ..store.fetch import local_folder
from ..store.files import absolute, is_uri, read_json
from ..store.reading import check_path, reading, refuse_irregular
from .hub import fetching, hub_copy, is_hub_name

# how every folder is loaded by Hugging Face's classes: from the disk alone, and without running code that it brings
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
ADAPTER, TRAINED, MORES = "adapter_config.json", "trained.json", "mores.json"
ADAPTER_WEIGHTS, ADAPTER_BIN = "adapter_model.safetensors", "adapter_model.bin"
# what a LoRA training changed besides its adapters (the projector), by canonical name; LLaVA's own is a .bin
NON_LORA, NON_LORA_BIN, NON_LORA_NAMES = "non_lora.safetensors", "non_lora_trainables.bin", "non_lora.json"
# Adam's moments beside the weights (`moments.py`); no part of what the model computes
MOMENTS = "moments.safetensors"
# settings that are JSON objects, of model, processor and tokenizer
SETTINGS = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
    "quantize_config.json",
    ADAPTER,
    TRAINED,
    MORES,
)
_LFS = b"version https://git-lfs"


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint's folder, or say what is wrong with it; a hub's name is its copy in Hugging Face's cache.

    Raises:
        InputError: no such folder, no checkpoint in it, or two kinds of one.
    """
    folder = find_folder(path)
    if folder is None:
        what = "it is a file" if os.path.lexists(path) else "there is no such folder"
        raise InputError(f"no checkpoint at {str(path)!r}: {what}. Train one with `vinnow train`.{fetching(path)}")
    if not (folder / "config.json").is_file() and not (folder / ADAPTER).is_file():
        below = sorted(p.parent.name for n in ("config.json", ADAPTER) for p in folder.glob(f"*/{n}"))
        hint = f" There are some in its folders {below[:5]}: name one of them." if below else ""
        raise InputError(f"{str(path)!r} is no checkpoint: it has neither config.json nor {ADAPTER}.{hint}")
    kinds = [n for n in (TRAINED, MORES, ADAPTER) if (folder / n).is_file()]
    whole = sorted(p.name for p in folder.glob("model*.safetensors"))
    if len(kinds) > 1 or (kinds and whole):
        raise InputError(
            f"{str(path)!r} holds two checkpoints at once: {[*kinds, *whole[:2]]}. Which one is meant cannot be told; move "
            "one of them to a folder of its own."
        )
    return folder


def find_folder(path: str | os.PathLike[str]) -> Path | None:
    """Return the folder that a path, or the name of a model in Hugging Face's cache, means; None if there is none.

    What lies at a URI is fetched into this machine's cache (`store/fetch.py`).

    Raises:
        InputError: no path at all, or a URI that cannot be read.
        WriteError: there is no room for what a URI holds.
    """
    if is_uri(path):
        fetched = local_folder(os.fspath(path))
        return None if fetched is None else Path(fetched)
    folder = Path(check_path(path))
    return folder if os.path.isdir(folder) else hub_copy(path)


def local_model(path: str | os.PathLike[str]) -> str:
    """Return a checkpoint's folder as workers find it, who start elsewhere; a hub's name that is not here stays one.

    So does a URI: each machine fetches it for itself.
    """
    if is_uri(path):
        return absolute(path)
    folder = find_folder(path)
    return os.fspath(path) if folder is None and is_hub_name(path) else os.path.abspath(folder or path)


def marker(folder: Path) -> str | None:
    """Return the file that says that a folder has a base (ADAPTER, TRAINED or MORES); None for a whole model."""
    return next((n for n in (TRAINED, MORES, ADAPTER) if (folder / n).is_file()), None)


def adapter_base(folder: Path) -> Path:
    """Return the base checkpoint that an adapter names; a relative path counts from the adapter's folder.

    Raises:
        InputError: it names none, or one that is not there.
    """
    name = read_object(folder / ADAPTER).get("base_model_name_or_path")
    if not name or not isinstance(name, str):
        raise InputError(f"{str(folder / ADAPTER)!r} does not name its base model (base_model_name_or_path).")
    check_path(name)
    base = Path(name) if os.path.isabs(name) else folder / name
    base = base if os.path.isdir(base) else find_folder(name) if is_uri(name) else hub_copy(name)
    if base is None:
        raise InputError(
            f"{str(folder / ADAPTER)!r}: its base (base_model_name_or_path) is {name!r}, and no such folder is here. "
            f"Models are local folders: set it to the folder of the LLaVA that the adapter was trained on.{fetching(name)}"
        )
    if base.resolve() == folder.resolve():
        raise InputError(f"{str(folder / ADAPTER)!r} names its own folder as its base model (base_model_name_or_path).")
    if marker(base) == ADAPTER:
        raise InputError(
            f"{str(folder / ADAPTER)!r}: its base {name!r} is an adapter itself; merge that first (`vinnow merge`)."
        )
    return base


def facts_of(folder: Path, file: str) -> dict[str, Any]:
    """Return what `trained.json` or `mores.json` says of the model underneath.

    Raises:
        InputError: it says not enough, or names its own folder.
    """
    facts = read_object(folder / file)
    absent = [n for n in ("base", "base_digest", "relative") if not isinstance(facts.get(n), str)]
    if absent:
        raise InputError(f"{str(folder / file)!r} lacks {absent}, so its base is unknown. Save the checkpoint again.")
    return facts


def base_folder(folder: Path) -> Path | None:
    """Return the folder underneath, of whatever kind; None for a whole model.

    Raises:
        InputError: it is not there.
    """
    kind = marker(folder)
    if kind is None:
        return None
    if kind == ADAPTER:
        return adapter_base(folder)
    facts = facts_of(folder, kind)
    # a run's folder that was moved as a whole still finds a base inside it
    places = [facts["base"], os.path.normpath(folder / facts["relative"])]
    known = (find_folder(p) if is_uri(p) else Path(p) for p in places)
    bases = [p for p in known if p is not None and p.is_dir()]
    if not bases:
        raise InputError(f"{str(folder)!r} holds trained weights alone, and their base is gone: {places[0]!r}.")
    if bases[0].resolve() == folder.resolve():
        raise InputError(f"{str(folder / kind)!r} names its own folder as its base.")
    return bases[0]


def chain(path: str | os.PathLike[str]) -> list[Path]:
    """Return a checkpoint's folder, its base, and so on down to the whole model.

    Raises:
        InputError: one of them is no checkpoint, or they go round in a circle.
    """
    folders = [check_folder(path)]
    while (base := base_folder(folders[-1])) is not None:
        if len(folders) > 8:
            raise InputError(f"{str(path)!r}: the bases that its folders name go round in a circle, or are too many.")
        folders.append(check_folder(base))
    return folders


def processor_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder that tokenizer and image processor come from: the checkpoint's, or a base's where it has none."""
    folder = check_folder(path)
    while not any((folder / n).is_file() for n in ("tokenizer_config.json", "processor_config.json")):
        base = base_folder(folder)
        if base is None:
            break
        folder = check_folder(base)
    return folder


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: it is no such thing; says what it is instead.
    """
    check_head(file)
    value = read_json(file)
    if not isinstance(value, dict):
        raise InputError(f"{str(file)!r} holds a JSON {type(value).__name__}, not an object with fields.")
    return value


def check_head(file: Path) -> None:
    """Refuse a file that is not there in truth: empty, a git-LFS pointer, or a web page."""
    refuse_irregular(str(file))
    if not os.path.isfile(file):
        raise InputError(f"no such file: {str(file)!r}.")
    with reading(file, "a file"), file.open("rb") as source:
        head = source.read(512)
    if not head.strip():
        raise InputError(f"{str(file)!r} is empty. Fetch or copy it again.")
    if head.startswith(_LFS):
        raise InputError(
            f"{str(file)!r} is a git-LFS pointer of {file.stat().st_size} bytes, not the file itself: run `git lfs pull` "
            "in that folder, or download the file."
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(
            f"{str(file)!r} is a web page or an error message that was saved under this name. Fetch it again."
        )
