"""The headline: one row a selector, budget and fine-tune, with its interval and what it is worth against random.

Several seeds of a choice are averaged sample by sample; questions about one picture are drawn together; p values are
adjusted for the number of comparisons. The HTML table, the plot and the terminal show these rows.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...evaluate.metrics import accuracy
from ...evaluate.statistics.bootstrap import share_interval
from ...evaluate.statistics.compare import Comparison, adjusted, compare
from ...evaluate.statistics.interval import Interval, wilson_interval
from ...evaluate.statistics.pairs import merge_clusters, read_scores
from ...evaluate.statistics.relative import Relative, relative_performance
from .data import FULL, RANDOM, ReportData, Trial

WORDS = {"better": "beats random", "worse": "worse than random", "cannot tell": "not told apart"}


@dataclass(frozen=True)
class Row:
    """`accuracy` 0…1: Wilson's 95 % for one seed and one question per picture, else a bootstrap; seconds are means."""

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
    # per cent of the whole pool's model (of the same fine-tune), where there is one that is right at all
    relative: Relative | None = None
    # what the questions are about: how many pictures
    clusters: int = 0

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
        whole = next((g for (s, _, v), g in groups.items() if (s, v) == (FULL, variant) and s != selector), None)
        by_seed = [accuracy(t).by_task for t in tables]
        share, clusters = _share(tables, seed)
        rows.append(
            Row(
                selector,
                budget,
                group[0].rows,
                len(group),
                tables[0].num_rows,
                share,
                {task: float(np.mean([b[task] for b in by_seed])) for task in sorted(by_seed[0])},
                float(np.mean([t.train_seconds for t in group])),
                compare(tables, [t.evals for t in base], seed) if base else None,
                variant,
                compare(tables, [t.evals for t in first], seed) if first else None,
                _mean([t.pictured for t in group]),
                _relative(tables, [t.evals for t in whole], seed) if whole else None,
                clusters,
            )
        )
    rows.sort(key=lambda r: (r.selector == FULL, r.rows, r.selector != RANDOM, r.selector, r.variant))
    return _adjusted(rows)


def _adjusted(rows: list[Row]) -> list[Row]:
    """Adjust p among all rows that are held against random, and among those held against the first fine-tune."""
    against_random = iter(adjusted([r.against_random for r in rows if r.against_random]))
    against_first = iter(adjusted([r.against_first for r in rows if r.against_first]))
    return [
        replace(
            r,
            against_random=next(against_random) if r.against_random else None,
            against_first=next(against_first) if r.against_first else None,
        )
        for r in rows
    ]


def _relative(tables: list[pa.Table], whole: list[pa.Table], seed: int) -> Relative | None:
    ours, theirs = _by_benchmark(tables), _by_benchmark(whole)
    if any(pc.sum(t["score"]).as_py() <= 0 for t in whole):
        return None  # nothing to be relative to; the table shows that the pool's model is never right
    return relative_performance(ours, theirs, seed)


def _by_benchmark(tables: list[pa.Table]) -> dict[str, list[pa.Table]]:
    names = {name for table in tables for name in table["benchmark"].unique().to_pylist()}
    return {name: [t.filter(pc.equal(t["benchmark"], name)) for t in tables] for name in sorted(names)}


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
    return said + data.sweep


def percent(share: float) -> str:
    """Return a share as per cent with one digit."""
    return f"{100 * share:.1f}"


def adjusted_p(row: Row) -> str:
    """Return the p of the difference to random, adjusted (Holm) for all of the table's; empty where there is none."""
    return f"{row.against_random.p_adjusted:.2g}" if row.against_random else ""


def of_whole(row: Row) -> str:
    """Return the per cent of the whole pool's score with its interval: `97.1 [95.0, 99.2]`; empty where there is none."""
    if row.relative is None:
        return ""
    share = row.relative.average
    return (
        f"{share.estimate:.1f} [{share.low:.1f},\u00a0{share.high:.1f}]" if share.bounded else f"{share.estimate:.1f}"
    )


def caveats(rows: list[Row]) -> list[str]:
    """Say what the rows' intervals do not know, each thing once."""
    compared = [r.against_random for r in rows if r.against_random]
    relative = [r.relative for r in rows if r.relative]
    return list(dict.fromkeys(note for one in [*compared, *relative] for note in one.notes))


def signed(row: Row) -> str:
    """Return the difference to random in points with its interval: `+3.1 [+0.9, +5.2]`."""
    return _points(row.against_random)


def _points(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    gap = comparison.difference
    if not gap.bounded:
        return minus(f"{100 * gap.estimate:+.1f}, no interval")
    text = f"{100 * gap.estimate:+.1f} [{100 * gap.low:+.1f},\u00a0{100 * gap.high:+.1f}]"
    return minus(text)


def minus(text: str) -> str:
    """Return a number's text with a true minus sign, which no line break splits."""
    return text.replace("-", "\u2212")


def _share(tables: list[pa.Table], seed: int) -> tuple[Interval, int]:
    """Return the accuracy's interval, and how many clusters (pictures) the questions are about."""
    scores = read_scores(tables)
    cluster_N, _ = merge_clusters(scores.keys)
    clusters, mean_N = int(cluster_N.max()) + 1, scores.mean_N
    if len(tables) == 1 and clusters == len(cluster_N) and set(np.unique(mean_N)) <= {0.0, 1.0}:
        return wilson_interval(int(mean_N.sum()), len(mean_N)), clusters
    share = share_interval(scores.scores_SN, cluster_N, seed)
    # of one picture: a share lies from 0 to 1, and no more is known
    return (share if share.bounded else Interval(share.estimate, 0.0, 1.0)), clusters
