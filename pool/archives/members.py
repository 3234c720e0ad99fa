"""What archives share: where a member's bytes lie, by name, in 8 bytes of hash and a few numbers; size caps; files."""

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from ...store.arrays import Array
from ..checks import ImageError

# a picture's file of more bytes is refused, in an archive before it is unpacked
MAX_BYTES = 256 << 20
# what libraries raise on damaged archives beside errors of their own
DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    MemoryError,
    pa.ArrowException,
)
_FILES = 64

Read = Callable[[], bytes]


class Archive(Protocol):
    """An archive opened as a folder; made once a process, used by many threads."""

    def find(self, name: str) -> Read:
        """Return what reads the member `name`.

        Raises:
            ImageError: image_missing, image_not_a_file, image_empty, image_too_large, image_unreadable.
        """
        ...


def check_size(size: int, what: str) -> None:
    """Refuse a file of no bytes or too many.

    Raises:
        ImageError: image_empty, image_too_large.
    """
    if size <= 0:
        raise ImageError("image_empty", f"{what} has no bytes.")
    if size > MAX_BYTES:
        raise ImageError("image_too_large", f"{what} has {size} bytes, over {MAX_BYTES}.")


class File:
    """A file read at random by threads; of all such files the last 64 used stay open (a pool may have 1000 shards)."""

    _open: OrderedDict["File", pa.NativeFile] = OrderedDict()
    _lock = threading.Lock()

    def __init__(self, fs: pafs.FileSystem, path: str) -> None:
        self.fs, self.path = fs, path

    def handle(self) -> pa.NativeFile:
        """Return the open file; one that is pushed out closes when its last reader lets it go."""
        with File._lock:
            handle = File._open.pop(self, None)
            if handle is None:
                handle = self.fs.open_input_file(self.path)
            File._open[self] = handle
            if len(File._open) > _FILES:
                File._open.popitem(last=False)
            return handle

    def read_at(self, size: int, offset: int) -> bytes:
        """Read up to `size` bytes; fewer where the file ends."""
        return self.handle().read_at(size, offset)


class Index:
    """Members by name, `width` numbers each; of two with one name the later counts."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._keys, self._values = array("Q"), array("q")
        self._ranked: tuple[Array, Array] | None = None

    def add(self, name: str, *values: int) -> None:
        """Take one member."""
        assert len(values) == self.width
        self._keys.append(_key(name))
        self._values.extend(values)

    def close(self) -> "Index":
        """Rank what was added; finding comes after."""
        keys, values = np.array(self._keys, np.uint64), np.array(self._values, np.int64)
        order = np.argsort(keys, kind="stable")
        self._ranked = keys[order], values.reshape(-1, self.width)[order]
        self._keys, self._values = array("Q"), array("q")
        return self

    def find(self, name: str) -> tuple[int, ...] | None:
        """Return the numbers of a member; None when there is none."""
        assert self._ranked is not None
        keys, values = self._ranked
        key = np.uint64(_key(name))
        place = int(np.searchsorted(keys, key, side="right")) - 1
        return tuple(values[place].tolist()) if place >= 0 and keys[place] == key else None


def _key(name: str) -> int:
    # two names of 64 equal bits: one chance in 10 million in an archive of 2 million members
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
