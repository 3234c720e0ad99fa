"""The sweep: a fine-tune and an evaluation of every choice, by every variant of the fine-tune."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...pool.reader import Pool
from ...select.run import budget_rows
from ...store.errors import InputError
from ...store.files import exists, join
from ...store.folders import is_folder, names
from ...store.manifest import StageRecord, read_stage
from ...store.reading import with_fields
from .choices import FULL, WHOLE, Choice, trials
from .config import RunConfig
from .identity import how_asked, how_trained
from .model_stage import model_stage
from .sections import where_of
from .select_stage import pick_key, picks_of
from .stage import Held, Item, Planned, Planning, Run, Stage, StageStatus, State, manifest_path, tell
from .training_stage import left_of, model_before, training_line
from .watch import RESULT, TRAINED, under_way

if TYPE_CHECKING:
    from .sweep import Trial

_KINDS: dict[str, Any] = {"told": list[str] | None, "trials": list[str] | None, "left": list[str] | None}
_KINDS |= {"search": dict[str, Any] | None, "dropped": dict[str, str] | None}
# what is recorded of a sweep in which every trial runs; older versions recorded nothing
_GRID = {"search": "grid"}
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
            if echoes(folder):  # another trial's training and answers are its own
                states |= {f"trial {name}": "done", f"answers {name}": "done"}
            if is_folder(join(folder, "train")):
                trained = exists(join(folder, "train", TRAINED))
                states[f"trial {name}"] = "done" if trained else "under way"
            if is_folder(join(folder, "eval")):
                states[f"answers {name}"] = "done"
        return states

    def finished(self, record: StageRecord, path: str) -> bool:
        """Say whether every trial's answers are gathered."""
        facts = with_fields(record.facts, _KINDS, path, "manifest", _WAY_OUT)
        return trials(self.run_config).keys() <= {*(facts["trials"] or []), *dropped_then(self.run_config, facts)}

    def estimate(self, planning: Planning) -> list[Planned]:
        """Price the trials, a line for all seeds of each."""
        from .sweeping.foreseen import foreseen, notes

        same = foreseen(self.run_config)
        lines = [self._line(planning, choice, variant, same) for choice, variant in self._lines(planning)]
        lines[0].note = "; ".join([*notes(self.run_config, same), *([lines[0].note] if lines[0].note else [])])
        return lines

    def check(self, run: Run) -> None:
        """Refuse trials that would train nothing before any feature is made.

        Raises:
            InputError: names them.
        """
        config, rows = self.run_config, Pool(run.folder("pool")).rows
        taken = {str(b): budget_rows(b, rows) for b in config.budgets} | ({WHOLE: rows} if config.sweep.full else {})
        idle = [
            f"{n:,} rows ({budget})" + (f" by finetune.variants.{name}" if name else "")
            for name, variant in config.finetune.by_name().items()
            for budget, n in taken.items()
            if n and variant.recipe().idle(n)
        ]
        if idle:
            raise InputError(
                f"finetune: of {rows:,} rows of the pool, {'; '.join(idle)}: one step would train nothing, since "
                "warm-up begins at a rate of 0. Set finetune.warmup_ratio: 0, or more epochs, or a smaller global_batch."
            )

    def _lines(self, planning: Planning) -> list[tuple[tuple[str, str, int], str]]:
        """Return (selector, budget, rows) and variant of each line of the plan."""
        run, rows = self.run_config, planning.rows("pool")
        chosen = [(s.label, str(b), budget_rows(b, rows)) for s in run.selectors for b in run.budgets]
        if run.sweep.full:
            chosen.append((FULL, WHOLE, rows))
        return [(choice, variant) for variant in run.finetune.by_name() for choice in chosen]

    def stand(self, lines: list[Planned], planning: Planning) -> None:
        """Count each line's trials: those that are trained, and the questions that they answered."""
        from .sweeping.foreseen import foreseen

        path = manifest_path(self.run_config.out, self.name)
        facts = with_fields(read_stage(path).facts, _KINDS, path, "manifest", _WAY_OUT) if exists(path) else {}
        gone, same = dropped_then(self.run_config, facts), foreseen(self.run_config)
        for line, ((label, budget, _), variant) in zip(lines, self._lines(planning), strict=True):
            each = line.steps // line.count if line.count else 1
            recipe = self.run_config.finetune.by_name()[variant].recipe()
            named = [Choice(label, budget, seed).trial(variant) for seed in self.run_config.seeds]
            names = [n for n in named if n not in gone] or named
            places = [join(self.run_config.out, "sweep", name) for name in names]
            untrained = [0.0 if echoes(p) else left_of(recipe, join(p, "train"), each) for p in places]
            unasked = [_unasked(p, planning) for p in places]
            there = [exists(join(p, RESULT)) and not u + n for p, u, n in zip(places, untrained, unasked, strict=True)]
            line.questions = planning.rows("test") * len(set(names) - same.keys())
            line.questions_left = sum(n for name, n in zip(names, unasked, strict=True) if name not in same)
            line.stands(sum(there), len(places), "trials", sum(untrained) / len(places))
            trained, said = untrained.count(0.0), [line.note] if line.note else []
            if len(names) < len(named):
                line.note = "; ".join([*said, f"{len(named) - len(names)} of {len(named)} seeds were dropped"])
            if trained and not line.done:
                asked = f"{line.questions_left:,} of {line.questions:,} questions are still to be asked"
                line.note = "; ".join([f"{trained:,} of {len(places):,} trials are trained; {asked}", *said])

    def _line(self, planning: Planning, choice: tuple[str, str, int], variant: str, same: dict[str, str]) -> Planned:
        run, (label, budget, rows) = self.run_config, choice
        config = run.finetune.by_name()[variant].recipe()
        name = f"sweep-{label}-{budget}" + (f"-{variant}" if variant else "")
        line = training_line(self, name, config, planning, "pool", rows)
        if config.idle(rows):
            line.note = "one step with a warm-up trains nothing: `vinnow run` refuses it"
        line.what += f" on {label} {budget}, {len(run.seeds)} seed(s); evaluate {planning.rows('test')} questions"
        line.config |= {
            "evaluate": run.evaluate.recipe().model_dump(mode="json"),
            "sweep": run.sweep.model_dump(),
            "seeds": run.seeds,
        }
        line.times(sum(Choice(label, budget, seed).trial(variant) not in same for seed in run.seeds))
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
        path = manifest_path(run_dir, self.name)
        facts = with_fields(read_stage(path).facts, _KINDS, path, "manifest", _WAY_OUT) if exists(path) else {}
        said = [f"the last try: {line}" for line in facts.get("left") or []]
        return self.begun(bool(there), "; ".join([f"{done} trials finished", *running, *said]))

    def held(self, record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
        """What each trial took to train and to answer."""
        from .sweeping.hours import held

        return Held.total(held(self.run_config, r) for r in results)


def _unasked(trial: str, planning: Planning) -> int:
    """Return how many questions a trial is still to be asked."""
    from .answered import questions_left

    if echoes(trial):
        return 0
    questions = planning.questions
    return planning.rows("test") if questions is None else questions_left(trial, questions.digest, questions.ids)


def sweep_trials(run: Run, trials: "list[Trial]") -> None:
    """Run the trials that are not done and gather every one's answers into `RUN/evals.parquet`.

    Raises:
        VinnowError, BudgetSpentError: some trials failed, or were not run; the others are gathered before.
    """
    from .sweep import carry_out, collect, open_again, refused_lines
    from .sweeping.same import same_lines

    digest = Pool(run.folder("test")).digest
    wanted = {t.name: {"run": t.evaluate.run, "test": digest} for t in trials}
    done, path = run.manifest.read("sweep"), run.manifest.path("sweep")
    origins, gathered = _trial_origins(done, path, digest) if done else ({}, set())
    facts = with_fields(done.facts if done else {}, _KINDS, path, "manifest", _WAY_OUT)
    dropped = dropped_then(run.config, facts)
    left = [t for t in trials if origins.get(t.name) != wanted[t.name] and t.name not in dropped]
    whole = wanted.keys() <= {*gathered, *dropped} and (facts["search"] or _GRID) == searched(run.config)
    work, outcome = done is None or bool(left) or not whole, None
    if work:
        again = [t.name for t in left if open_again(t, digest)]
        if again:
            tell(f"sweep: {len(again)} trials are asked the questions that are new; none is trained again")
        with run.manifest.growing("sweep", {"test": str(run.config.evaluate.model_dump())}) as record:
            outcome = carry_out(run.config, trials)
            collect(run.config, outcome)
            names = [t.name for t in outcome.done]
            record.facts.update(rows=sum(r["rows"] for r in outcome.results), trials=names)
            record.facts["told"] = refused_lines(outcome.results) + same_lines(trials)
            record.facts.update(search=searched(run.config), dropped=outcome.dropped, left=outcome.lines())
            record.facts["notes"] = outcome.notes(run.config)
            if outcome.limit is not None:
                record.facts["device_hours"] = round(outcome.spent, 6)
            record.items = origins | {n: wanted[n] for n in names}
    if outcome is not None:
        for line in outcome.lines() if outcome.failed or outcome.left else ():
            tell(line)
        outcome.check()
    facts = with_fields(run.say("sweep", new=work).facts, _KINDS, path, "manifest", _WAY_OUT)
    for line in (facts["told"] or []) + (facts["left"] or []):
        tell(line)


def searched(config: RunConfig) -> dict[str, Any]:
    """Return the settings by which trials are dropped, and questions set apart."""
    sweep = config.sweep
    return dict(_GRID) if sweep.search == "grid" else sweep.model_dump(include={"search", "eta", "rung_share"})


def dropped_then(config: RunConfig, facts: dict[str, Any]) -> dict[str, str]:
    """Return the trials that a sweep's manifest says were dropped, and why; none where another search is asked for now."""
    return (facts.get("dropped") or {}) if facts.get("search") == searched(config) else {}


def echoes(folder: str) -> str:
    """Return which trial the one in a folder says that it is again; "" of one with a training of its own, or no result."""
    from .trial import read_result

    path = join(folder, RESULT)
    if not exists(path) or is_folder(join(folder, "train")):
        return ""
    return read_result(path)["same_as"] or ""


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
