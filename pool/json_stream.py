"""Streaming JSON of any shape in bounded memory: one record at a time, whatever the file's size.

JSONL is read line by line, and a line that is no JSON is a refused row. Everything else is a run of values: arrays
of records, records over many lines, `{"data": [records]}`, `{id: record}`; a break there ends the read.

665K records (1.2 GB) take some 4 s and 45 MB this way, 3.8 GB with `json.load` (spec: Ray §1).
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ..store.errors import InputError
from .json_source import JSON, Once, PushedBack, may_repeat, named_twice, open_records, read
from .limits import RECORD_BYTES
from .refusals import RefusedError

_CHUNK = 1 << 20
_SPACE = " \t\r\n"
# an escape or a keyword cut by the buffer's end is reported at most this far before it
_EDGE = 64
# where a value that is stepped over goes on: outside of a text, in a number; and what a text holds up to its end
_MARK, _BARE = re.compile(r'["\[\]{}]'), re.compile(r"[,\]}\s]")
_TEXT = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
# what a small value takes beside its characters
_HELD = 16
_BOM = b"\xef\xbb\xbf"
HEAD = 1 << 20
_LINES = 16
# keys that a record has and a wrapper around records has not
_TURNS = ("conversations", "messages", "conversation", "texts")
# a first line that opens an array which the next lines fill: no record that was cut
_OPENS = re.compile(rb'"([^"\\]*)"\s*:\s*\[\s*\Z')
_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00": "UTF-16 or UTF-32"}


def iter_records(path: str) -> Iterator[Any]:
    """Yield the items of a JSON array, or one value a line (JSONL), from a local path or a `pyarrow.fs` URI.

    A name that ends in `.gz`, `.bz2` or `.zst` is decompressed on the way.

    Raises:
        InputError: no such file, not UTF-8 (names the byte), another top level than an array or lines,
            truncated or broken JSON (names the row, counted from 0).
    """
    with open_records(path) as stream:
        head = b""
        while len(head) < HEAD and (more := read(path, stream, HEAD - len(head), 0)):
            head += more
        if looks_like_lines(path, head, len(head) < HEAD):
            yield from iter_lines(path, PushedBack([head], stream))
        else:
            yield from _Parser(path, PushedBack([head], stream)).items()


def iter_lines(path: str, stream: Any, before: int = 0, row: int = 0) -> Iterator[Any]:
    """Yield a value a line, `before` lines and `row` rows having come; a line that is none is a `RefusedError`.

    Raises:
        InputError: reading stops.
    """
    held, number, over = bytearray(), before, 0
    while data := read(path, stream, max(_CHUNK, len(held)), row):
        held += data
        if over:  # behind the start of a line that no memory should hold
            end = held.find(b"\n") + 1
            over += end or len(held)
            del held[: end or len(held)]
            if not end:
                continue
            number, row = number + 1, row + 1
            yield _too_large(number, over)
            over = 0
        end = held.rfind(b"\n") + 1
        if end:
            for value in parse_lines(bytes(memoryview(held)[:end]), number):
                row += 1
                yield value
            number += held.count(b"\n", 0, end)
            del held[:end]
        if len(held) > RECORD_BYTES:
            over = len(held)
            held.clear()
    if over:
        yield _too_large(number + 1, over)
    yield from parse_lines(bytes(held), number)


def _too_large(number: int, size: int) -> RefusedError:
    return RefusedError("record_too_large", f"line {number} has {size} bytes, over {RECORD_BYTES}")


def parse_lines(data: bytes, before: int, decode: Callable[[str], Any] = JSON.decode) -> list[Any]:
    """Return the values of whole lines; never raises. A comma behind a value is no harm."""
    values: list[Any] = []
    for number, line in enumerate(data.split(b"\n"), before + 1):
        line = line.removeprefix(_BOM).strip(b" \t\r")
        if not line or (line == b"," and values):
            continue
        if len(line) > RECORD_BYTES:
            values.append(_too_large(number, len(line)))
            continue
        try:
            values.append(decode(line.removesuffix(b",").decode()))
        except UnicodeDecodeError as error:
            values.append(RefusedError("not_an_object", f"line {number} is not UTF-8 ({error.reason})"))
        except json.JSONDecodeError as error:
            what = f"line {number} is no whole JSON value ({error.msg} at character {error.pos})"
            values.append(RefusedError("not_an_object", what))
        except (RecursionError, ValueError) as error:
            values.append(RefusedError("not_an_object", f"line {number} cannot be read ({error})"))
    again = decode == JSON.decode and may_repeat(data, values)
    return parse_lines(data, before, Once().decode) if again else values


def looks_like_lines(path: str, head: bytes, whole: bool) -> bool:
    """Say whether a file is JSONL, by its first bytes: one of the first lines, from its first column on, is a record.

    Raises:
        InputError: it is in another encoding.
    """
    for mark, name in _ENCODINGS.items():
        if head.startswith(mark) or (mark == b"\x00" and mark in head[:4]):
            raise InputError(f"{path}: this is {name}, byte 0 is not UTF-8. Convert the file: iconv -t UTF-8.")
    text = head.removeprefix(_BOM).lstrip()
    if not text.startswith(b"{"):
        return False
    lines = text.split(b"\n", _LINES)
    opened = _OPENS.search(lines[0])
    if opened and opened[1].decode(errors="replace") not in _TURNS:
        return False
    for line in lines[:_LINES] if whole or len(lines) > _LINES else lines[:-1]:
        value = parse_lines(line, 0) if line.startswith(b"{") else []
        if value and isinstance(value[0], dict):
            return not _wraps(value[0])
    return whole and not any(line.strip() in (b"{", b"") for line in lines[:1]) and _starts_lines(lines)


def _starts_lines(lines: list[bytes]) -> bool:
    # all lines are broken, yet each begins like a record: refused one by one
    return len(lines) > 1 and all(n.startswith(b"{") for n in lines if n.strip())


def _wraps(value: dict[str, Any]) -> bool:
    if any(k in value for k in _TURNS):
        return False
    return any(is_record(v[0] if isinstance(v, list) and v else v) for v in value.values())


def is_record(value: Any) -> bool:
    """Say whether a value has turns."""
    return isinstance(value, dict) and any(k in value for k in _TURNS)


def read_fields(path: str) -> dict[str, Any]:
    """Return the object that a file holds; a value that cannot be read is a `RefusedError`. Raises: as `iter_records`."""
    with open_records(path) as stream:
        return _Parser(path, stream).fields()


def iter_rest(path: str, stream: Any, row: int, read: int, lines: bool) -> Iterator[Any]:
    """Go on behind `read` bytes (of JSONL: lines) and `row` records: `stream` stands where the next, or `]`, is due.

    Raises:
        InputError: as `iter_records`.
    """
    if lines:
        yield from iter_lines(path, stream, read, row)
        return
    parser = _Parser(path, stream, "utf-8")
    parser.row, parser.read = row, read
    yield from parser.array()
    yield from parser.values()


class _Parser:
    """A window on the text: `text[position:]` is not parsed yet; `row` is the number of the next record."""

    def __init__(self, path: str, stream: Any, encoding: str = "utf-8-sig") -> None:
        self.path, self.stream = path, stream
        self.bytes_of = codecs.getincrementaldecoder(encoding)()
        self.json = Once()
        self.text, self.position, self.ended, self.row, self.read = "", 0, False, 0, 0
        self.kept = 0  # characters of what is held although it is no record

    def items(self) -> Iterator[Any]:
        self._skip()
        first = self.text[self.position : self.position + 1]
        if first not in ("[", "{"):
            start = f"{first!r} at the start" if first else "an empty file"
            raise InputError(f"{self.path}: expected a JSON array of records, or JSONL; found {start}.")
        yield from self.values()

    def values(self) -> Iterator[Any]:
        """Yield the records of arrays and objects that stand one behind the other."""
        self._skip()
        while self.position < len(self.text):
            before = self.row
            if self._take("["):
                yield from self.array()
            elif self._take("{"):
                yield from self.object()
            elif not (before and self._take(",")):
                self._fail("there is text behind the array" if before else "this is no record")
            self._skip()

    def object(self) -> Iterator[Any]:
        """Yield an object, or the records in it: those of an array under a key, or the values of `{id: record}`."""
        pairs: dict[str, Any] = {}
        wrapped: str | None = None
        unread: RefusedError | None = None
        self._skip()
        more = not self._take("}")
        while more:
            key = self._value(counted=False)
            self._skip()
            if not isinstance(key, str) or not self._take(":"):
                self._fail("this record is no whole JSON value: expected a key and ':'")
            self._skip()
            has_turns, unread = is_record(pairs), named_twice(key) if key in pairs else unread
            if not has_turns and key not in _TURNS and self.text.startswith("[", self.position):
                listed = yield from self._listed(key, wrapped)
                wrapped, pairs = (key, pairs) if listed is None else (wrapped, pairs | {key: listed})
            else:
                value = self._value(counted=False, is_row=wrapped == "{}")
                if isinstance(value, RefusedError) and wrapped != "{}":
                    # one of `{id: record}`, or a field of the only record: what comes next tells
                    unread, value = value, None
                if not has_turns and (is_record(value) or isinstance(value, RefusedError)):
                    if wrapped not in (None, "{}"):
                        self._fail(f"records under {wrapped!r} and {key!r}: give a file with one of them")
                    wrapped = "{}"
                    records = [r for r in (unread, value) if r is not None]
                    self.row, unread = self.row + len(records), None
                    yield from (r if isinstance(r, RefusedError) else {"id": key} | r for r in records)
                else:
                    pairs[key] = value
            self._skip()
            more = self._take(",")
            if not more and not self._take("}"):
                self._fail("the file is cut off" if self.position == len(self.text) else "expected ',' or '}'")
            self._skip()
        if wrapped is None:
            self.row += 1
            yield unread or pairs

    def fields(self) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        self._skip()
        more = self._take("{")
        while more:
            self._skip()
            key = self._value(counted=False) if self.text.startswith('"', self.position) else None
            self._skip()
            if key is None or not self._take(":"):
                break
            self._skip()
            if key in pairs:
                self._fail(f"the key {key[:60]!r} is there twice")
            pairs[key] = self._value(counted=False, is_row=True)
            self._skip()
            more = self._take(",")
        return pairs if self._take("}") else self._fail("expected a JSON object")

    def _listed(self, key: str, wrapped: str | None) -> Iterator[Any]:
        """Yield the records of an array under a key; return the array where it holds none."""
        self._take("[")
        self._skip()
        elements: list[Any] = []
        more = not self._take("]")
        shown = False
        while more:
            value = self._value(counted=False, is_row=shown)
            if not elements and not shown and (is_record(value) or isinstance(value, RefusedError)):
                shown = True
                if wrapped is not None:
                    self._fail(f"records under {wrapped!r} and {key!r}: give a file with one of them")
            if shown:
                self.row += 1
                yield value
            else:
                elements.append(value)
            self._skip()
            more = self._take(",")
            if not more and not self._take("]"):
                self._fail("the file is cut off" if self.position == len(self.text) else "expected ',' or ']'")
            self._skip()
        return None if shown else elements

    def array(self) -> Iterator[Any]:
        self._skip()
        more = not self._take("]")
        # behind a cut a record must come; a comma before the end is no harm
        while more:
            yield self._value()
            self._skip()
            more = self._take(",")
            if not more and not self._take("]"):
                self._fail("the file is cut off" if self.position == len(self.text) else "expected ',' or ']'")
            self._skip()
            if more and self._take("]"):
                return

    def _value(self, counted: bool = True, is_row: bool | None = None) -> Any:
        """Return the next value; one that cannot be held is a `RefusedError`. What is no row is counted against a limit."""
        is_row = counted if is_row is None else is_row
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.position)
                # a number at the buffer's edge may go on in the next chunk
                if end < len(self.text) or self.ended:
                    self.kept += 0 if is_row or is_record(value) else end - self.position + _HELD
                    if self.kept > RECORD_BYTES:
                        self._fail(f"more than {RECORD_BYTES} bytes of values that are no records")
                    self.position, self.row = end, self.row + counted
                    return value
            except json.JSONDecodeError as error:
                # an open string may close in the next chunk; any other break is only mended near the buffer's
                # end
                is_open = error.msg.startswith("Unterminated string")
                if self.ended and (is_open or error.pos >= len(self.text)):
                    self._fail("the file is cut off in the middle of this record")
                if self.ended or (error.pos < len(self.text) - _EDGE and not is_open):
                    self._fail(f"{error.msg} at character {error.pos - self.position} of this record")
            except RecursionError:
                return self._refused("not_an_object", "this record cannot be read: it is nested too deep", counted)
            if len(self.text) - self.position > RECORD_BYTES:
                return self._refused(
                    "record_too_large", f"this record has more than {RECORD_BYTES} characters", counted
                )
            self._more()

    def _refused(self, reason: str, what: str, counted: bool) -> RefusedError:
        self._step_over(what)
        self.row += counted
        return RefusedError(reason, what)

    def _step_over(self, what: str) -> None:
        """Go behind a value by its brackets alone; no more than a chunk of it is held."""
        depth, bare = 0, self.text[self.position] not in '{["'
        while True:
            mark = (_BARE if bare else _MARK).search(self.text, self.position)
            if mark is None:
                self.position = len(self.text)
                self._more_of(what)
                continue
            self.position = mark.start() if bare else mark.end()
            if mark[0] == '"':
                self._step_over_text(what)
            depth += (mark[0] in "[{") - (mark[0] in "]}")
            if depth <= 0:
                return

    def _step_over_text(self, what: str) -> None:
        while True:
            inside = _TEXT.match(self.text, self.position)
            assert inside is not None
            self.position = inside.end()
            if self._take('"'):
                return
            self._more_of(what)

    def _more_of(self, what: str) -> None:
        if self.ended:
            self._fail(what)
        self._more()

    def _skip(self) -> None:
        while True:
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text) or self.ended:
                return
            self._more()

    def _take(self, mark: str) -> bool:
        is_next = self.text.startswith(mark, self.position)
        self.position += is_next
        return is_next

    def _more(self) -> None:
        # at least as much as is waiting, so that one huge record costs linear time
        raw = read(self.path, self.stream, min(max(_CHUNK, len(self.text) - self.position), RECORD_BYTES), self.row)
        self.read += len(raw)
        try:
            new = self.bytes_of.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            byte = self.read - len(error.object) + error.start
            raise InputError(
                f"{self.path}: byte {byte} is not UTF-8 ({error.reason}), in row {self.row} or soon after. "
                "Convert the file to UTF-8."
            ) from error
        self.ended = not raw
        self.text, self.position = self.text[self.position :] + new, 0

    def _fail(self, what: str) -> NoReturn:
        near = self.text[self.position : self.position + 60]
        raise InputError(f"{self.path}: row {self.row}: {what}; near {near!r}.")
