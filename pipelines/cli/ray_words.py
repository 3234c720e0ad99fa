"""Ray's C++ writes to the terminal what a user can do nothing about: it goes into a file, which a failure names.

Python's own stderr stays the terminal: bars, our lines, tracebacks, and what the interpreter says of a crash.
"""

import atexit
import faulthandler
import os
import sys
import tempfile
from contextlib import suppress
from typing import Any

_path: str | None = None


def keep_apart() -> None:
    """Send file descriptor 2, which Ray, NCCL and compilers write to, into a file; `sys.stderr` goes on where it was."""
    global _path
    if _path is not None or sys.stderr.fileno() != 2:
        return
    handle, _path = tempfile.mkstemp(prefix="vinnow-ray-", suffix=".log")
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stderr = os.fdopen(terminal, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    faulthandler.enable(sys.stderr)
    _keep_stdout()
    atexit.register(forget)


def _keep_stdout() -> None:
    """Send there, too, what Ray tells a driver of its daemons' errors: it would print it among the results."""
    from ray._private import worker

    worker.print_to_stdstream = _aside


def _aside(batch: dict[str, Any], ignore_prefix: bool = False) -> None:
    with suppress(OSError):
        os.write(
            2, "".join(f"({batch.get('pid')}) {line}\n" for line in batch["lines"]).encode(errors="backslashreplace")
        )


def kept_in() -> str | None:
    """Return the file, if something was written to it."""
    return _path if _path is not None and os.path.isfile(_path) and os.path.getsize(_path) else None


def forget() -> None:
    """Remove the file of a command that ended well; a failure's stays (`main` has named it)."""
    if _path is not None and not _failed and os.path.isfile(_path):
        os.remove(_path)


_failed = False


def name_in_failure() -> str:
    """Return what a failure's line says of the file, which then stays; nothing where it is empty."""
    global _failed
    path = kept_in()
    _failed = path is not None
    return f" Ray's own words: {path}" if path else ""
