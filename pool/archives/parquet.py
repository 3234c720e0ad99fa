"""A Parquet shard as a folder: `ROW/K` is picture K of a row, read with its row group and no other column.

Shards of Hugging Face `datasets` hold pictures as struct{bytes, path}, or as plain binary, single or a list.
"""

import re
import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..checks import ImageError
from .members import DAMAGE, File, Read, check_size
from .pages import OversizeError, check_chunk

COLUMNS = ("images", "image")
# a row group is read whole; of nested columns Arrow reads no more than this
_GROUP_BYTES = 2 << 30


class ParquetArchive:
    """Rows of pictures. Of all shards the row group read last is held: neighbours come together."""

    _held: tuple[object, int, pa.ChunkedArray] | None = None
    _lock = threading.Lock()

    def __init__(self, file: File) -> None:
        self.file = file
        try:
            self.footer = pq.read_metadata(file.handle())
            schema = self.footer.schema.to_arrow_schema()
            self.column = image_column(schema) or turns_column(schema)
        except DAMAGE as error:  # what Arrow raises are OSErrors, ValueErrors and the like
            raise ImageError("image_unreadable", f"{file.path!r} is no readable Parquet file: {error}.") from error
        if self.column is None:
            raise ImageError("image_unreadable", f"{file.path!r} has no column of pictures' bytes, {COLUMNS}.")
        counts = [self.footer.row_group(i).num_rows for i in range(self.footer.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def find(self, name: str) -> Read:
        """Return what reads a picture; that the row has it is seen on reading. See `Archive`."""
        place = re.fullmatch(r"(\d{1,15})/(\d{1,9})", name)
        if place is None or int(place[1]) >= self.starts[-1]:
            raise ImageError("image_missing", f"no picture {name!r}: it is ROW/NUMBER, of {self.starts[-1]} rows.")
        row, number = int(place[1]), int(place[2])
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        self._check_group(group)

        def read() -> bytes:
            cell = self._group(group)[row - int(self.starts[group])]
            return picture_bytes(cell, number, name)

        return read

    def _leaves(self, group: int) -> list[int]:
        facts = self.footer.row_group(group)
        names = (facts.column(i).path_in_schema for i in range(facts.num_columns))
        return [i for i, name in enumerate(names) if name.split(".")[0] == self.column]

    def _check_group(self, group: int) -> None:
        facts = self.footer.row_group(group)
        size = sum(facts.column(i).total_uncompressed_size for i in self._leaves(group))
        if size > _GROUP_BYTES:
            raise ImageError(
                "image_too_large", f"row group {group} holds {size} bytes of pictures; write smaller ones."
            )

    def _group(self, group: int) -> pa.ChunkedArray:
        with ParquetArchive._lock:
            held = ParquetArchive._held
            if held is None or held[0] is not self or held[1] != group:
                ParquetArchive._held = None  # two groups at a time would be twice the memory
                held = ParquetArchive._held = (self, group, self._read(group))
            return held[2]

    def _read(self, group: int) -> pa.ChunkedArray:
        """Read a row group's pictures, each as often as it is stored: of one that stands in a thousand rows there is one.

        Raises:
            ImageError: image_too_large, image_unreadable.
        """
        try:
            chunks = [check_chunk(self.file, self.footer, group, i, inside=False) for i in self._leaves(group)]
            grown = sum(c.prefixes for c in chunks)
            if (size := sum(c.unpacked for c in chunks) + grown) > _GROUP_BYTES:
                raise OversizeError(f"row group {group} may unpack to {size} bytes; write smaller ones")
            texts = {self.footer.schema.column(i).path for i in self._leaves(group) if _is_text(self.footer, i)}
            # Arrow has no dictionary of values that share their beginnings
            stored_once = sorted(texts - {c.name for c in chunks if c.prefixed})
            file = pq.ParquetFile(self.file.handle(), metadata=self.footer, read_dictionary=stored_once)
            return file.read_row_group(group, columns=[self.column])[self.column]
        except OversizeError as error:
            raise ImageError("image_too_large", f"{error}.") from error
        except DAMAGE as error:
            raise ImageError("image_unreadable", f"row group {group} cannot be read: {error}.") from error


def _is_text(footer: pq.FileMetaData, number: int) -> bool:
    return footer.schema.column(number).physical_type == "BYTE_ARRAY"


def image_column(schema: pa.Schema) -> str | None:
    """Return the column that holds pictures' bytes; None when there is none."""
    return next((n for n in COLUMNS if n in schema.names and _holds_bytes(schema.field(n).type)), None)


def turns_column(schema: pa.Schema) -> str | None:
    """Return the column of turns with pictures' bytes inside."""
    names = [n for n in ("conversations", "messages") if n in schema.names]
    return next((n for n in names if _shows(schema.field(n).type)), None)


def _shows(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _shows(kind.value_type)
    if not pa.types.is_struct(kind):
        return False
    return {f.name for f in kind} in ({"bytes", "path"}, {"bytes"}) or any(_shows(f.type) for f in kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        kind = next((f.type for f in kind if f.name == "bytes"), kind)
        if pa.types.is_null(kind):  # a shard all of whose pictures are paths
            return True
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _are_turns(kind: pa.DataType) -> bool:
    return not _holds_bytes(kind)


def _inside(cell: pa.Scalar) -> Iterator[pa.Scalar]:
    """Yield the pictures in a row's turns, in order."""
    if not cell.is_valid:
        return
    if isinstance(cell, pa.StructScalar):
        names = {f.name for f in cell.type}
        if names in ({"bytes", "path"}, {"bytes"}):
            yield cell
        else:
            for name in cell:
                yield from _inside(cell[name])
    elif isinstance(cell, (pa.ListScalar, pa.LargeListScalar)):
        for one in cell.values:
            yield from _inside(one)


def picture_bytes(cell: pa.Scalar, number: int, name: str) -> bytes:
    """Return picture `number` of a row's cell.

    Raises:
        ImageError: image_missing, image_empty, image_too_large.
    """
    pictures = cell.values if isinstance(cell, (pa.ListScalar, pa.LargeListScalar)) else [cell]
    if _are_turns(cell.type):
        pictures = list(_inside(cell))
    if pictures is None or number >= len(pictures):
        raise ImageError("image_missing", f"{name!r}: the row has {len(pictures or ())} pictures.")
    one = pictures[number]
    if isinstance(one, pa.StructScalar) and one.is_valid:
        one = one["bytes"]
    if isinstance(one, pa.DictionaryScalar):
        one = one.value
    if not one.is_valid:
        raise ImageError("image_missing", f"{name!r} has no bytes, at most a path.")
    check_size(one.as_buffer().size, repr(name))
    return one.as_py()
