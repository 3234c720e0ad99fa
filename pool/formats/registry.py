"""The formats by name, and which of them a source is. A new format is one file here and one entry below."""

from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from ...store.errors import InputError, suggest
from ...store.files import exists, join, list_files, look_at, open_fs
from ..json_stream import iter_records
from .chat import is_chat
from .llava import LLAVA, SHAREGPT, SUFFIXES, json_files
from .parquet import PARQUET
from .scienceqa import SCIENCEQA
from .source import Format, Source, is_pattern, kind_of, shards
from .webdataset import WEBDATASET

FORMATS = {f.name: f for f in (LLAVA, SHAREGPT, SCIENCEQA, PARQUET, WEBDATASET)}
_SHARDS = {".parquet": PARQUET, ".tar": WEBDATASET}
_LOOKED_AT = 16


def choose(source: Source, name: str = "auto") -> Format:
    """Return the format of a source, by name or as `detect` finds it, after checking its options.

    Raises:
        InputError: no such format, or an option that means nothing in it.
    """
    if name != "auto" and name not in FORMATS:
        raise InputError(f"unknown format {name!r}{suggest(name, FORMATS)}")
    source_format = detect(source.path) if name == "auto" else FORMATS[name]
    for option in ("split", "layout"):
        # one file of JSON has no splits
        single = source_format in (LLAVA, SHAREGPT) and kind_of(source.path) == pafs.FileType.File
        if getattr(source, option) is not None and (single or option not in source_format.takes):
            raise InputError(f"{option} {getattr(source, option)!r} means nothing in format {source_format.name!r}.")
    return source_format


def detect(path: str) -> Format:
    """Say which format a source is, by its name, its files and its first records.

    Raises:
        InputError: there is nothing there, or it is none of the formats; says what each looks like.
    """
    kind = kind_of(path)
    if is_pattern(path):
        paths = [f for s in _SHARDS for f in _some(path, s)]
        if not paths and _some(path, SUFFIXES):
            return _by_votes(json_files(path))
        if not paths:
            known = " or ".join([*_SHARDS, ".json", ".jsonl"])
            raise InputError(f"cannot read {path!r}: no file of that pattern ends in {known}.")
        return _shards(path, paths)
    if kind == pafs.FileType.Directory:
        if all(exists(join(path, n)) for n in ("problems.json", "pid_splits.json")):
            return SCIENCEQA
        paths = list_files(path, recursive=True)
        if not any(f.endswith(tuple(_SHARDS)) for f in paths) and _some(path, SUFFIXES, recursive=False):
            return _by_votes(json_files(path))
        return _shards(path, paths)
    if kind != pafs.FileType.File:
        wrong = "there is no such file" if kind == pafs.FileType.NotFound else "it is no regular file"
        raise InputError(f"cannot read {path!r}: {wrong}.")
    for suffix, shard_format in _SHARDS.items():
        if path.lower().endswith(suffix):
            return shard_format
    if ".json" not in path.lower() and _first_byte(path) not in b"[{":
        raise _unknown(path)
    return _by_votes([path])


def _by_votes(files: list[str]) -> Format:
    """Say which of the two formats of JSON: of several files each is asked, and one of ShareGPT's makes all so."""
    shared = False
    for path in files:
        votes: list[bool] = []
        try:
            for record in islice(iter_records(path), _LOOKED_AT):
                votes.append(is_chat(record))
        except InputError:  # whoever reads on meets the break at its row, after what is sound before it
            if not votes:
                raise
        # one odd record among LLaVA's own is a damaged one
        shared = shared or 2 * sum(votes) > len(votes)
    return SHAREGPT if shared else LLAVA


def facts(source: Source, source_format: Format) -> dict[str, Any]:
    """Return size and time of the files that the records come from: what tells one source from another."""
    infos = []
    for path in source_format.files(source):
        infos.append(look_at(path))
    many = {"files": len(infos)} if len(infos) > 1 else {}
    return many | {"size": sum(i.size or 0 for i in infos), "mtime": str(max(i.mtime for i in infos))}


def _some(path: str, suffix: str | tuple[str, ...], recursive: bool = True) -> list[str]:
    try:
        return shards(path, suffix, recursive)
    except InputError:  # another kind of shard may be there
        return []


def _shards(path: str, files: list[str]) -> Format:
    formats = {f.name: f for s, f in _SHARDS.items() if any(name.endswith(s) for name in files)}
    if len(formats) > 1:
        raise InputError(f"{path!r} holds shards of {' and '.join(formats)}: say which (--format).")
    if not formats:
        raise _unknown(path)
    return next(iter(formats.values()))


def _first_byte(path: str) -> bytes:
    fs, inner = open_fs(path)
    try:
        with fs.open_input_stream(inner) as stream:
            return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] or b" "
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path!r}: {error}.") from error


def _unknown(path: str) -> InputError:
    known = "\n".join(f"  {f.name}: {f.looks}" for f in FORMATS.values())
    return InputError(
        f"{path!r} is in no format that is known here:\n{known}\nIf it is one of them, say so (--format)."
    )
