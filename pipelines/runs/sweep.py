"""A run's trials, from its choices to their results: budgets × selectors × seeds × fine-tunes, each resumable.

A trial's folder is its name, so that a trial that was cut off goes on, and one that is finished does nothing again. Which
runs when is the desk's (`sweeping/desk.py`); Ray Tune runs them (`sweeping/tuning.py`).
"""

import math
import os
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ...actors.capacity import Share, require
from ...actors.cluster import ensure_ray
from ...evaluate.config import TABLE, EvalConfig
from ...models.load import model_digest
from ...pool.reader import Pool
from ...store.files import absolute, digest, exists, join
from ...store.folders import move_file
from ...store.ids import ids_digest
from ...store.tables import EVALS, PICKS, read_rows, write_rows
from ...store.usage import Usage
from ...train.config import TrainConfig
from .answered import asked_of, unasked
from .begin import FEWER
from .choices import FULL, WHOLE
from .choices import Choice as Chosen
from .config import RunConfig
from .identity import how_asked, how_trained, recipe_json
from .missing import FEWER_ACTORS
from .sweeping.desk import Desk
from .sweeping.order import in_order
from .sweeping.outcome import Outcome
from .sweeping.rungs import for_verdicts
from .sweeping.same import answers_of, tell_same, with_leaders
from .trial import Trial, read_result, run_of
from .watch import RESULT, Looker, watching

# selector, budget as configured, seed, PICKS file (None: the whole pool)
Choice = tuple[str, str, int, str | None]


def trials_of(config: RunConfig, picks: dict[tuple[str, str, int], str], model: str) -> list[Trial]:
    """List the trials in the order in which they are to run: every choice, and the whole pool beside them.

    With variants of the fine-tune, each choice has a trial of every one. `same_as` says of a trial which one it is again.
    """
    chosen: list[Choice] = [(*key, path) for key, path in picks.items()]
    if config.sweep.full:
        chosen += [(FULL, WHOLE, seed, None) for seed in config.seeds]
    begun, variants = (absolute(model), model_digest(model)), config.finetune.by_name()
    pool = Pool(join(config.out, "pool"))
    trials = []
    for choice in chosen:
        ids = None if choice[3] is None else read_rows(choice[3], PICKS)["sample_id"].to_numpy()
        rows = (pool.digest, pool.rows) if ids is None else (ids_digest(ids), len(ids))
        trials += [_trial(config, choice, rows, variant, begun) for variant in variants]
    return with_leaders(in_order(config, trials))


def run_sweep(config: RunConfig, trials: list[Trial]) -> list[dict[str, Any]]:
    """Run the trials that are not done and return all results, in the order given.

    Raises:
        InputError: one asks for what no cluster here can give; names it, before any begins.
        VinnowError: some trials failed; names them, the others' results stay on disk.
        BudgetSpentError: `sweep.device_hours` ended it.
    """
    outcome = carry_out(config, trials)
    outcome.check()
    return outcome.results


def carry_out(config: RunConfig, trials: list[Trial]) -> Outcome:
    """The same, but what failed or was not run is a part of what is returned."""
    waiting = [t for t in trials if not exists(join(t.folder, RESULT))]
    more = {t.name: _to_ask(t, config.out) for t in waiting}
    desk = Desk(config, [more.get(t.name, t) for t in trials])
    if desk.look().begin:
        ensure_ray(config.ray)
        require_trials(desk.open)
        look = Looker([t.folder for t in trials])
        # counted from disk: Tune pickles its callbacks, and a progress bar cannot be pickled
        with watching("sweep", "trials", look.look, "no trial is done yet: the first ones start"):
            _tune(desk)
    return _outcome(desk)


def _tune(desk: Desk) -> None:
    from .sweeping.tuning import run_desk

    run_desk(desk)


def _outcome(desk: Desk) -> Outcome:
    tell_same(desk.trials)
    done = desk.done
    names, dropped = {t.name for t in done}, desk.look().dropped
    failed = {n: why for n, why in desk.failed.items() if n not in names}
    for trial in desk.trials:
        if trial.same_as in failed and trial.name not in names:
            failed[trial.name] = f"it is {trial.same_as} again, and that failed: {failed[trial.same_as]}"
    away = names | failed.keys() | dropped.keys()
    return Outcome(
        desk.trials,
        done,
        [read_result(join(t.folder, RESULT)) for t in done],
        failed,
        {n: why for n, why in dropped.items() if n not in names},
        [t.name for t in desk.trials if t.name not in away],
        desk.purse.spent,
        desk.purse.limit,
        desk.stopped,
    )


def require_trials(trials: list[Trial]) -> None:
    """Return if the cluster can hold each of these trials alone. Raises: as `actors.capacity.require`."""
    from .warm import is_warm, resources_of

    seen: set[str] = set()
    for trial in trials:
        training, asking, warm = trial.train, trial.evaluate, is_warm(trial)
        key = str(
            [training.workers, training.use_gpu, asking.actors, asking.cpus_per_actor, asking.gpus_per_actor, warm]
        )
        if key in seen:  # a thousand trials ask for a few things
            continue
        seen.add(key)
        if warm:
            held = resources_of(trial)
            require(f"trial {trial.name}", [Share(1, held["CPU"], held["GPU"])], FEWER)
        else:
            _require_cold(trial.name, training, asking)


def _require_cold(name: str, training: TrainConfig, asking: EvalConfig) -> None:
    require(f"trial {name}", [Share(training.workers, 1, 1 if training.use_gpu else 0)], FEWER)
    parts = math.ceil(Pool(asking.pool).rows / asking.rows_per_part)
    actors = Share(min(asking.actors, parts), asking.cpus_per_actor, asking.gpus_per_actor)
    require(f"answering in trial {name}", [actors], FEWER_ACTORS)


def _to_ask(trial: Trial, out: str) -> Trial:
    return replace(trial, more=unasked(trial.folder, trial.evaluate.pool, join(absolute(out), "test-more")))


def open_again(trial: Trial, digest: str) -> bool:
    """Take a trial's result back that counts fewer questions than the test pool of this digest has; say whether it did."""
    path = join(trial.folder, RESULT)
    if not exists(path):
        return False
    covered = read_result(path)["test"] or asked_of(trial.folder)
    if covered in (None, digest):
        return False
    move_file(path, join(trial.folder, "result-before.json"))
    return True


def collect(config: RunConfig, outcome: Outcome) -> str:
    """Write `RUN/evals.parquet`: the answers that verdicts are made of, told apart by `run`.

    Where a search has dropped choices, these and the questions that decided it are left out.
    """
    path, sweep = join(config.out, TABLE), config.sweep
    stopped = {(t.selector, t.budget, t.variant) for t in outcome.stopped_choices}
    kept = [t for t in outcome.done if (t.selector, t.budget, t.variant) not in stopped]
    tables = [answers_of(t) for t in kept]
    if sweep.search != "grid":
        tables = [for_verdicts(table, sweep.rung_share) for table in tables]
    write_rows(path, pa.concat_tables(tables) if tables else EVALS.empty_table(), EVALS)
    return path


def refused_lines(results: list[dict[str, Any]]) -> list[str]:
    """Return a line for each trial that was cut off, could not use all rows of its choice, or not ask all questions."""
    lines = []
    for result in results:
        if result.get("same_as"):  # said of that one
            continue
        if result.get("cut_off"):
            lines.append(f"{result['name']} was {result['cut_off']}")
        if result.get("reasons"):
            usage = Usage(result["used"] or 0, result["reasons"], result["listed"] or "")
            lines.append(f"{result['name']}: trained on {usage.line()}")
        if result.get("not_asked"):
            where = join(os.path.dirname(os.path.dirname(result["model"] or "")), "eval", "refused")
            lines.append(f"{result['name']}: {result['not_asked']:,} questions could not be asked; listed in {where}")
    return lines


def _trial(config: RunConfig, choice: Choice, rows: tuple[str, int], variant: str, begun: tuple[str, str]) -> Trial:
    """Return a choice's trial; `rows`: their digest and number; `begun`: the model that it begins with, and its digest."""
    selector, budget, seed, picks = choice
    name = Chosen(selector, budget, seed).trial(variant)
    folder = absolute(join(config.out, "sweep", name))
    pool, test = (absolute(join(config.out, n)) for n in ("pool", "test"))
    section = config.finetune.by_name()[variant]
    training = section.job(model=begun[0], pool=pool, picks=picks, seed=seed)
    # the run is what was trained on, how, and from where; not where it lies
    how = recipe_json(training)
    asked = how_asked(config.evaluate.recipe())
    made_of = {"rows": rows[0], "model": begun[1], "train": how_trained(training)[0], "evaluate": asked}
    run = run_of(folder, digest(rows[0], how, begun[1]), made_of)
    scoring = config.evaluate.job(model=join(folder, "train", "model"), pool=test, run=run)
    return Trial(name, selector, budget, seed, folder, training, scoring, variant, made_of=made_of, rows=rows[1])
