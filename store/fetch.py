"""Model folders at a URI, as local ones: libraries map weights from files. Fetched once a machine, and kept.

`~/.cache/vinnow/models/DIGEST` (or below VINNOW_CACHE) holds a folder; the digest is of its URI and of what its store says
of each file, so that another state of it is another folder. Who uses one holds its lock; the longest unused go first
when the disk has no room for the next.
"""

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from .errors import WriteError
from .files import digest, list_files, look_at
from .folders import get_folder

# of the disk, what a fetched model leaves free at least
_SPARE = 1_000_000_000
# locks of the folders that this process uses, until it ends
_USED: dict[str, IO[bytes]] = {}


def cache_folder(*names: str) -> str:
    """Return a folder of this machine's cache: below VINNOW_CACHE, XDG_CACHE_HOME/vinnow, or ~/.cache/vinnow."""
    root = os.environ.get("VINNOW_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vinnow"
    )
    return os.path.join(root, *names)


def local_folder(uri: str) -> str | None:
    """Return a local copy of the folder at a URI, fetched if it is not here; None where nothing is there.

    Raises:
        InputError: it cannot be read.
        WriteError: there is no room for it.
    """
    root = uri.rstrip("/")
    infos = {path[len(root) + 1 :]: look_at(path) for path in list_files(root)}
    if not infos:
        return None
    told = "\n".join(f"{n} {i.size} {i.mtime_ns}" for n, i in sorted(infos.items()))
    place = cache_folder("models", digest(root, told))
    if place in _USED:
        return place
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        lock = open(f"{place}.lock", "ab")  # noqa: SIM115
    except OSError as error:
        raise WriteError(f"cannot keep models in {cache_folder()!r}: {error}. Set VINNOW_CACHE to a folder.") from error
    fcntl.flock(lock, fcntl.LOCK_SH)  # whoever would remove it wants this alone
    os.utime(f"{place}.lock")
    if not os.path.isdir(place):
        with open(f"{place}.fetch", "ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # one process of a machine fetches, the others wait for it
            if not os.path.isdir(place):
                sizes = {n: i.size or 0 for n, i in infos.items()}
                _make_room(place, sum(sizes.values()))
                _fetch(root, place, sizes)
    _USED[place] = lock
    return place


def _fetch(uri: str, place: str, sizes: dict[str, int]) -> None:
    temporary = f"{place}.tmp-{os.getpid()}"
    try:
        get_folder(uri, temporary, sizes)
        Path(f"{place}.from").write_text(f"{uri}\n")
        os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_room(place: str, need: int) -> None:
    """Remove what was cut off, and the longest unused folders, until there is room. Raises: WriteError: there is not."""
    folder = os.path.dirname(place)
    locks = sorted(Path(folder).glob("*.lock"), key=lambda p: p.stat().st_mtime)
    for path in locks:
        kept = str(path).removesuffix(".lock")
        if shutil.disk_usage(folder).free >= need + _SPARE:
            break
        if kept == place or kept in _USED:
            continue
        with path.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # somebody uses it
                continue
            shutil.rmtree(kept, ignore_errors=True)
            for left in Path(folder).glob(f"{Path(kept).name}.tmp-*"):
                shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(folder).free
    if free < need + _SPARE:
        raise WriteError(
            f"a model of {need / 1e9:,.1f} GB does not fit into {folder!r}, where {free / 1e9:,.1f} GB are free, of which "
            f"{_SPARE / 1e9:.0f} stays free. Make room there, or set VINNOW_CACHE to a folder of a larger disk."
        )


def let_go(uri: str) -> None:
    """Say that this process needs no folder of a URI any more, so that others may take its room; what is mapped stays."""
    for place in [p for p in _USED if _is_of(p, uri)]:
        _USED.pop(place).close()


def drop(uri: str) -> None:
    """Remove this machine's copies of the folder at a URI, but those that somebody uses."""
    let_go(uri)
    for note in Path(cache_folder("models")).glob("*.from"):
        place = str(note).removesuffix(".from")
        if not _is_of(place, uri):
            continue
        with suppress(OSError), open(f"{place}.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
            note.unlink(missing_ok=True)


def _is_of(place: str, uri: str) -> bool:
    with suppress(OSError):
        return Path(f"{place}.from").read_text().strip() == uri.rstrip("/")
    return False
