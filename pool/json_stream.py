"""Streaming a JSON array or JSONL in bounded memory: one record at a time, whatever the file's size.

665K records (1.2 GB) take some 4 s and 45 MB this way, 3.8 GB with `json.load` (spec: Ray §1).
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any

from ..store.errors import InputError
from ..store.files import open_fs

_CHUNK = 1 << 20
_SPACE = " \t\r\n"


def iter_records(path: str) -> Iterator[Any]:
    """Yield the items of a JSON array, or one value a line (JSONL), from a local path or a `pyarrow.fs` URI.

    Raises:
        InputError: no such file, not UTF-8, another top level than an array or lines, truncated or broken JSON; says
            after how many records.
    """
    fs, inner = open_fs(path)
    try:
        stream = fs.open_input_stream(inner)
    except (FileNotFoundError, IsADirectoryError, OSError) as error:
        raise InputError(f"cannot read {path!r}: {error}.") from error
    with stream:
        yield from _Parser(path, stream).items()


class _Parser:
    def __init__(self, path: str, stream: Any) -> None:
        self.path, self.stream = path, stream
        self.decode = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended, self.count = "", 0, False, 0

    def items(self) -> Iterator[Any]:
        self._skip()
        first = self.text[self.at : self.at + 1]
        if first == "[":
            self.at += 1
            yield from self._array()
        elif first == "{":
            yield from self._lines()
        else:
            found = repr(first) if first else "nothing"
            raise InputError(
                f"{self.path}: expected a JSON array of records or JSONL, found {found} at the start."
            )

    def _array(self) -> Iterator[Any]:
        self._skip()
        if self._take("]"):
            return self._end()
        while True:
            yield self._value()
            self._skip()
            if self._take("]"):
                return self._end()
            if not self._take(","):
                self._fail("expected ',' or ']'")
            self._skip()

    def _lines(self) -> Iterator[Any]:
        while self.at < len(self.text) or not self.ended:
            yield self._value()
            self._skip()

    def _end(self) -> None:
        self._skip()
        if self.at < len(self.text):
            self._fail("there is text behind the array")

    def _value(self) -> Any:
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
                # a number at the buffer's edge may go on in the next chunk
                if end < len(self.text) or self.ended:
                    self.at, self.count = end, self.count + 1
                    return value
            except json.JSONDecodeError as error:
                # a break far from the buffer's end is no truncation: more text would not mend it
                if self.ended or error.pos < len(self.text) - 64 and not _open_string(error):
                    self._fail("the file is cut off" if self.ended else error.msg)
            self._more()

    def _skip(self) -> None:
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return
            self._more()

    def _take(self, mark: str) -> bool:
        if self.text[self.at : self.at + 1] == mark:
            self.at += 1
            return True
        return False

    def _more(self) -> None:
        raw = self.stream.read(max(_CHUNK, len(self.text) - self.at))
        try:
            new = self.decode.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: not UTF-8 after {self.count} records: {error}.") from error
        self.ended = not raw
        self.text, self.at = self.text[self.at :] + new, 0

    def _fail(self, what: str) -> None:
        near = self.text[self.at : self.at + 40]
        raise InputError(f"{self.path}: {what}, after {self.count} records, near {near!r}.")


def _open_string(error: json.JSONDecodeError) -> bool:
    return error.msg.startswith("Unterminated string")
