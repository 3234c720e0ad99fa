"""What a command says: results on stdout; progress and faults on stderr, as bars for people, as lines for logs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from ..store.files import json_text

console = Console(stderr=True, highlight=False)
Tell = Callable[[int, int], None]
# of a table that goes into a file: as wide as it is
_WIDE = 100_000


def show(result: Any) -> None:
    """Print a result on stdout: text in one piece, a table no wider than a terminal, and whole where there is none."""
    if isinstance(result, str):
        print(plain(result), flush=True)
        return
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(result)


def show_json(result: Any) -> None:
    """Print a result on stdout as JSON."""
    print(json_text(result), flush=True)


def plain(text: str) -> str:
    """Return what data, a file's name or an error says as text alone, without a terminal's control characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


@contextmanager
def bar(what: str, unit: str = "") -> Iterator[Tell]:
    """Yield `tell(done, total)`; a bar on a terminal, else a line every ten seconds and one at the end."""
    if sys.stderr.isatty():
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TextColumn(unit), TimeElapsedColumn(), console=console) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total or None)
        return
    start = last = time.monotonic()
    state = (0, 0)

    def tell(done: int, total: int) -> None:
        nonlocal last, state
        state = (done, total)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            console.print(f"{what}: {done}/{total or '?'} {unit} after {last - start:.0f} s")

    yield tell
    console.print(f"{what}: {state[0]} {unit} in {time.monotonic() - start:.1f} s")
