"""Whether a checkpoint's files are what they say: settings are objects, weights are tensors, shards are all there.

Headers alone are read, so that a driver can look at a model of any size.
"""

import os
from pathlib import Path
from typing import Any

from ..store.errors import DamagedError, InputError
from ..store.names import is_name
from ..store.reading import refuse_irregular
from .folders import ADAPTER_BIN, MOMENTS, NON_LORA_BIN, SETTINGS, check_head, marker, read_object
from .hub import refuse_foreign
from .tensors import header, refuse_whole_numbers, whole_numbers


def check_files(folder: Path) -> None:
    """Refuse settings and weights of a folder that are no JSON objects or no tensors, and shards that are missing.

    Raises:
        InputError: names the file and what it is instead.
    """
    check_settings(folder)
    _check_weights(folder)


def has_weights(folder: Path) -> bool:
    """Say whether any file of weights lies in a folder, of whatever kind, or an index that names one."""
    return any(list(folder.glob(f"*{end}")) for end in (".safetensors", ".safetensors.index.json", ".bin", ".pt"))


def check_settings(folder: Path) -> None:
    """Refuse settings of a folder that are no JSON objects, or name code of their own.

    Raises:
        InputError: names the file and what it is instead.
    """
    for name in SETTINGS:
        refuse_irregular(str(folder / name))  # it would be left aside
        if (folder / name).is_file():
            settings = read_object(folder / name)
            _refuse_code(folder / name, settings)


def _check_weights(folder: Path) -> None:
    if (folder / "config.json").is_file() and marker(folder) is None:
        refuse_foreign(folder, read_object(folder / "config.json"))
        if not list(folder.glob("*.safetensors")):
            raise InputError(
                f"{str(folder)!r} cannot be loaded: it holds no weights in safetensors. Pickled ones (pytorch_model.bin) "
                "are not read: load them with transformers elsewhere and save them again by save_pretrained."
            )
    packed = (folder / "config.json").is_file() and read_object(folder / "config.json").get("quantization_config")
    for file in sorted(folder.glob("*.safetensors")):
        header(file)
        if not packed and file.name != MOMENTS:
            refuse_whole_numbers(repr(str(file)), whole_numbers(file))
    for name in (ADAPTER_BIN, NON_LORA_BIN, "tokenizer.model"):
        if os.path.lexists(folder / name):
            check_head(folder / name)
    for file in sorted(folder.glob("*.safetensors.index.json")):
        _check_index(file)


def _refuse_code(file: Path, settings: dict[str, Any]) -> None:
    if settings.get("auto_map") and file.name != "tokenizer.json":
        raise InputError(
            f"{str(file)!r} names code of its own ({settings['auto_map']}), which is never run here. If Hugging Face's own "
            "class is right for this folder, remove auto_map from the file."
        )


def _check_index(index: Path) -> None:
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise InputError(f"{str(index)!r} has no weight_map, so its shards are unknown.")
    single = index.with_name(index.name.removesuffix(".index.json"))
    if single.is_file() and single.name not in named.values():
        raise InputError(
            f"{str(index.parent)!r} holds {single.name} and an index of other files; remove what is stale."
        )
    for shard in named.values():
        if not is_name(shard):
            raise DamagedError(f"{str(index)!r} names {shard!r:.200} as a file of its folder. Fetch or save it again.")
    for shard in sorted(set(named.values())):
        if not (index.parent / shard).is_file():
            count = sum(v == shard for v in named.values())
            raise InputError(f"{str(index)!r} names {shard!r} with {count} tensors, and there is no such file.")
        absent = sorted({k for k, v in named.items() if v == shard} - header(index.parent / shard).keys())
        if absent:
            raise InputError(f"{str(index.parent / shard)!r} lacks {absent[:5]}, which {index.name} says it holds.")
