"""Rows of a pool into files that other tools open: LLaVA's JSON, ShareGPT's (LLaMA-Factory), Parquet (`datasets`).

Each is written whole or not at all, a chunk of rows in memory at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..store.arrays import Array
from ..store.errors import InputError, suggest
from ..store.files import exists, finite, join, read_json, whole_file, write_json
from .checks import IMAGE, ImageError
from .images import read_image
from .pictures_out import PictureFiles, some_inside
from .reader import Pool
from .records import Record, image_value

FORMATS = ("llava", "sharegpt", "parquet")
# what a file's name says; the first is meant where nothing else is asked for. `.jsonl` has a record a line
SUFFIXES = {".json": ("llava", "sharegpt"), ".jsonl": ("llava", "sharegpt"), ".parquet": ("parquet",)}
PICTURES = ("auto", "write", "name")
# picks are in rank order, so each chunk may touch every file: larger chunks read the pool fewer times (about
# 100 MB)
_CHUNK = 32_768
# rows of a group whose pictures are inside: a reader of one picture reads its group
_PICTURED_ROWS = 100
_ROLES = {"human": "user", "gpt": "assistant"}
_TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
_PICTURES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


@dataclass(frozen=True)
class Exported:
    """`rows` written; `odd_marks`: of these, how many hold a literal `<image>` that is no picture;
    `pictures`: the folder of picture files beside the export, if any was written.

    LLaVA reads such marks as text; LLaMA-Factory stops at a row that has more marks than pictures.
    """

    rows: int
    odd_marks: int
    pictures: str | None = None


def export(pool: Pool, ids: Array, path: str, form: str, embed: bool = False, pictures: str = "auto") -> Exported:
    """Write the records of `ids`, in that order, as `form`, one of `FORMATS`; `embed`: pictures go into the Parquet.

    `pictures` of the JSON formats: "write" them as files beside `path`, "name" them as the pool does, or "auto":
    write them when some lie inside archives, which no other tool opens.

    Raises:
        InputError: no such format, `embed` where it means nothing, or a picture that cannot be read.
        MissingRowsError: an id is not in the pool.
    """
    if form not in FORMATS:
        raise InputError(f"unknown export format {form!r}{suggest(form, FORMATS)}")
    if embed and form != "parquet":
        raise InputError(f"pictures can be embedded in Parquet only, not in {form!r}.")
    odd, files = np.zeros(1, np.int64), None
    if form == "parquet":
        _write_parquet(path, _records(pool, ids, odd), pool.image_root, embed)
    else:
        files = _files_for(pool, ids, path, pictures)
        chunks = _records(pool, ids, odd)
        if files is not None:
            chunks = (list(map(files.placed, records)) for records in chunks)
        _write_json(path, chunks, to_llava if form == "llava" else to_sharegpt)
    if form == "sharegpt":
        _describe(path)
    return Exported(len(ids), int(odd[0]), None if files is None else files.name)


def format_of(path: str, form: str | None) -> str:
    """Return the format of a file by its name, or the one that is asked for, if the name goes with it.

    Raises:
        InputError: no such format, a suffix that means none, or one that means another.
    """
    suffix = PurePosixPath(path).suffix
    if form is not None and form not in FORMATS:
        raise InputError(f"unknown export format {form!r}{suggest(form, FORMATS)}")
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path!r}: export writes {', '.join(SUFFIXES)}; {suffix or 'a name without a suffix'!r} says none."
        )
    fits = SUFFIXES[suffix]
    if form is not None and form not in fits:
        raise InputError(f"{path!r} is the name of {' or '.join(fits)}, and --format says {form}.")
    return form or fits[0]


def _files_for(pool: Pool, ids: Array, path: str, pictures: str) -> PictureFiles | None:
    if pictures not in PICTURES:
        raise InputError(f"unknown pictures {pictures!r}{suggest(pictures, PICTURES)}")
    if pictures == "auto":
        chunks = (pool.take(ids[start : start + _CHUNK]) for start in range(0, len(ids), _CHUNK))
        pictures = "write" if any(some_inside(pool.image_root, c) for c in chunks) else "name"
    return PictureFiles(path, pool.image_root) if pictures == "write" else None


def write_llava_json(pool: Pool, ids: Array, path: str) -> int:
    """Write the records of `ids`, in that order, as one JSON list of LLaVA's own format; return how many.

    Raises:
        MissingRowsError: an id is not in the pool.
    """
    return export(pool, ids, path, "llava").rows


def to_llava(record: Record) -> dict[str, Any]:
    """Return a record in LLaVA's keys: what the source carried (`id`, …), `image` when there is one
    (a list when there are several), `conversations`.

    A source record without `id` gets its `sample_id` in hexadecimal.
    """
    shown = {"image": image_value(record.images)} if record.images else {}
    carried = {"id": f"{record.sample_id:016x}"} | record.extra
    return carried | shown | {"conversations": record.conversations}


def to_sharegpt(record: Record) -> dict[str, Any]:
    """Return a record in LLaMA-Factory's keys, the same ones with the same types in every row.

    A system prompt that the source carried is the first message.
    """
    messages = [{"role": "system", "content": record.system}] if record.system else []
    messages += [{"role": _ROLES[t["from"]], "content": t["value"]} for t in record.conversations]
    return {"id": _name(record), "messages": messages, "images": list(record.images)}


def dataset_info(file_name: str) -> dict[str, Any]:
    """Return LLaMA-Factory's description of a file of `to_sharegpt` records."""
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def _describe(path: str) -> None:
    """Put the file into the `dataset_info.json` beside it; other entries stay."""
    folder, _, name = path.rpartition("/")
    info = join(folder, "dataset_info.json") if folder else "dataset_info.json"
    known = read_json(info) if exists(info) else {}
    if not isinstance(known, dict):
        raise InputError(f"{info!r} is no JSON object; LLaMA-Factory could not read it. Move it away.")
    write_json(info, known | {PurePosixPath(name).stem: dataset_info(name)})


def _records(pool: Pool, ids: Array, odd: Array) -> Iterator[list[Record]]:
    for start in range(0, len(ids), _CHUNK):
        records = pool.take(ids[start : start + _CHUNK])
        odd += sum(sum(t["value"].count(IMAGE) for t in r.conversations) != len(r.images) for r in records)
        yield records


def _write_json(path: str, chunks: Iterator[list[Record]], form: Any) -> None:
    lines = path.endswith(".jsonl")
    begin, between, finish = (b"", b"\n", b"\n") if lines else (b"[\n", b",\n", b"\n]\n")
    with whole_file(path) as sink:
        sink.write(begin)
        for number, records in enumerate(chunks):
            sink.write((between if number else b"") + between.join(_line(form(r)) for r in records))
        sink.write(finish)


def _write_parquet(path: str, chunks: Iterator[list[Record]], root: str | None, embed: bool) -> None:
    pictures = _PICTURES if embed else pa.list_(pa.string())
    kinds = [(n, pa.string()) for n in ("id", "source", "task")]
    schema = pa.schema([*kinds, ("conversations", _TURNS), ("images", pictures), ("extra", pa.string())])
    if embed:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": _features(kinds)}})})
    size = _PICTURED_ROWS if embed else _CHUNK
    with whole_file(path) as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for records in chunks:
            for start in range(0, len(records), size):
                rows = [_row(r, root, embed) for r in records[start : start + size]]
                writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=size)


def _row(record: Record, root: str | None, embed: bool) -> dict[str, Any]:
    images: list[Any] = list(record.images)
    if embed:
        try:
            images = [{"bytes": read_image(root, i), "path": i} for i in record.images]
        except ImageError as error:
            raise InputError(f"record {record.sample_id}: {error} Mend it, or export without embedding.") from error
    return {
        "id": _name(record),
        "source": record.source,
        "task": record.task,
        # a column of its own would be empty in nearly every row; as a first turn it is what other readers know
        "conversations": ([{"from": "system", "value": record.system}] if record.system else []) + record.conversations,
        "images": images,
        "extra": _text(record.extra, escape=True),
    }


def _features(texts: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the columns as `datasets` describes them, so that it shows pictures, not structs of bytes."""
    text = {"dtype": "string", "_type": "Value"}
    named = {name: text for name, _ in texts} | {"conversations": [{"from": text, "value": text}]}
    return named | {"images": [{"_type": "Image"}], "extra": text}


def _name(record: Record) -> str:
    return str(record.extra.get("id", f"{record.sample_id:016x}"))


def _line(value: dict[str, Any]) -> bytes:
    try:
        return _text(value).encode()
    except UnicodeEncodeError:  # `extra` may hold a lone surrogate, which only an escape can write
        return _text(value, escape=True).encode()


def _text(value: dict[str, Any], escape: bool = False) -> str:
    try:
        return json.dumps(value, ensure_ascii=escape, allow_nan=False)
    except ValueError:  # Python reads a record's NaN; no other tool reads the file that holds it
        return json.dumps(finite(value), ensure_ascii=escape)
