"""Rows of a pool back into LLaVA's own JSON, ready for LLaVA's trainer or any tool that reads its format."""

import json
import uuid
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ..store.files import open_fs
from .reader import Pool
from .records import Record, image_value

# picks are in rank order, so each chunk may touch every file: larger chunks read the pool fewer times (about
# 100 MB)
_CHUNK = 32_768


def write_llava_json(pool: Pool, ids: np.ndarray[Any, Any], path: str) -> int:
    """Write the records of `ids`, in that order, as one JSON list, whole or not at all; return how many.

    Memory is one chunk of rows, whatever the number of ids.

    Raises:
        MissingRowsError: an id is not in the pool.
    """
    fs, inner = open_fs(path)
    fs.create_dir(str(PurePosixPath(inner).parent), recursive=True)
    temporary = f"{inner}.tmp-{uuid.uuid4().hex[:12]}"
    try:
        with fs.open_output_stream(temporary, compression=None) as sink:
            sink.write(b"[")
            for start in range(0, len(ids), _CHUNK):
                lines = [_line(r) for r in pool.take(ids[start : start + _CHUNK])]
                sink.write((b",\n" if start else b"\n") + b",\n".join(lines))
            sink.write(b"\n]\n")
        fs.move(temporary, inner)
    except BaseException:
        if fs.get_file_info(temporary).is_file:
            fs.delete_file(temporary)
        raise
    return len(ids)


def to_llava(record: Record) -> dict[str, Any]:
    """Return a record in LLaVA's keys: what the source carried (`id`, …), `image` when there is one
    (a list when there are several), `conversations`.

    A source record without `id` gets its `sample_id` in hexadecimal.
    """
    shown = {"image": image_value(record.images)} if record.images else {}
    given = {"id": f"{record.sample_id:016x}"} | record.extra
    return given | shown | {"conversations": record.conversations}


def _line(record: Record) -> bytes:
    value = to_llava(record)
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # `extra` may hold a lone surrogate, which only an escape can write
        return json.dumps(value).encode()
