"""What a local Ray needs of its machine, seen to before it is started: else it hangs, or dies minutes later."""

import os
import resource
import tempfile
from collections import deque
from contextlib import suppress
from typing import Any

from ..store.errors import VinnowError, WriteError, one_line
from ..store.machine import refusal

# bytes that Ray's session takes at least; open files of a raylet with two workers, and of one with fifty; threads
_SESSION, _FILES, _ENOUGH, _THREADS = 1 << 20, 256, 65536, 256
# so many workers killed for memory within so many seconds: nothing can end any more
_KILLS, _MINUTE = 12, 60.0
_TMP = "Make room there, or set RAY_TMPDIR to another folder with a short name"


def check_surroundings() -> None:
    """Raise the limit of open files as far as this user may, and see what Ray would fail for.

    Raises:
        WriteError: nothing can be written where Ray's session goes.
        VinnowError: this user may have too few open files or processes.
    """
    folder = session_root()
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            left = memoryview(bytes(_SESSION))
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        said = refusal(OSError(error.errno, error.strerror), _TMP, to_write=True) or f"{error}. {_TMP}, and run again."
        raise WriteError(f"Ray cannot keep its session in {folder!r}: {said}") from error
    files = _open_files()
    if files < _FILES:
        raise VinnowError(
            f"this user may have {files} files open, and Ray needs {_FILES} at least. Allow more (`ulimit -n {_ENOUGH}`), "
            "and run again."
        )
    left = _threads_left()
    if left is not None and left < _THREADS:
        raise VinnowError(
            f"this user may start {left} more processes and threads, and Ray needs {_THREADS} at least. Allow more "
            "(`ulimit -u 65536`), or end others, and run again."
        )


def session_root() -> str:
    """Return the folder in which a local Ray puts its sessions' folders."""
    from ray._common.utils import get_default_ray_temp_dir

    return get_default_ray_temp_dir()


def not_started(error: BaseException) -> VinnowError:
    """Return what to raise for a local Ray that did not start."""
    logs = os.path.join(session_root(), "session_latest", "logs")
    said = refusal(error, to_write=True)
    if said is None:
        said = f"{one_line(error).rstrip('.')}. Is the machine busy, or short of memory or processes? Then run again."
    return VinnowError(f"Ray does not start: {said} Its logs: {logs}")


class Kills:
    """The workers that Ray's memory monitor has killed lately, from the raylet's log: it may go on for ever."""

    # of each kill, in that log
    WORDS = b"Selected to kill: "

    def __init__(self, log: str) -> None:
        self.log, self.read = log, 0
        self.times: deque[float] = deque()

    def fault(self, now: float) -> str:
        """Return what is wrong, "" if nothing is: so many were killed in the last minute that no work can end."""
        with suppress(OSError), open(self.log, "rb") as source:
            source.seek(self.read)
            new = source.read()
            new = new[: new.rfind(b"\n") + 1]
            self.read += len(new)
            self.times += [now] * new.count(self.WORDS)
        while self.times and self.times[0] < now - _MINUTE:
            self.times.popleft()
        if len(self.times) < _KILLS:
            return ""
        return (
            f"the machine's memory is nearly full: Ray has killed {len(self.times)} of its workers within a minute to keep "
            "some. Free memory, or ask for fewer or smaller actors, loaders or workers."
        )


def _open_files() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def _threads_left() -> int | None:
    """Return how many processes and threads this user may still start; None: as many as he likes."""
    import psutil

    limit, me = resource.getrlimit(resource.RLIMIT_NPROC)[0], os.getuid()
    if me == 0 or limit == resource.RLIM_INFINITY:
        return None
    used = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        facts: dict[str, Any] = process.info
        used += facts["num_threads"] or 0 if facts["uids"] and facts["uids"].real == me else 0
    return max(0, limit - used)
