"""The sweep: a fine-tune and an evaluation of every choice, by every variant of the fine-tune."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...pool.reader import Pool
from ...select.run import budget_rows
from ...store.files import exists, join
from ...store.folders import is_folder, names
from ...store.manifest import StageRecord
from ...store.reading import with_fields
from .choices import FULL, WHOLE, Choice, trials
from .identity import how_asked, how_trained
from .model_stage import model_stage
from .sections import where_of
from .select_stage import pick_key, picks_of
from .stage import Held, Item, Planned, Planning, Run, Stage, StageStatus, State, tell
from .training_stage import left_of, model_before, training_line, workers_of
from .watch import RESULT, TRAINED, under_way

if TYPE_CHECKING:
    from .sweep import Trial

_KINDS = {"told": list[str] | None, "trials": list[str] | None}
_WAY_OUT = "Delete it and run again."


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

    def items(self) -> list[Item]:
        """Each trial's model, and what that answers."""
        run, items = self.run_config, []
        before = model_stage(run)
        start = {} if before else {"model.path": run.model.path}
        asked = {"evaluate": how_asked(run.evaluate.recipe())}
        for name, (choice, variant) in trials(run).items():
            where = where_of(variant)
            settings, pace = how_trained(run.finetune.by_name()[variant].recipe())
            rows = [] if choice.selector == FULL else [pick_key(choice)]
            needs = (*rows, "ingest-pool", *([before] if before else []))
            items.append(Item(f"trial {name}", {where: settings} | start, needs, {where: pace}))
            items.append(Item(f"answers {name}", asked, (f"trial {name}", "ingest-test")))
        return items

    def states(self, run_dir: str) -> dict[str, State]:
        """Trials by their folders, so that what a killed stage left counts too."""
        states: dict[str, State] = {}
        for name in trials(self.run_config):
            folder = join(run_dir, "sweep", name)
            if is_folder(join(folder, "train")):
                trained = exists(join(folder, "train", TRAINED))
                states[f"trial {name}"] = "done" if trained else "under way"
            if is_folder(join(folder, "eval")):
                states[f"answers {name}"] = "done"
        return states

    def finished(self, record: StageRecord, path: str) -> bool:
        """Say whether every trial's answers are gathered."""
        facts = with_fields(record.facts, _KINDS, path, "manifest", _WAY_OUT)
        return trials(self.run_config).keys() <= set(facts["trials"] or [])

    def estimate(self, planning: Planning) -> list[Planned]:
        """Price the trials, a line for all seeds of each."""
        return [self._line(planning, choice, variant) for choice, variant in self._lines(planning)]

    def _lines(self, planning: Planning) -> list[tuple[tuple[str, str, int], str]]:
        """Return (selector, budget, rows) and variant of each line of the plan."""
        run, rows = self.run_config, planning.rows("pool")
        chosen = [(s.label, str(b), budget_rows(b, rows)) for s in run.selectors for b in run.budgets]
        if run.sweep.full:
            chosen.append((FULL, WHOLE, rows))
        return [(choice, variant) for variant in run.finetune.by_name() for choice in chosen]

    def stand(self, lines: list[Planned], planning: Planning) -> None:
        """Count each line's trials: those that are trained, and the questions that they answered."""
        for line, ((label, budget, _), variant) in zip(lines, self._lines(planning), strict=True):
            recipe = self.run_config.finetune.by_name()[variant].recipe()
            names = [Choice(label, budget, seed).trial(variant) for seed in self.run_config.seeds]
            places = [join(self.run_config.out, "sweep", name) for name in names]
            untrained = [left_of(recipe, join(p, "train"), line.steps // len(places)) for p in places]
            unasked = [_unasked(p, planning) for p in places]
            there = [exists(join(p, RESULT)) and not u + n for p, u, n in zip(places, untrained, unasked, strict=True)]
            line.questions, line.questions_left = planning.rows("test") * len(places), sum(unasked)
            line.stands(sum(there), len(places), "trials", sum(untrained) / len(places))
            trained = untrained.count(0.0)
            if trained and not line.done:
                asked = f"{line.questions_left:,} of {line.questions:,} questions are still to be asked"
                line.note = f"{trained:,} of {len(places):,} trials are trained; {asked}"

    def _line(self, planning: Planning, choice: tuple[str, str, int], variant: str) -> Planned:
        run, (label, budget, rows) = self.run_config, choice
        config = run.finetune.by_name()[variant].recipe()
        name = f"sweep-{label}-{budget}" + (f"-{variant}" if variant else "")
        line = training_line(self, name, config, planning, "pool", rows)
        line.what += f" on {label} {budget}, {len(run.seeds)} seed(s); evaluate {planning.rows('test')} questions"
        line.config |= {
            "evaluate": run.evaluate.recipe().model_dump(mode="json"),
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
        there = [join(folder, n) for n in names(folder)]
        done = sum(exists(join(t, RESULT)) for t in there)
        running = [said for t in there if (said := under_way(t))]
        return self.begun(bool(there), "; ".join([f"{done} trials finished", *running]))

    def held(self, record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
        """What each trial took to train and to answer."""
        return Held.total(self._trial_held(r) for r in results)

    def _trial_held(self, result: dict[str, Any]) -> Held:
        run, then = self.run_config, result.get("places") or {}  # what they were when it ran, if its result says
        section = run.finetune.by_name()[result.get("variant") or ""]
        training = workers_of(section.model_copy(update=then.get("train", {})))
        asked = run.evaluate.model_copy(update=then.get("evaluate", {}))
        actors, gpus, cpus = asked.actors, asked.gpus_per_actor, asked.cpus_per_actor
        hours = result["train_seconds"] / 3600, result.get("eval_seconds", 0.0) / 3600
        return Held.total([training.times(hours[0]), Held(gpus, cpus).times(actors).times(hours[1])])


def _unasked(trial: str, planning: Planning) -> int:
    """Return how many questions a trial is still to be asked."""
    from .answered import questions_left

    questions = planning.questions
    return planning.rows("test") if questions is None else questions_left(trial, questions.digest, questions.ids)


def sweep_trials(run: Run, trials: "list[Trial]") -> None:
    """Run the trials that are not done and gather every one's answers into `RUN/evals.parquet`."""
    from .sweep import collect, open_again, refused_lines, run_sweep, same_lines

    digest = Pool(run.folder("test")).digest
    wanted = {t.name: {"run": t.evaluate.run, "test": digest} for t in trials}
    done, path = run.manifest.read("sweep"), run.manifest.path("sweep")
    origins, gathered = _trial_origins(done, path, digest) if done else ({}, set())
    left = [t for t in trials if origins.get(t.name) != wanted[t.name]]
    work = done is None or bool(left) or not wanted.keys() <= gathered
    if work:
        again = [t.name for t in left if open_again(t, digest)]
        if again:
            tell(f"sweep: {len(again)} trials are asked the questions that are new; none is trained again")
        with run.manifest.growing("sweep", {"test": str(run.config.evaluate.model_dump())}) as record:
            results = run_sweep(run.config, trials)
            collect(run.out, trials)
            record.facts.update(rows=sum(r["rows"] for r in results), trials=[t.name for t in trials])
            record.facts["told"] = refused_lines(results) + same_lines(trials)
            record.items = origins | wanted
    facts = run.say("sweep", new=work).facts
    for line in with_fields(facts, _KINDS, path, "manifest", _WAY_OUT)["told"] or []:
        tell(line)


def adopt(run: Run) -> None:
    """Note in the manifest of an older version what its trials were asked, before that becomes more."""
    done, path = run.manifest.read("sweep"), run.manifest.path("sweep")
    if done is not None and not done.items:
        done.items = _trial_origins(done, path, Pool(run.folder("test")).digest)[0]
        run.manifest.keep(done)


def _trial_origins(done: StageRecord, path: str, digest: str) -> tuple[dict[str, Any], set[str]]:
    """Return what each trial was made of, by name, and the trials whose answers are gathered.

    An older version says only the runs, in one text; it had one test pool, of this digest.
    """
    facts = with_fields(done.facts, _KINDS, path, "manifest", _WAY_OUT)
    names = facts["trials"] or []
    if done.items or not isinstance(done.inputs.get("trials"), str):
        return done.items, set(names)
    runs = done.inputs["trials"].split()
    return {n: {"run": r, "test": digest} for n, r in zip(names, runs, strict=False)}, set(names)
