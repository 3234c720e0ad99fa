"""One writer of a folder at a time: a file beside what is written, made only if it is not there, names who holds it.

On the holder's own machine his process is looked at. Elsewhere (a shared disk, a bucket) he is believed as long as he
touches the file, which he does every minute; ages are taken by the clock of where the file lies. A holder who finds that
his place was taken, since he was suspended for longer than that, ends (`when_taken`).
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from .errors import InputError
from .files import exists, join, look_at, open_fs, read_json, write_json
from .machine import unwritten

LOCK = ".vinnow.lock"
# s: a lock of another machine that was not touched for so long has no owner any more; how often an owner touches his
STALE, TOUCH = 300.0, 60.0
# s that an attempt waits for the one before it to be gone
_GRACE = 60.0
# what a command line wants done when the folder that it writes into has another writer; a library's user has none
when_taken: list[Callable[[str], None]] = []
_SECRET = ("key", "token", "secret", "password")
_run: ContextVar[dict[str, Any] | None] = ContextVar("run", default=None)


class BusyError(InputError):
    """Another process is writing into the folder."""


@contextmanager
def attempt_of(run: str) -> Iterator[None]:
    """Say that the body is an attempt at a part of the run in a folder, whose driver starts one at a time.

    What an attempt of the same driver held is free for the next one: its node may be lost, and nobody would ever say so.
    """
    before = _run.set(_read(join(run, LOCK)))
    try:
        yield
    finally:
        _run.reset(before)


def check_free(out: str) -> None:
    """See that nobody writes into a folder: for what would start Ray only to find that out.

    Raises:
        BusyError: somebody does, as `locked` would say.
    """
    path = join(out, LOCK)
    holder = _holder(path, _is_attempt_before(_read(path))) if exists(path) else None
    if holder is not None:
        raise BusyError(_said(out, path, holder))


@contextmanager
def locked(out: str, stage: str) -> Iterator[None]:
    """Hold a folder while the body runs.

    Raises:
        BusyError: somebody else does; names who, since when, and how it becomes free. Or somebody else came to.
        WriteError: nothing can be written there.
    """
    path, me = join(out, LOCK), _me(stage)
    begin = time.monotonic()
    while not _create(path, me):
        seen = _read(path)
        before = _is_attempt_before(seen)
        holder = _holder(path, before)
        if holder is None:
            _take_away(path, seen)
        elif before and time.monotonic() - begin < _GRACE:
            time.sleep(0.2)
        else:
            raise BusyError(_said(out, path, holder))
    ended, lost = threading.Event(), list[str]()
    threading.Thread(target=_touch, args=(path, me, ended, lost), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        if _read(path) == me:
            _drop(path)
    if lost:
        raise BusyError(lost[0])


def _me(stage: str) -> dict[str, Any]:
    pid = os.getpid()
    me = {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "born": _born(pid), "since": time.time()}
    run = _run.get()
    return me | {"stage": stage, "command": _command(), "run": None if run is None else _identity(run)}


def _identity(held: dict[str, Any]) -> str:
    return f"{held['pid']} {held['host']} {held['since']}"


def _is_attempt_before(held: dict[str, Any] | None) -> bool:
    """Say whether a lock is one of an attempt that this process's driver has started before this one."""
    run = _run.get()
    return held is not None and run is not None and held.get("run") == _identity(run)


@cache
def _machine() -> str:
    """Return what tells machines apart, and containers that share a name but not the numbers of their processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _command() -> str:
    """Return this process's command line, without what may be a secret."""
    words = [Path(sys.argv[0]).name.replace("__main__.py", "vinnow"), *sys.argv[1:]] if sys.argv else []
    shown = []
    for word in words:
        name, sep, _ = word.partition("=")
        shown.append(f"{name}=…" if sep and any(s in name.lower() for s in _SECRET) else word)
    return " ".join(shown)[:300]


def _said(out: str, path: str, holder: dict[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
    who = f"process {holder['pid']} on {holder['host']}, since {since}"
    command = f": {holder['command']}" if holder.get("command") else ""
    said = (
        f"{out!r} is being written by {holder['stage']!r} ({who}{command}). Wait for it, or name another output folder."
    )
    if "age" not in holder:
        return said
    left = max(1, round((STALE - holder["age"]) / 60))
    return (
        f"{said} It was last heard of {holder['age']:.0f} s ago; if that machine is gone, the folder is free in "
        f"{left} min, or as soon as you delete {path!r}."
    )


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
        if _read(path) == seen:
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


def _holder(path: str, attempt_before: bool) -> dict[str, Any] | None:
    """Return who holds a lock, of another machine with its `age` in s; None when he is gone."""
    info = look_at(path)
    if info.type == pafs.FileType.NotFound:
        return None
    held = _read(path)
    if held is None:  # just being written, or cut off by a crash
        held = {"host": "?", "pid": "?", "since": (info.mtime_ns or 0) / 1e9, "stage": "?"}
        return held if _age(path) < TOUCH else None
    # a lock of an older version names its host alone
    here = held.get("machine") == _machine() if held.get("machine") else held["host"] == socket.gethostname()
    if not here:
        age = _age(path)
        return None if attempt_before or age >= STALE else held | {"age": age}
    pid = int(held["pid"])
    return held if _lives(pid) and held.get("born") == _born(pid) else None


def _age(path: str) -> float:
    """Return the seconds since a file was written, by the clock of where it lies."""
    then = look_at(path).mtime_ns or 0
    probe = f"{path}.{uuid.uuid4().hex[:8]}"
    try:
        write_json(probe, {})
        now = look_at(probe).mtime_ns or 0
    finally:
        _drop(probe)
    return max(0.0, (now - then) / 1e9)


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


def _touch(path: str, me: dict[str, Any], ended: threading.Event, lost: list[str]) -> None:
    """Say again and again that the holder lives; end when somebody else has taken his place."""
    while not ended.wait(TOUCH):
        held = _read(path)
        if held is not None and held != me and not ended.is_set():
            who = f"process {held['pid']} on {held['host']}"
            lost.append(f"{os.path.dirname(path)!r} was taken over by {who}: this process gave no sign for too long.")
            for call in when_taken:
                call(lost[0])
            return
        with suppress(Exception):
            if "://" in path:
                write_json(path, me)
            else:
                os.utime(path)


def _drop(path: str) -> None:
    fs, inner = open_fs(path)
    with suppress(OSError):
        fs.delete_file(inner)
