"""The explorer's sections of a report: plain values for their templates, or None where there is nothing to show."""

import math
from typing import Any

import numpy as np

from ..data import ReportData
from ..headline import Row
from ..markup import Cell, Table
from .overlap import DEPTH, MEASURES, Ranked, Shared
from .shares import Shares

Values = dict[str, Any]
# a share ÷ the pool's at which a cell's colour is strongest, up or down
STRONG = 4.0


def overlap_section(data: ReportData, rows: list[Row]) -> Values | None:
    """Matrices of what selectors share by budget, and of how they rank the pool."""
    overlap = data.explored.overlap if data.explored else None
    if overlap is None:
        return None
    budgets = []
    for budget, pairs in overlap.pairs.items():
        tables = [_matrix(f"{what}, at {budget}", pairs, measure) for what, measure in MEASURES.items() if pairs]
        if overlap.seeds[budget]:
            tables.append(_seeds(budget, overlap.seeds[budget]))
        if tables:
            budgets.append((budget, tables))
    ranks = [_ranks("Spearman's ρ of the scores", overlap.ranks, lambda r: r.spearman)]
    ranks.append(_ranks("Kendall's τ-b of the scores", overlap.ranks, lambda r: r.kendall))
    compared = [r for r in overlap.ranks if r.kendall_rows]
    note = ""
    if compared:
        note = (
            f"Over the rows that both scored (up to {max(r.rows for r in compared):,}); τ over "
            f"{min(r.kendall_rows for r in compared):,} of them, drawn with seed 0. Two selectors that have nothing to do "
            "with each other have 0."
        )
    weight = f"Its weights fall so that the first {1 / DEPTH:.0%} of a choice have 85 % of them"
    return {"budgets": budgets, "ranks": ranks if overlap.ranks else [], "rank_note": note, "weight": weight}


def shares_section(data: ReportData, rows: list[Row]) -> Values | None:
    """Tables of counts and of the share taken ÷ the share in the pool, by property and budget."""
    if data.explored is None or not data.explored.shares:
        return None
    return {"properties": [(one.what, [_shares(one, budget) for budget in one.taken]) for one in data.explored.shares]}


def map_section(data: ReportData, rows: list[Row]) -> Values | None:
    """What is said of the map; its points are in the explorer's data."""
    explorer = data.explored.explorer if data.explored else None
    if explorer is None or explorer.map is None:
        return None
    drawn = explorer.map
    first, second = (f"{100 * share:.1f}" for share in drawn.explained)
    facts = [
        f"Each point is a row: its feature {drawn.feature} at checkpoint {drawn.step}, on the two directions in which the "
        f"vectors of {drawn.axes:,} rows, drawn with seed 0, differ most. They hold {first} % (across) and {second} % (up) "
        "of the variance: what is near here may be far apart in the other directions.",
        f"Shown are {explorer.said_of_points}.",
    ]
    if drawn.every > 1:
        facts.append(f"Of the store, which is too large for a page, each {drawn.every}th file was read.")
    if drawn.lacking:
        why = (
            "they are text-only, were refused, or lie in other files"
            if drawn.every > 1
            else "text-only rows, refused ones"
        )
        facts.append(f"{drawn.lacking:,} of them have no such feature here ({why}) and no place.")
    if drawn.outside:
        facts.append(f"{drawn.outside:,} lie beyond the edge and are drawn on it.")
    return {"facts": facts, "description": f"Map of the pool by the feature {drawn.feature}"}


def explorer_section(data: ReportData, rows: list[Row]) -> Values | None:
    """The gallery's data, and what is said of its sample."""
    explorer = data.explored.explorer if data.explored else None
    if explorer is None or not explorer.payload["choices"]:
        return None
    return {"said": explorer.said, "payload": explorer.payload}


def _matrix(caption: str, pairs: list[Shared], measure: Any) -> Table:
    """What was measured of each pair and, below it, what chance would give."""
    names = list(dict.fromkeys(n for p in pairs for n in (p.first, p.second)))
    of = {frozenset((p.first, p.second)): measure(p) for p in pairs}
    lines: list[list[Any]] = []
    for a in names:
        cells: list[Any] = [a]
        for b in names:
            value, chance = of.get(frozenset((a, b)), (math.nan, math.nan))
            known = a != b and not math.isnan(value)
            heat = Cell(f"{value:.3f}", "heat", share=value - chance, note=f"chance {chance:.3f}") if known else "–"
            cells.append(heat)
        lines.append(cells)
    return Table(caption, ["", *names], lines, set(range(1, len(names) + 1)))


def _seeds(budget: str, seeds: list[Shared]) -> Table:
    head = ["selector", "rows in common", "Jaccard", "by chance", "rank-biased", "by chance "]
    lines = []
    for s in seeds:
        numbers = (s.jaccard, s.jaccard_chance, s.biased, s.biased_chance)
        lines.append([s.first, f"{s.rows:,.0f}", *(f"{value:.3f}" for value in numbers)])
    return Table(f"The same selector at two seeds, mean of all pairs, at {budget}", head, lines, {1, 2, 3, 4, 5})


def _ranks(caption: str, ranks: list[Ranked], measure: Any) -> Table:
    names = list(dict.fromkeys(n for r in ranks for n in (r.first, r.second)))
    of = {frozenset((r.first, r.second)): measure(r) for r in ranks}
    lines: list[list[Any]] = []
    for a in names:
        values = [of.get(frozenset((a, b)), math.nan) if a != b else math.nan for b in names]
        shown = ["–" if math.isnan(v) else Cell(f"{v:.3f}".replace("-", "−"), "heat", share=v) for v in values]
        lines.append([a, *shown])
    return Table(caption, ["", *names], lines, set(range(1, len(names) + 1)))


def _shares(one: Shares, budget: str) -> tuple[str, Table]:
    taken = one.taken[budget]
    whole = one.pool_V.sum()
    head = [one.what, "pool rows", "pool %"]
    for name in taken:
        head += [f"{name}, rows", f"{name}, ÷ pool"]
    lines: list[list[Any]] = []
    for v, value in enumerate(one.values):
        share = one.pool_V[v] / whole
        cells: list[Any] = [value, f"{one.pool_V[v]:,}", f"{100 * share:.1f}"]
        for counts_V in taken.values():
            ratio = counts_V[v] / max(1, counts_V.sum()) / share
            cells += [f"{counts_V[v]:,}", Cell(f"{ratio:.2f}", "heat", share=_strength(ratio))]
        lines.append(cells)
    caption = f"By {one.what}, at {budget}: rows, and the share taken ÷ the share in the pool"
    return budget, Table(caption, head, lines, set(range(1, len(head))))


def _strength(ratio: float) -> float:
    """Return from -1 (nothing) over 0 (as in the pool) to 1 (STRONG times as much and more)."""
    return float(np.clip(math.log(max(ratio, 1e-9)) / math.log(STRONG), -1, 1))
