"""Picks: every selector scores the pool's rows by the features, and picks for every budget and seed."""

import os
from dataclasses import dataclass

from ...pool.reader import Pool
from ...select import registry
from ...select.run import budget_rows
from ...store.errors import DamagedError
from ...store.manifest import StageRecord
from ...store.names import place_in
from ...store.reading import reading, with_fields
from .picking import select_all
from .stage import Planned, Planning, Run, Stage, StageStatus
from .training_stage import learning_rates

Picks = dict[tuple[str, str, int], str]
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
        stages: dict[str, None] = {"ingest-pool": None}
        for section in self.run_config.selectors:
            needs = registry.make(section.name, section.config).needs.called(section.reads)
            stages |= dict.fromkeys(f"features-{n}" for n in needs.names)
            if needs.targets:
                stages |= {"ingest-target": None} | dict.fromkeys(f"targets-{n}" for n in needs.names)
        return tuple(stages)

    def estimate(self, planning: Planning) -> list[Planned]:
        """Tell each selector's rows by budget."""
        run, rows = self.run_config, planning.rows("pool")
        lines = []
        for selector in run.selectors:
            wanted = ", ".join(f"{b} = {budget_rows(b, rows)}" for b in run.budgets)
            lines.append(self.line(self.name, f"{selector.label}: {wanted}; seeds {run.seeds}", rows, selector))
        return lines

    def run(self, run: Run) -> None:
        """Pick into `RUN/picks`."""
        pick(run, learning_rates(run))

    def progress(self, run_dir: str) -> StageStatus:
        """It takes seconds once features are there."""
        return self.begun(False, "")


def pick(run: Run, weights: dict[int, float] | None) -> Picks:
    """Score and pick for every selector, budget and seed; returns the PICKS files. `weights`: of checkpoints, by step.

    Raises:
        DamagedError: a part of a feature is; the run's next try makes it anew.
    """
    inputs = {
        "selectors": repr(run.config.selectors),
        "budgets": repr(run.config.budgets),
        "seeds": repr(run.config.seeds),
        "pool": Pool(run.folder("pool")).digest,
    }

    def work(record: StageRecord) -> None:
        try:
            picks = select_all(run.config, run.out, weights)
        except DamagedError as error:
            for config in run.config.features:  # its parts are looked at again, and the damaged ones made anew
                for out in ("features", "targets"):
                    run.manifest.undo(f"{out}-{config.name}")
            raise DamagedError(f"{error} In a run: run it again.") from error
        record.facts.update(
            rows=Pool(run.folder("pool")).rows, picks={"|".join(map(str, k)): v for k, v in picks.items()}
        )

    run.stage("select", inputs, work)
    return picks_of(run)


def picks_of(run: Run) -> Picks:
    """Return the PICKS files by label, budget and seed, from the stage's manifest.

    Raises:
        DamagedError: it names none, or one outside the run's folder.
    """
    done, file = run.manifest.read("select"), run.manifest.path("select")
    # a run's folder may have been moved; its manifest must not lead out of it
    folder = os.path.abspath(run.folder("picks"))
    facts = with_fields(done.facts if done else {}, {"picks": dict[str, str]}, file, "manifest of picks", _WAY_OUT)
    with reading(file, "a manifest of picks", _WAY_OUT):
        keys = {tuple(k.split("|")): place_in(folder, v, file) for k, v in facts["picks"].items()}
        return {(name, budget, int(seed)): path for (name, budget, seed), path in keys.items()}
