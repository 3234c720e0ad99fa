"""What trials hold of devices, and whether what is left of `sweep.device_hours` is enough for another one.

A device-hour is a GPU for an hour; of a trial that uses no GPU, a CPU worker for an hour. A trial holds its devices from
its first moment to its last: loading, checks, waiting for pictures and answering count, not its steps alone.
"""

from typing import Any

from ....store.files import exists, join
from ..config import RunConfig
from ..stage import Held
from ..training_stage import workers_of
from ..trial import Trial, logged_seconds, read_result
from ..watch import RESULT


def held(config: RunConfig, result: dict[str, Any]) -> Held:
    """Return what a finished trial took to train and to answer, in hours; nothing of one that is another one again."""
    if result.get("same_as"):
        return Held(0.0, 0.0)
    return Held.total(split(config, result))


def split(config: RunConfig, result: dict[str, Any]) -> tuple[Held, Held]:
    """Return what training and answering took, in hours; of one that is another one again, what that one's did."""
    training, asking = _devices(config, result)
    seconds = result["train_seconds"], result.get("eval_seconds", 0.0)
    return training.times(seconds[0] / 3600), asking.times(seconds[1] / 3600)


def _devices(config: RunConfig, result: dict[str, Any]) -> tuple[Held, Held]:
    """Return the devices on which a trial was trained and asked: those that its result says, if it does."""
    then = result.get("places") or {}
    section = config.finetune.by_name()[result.get("variant") or ""]
    training = workers_of(section.model_copy(update=then.get("train", {})))
    asked = config.evaluate.model_copy(update=then.get("evaluate", {}))
    return training, Held(asked.gpus_per_actor, asked.cpus_per_actor).times(asked.actors)


def whole(config: RunConfig, result: dict[str, Any]) -> float:
    """Return the device-hours of a finished trial, from its first moment to its last."""
    if result.get("same_as"):
        return 0.0
    training, asking = _devices(config, result)
    spent = result["train_seconds"] + result.get("eval_seconds", 0.0)
    devices = max(training.gpu, asking.gpu) or max(training.cpu, asking.cpu)
    return devices * (result.get("held_seconds") or spent) / 3600


def of_trial(config: RunConfig, trial: Trial) -> float:
    """Return the device-hours of a trial so far: of one that is not finished, those of the steps that its log has."""
    path = join(trial.folder, RESULT)
    if exists(path):
        return whole(config, read_result(path))
    return trial.train.workers * logged_seconds(trial.folder) / 3600


class Purse:
    """The device-hours of a sweep: what is spent, and what those that run are expected to take."""

    def __init__(self, config: RunConfig, trials: list[Trial]) -> None:
        self._config, self.limit = config, config.sweep.device_hours
        self._took, self._running = dict[str, float](), dict[str, float]()
        self._known = dict[str, dict[str, tuple[int, float]]]()
        for trial in trials if self.limit is not None else []:
            self._count(trial)

    @property
    def spent(self) -> float:
        """The device-hours of all trials that have ended."""
        return sum(self._took.values())

    def allows(self, trial: Trial) -> bool:
        """Say whether what is left is enough for a trial; where nobody knows what it takes, whether anything is left."""
        if self.limit is None:
            return True
        expected = self._expected(trial)
        if self.spent + sum(self._running.values()) + expected > self.limit or self.spent >= self.limit:
            return False
        self._running[trial.name] = expected
        return True

    def ended(self, trial: Trial) -> None:
        """Take note of a trial that has ended, well or not."""
        self._running.pop(trial.name, None)
        if self.limit is not None:
            self._count(trial)

    def _count(self, trial: Trial) -> None:
        took = self._took[trial.name] = of_trial(self._config, trial)
        if took and exists(join(trial.folder, RESULT)):
            self._known.setdefault(trial.variant, {})[trial.name] = (_steps(trial), took)

    def _expected(self, trial: Trial) -> float:
        """Return what the finished trial whose steps are nearest took, by steps."""
        known, steps = self._known.get(trial.variant), _steps(trial)
        if not known:
            return 0.0
        nearest = min(known.values(), key=lambda k: abs(k[0] - steps))
        return nearest[1] * steps / nearest[0]


def _steps(trial: Trial) -> int:
    return trial.train.planned_steps(trial.rows) if trial.rows else 1
