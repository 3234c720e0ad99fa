"""`vinnow` in a process of its own, which is there in 0.2 s: a fork of one that has imported its libraries."""

import shlex
import sys

from vinnow.actors.forks.start import start_forks


def vinnow_line(*arguments):
    """Return a command line; its process takes signals, pipes, folder and environment as Python's own would."""
    return [*_python(), "-m", "vinnow", *map(str, arguments)]


def _python():
    forks = start_forks()
    return shlex.split(forks) if forks else [sys.executable]
