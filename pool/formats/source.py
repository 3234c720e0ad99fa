"""What a source is (a file, a folder, a pattern), which files it has, and how a format describes itself."""

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs

from ...store.errors import InputError
from ...store.files import list_files, look_at

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Source:
    """Where records lie and how they are read: `split` and `layout` are for the formats that have them."""

    path: str
    image_root: str | None = None
    split: str | None = None
    layout: str | None = None


@dataclass(frozen=True)
class Format:
    """One format: `looks` is for people; `read` yields LLaVA-shaped records (or a `RefusedError` for a row).

    `files` are those that the records depend on; `root` is the image root that the format implies when none is
    given; `takes` names the options that mean something here.
    """

    name: str
    looks: str
    read: Callable[[Source], Iterator[Any]]
    files: Callable[[Source], list[str]]
    root: Callable[[Source], str | None]
    takes: frozenset[str] = frozenset()


def kind_of(path: str) -> pafs.FileType:
    """Return what is at a path or URI."""
    return look_at(path).type


def is_pattern(path: str) -> bool:
    """Say whether a source is a pattern of file names; a file that is really called so is none."""
    return bool(_GLOB.search(path)) and kind_of(path) == pafs.FileType.NotFound


def folder_of(path: str) -> str:
    """Return the folder of a source: itself, a file's, or the one above a pattern's first `*`."""
    path = path if "://" in path else os.path.abspath(path)
    if is_pattern(path):
        return path[: _GLOB.search(path).start()].rpartition("/")[0]  # pyright: ignore
    return path.rstrip("/") if kind_of(path) == pafs.FileType.Directory else path.rpartition("/")[0]


def shards_root(source: Source) -> str:
    """Return the folder of a source's shards: their pictures are inside them."""
    return folder_of(source.path)


def shards(path: str, suffix: str | tuple[str, ...], recursive: bool = True) -> list[str]:
    """Return the files of a source that end in `suffix`, sorted by name.

    Raises:
        InputError: there is none.
    """
    path = path if "://" in path else os.path.abspath(path)
    if is_pattern(path):
        paths = [f for f in list_files(folder_of(path), recursive=True) if _matches(f, path)]
    elif kind_of(path) == pafs.FileType.Directory:
        paths = list_files(path, recursive=recursive)
    else:
        paths = [path] if kind_of(path) == pafs.FileType.File else []
    paths = [f for f in paths if f.endswith(suffix)]
    if not paths:
        raise InputError(f"cannot read {path!r}: there is no {suffix} file.")
    return paths


def below(file: str, root: str) -> str:
    """Return a shard's path under the image root, for image references.

    Raises:
        InputError: it is not there, or only by a link that leads out.
    """
    root = (root if "://" in root else os.path.abspath(root)).rstrip("/")
    if not file.startswith(root + "/"):
        raise InputError(f"the pictures are inside {file!r}, which is not under the image root {root!r}: give none.")
    if "://" not in file and not os.path.realpath(file).startswith(os.path.realpath(root) + os.sep):
        raise InputError(
            f"{file!r} is a link that leads out of {root!r} (a download cache?): its pictures would be refused. "
            "Give a folder with the files themselves."
        )
    return file[len(root) + 1 :]


def _matches(file: str, pattern: str) -> bool:
    # name by name: a `*` does not reach into folders
    names, wanted = file.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatch.fnmatchcase, names, wanted))
