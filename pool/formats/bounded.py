"""A Parquet file's rows in bounded memory, whatever its dictionaries and runs unpack to."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...store.arrays import Array
from ..archives.members import File
from ..archives.pages import Chunk, OversizeError, check_chunk
from ..limits import ROW_BYTES
from ..refusals import RefusedError
from .cells import element

_ROWS = 512
# what a column's dictionary may make of a row group before its texts are held once each, which is slow
_REPEATS = 4 * ROW_BYTES
# Python's own part of a value
_VALUE = 48


def rows_of(file: File, footer: pq.FileMetaData, columns: Sequence[str]) -> Iterator[dict[str, Any] | RefusedError]:
    """Yield the rows of all row groups as Python values; one of more than ROW_BYTES is a `RefusedError`.

    Raises:
        OversizeError: a column unpacks to far more than is stored.
    """
    for group in range(footer.num_row_groups):
        yield from _rows(file, footer, group, columns)


def _rows(
    file: File, footer: pq.FileMetaData, group: int, columns: Sequence[str]
) -> Iterator[dict[str, Any] | RefusedError]:
    facts, wanted = footer.row_group(group), set(columns)
    numbers = [i for i in range(facts.num_columns) if footer.schema.column(i).path in wanted]
    chunks = [check_chunk(file, footer, group, i) for i in numbers]
    once = [c.name for c in chunks if c.repeats > _REPEATS]
    source = pq.ParquetFile(file.handle(), metadata=footer, read_dictionary=once)
    batches = source.iter_batches(_batch_rows(footer, numbers, chunks, facts.num_rows), [group], columns=list(columns))
    for batch in batches:
        yield from _in_pieces(batch)


def _batch_rows(footer: pq.FileMetaData, numbers: list[int], chunks: list[Chunk], rows: int) -> int:
    """Return how many rows are read at a time, so that ROW_BYTES are not exceeded by much."""
    unpacked = sum(c.unpacked for c in chunks)
    for number, chunk in zip(numbers, chunks, strict=True):
        if chunk.prefixes > _REPEATS and footer.schema.column(number).max_repetition_level:
            raise OversizeError(
                f"column {chunk.name!r}, packed as DELTA_BYTE_ARRAY inside lists, may unpack to {chunk.prefixes} bytes; "
                "write it without"
            )
    most = max([unpacked // max(1, rows), *(c.largest for c in chunks if c.prefixes > _REPEATS)])
    return max(1, min(_ROWS, ROW_BYTES // max(1, most)))


def _in_pieces(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | RefusedError]:
    size_N = sum((row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    start = 0
    while start < batch.num_rows:
        if size_N[start] > ROW_BYTES:
            yield RefusedError("record_too_large", f"the row takes {int(size_N[start])} bytes, over {ROW_BYTES}")
            start += 1
            continue
        rows = max(1, int(np.searchsorted(np.cumsum(size_N[start:]), ROW_BYTES, side="right")))
        yield from batch.slice(start, rows).to_pylist()
        start += rows


def row_bytes(column: pa.Array) -> Array:
    """Return about how many bytes each value takes in Python [N], without making any."""
    kind, rows = column.type, len(column)
    if isinstance(column, pa.ExtensionArray):
        return row_bytes(column.storage)
    if isinstance(column, pa.DictionaryArray):
        known = np.append(row_bytes(column.dictionary), _VALUE)
        return known[column.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)]
    if isinstance(column, pa.StructArray):
        fields = [row_bytes(column.field(i)) for i in range(kind.num_fields)]
        return sum(fields, np.full(rows, _VALUE, np.int64))
    if element(kind) is not None or pa.types.is_map(kind):
        return _list_bytes(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or "binary" in str(kind) or "view" in str(kind):
        return pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64) + _VALUE
    return np.full(rows, _VALUE, np.int64)


def _list_bytes(column: pa.Array) -> Array:
    inner = column.flatten() if not pa.types.is_map(column.type) else None
    if inner is None:  # a map is a list of pairs
        pairs: Any = column
        first, last = pairs.offsets[0].as_py(), pairs.offsets[-1].as_py()
        each = row_bytes(pairs.keys[first:last]) + row_bytes(pairs.items[first:last])
        counts = np.diff(pairs.offsets.to_numpy(zero_copy_only=False))
    else:
        each = row_bytes(inner)
        counts = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(counts, dtype=np.int64)
    sums = np.concatenate([[0], np.cumsum(each, dtype=np.int64)])
    return sums[ends] - sums[ends - counts] + _VALUE
