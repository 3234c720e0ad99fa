"""Progress bars for people, a line now and then for logs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

console = Console(stderr=True, highlight=False)
Tell = Callable[[int, int], None]


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
