"""A source's bytes: opened and decompressed on the way, given back where somebody has looked ahead; and their decoder."""

import json
from typing import Any

import pyarrow.fs as pafs

from ..store.errors import InputError
from ..store.files import open_fs


def _int(text: str) -> int | str:
    # Python makes no int of more than 4300 digits; as text it is kept and written again
    return int(text) if len(text) < 4300 else text


JSON = json.JSONDecoder(strict=False, parse_int=_int)


def read(path: str, stream: Any, size: int, row: int) -> bytes:
    """Read up to `size` bytes; what fails names the row that was next."""
    try:
        return stream.read(size)
    except OSError as error:
        raise InputError(f"{path}: reading stopped at row {row}: {error}.") from error


class Given:
    """A stream that first gives bytes back."""

    def __init__(self, given: list[bytes], stream: Any, error: OSError | None = None) -> None:
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


def open_records(path: str) -> Any:
    """Open a source's bytes, decompressed.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    fs, inner = open_fs(path)
    try:
        kind = fs.get_file_info(inner).type
        if kind != pafs.FileType.File:
            found = {
                pafs.FileType.NotFound: "there is no such file",
                pafs.FileType.Directory: "it is a folder",
            }
            raise InputError(f"cannot read {path!r}: {found.get(kind, 'it is no regular file')}.")
        return fs.open_input_stream(inner)
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error}.") from error
