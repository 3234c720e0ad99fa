"""What became of all trials of a sweep: done, the same as another, failed, dropped, not run. None is missing in silence."""

from dataclasses import dataclass, field
from typing import Any

from ....store.errors import BudgetSpentError, UnfinishedError
from ..config import RunConfig
from ..trial import Trial

# trials of one reason that are told by name
SHOWN = 12


@dataclass
class Outcome:
    """`done`: the trials with a result, which are in `results`; `left`: never begun, or cut off.

    `failed` and `dropped`: why, by name. `spent`: device-hours, of `limit` where there is one; `stopped`: they were not
    enough for what is left.
    """

    trials: list[Trial] = field(default_factory=list)
    done: list[Trial] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    spent: float = 0.0
    limit: float | None = None
    stopped: bool = False

    @property
    def stopped_choices(self) -> list[Trial]:
        """A trial of each choice that the search dropped, whose other seeds are done."""
        return [t for t in self.trials if t.name in self.dropped]

    def lines(self) -> list[str]:
        """Return what became of each trial that has no result, those of one reason together."""
        failed = [f"{names} failed: {why}" for why, names in _by_reason(self.failed)]
        away = _by_reason(self.dropped | dict.fromkeys(self.left, self._why()))
        return failed + [f"not run: {names}: {why}" for why, names in away]

    def notes(self, config: RunConfig) -> list[str]:
        """Return what a report says of the sweep beside its figures."""
        same = dict.fromkeys((t.name for t in self.trials if t.same_as), "trained once")
        said = [f"The same as other trials, {why}: {names}." for why, names in _by_reason(same)]
        if config.sweep.search != "grid":
            share = f"{config.sweep.rung_share:.0%} of the pictures"
            said.append(
                f"Which choices went on after each seed was decided by questions about {share}; these questions"
                + (", and the choices that were stopped," if self.dropped else "")
                + " are in no figure above."
                + ("" if self.dropped else " No choice was stopped.")
            )
        return said + [line[0].upper() + line[1:] + "." for line in self.lines()]

    def check(self) -> None:
        """Return if every trial is done, or was dropped by the search.

        Raises:
            UnfinishedError: some failed; names them.
            BudgetSpentError: `sweep.device_hours` ended it.
        """
        if self.failed:
            faults = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in self.failed.items())
            rest = f" {len(self.left):,} more were not run: {self._why()}." if self.left else ""
            raise UnfinishedError(f"trials failed: {faults}. The others are kept; run again to retry.{rest}")
        if self.left:
            raise BudgetSpentError(
                f"{len(self.left):,} of {len(self.trials):,} trials were not run: {self._why()}. The others are kept; run "
                "again with a larger sweep.device_hours to go on."
            )

    def _why(self) -> str:
        if self.stopped and self.limit is not None:
            spent = f"{self.spent:.3g} of {self.limit:g} are spent"
            return f"sweep.device_hours: {spent}, and the rest is not enough for the next"
        return "one that they wait for failed"


def _by_reason(why: dict[str, str]) -> list[tuple[str, str]]:
    """Return each reason, and whom it is of: by name, or by number where they are many."""
    names: dict[str, list[str]] = {}
    for name, reason in why.items():
        names.setdefault(reason, []).append(name)
    many = {r: f"{', '.join(n[:SHOWN])} and {len(n) - SHOWN:,} more" for r, n in names.items() if len(n) > SHOWN}
    return [(reason, many.get(reason, ", ".join(of))) for reason, of in names.items()]
