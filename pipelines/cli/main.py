"""The `vinnow` command. Each subcommand is one stage; `run` and `demo` are all of them in order."""

import errno
import os
import sys
import tempfile
import traceback

from ...actors import cluster
from ...store.errors import InputError, VinnowError, one_line, plain_cause
from ..progress import console, plain
from . import data, ending, models, more, ray_words, runs, selection  # noqa: F401  # each puts its commands on the app
from .app import app

# what the machine refuses, at whatever place: full, read-only, failing or missing memory and disks
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback alone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours ends a sweep as it ends the rest
    cluster.before_start[:] = [ray_words.keep_apart]
    cluster.when_lost[:] = [ending.lost]
    with ending.listening():
        try:
            app()
        except Exception as error:
            raise SystemExit(_told(error)) from error


def _told(error: Exception) -> int:
    """Say what ended a command, and return its exit code: 2 for a user's mistake, 1 for what failed."""
    # what Ray wrapped and nobody unwrapped on the way
    ours = plain_cause(error) if type(error).__module__.startswith("ray.") else error
    if isinstance(ours, VinnowError):
        word, code = ("error", 2) if isinstance(ours, InputError) else ("failed", 1)
        _say(word, str(ours) + (ray_words.name_in_failure() if code == 1 else ""))
        return code
    machine = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE)
    why = "The machine refused something" if machine else "This is a bug of vinnow: please report it"
    _say(
        "failed",
        f"{one_line(error).rstrip('.')}. {why}; the traceback is in {_kept(error)!r}.{ray_words.name_in_failure()}",
    )
    return 1


def _kept(error: Exception) -> str:
    """Write an error's traceback to a file of its own; return the path."""
    lines = [f"vinnow {' '.join(sys.argv[1:])}\n", *traceback.format_exception(error)]
    try:
        handle, path = tempfile.mkstemp(prefix="vinnow-failure-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as sink:
            sink.writelines(lines)
    except OSError:  # no room even for this: better on the terminal than nowhere
        sys.stderr.writelines(lines)
        return "stderr"
    return path


def _say(word: str, text: str) -> None:
    from rich.markup import escape

    console.print(f"[bold red]{word}:[/] {escape(plain(text))}", soft_wrap=True)


if __name__ == "__main__":
    main()
