"""Whether choosing pays: a choice's cost beside the whole pool's, the budget and the number of uses from which on it does.

Source: PRISM's C = P_full / P_sub × (T_sel + T_sub) / T_full, under 1 where a choice is worth its price. T in
device-seconds, P the score.
"""

import math
from collections.abc import Sequence

from ...evaluate.statistics.interval import Interval


def relative_cost(share: Interval, cost: float, full: float) -> Interval | None:
    """Return C with its interval. `share`: P_sub / P_full in per cent; `cost`: T_sel + T_sub; `full`: T_full.

    None without a training on everything to hold it against. A share whose interval reaches 0 has no upper end.
    """
    if full <= 0 or share.estimate <= 0:
        return None
    price = 100 * cost / full
    if not share.bounded:
        return Interval.unknown(price / share.estimate)
    return Interval(price / share.estimate, price / share.high, price / share.low if share.low > 0 else math.inf)


def break_even(choosing: float, per_row: float, full: float, pool: int) -> int | None:
    """Return up to how many rows T_sel + T_sub stays under T_full; None where choosing alone costs as much.

    `per_row`: seconds that a chosen row takes to train on. At most the whole pool.
    """
    left = full - choosing
    if left <= 0:
        return None
    # the last whole row at which it costs no more; a rounding error is no row
    return pool if per_row <= 0 else min(pool, math.floor(left / per_row * (1 + 1e-12)))


def reuses(choosing: float, training: float, full: float) -> int | None:
    """Return after how many trainings on a choice what was spent on choosing is saved; None where it never is."""
    saved = full - training
    if saved <= 0:
        return None
    return math.ceil(choosing / saved * (1 - 1e-12))


def dominators(costs: Sequence[float | None], scores: Sequence[float]) -> list[int | None]:
    """Return of each choice which one of the Pareto front costs no more and reaches no less; None for the front itself.

    Of several, the one that reaches most. Two that are equal in both are both on the front. Choices without a cost are
    on no front and dominate nothing: they have none either.
    """
    known = [i for i, cost in enumerate(costs) if cost is not None]
    order = sorted(known, key=lambda i: (costs[i], -scores[i]))
    by: list[int | None] = [None] * len(costs)
    best: int | None = None
    for i in order:
        # dearer than the best so far, or as dear: by the order it reaches no more only if it is dominated, or its equal
        if best is not None and scores[i] <= scores[best] and (costs[i], scores[i]) != (costs[best], scores[best]):
            by[i] = best
        else:
            best = i
    return by
