"""What a run's folder holds: every stage of its config, done, under way or waiting, with rows, refusals, seconds, bytes.

Read from disk alone, without Ray: it may be asked while the run is under way, or after it was killed.
"""

from typing import Any

from rich.markup import escape
from rich.table import Table

from ...store.errors import InputError
from ...store.files import exists, join
from ...store.manifest import read_stage
from ...store.reading import with_fields
from .config import parsed, saved_run
from .stage import Stage, StageStatus, in_all, manifest_path
from .stages import stages_of

_FACTS: dict[str, Any] = dict.fromkeys(("rows", "refused", "bytes"), int | None) | {"notes": list[str] | None}


def status(run_dir: str) -> list[StageStatus]:
    """Return every stage of a run in order.

    Raises:
        InputError: this is no run's folder.
    """
    if not exists(join(run_dir, "run.json")):
        raise InputError(f"{run_dir!r} is no run's folder: it has no run.json. Make one with `vinnow run`.")
    config = parsed(saved_run(run_dir), run_dir)
    return [_one(run_dir, stage) for stage in stages_of(config)]


def render(stages: list[StageStatus]) -> Table:
    """Return the stages as a table for the terminal."""
    table = Table("stage", "", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("rows", "refused", "seconds", "MB"):
        table.add_column(name, justify="right")
    table.add_column("")
    style = {"done": "green", "under way": "yellow", "waiting": "dim"}
    for s in stages:
        size = None if s.bytes is None else f"{s.bytes / 1e6:,.1f}"
        seconds = None if s.seconds is None else f"{s.seconds:,.1f}"
        counts = ["–" if v is None else f"{v:,}" for v in (s.rows, s.refused)]
        table.add_row(s.name, f"[{style[s.state]}]{s.state}[/]", *counts, seconds or "–", size or "–", escape(s.detail))
    return table


def _one(run_dir: str, stage: Stage) -> StageStatus:
    path = manifest_path(run_dir, stage.name)
    done = read_stage(path) if exists(path) else None
    if done is None or not stage.finished(done, path):
        return stage.progress(run_dir)
    facts = with_fields(done.facts, _FACTS, path, "stage's manifest", "Delete it and run again.")
    notes, facts = facts["notes"] or [], {k: facts[k] for k in _FACTS if k != "notes"}
    usage = done.usage()
    said = [usage.line()] if usage is not None and usage.refused else []
    said += [note.rstrip(".") for note in notes]
    if done.starts > 1:
        last = "" if done.last_seconds is None else f", the last one {done.last_seconds:,.1f} s"
        said.append(f"{in_all(done)}{last}")
    starts: dict[str, Any] = {"starts": done.starts, "last_seconds": done.last_seconds}
    return StageStatus(stage.name, "done", seconds=done.seconds, detail="; ".join(said), **facts, **starts)
