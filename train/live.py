"""A training's numbers while it goes on, as meters (`store/meters.py`): what a dashboard shows of it, beside `log.jsonl`.

Meters are told apart by what kind of training it is, not by trial: a process of a sweep does hundreds of those, and each
would leave series behind. The curve of one trial is in its log, and in TensorBoard.
"""

from pathlib import PurePath
from typing import Any

from ..store import meters

SWEEP = "sweep"
_COUNTERS = (meters.TRAIN_STEPS, meters.TRAIN_ROWS, meters.TRAIN_TOKENS)
_GAUGES = (*(meters.TRAIN_STEP, meters.TRAIN_PLANNED, meters.TRAIN_LOSS, meters.LEARNING_RATE, meters.VALIDATION_LOSS),)


def training_of(out: str) -> str:
    """Return what a training is called in meters: its folder's name, `sweep` for all trials of one (SWEEP/TRIAL/train)."""
    folder = PurePath(out)
    if folder.name == "train" and folder.parent.parent.name == SWEEP:
        return SWEEP
    return folder.name


def begun(out: str) -> None:
    """Begin a training, or go on with one."""
    for meter in _COUNTERS:
        meter.begin(training=training_of(out))


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


def ended(out: str) -> None:
    """Export what is left; a process that stays has no loss any more until it trains again."""
    meters.flush()
    for meter in _GAUGES:
        meter.drop(training=training_of(out))
