"""Writing POOL shards and the REFUSED table: memory is one shard of rows, whatever the pool's size."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..store.arrays import Array
from ..store.files import CHECKED, join, write_bytes
from ..store.tables import POOL, REFUSED, conform, write_rows
from .draft import Refusal

SHARD_ROWS = 8192
# a random row costs its row group: 256 rows decode in some 3 ms, a whole shard in 60
GROUP_ROWS = 256
# characters of a shard, and of a row group: fewer rows are in one where each is long
SHARD_CHARS, GROUP_CHARS = 256 << 20, 64 << 20
# columns of few values; a dictionary of texts costs time and holds nothing twice
_REPEATING = ["source", "task", "conversations.list.element.from"]


class PoolWriter:
    """Collects rows into `part-NNNNNN.parquet` files of SHARD_ROWS, and refusals into `refused.parquet`."""

    def __init__(self, out: str) -> None:
        self.out, self.shards = out, 0
        self._rows: list[pa.Table] = []
        self._waiting = self._chars = 0
        self._refused: list[pa.Table] = []

    def add(self, rows: pa.Table, refused: list[Refusal]) -> None:
        """Take rows of the pool (POOL) and refusals, in order."""
        if rows.num_rows:
            self._rows.append(rows)
            self._waiting += rows.num_rows
            self._chars += int(_chars(rows).sum())
        while self._waiting >= SHARD_ROWS or self._chars >= SHARD_CHARS:
            # by rows alone, so that how they came in does not show
            ends = np.cumsum(np.concatenate([_chars(some) for some in self._rows])[:SHARD_ROWS])
            self._flush(min(SHARD_ROWS, len(ends), int(np.searchsorted(ends, SHARD_CHARS)) + 1))
        if refused:
            # Arrow holds a refusal in a tenth of a dict's memory, should every row be one
            self._refused.append(pa.Table.from_pylist([asdict(r) for r in refused], schema=REFUSED))

    def close(self) -> None:
        """Write what is left; `refused.parquet` is there even when it is empty."""
        if self._waiting:
            self._flush(self._waiting)
        refused = pa.concat_tables([REFUSED.empty_table(), *self._refused])
        write_rows(join(self.out, "refused.parquet"), refused, REFUSED)

    def _flush(self, rows: int) -> None:
        held = pa.concat_tables(self._rows)
        path = join(self.out, f"part-{self.shards:06d}.parquet")
        # one chunk: how the rows came in must not show in the file
        table = conform(held.slice(0, rows).combine_chunks(), POOL, path)
        sink = pa.BufferOutputStream()
        options = CHECKED | {"compression": "zstd", "use_dictionary": _REPEATING}
        chars = int(_chars(table).sum())
        group = max(1, min(GROUP_ROWS, GROUP_CHARS * rows // max(1, chars)))
        pq.write_table(table, sink, row_group_size=group, **options)
        write_bytes(path, sink.getvalue())
        left = held.slice(rows)
        self._rows, self._waiting, self.shards = [left] if left.num_rows else [], left.num_rows, self.shards + 1
        self._chars -= chars


def _chars(rows: pa.Table) -> Array:
    extra = pc.binary_length(rows["extra"]).to_numpy()
    return rows["n_chars"].to_numpy() + extra
