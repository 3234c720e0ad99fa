"""A training's numbers while it goes on, as meters (`store/meters.py`): what a dashboard shows of it, beside `log.jsonl`.

Meters are told apart by what kind of training it is, not by trial: a process of a sweep does hundreds of those, and each
would leave series behind. The curve of one trial is in its log, and in TensorBoard.
"""

from pathlib import PurePath
from typing import Any

from ..store import meters

SWEEP = "sweep"


def training_of(out: str) -> str:
    """Return what a training is called in meters: its folder's name, `sweep` for all trials of one (SWEEP/TRIAL/train)."""
    folder = PurePath(out)
    if folder.name == "train" and folder.parent.parent.name == SWEEP:
        return SWEEP
    return folder.name


def stepped(out: str, row: dict[str, Any], rows: int) -> None:
    """Take a step's row of the log; `rows` were trained on in it."""
    training = training_of(out)
    meters.TRAIN_STEPS.add(1, training=training)
    meters.TRAIN_ROWS.add(rows, training=training)
    meters.TRAIN_TOKENS.add(row["tokens"], training=training)
    meters.TRAIN_STEP.set(row["step"], training=training)
    meters.TRAIN_PLANNED.set(row["total_steps"], training=training)
    meters.TRAIN_LOSS.set(row["loss"], training=training)
    meters.LEARNING_RATE.set(row["lr"], training=training)


def validated(out: str, loss: float) -> None:
    """Take the loss of the held-out rows."""
    meters.VALIDATION_LOSS.set(loss, training=training_of(out))


def ended() -> None:
    """Export what is left."""
    meters.flush()
