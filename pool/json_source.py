"""A source's bytes: opened and decompressed on the way, given back where somebody has looked ahead; and their decoder."""

import json
from itertools import chain
from typing import Any

import numpy as np
import pyarrow.fs as pafs

from ..store.errors import InputError
from ..store.files import open_fs
from .refusals import RefusedError

_COLON, _QUOTE, _BACKSLASH = map(ord, ':"\\')
_SPACE = np.zeros(256, bool)
_SPACE[list(b" \t\r\n")] = True


def _int(text: str) -> int | str:
    # Python makes no int of more than 4300 digits; as text it is kept and written again
    return int(text) if len(text) < 4300 else text


# keeps the last of a key that an object names twice: for bytes that `may_repeat` clears
JSON = json.JSONDecoder(strict=False, parse_int=_int)


class Once:
    """Decodes as `JSON` does; a value in which an object names a key twice comes as a `RefusedError`."""

    def __init__(self) -> None:
        self._json = json.JSONDecoder(strict=False, parse_int=_int, object_pairs_hook=self._object)
        self._twice: list[str] = []

    def raw_decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """Return a value and where it ends. Raises: as `json.JSONDecoder.raw_decode`."""
        self._twice.clear()
        value, end = self._json.raw_decode(text, start)
        return (named_twice(self._twice[0]) if self._twice else value), end

    def decode(self, text: str) -> Any:
        """Return the value of a text. Raises: as `json.JSONDecoder.decode`."""
        self._twice.clear()
        value = self._json.decode(text)
        return named_twice(self._twice[0]) if self._twice else value

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            seen = set[str]()
            self._twice.append(next(k for k, _ in pairs if k in seen or seen.add(k)))
        return value


def named_twice(key: str) -> RefusedError:
    """Return the refusal of a record in which an object names a key twice: which of the two was meant?"""
    return RefusedError("key_twice", f"an object of this record names the key {key[:60]!r} twice")


def may_repeat(data: bytes, values: list[Any]) -> bool:
    """Say whether an object of these values, which `JSON` made of the data, may name a key twice; False is certain.

    The data holds as many keys as the values, if none was lost. Counted are colons behind a quote that is not escaped, and
    the keys of records and of objects in their lists: what is built otherwise may repeat, and is for `Once` to read. So a
    usual record costs a fifth of a microsecond instead of two.
    """
    codes = np.frombuffer(data, np.uint8)
    # in JSON three bytes and more stand before a colon
    colons = np.flatnonzero(codes == _COLON)
    before, second, third = (codes[colons - n] for n in (1, 2, 3))
    quoted, escaped = before == _QUOTE, second == _BACKSLASH
    # a space before the colon; a text that ends in a backslash
    if (_SPACE[before] & (_SPACE[second] | (second == _QUOTE))).any() or (
        quoted & escaped & (third == _BACKSLASH)
    ).any():
        return True
    records = [v for v in values if type(v) is dict]
    lists = [x for r in records for x in r.values() if type(x) is list and x and type(x[0]) is dict]
    try:
        inside = sum(map(dict.__len__, chain.from_iterable(lists)))
    except TypeError:  # a list of objects and others
        return True
    return sum(map(len, records)) + inside != np.count_nonzero(quoted & ~escaped)


def read(path: str, stream: Any, size: int, row: int) -> bytes:
    """Read up to `size` bytes; what fails names the row that was next."""
    try:
        return stream.read(size)
    except OSError as error:
        raise InputError(f"{path}: reading stopped at row {row}: {error}.") from error


class PushedBack:
    """A stream that first gives bytes back."""

    def __init__(self, pushed_back: list[bytes], stream: Any, error: OSError | None = None) -> None:
        self.pushed_back, self.stream, self.error = [g for g in pushed_back if g], stream, error

    def read(self, size: int) -> bytes:
        if self.pushed_back:
            head = self.pushed_back.pop(0)
            if len(head) > size:
                self.pushed_back.insert(0, head[size:])
            return head[:size]
        if self.error:
            raise self.error
        return self.stream.read(size)


def open_records(path: str) -> Any:
    """Open a source's bytes, decompressed.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    fs, inner = open_fs(path)
    try:
        kind = fs.get_file_info(inner).type
        if kind != pafs.FileType.File:
            reasons = {
                pafs.FileType.NotFound: "there is no such file",
                pafs.FileType.Directory: "it is a folder",
            }
            raise InputError(f"cannot read {path!r}: {reasons.get(kind, 'it is no regular file')}.")
        return fs.open_input_stream(inner)
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error}.") from error
