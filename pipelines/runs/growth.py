"""What another config means for a run that has begun: what it adds, what it takes away, and what it would have to redo.

A run's stages say of each thing that they make from which fields its numbers follow (`Item`). Two configs are compared by
that: a thing that only the later one has is new work; one that both have, with other fields or made of something that
changes, would be made anew. All other fields only say where and how fast a run goes, and are free.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .config import RunConfig
from .identity import differences
from .stage import Item, State
from .stages import stages_of

# a longer test set adds questions; whether it is one is seen when it is ingested
TEST = "ingest-test"
_WORDS = {"picks": "picks of {n} choice{s}", "trial": "{n} trial{s}", "answers": "answers of {n} trial{s}"}


@dataclass
class Growth:
    """`added`, `removed`, `redone`: items by stage, in the order of stages; `why`: the fields that redo them.

    `longer`: the test set is another one.
    """

    added: dict[str, list[str]] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)
    redone: dict[str, list[str]] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)
    longer: bool = False

    def lines(self) -> list[str]:
        """Return what is new and what is not told of any more, for the terminal."""
        lines = [f"new in this run: {counted(self.added)}"] if self.added else []
        if self.removed:
            lines.append(f"no part of this run any more: {counted(self.removed)}; what there is of it stays on disk")
        return lines


def compare(before: RunConfig, now: RunConfig, states: dict[str, State], history: Sequence[RunConfig] = ()) -> Growth:
    """Hold the config that a run has against another; `states`: the items of which something is there.

    `history`: the run's configs before that, oldest first: what one of them made, and later ones do not name, is there too.
    """
    growth, changed = Growth(), dict[str, list[str]]()
    told = {item.key for _, item in _items(before)}
    old = {item.key: item for config in (*history, before) for _, item in _items(config)}
    new = {item.key: item for _, item in _items(now)}
    for stage, item in _items(now):
        if item.key not in told:
            growth.added.setdefault(stage, []).append(item.key)
        if item.key not in old:
            continue
        why = _why(old[item.key], item, states.get(item.key))
        upstream = any(n in changed for n in item.needs)
        if item.key == TEST and why and item.key in states:
            growth.longer = True
        elif why or upstream:
            changed[item.key] = why
            if item.key in states:
                growth.redone.setdefault(stage, []).append(item.key)
    growth.why = list(dict.fromkeys(line for lines in changed.values() for line in lines))
    for stage, item in _items(before):
        if item.key not in new:
            growth.removed.setdefault(stage, []).append(item.key)
    return growth


def counted(items: dict[str, list[str]]) -> str:
    """Return stages by name, with the number of picks or trials where it is of those."""
    said = []
    for stage, keys in items.items():
        kinds = Counter(key.partition(" ")[0] for key in keys if " " in key)
        if kinds["answers"] == kinds["trial"]:  # each trained, and asked
            del kinds["answers"]
        words = [_WORDS[kind].format(n=n, s="s" if n > 1 else "") for kind, n in kinds.items()]
        said.append(f"{stage} ({', '.join(words)})" if words else stage)
    return ", ".join(said)


def _items(config: RunConfig) -> list[tuple[str, Item]]:
    return [(stage.name, item) for stage in stages_of(config) for item in stage.items()]


def _why(before: Item, now: Item, state: State | None) -> list[str]:
    why = differences(before.settings, now.settings)
    if set(before.needs) != set(now.needs):
        why.append(f"{now.key} is made of: was {', '.join(before.needs)}, is {', '.join(now.needs)}")
    return why + (differences(before.pace, now.pace) if state == "under way" else [])
