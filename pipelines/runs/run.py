"""A run from the pool to the report: its stages in order, each skipped that is done.

Each stage ends in a manifest (`RUN/stages/NAME.json`); one whose inputs changed is refused by name. The stages themselves
resume inside (parts, checkpoints, trials).
"""

import time

from ...store.claim import claim
from ...store.errors import InputError, UnfinishedError, VinnowError
from ..progress import console
from .ahead import Ahead
from .begin import without_gpus
from .by_uri import refuse_by_uri
from .config import RunConfig
from .ingest_stage import Ingest
from .opening import start
from .plan import make_plan
from .plan_shown import summarise
from .results import write_report
from .shares import check_shares
from .stages import stages_of
from .sweeping.ready import check_sweep_trackers


def run_stages(config: RunConfig, report: bool = True) -> str | None:
    """Do every stage that is not done; returns the report's path.

    Raises:
        BusyError: another process does this run.
        InputError: the run's folder was made by another config, or an input is missing.
        UnfinishedError: trials of the sweep failed, or `sweep.device_hours` ended it; the rest is kept, and in the report.
    """
    missing = without_gpus(config)
    if missing is not None:  # before a pool is read, and before the folder is this config's
        raise InputError(missing)
    refuse_by_uri(config)
    check_sweep_trackers(config.sweep)
    check_shares(config)
    with claim(config.out, "run", r"run\.json"):
        return _run_claimed(config, report)


def _run_claimed(config: RunConfig, report: bool) -> str | None:
    begin = time.perf_counter()
    run = start(config)
    if config.devices is not None:
        console.print(f"computing on {config.devices}", markup=False, soft_wrap=True)
    if config.devices is not None and config.devices.gpus:
        for text in summarise(config, make_plan(config, Ahead())).too_large:
            console.print(f"warning: {text}", markup=False, soft_wrap=True)
    unfinished: UnfinishedError | None = None
    stages = stages_of(config)
    pools = sum(isinstance(stage, Ingest) for stage in stages)  # they come first
    for number, stage in enumerate(stages):
        if number == pools:
            for later in stages[pools:]:
                later.check(run)
        try:
            stage.run(run)
        except UnfinishedError as error:  # what is there is told all the same
            unfinished = error
    try:
        path = write_report(config.out) if report else None
    except VinnowError as error:
        if unfinished is None:
            raise
        raise UnfinishedError(f"{unfinished} The report was not written either: {error}") from error
    if unfinished is not None:
        raise unfinished
    console.print(f"[bold]{config.out}[/]: all stages done, {time.perf_counter() - begin:.1f} s this time")
    return path
