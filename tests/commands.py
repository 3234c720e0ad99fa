"""`vinnow` in a process of its own, which is there in 0.2 s: a fork of one that has imported its libraries."""

import sys

from vinnow.actors.forks.client import SOCKET
from vinnow.actors.forks.start import CLIENT, start_forks


def vinnow_line(*arguments):
    """Return a command line; its process takes signals, pipes, folder and environment as Python's own would."""
    return [*python_line(), "-m", "vinnow", *map(str, arguments)]


def python_line():
    """Return what stands for Python in a command line."""
    path = start_forks()
    return ["env", f"{SOCKET}={path}", sys.executable, "-ISs", str(CLIENT)] if path else [sys.executable]
