"""Picks: every selector scores the pool's rows by the features, and picks for every budget and seed."""

from dataclasses import dataclass
from typing import Any

from ...pool.reader import Pool
from ...select import registry
from ...select.rule import make_rule
from ...select.run import budget_rows, picks_file, scoring_took
from ...select.seconds import took
from ...store.errors import DamagedError, InputError
from ...store.files import absolute, exists
from ...store.manifest import StageRecord, read_stage
from ...store.names import place_in
from ...store.reading import reading, with_fields
from .choices import Choice, picked
from .config import SelectorSection
from .picking import Picks, select_all
from .stage import Item, Planned, Planning, Run, Stage, StageStatus, State, manifest_path
from .training_stage import learning_rates

_WAY_OUT = "Delete it and run again."


@dataclass(frozen=True)
class Select(Stage):
    """The picks of a run."""

    @property
    def name(self) -> str:
        """`select`."""
        return "select"

    @property
    def needs(self) -> tuple[str, ...]:
        """The pool, and the features that its selectors read."""
        return tuple(dict.fromkeys(n for section in self.run_config.selectors for n in read_by(section)))

    def items(self) -> list[Item]:
        """The picks of each choice."""
        sections = {s.label: s for s in self.run_config.selectors}
        return [
            Item(pick_key(c), {f"selectors.{c.selector}": _meant(_said(s))}, read_by(s))
            for c in picked(self.run_config)
            for s in [sections[c.selector]]
        ]

    def states(self, run_dir: str) -> dict[str, State]:
        """Picks by their files, so that what a killed stage left counts too."""
        path = manifest_path(run_dir, self.name)
        origins = _pick_origins(read_stage(path), path) if exists(path) else {}
        return {pick_key(c): "done" for c in picked(self.run_config) if c.key in origins}

    def finished(self, record: StageRecord, path: str) -> bool:
        """Say whether every choice has its picks."""
        return {c.key for c in picked(self.run_config)} <= set(_pick_origins(record, path))

    def estimate(self, planning: Planning) -> list[Planned]:
        """Tell each selector's rows by budget."""
        run, rows = self.run_config, planning.rows("pool")
        lines = []
        for selector in run.selectors:
            wanted = ", ".join(f"{b} = {budget_rows(b, rows)}" for b in run.budgets)
            lines.append(self.line(self.name, f"{selector.label}: {wanted}; seeds {run.seeds}", rows, selector))
        return lines

    def stand(self, lines: list[Planned], planning: Planning) -> None:
        """Count each selector's picks."""
        there = self.states(self.run_config.out)
        for line, section in zip(lines, self.run_config.selectors, strict=True):
            keys = [pick_key(c) for c in picked(self.run_config) if c.selector == section.label]
            line.stands(sum(key in there for key in keys), len(keys), "picks")

    def run(self, run: Run) -> None:
        """Pick into `RUN/picks`."""
        pick(run, learning_rates(run))

    def progress(self, run_dir: str) -> StageStatus:
        """Count the picks that are there: a run that grew has some."""
        path, choices = manifest_path(run_dir, self.name), picked(self.run_config)
        origins = set(_pick_origins(read_stage(path), path)) if exists(path) else set()
        there = sum(c.key in origins for c in choices)
        return self.begun(there > 0, f"{there:,} of {len(choices):,} picks are there and stay")


def read_by(section: SelectorSection) -> tuple[str, ...]:
    """Return the stages whose results a selector reads."""
    needs = section.method().needs.called(section.reads)
    stages = ["ingest-pool", *(f"features-{n}" for n in needs.names)]
    return (*stages, *(["ingest-target", *(f"targets-{n}" for n in needs.names)] if needs.targets else []))


def pick_key(choice: Choice) -> str:
    """Return what a choice's picks are called among a run's items."""
    return f"picks {choice.key}"


def pick(run: Run, weights: dict[int, float] | None) -> Picks:
    """Score and pick for every choice that has no picks yet; returns all PICKS files. `weights`: of checkpoints, by step.

    Raises:
        InputError: picks were made of something else; names them.
        DamagedError: a part of a feature is; the run's next try makes it anew.
    """
    sections, digest = {s.label: s for s in run.config.selectors}, Pool(run.folder("pool")).digest
    wanted = {c.key: {"selector": _said(sections[c.selector]), "pool": digest} for c in picked(run.config)}
    done, path = run.manifest.read("select"), run.manifest.path("select")
    origins = _pick_origins(done, path) if done else {}
    _refuse_other(run, origins, wanted)
    left = [c for c in picked(run.config) if c.key not in origins]
    if done is None or left:
        with run.manifest.growing("select", {"pool": digest}) as record:
            # of an older version, which went on only with the config that it began with
            record.items = {k: v or wanted.get(k, {}) for k, v in origins.items()}
            record.facts.setdefault("picks", {})
            _pick(run, weights, left, record, wanted)
            record.facts["rows"] = Pool(run.folder("pool")).rows
    run.say("select", new=done is None or bool(left))
    return picks_of(run)


def _pick(
    run: Run, weights: dict[int, float] | None, left: list[Choice], record: StageRecord, wanted: dict[str, Any]
) -> None:
    def note(picks: Picks) -> None:
        for choice, file in picks.items():
            key = "|".join(map(str, choice))
            record.facts["picks"][key], record.items[key] = file, wanted[key]
            record.facts.setdefault("seconds", {})[key] = _seconds(run.out, choice)
        run.manifest.keep(record)

    try:
        select_all(run.config, run.out, weights, left, note)
    except DamagedError as error:
        for config in run.config.features:  # its parts are looked at again, and the damaged ones made anew
            for out in ("features", "targets"):
                run.manifest.undo(f"{out}-{config.name}")
        raise DamagedError(f"{error} In a run: run it again.") from error


def _seconds(out: str, choice: tuple[str, str, int]) -> dict[str, float]:
    """Return what a choice's scores took, whoever made them, and its picks; nothing where nobody noted it."""
    label, budget, seed = choice
    scoring, picking = scoring_took(out, label, seed), took(out, "picked", picks_file(label, budget, seed))
    known = {} if scoring is None else {"scoring": scoring.seconds, "scoring_cpu": scoring.cpu}
    return known if picking is None else known | {"picking": picking.seconds, "picking_cpu": picking.cpu}


def adopt(run: Run) -> None:
    """Note in the manifest of an older version what its picks were made of, which only this config says."""
    done, path = run.manifest.read("select"), run.manifest.path("select")
    if done is None or done.items:
        return
    sections, digest = {s.label: s for s in run.config.selectors}, Pool(run.folder("pool")).digest
    origins = _pick_origins(done, path)
    done.items = {
        c.key: {"selector": _said(sections[c.selector]), "pool": digest} for c in picked(run.config) if c.key in origins
    }
    run.manifest.keep(done)


def _said(section: SelectorSection) -> dict[str, Any]:
    said = {"name": section.name, "config": section.config, "reads": section.reads}
    return said if section.pick is None else said | {"pick": section.pick.model_dump()}


def _meant(said: dict[str, Any]) -> dict[str, Any]:
    """Return a selector's section with all that it leaves to defaults: the same choice, however it was written."""
    meant = said | {"config": registry.make(said["name"], said["config"]).config.model_dump(mode="json")}
    if "pick" in said:
        rule = make_rule(said["pick"]["rule"], said["pick"]["config"])
        meant["pick"] = said["pick"] | {"config": rule.config.model_dump(mode="json")}
    return meant


def _pick_origins(done: StageRecord, path: str) -> dict[str, dict[str, Any]]:
    """Return the choices that have picks, by key, and what each was made of; nothing of it where an older version was."""
    facts = with_fields(done.facts, {"picks": dict[str, str] | None}, path, "manifest of picks", _WAY_OUT)
    return {k: done.items.get(k, {}) for k in facts["picks"] or {}}


def _refuse_other(run: Run, origins: dict[str, Any], wanted: dict[str, Any]) -> None:
    changed = []
    for key in origins.keys() & wanted.keys():
        then, now = origins[key], wanted[key]
        if then and (then["pool"] != now["pool"] or _meant(then["selector"]) != _meant(now["selector"])):
            changed.append(key)
    if changed:
        raise InputError(
            f"{run.out}: the picks {', '.join(sorted(changed))} were made of something else, at another time of this run. "
            "Give the selector a label of its own, use another `out`, or delete that folder to begin again."
        )


def picks_of(run: Run) -> Picks:
    """Return the PICKS files of the config's choices by label, budget and seed, from the stage's manifest.

    Raises:
        DamagedError: it names none, or one outside the run's folder.
    """
    done, file = run.manifest.read("select"), run.manifest.path("select")
    # a run's folder may have been moved; its manifest must not lead out of it
    folder, wanted = absolute(run.folder("picks")), [c.key for c in picked(run.config)]
    facts = with_fields(done.facts if done else {}, {"picks": dict[str, str]}, file, "manifest of picks", _WAY_OUT)
    with reading(file, "a manifest of picks", _WAY_OUT):
        keys = {tuple(k.split("|")): place_in(folder, facts["picks"][k], file) for k in wanted}
        return {(name, budget, int(seed)): path for (name, budget, seed), path in keys.items()}
