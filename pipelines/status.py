"""What a run's folder holds: every stage of its config, done, under way or waiting, with rows, refusals, seconds, bytes.

Read from disk alone, without Ray: it may be asked while the run is under way, or after it was killed.
"""

import os
from dataclasses import dataclass
from typing import Literal

from rich.markup import escape
from rich.table import Table

from ..actors.kind import kind_of
from ..store.errors import InputError
from ..store.facts import read_lines
from ..store.files import exists, folder_bytes, join, list_files, reading_parquet
from ..store.manifest import read_stage
from ..store.reading import with_fields
from .config import POOLS, RunConfig, saved_run
from .watch import RESULT, under_way

_FACTS = dict.fromkeys(("rows", "refused", "bytes"), int | None)
State = Literal["done", "under way", "waiting"]


@dataclass(frozen=True)
class StageStatus:
    """One stage. `rows`, `refused`, `seconds`, `bytes` are None where it has none yet; `detail` says how far it is."""

    name: str
    state: State
    rows: int | None = None
    refused: int | None = None
    seconds: float | None = None
    bytes: int | None = None
    detail: str = ""


def status(run_dir: str) -> list[StageStatus]:
    """Return every stage of a run in order.

    Raises:
        InputError: this is no run's folder.
    """
    if not exists(join(run_dir, "run.json")):
        raise InputError(f"{run_dir!r} is no run's folder: it has no run.json. Make one with `vinnow run`.")
    config = RunConfig.parse(saved_run(run_dir)["config"], join(run_dir, "run.json"))
    return [_one(run_dir, name, config) for name in stage_names(config)]


def stage_names(config: RunConfig) -> list[str]:
    """Return the stages of a run, as its manifests are named, in the order in which they run."""
    names = [f"ingest-{p}" for p in POOLS if getattr(config, p) is not None]
    names += ["twin"] if config.model.twin is not None else []
    names += [f"warmup-{s.name}" for s in config.warmup]
    names += ["proxy"] if config.proxy is not None else []
    for feature in config.features:
        names.append(f"features-{feature.name}")
        if config.target is not None and kind_of(feature).of_targets:
            names.append(f"targets-{feature.name}")
    return [*names, "select", "sweep"]


def render(found: list[StageStatus]) -> Table:
    """Return the stages as a table for the terminal."""
    table = Table("stage", "", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("rows", "refused", "seconds", "MB"):
        table.add_column(name, justify="right")
    table.add_column("")
    style = {"done": "green", "under way": "yellow", "waiting": "dim"}
    for s in found:
        size = None if s.bytes is None else f"{s.bytes / 1e6:,.1f}"
        seconds = None if s.seconds is None else f"{s.seconds:,.1f}"
        counts = ["–" if v is None else f"{v:,}" for v in (s.rows, s.refused)]
        table.add_row(s.name, f"[{style[s.state]}]{s.state}[/]", *counts, seconds or "–", size or "–", escape(s.detail))
    return table


def _one(run_dir: str, name: str, config: RunConfig) -> StageStatus:
    path = join(run_dir, "stages", f"{name}.json")
    if exists(path):
        done = read_stage(path)
        facts = with_fields(done.facts, _FACTS, path, "stage's manifest", "Delete it and run again.")
        facts = {k: facts[k] for k in _FACTS}
        usage = done.usage()
        detail = usage.line() if usage is not None and usage.refused else ""
        return StageStatus(name, "done", seconds=done.seconds, detail=detail, **facts)
    kind, _, rest = name.partition("-")
    if kind == "ingest":
        return _ingest(run_dir, name, rest)
    if kind in ("features", "targets"):
        return _features(run_dir, name, kind, rest)
    if kind in ("warmup", "proxy"):
        return _training(run_dir, name)
    if kind == "sweep":
        return _sweep(run_dir, name)
    return StageStatus(name, "waiting")


def _ingest(run_dir: str, name: str, pool: str) -> StageStatus:
    parts = [f for f in list_files(join(run_dir, pool), ".parquet") if "/part-" in f]
    rows = 0
    for part in parts:
        with reading_parquet(part, "Run again: ingest begins anew when it is interrupted.") as file:
            rows += file.metadata.num_rows
    lists = join(run_dir, pool, "refused.parquet")
    if not parts and exists(lists):
        return _progress(name, True, f"refused too many rows; {lists} says which and why")
    # a killed ingest begins again: these rows are not a part of any pool yet
    return _progress(name, bool(parts), f"{rows:,} rows so far; ingest begins again when it is interrupted")


def _features(run_dir: str, name: str, out: str, feature: str) -> StageStatus:
    parts = list_files(join(run_dir, out, feature), ".parquet", recursive=True)
    size = folder_bytes(join(run_dir, out, feature)) if parts else None
    steps = {p.rsplit("/", 2)[1] for p in parts}
    said = f"{len(parts):,} parts at {len(steps)} checkpoints are there and stay"
    return StageStatus(name, "under way" if parts else "waiting", bytes=size, detail=said if parts else "")


def _training(run_dir: str, name: str) -> StageStatus:
    log = join(run_dir, "train", name, "log.jsonl")
    if not exists(log):
        return StageStatus(name, "waiting")
    rows = read_lines(log, "step of a training", "Delete that training's folder, and run again.", step=int, loss=float)
    said = f"step {rows[-1]['step']}, loss {rows[-1]['loss']:.4f}" if rows else "no step yet"
    return _progress(name, True, said)


def _sweep(run_dir: str, name: str) -> StageStatus:
    folder = join(run_dir, "sweep")
    # only one level down: Ray keeps thousands of files below
    trials = sorted(os.path.join(folder, n) for n in os.listdir(folder)) if os.path.isdir(folder) else []
    done = sum(os.path.isfile(os.path.join(t, RESULT)) for t in trials)
    running = [said for t in trials if (said := under_way(t))]
    return _progress(name, bool(trials), "; ".join([f"{done} trials finished", *running]))


def _progress(name: str, begun: bool, detail: str) -> StageStatus:
    return StageStatus(name, "under way" if begun else "waiting", detail=detail if begun else "")
