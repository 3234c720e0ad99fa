"""Rows of a pool back into LLaVA's own JSON, ready for LLaVA's trainer or any tool that reads its format."""

import json
from typing import Any

import numpy as np

from ..store.files import write_bytes
from .reader import Pool
from .records import Record


def write_llava_json(pool: Pool, ids: np.ndarray[Any, Any], path: str) -> int:
    """Write the records of `ids`, in that order, as one JSON list; returns how many.

    Raises:
        MissingRowsError: an id is not in the pool.
    """
    lines: list[str] = []
    for start in range(0, len(ids), 4096):
        lines += [json.dumps(to_llava(r), ensure_ascii=False) for r in pool.take(ids[start : start + 4096])]
    write_bytes(path, ("[\n" + ",\n".join(lines) + "\n]\n").encode())
    return len(lines)


def to_llava(record: Record) -> dict[str, Any]:
    """Return a record in LLaVA's keys: what the source carried (`id`, …), `image` when there is one, `conversations`."""
    shown = {"image": record.image} if record.image is not None else {}
    given = {"id": f"{record.sample_id:016x}"} | record.extra
    return given | shown | {"conversations": record.conversations}
