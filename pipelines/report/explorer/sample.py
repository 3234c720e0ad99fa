"""Which records a page holds: all of a small pool, else a sample that shows every choice at its top, its border and beyond.

Axes: H records held with picture and text, P points of the map (the held ones first).
"""

from dataclasses import dataclass

import numpy as np

from ....store.arrays import Array
from .choices import Choice, Chosen

# records with picture and text; a share of them is drawn from the whole pool, and no list of a choice gives more than MOST
HELD, UNIFORM, MOST = 1200, 1 / 3, 16
# points of a map, and of each choice
POINTS, OF_CHOICE = 12_000, 400
# bytes that the points may take, and what one takes: by itself, for each file of scores, for each choice
ROOM, POINT, SCORE, TAKEN = 3_000_000, 150, 16, 1.5


@dataclass(frozen=True)
class Sample:
    """Positions in the pool: of the records held, and of all points of the map, the held ones first; and in words, how."""

    held_H: Array
    points_P: Array
    said: str
    said_of_points: str


def sample_of(
    chosen: Chosen, readable: Array | None = None, held: int = HELD, points: int = POINTS, seed: int = 0
) -> Sample:
    """Choose the records that a page holds, and the points that its map shows. The same seed gives the same ones.

    `readable`: positions of the rows that a map can place; None: there is no map.
    """
    rng = np.random.default_rng(seed)
    points = min(points, int(ROOM / (POINT + SCORE * len(chosen.scored) + TAKEN * len(chosen.choices))))
    held_H, said = _held(chosen, held, rng)
    if readable is None:
        return Sample(held_H, held_H, said, "")
    if chosen.rows <= points:
        rest = np.setdiff1d(np.arange(chosen.rows), held_H)
        return Sample(held_H, np.concatenate([held_H, rest]), said, f"all {chosen.rows:,} rows of the pool")
    readable_N = np.zeros(chosen.rows, bool)
    readable_N[readable] = True
    drawn = [held_H]
    for choice in (c for budget in chosen.budgets() for c in chosen.of_budget(budget)):
        drawn.append(rng.permutation(choice.rows_K[readable_N[choice.rows_K]])[:OF_CHOICE])
    points_P = _unique(np.concatenate([*drawn, rng.permutation(readable)[:points]]))[:points]
    words = (
        f"{len(points_P):,} of {chosen.rows:,} rows: the {len(held_H):,} records of the gallery, up to {OF_CHOICE} drawn "
        f"from each choice, and others, from the {len(readable):,} rows whose features were read. Choices are denser "
        "here than they are in the pool"
    )
    return Sample(held_H, points_P, said, words)


def _held(chosen: Chosen, held: int, rng: np.random.Generator) -> tuple[Array, str]:
    if chosen.rows <= held:
        return np.arange(chosen.rows), f"All {chosen.rows:,} records of the pool are here."
    lists = [one for choice in chosen.choices for one in _ends(chosen, choice)]
    of_list = min(MOST, int(held * (1 - UNIFORM)) // max(1, len(lists)))
    stratified = [one[:of_list] for one in lists]
    uniform = rng.permutation(chosen.rows)
    held_H = _unique(np.concatenate([*stratified, uniform]))[:held]
    said = f"{len(held_H):,} of {chosen.rows:,} records are here: " + (
        f"of each of the {len(chosen.choices):,} choices up to {of_list} that were taken first, {of_list} that were taken "
        f"last, {of_list} that just missed and {of_list} of the lowest scores, "
        if of_list
        else ""
    )
    return held_H, said + "and others drawn at random from the whole pool (seed 0)."


def _ends(chosen: Chosen, choice: Choice) -> list[Array]:
    """Return a choice's first and last rows, those that just missed, and the last of the pool; each in its order."""
    lists = [choice.rows_K[:MOST], choice.rows_K[::-1][:MOST]]
    scores = chosen.scores_of(choice)
    if scores is None:
        return lists
    passed_N = np.ones(chosen.rows, bool)
    passed_N[choice.rows_K] = False
    passed = scores.order_K[passed_N[scores.order_K]]
    return [*lists, passed[:MOST], passed[::-1][:MOST]]


def _unique(rows: Array) -> Array:
    """Return each row once, in the order of its first place."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]
