"""The headline: one row a selector, budget and fine-tune, with its interval and what it is worth against random.

Several seeds of a choice are averaged sample by sample. The HTML table, the plot and the terminal show these
rows.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...evaluate.metrics import accuracy
from ...evaluate.statistics import (
    Comparison,
    Interval,
    compare,
    mean_scores,
    paired_bootstrap,
    wilson_interval,
)
from .data import FULL, RANDOM, ReportData, Trial

WORDS = {"better": "beats random", "worse": "worse than random", "no clear difference": "not told apart"}


@dataclass(frozen=True)
class Row:
    """`accuracy` 0…1: Wilson's 95 % for one seed, a bootstrap of samples for several; seconds are means."""

    selector: str
    budget: str
    rows: int
    seeds: int
    questions: int
    accuracy: Interval
    by_task: dict[str, float]
    seconds: float
    against_random: Comparison | None
    variant: str = ""
    # of several fine-tunes of one choice: against the one whose name comes first
    against_first: Comparison | None = None
    # accuracy on the questions with a picture, where others have none
    pictured: float | None = None

    @property
    def name(self) -> str:
        """The selector, and the fine-tune where there are several."""
        return f"{self.selector}, {self.variant}" if self.variant else self.selector

    @property
    def word(self) -> str:
        """What the comparison says, in plain words; empty where there is none."""
        return WORDS[self.against_random.verdict] if self.against_random else ""


def headline(trials: list[Trial], seed: int = 0) -> list[Row]:
    """Return the rows, smallest budget first, random before the others, the whole pool last.

    Raises:
        InputError: two trials answered different test samples.
    """
    groups: dict[tuple[str, str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.selector, trial.budget, trial.variant].append(trial)
    variants = sorted({t.variant for t in trials})
    rows = []
    for (selector, budget, variant), group in groups.items():
        tables = [t.evals for t in group]
        base = groups.get((RANDOM, budget, variant)) if selector != RANDOM else None
        first = groups.get((selector, budget, variants[0])) if variant != variants[0] else None
        by_seed = [accuracy(t).by_task for t in tables]
        rows.append(
            Row(
                selector,
                budget,
                group[0].rows,
                len(group),
                tables[0].num_rows,
                _interval(tables, seed),
                {task: float(np.mean([b[task] for b in by_seed])) for task in sorted(by_seed[0])},
                float(np.mean([t.train_seconds for t in group])),
                compare(tables, [t.evals for t in base], seed) if base else None,
                variant,
                compare(tables, [t.evals for t in first], seed) if first else None,
                _mean([t.pictured for t in group]),
            )
        )
    return sorted(rows, key=lambda r: (r.selector == FULL, r.rows, r.selector != RANDOM, r.selector, r.variant))


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def findings(rows: list[Row], data: ReportData) -> list[str]:
    """Say in sentences what the headline shows."""
    said = []
    for full in (r for r in rows if r.selector == FULL and data.majority):
        assert data.majority is not None
        gap = 100 * (full.accuracy.estimate - data.majority.overall)
        said.append(
            f"The whole pool ({full.rows:,} rows{f', {full.variant}' if full.variant else ''}) reaches "
            f"{percent(full.accuracy.estimate)} %, "
            f"{minus(f'{gap:+.1f}')} points against always giving each task's commonest answer "
            f"({percent(data.majority.overall)} %)."
        )
    for budget in dict.fromkeys(r.budget for r in rows if r.against_random):
        parts = [f"{r.name}: {r.word} ({signed(r)})" for r in rows if r.budget == budget and r.against_random]
        said.append(f"At {budget}: {'; '.join(parts)}.")
    beside = [r for r in rows if r.against_first]
    if beside:
        first = next(r.variant for r in rows if not r.against_first)
        parts = [f"{r.variant} at {r.selector} {r.budget} ({_points(r.against_first)})" for r in beside]
        said.append(f"On the same rows, against {first}: {'; '.join(parts)}.")
    return said


def percent(share: float) -> str:
    """Return a share as per cent with one digit."""
    return f"{100 * share:.1f}"


def signed(row: Row) -> str:
    """Return the difference to random in points with its interval: `+3.1 [+0.9, +5.2]`."""
    return _points(row.against_random)


def _points(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    gap = comparison.difference
    text = f"{100 * gap.estimate:+.1f} [{100 * gap.low:+.1f},\u00a0{100 * gap.high:+.1f}]"
    return minus(text)


def minus(text: str) -> str:
    """Return a number's text with a true minus sign, which no line break splits."""
    return text.replace("-", "\u2212")


def _interval(tables: list[pa.Table], seed: int) -> Interval:
    scores_N = mean_scores(tables)[1]
    if len(tables) == 1 and set(np.unique(scores_N)) <= {0.0, 1.0}:
        return wilson_interval(int(scores_N.sum()), len(scores_N))
    return paired_bootstrap(scores_N, np.zeros(len(scores_N)), seed)
