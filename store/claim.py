"""Whose a folder is: a stage writes into an empty folder or into its own, and one writer at a time.

An own folder holds `.vinnow.json`, which names the stage; `lock.py` sees to the one writer.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import pyarrow.fs as pafs

from .errors import InputError
from .facts import read_fields
from .files import exists, join, look_at, open_fs, write_json
from .lock import LOCK, BusyError, locked
from .reading import reading

__all__ = ["LOCK", "MARK", "BusyError", "check_claim", "check_new_file", "check_out", "claim"]

MARK = ".vinnow.json"
_UNMARKED = "Put it back, or name another output folder."
_HELD: set[str] = set()


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
        with locked(out, stage):
            if not exists(join(out, MARK)):
                write_json(join(out, MARK), {"stage": stage})
            try:
                yield
            finally:
                if new and _names(out) <= {MARK, LOCK}:
                    fs, inner = open_fs(join(out, MARK))
                    with suppress(OSError):
                        fs.delete_file(inner)
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
    # a mark or a lock that was being written when its process was killed is nobody's file
    names = sorted(n for n in _names(out) if not n.startswith((f"{MARK}.tmp-", LOCK)))
    if names and not (known and any(re.fullmatch(known, n) for n in names)):
        raise InputError(
            f"{out!r} holds other files ({', '.join(map(repr, names[:3]))}{', …' if len(names) > 3 else ''}), and nothing "
            f"shows that {stage!r} made them. Name an output folder that is empty or not there yet."
        )


def _names(out: str) -> set[str]:
    fs, inner = open_fs(out)
    with reading(out, "a folder"):
        return {i.base_name for i in fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True))}


def _real(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.realpath(path)
