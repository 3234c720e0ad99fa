"""The headline: one row a selector, budget and fine-tune, with its interval and what it is worth against random.

Several seeds of a choice are averaged sample by sample; questions about one picture belong together; how much seeds
differ is pooled over the choices of a budget; p values are adjusted for the number of comparisons. The HTML table, the plot
and the terminal show these rows. Axes: R trials, N questions, S seeds.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...evaluate.metrics import accuracy
from ...evaluate.statistics.compare import FEW, Comparison, adjusted, compare_pairs, notes
from ...evaluate.statistics.interval import Interval, wilson_interval
from ...evaluate.statistics.levels import Spread, Sums, mean, spread_of, sums_of
from ...evaluate.statistics.pairs import Pairs, merge_clusters, read_scores
from ...evaluate.statistics.relative import Relative, relative_of
from ...store.arrays import Array
from ...store.errors import InputError
from .data import FULL, RANDOM, ReportData, Trial

# selector, budget, variant
Cell = tuple[str, str, str]
WORDS = {"better": "beats random", "worse": "worse than random", "cannot tell": "not told apart"}


@dataclass(frozen=True)
class Row:
    """`accuracy` 0…1: Wilson's 95 % for one seed and one question per picture, else by `levels`; seconds are means."""

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
    # the trainings that its seeds are, where that is known: choices of the same rows share them
    trained: frozenset[str] = frozenset()

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
        InputError: two trials answered different test samples, or were scored by other benchmarks.
    """
    if not trials:
        return []
    answered = _Answered(trials)
    groups = answered.groups
    variants = sorted({t.variant for t in trials})
    rows = []
    for cell, numbers in groups.items():
        (selector, budget, variant), group = cell, [trials[n] for n in numbers]
        base = (RANDOM, budget, variant) if selector != RANDOM else cell
        first = (selector, budget, variants[0])
        whole = next((c for c in groups if (c[0], c[2]) == (FULL, variant) and c[0] != selector), None)
        by_seed = [accuracy(t.evals).by_task for t in group]
        rows.append(
            Row(
                selector,
                budget,
                group[0].rows,
                len(group),
                len(answered.names_N),
                answered.share(cell),
                {task: float(np.mean([b[task] for b in by_seed])) for task in sorted(by_seed[0])},
                float(np.mean([t.train_seconds for t in group])),
                answered.against(cell, base, answered.spreads[budget, variant], seed) if base != cell else None,
                variant,
                answered.against(cell, first, None, seed) if first != cell else None,
                _mean([t.pictured for t in group]),
                answered.relative(cell, whole) if whole else None,
                answered.clusters,
                frozenset(t.trained_as for t in group) if all(t.trained_as for t in group) else frozenset(),
            )
        )
    rows.sort(key=lambda r: (r.selector == FULL, r.rows, r.selector != RANDOM, r.selector, r.variant))
    return _adjusted(rows)


class _Answered:
    """All trials' answers side by side: read, paired and added up once."""

    def __init__(self, trials: list[Trial]) -> None:
        scores = read_scores([t.evals for t in trials])
        _refuse_other_benchmarks(trials)
        self.trials, self.names_N, self._scores_RN = trials, scores.names_N, scores.scores_SN
        self._cluster_N, self._unknown = merge_clusters(scores.keys)
        self.clusters = int(self._cluster_N.max()) + 1
        groups: dict[Cell, list[int]] = defaultdict(list)
        for number in sorted(range(len(trials)), key=lambda n: trials[n].seed):
            t = trials[number]
            groups[t.selector, t.budget, t.variant].append(number)
        self.groups = dict(groups)
        self._sums = {cell: sums_of(self._scores_RN[numbers], self._cluster_N) for cell, numbers in self.groups.items()}
        beside: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        for cell in self.groups:
            beside[cell[1], cell[2]].append(cell)
        self.spreads = {key: self.spread(cells) for key, cells in beside.items()}
        # each benchmark's questions
        of_N = np.array(trials[0].evals["benchmark"].to_pylist(), np.str_)
        of_N = of_N[np.argsort(np.array(trials[0].evals["sample"].to_pylist(), np.str_), kind="stable")]
        self._benchmarks = {name: np.flatnonzero(of_N == name) for name in np.unique(of_N).tolist()}

    def spread(self, cells: Sequence[Cell]) -> Spread | None:
        """Return how much seeds differ, over these cells together."""
        # a choice that is another one again (the same rows, trained alike) says nothing of its own
        apart = {self._sums[cell].sums_SC.tobytes(): cell for cell in reversed(cells)}.values()
        seeds = {tuple(self.trials[n].seed for n in self.groups[cell]) for cell in apart}
        return spread_of([self._sums[cell].means_S for cell in apart], matched=len(seeds) == 1)

    def share(self, cell: Cell) -> Interval:
        """Return a cell's accuracy."""
        sums, mean_N = self._sums[cell], self._scores_RN[self.groups[cell]].mean(0)
        alone = len(sums.sums_SC) == 1 and self.clusters == len(mean_N)
        if alone and set(np.unique(mean_N)) <= {0.0, 1.0}:
            return wilson_interval(int(mean_N.sum()), len(mean_N))
        told = mean(sums, self.spreads[cell[1], cell[2]]).interval(sums.mean)
        # a share lies from 0 to 1, and of one picture no more is known
        highest = max(1.0, float(self._scores_RN.max()))
        return Interval(told.estimate, max(0.0, told.low), min(highest, told.high))

    def against(self, cell: Cell, other: Cell, spread: Spread | None, seed: int) -> Comparison | None:
        """Return a cell held against another one, None where that is not there; without a `spread`, by that of the two."""
        if other not in self.groups:
            return None
        spread = spread or self.spread([cell, other])
        ours, theirs = (self._scores_RN[self.groups[c]] for c in (cell, other))
        pairs = Pairs(self.names_N, ours, theirs, self._cluster_N, self._unknown)
        return compare_pairs(pairs, seed, spread, (self._sums[cell], self._sums[other]))

    def relative(self, cell: Cell, whole: Cell) -> Relative | None:
        """Return a cell's performance relative to the whole pool's model; None where that is never right."""
        alone = len(self._benchmarks) == 1
        sums = {name: (self._sums[cell], self._sums[whole]) if alone else self._part(cell, whole, rows_n)
                for name, rows_n in self._benchmarks.items()}  # fmt: skip
        if any(w.means_S.min() <= 0 for _, w in sums.values()):
            return None  # nothing to be relative to; the table shows that the pool's model is never right
        seeds = (len(self.groups[cell]), len(self.groups[whole]))
        spread = self.spreads[cell[1], cell[2]]
        told = notes(len(self.names_N), self.clusters, seeds, self._unknown, FEW if max(seeds) > 1 else None)
        return relative_of(sums, told, spread)

    def _part(self, cell: Cell, whole: Cell, rows_n: Array) -> tuple[Sums, Sums]:
        """Return the sums of one benchmark's questions."""
        cluster_n = np.unique(self._cluster_N[rows_n], return_inverse=True)[1]
        ours, theirs = (sums_of(self._scores_RN[np.ix_(self.groups[c], rows_n)], cluster_n) for c in (cell, whole))
        return ours, theirs


def _refuse_other_benchmarks(trials: list[Trial]) -> None:
    first = trials[0].evals["benchmark"]
    for t in trials[1:]:
        if not t.evals["benchmark"].equals(first):
            ours, theirs = (", ".join(sorted(set(c.to_pylist()))) for c in (t.evals["benchmark"], first))
            if ours != theirs:
                raise InputError(
                    f"{t.selector} {t.budget} was scored by other benchmarks ({ours} against {theirs}): no pairs."
                )


def _adjusted(rows: list[Row]) -> list[Row]:
    """Adjust p among all rows that are held against random, and among those held against the first fine-tune.

    Choices that are the same trainings are one comparison, not several.
    """
    against_random = _once([(r, r.against_random) for r in rows])
    against_first = _once([(r, r.against_first) for r in rows])
    pairs = zip(rows, against_random, against_first, strict=True)
    return [replace(r, against_random=one, against_first=other) for r, one, other in pairs]


def _once(compared: list[tuple[Row, Comparison | None]]) -> list[Comparison | None]:
    """Return the comparisons with p adjusted, those of the same trainings counted once."""
    keys = [(r.budget, r.variant, r.trained) if r.trained else (r.selector, r.budget, r.variant) for r, _ in compared]
    there = {key: c for key, (_, c) in reversed(list(zip(keys, compared, strict=True))) if c is not None}
    told = dict(zip(there, adjusted(list(there.values())), strict=True))
    return [None if c is None else told[key] for key, (_, c) in zip(keys, compared, strict=True)]


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
