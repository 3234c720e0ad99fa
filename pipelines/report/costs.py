"""What a run's choices cost, of what its stages and trials recorded: seconds × the devices that were held.

A selector is priced as if it were alone: what it shares with others (a proxy, a feature that two read) counts whole. Ray
gives the stage of picks nothing: its seconds are those of one process.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...store.files import join
from ...store.manifest import StageRecord
from ...store.reading import with_fields
from ..runs.choices import FULL
from ..runs.config import RunConfig, SelectorSection
from ..runs.select_stage import Select, read_by
from ..runs.stage import Held, Stage
from ..runs.sweeping.hours import split

Device = Literal["GPU", "CPU"]
# the yardstick, which chooses without looking: its T_sel is nothing
RANDOM = "random"
# of a selector's price: the part, and how its stages' names begin
PARTS = {"training": "proxy", "features": "features-", "targets": "targets-"}


@dataclass(frozen=True)
class Part:
    """A stage that a selector needs: its seconds by the clock, and device-seconds, None where it was not recorded.

    `shared`: how many of the run's selectors need it. `reads`: bytes on disk that the selector reads, where it leaves some.
    """

    stage: str
    kind: str
    held: Held | None
    seconds: float | None
    shared: int
    starts: int = 1
    reads: int | None = None


@dataclass(frozen=True)
class Choosing:
    """What a selector (by its label) needs, and what scoring and picking took: (budget, seed) → seconds."""

    rule: str
    parts: list[Part]
    seconds: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)

    @property
    def reads(self) -> int | None:
        """Bytes of features that it reads; None where some are not recorded."""
        return _sum(p.reads for p in self.parts if p.kind != "training")

    def took(self, what: str, budget: str, seeds: Iterable[int]) -> float | None:
        """Return the mean seconds of `scoring`, `scoring_cpu`, `picking` over seeds; None where one is not known."""
        known = [self.seconds.get((budget, seed), {}).get(what) for seed in seeds]
        total = _sum(known)
        return None if total is None or not known else total / len(known)


@dataclass(frozen=True)
class Trained:
    """What one trial held, in device-seconds, to train and to answer; None where it was not recorded."""

    training: Held | None
    answering: Held | None
    same_as: str = ""


@dataclass
class Costs:
    """A run's costs. `device`: what seconds are counted of; None where some trainings had GPUs and some had none."""

    device: Device | None
    choosing: dict[str, Choosing]
    trials: dict[tuple[str, str, str, int], Trained]
    pool: int | None = None
    notes: list[str] = field(default_factory=list)

    def on(self, held: Held | None, seconds: float | None = None) -> float | None:
        """Return device-seconds: of a stage that held no GPU in a run on GPUs, its seconds by the clock: one GPU waits."""
        if held is None or self.device is None:
            return None
        if self.device == "CPU":
            return held.cpu
        return held.gpu if held.gpu else seconds


def gather_costs(
    config: RunConfig | None, stages: Sequence[Stage], records: Sequence[StageRecord], results: list[dict[str, Any]]
) -> Costs | None:
    """Return the costs of a run; None where it did not save its config."""
    if config is None:
        return None
    by_name, recorded = {s.name: s for s in stages}, {r.name: r for r in records}
    trials = {}
    for r in results:
        key = (str(r["selector"]), str(r["budget"]), str(r.get("variant") or ""), int(r["seed"]))
        trials[key] = _trained(config, r)
    needs = {s.label: _chosen_by(s, by_name) for s in config.selectors}
    users = {name: sum(name in needed for needed in needs.values()) for name in by_name}
    seconds = _select_seconds(config, recorded)
    choosing = {
        s.label: Choosing(
            "" if s.pick is None else s.pick.rule,
            [_part(by_name[n], recorded.get(n), users[n]) for n in needs[s.label]],
            {(b, seed): took for (label, b, seed), took in seconds.items() if label == s.label},
        )
        for s in config.selectors
    }
    pool = recorded.get("ingest-pool")
    costs = Costs(
        _device(trials.values(), choosing.values()), choosing, trials, None if pool is None else pool.facts.get("rows")
    )
    costs.notes = _notes(config, costs, recorded)
    return costs


def _chosen_by(section: SelectorSection, stages: dict[str, Stage]) -> list[str]:
    """Return the stages that a selector needs and that training on everything would not: in the order of the run."""
    waiting, seen = list(read_by(section)), set[str]()
    while waiting:
        name = waiting.pop()
        if name in stages and name not in seen:
            seen.add(name)
            waiting += stages[name].needs
    return [name for name in stages if name in seen and stages[name].choosing]


def _part(stage: Stage, record: StageRecord | None, shared: int) -> Part:
    kind = next((kind for kind, start in PARTS.items() if stage.name.startswith(start)), "training")
    if record is None:
        return Part(stage.name, kind, None, None, shared)
    hours, size = stage.held(record, []), record.facts.get("bytes")
    held = None if hours is None else hours.times(3600)
    return Part(stage.name, kind, held, record.seconds, shared, record.starts, size)


def _trained(config: RunConfig, result: dict[str, Any]) -> Trained:
    training, answering = (held.times(3600) for held in split(config, result))
    # a result of before answering was timed
    known = result.get("eval_seconds") is not None
    return Trained(training, answering if known else None, str(result.get("same_as") or ""))


def _select_seconds(config: RunConfig, records: dict[str, StageRecord]) -> dict[tuple[str, str, int], dict[str, float]]:
    record = records.get("select")
    if record is None:
        return {}
    path = join(config.out, "stages", "select.json")
    kinds = {"seconds": dict[str, dict[str, float]] | None}
    told = with_fields(record.facts, kinds, path, "manifest of picks", "Delete it and run again.")["seconds"] or {}
    parts = {key: key.split("|") for key in told}
    return {(label, budget, int(seed)): told[key] for key, (label, budget, seed) in parts.items()}


def _device(trials: Iterable[Trained], choosing: Iterable[Choosing]) -> Device | None:
    kinds: set[Device] = {"GPU" if t.training.gpu else "CPU" for t in trials if t.training is not None}
    # trainings without a GPU beside features that had one: there is no one unit
    if kinds == {"CPU"} and any(p.held is not None and p.held.gpu for c in choosing for p in c.parts):
        return None
    return next(iter(kinds)) if len(kinds) == 1 else None


def _notes(config: RunConfig, costs: Costs, records: dict[str, StageRecord]) -> list[str]:
    """Say what the seconds do not know, each thing once."""
    said = []
    if costs.trials and costs.device is None:
        said.append(
            "Some of the work held GPUs, and some trainings did not: seconds cannot be added up, and costs are left out."
        )
    if costs.trials and not any(selector == FULL for selector, *_ in costs.trials):
        said.append(
            "The run has no training on everything (sweep.full): there is nothing to hold a cost against, so C, break-even "
            "and reuses are left out."
        )
    several = [f"{name} ({r.starts})" for name, r in records.items() if r.starts > 1]
    if several:
        said.append(
            f"Done in several starts, whose seconds are added up: {', '.join(several)}. An attempt that was cut off is in "
            "none of them, so these may have taken more."
        )
    again = sum(bool(t.same_as) for t in costs.trials.values())
    if again:
        said.append(
            f"{again} trials are others again (the same rows, trained alike): each is priced as if it had been trained."
        )
    silent = sorted(label for label, c in costs.choosing.items() if label != RANDOM and _is_silent(c))
    if silent and Select(config).name in records:
        said.append(
            f"What scoring took is not known of {', '.join(silent)}: an older version, or nothing, picked for them."
        )
    if config.warmup:
        said.append("The warm-up is no price of choosing: what is trained on everything begins with its model, too.")
    return said


def _is_silent(choosing: Choosing) -> bool:
    return not choosing.seconds or any("scoring" not in took for took in choosing.seconds.values())


def _sum(values: Iterable[float | None]) -> Any:
    """Return the sum; None where one is not known."""
    known = list(values)
    return None if any(v is None for v in known) else sum(v for v in known if v is not None)
