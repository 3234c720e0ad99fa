"""LLaVA's JSON or JSONL, and ShareGPT's: a file, a folder or a pattern of files of records, pictures beside them."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow.fs as pafs

from ..json_stream import iter_records
from .chat import to_llava
from .source import Format, Source, folder_of, is_pattern, kind_of, shards
from .splits import of_split

SUFFIXES = tuple(f"{s}{z}" for s in (".json", ".jsonl") for z in ("", ".gz", ".bz2", ".zst"))
# what tools leave beside records
_DESCRIBE = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")


def _read(source: Source) -> Iterator[Any]:
    return chain.from_iterable(map(iter_records, files(source)))


def _read_chat(source: Source) -> Iterator[Any]:
    return map(to_llava, _read(source))


def files(source: Source) -> list[str]:
    """Return the file, or a folder's or a pattern's files of one split in sorted order.

    Raises:
        InputError: there is none, or there are several splits and none was chosen.
    """
    if not is_pattern(source.path) and kind_of(source.path) != pafs.FileType.Directory:
        return [source.path]
    return of_split(json_files(source.path), source, folder_of(source.path))


def json_files(path: str) -> list[str]:
    """Return the JSON files of a folder (not of those in it) or of a pattern.

    Raises:
        InputError: there is none.
    """
    paths = shards(path, SUFFIXES, recursive=is_pattern(path))
    return [f for f in paths if f.rpartition("/")[2] not in _DESCRIBE and not f.rpartition("/")[2].startswith(".")]


def _root(source: Source) -> None:
    return None


LLAVA = Format(
    "llava",
    "a JSON array or JSONL of {image, conversations: [{from: human or gpt, value}]} (mix665k, Instruct-150K, LCS-558K)",
    _read,
    files,
    _root,
    frozenset({"split"}),
)
SHAREGPT = Format(
    "sharegpt",
    "a JSON array or JSONL of {messages or conversations: [{role, content}], images} (ShareGPT, LLaMA-Factory)",
    _read_chat,
    files,
    _root,
    frozenset({"split"}),
)
