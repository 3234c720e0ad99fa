"""Whose a folder is: a stage writes into an empty folder or into its own, and one writer at a time.

An own folder holds `.vinnow.json`, which names the stage. The lock beside it is a file made only if it is not there; it
names host, process and since when. A lock whose process is gone from this host is taken over; one of another host holds as
long as its file is touched, which its owner does every minute.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from .errors import InputError
from .facts import read_fields
from .files import exists, join, look_at, open_fs, read_json, write_json
from .machine import unwritten
from .reading import reading

MARK, LOCK = ".vinnow.json", ".vinnow.lock"
# s: a lock of another host that was not touched for so long has no owner any more; how often an owner touches his
_STALE, _TOUCH = 300.0, 60.0
_UNMARKED = "Put it back, or name another output folder."
_HELD: set[str] = set()


class BusyError(InputError):
    """Another process is writing into the folder."""


def check_out(out: str, inputs: Iterable[str | None] = ()) -> None:
    """See that `out` can be an output folder, and that nothing that is to be read lies in it.

    Raises:
        InputError: it is empty (an unset variable), a file or a device, or one of `inputs` is it or lies in it.
    """
    if not out.strip():
        raise InputError("the output folder is an empty path. Was a variable not set?")
    if look_at(out).type not in (pafs.FileType.NotFound, pafs.FileType.Directory):
        raise InputError(f"the output {out!r} is no folder. Name one that is empty or not there yet.")
    here = _real(out)
    for path in inputs:
        if path and f"{_real(path)}/".startswith(f"{here.rstrip('/')}/"):
            raise InputError(
                f"{path!r} is to be read, and lies in the output folder {out!r}. Name another output folder."
            )


def check_new_file(path: str) -> None:
    """See that `path` can be a new output file: not empty, and nothing is there that would be overwritten.

    Raises:
        InputError: something is.
    """
    if not path.strip():
        raise InputError("the output file is an empty path. Was a variable not set?")
    kind = look_at(path).type
    if kind == pafs.FileType.File:
        raise InputError(f"{path!r} is there already. Delete it, or name another file.")
    if kind != pafs.FileType.NotFound:
        raise InputError(f"the output {path!r} is there, and is no regular file. Name another one.")


def check_claim(out: str, stage: str, known: str = "") -> None:
    """See that `claim` would find `out` empty, or this stage's; nothing is written. Raises: as there, but `BusyError`."""
    check_out(out)
    _check_ours(out, stage, known)


@contextmanager
def claim(out: str, stage: str, known: str = "", inputs: Iterable[str | None] = ()) -> Iterator[None]:
    """Hold `out` for a stage: it is empty, or this stage's; nobody else writes into it until the body ends.

    `known`: a pattern of names by which a folder without a mark is known to be the stage's. A folder that the body leaves
    empty is not left behind.

    Raises:
        InputError: as `check_out`; or it holds what is not this stage's.
        BusyError: somebody else is writing into it; names who, and since when.
        WriteError: nothing can be written there.
    """
    check_out(out, inputs)
    here = _real(out)
    if here in _HELD:  # this process does: a run's stage inside the run's folder, or the demo around the run
        yield
        return
    new = not exists(out)
    _check_ours(out, stage, known)
    _HELD.add(here)
    try:
        with _locked(out, stage):
            if not exists(join(out, MARK)):
                write_json(join(out, MARK), {"stage": stage})
            try:
                yield
            finally:
                if new and _names(out) <= {MARK, LOCK}:
                    _drop(join(out, MARK))
    finally:
        _HELD.discard(here)
        if new and exists(out) and not _names(out):
            fs, inner = open_fs(out)
            with suppress(OSError):
                fs.delete_dir(inner)


def _check_ours(out: str, stage: str, known: str) -> None:
    if exists(join(out, MARK)):
        made_by = read_fields(join(out, MARK), "mark of a stage's folder", _UNMARKED, stage=str)["stage"]
        if made_by != stage:
            raise InputError(f"{out!r} was made by {made_by!r}, not by {stage!r}. Name another output folder.")
        return
    names = sorted(_names(out) - {LOCK})
    if names and not (known and any(re.fullmatch(known, n) for n in names)):
        raise InputError(
            f"{out!r} holds other files ({', '.join(map(repr, names[:3]))}{', …' if len(names) > 3 else ''}), and nothing "
            f"shows that {stage!r} made them. Name an output folder that is empty or not there yet."
        )


@contextmanager
def _locked(out: str, stage: str) -> Iterator[None]:
    path, pid = join(out, LOCK), os.getpid()
    me = {"host": socket.gethostname(), "pid": pid, "born": _born(pid), "since": time.time(), "stage": stage}
    while not _create(path, me):
        seen = _read(path)
        holder = _holder(path)
        if holder is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
            raise BusyError(
                f"{out!r} is being written by {holder['stage']!r} (process {holder['pid']} on {holder['host']}, since "
                f"{since}). Wait for it, or name another output folder."
            )
        _take_away(path, seen)
    ended = threading.Event()
    threading.Thread(target=_touch, args=(path, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _drop(path)


def _create(path: str, me: dict[str, Any]) -> bool:
    """Make the lock unless it is there. Behind a URI these are two steps: who lost a race sees it a second later."""
    if "://" in path:
        if exists(path):
            return False
        write_json(path, me)
        time.sleep(1)
        return _read(path) == me
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritten(Path(path).parent, error) from error
    try:
        with os.fdopen(handle, "w") as sink:
            json.dump(me, sink)
    except OSError as error:  # an empty lock would be taken for one that is just being written
        _drop(path)
        raise unwritten(path, error) from error
    return True


def _take_away(path: str, seen: dict[str, Any] | None) -> None:
    """Remove the lock of an owner who is gone; one that somebody else has put in its place since stays."""
    if "://" in path:
        _drop(path)
        return
    aside = f"{path}.{os.getpid()}"
    if os.path.isdir(path):
        raise InputError(f"{path!r} is a folder in the place of a lock. Remove it, or name another output folder.")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if _read(aside) != seen:
            with suppress(FileExistsError):
                os.link(aside, path)
        os.remove(aside)


def _holder(path: str) -> dict[str, Any] | None:
    """Return who holds a lock; None when he is gone."""
    info = look_at(path)
    if info.type == pafs.FileType.NotFound:
        return None
    held = _read(path)
    age = time.time() - (info.mtime_ns or 0) / 1e9
    if held is None:  # just being written, or cut off by a crash
        held = {"host": "?", "pid": "?", "since": (info.mtime_ns or 0) / 1e9, "stage": "?"}
        return held if age < _TOUCH else None
    if held.get("host") != socket.gethostname():
        return held if age < _STALE else None
    pid = int(held["pid"])
    return held if _lives(pid) and held.get("born") == _born(pid) else None


def _read(path: str) -> dict[str, Any] | None:
    try:
        held = read_json(path)
    except InputError:
        return None
    kinds = {"host": str, "pid": int, "since": (int, float), "stage": str}
    if not isinstance(held, dict) or not all(isinstance(held.get(n), k) for n, k in kinds.items()):
        return None
    # numbers that no process and no clock has
    return held if 0 < held["pid"] < 1 << 31 and 0 <= held["since"] < 1e11 else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _born(pid: int) -> str:
    """Return when a process began, as the kernel counts it, or "": its number may be another's by now."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, began = (text.rpartition(")")[2].split()[i] for i in (0, 19))
    return "" if state == "Z" else began


def _touch(path: str, ended: threading.Event) -> None:
    while not ended.wait(_TOUCH):
        with suppress(Exception):
            if "://" in path:
                write_json(path, read_json(path))
            else:
                os.utime(path)


def _names(out: str) -> set[str]:
    fs, inner = open_fs(out)
    with reading(out, "a folder"):
        return {i.base_name for i in fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True))}


def _drop(path: str) -> None:
    fs, inner = open_fs(path)
    with suppress(OSError):
        fs.delete_file(inner)


def _real(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.realpath(path)
