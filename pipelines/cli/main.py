"""The `vinnow` command. Each subcommand is one stage; `run` and `demo` are all of them in order."""

import os
import sys
import tempfile
import traceback

from ...actors import cluster
from ...store import lock
from ...store.errors import BudgetSpentError, InputError, VinnowError, one_line, plain_cause
from ...store.machine import refusal
from ..progress import console, plain

# each puts its commands on the app
from . import (  # noqa: F401
    dashboards,
    data,
    ending,
    evaluation,
    generate,
    importing,
    jobs,
    judging,
    models,
    more,
    numbers,
    ray_words,
    runs,
    selection,
    serving,
    talk,
)
from .app import app
from .results import keep_deepspeed_off, naming_stdout


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback alone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours ends a sweep as it ends the rest
    keep_deepspeed_off()
    cluster.before_start[:] = [ray_words.keep_apart]
    cluster.when_lost[:] = [ending.lost]
    lock.when_taken[:] = [ending.lost]
    with ending.listening():
        try:
            with naming_stdout():
                # by `python -m vinnow` too: a completion script is for the command
                app(prog_name="vinnow")
        except BrokenPipeError:  # of a stdout whose reader has had enough
            raise SystemExit(1) from None
        except Exception as error:
            raise SystemExit(_told(error)) from error


def _told(error: Exception) -> int:
    """Say what ended a command, and return its exit code: 2: a user's mistake, 3: a budget is spent, 1: a failure."""
    # what Ray wrapped and nobody unwrapped on the way
    ours = plain_cause(error) if type(error).__module__.startswith("ray.") else error
    if isinstance(ours, BudgetSpentError):
        _say("stopped", str(ours))
        return 3
    if isinstance(ours, VinnowError):
        word, code = ("error", 2) if isinstance(ours, InputError) else ("failed", 1)
        _say(word, str(ours) + (ray_words.name_in_failure() if code == 1 else ""))
        return code
    refused = refusal(error)
    kept = _kept(error, "" if refused else "stderr")
    trace = f"the traceback is in {kept!r}." if kept else ""
    if refused:
        trace = f" The machine refused something; {trace}" if trace else ""
        _say("failed", f"{refused}{trace}{ray_words.name_in_failure()}")
    else:
        said = f"{one_line(error).rstrip('.')}. This is a bug of vinnow: please report it; {trace}"
        _say("failed", said + ray_words.name_in_failure())
    return 1


def _kept(error: Exception, else_to: str) -> str:
    """Write an error's traceback to a file of its own; return the path, or where else it went."""
    lines = [f"vinnow {' '.join(sys.argv[1:])}\n", *traceback.format_exception(error)]
    try:
        handle, path = tempfile.mkstemp(prefix="vinnow-failure-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as sink:
            sink.writelines(lines)
    except OSError:  # no room even for this: a bug's is better on the terminal than nowhere
        if else_to:
            sys.stderr.writelines(lines)
        return else_to
    return path


def _say(word: str, text: str) -> None:
    from rich.markup import escape

    console.print(f"[bold red]{word}:[/] {escape(plain(text))}", soft_wrap=True)


if __name__ == "__main__":
    main()
