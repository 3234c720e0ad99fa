"""The answer of a run: one row a selector, pick rule, budget and fine-tune, with what it reached and what it cost.

Terminal, report and files show these rows; `answer_columns.py` says what each column is. None: not known, and `unknown`
says why.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...evaluate.statistics.interval import Interval
from .costs import Choosing, Costs
from .data import FULL, RANDOM, ReportData, Trial
from .economics import break_even, dominators, relative_cost, reuses
from .headline import Row


@dataclass(frozen=True)
class Price:
    """What a choice cost, in device-seconds; `parts` of T_sel by name, `alone` T_sel, `split` with shared ones divided."""

    parts: dict[str, float | None]
    alone: float | None
    split: float | None
    training: float | None
    answering: float | None
    scoring_cpu: float | None = None
    reads: int | None = None

    @property
    def whole(self) -> float | None:
        """T_sel + T_sub."""
        return None if self.alone is None or self.training is None else self.alone + self.training


@dataclass(frozen=True)
class Answer:
    """A headline's row with its price; `c`: PRISM's cost beside training on everything, under 1 where it pays.

    `per_row`: seconds of training a row, of all its selector's budgets together. `dominated_by`: the choice that costs no
    more and reaches no less; "" on the front.
    """

    row: Row
    rule: str
    price: Price
    full: float | None
    c: Interval | None
    per_row: float | None
    break_even: int | None
    reuses: int | None
    dominated_by: str = ""
    on_front: bool = False
    unknown: str = ""

    @property
    def of_full(self) -> float | None:
        """(T_sel + T_sub) / T_full."""
        return self.price.whole / self.full if self.price.whole is not None and self.full else None

    @property
    def name(self) -> str:
        """The choice in words: `less at 10%`."""
        return choice_name(self.row)


def choice_name(row: Row) -> str:
    """Return a choice in words: `less at 10%`."""
    return f"{row.name} at {row.budget}"


def answers(rows: list[Row], data: ReportData) -> list[Answer]:
    """Return the answer's rows, in the headline's order."""
    costs, seeds = data.costs, _seeds(data.trials)
    prices = [_price(row, costs, seeds) for row in rows]
    paces = _paces(rows, prices)
    full = {row.variant: price.training for row, price in zip(rows, prices, strict=True) if row.selector == FULL}
    by = dominators([p.whole for p in prices], [r.accuracy.estimate for r in rows])
    told = []
    for row, price, dominator in zip(rows, prices, by, strict=True):
        whole = full.get(row.variant)
        per_row = paces[row.selector, row.variant]
        paid = None if row.selector == FULL else whole
        known = price.whole is not None and paid is not None
        told.append(
            Answer(
                row,
                _choosing(row, costs).rule if costs else "",
                price,
                whole,
                relative_cost(row.relative.average, price.whole, paid) if known and row.relative else None,
                per_row,
                break_even(price.alone, per_row, paid, _pool(rows, costs)) if known and per_row is not None else None,
                reuses(price.alone, price.training, paid) if known else None,
                "" if dominator is None else choice_name(rows[dominator]),
                price.whole is not None and dominator is None,
                _unknown(row, price, whole, costs),
            )
        )
    return told


def _seeds(trials: list[Trial]) -> dict[tuple[str, str, str], list[int]]:
    seeds: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for trial in trials:
        seeds[trial.selector, trial.budget, trial.variant].append(trial.seed)
    return seeds


def _price(row: Row, costs: Costs | None, seeds_of: dict[tuple[str, str, str], list[int]]) -> Price:
    if costs is None:
        return Price({}, None, None, None, None)
    seeds = sorted(set(seeds_of[row.selector, row.budget, row.variant]))
    held = [costs.trials.get((row.selector, row.budget, row.variant, seed)) for seed in seeds]
    training = _mean([None if h is None or h.training is None else costs.on(h.training) for h in held])
    # answering may be on CPUs in a run whose trainings had GPUs: then it is not in the same unit, and not told
    answering = _mean([None if h is None or h.answering is None else costs.on(h.answering) for h in held])
    if row.selector in (RANDOM, FULL):
        return Price(dict.fromkeys((*_KINDS, "scoring", "picking"), 0.0), 0.0, 0.0, training, answering, 0.0, 0)
    choosing = _choosing(row, costs)
    parts: dict[str, float | None] = dict.fromkeys(_KINDS, 0.0)
    split: float | None = 0.0
    for part in choosing.parts:
        spent = costs.on(part.held, part.seconds)
        parts[part.kind] = _plus(parts[part.kind], spent)
        split = _plus(split, None if spent is None else spent / max(1, part.shared))
    for what in ("scoring", "picking"):
        parts[what] = choosing.took(what, row.budget, seeds) if costs.device else None
        split = _plus(split, parts[what])
    alone: float | None = 0.0
    for spent in parts.values():
        alone = _plus(alone, spent)
    cpu = choosing.took("scoring_cpu", row.budget, seeds)
    return Price(parts, alone, split, training, answering, cpu, choosing.reads)


_KINDS = ("training", "features", "targets")


def _choosing(row: Row, costs: Costs) -> Choosing:
    return costs.choosing.get(row.selector) or Choosing("", [])


def _paces(rows: list[Row], prices: list[Price]) -> dict[tuple[str, str], float | None]:
    """Return the seconds of training a row by (selector, fine-tune): of all budgets together."""
    spent: dict[tuple[str, str], float | None] = defaultdict(float)
    trained: dict[tuple[str, str], int] = defaultdict(int)
    for row, price in zip(rows, prices, strict=True):
        key = (row.selector, row.variant)
        spent[key], trained[key] = _plus(spent[key], price.training), trained[key] + row.rows
    return {key: None if total is None else total / max(1, trained[key]) for key, total in spent.items()}


def _pool(rows: list[Row], costs: Costs | None) -> int:
    known = costs.pool if costs else None
    return known or max(r.rows for r in rows)


def _unknown(row: Row, price: Price, full: float | None, costs: Costs | None) -> str:
    if costs is None:
        return "no config was saved, so nothing is known of what was held"
    if costs.device is None:
        return "some of the work held GPUs and some trainings did not"
    said = [f"{what} not recorded" for what, spent in price.parts.items() if spent is None]
    if price.training is None:
        said.append("training not recorded")
    if full is None and row.selector != FULL:
        said.append("no training on everything")
    elif row.relative is None and row.selector != FULL:
        said.append("the model of the whole pool is never right")
    return "; ".join(said)


def _plus(total: float | None, spent: float | None) -> float | None:
    return None if total is None or spent is None else total + spent


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def sentence(told: list[Answer]) -> str:
    """Return the answer in one sentence: what beats random, by how much, at what cost."""
    compared = [a for a in told if a.row.against_random]
    if not compared:
        return (
            "Nothing was held against random: no training on rows of a selector called random is done, or none of another "
            "at its budget."
        )
    winners = sorted((a for a in compared if _verdict(a) == "better"), key=lambda a: -_gap(a).estimate)
    if not winners:
        best = max(compared, key=lambda a: _gap(a).estimate)
        seen = best.row.against_random.detectable if best.row.against_random else None
        could = f" Its comparison would have told {100 * seen:.1f} points or more." if seen is not None else ""
        said = f"Nothing beats random here; {best.name} comes nearest ({_points(_gap(best))} points).{could}"
    else:
        parts = [f"{a.name} beats random by {_points(_gap(a))} points{_at_cost(a)}" for a in winners[:_NAMED]]
        rest = f"{len(winners) - _NAMED} other choices do, too" if len(winners) > _NAMED else "nothing else does"
        said = f"{'; '.join(parts)}; {rest}."
    losers = [a.name for a in compared if _verdict(a) == "worse"]
    if losers:
        more = f" and {len(losers) - _NAMED} more" if len(losers) > _NAMED else ""
        said += f" Worse than random: {', '.join(losers[:_NAMED])}{more}."
    return said


# choices that a sentence names
_NAMED = 3


def _verdict(told: Answer) -> Any:
    return told.row.against_random.verdict if told.row.against_random else None


def _gap(told: Answer) -> Interval:
    assert told.row.against_random is not None
    return told.row.against_random.difference


def _points(gap: Interval) -> str:
    text = f"{100 * gap.estimate:.1f}"
    if gap.bounded:
        text += f" [{100 * gap.low:.1f},\u00a0{100 * gap.high:.1f}]"
    return text.replace("-", "\u2212")


def _at_cost(told: Answer) -> str:
    return "" if told.of_full is None else f" at {told.of_full:.2f} of the full cost"
