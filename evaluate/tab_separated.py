"""Tab-separated values row by row, in the memory of one row; cells as bytes, read as pandas reads them (`read_table`).

Arrow's reader holds up to 32 blocks ahead, and Python's `csv` takes cells of 128 KiB unless the whole process is told
otherwise: a picture in a cell has more.
"""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pafs

from ..pool.limits import ROW_BYTES
from ..pool.refusals import RefusedError
from ..store.errors import InputError
from ..store.files import open_fs
from ..store.reading import reading, refuse_irregular

_WHAT = "a table of tab-separated values"
# lines that one row may take by quotation marks
_LINES = 1000


def tab_rows(path: str, needed: tuple[str, ...]) -> Iterator[dict[str, bytes] | RefusedError]:
    """Yield rows by column; a row that has not a cell for each, or over 64 MiB, is a `RefusedError`.

    Raises:
        InputError: no such file, no column of `needed`, one named twice, or a quotation mark that does not end.
    """
    fs, inner = open_fs(path)
    if isinstance(fs, pafs.LocalFileSystem):
        refuse_irregular(inner)
    with reading(path, _WHAT):
        source = fs.open_input_stream(inner, compression=None, buffer_size=1 << 20)
    with source:
        lines = _lines(path, source)
        names = _names(path, next(lines, b""), needed)
        for line in lines:
            if isinstance(line, RefusedError):
                yield line
            elif line:
                yield _row(_whole_cells(path, line, lines), names)


def _lines(path: str, source: pa.NativeFile) -> Iterator[bytes | RefusedError]:
    """Yield lines without their ends."""
    held, number, over = io.BufferedReader(source, 1 << 20), 0, False
    while True:
        with reading(path, _WHAT):
            line = held.readline(ROW_BYTES)
        if not line:
            return
        cut = not line.endswith(b"\n") and len(line) == ROW_BYTES
        if not over:
            number += 1
            where = f"line {number} has more than {ROW_BYTES:,} bytes"
            yield RefusedError("record_too_large", where) if cut else line.rstrip(b"\r\n")
        over = cut


def _whole_cells(path: str, line: bytes, lines: Iterator[bytes | RefusedError]) -> list[bytes]:
    """Return the cells of a row, whose quoted ones may go on in the next lines."""
    for _ in range(_LINES):
        if (cells := _cells(line)) is not None:
            return cells
        more = next(lines, None)
        if more is None or isinstance(more, RefusedError) or len(line) > ROW_BYTES:
            break
        line += b"\n" + more
    raise InputError(f"{path!r}: a quotation mark does not end: {line[:60]!r} …. Mend that row.")


def _cells(line: bytes) -> list[bytes] | None:
    """Return a line's cells; None where it ends inside of quotation marks."""
    if b'"' not in line:
        return line.split(b"\t")
    cells, start = [], 0
    while True:
        cell, begin = b"", start
        if line.startswith(b'"', start):
            end = line.find(b'"', start + 1)
            while end >= 0 and line.startswith(b'"', end + 1):
                end = line.find(b'"', end + 2)
            if end < 0:
                return None
            cell, begin = line[start + 1 : end].replace(b'""', b'"'), end + 1
        end = line.find(b"\t", begin)
        cells.append(cell + line[begin : None if end < 0 else end])
        if end < 0:
            return cells
        start = end + 1


def _row(cells: list[bytes], names: list[str]) -> dict[str, bytes] | RefusedError:
    if len(cells) != len(names):
        return RefusedError("not_an_object", f"it has {len(cells)} cells under {len(names)} names")
    return dict(zip(names, cells, strict=True))


def _names(path: str, line: bytes | RefusedError, needed: tuple[str, ...]) -> list[str]:
    cells = None if isinstance(line, RefusedError) else _cells(line)
    with reading(path, _WHAT):
        names = [c.decode("utf-8-sig") for c in cells or []]
    if missing := [n for n in needed if n not in names]:
        raise InputError(
            f"{path!r} has no column {', '.join(missing)}: its first line should name its columns, between tabs."
        )
    if len(set(names)) < len(names):
        raise InputError(
            f"{path!r} names a column twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}."
        )
    return names
