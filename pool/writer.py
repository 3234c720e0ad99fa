"""Writing POOL parts and the REFUSED table: memory is one part of rows, whatever the pool's size."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..store.files import join, write_bytes
from ..store.tables import POOL, REFUSED, conform, write_rows
from .checks import Checked, RefusedError
from .images import ImageError

PART_ROWS = 8192
# a random row costs its row group: 256 rows decode in some 3 ms, a whole part in 60
GROUP_ROWS = 256


class PoolWriter:
    """Collects rows into `part-NNNNNN.parquet` files of PART_ROWS, and refusals into `refused.parquet`."""

    def __init__(self, out: str) -> None:
        self.out, self.parts = out, 0
        self._rows: list[dict[str, Any]] = []
        self._refused: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []

    def add(self, sample_id: int | None, record: Checked) -> None:
        """Take one row of the pool."""
        self._rows.append(
            {
                "sample_id": sample_id,
                "source": record.source,
                "task": record.task,
                "images": record.images,
                "conversations": record.conversations,
                "n_chars": sum(len(t["value"]) for t in record.conversations),
                # ASCII escapes hold even a lone surrogate, which Parquet's UTF-8 cannot
                "extra": json.dumps(record.extra, ensure_ascii=True),
            }
        )
        if len(self._rows) == PART_ROWS:
            self._flush()

    def refuse(self, sample_id: int | None, source: str, row: int, error: RefusedError | ImageError) -> None:
        """Take one refusal."""
        detail = str(error)[:500].encode("utf-8", "backslashreplace").decode()
        self._refused.append(
            {"sample_id": sample_id, "source": source, "row": row, "reason": error.reason, "detail": detail}
        )
        if len(self._refused) == PART_ROWS:
            self._pack_refused()

    def close(self) -> None:
        """Write what is left; `refused.parquet` is there even when it is empty."""
        if self._rows:
            self._flush()
        self._pack_refused()
        write_rows(join(self.out, "refused.parquet"), pa.concat_tables(self._tables), REFUSED)

    def _flush(self) -> None:
        path = join(self.out, f"part-{self.parts:06d}.parquet")
        table = conform(pa.Table.from_pylist(self._rows, schema=POOL), POOL, path)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=GROUP_ROWS)
        write_bytes(path, sink.getvalue())
        self._rows, self.parts = [], self.parts + 1

    def _pack_refused(self) -> None:
        # Arrow holds a refusal in a tenth of a dict's memory, should every row be one
        self._tables.append(pa.Table.from_pylist(self._refused, schema=REFUSED))
        self._refused = []
