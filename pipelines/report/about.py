"""Which run a report tells of: when, on what model, at what price, by which config; and how to make it again."""

import shlex
from typing import Any

import yaml

from ...store.files import join
from ...store.manifest import StageRecord, utc_now
from .data import About, ReportData, Stage
from .headline import Row


def about(run_dir: str, run: dict[str, Any]) -> About:
    """Return the config of a run (its `run.json`), and the commands by what they do."""
    again = ["vinnow", "run", join(run_dir, "run.json"), "--set", f"out={run_dir.rstrip('/')}-again"]
    commands = {
        "This run, again, in another folder:": shlex.join(again),
        "This page, again, from what the run has left:": shlex.join(["vinnow", "report", run_dir]),
    }
    return About(run["config"], commands)


def run_facts(run: dict[str, Any], records: list[StageRecord], stages: list[Stage]) -> dict[str, str]:
    """Return what is said of a run in a word each."""
    facts = {}
    # a stage that an older version did does not say when
    if finished := max((r.finished for r in records), default=""):
        facts["last stage finished (UTC)"] = finished
    facts |= {"report written (UTC)": utc_now(), "model": _model(run["config"].get("model") or {})}
    facts |= _hours(stages)
    return facts | {"run digest": str(run["digest"]), "vinnow": str(run["version"])}


def hours(value: float | None) -> str:
    """Return hours as they are shown."""
    if not value:
        return "–"
    return f"{value:,.2f}" if value >= 0.005 else "< 0.01"


def about_section(data: ReportData, rows: list[Row]) -> dict[str, Any] | None:
    """How to make the run again, and its config."""
    if data.about is None:
        return None
    tree = yaml.safe_dump(data.about.config, sort_keys=False, allow_unicode=True)
    return {"commands": data.about.commands, "config": tree}


def _model(section: dict[str, Any]) -> str:
    if section.get("path"):
        return str(section["path"])
    twin = section.get("twin") or {}
    sizes = f"{twin.get('llm', 'llama')}, {twin.get('layers', '?')} layers of {twin.get('hidden', '?')}"
    return f"a tiny twin, random weights ({sizes})"


def _hours(stages: list[Stage]) -> dict[str, str]:
    """Return GPU-hours, and CPU-hours of what ran without a GPU."""
    known = [s.held for s in stages if s.held is not None]
    on_gpus, on_cpus = sum(h.gpu for h in known), sum(h.cpu for h in known if not h.gpu)
    facts = {"GPU-hours": hours(on_gpus)} if on_gpus else {}
    if on_cpus:
        facts["CPU-hours"] = f"{hours(on_cpus)} ({'stages without a GPU' if on_gpus else 'no GPU was used'})"
    return facts
