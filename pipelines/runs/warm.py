"""Trials in a process that stays: Tune gives it one after another, so that a short training does not pay for a start.

Only a trial of one worker, answered by one actor, without parameters that ZeRO-3 spreads. The others go through Ray Train
(`sweeping/tuning.py`), each in processes of its own.
"""

import json
import os
from typing import TYPE_CHECKING, Any

from ray import tune

from ...store.importing import uncollected
from ...store.meters import export_to
from ...train.environment import environment
from .watch import FAILED

if TYPE_CHECKING:
    from .trial import Trial


def is_warm(trial: "Trial") -> bool:
    """Say whether a trial is trained and asked inside one process that others used before it."""
    # ZeRO-3 leaves its hooks in classes of the process
    return trial.train.workers == 1 and trial.evaluate.actors == 1 and trial.train.zero_stage < 3


def resources_of(trial: "Trial") -> dict[str, float]:
    """Return what such a process holds: the larger need of training and answering."""
    asked = trial.evaluate
    return {"CPU": max(1, asked.cpus_per_actor), "GPU": max(float(trial.train.use_gpu), asked.gpus_per_actor)}


class WarmTrial(tune.Trainable):
    """One process of a sweep. A step is a whole trial; its model is loaded once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Set what libraries read when they are imported, and say to whom this process's meters go."""
        from ray.util import metrics

        export_to(metrics)
        training = json.loads(config["trial"])["train"]
        os.environ.update(environment(training["threads"], training["use_gpu"]))
        self._bases: Any = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        return True

    def step(self) -> dict[str, Any]:
        """Train and answer; return what there is to plot, or the error of ours that trying again would only repeat."""
        with uncollected():
            from ...store.errors import VinnowError, one_line
            from ...train.solo import Bases
            from ...train.stop import TrainingFailedError
            from .trial import job_of, plain_result, run_trial

        self._bases = self._bases or Bases()
        try:
            return plain_result(run_trial(job_of(self.config["trial"]), bases=self._bases)) | {"done": True}
        except TrainingFailedError:
            raise  # by Tune, in a new process, as often as `max_failures` says
        except VinnowError as error:
            return {"done": True, FAILED: one_line(error)}
