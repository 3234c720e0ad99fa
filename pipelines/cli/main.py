"""The `vinnow` command. Each subcommand is one stage; `run` and `demo` are all of them in order."""

import os
import sys

from ...store.errors import InputError, VinnowError
from ..progress import console
from . import data, models, runs, selection  # noqa: F401  # each puts its commands on the app
from .app import app


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback alone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except InputError as error:
        console.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(2)
    except VinnowError as error:
        console.print(f"[bold red]failed:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(1)


def _plain(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))


if __name__ == "__main__":
    main()
