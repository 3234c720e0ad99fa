"""What a command says: results on stdout; progress and faults on stderr, as bars for people, as lines for logs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from ..store.files import json_text

console = Console(stderr=True, highlight=False)
Tell = Callable[..., None]
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


class Pace:
    """How far work is, how fast it goes, and how long it will take: from what was done while somebody looked.

    `waiting`: what is said while nothing is done yet.
    """

    def __init__(self, unit: str, waiting: str = "") -> None:
        self.unit, self.waiting = unit, waiting
        self.first: tuple[float, int] | None = None
        self.done = self.total = 0
        self.note = ""
        self.start = time.monotonic()

    def saw(self, done: int, total: int, note: str = "") -> None:
        """Take what is done of all (0: not known), and what else is to be shown (a loss)."""
        if self.first is None and (done or not self.waiting):
            self.first = time.monotonic(), done  # what was there before, or came before the first look, is no pace
        self.done, self.total, self.note = done, total, note

    def text(self) -> str:
        """Return it in words, without the time that has passed."""
        if not self.done and self.waiting:
            return self.note or self.waiting
        parts = [f"{self.done:,}/{f'{self.total:,}' if self.total else '?'} {self.unit}".rstrip()]
        parts += [self.note] if self.note else []
        seconds, progressed = (time.monotonic() - self.first[0], self.done - self.first[1]) if self.first else (0.0, 0)
        if progressed > 0 and seconds > 0:
            rate = progressed / seconds
            parts.append(f"{rate:,.1f} per second" if rate >= 1 else f"{1 / rate:,.1f} s each")
            if self.total > self.done:
                parts.append(f"{_span((self.total - self.done) / rate)} left")
        return ", ".join(parts)


def _span(seconds: float) -> str:
    """Return a stretch of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def bar(what: str, unit: str = "", waiting: str = "") -> Iterator[Tell]:
    """Yield `tell(done, total, note="")`; a bar on a terminal, else a line every ten seconds and one at the end.

    Both show the pace and the time left; while nothing is done, `waiting` says what for.
    """
    pace = Pace(unit, waiting)
    if sys.stderr.isatty():
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
        with Progress(
            *columns, TextColumn("{task.fields[said]}", markup=False), TimeElapsedColumn(), console=console
        ) as shown:
            task = shown.add_task(what, total=None, said=waiting)

            def draw(done: int, total: int, note: str = "") -> None:
                pace.saw(done, total, note)
                shown.update(task, completed=done, total=total or None, said=pace.text())

            yield draw
        return
    last = pace.start

    def tell(done: int, total: int, note: str = "") -> None:
        nonlocal last
        pace.saw(done, total, note)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            _line(f"{what}: {pace.text()}, after {last - pace.start:.0f} s")

    yield tell
    note = f", {pace.note}" if pace.note else ""
    _line(f"{what}: {pace.done} {unit}{note} in {time.monotonic() - pace.start:.1f} s")


def _line(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
