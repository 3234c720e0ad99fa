"""Stage manifests: what a stage was given and what it did; a second run does nothing, a report has its figures."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .facts import read_as
from .files import digest, exists, join, open_fs, write_json
from .reading import with_fields
from .revision import code_revision
from .usage import Usage


@dataclass
class StageRecord:
    """One stage of a run. `fingerprint` is the digest of its inputs and config; `facts` are counts and measures.

    `items`: of a stage that makes several things and may be given more of them, what each was made of, by its key.
    `version`, `code`: which vinnow did it; other code does not make a stage undone. `finished`: when, as `utc_now` has it.
    `seconds`: of all `starts` that ended well, together; `last_seconds`: of the last of them. One that was killed or failed
    is in none of the three. Older versions counted no starts: what they left counts as one, and has no `last_seconds`.
    """

    name: str
    fingerprint: str
    inputs: dict[str, Any]
    version: str = ""
    code: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    starts: int = 1
    last_seconds: float | None = None
    finished: str = ""
    items: dict[str, dict[str, Any]] = field(default_factory=dict)

    def account(self, usage: Usage) -> None:
        """Put into the facts what became of the stage's rows; `usage` reads it again."""
        lost = sum(usage.refused.values())
        self.facts.update(used=usage.used, refused=lost, reasons=dict(usage.refused), listed=usage.listed)

    def usage(self) -> Usage | None:
        """Return what became of the stage's rows; None where it has none, or another vinnow did it."""
        if "used" not in self.facts:
            return None
        kinds = {"used": int, "reasons": dict[str, int], "listed": str}
        facts = with_fields(self.facts, kinds, f"stage {self.name!r}", "manifest", "Delete it and run again.")
        return Usage(facts["used"], facts["reasons"], facts["listed"])


def utc_now() -> str:
    """Return the time by ISO 8601, to the second: 2026-05-04T10:20:30Z."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# behind the name of a manifest whose stage is to be looked at again
_UNDONE = ".undone"
# what a stage has left besides may be whole
_ANEW = "Delete it and run again: the stage then looks at what it has left, and goes on."


def read_stage(path: str) -> StageRecord:
    """Return the stage of one manifest's file.

    Raises:
        DamagedError: it holds something else.
    """
    return read_as(path, StageRecord, "stage's manifest", _ANEW)


class Manifest:
    """The manifests of one run folder: `RUN/stages/NAME.json`, each written once, when its stage is done."""

    def __init__(self, run: str | os.PathLike[str], version: str) -> None:
        self.run = os.fspath(run)
        self.version = version

    def path(self, name: str) -> str:
        """Return where a stage's manifest lies."""
        return join(self.run, "stages", f"{name}.json")

    def read(self, name: str) -> StageRecord | None:
        """Return a finished stage, or None.

        Raises:
            DamagedError: something else lies in its manifest's place.
        """
        return read_stage(self.path(name)) if exists(self.path(name)) else None

    def changed(self, name: str, inputs: dict[str, Any]) -> list[str] | None:
        """Return None when the stage has not run, else the inputs that differ now (empty: it is done)."""
        done = self.read(name)
        if done is None:
            return None
        now = _plain(inputs)
        names = sorted(set(done.inputs) | set(now))
        return [
            f"{n}: was {done.inputs.get(n)!r}, is {now.get(n)!r}" for n in names if done.inputs.get(n) != now.get(n)
        ]

    def undo(self, name: str) -> None:
        """Forget that a stage is done: it is to be looked at again. What it took stays known."""
        if exists(self.path(name)):
            fs, inner = open_fs(self.path(name))
            fs.move(inner, f"{inner}{_UNDONE}")

    @contextmanager
    def stage(self, name: str, inputs: dict[str, Any]) -> Iterator[StageRecord]:
        """Time a stage; write its manifest only if the body ends without an error."""
        record = self._begin(name, inputs)
        with self._timed(record):
            yield record

    @contextmanager
    def growing(self, name: str, inputs: dict[str, Any]) -> Iterator[StageRecord]:
        """Go on with a stage that makes several things: the record as it is, its seconds counted on; `keep` it at any time.

        What it then says is written when the body ends without an error.
        """
        before, record = self.read(name), self._begin(name, inputs)
        if before is not None:
            record.facts, record.items = before.facts, before.items
        with self._timed(record):
            yield record

    def _begin(self, name: str, inputs: dict[str, Any]) -> StageRecord:
        """Return the record of a stage that starts, with what its earlier starts took."""
        plain = _plain(inputs)
        record = StageRecord(name, digest(repr(sorted(plain.items()))), plain, self.version, code_revision(), starts=0)
        paths = (self.path(name), self.path(name) + _UNDONE)
        before = next((read_stage(path) for path in paths if exists(path)), None)
        if before is not None:
            record.seconds, record.starts, record.last_seconds = before.seconds, before.starts, before.last_seconds
        return record

    @contextmanager
    def _timed(self, record: StageRecord) -> Iterator[None]:
        start = time.perf_counter()
        yield
        record.last_seconds = round(time.perf_counter() - start, 3)
        record.seconds, record.starts = round(record.seconds + record.last_seconds, 3), record.starts + 1
        self.keep(record)

    def keep(self, record: StageRecord) -> None:
        """Write what a stage has done so far."""
        record.finished = utc_now()
        write_json(self.path(record.name), vars(record))


def _plain(inputs: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, (str, int, float, bool, type(None))) else repr(v) for k, v in inputs.items()}
