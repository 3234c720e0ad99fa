"""What a Parquet column chunk unpacks to, by the headers of its pages alone.

A footer says how large pages are once decompressed, not what a dictionary makes of them (a value of 1 MB may stand in a
thousand rows, by its number), and nothing holds it to the truth. Source: Parquet's format (thrift, compact protocol).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from .members import DAMAGE, MAX_BYTES, File

# a file is refused where a column of a row group unpacks to more than this, and to so many times what is stored
_BOMB_RATIO = 32
# entries of lists in one row group
_LEVELS = 1 << 25
# bytes of a header: a first look, and the most
_LOOK, _MOST = 1 << 12, 1 << 20
# of a remote file so much is fetched at once, rather than page by page
_FETCH = 64 << 20
_DICTIONARIES, _PREFIXES = (2, 8), 7
_DICTIONARY_PAGE = 2


class OversizeError(ValueError):
    """A column that unpacks to more than anybody should hold; says which and to how much."""


@dataclass
class Chunk:
    """One column of one row group. `values`: of all pages, nulls and empty lists counted; `unpacked`: bytes of all pages.

    `referred`: values that a dictionary holds, each of `longest` bytes at most; `prefixed`: values that begin as the one
    before does (DELTA_BYTE_ARRAY), each of `largest` bytes (of the largest page) at most.
    """

    name: str
    values: int = 0
    unpacked: int = 0
    largest: int = 0
    referred: int = 0
    longest: int = 0
    prefixed: int = 0

    @property
    def repeats(self) -> int:
        """How many bytes values can grow to beyond those of the pages."""
        return self.referred * self.longest

    @property
    def prefixes(self) -> int:
        """The same for values that share their beginnings."""
        return self.prefixed * self.largest


def check_chunk(file: File, footer: pq.FileMetaData, group: int, number: int, inside: bool = True) -> Chunk:
    """Look at the pages of column `number` of a row group; `inside`: and how long the texts of its dictionary are.

    Raises:
        OversizeError: they unpack to far more than is stored, or lists hold more entries than any table's.
        ValueError: they are no pages.
    """
    column, schema = footer.row_group(group).column(number), footer.schema.column(number)
    where = f"column {column.path_in_schema!r} of row group {group}"
    if column.total_uncompressed_size > max(MAX_BYTES, _BOMB_RATIO * column.total_compressed_size):
        # told by the footer itself: nothing need be read
        raise OversizeError(_told(where, column.total_uncompressed_size, column.total_compressed_size))
    chunk = Chunk(column.path_in_schema)
    for page in _pages(file, column):
        chunk.unpacked += page.unpacked
        chunk.largest = max(chunk.largest, page.unpacked)
        if page.kind == _DICTIONARY_PAGE:
            if inside and schema.physical_type == "BYTE_ARRAY":
                chunk.longest = _longest(page, column)
        else:
            chunk.values += page.values
            chunk.referred += page.values if page.encoding in _DICTIONARIES else 0
            chunk.prefixed += page.values if page.encoding == _PREFIXES else 0
        if chunk.unpacked > max(MAX_BYTES, _BOMB_RATIO * column.total_compressed_size):
            raise OversizeError(_told(where, chunk.unpacked, column.total_compressed_size))
    if schema.max_repetition_level and chunk.values > _LEVELS:
        raise OversizeError(f"{where} holds {chunk.values} entries of lists, over {_LEVELS}")
    if schema.physical_type == "FIXED_LEN_BYTE_ARRAY" and chunk.values * schema.length > _BOMB_RATIO * MAX_BYTES:
        raise OversizeError(_told(where, chunk.values * schema.length, column.total_compressed_size))
    return chunk


def _told(where: str, unpacked: int, packed: int) -> str:
    return f"{where} unpacks to {unpacked} bytes or more, from {packed}"


@dataclass(frozen=True)
class _Page:
    kind: int
    values: int
    encoding: int
    packed: int
    unpacked: int
    body: Callable[[], bytes]


def _pages(file: File, column: Any) -> Iterator[_Page]:
    offset = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < offset:
        offset = column.dictionary_page_offset
    end, read, seen = offset + column.total_compressed_size, _reader(file, offset, column.total_compressed_size), 0
    while offset < end and seen < column.num_values:
        header, length = _header(read, offset)
        kind, unpacked, packed = (int(header.get(i, 0)) for i in (1, 2, 3))
        facts = header.get(7) or header.get(8) or header.get(5) or {}
        values, encoding = int(facts.get(1, 0)), int(facts.get(4 if 8 in header else 2, 0))
        if min(values, packed, unpacked) < 0:
            raise ValueError(f"a page of negative size at byte {offset}")
        body = offset + length
        yield _Page(kind, values, encoding, packed, unpacked, lambda body=body, packed=packed: read(packed, body))
        seen += 0 if kind == _DICTIONARY_PAGE else values
        offset = body + packed


def _reader(file: File, start: int, size: int) -> Callable[[int, int], bytes]:
    if isinstance(file.fs, pafs.LocalFileSystem) or size > _FETCH:
        return file.read_at
    held = file.read_at(size, start)
    return lambda size, offset: held[offset - start : offset - start + size]


def _longest(page: _Page, column: Any) -> int:
    """Return the length of the longest text of a dictionary page; its size where it cannot be looked into."""
    if page.unpacked > _FETCH:
        return page.unpacked
    data = page.body()
    if column.compression != "UNCOMPRESSED":
        try:
            data = pa.decompress(data, page.unpacked, column.compression.lower(), asbytes=True)
        except DAMAGE:  # Arrow's reader will say what is wrong with it
            return page.unpacked
    offset = most = 0
    while offset + 4 <= len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        most, offset = max(most, size), offset + 4 + size
    return min(most, page.unpacked)


def _header(read: Callable[[int, int], bytes], offset: int) -> tuple[dict[int, Any], int]:
    for size in (_LOOK, _MOST):
        data = read(size, offset)
        try:
            fields, length = _struct(data, 0)
        except IndexError:
            continue
        if length <= len(data):
            return fields, length
    raise ValueError(f"no page header at byte {offset}")


def _struct(data: bytes, offset: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Read a thrift struct in compact protocol: fields by number; what is no number, flag or struct is left out."""
    fields, number = {}, 0
    while data[offset]:
        step, kind = data[offset] >> 4, data[offset] & 15
        offset += 1
        if step:
            number += step
        else:
            number, offset = _zigzag(data, offset)
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            fields[number], offset = _zigzag(data, offset)
        elif kind == 8:
            size, offset = _varint(data, offset)
            offset += size
        elif kind == 12 and depth < 4:
            fields[number], offset = _struct(data, offset, depth + 1)
        else:  # a page header has no others
            raise ValueError(f"a page header with a field of kind {kind}")
    return fields, offset + 1


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[offset] & 127) << shift
        offset, shift = offset + 1, shift + 7
        if data[offset - 1] < 128 or shift > 63:
            return value, offset


def _zigzag(data: bytes, offset: int) -> tuple[int, int]:
    value, offset = _varint(data, offset)
    return (value >> 1) ^ -(value & 1), offset
