"""What a sweep's callbacks know of a trial: its choice, its numbers, and its training's steps as they are logged."""

import json
import time
from typing import Any

from ....store.files import exists, join, look_at, read_from
from ..watch import LOG

# seconds between looks at the logs of trials that run
EVERY = 5.0
CHOICE = ("selector", "budget", "seed", "variant")
# of a trial's result: what it reached and what it took
NUMBERS = ("accuracy", "image_accuracy", "loss", "rows", "steps", "train_seconds", "eval_seconds")


def values_of(trial: Any) -> dict[str, Any]:
    """Return the plain values of a trial of ours, as Tune was given them."""
    return json.loads(trial.config["trial"])


def choice_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a trial is a trial of: selector, budget and seed, and its variant where there are several."""
    return {name: values[name] for name in CHOICE if values[name] != ""}


def bare(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a tracker keeps as a trial's parameters."""
    return choice_of(values) | {"trial": values["name"], "model": values["train"]["model"]}


def numbers_of(result: dict[str, Any]) -> dict[str, float]:
    """Return what a trial reached and took, of what it told Tune; a task's accuracy is `accuracy_TASK`."""
    names = [*NUMBERS, *(n for n in result if n.startswith("accuracy_"))]
    return {n: float(result[n]) for n in names if isinstance(result.get(n), (int, float))}


class Curves:
    """The steps of running trials, from the logs that their trainings write: each step once, in order."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._steps: dict[str, int] = {}
        self._looked = 0.0

    def due(self) -> bool:
        """Say whether it is time for another look."""
        now = time.monotonic()
        if now - self._looked < EVERY:
            return False
        self._looked = now
        return True

    def new(self, folder: str) -> list[dict[str, Any]]:
        """Return the steps (`step`, `loss`, `lr`, `tokens`, `seconds`) that were logged since the last call."""
        path = join(folder, "train", LOG)
        if not exists(path):
            return []
        place, size = self._places.get(folder, 0), look_at(path).size or 0
        if size < place:  # a training that went on from a state wrote its log anew
            place = 0
        try:
            rows = self._read(folder, path, place)
        except ValueError:  # so it did, and has more lines by now: this place lies inside one
            rows = self._read(folder, path, 0)
        rows = [row for row in rows if row["step"] > self._steps.get(folder, 0)]
        if rows:
            self._steps[folder] = rows[-1]["step"]
        return rows

    def _read(self, folder: str, path: str, place: int) -> list[dict[str, Any]]:
        text = read_from(path, place) if (look_at(path).size or 0) > place else b""
        whole = text[: text.rfind(b"\n") + 1]
        rows = [json.loads(line) for line in whole.splitlines()]
        self._places[folder] = place + len(whole)
        return rows

    def last(self, folder: str) -> int:
        """Return the last step that was given out."""
        return self._steps.get(folder, 0)

    def forget(self, folder: str) -> None:
        """Begin anew with a trial that has ended."""
        self._places.pop(folder, None)
        self._steps.pop(folder, None)
