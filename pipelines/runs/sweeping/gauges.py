"""A sweep's own meters: how many trials are done, running, waiting and failed, and what the finished ones reached."""

import time
from typing import Any

from ray.tune import Callback

from ....store import meters
from ....store.files import absolute, exists, join
from ..choices import trials
from ..config import RunConfig
from ..trial import read_result
from ..watch import FAILED, RESULT
from .curves import EVERY, values_of

# more trials than this: their accuracies are told as means over seeds, so that a sweep of thousands adds few series
MOST_APART = meters.MOST


class Gauges(Callback):
    """Counts trials as Tune tells of them; those that were done before are read from their folders."""

    def __init__(self, config: RunConfig) -> None:
        self.folders = {name: absolute(join(config.out, "sweep", name)) for name in trials(config)}
        self.apart = len(self.folders) <= MOST_APART
        self.done, self.running, self.failed = set[str](), set[str](), set[str]()
        self.looked = 0.0
        self.reached: dict[tuple[str, str, str], dict[int, float]] = {}

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Begin with what is there."""
        self._look()
        self._tell()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `Callback`."""
        self.running.add(values_of(trial)["name"])
        self._tell()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """See `Callback`."""
        values = values_of(trial)
        if FAILED in result:
            self.failed.add(values["name"])
        elif result.get("accuracy") is not None:
            self._reached(values["name"], values | {"accuracy": result["accuracy"]})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `Callback`."""
        self.running.discard(values_of(trial)["name"])
        if time.monotonic() - self.looked > EVERY:
            self._look()
        self._tell()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """See `Callback`."""
        self._look()
        self._tell()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `Callback`."""
        self.failed.add(values_of(trial)["name"])
        self.running.discard(values_of(trial)["name"])
        self._tell()

    def _look(self) -> None:
        """Count what is done without Tune: before it began, or by another trial that is the same."""
        self.looked = time.monotonic()
        for name, folder in self.folders.items():
            if name not in self.done and exists(join(folder, RESULT)):
                self._reached(name, read_result(join(folder, RESULT)))

    def _reached(self, name: str, result: dict[str, Any]) -> None:
        self.done.add(name)
        choice = (str(result["selector"]), str(result["budget"]), str(result.get("variant") or ""))
        by_seed = self.reached.setdefault(choice, {})
        by_seed[int(result["seed"])] = float(result["accuracy"])
        selector, budget, variant = choice
        seed, value = str(result["seed"]), by_seed[int(result["seed"])]
        if not self.apart:
            seed, value = "mean", sum(by_seed.values()) / len(by_seed)
        meters.ACCURACY.set(value, selector=selector, budget=budget, seed=seed, variant=variant)

    def _tell(self) -> None:
        failed, running = self.failed - self.done, self.running - self.done
        counts = {"done": len(self.done), "running": len(running), "failed": len(failed)}
        counts["waiting"] = max(0, len(self.folders) - len(self.done | failed | running))
        for state, count in counts.items():
            meters.TRIALS.set(count, state=state)
        meters.flush()
