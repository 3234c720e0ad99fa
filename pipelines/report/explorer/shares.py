"""What each choice takes by source, task, length and cluster: its share ÷ the pool's share, with the counts of both.

Axes: N rows of the pool, V values of a property.
"""

from dataclasses import dataclass

import numpy as np

from ....store.arrays import Array
from .choices import Chosen

PARTS, MOST = 10, 30


@dataclass(frozen=True)
class Shares:
    """Rows by the values of one property: in the pool [V], and in each selector's first seed by budget.

    `left_out`: values beyond the largest MOST, which are the last row together.
    """

    what: str
    values: list[str]
    pool_V: Array
    taken: dict[str, dict[str, Array]]
    left_out: int = 0


def shares_of(chosen: Chosen) -> list[Shares]:
    """Count the rows of every choice by each property that the pool's rows have."""
    if not chosen.choices:
        return []
    properties = {
        "source": (chosen.source.code_N, chosen.source.names),
        "task": (chosen.task.code_N, chosen.task.names),
        "picture": (chosen.pictured_N.astype(np.int64), ["text only", "with a picture"]),
        "length in characters (tenths of the pool)": parts_of(chosen.letters_N),
    }
    if chosen.tokens_N is not None:
        properties["length in tokens (tenths of the pool)"] = parts_of(chosen.tokens_N)
    if chosen.clusters is not None:
        selector, group_N = chosen.clusters
        clusters = int(group_N.max()) + 1
        names = [*(f"cluster {c}" for c in range(clusters)), "in no cluster"]
        properties[f"cluster of {selector}"] = (np.where(group_N < 0, clusters, group_N), names)
    counted = [_count(what, chosen, *coded) for what, coded in properties.items()]
    # what is the same for all rows tells nothing
    return [one for one in counted if len(one.values) > 1]


def parts_of(numbers_N: Array) -> tuple[Array, list[str]]:
    """Split rows by a number into tenths of the pool; fewer where many rows have the same number."""
    edges = np.unique(np.quantile(numbers_N, np.linspace(0, 1, PARTS + 1)[1:-1], method="inverted_cdf"))
    code_N = np.searchsorted(edges, numbers_N, side="left")
    names = []
    for part in range(len(edges) + 1):
        inside = numbers_N[code_N == part]
        names.append(f"{int(inside.min()):,} to {int(inside.max()):,}" if len(inside) else "none")
    return code_N, names


def _count(what: str, chosen: Chosen, code_N: Array, names: list[str]) -> Shares:
    values = len(names)
    pool_V = np.bincount(code_N, minlength=values)
    # by number where there is an order in it, else the largest first; without what no row has
    order = np.arange(values) if what.startswith("length") else np.argsort(-pool_V, kind="stable")
    order = order[pool_V[order] > 0]
    shown, rest = (order, order[:0]) if what.startswith("length") else (order[:MOST], order[MOST:])

    def folded(counts_V: Array) -> Array:
        return np.append(counts_V[shown], counts_V[rest].sum()) if len(rest) else counts_V[shown]

    taken = {
        budget: {c.selector: folded(np.bincount(code_N[c.rows_K], minlength=values)) for c in chosen.of_budget(budget)}
        for budget in chosen.budgets()
    }
    titles = [names[i] for i in shown] + ([f"{len(rest):,} others"] if len(rest) else [])
    return Shares(what, titles, folded(pool_V), taken, len(rest))
