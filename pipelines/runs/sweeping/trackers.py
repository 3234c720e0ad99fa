"""A sweep's trials in MLflow and Weights & Biases (`sweep.trackers`), by Ray's own integrations.

Each trial is a run there: what it is a trial of, its training's curve, what it reached. Servers and keys come from the
trackers' own variables (MLFLOW_TRACKING_URI, WANDB_API_KEY, WANDB_MODE), never from a config; without a server, MLflow
writes `RUN/mlflow.db` and W&B, offline, `RUN/wandb`. A trial that is begun again goes on with its run.
"""

import os
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback

from ....store.files import digest
from ..config import RunConfig
from ..watch import FAILED
from .curves import Curves, bare, numbers_of, values_of
from .told import told
from .wandb_runs import Wandb

# MLflow's own limit of a batch
_BATCH = 1000
_OWN = "vinnow.trial"


class MLflow(MLflowLoggerCallback):
    """Runs of one experiment; parameters are the choice, not Tune's arguments."""

    called = "MLflow"

    def __init__(self, config: RunConfig) -> None:
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{os.path.abspath(config.out)}/mlflow.db"
        super().__init__(tracking_uri=where, experiment_name=config.sweep.tracker_project)
        self.curves = Curves()

    @told
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Follow the trainings of the trials that run."""
        if self._trial_runs and self.curves.due():
            for trial in self._trial_runs:
                self._follow(trial)

    @told
    def log_trial_start(self, trial: Any) -> None:
        """Begin a trial's run, or go on with the one that an earlier try of it began."""
        if trial in self._trial_runs:
            return
        values, client = values_of(trial), self.mlflow_util._get_client()
        own, number = digest(values["folder"]), self.mlflow_util.experiment_id
        runs = client.search_runs([number], f"tags.`{_OWN}` = '{own}'", max_results=1)
        run = runs[0] if runs else client.create_run(number, run_name=values["name"], tags={_OWN: own})
        self._trial_runs[trial] = run.info.run_id
        for name, value in bare(values).items():
            client.log_param(run.info.run_id, name, value)

    @told
    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Take what a trial reached."""
        self.log_trial_start(trial)
        self._follow(trial)
        self._log(trial, [(numbers_of(result), self.curves.last(values_of(trial)["folder"]))])
        if FAILED in result:
            self.mlflow_util._get_client().set_tag(self._trial_runs[trial], FAILED, str(result[FAILED])[:5000])

    @told
    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """End a trial's run."""
        run = self._trial_runs.pop(trial, None)
        if run is not None:
            client = self.mlflow_util._get_client()
            failed = failed or FAILED in client.get_run(run).data.tags
            client.set_terminated(run, "FAILED" if failed else "FINISHED")
            self.curves.forget(values_of(trial)["folder"])

    def _follow(self, trial: Any) -> None:
        rows = self.curves.new(values_of(trial)["folder"])
        self._log(trial, [({"train/loss": r["loss"], "train/lr": r["lr"]}, r["step"]) for r in rows])

    def _log(self, trial: Any, rows: list[tuple[dict[str, float], int]]) -> None:
        import time

        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now, client = int(time.time() * 1000), self.mlflow_util._get_client()
        metrics = [Metric(name, value, now, step) for values, step in rows for name, value in values.items()]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(self._trial_runs[trial], metrics=metrics[start : start + _BATCH])


TRACKERS = {"mlflow": MLflow, "wandb": Wandb}
