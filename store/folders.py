"""Folders at a path or a URI: their names, and folders that are copied to a URI, fetched from one, or removed.

An object store has no folders that appear whole: what says that one is complete is written last.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from .errors import InputError
from .files import join, list_files, look_at, open_fs
from .machine import unwritten, writing
from .reading import reading

_THREADS, _CHUNK = 8, 8 << 20
# files without which a folder is no model, no state: they are copied when all else is there
LAST = ("trained.json", "mores.json", "adapter_config.json", "config.json", "progress.json")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Say whether a folder is there. Raises: as `files.look_at`."""
    return look_at(path).type == pafs.FileType.Directory


def names(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of what lies in a folder, sorted; of none if it is not there.

    Raises:
        InputError: it may not be read.
    """
    fs, inner = open_fs(folder)
    with reading(folder, "a folder"):
        return sorted(i.base_name for i in fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True)))


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a folder with all that is in it, or a file, if it is there."""
    fs, inner = open_fs(path)
    if isinstance(fs, pafs.LocalFileSystem):
        if os.path.isdir(inner) and not os.path.islink(inner):
            shutil.rmtree(inner, ignore_errors=True)
        else:
            Path(inner).unlink(missing_ok=True)
        return
    kind = look_at(path).type
    with suppress(FileNotFoundError):
        if kind == pafs.FileType.Directory:
            fs.delete_dir(inner)
        elif kind == pafs.FileType.File:
            fs.delete_file(inner)


def move_file(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> None:
    """Give a file another name on its file system.

    Raises:
        WriteError: it cannot be written there.
    """
    (fs, inner), (_, target) = open_fs(path), open_fs(to)
    try:
        fs.move(inner, target)
    except OSError as error:
        raise unwritten(to, error) from error


def put_file(local: str | os.PathLike[str], path: str) -> None:
    """Copy a local file to a path or URI, where it appears whole.

    Raises:
        WriteError: it cannot be written, or has another size there.
    """
    fs, inner = open_fs(path)
    try:
        with open(local, "rb") as source, fs.open_output_stream(inner, compression=None) as sink:
            size = 0
            while data := source.read(_CHUNK):
                sink.write(data)
                size += len(data)
    except OSError as error:
        raise unwritten(path, error) from error
    there = look_at(path).size
    if there != size:
        raise unwritten(path, OSError(f"{there} of {size} bytes are there"))


def put_folder(local: str | os.PathLike[str], folder: str) -> None:
    """Copy a local folder to a URI in the place of what is there; what says that it is complete comes last.

    Raises: as `put_file`.
    """
    remove(folder)
    files = [p.relative_to(local).as_posix() for p in sorted(Path(local).rglob("*")) if p.is_file()]
    last = [f for f in files if f in LAST]
    _each([f for f in files if f not in last], lambda name: put_file(Path(local, name), join(folder, name)))
    for name in sorted(last, key=LAST.index):
        put_file(Path(local, name), join(folder, name))


def get_folder(folder: str, local: str | os.PathLike[str], sizes: dict[str, int] | None = None) -> None:
    """Copy a folder at a URI into a local one, each file of its whole size; `sizes`: as `sizes_of`, if they are known.

    Raises:
        InputError: a file of it cannot be read, or is shorter than its store says.
        WriteError: there is no room for it here.
    """
    sizes = sizes_of(folder) if sizes is None else sizes
    for name in sizes:
        Path(local, name).parent.mkdir(parents=True, exist_ok=True)
    _each(sizes, lambda name: get_file(join(folder, name), Path(local, name), sizes[name]))


def sizes_of(folder: str) -> dict[str, int]:
    """Return the files below a folder at a URI, by name, with their bytes."""
    root = folder.rstrip("/")
    return {path[len(root) + 1 :]: look_at(path).size or 0 for path in list_files(root, recursive=True)}


def get_file(path: str, local: Path, size: int) -> None:
    """Copy a file of so many bytes. Raises: as `get_folder`."""
    fs, inner = open_fs(path)
    with writing(local), local.open("wb") as sink:
        try:
            with fs.open_input_stream(inner, compression=None) as source:
                while data := source.read(_CHUNK):
                    sink.write(data)
        except (pa.ArrowException, FileNotFoundError) as error:
            raise InputError(f"cannot fetch {path!r}: {error}.") from error
        if sink.tell() != size:
            raise InputError(f"{path!r}: {sink.tell():,} of {size:,} bytes came. Is it being written? Try again.")


def _each(items: Iterable[str], work: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, items):
            pass
