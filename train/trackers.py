"""Where else a training's numbers go, by configuration alone: TensorBoard, MLflow, Weights & Biases.

`log.jsonl` is written in any case. Rank 0 tracks; a resumed training goes on with the same run. Servers and keys come from
the trackers' own environment variables (MLFLOW_TRACKING_URI, WANDB_API_KEY, WANDB_MODE), never from a config. A new
tracker is one class in `TRACKERS`.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..store.errors import InputError
from ..store.files import digest
from .config import TrainConfig


class Tracker(Protocol):
    """What takes numbers by step."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of an optimizer step (1-based)."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in `OUT/tensorboard`, by tensorboardX, which Ray Tune brings."""

    package = "tensorboardX"

    def __init__(self, config: TrainConfig, out: str, first: int) -> None:
        from tensorboardX import SummaryWriter

        # what was written of steps that are done again is dropped by readers
        self.writer = SummaryWriter(os.path.join(out, "tensorboard"), purge_step=first + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        self.writer.close()


class Mlflow:
    """An MLflow run; without MLFLOW_TRACKING_URI in `OUT/mlflow.db`."""

    package = "mlflow"

    def __init__(self, config: TrainConfig, out: str, first: int) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out}/mlflow.db")
        known = Path(out, "mlflow.run")
        if known.is_file():
            self.run = known.read_text()
            return
        project = self.client.get_experiment_by_name(config.tracker_project)
        number = project.experiment_id if project else self.client.create_experiment(config.tracker_project)
        self.run = self.client.create_run(number, run_name=os.path.basename(out)).info.run_id
        for name, value in config.model_dump(mode="json").items():
            self.client.log_param(self.run, name, str(value)[:500])
        known.write_text(self.run)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self.client.set_terminated(self.run)


# seconds in which W&B's own process has to start, and to take a run: loaded machines need more than its 30 and 90
_PATIENCE = {"WANDB__SERVICE_WAIT": "300", "WANDB_INIT_TIMEOUT": "300"}


def be_patient_with_wandb() -> None:
    """Have this process wait long for W&B's own, unless its variables say how long."""
    for name, seconds in _PATIENCE.items():
        os.environ.setdefault(name, seconds)


def end_wandb() -> None:
    """End W&B's process of this one, and return when it is gone.

    It writes a run's file as it ends: `finish` does not wait for that, and what kills this process may kill it too.
    """
    import wandb  # pyright: ignore[reportMissingImports]

    wandb.teardown()


class Wandb:
    """A run at Weights & Biases, named after the output folder so that a resumed training goes on with it."""

    package = "wandb"

    def __init__(self, config: TrainConfig, out: str, first: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        be_patient_with_wandb()
        self.run = wandb.init(
            project=config.tracker_project,
            name=os.path.basename(out),
            id=digest(out),
            resume="allow",
            dir=out,
            config=config.model_dump(mode="json"),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracker`."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self.run.finish()
        end_wandb()


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "mlflow": Mlflow, "wandb": Wandb}
# pip alone would take an MLflow from 2022: the whole of it allows no pandas 3
_EXTRA = {"mlflow": "vinnow[track]", "wandb": "vinnow[track]"}


def check_trackers(names: list[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        InputError: names the package.
    """
    for name in names:
        package = TRACKERS[name].package
        if find_spec(package) is None:
            way_out = f"`pip install '{_EXTRA.get(name, package)}'`, or remove it"
            raise InputError(f"trackers: {name} needs the package {package!r}: {way_out}.")


def open_trackers(config: TrainConfig, out: str, first: int, rank: int) -> list[Tracker]:
    """Return the trackers of a training that goes on after step `first`; none on ranks other than 0."""
    return [] if rank else [TRACKERS[name](config, out, first) for name in config.trackers]
