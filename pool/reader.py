"""Reading a POOL folder: ids, columns, shards, and records by id, without holding the pool in memory.

Held are the ids (8 bytes per row, and an order to find them by), each file's footer, and the last row groups
read.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..store.arrays import Array
from ..store.errors import DamagedError, DuplicateRowsError, InputError, MissingRowsError, suggest
from ..store.facts import read_fields
from ..store.files import exists, join, list_files, reading_parquet
from ..store.ids import ids_digest
from ..store.reading import parse_json, shown
from ..store.tables import POOL, refuse_other_columns
from .images import check_root
from .records import Record

_ANEW = "Delete the pool, and ingest it again."
_FACTS = {"digest": str, "rows": int, "image_root": str | None, "reasons": dict[str, int] | None}
_SHARD = re.compile(r".*/part-\d{6}\.parquet")
# bytes of row groups that are held: a training takes rows from everywhere, and a small pool is read once
_HELD = 64_000_000


@dataclass(frozen=True)
class ShardRef:
    """Consecutive rows of the pool; the name holds a digest of their ids, so it names their content."""

    index: int
    name: str
    start: int
    rows: int


@dataclass(frozen=True)
class _Group:
    """One row group of a file: rows `start` to `start + rows` of the pool."""

    file: int
    number: int
    start: int
    rows: int


class Pool:
    """A finished pool. Row order is that of the files; only ids leave this class."""

    def __init__(self, root: str) -> None:
        manifest = join(root, "pool.json")
        if not exists(manifest):
            raise InputError(f"no finished pool in {os.fspath(root)!r}. Make one with `vinnow ingest`.")
        facts = read_fields(manifest, "pool's manifest", _ANEW, **_FACTS)
        self.root, self.digest, self.rows = os.fspath(root), facts["digest"], facts["rows"]
        self.image_root: str | None = facts["image_root"]
        self.facts = facts
        self._files = [f for f in list_files(root, ".parquet") if _SHARD.fullmatch(f)]
        self._held: dict[int, pa.Table] = {}

    def ids(self) -> Array:
        """Return all sample ids (u64 [N], read-only) in file order."""
        return self._ids

    def column(self, name: str) -> Array:
        """Return one column [N] in the order of `ids()`; strings, lists and what may be null as objects."""
        if name not in POOL.names:
            raise InputError(f"a pool has no column {name!r}{suggest(name, POOL.names)}")
        whole = self._column(name)
        if pa.types.is_integer(whole.type) and not POOL.field(name).nullable:
            return whole.to_numpy()
        if pa.types.is_string(whole.type) and not whole.null_count:
            # a few names for all rows: each is one object, however often it stands there
            codes = whole.dictionary_encode().combine_chunks()
            return np.array(codes.dictionary.to_pylist(), object)[codes.indices.to_numpy()]
        return np.fromiter((v for c in whole.chunks for v in c.to_pylist()), dtype=object, count=len(whole))

    def has_image(self) -> Array:
        """Return which rows have a picture (bool [N]) in the order of `ids()`."""
        return pc.greater(pc.list_value_length(self._column("images")), 0).to_numpy()

    def check_images(self, root: str | None = None) -> str | None:
        """Return the image root (`root`, or the one ingest left), seen to be there if any row has a picture.

        Raises:
            InputError: rows have pictures, and the root is missing.
        """
        used = root or self.image_root
        if self.has_image().any():
            check_root(used, f"pool {self.root!r}")
        return used

    def extra(self, names: Sequence[str]) -> dict[str, Array]:
        """Return fields of the source records ([N] objects each, in the order of `ids()`); None where a row has none."""
        columns = {n: np.empty(self.rows, object) for n in names}
        for row, text in enumerate(self.column("extra") if names else ()):
            fields = _fields(text, self.root)
            for name, column in columns.items():
                column[row] = fields.get(name)
        return columns

    def shards(self, rows_per_part: int) -> list[ShardRef]:
        """Split the pool into shards of consecutive rows."""
        if rows_per_part < 1:
            raise InputError(f"rows_per_part is {rows_per_part}; a part has one row or more.")
        refs = []
        for index, start in enumerate(range(0, self.rows, rows_per_part)):
            ids = self._ids[start : start + rows_per_part]
            refs.append(ShardRef(index, f"part-{index:06d}-{ids_digest(ids)[:8]}", start, len(ids)))
        return refs

    def place(self, shard: ShardRef) -> str:
        """Say which rows a shard holds, for messages."""
        ids = self._ids[shard.start : shard.start + shard.rows]
        return f"rows {shard.start} to {shard.start + shard.rows - 1} of the pool, sample_id {ids[0]} to {ids[-1]}"

    def read(self, shard: ShardRef) -> list[Record]:
        """Read the records of one shard."""
        return self._rows(np.arange(shard.start, shard.start + shard.rows))

    def take(self, ids: Any) -> list[Record]:
        """Read records by id, in the order given; only the row groups that hold them are read.

        Raises:
            MissingRowsError: an id is not in this pool.
        """
        wanted = np.asarray(ids, dtype=np.uint64)
        order, ranked = self._ranked
        places = np.minimum(np.searchsorted(ranked, wanted), len(ranked) - 1)
        known = ranked[places] == wanted
        if not known.all():
            raise MissingRowsError(
                f"pool {self.root}: {int(known.sum())} of {len(wanted)} rows are there, "
                f"not {int(wanted[~known][0])}. Do these ids belong to another pool?"
            )
        return self._rows(order[places])

    def iter_batches(self, rows: int) -> Iterator[list[Record]]:
        """Yield all records, `rows` at a time, in file order."""
        for start in range(0, self.rows, rows):
            yield self._rows(np.arange(start, min(start + rows, self.rows)))

    @cached_property
    def _ids(self) -> Array:
        ids = self.column("sample_id")
        if ids_digest(ids) != self.digest:
            raise DamagedError(
                f"pool {self.root!r} holds other rows than its pool.json says: two ingests wrote into it, or files were "
                f"exchanged. {_ANEW}"
            )
        ids.flags.writeable = False
        return ids

    @cached_property
    def _ranked(self) -> tuple[Array, Array]:
        """Where each id stands: sorting once, not at each `take`."""
        order = np.argsort(self._ids)
        ranked = self._ids[order]
        twice = int((ranked[1:] == ranked[:-1]).sum())
        if twice:
            raise DuplicateRowsError(f"pool {self.root}: {twice} ids are there twice. Ingest it again.")
        return order, ranked

    @cached_property
    def _footers(self) -> list[pq.FileMetaData]:
        footers = []
        for number in range(len(self._files)):
            with self._open(number) as file:
                footers.append(file.metadata)
        return footers

    @cached_property
    def _groups(self) -> list[_Group]:
        groups, start = [], 0
        for file, footer in enumerate(self._footers):
            for number in range(footer.num_row_groups):
                groups.append(_Group(file, number, start, footer.row_group(number).num_rows))
                start += groups[-1].rows
        self._check_rows(start)
        return groups

    @cached_property
    def _starts(self) -> Array:
        return np.array([g.start for g in self._groups])

    def _column(self, name: str) -> pa.ChunkedArray:
        chunks: list[pa.Array] = []
        for number in range(len(self._files)):
            with self._open(number) as file:
                table = file.read(columns=[name])
                table.validate(full=True)
                chunks += table[name].chunks
        whole = pa.chunked_array(chunks, type=POOL.field(name).type)
        self._check_rows(len(whole))
        if whole.null_count and not POOL.field(name).nullable:
            raise DamagedError(f"pool {self.root!r} has rows without {name}. {_ANEW}")
        return whole

    def _rows(self, positions: Array) -> list[Record]:
        """Read the rows that stand there in the pool, each group once, in the order given."""
        record_of: dict[int, Record] = {}
        wanted = np.unique(positions)
        group_of = np.searchsorted(self._starts, wanted, side="right") - 1
        file_of = np.array([self._groups[g].file for g in group_of])
        for file in np.unique(file_of):
            groups = np.unique(group_of[file_of == file]).tolist()
            for group, table in self._read(groups).items():
                inside = wanted[group_of == group]
                rows = table.take(pa.array(inside - self._groups[group].start)).to_pylist()
                record_of |= {int(i): as_record(r, self.root) for i, r in zip(inside, rows, strict=True)}
        return [record_of[int(i)] for i in positions]

    def _read(self, groups: list[int]) -> dict[int, pa.Table]:
        """Return these row groups of one file; those that were read before may come from memory."""
        before = self._held
        tables = {g: before[g] for g in groups if g in before}
        missing = [g for g in groups if g not in tables]
        if missing:
            file = self._groups[missing[0]].file
            with self._open(file, self._footers[file]) as source:
                table = source.read_row_groups([self._groups[g].number for g in missing])
                table.validate(full=True)  # no checksum holds a page's header, which says what its bytes are
            rows = [self._groups[g].rows for g in missing]
            starts = np.cumsum([0, *rows[:-1]]).tolist()
            tables |= {g: table.slice(start, n) for g, start, n in zip(missing, starts, rows, strict=True)}
            room = sum(t.nbytes for t in before.values()) + table.nbytes <= _HELD
            # what does not fit beside the others takes their place: shards come in file order, several to a group
            self._held = before | tables if room else tables
        return tables

    @contextmanager
    def _open(self, number: int, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        path = self._files[number]
        with reading_parquet(path, _ANEW, metadata=footer, pre_buffer=True) as file:
            if missing := set(POOL.names) - set(file.schema_arrow.names):
                raise InputError(f"{path!r} has no column {sorted(missing)}: an older vinnow made it. {_ANEW}")
            refuse_other_columns(file.schema_arrow, POOL, path, _ANEW)
            yield file

    def _check_rows(self, rows: int) -> None:
        if rows != self.rows:
            raise MissingRowsError(
                f"pool {self.root}: {rows} of {self.rows} rows are there; a part is missing or "
                "from another pool. Delete the folder and ingest it again."
            )


def _fields(text: str, root: str) -> dict[str, Any]:
    """Return what a source record carried besides."""
    fields = parse_json(text, f"{root}: the column extra", _ANEW)
    if not isinstance(fields, dict):
        raise DamagedError(f"{root!r} is no sound pool: the column extra holds {shown(fields)}. {_ANEW}")
    return fields


def as_record(row: dict[str, Any], root: str) -> Record:
    """Return a POOL row, as `pa.Table.to_pylist` has it; `root` names the pool in errors."""
    return Record(
        row["sample_id"],
        row["source"],
        row["task"],
        tuple(row["images"]),
        row["conversations"],
        _fields(row["extra"], root),
        row["image_hash"],
    )
