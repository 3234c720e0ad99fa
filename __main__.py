"""`python -m vinnow` is the `vinnow` command, for jobs that bring the package by runtime_env."""

import os
import signal
from typing import Any


def main() -> None:
    """Run the command line; Ctrl-C ends it with 130 while its modules are still being imported, too."""
    signal.signal(signal.SIGINT, _end)
    from .pipelines.cli.main import main as command

    command()


def _end(*_: Any) -> None:
    os._exit(130)


if __name__ == "__main__":
    main()
