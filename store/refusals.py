"""Rows that a feature stage could not compute, with reasons: `ROOT/refused/KIND/step=NNNNNNNN/PART.parquet`."""

import os
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa

from .files import exists, join, list_files, open_fs
from .tables import REFUSED, read_rows, write_rows

FOLDER = "refused"


def write_refused(
    root: str | os.PathLike[str], kind: str, step: int, part: str, rows: list[tuple[int, str, str, str]]
) -> None:
    """Write one part's refusals `(sample_id, source, reason, detail)`; call it before the part itself appears.

    Without rows, what an earlier try of this part refused is taken back (its picture has been mended since).
    """
    path = join(root, FOLDER, kind, f"step={step:08d}", f"{part}.parquet")
    if not rows:
        if exists(path):
            fs, inner = open_fs(path)
            fs.delete_file(inner)
        return
    ids, sources, reasons, details = zip(*rows)
    table = pa.table(
        {
            "sample_id": pa.array(ids, pa.uint64()),
            "source": list(sources),
            "row": pa.array([-1] * len(rows), pa.int64()),
            "reason": list(reasons),
            "detail": list(details),
        }
    )
    write_rows(path, table, REFUSED)


def read_refused(root: str | os.PathLike[str], kind: str) -> pa.Table:
    """Read all refusals of a kind, over all steps (REFUSED; empty when there are none)."""
    paths = list_files(join(root, FOLDER, kind), ".parquet", recursive=True)
    return pa.concat_tables([read_rows(p, REFUSED) for p in paths]) if paths else REFUSED.empty_table()


def refused_parts(root: str | os.PathLike[str], kind: str, reasons: Collection[str]) -> set[str]:
    """Return the names of parts that refused a row for one of the reasons, at any step."""
    found = set()
    for path in list_files(join(root, FOLDER, kind), ".parquet", recursive=True):
        if not set(reasons).isdisjoint(read_rows(path, REFUSED)["reason"].to_pylist()):
            found.add(path.rsplit("/", 1)[1].removesuffix(".parquet"))
    return found


def refused_ids(root: str | os.PathLike[str], kinds: list[str]) -> np.ndarray[Any, Any]:
    """Return the ids (u64, ascending, unique) that any of the kinds refused at any step."""
    found = [read_refused(root, k)["sample_id"].to_numpy() for k in kinds]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *found]).astype(np.uint64))
