"""What a worker's loop asks of whoever runs it: its rank, the model, the state to go on from, a place for reports."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from ..models.load import Loaded, load
from .config import TrainConfig


class Session(Protocol):
    """One worker's side of a training. `rank`: which of the workers."""

    rank: int

    def load(self, config: TrainConfig) -> Loaded:
        """Return the model to train, on the device where it is trained; the caller may change its weights."""
        ...

    def state(self) -> Any:
        """Return a context that gives the folder of the last reported state; None where there is none."""
        ...

    def report(self, numbers: dict[str, Any], folder: str | None = None) -> None:
        """Tell numbers; with `folder`, of a state that is kept, whole or not at all."""
        ...

    def close(self, engine: Any) -> None:
        """Let go of a training's engine, whether it ended well or not."""
        ...


class RaySession:
    """A worker of Ray Train, in a process of its own."""

    def __init__(self) -> None:
        import ray.train

        self.rank = ray.train.get_context().get_world_rank()

    def load(self, config: TrainConfig) -> Loaded:
        """Load the model from its folder."""
        import ray.train.torch

        device = ray.train.torch.get_device() if config.use_gpu else torch.device("cpu")
        return load(config.model, config.precision, str(device), quantise=config.quantise)

    @contextmanager
    def state(self) -> Iterator[str | None]:
        """Give the checkpoint that Ray Train kept."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield os.fspath(folder)

    def report(self, numbers: dict[str, Any], folder: str | None = None) -> None:
        """Report to Ray Train."""
        import ray.train

        ray.train.report(numbers, checkpoint=None if folder is None else ray.train.Checkpoint.from_directory(folder))

    def close(self, engine: Any) -> None:
        """Do nothing: the process ends with its training."""
