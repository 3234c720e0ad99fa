"""Counts over the whole pool by what a gallery filters by: a page says how many records match, not how many it holds.

A cell is a source, a task, and whether there is a picture; of each cell it is counted how many rows stand in each part of a
selector's ranking, and how many of them each choice took. Axes: N rows, C cells, B parts of a ranking.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....store.arrays import Array
from .choices import Chosen
from .scores import Scored

# shares of the pool at which a ranking is cut, the best first; the last part has what has no score
CUTS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
# sources × tasks beyond these are told as one
SOURCES, TASKS = 60, 100
OTHERS = "(others)"


@dataclass(frozen=True)
class Cells:
    """Names of sources and tasks, each row's cell, and counts: all as plain lists, for a page."""

    sources: list[str]
    tasks: list[str]
    source_N: Array
    task_N: Array
    counts: dict[str, Any]


def cells_of(chosen: Chosen) -> Cells:
    """Count the pool and every choice by cell and part of the ranking; only what is not 0 is kept."""
    source_N, sources = _folded(chosen.source.code_N, chosen.source.names, SOURCES)
    task_N, tasks = _folded(chosen.task.code_N, chosen.task.names, TASKS)
    cell_N = (source_N * len(tasks) + task_N) * 2 + chosen.pictured_N
    cells_C, cell_N = np.unique(cell_N, return_inverse=True)
    names = [[int(c) // 2 // len(tasks), int(c) // 2 % len(tasks), int(c) % 2] for c in cells_C]
    rankings = [parts_of_ranking(one) for one in chosen.scored]
    counts = {
        "cells": [[*name, int(n)] for name, n in zip(names, np.bincount(cell_N), strict=True)],
        "rankings": [_sparse(cell_N, part_N) for part_N in rankings],
        "choices": [],
    }
    for choice in chosen.choices:
        scores = chosen.scores_of(choice)
        part_N = rankings[chosen.scored.index(scores)] if scores is not None else np.full(chosen.rows, len(CUTS))
        counts["choices"].append(_sparse(cell_N[choice.rows_K], part_N[choice.rows_K]))
    return Cells(sources, tasks, source_N, task_N, counts)


def parts_of_ranking(scored: Scored) -> Array:
    """Return in which part of the ranking each row stands; len(CUTS) for one without a score."""
    last = int(scored.rank_N.max(initial=0))
    ends = np.ceil(np.array(CUTS) * last)
    part_N = np.searchsorted(ends, scored.rank_N, side="left")
    return np.where(scored.rank_N == 0, len(CUTS), part_N)


def edges_of(scored: Scored) -> list[list[float] | None]:
    """Return the highest and the lowest score of each part; None for one without a row."""
    part_N = parts_of_ranking(scored)
    parts = [scored.best_N[part_N == part] for part in range(len(CUTS))]
    return [[float(p.max()), float(p.min())] if len(p) else None for p in parts]


def _sparse(cell_N: Array, part_N: Array) -> list[list[int]]:
    """Return (cell, part, rows) of what is there."""
    both, rows = np.unique(cell_N * (len(CUTS) + 1) + part_N, return_counts=True)
    return [[int(b) // (len(CUTS) + 1), int(b) % (len(CUTS) + 1), int(n)] for b, n in zip(both, rows, strict=True)]


def _folded(code_N: Array, names: list[str], most: int) -> tuple[Array, list[str]]:
    """Fold the rarest names into one (codes are by size, the largest first)."""
    if len(names) <= most:
        return code_N, names
    return np.minimum(code_N, most - 1), [*names[: most - 1], OTHERS]
