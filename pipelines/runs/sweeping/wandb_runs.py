"""A sweep's trials at Weights & Biases: each run is kept by an actor of its own, as Ray's integration has it.

An actor that ends with less than it was sent is told, and its run is sent once more, whole: a trial's log and result are
on disk. If that one fails as well, nothing more of the sweep is sent, and runs that stand are closed.
"""

import os
import time
from contextlib import suppress
from typing import Any

import ray
from ray.air.integrations.wandb import WandbLoggerCallback, _QueueItem, _WandbLoggingActor
from ray.air.util.node import _force_on_current_node
from ray.exceptions import RayActorError, RayError

from ....store.errors import one_line
from ....store.files import digest
from ....train.trackers import be_patient_with_wandb, end_wandb
from ..config import RunConfig
from ..stage import tell
from .curves import Curves, bare, numbers_of, values_of
from .told import told

# as often as a trial's run is sent
TRIES = 2


class Keeper(_WandbLoggingActor):
    """Keeps the run of one trial. `variables`: W&B's own of whoever began it."""

    def __init__(self, *arguments: Any, variables: dict[str, str], **named: Any) -> None:
        os.environ.update(variables)
        be_patient_with_wandb()
        self.rows = 0
        super().__init__(*arguments, **named)

    def run(self) -> int:
        """Take rows until there are no more; return how many, when their file is written or they are sent."""
        super().run()
        end_wandb()
        return self.rows

    def _handle_result(self, result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        self.rows += 1
        return super()._handle_result(result)


class Wandb(WandbLoggerCallback):
    """Runs of one project, a group for each sweep."""

    called = "Weights & Biases"
    _logger_actor_cls = Keeper

    def __init__(self, config: RunConfig) -> None:
        out = os.path.abspath(config.out)
        name = os.path.basename(out)
        super().__init__(project=config.sweep.tracker_project, group=name, excludes=["trial"], dir=out, resume="allow")
        self.curves = Curves()
        # of the trials whose actors are not done: rows sent, tries, what they reached, and those that get no more
        self._sent: dict[Any, int] = {}
        self._tries: dict[Any, int] = {}
        self._reached: dict[Any, dict[str, float]] = {}
        self._ended: set[Any] = set()

    @told
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Follow the trainings of the trials that run."""
        if self._trial_queues and self.curves.due():
            self._look()
            for trial in [t for t in self._trial_queues if t not in self._ended]:
                self._follow(trial)

    @told
    def log_trial_start(self, trial: Any) -> None:
        """Begin a trial's run, or go on with the one that an earlier try of it began."""
        values = values_of(trial)
        # Ray may have been started where variables say otherwise; WANDB_SERVICE is a process of this one
        own = {n: v for n, v in os.environ.items() if n.startswith("WANDB_") and n != "WANDB_SERVICE"}
        self.kwargs |= {
            "config": bare(values),
            "id": digest(values["folder"]),
            "name": values["name"],
            "variables": own,
        }
        if not self._remote_logger_class:
            # one that dies is begun again by us: Ray's own second try would lack what the first has taken
            options = {"num_cpus": 0, "max_restarts": 0, **_force_on_current_node()}
            self._remote_logger_class = ray.remote(**options)(self._logger_actor_cls)
        super().log_trial_start(trial)

    @told
    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Take what a trial reached, behind the steps of its training."""
        if trial not in self._trial_queues:
            self.log_trial_start(trial)
        self._follow(trial)
        step = self.curves.last(values_of(trial)["folder"]) + 1
        self._reached[trial] = numbers_of(result) | {"training_iteration": step}
        self._put(trial, [self._reached[trial]])

    @told
    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """End a trial's run."""
        if trial in self._trial_queues:
            self._end(trial)
            self._look()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Wait for what is still to be written, also where a run was given up: the others' are to be closed."""
        self._wait()
        with suppress(RayError):  # what failed is told
            self._close()

    @told
    def _wait(self) -> None:
        for trial in set(self._trial_queues) - self._ended:
            self._end(trial)
        deadline = time.monotonic() + self._upload_timeout
        while self._trial_logging_futures:
            left = max(deadline - time.monotonic(), 0)
            if not ray.wait(list(self._trial_logging_futures.values()), timeout=left)[0]:
                raise TimeoutError(f"{len(self._ended)} runs are not sent after {self._upload_timeout} s")
            self._look()

    def _close(self) -> None:
        for trial in set(self._trial_queues) - self._ended:
            self._end(trial)
        if self._trial_logging_futures:
            self._cleanup_logging_actors(timeout=60, kill_on_timeout=True)

    def _look(self) -> None:
        """See what became of actors that are done, and begin anew with a run that lacks something."""
        futures = list(self._trial_logging_futures.values())
        done = ray.wait(futures, num_returns=len(futures), timeout=0)[0] if futures else []
        for future in done:
            trial = self._logging_future_to_trial.pop(future)
            why = self._lacks(trial, future)
            self._cleanup_logging_actor(trial)
            if why:
                self._again(trial, why)
            else:
                self._forget(trial)

    def _lacks(self, trial: Any, future: Any) -> str:
        try:
            taken = ray.get(future)
        except RayActorError:  # Ray's words for it are a page
            return "its process has died"
        except RayError as error:
            return one_line(error)
        return "" if taken == self._sent.get(trial, 0) else f"{taken} of {self._sent.get(trial, 0)} rows were taken"

    def _again(self, trial: Any, why: str) -> None:
        name, ended = values_of(trial)["name"], trial in self._ended
        tries, reached = self._tries.get(trial, 1), self._reached.get(trial)
        self._forget(trial)
        if tries >= TRIES:
            raise RuntimeError(f"the run of {name} failed {tries} times: {why}")
        tell(f"Weights & Biases: the run of {name} is sent again: {why.rstrip('.')}.")
        self._tries[trial] = tries + 1
        self.log_trial_start(trial)
        self._follow(trial)
        if reached:
            self._reached[trial] = reached
            self._put(trial, [reached])
        if ended:
            self._end(trial)

    def _end(self, trial: Any) -> None:
        self._ended.add(trial)
        self._signal_logging_actor_stop(trial=trial)
        self.curves.forget(values_of(trial)["folder"])

    def _forget(self, trial: Any) -> None:
        self._ended.discard(trial)
        for kept in (self._sent, self._tries, self._reached):
            kept.pop(trial, None)
        self.curves.forget(values_of(trial)["folder"])

    def _follow(self, trial: Any) -> None:
        rows = self.curves.new(values_of(trial)["folder"])
        steps = [{"train/loss": r["loss"], "train/lr": r["lr"], "training_iteration": r["step"]} for r in rows]
        self._put(trial, steps)

    def _put(self, trial: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._trial_queues[trial].put_nowait_batch([(_QueueItem.RESULT, row) for row in rows])
            self._sent[trial] = self._sent.get(trial, 0) + len(rows)
