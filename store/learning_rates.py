"""The learning rate of each checkpoint whose features a store holds: what LESS weighs checkpoints by (its paper, eq. 3).

`features` writes them beside the shards (`ROOT/FEATURE/learning_rates.json`), from the report of the training that left the
checkpoints; `select` reads them where nobody gives weights. They are no part of a feature's key: no number depends on them.
"""

import os
from typing import Any

from .errors import DamagedError, InputError
from .facts import read_fields
from .files import absolute, exists, join, write_json

FILE = "learning_rates.json"
# what a training leaves beside its checkpoints (`train.run.REPORT`)
_REPORT = "train.json"
_WAY_OUT = "Delete it; then checkpoints weigh equally, or give `checkpoint_weights`."


def of_checkpoint(path: str) -> float | None:
    """Return the mean learning rate on the way to a checkpoint, from the report of its training; None without one."""
    folder = absolute(path)
    report = join(os.path.dirname(folder), _REPORT)
    if not exists(report):
        return None
    try:
        kept = read_fields(report, "report of a training", _WAY_OUT, checkpoints=list[dict[str, Any]])["checkpoints"]
    except (DamagedError, InputError):  # of something else: it says nothing of this checkpoint
        return None
    rates = [k.get("lr") for k in kept if os.path.basename(str(k.get("path"))) == os.path.basename(folder)]
    return float(rates[0]) if len(rates) == 1 and isinstance(rates[0], (int, float)) and rates[0] >= 0 else None


def write_rates(root: str, feature: str, rates: dict[int, float | None]) -> None:
    """Keep the rates that are known, beside those of earlier checkpoints. Raises: as `write_json`."""
    path = join(root, feature, FILE)
    before = _read(path) if exists(path) else {}
    now = before | {step: rate for step, rate in rates.items() if rate is not None}
    if now != before:
        write_json(path, {"learning_rates": {str(step): rate for step, rate in sorted(now.items())}})


def read_rates(root: str, feature: str) -> dict[int, float]:
    """Return the rates that are known, by step.

    Raises:
        DamagedError: the file holds something else.
    """
    path = join(root, feature, FILE)
    return _read(path) if exists(path) else {}


def _read(path: str) -> dict[int, float]:
    return read_fields(path, "list of learning rates", _WAY_OUT, learning_rates=dict[int, float])["learning_rates"]
