"""What the machine refuses – room on a disk, writing, memory, open files, processes – in words, with the way out.

Python says such a thing by an errno; torch, safetensors, Arrow and Ray say it by texts of their own. Whoever knows which
place is written to does it inside `writing`.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import InputError, VinnowError, WriteError, wrapped
from .reading import wrong

_ROOM = "Make room there, or name another place"
_NOTHING = "Nothing half written is left."
_PROCESSES = "Allow more of them (`ulimit -u`, or the container's limit), or end others"
# errno → the way out; the words are the system's own
_WAYS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Let files grow (`ulimit -f unlimited`), or name another place",
    errno.EROFS: "Mount it for writing, or name another place",
    errno.EMFILE: "Allow more of them (`ulimit -n 65536`)",
    errno.ENFILE: "Allow the machine more of them (`sysctl fs.file-max`), or end others",
    errno.ENOMEM: "Free memory, or ask for less of it",
    errno.EAGAIN: _PROCESSES,
    errno.EIO: "See to that disk, or name another place",
    errno.ESTALE: "Mount it again, or name another place",
}
_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# only where it is known that something was to be written
_WRITING = dict.fromkeys((errno.EACCES, errno.EPERM), "Let this user write there, or name another place")
# what torch says of loader processes for whose tensors /dev/shm is too small
_SHARED = re.compile(
    r"out of shared memory|shared memory limit|unable to (?:open|write|resize|mmap).*shared memory", re.I
)
_SHARED_SAID = (
    "Not enough shared memory. Enlarge /dev/shm (`docker run --shm-size=8g`), or set fewer loaders, and run again."
)
# what libraries say without an errno: torch of a short write, threads and forks, allocators, Ray's memory monitor
_SAID = {
    errno.ENOSPC: r"unexpected pos \d+ vs \d+|file write failed|out of disk",
    errno.EMFILE: r"no file descriptors available",
    errno.ENOMEM: r"can't allocate memory|bad_alloc|not enough memory|running low on memory|MemoryError",
    errno.EAGAIN: r"can't start new thread|pthread_create failed|Failed to fork|thread: Resource temporarily",
}
_TEXTS = {
    number: re.compile("|".join([re.escape(os.strerror(number)), *([_SAID[number]] if number in _SAID else [])]), re.I)
    for number in _WAYS | _WRITING
    if number != errno.EAGAIN  # its own words are said of sockets too
} | {errno.EAGAIN: re.compile(_SAID[errno.EAGAIN], re.I)}


def refusal(error: BaseException, way_out: str = "", to_write: bool = False) -> str | None:
    """Return what the machine refused and the way out, as whole sentences; None if this error is no such thing.

    `way_out`: instead of the usual one. `to_write`: that nobody may write there counts too.
    """
    known = _WAYS | (_WRITING if to_write else {})
    for one in _inside(error):
        if _SHARED.search(str(one)):
            return _SHARED_SAID
        number = _number(one, known)
        if number is None:
            continue
        place = getattr(one, "filename", None)
        where = f"{os.fsdecode(place)!r}: " if isinstance(place, (str, bytes)) else ""
        more = " (no more processes or threads)" if number == errno.EAGAIN else ""
        return f"{where}{os.strerror(number)}{more}. {way_out or known[number]}, and run again."
    return None


@contextmanager
def writing(path: str | os.PathLike[str], left: str = _NOTHING) -> Iterator[None]:
    """Turn what the machine refuses while `path` is written, by whichever library, into one line that names it.

    `left`: what is said of what the body leaves at `path`.

    Raises:
        WriteError: names the path, what was refused, and the way out. All other errors pass.
    """
    try:
        yield
    except VinnowError:
        raise
    except Exception as error:
        if refusal(error, to_write=True) is None:
            raise
        raise unwritten(path, error, left) from error


def raise_own(error: BaseException, path: str | os.PathLike[str]) -> None:
    """Raise what was refused to this process while it read `path`, if it was: that is no fault of the file.

    Raises:
        VinnowError: this process, or the machine, has too many files open, or no memory to open one.
    """
    if isinstance(error, OSError) and error.errno in _OWN:
        said = f"{os.strerror(error.errno)}. {_WAYS[error.errno]}, and run again."
        raise VinnowError(f"cannot open {os.fspath(path)!r}: {said}") from error


def unwritten(path: str | os.PathLike[str], error: BaseException, left: str = _NOTHING) -> WriteError:
    """Return what to raise where a file or folder could not be written; `left`: what is said of what is left of it."""
    said = refusal(_bare(error), to_write=True) or f"{wrong(error)}. Mend that, or name another place, and run again."
    return WriteError(f"cannot write {os.fspath(path)!r}: {said} {left}".rstrip())


def _number(error: BaseException, known: dict[int, str]) -> int | None:
    """Return the errno of what was refused."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number is not None:
        return number if number in known else None
    said = str(error)
    return next((n for n in known if n in _TEXTS and _TEXTS[n].search(said)), None)


def _inside(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it wraps or was raised from; a mistake of the user's is never a refusal."""
    waiting, seen = [error], set[int]()
    while waiting:
        here = waiting.pop(0)
        if id(here) in seen or isinstance(here, InputError):
            continue
        seen.add(id(here))
        yield here
        waiting += wrapped(here) + ([here.__cause__] if here.__cause__ is not None else [])


def _bare(error: BaseException) -> Any:
    """Return an error without a file's name: whoever writes names what the user asked for, not a temporary file."""
    if isinstance(error, OSError) and error.filename is not None:
        return OSError(error.errno, error.strerror)
    return error
