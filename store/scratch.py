"""A local folder in which a worker writes what belongs at a URI: logs that grow, weights that libraries write to files.

Where the output is a path, it is that folder itself and nothing is copied. At a URI each worker of each machine has one of
its own: its small files are fetched when it begins, and copied back whenever it says so, if they changed.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .fetch import cache_folder
from .files import digest, is_uri, join, list_files, look_at
from .folders import get_file, put_file, put_folder, remove

# bytes: what is fetched when a worker begins are logs and notes
_SMALL = 256_000_000
# s between copies of a log that grows
_EVERY = 10.0


class Scratch:
    """`home`: the output, a path or a URI; `local`: where it is written."""

    def __init__(self, home: str, local: str) -> None:
        self.home, self.local = home, local
        self._seen: dict[str, tuple[int, int]] = {}
        self._pushed = time.monotonic()

    @property
    def apart(self) -> bool:
        """Whether what is written has to be copied."""
        return self.home != self.local

    def fetch(self) -> None:
        """Fetch the files of the output itself, not those of its folders."""
        for path in list_files(self.home):
            if (size := look_at(path).size or 0) <= _SMALL:
                name = path.rsplit("/", 1)[1]
                get_file(path, Path(self.local, name), size)
                self._seen[name] = self._stamp(name)

    def push(self) -> None:
        """Copy what changed since the last time. Raises: WriteError: it cannot be written."""
        if not self.apart:
            return
        self._pushed = time.monotonic()
        for path in sorted(Path(self.local).rglob("*")):
            name = path.relative_to(self.local).as_posix()
            if not path.is_file() or ".tmp-" in name:
                continue
            stamp = self._stamp(name)
            if self._seen.get(name) != stamp:
                put_file(path, join(self.home, name))
                self._seen[name] = stamp

    def push_now_and_then(self) -> None:
        """Copy what changed, unless that was a moment ago: for who watches from elsewhere. Raises: as `push`."""
        if time.monotonic() - self._pushed > _EVERY:
            self.push()

    def put(self, name: str) -> None:
        """Copy a folder, in the place of one of that name, and free its room here. Raises: as `push`."""
        if self.apart and os.path.isdir(os.path.join(self.local, name)):
            put_folder(os.path.join(self.local, name), join(self.home, name))
            shutil.rmtree(os.path.join(self.local, name))

    def drop(self, name: str) -> None:
        """Remove a folder."""
        remove(join(self.home, name))

    def _stamp(self, name: str) -> tuple[int, int]:
        about = os.stat(os.path.join(self.local, name))
        return about.st_size, about.st_mtime_ns


@contextmanager
def local_file(path: str) -> Iterator[str]:
    """Yield where to write a file that a library or a stream writes to: at its path, or beside, to be copied to its URI."""
    if not is_uri(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, path.rsplit("/", 1)[1])
        try:
            yield local
        finally:
            if os.path.isfile(local):
                put_file(local, path)


@contextmanager
def local_output(folder: str) -> Iterator[str]:
    """Yield where to write a folder whole: at its path, or beside, to be copied to its URI when the body ends well."""
    if not is_uri(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        local = os.path.join(temporary, folder.rstrip("/").rsplit("/", 1)[1])
        yield local
        put_folder(local, folder)


@contextmanager
def scratch(home: str, worker: str) -> Iterator[Scratch]:
    """Yield where `worker` writes an output; what it has written is at its place when the body ends, however that ends.

    Raises:
        WriteError: it cannot be copied there.
    """
    if not is_uri(home):
        yield Scratch(home, home)
        return
    root = cache_folder("work", f"{digest(home)}-{worker}")
    shutil.rmtree(root, ignore_errors=True)  # a killed worker's: what it had to keep is at the URI
    local = os.path.join(root, home.rstrip("/").rsplit("/", 1)[1])
    os.makedirs(local)
    place = Scratch(home, local)
    try:
        place.fetch()
        try:
            yield place
        finally:
            place.push()
    finally:
        shutil.rmtree(root, ignore_errors=True)
