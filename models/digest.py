"""The name of a checkpoint's content: all that changes a number that its model gives, and nothing else.

Weights, adapters and their settings (alpha!), the processor and the tokenizer, down to the base. JSON is digested by its
values: neither the order of keys nor white space counts, nor paths, hosts and versions that saving wrote into it, so that
a folder copied elsewhere keeps its name. Readmes, logs, optimizers and moments (`moments.state_digest`) do not count.
"""

import json
from fnmatch import fnmatch
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..store.files import read_json
from ..store.reading import reading
from .folders import (
    ADAPTER,
    MOMENTS,
    MORES,
    TRAINED,
    base_folder,
    check_folder,
    check_head,
    facts_of,
    marker,
    processor_folder,
)

_MODEL = (
    *("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json"),
    *("generation_config.json", "quantize_config.json", ADAPTER, TRAINED, MORES),
)
_PROCESSOR = (
    *("processor_config.json", "preprocessor_config.json", "chat_template.*", "*.jinja", "additional_chat_templates/*"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("*.model", "vocab.*", "merges.txt", "*.tiktoken"),
)
# what trainers leave beside a model
_NOT = (
    *(MOMENTS, "optimizer*", "scheduler*", "scaler*", "training_args*", "rng_state*", "random_states*", "*.tmp-*"),
    *("*zero_pp_rank*", "*_states.pt"),
)
# where things lay, who wrote them and how they were loaded: no part of what they compute
_PLACES = {
    *("_name_or_path", "name_or_path", "base_model_name_or_path", "_commit_hash", "revision", "cache_dir"),
    *("transformers_version", "peft_version", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file"),
    *("is_local", "local_files_only", "inference_mode", "auto_mapping"),
}
# whose keys are words, not fields
_WORDS = ("tokenizer.json", "vocab.json", "added_tokens.json")


def model_digest(path: str) -> str:
    """Digest a checkpoint's content, base and processor included: 16 hexadecimal digits.

    Raises:
        InputError: no checkpoint there, no base where one is named, or settings that are no JSON.
    """
    home = processor_folder(path)
    h = blake2b(digest_size=8)
    h.update(weights_digest(path).encode())
    h.update(_content(_stamped(_chosen(home, _PROCESSOR))))
    return h.hexdigest()


def weights_digest(path: str | Path) -> str:
    """Digest what `model_digest` does, without tokenizer and image processor. Errors: as there."""
    folder = check_folder(path)
    h = blake2b(digest_size=8)
    kind = marker(folder)
    if kind == ADAPTER:
        base = base_folder(folder)
        assert base is not None
        h.update(weights_digest(base).encode())
    elif kind is not None:
        # the base's as it was at the training; loading compares it with the base's as it is
        h.update(facts_of(folder, kind)["base_digest"].encode())
    names = _MODEL if kind is not None else (*_MODEL, "config.json")
    # a base of 14 GB is read once a process, not once for each checkpoint that names it
    h.update(_content(_stamped(_chosen(folder, names))))
    return h.hexdigest()


def _chosen(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(f for f in files if not any(fnmatch(f.name, n) for n in _NOT))


def _stamped(files: list[Path]) -> tuple[tuple[str, int, int], ...]:
    return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)


@lru_cache(256)
def _content(files: tuple[tuple[str, int, int], ...]) -> bytes:
    h = blake2b(digest_size=8)
    for file in (Path(name) for name, _, _ in files):
        # hashed one by one: where one file ends and the next begins is part of the content
        one = blake2b(digest_size=16)
        if file.suffix == ".json":
            one.update(_canonical(file))
        else:
            with file.open("rb") as source:
                while block := source.read(1 << 24):
                    one.update(block)
        h.update(file.name.encode() + b"\0" + one.digest())
    return h.digest()


def _canonical(file: Path) -> bytes:
    """Return a JSON file's values as bytes."""
    check_head(file)
    value, left_out = read_json(file), _PLACES if file.name not in _WORDS else set()
    if file.name in (TRAINED, MORES):
        left_out = left_out | {"base", "relative"}
    with reading(file, "settings"):
        # PEFT writes its sets of names in any order
        plain = _plain(value, left_out, sets=file.name == ADAPTER)
        return json.dumps(plain, sort_keys=True, ensure_ascii=True).encode()


def _plain(value: Any, left_out: set[str], sets: bool) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v, left_out, sets) for k, v in value.items() if k not in left_out}
    if isinstance(value, list):
        if sets and all(isinstance(v, str) for v in value):
            return sorted(value)
        return [_plain(v, left_out, sets) for v in value]
    return value
