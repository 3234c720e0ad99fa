"""Tune asks it for the next trial whenever there is room for one: a sweep's order, its search and its device-hours.

What it answers is the desk's to say, which knows it from the trials' folders. Of its own it keeps which of Tune's trials is
which of ours, as JSON: Tune puts it back with its experiment.
"""

import json
from typing import Any

from ray.tune.search import Searcher

from ....store.files import read_json, write_json
from ..trial import Trial, leave_job
from ..watch import FAILED
from .desk import Desk

# the desk of each group of trials that this process runs, by the group's folder: a desk does not go into Tune's pickles
DESKS: dict[str, tuple[Desk, set[str]]] = {}


class FromDesk(Searcher):
    """Hands out the trials of the group whose Tune folder is `place`."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's config, "FINISHED", or None where one may follow when others have ended."""
        desk, group = DESKS[self.place]
        trial = desk.next(group)
        if trial is None:
            return None if desk.waits(group) else Searcher.FINISHED
        self.names[trial_id] = trial.name
        return config_of(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the desk; what Tune itself caught is read of its results later (`tuning.faults`)."""
        name = self.names.pop(trial_id, None)
        if name is not None:
            fault = "its process failed" if error else (result or {}).get(FAILED)
            DESKS[self.place][0].ended(name, fault)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """What a trial tells on its way decides nothing."""

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """There is nothing to draw from."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Write which trials run."""
        write_json(checkpoint_path, self.names)

    def restore(self, checkpoint_path: str) -> None:
        """Take up the trials that ran, which Tune begins again, so that none is handed out twice."""
        desk, group = DESKS[self.place]
        self.names = {i: n for i, n in read_json(checkpoint_path).items() if n in group}
        for name in self.names.values():
            desk.begin(name)


def config_of(trial: Trial) -> dict[str, Any]:
    """Return what Tune and its loggers are told of a trial; leave the trial itself in its folder, for its worker.

    Tune writes the configs of all trials again and again: a few words each.
    """
    leave_job(trial)
    choice = {n: getattr(trial, n) for n in ("selector", "budget", "seed", "variant")}
    training = {n: getattr(trial.train, n) for n in ("model", "threads", "use_gpu")}
    words = choice | {"name": trial.name, "folder": trial.folder, "train": training}
    return choice | {"trial": json.dumps(words)}
