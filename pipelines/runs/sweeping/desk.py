"""The desk from which a sweep's trials are handed out: what is done, what runs, what may begin next.

All that it decides follows from the trials' folders: one that is made anew after a kill decides the same.
"""

from typing import Any

from ....store.files import exists, join
from ....store.folders import is_folder
from ..config import RunConfig
from ..trial import Trial
from ..watch import RESULT
from .hours import Purse
from .order import is_base
from .rungs import score_of
from .same import answers_of, tell_same
from .search import Entry, Ready, ready


class Desk:
    """Hands out the trials of a run, `trials` in the order in which they are to run.

    `failed`: why some ended without a result, by name. `stopped`: what is left of `sweep.device_hours` was not enough for
    the next one.
    """

    def __init__(self, config: RunConfig, trials: list[Trial]) -> None:
        self.config, self.trials = config, trials
        self.by_name = {t.name: t for t in trials}
        self.failed: dict[str, str] = {}
        self.stopped = False
        self._running: set[str] = set()
        self._seeds = {seed: number for number, seed in enumerate(config.seeds)}
        tell_same(trials)
        self._entries = [self._entry(t) for t in trials]
        self._followers: dict[str, list[str]] = {}
        for trial in trials:
            self._followers.setdefault(trial.same_as or trial.name, []).append(trial.name)
        self._places = {e.name: number for number, e in enumerate(self._entries)}
        self.purse = Purse(config, [t for t in trials if is_folder(join(t.folder, "train"))])

    @property
    def open(self) -> list[Trial]:
        """The trainings that are not done, each once."""
        return [t for t, e in zip(self.trials, self._entries, strict=True) if e.state != "done" and not t.same_as]

    @property
    def done(self) -> list[Trial]:
        """The trials that have a result."""
        return [t for t in self.trials if exists(join(t.folder, RESULT))]

    def look(self) -> Ready:
        """Say what may begin now."""
        sweep = self.config.sweep
        return ready(self._entries, sweep.search, sweep.eta)

    def next(self, group: set[str]) -> Trial | None:
        """Hand out the next trial of this group; None where none may begin now (`waits` says whether one may later)."""
        for name in self.look().begin:
            trial = self.by_name[self.by_name[name].same_as or name]
            if trial.name not in group:
                continue
            if not self.purse.allows(trial):
                self.stopped = True
                return None
            self.begin(trial.name)
            return trial
        return None

    def begin(self, name: str) -> None:
        """Take note that a trial runs."""
        self._running.add(name)
        self._put(name, "running")

    def waits(self, group: set[str]) -> bool:
        """Say whether a trial of this group runs, after which others may begin."""
        return bool(self._running & group)

    def ended(self, name: str, fault: str | None) -> None:
        """Take note of a trial that has ended: with a result, or by a fault."""
        self._running.discard(name)
        trial = self.by_name[name]
        self.purse.ended(trial)
        if fault is None and exists(join(trial.folder, RESULT)):
            followers = [self.by_name[n] for n in self._followers.get(name, [])]
            tell_same([trial, *followers])
            for follower in [trial, *followers]:
                self._entries[self._places[follower.name]] = self._entry(follower)
        else:
            self.failed[name] = fault or "it ended without a result"
            self._put(name, "failed")

    def _put(self, name: str, state: Any) -> None:
        for follower in self._followers.get(name, []):
            self._entries[self._places[follower]].state = state

    def _entry(self, trial: Trial) -> Entry:
        group = "|".join((trial.budget, trial.variant))
        choice = f"{trial.selector}, {trial.variant}" if trial.variant else trial.selector
        rung = self._seeds.get(trial.seed, 0)
        entry = Entry(trial.name, choice, group, rung, is_base(trial.selector))
        if exists(join(trial.folder, RESULT)):
            entry.state = "done"
            if self.config.sweep.search != "grid" and not entry.base:
                entry.score = score_of(answers_of(trial), self.config.sweep.rung_share)
        elif is_folder(join(trial.folder, "train")):
            entry.state = "begun"
        return entry
