"""A run from the pool to the report."""

import time

from ..store.claim import claim
from ..store.errors import InputError
from ..store.manifest import StageRecord
from ..store.reading import with_fields
from ..train.run import TrainReport
from .begin import without_gpus
from .config import RunConfig
from .flows import Run, checkpoints_of, ingest_pools, make_features, pick, prepare_model, start, warm_up
from .plan import make_plan
from .plan_shown import summarise
from .progress import console
from .results import collect, write_report
from .sweep import Trial, refused_lines, run_sweep, trials_of


def whole_run(config: RunConfig, report: bool = True) -> str | None:
    """Do every stage that is not done; returns the report's path.

    Raises:
        BusyError: another process does this run.
        InputError: the run's folder was made by another config, or an input is missing.
        VinnowError: a trial of the sweep failed; the rest is kept.
    """
    missing = without_gpus(config)
    if missing is not None:  # before a pool is read, and before the folder is this config's
        raise InputError(missing)
    with claim(config.out, "run", r"run\.json"):
        return _whole_run(config, report)


def _whole_run(config: RunConfig, report: bool) -> str | None:
    begin = time.perf_counter()
    run = start(config)
    if config.devices is not None:
        console.print(f"computing on {config.devices}", markup=False, soft_wrap=True)
    if config.devices is not None and config.devices.gpus:
        for text in summarise(config, make_plan(config)).too_large:
            console.print(f"warning: {text}", markup=False, soft_wrap=True)
    ingest_pools(run)
    model = warm_up(run, prepare_model(run))
    make_features(run, checkpoints_of(run, model))
    picks = pick(run, learning_rates(run))
    trials = trials_of(config, picks, model)
    sweep_stage(run, trials)
    path = write_report(config.out) if report else None
    console.print(f"[bold]{config.out}[/]: all stages done, {time.perf_counter() - begin:.1f} s this time")
    return path


def sweep_stage(run: Run, trials: list[Trial]) -> None:
    """Run the sweep and gather every trial's answers into `RUN/evals.parquet`."""
    inputs = {"trials": " ".join(t.evaluate.run for t in trials), "test": str(run.config.evaluate)}

    def work(record: StageRecord) -> None:
        results = run_sweep(run.config, trials)
        collect(run.config.out, trials)
        record.facts.update(rows=sum(r["rows"] for r in results), trials=[t.name for t in trials])
        record.facts["told"] = refused_lines(results)

    facts = run.stage("sweep", inputs, work).facts
    kinds = {"told": list[str] | None}
    for line in (
        with_fields(facts, kinds, run.manifest.path("sweep"), "manifest", "Delete it and run again.")["told"] or []
    ):
        console.print(f"        {line}", markup=False, soft_wrap=True)


def learning_rates(run: Run) -> dict[int, float] | None:
    """Return the proxy's mean learning rate up to each checkpoint since the one before: LESS's checkpoint weights.

    None without a proxy.
    """
    if run.config.proxy is None:
        return None
    return {int(c.step): float(c.lr) for c in TrainReport.read(run.folder("train", "proxy")).checkpoints}
