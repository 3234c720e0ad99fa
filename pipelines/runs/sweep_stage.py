"""The sweep: a fine-tune and an evaluation of every choice, by every variant of the fine-tune."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...evaluate.config import EvalConfig
from ...select.run import budget_rows
from ...store.files import join
from ...store.manifest import StageRecord
from ...store.reading import with_fields
from .choices import FULL, WHOLE
from .config import eval_config, finetunes, train_config, where_of
from .model_stage import model_stage
from .select_stage import picks_of
from .stage import Held, Planned, Planning, Run, Stage, StageStatus, tell
from .training_stage import model_before, training_line, workers_of
from .watch import RESULT, under_way

if TYPE_CHECKING:
    from .sweep import Trial

_TOLD = {"told": list[str] | None}


@dataclass(frozen=True)
class Sweep(Stage):
    """The trials of a run."""

    @property
    def name(self) -> str:
        """`sweep`."""
        return "sweep"

    @property
    def needs(self) -> tuple[str, ...]:
        """The picks, the model that is trained, the rows, and what it is asked."""
        before = model_stage(self.run_config)
        return ("select", *([before] if before else []), "ingest-pool", "ingest-test")

    def estimate(self, planning: Planning) -> list[Planned]:
        """Price the trials, a line for all seeds of each."""
        run, rows = self.run_config, planning.rows("pool")
        chosen = [(s.label, str(b), budget_rows(b, rows)) for s in run.selectors for b in run.budgets]
        if run.sweep.full:
            chosen.append((FULL, WHOLE, rows))
        return [self._line(planning, choice, variant) for variant in finetunes(run.finetune) for choice in chosen]

    def _line(self, planning: Planning, choice: tuple[str, str, int], variant: str) -> Planned:
        run, (label, budget, rows) = self.run_config, choice
        config = train_config(finetunes(run.finetune)[variant], where_of(variant), seed=run.seed)
        name = f"sweep-{label}-{budget}" + (f"-{variant}" if variant else "")
        line = training_line(self, name, config, planning, "pool", rows)
        line.what += f" on {label} {budget}, {len(run.seeds)} seed(s); evaluate {planning.rows('test')} questions"
        line.config |= {
            "evaluate": eval_config(run.evaluate).model_dump(mode="json"),
            "sweep": run.sweep.model_dump(),
            "seeds": run.seeds,
        }
        line.times(len(run.seeds))
        return line

    def run(self, run: Run) -> None:
        """Do the trials that are not done, and gather the answers of all."""
        from .sweep import trials_of

        model = model_before(run, model_stage(self.run_config))
        sweep_trials(run, trials_of(run.config, picks_of(run), model))

    def progress(self, run_dir: str) -> StageStatus:
        """Count the trials that are done, and say how far those are that run."""
        folder = join(run_dir, "sweep")
        # only one level down: Ray keeps thousands of files below
        trials = sorted(os.path.join(folder, n) for n in os.listdir(folder)) if os.path.isdir(folder) else []
        done = sum(os.path.isfile(os.path.join(t, RESULT)) for t in trials)
        running = [said for t in trials if (said := under_way(t))]
        return self.begun(bool(trials), "; ".join([f"{done} trials finished", *running]))

    def held(self, record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
        """What each trial took to train and to answer."""
        return Held.total(self._trial_held(r) for r in results)

    def _trial_held(self, result: dict[str, Any]) -> Held:
        run = self.run_config
        training = workers_of(finetunes(run.finetune)[result.get("variant") or ""])
        asked, fields = run.evaluate, EvalConfig.model_fields
        actors, gpus, cpus = (asked.get(n, fields[n].default) for n in ("actors", "gpus_per_actor", "cpus_per_actor"))
        hours = result["train_seconds"] / 3600, result.get("eval_seconds", 0.0) / 3600
        return Held.total([training.times(hours[0]), Held(gpus, cpus).times(actors).times(hours[1])])


def sweep_trials(run: Run, trials: "list[Trial]") -> None:
    """Run the trials and gather every one's answers into `RUN/evals.parquet`."""
    from .sweep import collect, refused_lines, run_sweep

    inputs = {"trials": " ".join(t.evaluate.run for t in trials), "test": str(run.config.evaluate)}

    def work(record: StageRecord) -> None:
        results = run_sweep(run.config, trials)
        collect(run.out, trials)
        record.facts.update(rows=sum(r["rows"] for r in results), trials=[t.name for t in trials])
        record.facts["told"] = refused_lines(results)

    facts = run.stage("sweep", inputs, work).facts
    path, way_out = run.manifest.path("sweep"), "Delete it and run again."
    for line in with_fields(facts, _TOLD, path, "manifest", way_out)["told"] or []:
        tell(line)
