"""Ray Tune over budgets × selectors × seeds × fine-tunes: each trial is a Ray Train run and an evaluation, both resumable.

A trial's folder is its name, so that a trial that was cut off goes on, and one that is finished does nothing again.
"""

import json
import os
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ...actors.cluster import ensure_ray
from ...evaluate.config import TABLE
from ...models.load import model_digest
from ...pool.reader import Pool
from ...store.errors import VinnowError, one_line
from ...store.files import absolute, digest, exists, is_uri, join, open_fs
from ...store.folders import move_file
from ...store.ids import ids_digest
from ...store.scratch import local_file
from ...store.tables import EVALS, PICKS, read_rows, write_rows
from ...store.usage import Usage
from .answered import MADE_OF, answers, asked_of, unasked
from .begin import require_workers
from .choices import FULL, WHOLE
from .choices import Choice as Chosen
from .config import RunConfig
from .identity import how_asked, how_trained, recipe_json
from .sweeping.callbacks import tune_callbacks
from .trial import Trial, plain_result, read_result, remember, run_of, run_trial
from .watch import RESULT, under_way, watching

# what Tune prints of itself
TUNE_WORDS = "tune.log"
# selector, budget as configured, seed, PICKS file (None: the whole pool)
Choice = tuple[str, str, int, str | None]


def trials_of(config: RunConfig, picks: dict[tuple[str, str, int], str], model: str) -> list[Trial]:
    """List the trials: every choice, and the whole pool beside them, dearest first so that none ends alone.

    With variants of the fine-tune, each choice has a trial of every one.
    """
    chosen: list[Choice] = [(*key, path) for key, path in picks.items()]
    if config.sweep.full:
        chosen += [(FULL, WHOLE, seed, None) for seed in config.seeds]
    trials = [_trial(config, choice, variant, model) for choice in chosen for variant in config.finetune.by_name()]
    return sorted(_apart(trials), key=lambda t: (-_rows(t, config.out), t.name))


def _apart(trials: list[Trial]) -> list[Trial]:
    """Give a trial that is another one again (the same rows, say) a run of its own: answers are told apart by it.

    One that has begun keeps what it is called.
    """
    runs: set[str] = set()
    apart = []
    for trial in sorted(trials, key=lambda t: (not exists(join(t.folder, MADE_OF)), t.name)):
        run = trial.evaluate.run
        run = digest(run, trial.name) if run in runs else run
        runs.add(run)
        apart.append(replace(trial, evaluate=trial.evaluate.model_copy(update={"run": run})))
    return apart


def same_lines(trials: list[Trial]) -> list[str]:
    """Return a line for each trial that is an earlier one again: the same rows, trained and asked in the same way."""
    first: dict[str, str] = {}
    lines = []
    for trial in trials:
        same = first.setdefault(json.dumps(trial.made_of, sort_keys=True), trial.name)
        if same != trial.name:
            lines.append(f"{trial.name} is {same} again, the same rows trained in the same way: one result, not two")
    return lines


def run_sweep(config: RunConfig, trials: list[Trial]) -> list[dict[str, Any]]:
    """Run the trials that are not done and return all results, in the order given.

    Raises:
        VinnowError: some trials failed; names them, the others' results stay on disk.
    """
    open_trials = [_to_ask(t, config.out) for t in trials if not exists(join(t.folder, RESULT))]
    if open_trials:
        ensure_ray(config.ray)
        for trial in open_trials:
            require_workers(trial.train, f"trial {trial.name}")
        # counted from disk: Tune pickles its callbacks, and a progress bar cannot be pickled
        with watching("sweep", "trials", lambda: _looked_at(trials), "no trial is done yet: the first ones start"):
            errors = _tune(config, open_trials)
        if errors:
            raise VinnowError("trials failed: " + "; ".join(errors) + ". The others are kept; run again to retry.")
    return [read_result(join(t.folder, RESULT)) for t in trials]


def _to_ask(trial: Trial, out: str) -> Trial:
    remember(trial)
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


def collect(out: str, trials: list[Trial]) -> str:
    """Write `RUN/evals.parquet`: every trial's answers, told apart by `run`."""
    path = join(out, TABLE)
    write_rows(path, pa.concat_tables([answers(t.folder) for t in trials]), EVALS)
    return path


def _looked_at(trials: list[Trial]) -> tuple[int, int, str]:
    """Return how many trials are done, of how many, and how far those are that run."""
    done = sum(exists(join(t.folder, RESULT)) for t in trials)
    return done, len(trials), "; ".join(said for t in trials if (said := under_way(t.folder)))


def _tune(config: RunConfig, trials: list[Trial]) -> list[str]:
    """Run trials by Tune, those of a kind together; return what failed."""
    from .warm import is_warm, resources_of

    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        kind = "cold" if not is_warm(trial) else json.dumps([resources_of(trial), trial.train.max_failures])
        groups.setdefault(kind, []).append(trial)
    failed = []
    # stdout is for results
    with local_file(join(config.out, TUNE_WORDS)) as words, open(words, "w") as sink, redirect_stdout(sink):
        for number, group in enumerate(groups.values()):
            failed += _failed(group, _fit_group(config, group, "tune" if not number else f"tune-{number}"))
    return failed


def _fit_group(config: RunConfig, trials: list[Trial], name: str) -> Any:
    from ray import tune

    from .warm import WarmTrial, is_warm, resources_of

    warm = is_warm(trials[0])
    if warm:
        trainable = tune.with_resources(WarmTrial, resources_of(trials[0]))
    else:
        # 0.01 CPU: the driver of a trial only waits; a whole one would starve the workers it waits for (spec: Ray §3)
        trainable = tune.with_resources(_trainable, {"CPU": 0.01})
    # a process that died is replaced, and its trial goes on; Ray Train does so itself
    failures = tune.FailureConfig(max_failures=trials[0].train.max_failures if warm else 0)
    # what there is to go on from lies in the trial's own folder
    states = tune.CheckpointConfig(checkpoint_at_end=False)
    fs, storage = open_fs(config.out)
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search([json.dumps(t.as_dict()) for t in trials])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=config.sweep.concurrent,
            reuse_actors=warm,
            trial_dirname_creator=_short,
            trial_name_creator=_short,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage,
            storage_filesystem=fs if is_uri(config.out) else None,
            verbose=0,
            failure_config=failures,
            checkpoint_config=states,
            callbacks=tune_callbacks(config),
        ),
    )
    return tuner.fit()


def refused_lines(results: list[dict[str, Any]]) -> list[str]:
    """Return a line for each trial that was cut off, could not use all rows of its choice, or not ask all questions."""
    lines = []
    for result in results:
        if result.get("cut_off"):
            lines.append(f"{result['name']} was {result['cut_off']}")
        if result.get("reasons"):
            usage = Usage(result["used"] or 0, result["reasons"], result["listed"] or "")
            lines.append(f"{result['name']}: trained on {usage.line()}")
        if result.get("not_asked"):
            where = join(os.path.dirname(os.path.dirname(result["model"] or "")), "eval", "refused")
            lines.append(f"{result['name']}: {result['not_asked']:,} questions could not be asked; listed in {where}")
    return lines


def _trainable(values: dict[str, Any]) -> None:
    import ray.tune
    from ray.tune.integration.ray_train import TuneReportCallback

    ray.tune.report(plain_result(run_trial(json.loads(values["trial"]), (TuneReportCallback(),))))


def _failed(trials: list[Trial], results: Any) -> list[str]:
    """Return a line for each trial that failed."""
    from .warm import FAILED

    said = {}
    for result in (results[i] for i in range(len(results))):
        fault = one_line(result.error) if result.error else (result.metrics or {}).get(FAILED)
        if fault:
            said[json.loads(result.config["trial"])["name"]] = fault
    return [f"{t.name}: {said[t.name].rstrip('.')}" for t in trials if t.name in said]


def _short(trial: Any) -> str:
    return json.loads(trial.config["trial"])["name"] + "-" + trial.trial_id[-5:]


def _trial(config: RunConfig, choice: Choice, variant: str, model: str) -> Trial:
    selector, budget, seed, picks = choice
    name = Chosen(selector, budget, seed).trial(variant)
    folder = absolute(join(config.out, "sweep", name))
    pool, test = (absolute(join(config.out, n)) for n in ("pool", "test"))
    section, start = config.finetune.by_name()[variant], absolute(model)
    training = section.job(model=start, pool=pool, picks=picks, seed=seed)
    # the run is what was trained on, how, and from where; not where it lies
    chosen = ids_digest(read_rows(picks, PICKS)["sample_id"].to_numpy()) if picks else Pool(pool).digest
    how = recipe_json(training)
    begun = model_digest(model)
    asked = how_asked(config.evaluate.recipe())
    made_of = {"rows": chosen, "model": begun, "train": how_trained(training)[0], "evaluate": asked}
    run = run_of(folder, digest(chosen, how, begun), made_of)
    scoring = config.evaluate.job(model=join(folder, "train", "model"), pool=test, run=run)
    return Trial(name, selector, budget, seed, folder, training, scoring, variant, made_of=made_of)


def _rows(trial: Trial, out: str) -> int:
    return Pool(join(out, "pool")).rows if trial.train.picks is None else read_rows(trial.train.picks, PICKS).num_rows
