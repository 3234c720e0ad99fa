"""Which trials may begin now, and which never will: halving over seeds.

A choice is a selector at a budget (and a fine-tune); its rungs are its seeds. At each rung the choices of one budget are
ranked by their mean score so far on the questions set apart for that (`rungs.py`), all of them trained on equally many
seeds and to the last step: losses on different rows are not comparable, nor are models in the middle of a schedule. Random
and the whole pool are never dropped.

`successive`: the next seed begins when a rung is complete; one choice in `eta` goes on, and at least one. `asha` does not
wait: as soon as m choices have done a rung, the best m / eta of them may go on (Li et al. 2020, by promotion); it may let
more go on than `successive`, and never leaves a device idle.
"""

import math
from dataclasses import dataclass
from typing import Literal

State = Literal["done", "failed", "running", "begun", "open"]


@dataclass
class Entry:
    """A trial as the search sees it. `group`: the choices that are ranked together; `rung`: the number of its seed.

    `begun`: something of its training is there, so that it goes on whatever the others reach. `score`: None until it is
    done.
    """

    name: str
    choice: str
    group: str
    rung: int
    base: bool = False
    state: State = "open"
    score: float | None = None


@dataclass
class Ready:
    """`begin`: trials that may begin, the first one first; `dropped`: those that will not, and why."""

    begin: list[str]
    dropped: dict[str, str]


def ready(entries: list[Entry], search: str, eta: int) -> Ready:
    """Say what may begin; `entries` in the order in which they are to run."""
    waiting = [e for e in entries if e.state in ("open", "begun")]
    if search == "grid":
        return Ready([e.name for e in waiting], {})
    allowed: dict[str, int] = {}
    dropped: dict[str, str] = {}
    for group in dict.fromkeys(e.group for e in entries if not e.base):
        _halve([e for e in entries if e.group == group and not e.base], search, eta, allowed, dropped)
    may = [e for e in waiting if e.base or e.state == "begun" or e.name in allowed]
    # what was promoted goes before what begins anew
    first = sorted(may, key=lambda e: -allowed.get(e.name, 0)) if search == "asha" else may
    return Ready([e.name for e in first], {n: w for n, w in dropped.items() if n not in {e.name for e in may}})


def _halve(entries: list[Entry], search: str, eta: int, allowed: dict[str, int], dropped: dict[str, str]) -> None:
    """Go up the rungs of one budget's choices."""
    rungs = {k: {e.choice: e for e in entries if e.rung == k} for k in sorted({e.rung for e in entries})}
    numbers = list(rungs)
    here, whole, settled = list(rungs[numbers[0]]), len(rungs[numbers[0]]), True
    for depth, rung in enumerate(numbers):
        allowed |= {rungs[rung][c].name: depth for c in here if c in rungs[rung]}
        if depth + 1 == len(numbers):
            return
        done = [c for c in here if c in rungs[rung] and rungs[rung][c].state == "done"]
        settled = settled and all(c in rungs[rung] and rungs[rung][c].state in ("done", "failed") for c in here)
        seen = numbers[: depth + 1]
        reached = {c: _mean([rungs[k][c].score for k in seen if c in rungs[k]]) for c in done}
        ranked = sorted(done, key=lambda c: -reached[c])  # ties as they were listed
        keep = max(1, math.ceil(whole / eta ** (depth + 1)))
        up = ranked[:keep] if settled else ranked[: min(keep, len(done) // eta)] if search == "asha" else []
        later = rungs[numbers[depth + 1]]
        up += [c for c in done if c not in up and c in later and later[c].state in ("begun", "running", "done")]
        if settled:
            for c in (c for c in ranked if c not in up):
                behind = 100 * (reached[ranked[0]] - reached[c])
                why = (
                    f"stopped after {depth + 1} of {len(numbers)} seeds: {behind:.1f} points behind {ranked[0]}, the best "
                    f"of {len(ranked)}, on the questions set apart for that"
                )
                dropped |= {rungs[k][c].name: why for k in numbers[depth + 1 :] if c in rungs[k]}
        here = up


def most(choices: int, seeds: int, eta: int) -> int:
    """Return how many trials `successive` runs of a budget with so many choices, beside those that always run."""
    return sum(max(1, math.ceil(choices / eta**k)) if choices else 0 for k in range(seeds))


def _mean(scores: list[float | None]) -> float:
    known = [s for s in scores if s is not None]
    return sum(known) / len(known) if known else -math.inf
