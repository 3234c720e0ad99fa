"""A JSON array or JSONL as blocks of whole records, so that several processes can parse one file.

Where a record begins is guessed and then proved. A guess is `}, {"KEY":`, KEY being the first key of the first record:
in valid JSON this cannot stand inside a string (a quote there is escaped), only deeper in a record. The proof is the
parse of the block before: it must end exactly at the cut, behind a comma. Where it does not, the text is broken or the
guess was wrong; from that record on one parser reads the rest in order, and says what `iter_records` says.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .json_stream import iter_rest

BLOCK = 2 << 20
# a block that finds no cut within this is left to the one parser, which holds no more than a record
_LIMIT = 64 << 20
_SPACE = b" \t\r\n"
_HEAD = re.compile(rb'\s*\{\s*"([A-Za-z_][\w-]*)"')
_GAP = re.compile(r"[ \t\r\n]*")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Records as text, from byte `start` of the source: `lines` of JSONL, or `{…}, {…},` of an array."""

    data: bytes
    start: int
    lines: bool


@dataclass(frozen=True)
class Parsed:
    """The values of a block, and how it ended: "more" (records follow), "closed" (the array ended), or "stuck"
    with the byte in the block where the record that cannot be read begins."""

    values: list[Any]
    ended: str
    at: int = 0


class Cutter:
    """Reads a stream and cuts blocks; what it has read and not given away can be read again by `rest`."""

    def __init__(self, path: str, stream: Any) -> None:
        self.path, self.stream = path, stream
        self._held, self.at = bytearray(), 0
        self._ended, self._error = False, None
        while not self._ended and len(self._held) < BLOCK:
            self._read(BLOCK - len(self._held))
        bom = len(_BOM) if self._held.startswith(_BOM) else 0
        first = next((i for i in range(bom, len(self._held)) if self._held[i] not in _SPACE), len(self._held))
        mark = self._held[first : first + 1]
        self.known, self.lines = mark in (b"[", b"{"), mark == b"{"
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
            block = Block(bytes(memoryview(self._held)[:end]), self.at, self.lines)
            self._drop(end)
            # a last block is known as such only when nothing follows
            while not self._held and not self._ended:
                self._read(BLOCK)
            yield block, not self._held and self._error is None

    def read_on(self, given_back: list[bytes], row: int) -> Iterator[Any]:
        """Yield all further records by one parser: those of blocks `given_back`, and all that was not cut yet.

        `row` records came before. Raises: InputError, as `iter_records`.
        """
        rest = _Rest([*given_back, bytes(self._held)], self.stream, self._error)
        return iter_rest(self.path, rest, row, self.at - sum(map(len, given_back)), self.lines)

    def _end(self) -> int:
        size = BLOCK
        while True:
            while len(self._held) < size and not self._ended:
                self._read(size - len(self._held))
            if self._ended and len(self._held) <= BLOCK:
                return len(self._held)
            if self.lines:
                found = self._held.rfind(b"\n") + 1
            else:
                # from 3/4 on: the cut is near, and always found at the same place
                match = self._cut.search(self._held, BLOCK * 3 // 4) if self._cut else None
                found = match.end() if match else 0
            if found:
                return found
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
        self.at += size


class _Rest:
    """A stream that first gives bytes back."""

    def __init__(self, given: list[bytes], stream: Any, error: OSError | None) -> None:
        self.given, self.stream, self.error = [g for g in given if g], stream, error

    def read(self, size: int) -> bytes:
        if self.given:
            head = self.given.pop(0)
            if len(head) > size:
                self.given.insert(0, head[size:])
            return head[:size]
        if self.error:
            raise self.error
        return self.stream.read(size)


def parse(block: Block) -> Parsed:
    """Parse a block as far as it goes; never raises."""
    try:
        text = block.data.decode()
    except UnicodeDecodeError:
        return Parsed([], "stuck")
    if block.lines:
        return _parse_lines(text)
    body = text.rstrip(" \t\r\n")
    closed = body.endswith("]")
    try:
        if closed:
            return Parsed(json.loads("[" + body), "closed")
        if body.endswith(",") and (values := json.loads(f"[{body[:-1]}]")):
            return Parsed(values, "more")
    except (RecursionError, ValueError):
        pass
    return _parse_slowly(text)


def _parse_slowly(text: str) -> Parsed:
    """Find the record that cannot be read: one that no comma follows within the block counts as such."""
    values, at, scan = [], 0, json.JSONDecoder().raw_decode
    while True:
        try:
            value, end = scan(text, _skip(text, at))
        except (RecursionError, ValueError):
            break
        end = _skip(text, end)
        if text[end : end + 1] != ",":
            break
        values.append(value)
        at = end + 1
    return Parsed(values, "stuck", len(text[:at].encode()))


def _skip(text: str, at: int) -> int:
    match = _GAP.match(text, at)
    assert match is not None
    return match.end()


def _parse_lines(text: str) -> Parsed:
    values, at = [], 0
    for line in text.split("\n"):
        if line.strip(" \t\r"):
            try:
                values.append(json.loads(line))
            except (RecursionError, ValueError):
                return Parsed(values, "stuck", len(text[:at].encode()))
        at += len(line) + 1
    return Parsed(values, "more")
