"""SCORES of a whole pool, read a batch at a time: the best of each row over its targets, and its place among all.

A method that votes over 57 targets has 57 rows of SCORES for each of the pool's: only what is best of them is held.
Axis: N rows of the pool, in the order of its ids.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ....select.protocol import ScoreMeans
from ....select.run import FOOTER
from ....store.arrays import Array
from ....store.errors import MissingRowsError
from ....store.files import reading_parquet
from ....store.tables import SCORES, refuse_other_columns

_ANEW = "Delete it, and run the stage that made it again."
_BATCH = 1 << 18


class Finder:
    """Where ids stand in a pool. What was written in the pool's own order is not searched for."""

    def __init__(self, ids_N: Array) -> None:
        self.ids_N = ids_N
        self._order = np.argsort(ids_N, kind="stable")
        self._ranked = ids_N[self._order]

    def rows(self, ids: Array, what: str) -> Array:
        """Return the position of each id.

        Raises:
            MissingRowsError: one is not in the pool.
        """
        if not len(ids):
            return np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(self._ranked, ids[:1]), len(self._ranked) - 1)
        start = int(self._order[places[0]])
        if np.array_equal(self.ids_N[start : start + len(ids)], ids):
            return np.arange(start, start + len(ids))
        places = np.minimum(np.searchsorted(self._ranked, ids), len(self._ranked) - 1)
        known = self._ranked[places] == ids
        if not known.all():
            raise MissingRowsError(f"{what}: {int((~known).sum())} of {len(ids)} rows are not in the pool.")
        return self._order[places]

    def best_first(self, score_N: Array) -> Array:
        """Return the positions of what has a score, the best first, ties by id."""
        by_id = self._order[~np.isnan(score_N[self._order])]
        return by_id[np.argsort(-score_N[by_id], kind="stable")]


@dataclass(frozen=True)
class Scored:
    """A file of scores. `best_N`: NaN where a row has none; `rank_N`: 1 is the best, ties by id, 0 where there is none.

    `seed` is None where all seeds have the same scores; `group_N` is that of a row's only target, else -1. `order_K`: the
    positions of those that have a score, the best first.
    """

    selector: str
    seed: int | None
    means: ScoreMeans
    best_N: Array
    rank_N: Array
    order_K: Array
    group_N: Array
    footer: dict[bytes, bytes]

    @property
    def name(self) -> str:
        """What it is called: the selector and, where that makes a difference, the seed."""
        return self.selector if self.seed is None else f"{self.selector}, seed {self.seed}"

    def called(self, selector: str, seed: int | None, means: ScoreMeans) -> "Scored":
        """Return the same scores as those of another selector."""
        return replace(self, selector=selector, seed=seed, means=means)

    def table(self, ids_N: Array) -> pa.Table:
        """Return SCORES with the one best row of each sample."""
        known = np.flatnonzero(~np.isnan(self.best_N))
        target = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(known), np.int32)), pa.array([""]))
        columns = (ids_N[known], target.cast(pa.string()), self.group_N[known], self.best_N[known])
        return pa.table(list(columns), SCORES.names).replace_schema_metadata(self.footer)


def scores_key(path: str) -> bytes:
    """Return what a file says its scores were made of; empty where it does not say."""
    with reading_parquet(path, _ANEW) as file:
        return (file.schema_arrow.metadata or {}).get(FOOTER, b"")


def read_scored(path: str, finder: Finder, named: tuple[str, int | None, ScoreMeans]) -> Scored:
    """Read a file of scores; `named`: the selector, the seed, and how its scores are to be read.

    Raises:
        DamagedError: the file is not as it was written.
        MissingRowsError: it scores rows that are not in the pool.
    """
    n = len(finder.ids_N)
    best_N, group_N, count_N = np.full(n, -np.inf), np.full(n, -1, np.int64), np.zeros(n, np.int32)
    with reading_parquet(path, _ANEW) as file:
        refuse_other_columns(file.schema_arrow, SCORES, path, _ANEW)
        footer = dict(file.schema_arrow.metadata or {})
        for batch in file.iter_batches(_BATCH, columns=["sample_id", "group", "score"]):
            rows = finder.rows(batch["sample_id"].to_numpy(), path)
            np.maximum.at(best_N, rows, batch["score"].to_numpy())
            np.add.at(count_N, rows, 1)
            group_N[rows] = batch["group"].to_numpy()
    group_N[count_N > 1] = -1
    best_N[count_N == 0] = np.nan
    order_K = finder.best_first(best_N)
    rank_N = np.zeros(n, np.uint32)
    rank_N[order_K] = np.arange(1, len(order_K) + 1)
    return Scored(*named, best_N, rank_N, order_K, group_N, footer)
