"""A sweep's trials on Ray Tune: those of a kind together, in one experiment that a killed driver takes up again.

How trials over Ray Train cannot lock each other up: Tune holds no CPU for a trial that goes through Ray Train (its driver
only waits; a hundredth of a CPU would keep two workers off two nodes of one CPU), and what computes is asked for in one
piece: all workers of a training are one placement group, given whole or not at all, and its answering actors start after
that is given back. A trial never waits while it holds what another waits for. One in a process that stays holds one bundle
from the start. What no cluster could ever give is refused by name before the first trial begins (`sweep.py`).
"""

import json
import os
from contextlib import redirect_stdout
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from ....store.errors import VinnowError, one_line
from ....store.fetch import cache_folder
from ....store.files import absolute, digest, is_uri, join
from ....store.scratch import local_file
from ..config import RunConfig
from ..stage import tell
from ..trial import Trial, job_of, plain_result, run_trial
from ..warm import WarmTrial, is_warm, resources_of
from ..watch import FAILED
from . import seal
from .callbacks import tune_callbacks
from .desk import Desk
from .searcher import DESKS, FromDesk

# what Tune prints of itself
TUNE_WORDS = "tune.log"
# the driver of a trial under Ray Train only waits: Tune wants it to hold something, and this is a megabyte
DRIVER = tune.PlacementGroupFactory([{"memory": 1_000_000}])


class Sealer(tune.Callback):
    """Seals an experiment's state whenever Tune has written it."""

    def __init__(self, place: str, shape: str) -> None:
        self.place, self.shape = place, shape
        self._seen: Any = None

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Seal what has changed."""
        try:
            seen = [(n, os.stat(os.path.join(self.place, n)).st_mtime_ns) for n in seal.state_files(self.place)]
            if seen != self._seen:
                seal.seal(self.place, self.shape)
                self._seen = seen
        except FileNotFoundError:  # Tune is putting another one into its place: the next step seals that
            return


def run_desk(desk: Desk) -> None:
    """Run what the desk hands out, group by group; it knows afterwards what failed."""
    groups: dict[str, list[Trial]] = {}
    for trial in (t for t in desk.trials if not t.same_as):
        kind = json.dumps([resources_of(trial) if is_warm(trial) else "cold", trial.train.max_failures])
        groups.setdefault(kind, []).append(trial)
    open_names = {t.name for t in desk.open}
    with local_file(join(desk.config.out, TUNE_WORDS)) as words, open(words, "w") as sink:
        for number, group in enumerate(groups.values()):
            if not open_names & {t.name for t in group} or desk.stopped:
                continue
            place = os.path.join(_home(desk.config.out), f"tune-{number}" if number else "tune")
            DESKS[place] = desk, {t.name for t in group}
            try:
                tuner = _tuner(desk.config, group, place)
                with redirect_stdout(sink):  # stdout is for results
                    results = tuner.fit()
            finally:
                del DESKS[place]
            seal.seal(place, _shape(desk.config, group), ended=True)
            desk.failed |= _faults(desk, results)


def _home(out: str) -> str:
    """Return the folder of Tune's own files: a run's; of one at a URI a folder of this machine, whose seal they carry.

    On another machine the trials' folders say what is done.
    """
    return cache_folder("tune", digest(absolute(out))) if is_uri(out) else os.path.abspath(out)


def _tuner(config: RunConfig, group: list[Trial], place: str) -> tune.Tuner:
    """Return the experiment of a group: the one that was cut off, or a new one."""
    shape, warm = _shape(config, group), is_warm(group[0])
    trainable = tune.with_resources(WarmTrial, resources_of(group[0])) if warm else tune.with_resources(cold, DRIVER)
    why_not = seal.why_not(place, shape)
    if why_not is None:
        try:
            return tune.Tuner.restore(place, trainable=trainable, resume_unfinished=True)
        except (
            ValueError,
            TypeError,
            RuntimeError,
            OSError,
            EOFError,
            LookupError,
            AttributeError,
            ImportError,
        ) as error:
            why_not = one_line(error)
    if why_not:
        tell(f"Tune's own state in {place!r} is left alone: {why_not}. The trials' folders say what is done.")
    for name in (seal.SEAL, *seal.state_files(place)):  # a new experiment; its curves lie beside those before
        if os.path.exists(path := os.path.join(place, name)):
            os.remove(path)
    # a process that died is replaced, and its trial goes on: elsewhere, if its node is lost
    failures = tune.FailureConfig(max_failures=group[0].train.max_failures)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=-1,  # until the desk has no more
            search_alg=FromDesk(place),
            max_concurrent_trials=config.sweep.concurrent,
            reuse_actors=warm,
            trial_dirname_creator=_short,
            trial_name_creator=_short,
        ),
        run_config=tune.RunConfig(
            name=os.path.basename(place),
            storage_path=os.path.dirname(place),
            verbose=0,
            failure_config=failures,
            # what there is to go on from lies in the trial's own folder
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[*tune_callbacks(config), Sealer(place, shape)],
        ),
    )


def _shape(config: RunConfig, group: list[Trial]) -> str:
    import ray

    how = [ray.__version__, config.sweep.concurrent, [t.as_dict() for t in group]]
    return digest(json.dumps(how, sort_keys=True))


def cold(values: dict[str, Any]) -> None:
    """A trial through Ray Train, as a function of Tune's."""
    from ray.tune.integration.ray_train import TuneReportCallback

    try:
        result = plain_result(run_trial(job_of(values["trial"]), (TuneReportCallback(),)))
    except (
        VinnowError
    ) as error:  # Ray Train has tried as often as `max_failures` says: Tune replaces lost drivers alone
        result = {FAILED: one_line(error)}
    tune.report(result)


def _faults(desk: Desk, results: Any) -> dict[str, str]:
    """Return why trials failed, by name, in Tune's and our own words."""
    said = {}
    for result in (results[i] for i in range(len(results))):
        name = json.loads(result.config["trial"])["name"]
        fault = one_line(result.error) if result.error else (result.metrics or {}).get(FAILED)
        if fault and name in desk.failed:
            said[name] = fault
    return said


def _short(trial: TuneTrial) -> str:
    return json.loads(trial.config["trial"])["name"] + "-" + trial.trial_id[-5:]
