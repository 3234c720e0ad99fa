"""A JSON array or JSONL as blocks of whole records, so that several processes can parse one file.

Where a record begins is guessed and then proved. A guess is `}, {"KEY":`, KEY being the first key of the first record:
in valid JSON this cannot stand inside a string (a quote there is escaped), only deeper in a record. The proof is the
parse of the block before: it must end exactly at the cut, behind a comma. Where it does not, the text is broken or the
guess was wrong; from that record on one parser reads the rest in order, and says what `iter_records` says. A plain process
pool that is handed parsed records takes 2.4 to 3.7 times as long (`benchmarks/ingest_workers.py`): the parent parses all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .json_source import JSON, Once, PushedBack, may_repeat
from .json_stream import HEAD, iter_rest, looks_like_lines, parse_lines
from .limits import RECORD_BYTES

BLOCK = 2 << 20
# a block that finds no cut within this is left to the one parser, which holds no more than a record
_LIMIT = RECORD_BYTES
_SPACE = b" \t\r\n"
_HEAD = re.compile(rb'\s*\{\s*"([A-Za-z_][\w-]*)"')
_GAP = re.compile(r"[ \t\r\n]*")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Records as text: `lines` of JSONL behind `start` others, or `{…}, {…},` of an array from byte `start` on."""

    data: bytes
    start: int
    lines: bool


@dataclass(frozen=True)
class Parsed:
    """The values of a block, and how it ended: "more" (records follow), "closed" (the array ended), or "stuck"
    with the byte in the block where the record that cannot be read begins."""

    values: list[Any]
    ended: str
    stuck_byte: int = 0


class Cutter:
    """Reads a stream and cuts blocks; what it has read and not given away can be read again by `rest`."""

    def __init__(self, path: str, stream: Any) -> None:
        self.path, self.stream = path, stream
        self._held, self.offset = bytearray(), 0
        self._ended, self._error = False, None
        # as much as `iter_records` looks at, so that both take the file for the same
        first_read = max(BLOCK, HEAD)
        while not self._ended and len(self._held) < first_read:
            self._read(first_read - len(self._held))
        bom = len(_BOM) if self._held.startswith(_BOM) else 0
        first = next((i for i in range(bom, len(self._held)) if self._held[i] not in _SPACE), len(self._held))
        mark = self._held[first : first + 1]
        # other shapes are for the one parser
        self.lines = mark == b"{" and looks_like_lines(path, bytes(self._held[:HEAD]), len(self._held) < HEAD)
        self.known = mark == b"[" or self.lines
        self._line = self._held.count(b"\n", 0, first) if self.lines else 0
        if self.known:
            self._drop(first + (mark == b"["))
        key = _HEAD.match(self._held)
        self._cut = re.compile(rb'\}\s*,\s*(?=\{\s*"' + key[1] + rb'"\s*:)') if key and not self.lines else None

    def blocks(self) -> Iterator[tuple[Block, bool]]:
        """Yield blocks and whether each is the last of the file; stops short where no cut is found."""
        while True:
            end = self._end()
            if end == 0:
                return
            block = Block(bytes(memoryview(self._held)[:end]), self._line if self.lines else self.offset, self.lines)
            self._line += block.data.count(b"\n") if self.lines else 0
            self._drop(end)
            # a last block is known as such only when nothing follows
            while not self._held and not self._ended:
                self._read(BLOCK)
            yield block, not self._held and self._error is None

    def read_on(self, given_back: list[bytes], row: int) -> Iterator[Any]:
        """Yield all further records by one parser: those of blocks `given_back`, and all that was not cut yet.

        `row` records came before. Raises: InputError, as `iter_records`.
        """
        rest = PushedBack([*given_back, bytes(self._held)], self.stream, self._error)
        if self.lines:
            return iter_rest(self.path, rest, row, self._line - sum(b.count(b"\n") for b in given_back), True)
        return iter_rest(self.path, rest, row, self.offset - sum(map(len, given_back)), False)

    def _end(self) -> int:
        size = BLOCK
        while True:
            while len(self._held) < size and not self._ended:
                self._read(size - len(self._held))
            if self._ended and len(self._held) <= BLOCK:
                return len(self._held)
            if self.lines:
                cut = self._held.rfind(b"\n") + 1
            else:
                # from 3/4 on: the cut is near, and always found at the same place
                match = self._cut.search(self._held, BLOCK * 3 // 4) if self._cut else None
                cut = match.end() if match else 0
            if cut:
                return cut
            if self._ended:
                return len(self._held)
            if size >= _LIMIT or (self._cut is None and not self.lines):
                return 0
            size *= 2

    def _read(self, size: int) -> None:
        try:
            data = self.stream.read(size)
        except OSError as error:  # told by `rest`, once the records before it are done
            self._error, data = error, b""
        self._ended = not data
        self._held += data

    def _drop(self, size: int) -> None:
        del self._held[:size]
        self.offset += size


def parse(block: Block) -> Parsed:
    """Parse a block as far as it goes; never raises."""
    if block.lines:
        return Parsed(parse_lines(block.data, block.start), "more")
    try:
        text = block.data.decode()
    except UnicodeDecodeError:
        return Parsed([], "stuck")
    body = text.rstrip(" \t\r\n")
    closed = body.endswith("]")
    try:
        if closed or body.endswith(","):
            values = JSON.decode("[" + body if closed else f"[{body[:-1]}]")
            if may_repeat(block.data, values):
                values = _each_once(body)
            if closed or values:
                return Parsed(values, "closed" if closed else "more")
    except (RecursionError, ValueError):
        pass
    return _parse_slowly(text)


def _each_once(body: str) -> list[Any]:
    """Return the records of a sound array's text behind its "["; one that names a key twice is a `RefusedError`."""
    values, position, once = [], _skip(body, 0), Once()
    while position < len(body) and body[position] != "]":
        value, end = once.raw_decode(body, position)
        values.append(value)
        end = _skip(body, end)
        position = _skip(body, end + 1) if body[end : end + 1] == "," else end
    return values


def _parse_slowly(text: str) -> Parsed:
    """Find the record that cannot be read: one that no comma follows within the block counts as such."""
    values, position, scan = [], 0, Once().raw_decode
    while True:
        try:
            value, end = scan(text, _skip(text, position))
        except (RecursionError, ValueError):
            break
        end = _skip(text, end)
        if text[end : end + 1] != ",":
            break
        values.append(value)
        position = end + 1
    return Parsed(values, "stuck", len(text[:position].encode()))


def _skip(text: str, position: int) -> int:
    match = _GAP.match(text, position)
    assert match is not None
    return match.end()
