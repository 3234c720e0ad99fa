"""Reading a POOL folder: ids, columns, parts, and records by id, without holding the pool in memory."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..store.errors import InputError
from ..store.features import match_rows
from ..store.files import exists, join, list_files, open_fs, read_json
from ..store.ids import ids_digest
from .records import Record


@dataclass(frozen=True)
class PartRef:
    """Consecutive rows of the pool; the name holds a digest of their ids, so it names their content."""

    index: int
    name: str
    start: int
    rows: int


class Pool:
    """A finished pool. Row order is that of the files; only ids leave this class."""

    def __init__(self, root: str) -> None:
        manifest = join(root, "pool.json")
        if not exists(manifest):
            raise InputError(f"no finished pool in {os.fspath(root)!r}. Make one with `vinnow ingest`.")
        facts = read_json(manifest)
        self.root, self.digest, self.rows = os.fspath(root), str(facts["digest"]), int(facts["rows"])
        self.image_root: str | None = facts["image_root"]
        self.facts = facts
        self._files = [f for f in list_files(root, ".parquet") if "/part-" in f]

    def ids(self) -> np.ndarray[Any, Any]:
        """Return all sample ids (u64 [N]) in file order."""
        return self.column("sample_id")

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """Return one column [N] in the order of `ids()`; strings as objects, missing images as None."""
        found = [self._read(f, [name])[name] for f in self._files]
        whole = pa.chunked_array([c for f in found for c in f.chunks], type=found[0].type)
        return (
            whole.to_numpy()
            if not pa.types.is_string(whole.type)
            else np.array(whole.to_pylist(), dtype=object)
        )

    def parts(self, rows_per_part: int) -> list[PartRef]:
        """Split the pool into parts of consecutive rows."""
        ids = self._ids
        starts = range(0, self.rows, rows_per_part)
        return [
            PartRef(
                i,
                f"part-{i:06d}-{ids_digest(ids[s : s + rows_per_part])[:8]}",
                s,
                len(ids[s : s + rows_per_part]),
            )
            for i, s in enumerate(starts)
        ]

    def read(self, part: PartRef) -> list[Record]:
        """Read the records of one part."""
        return self._rows(np.arange(part.start, part.start + part.rows))

    def take(self, ids: Any) -> list[Record]:
        """Read records by id, in the order given; only the row groups that hold them are read.

        Raises:
            MissingRowsError: an id is not in this pool.
        """
        wanted = np.asarray(ids, dtype=np.uint64)
        return self._rows(match_rows(self._ids, wanted, f"pool {self.root}"))

    def iter_batches(self, rows: int) -> Iterator[list[Record]]:
        """Yield all records, `rows` at a time, in file order."""
        for start in range(0, self.rows, rows):
            yield self._rows(np.arange(start, min(start + rows, self.rows)))

    @cached_property
    def _ids(self) -> np.ndarray[Any, Any]:
        return self.ids()

    @cached_property
    def _starts(self) -> np.ndarray[Any, Any]:
        return np.cumsum([0, *(self._open(f).metadata.num_rows for f in self._files)])

    def _rows(self, at: np.ndarray[Any, Any]) -> list[Record]:
        found: dict[int, Record] = {}
        file_of = np.searchsorted(self._starts, at, side="right") - 1
        for number in np.unique(file_of):
            inside = np.unique(at[file_of == number]) - self._starts[number]
            rows = self._file(int(number)).take(pa.array(inside)).to_pylist()
            found |= {int(i + self._starts[number]): _record(r) for i, r in zip(inside, rows, strict=True)}
        return [found[int(i)] for i in at]

    def _file(self, number: int) -> pa.Table:
        # the last file stays open: parts and batches come in file order
        if getattr(self, "_last", (None,))[0] != number:
            self._last = (number, self._open(self._files[number]).read())
        return self._last[1]

    def _open(self, path: str) -> pq.ParquetFile:
        fs, inner = open_fs(path)
        return pq.ParquetFile(fs.open_input_file(inner))

    def _read(self, path: str, columns: list[str]) -> pa.Table:
        return self._open(path).read(columns=columns)


def _record(row: dict[str, Any]) -> Record:
    return Record(
        row["sample_id"],
        row["source"],
        row["task"],
        row["image"],
        row["conversations"],
        json.loads(row["extra"]),
    )
