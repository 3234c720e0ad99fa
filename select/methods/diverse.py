"""Diverse: rows that differ most, by embeddings. Greedy, so a larger budget holds a smaller one.

`k_center` takes the row farthest from its nearest chosen one: farthest-point sampling, Gonzalez 1985, within twice the best
covering radius (Sener and Savarese 2018 choose training data so). `mean_distance` takes the row with the largest mean
distance from all chosen: greedy max-sum dispersion (Ravi, Rosenkrantz and Tayi 1994), which prefers the rim.
Axes: N rows, C candidates, D features.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from threadpoolctl import threadpool_limits

from ...store.arrays import Array
from ...store.config import Config
from ...store.errors import InputError
from ..needs import Needs
from ..pickers import check_budget, top_k, uniform
from ..ranked import Ranked
from ..rows import Labels, scores_table
from ..view import View

# rows per block: results may not depend on how many cores there are
BLOCK = 8192
# float32's rounding: rows whose squared distance is a smaller share of their squared lengths are equal, and so are values
SAME = 2.0**-18
STAGES = ["picked", "beyond", "no candidate"]


class Diverse(Ranked):
    """One order of `max_picks` rows: score = minus the place in it; ties go to the smaller sample_id.

    group 1: rows behind the order, by their distance from it; group 2: rows that were no candidates.
    """

    name = "diverse"
    needs = Needs(features=("embedding",))
    seeded = True
    score_means = "order"

    class Config(Config):
        """How rows are compared, and how many are put in order."""

        method: Literal["k_center", "mean_distance"] = Field(
            "k_center",
            description="Which row comes next: that whose nearest picked one is farthest, or that with the largest "
            "mean distance.",
        )
        unit: bool = Field(
            True,
            description="Rows are scaled to length 1 (Euclidean distance then orders as cosine does); a zero row "
            "stays zero.",
        )
        start: Literal["mean", "random"] = Field(
            "mean", description="The first row: the one nearest to the mean, or a random one."
        )
        max_picks: int = Field(
            10_000,
            ge=1,
            description="The largest budget that can be picked; one pass over the vectors per pick (4 bytes × C × D "
            "in memory: 2.7 GB at 665K × 1024).",
        )
        candidates: int | None = Field(None, ge=1, description="The size of a random sample to choose from; null: all.")
        step: int | None = Field(None, description="The checkpoint whose embeddings are read; null: the last.")

    def __init__(self, config: "Diverse.Config") -> None:
        super().__init__(config)
        # one file of scores serves all seeds where nothing is drawn
        self.seeded = config.start == "random" or config.candidates is not None

    def score(self, view: View, seed: int) -> pa.Table:
        """Return one score per row.

        Raises:
            InputError: there is no such checkpoint.
        """
        config, steps = self.config, view.steps("embedding")
        step = steps[-1] if config.step is None else config.step
        if step not in steps:
            raise InputError(f"there are no embeddings at step {step}; there are at {steps}.")
        rows = np.arange(len(view.ids))
        if config.candidates is not None and config.candidates < len(rows):
            rows = np.sort(top_k(view.ids, uniform(view.ids, seed, "diverse candidates"), config.candidates))
        x_CD, zeros = _vectors(view, step, rows, config.unit)
        with threadpool_limits(1):
            if config.start == "mean":
                first = _largest(-_distances(x_CD, _lengths(x_CD), x_CD.mean(0, dtype=np.float64).astype(np.float32)))
            else:
                first = int(top_k(view.ids[rows], uniform(view.ids[rows], seed, "diverse start"), 1)[0])
            order, gap_C = greedy(x_CD, min(config.max_picks, len(rows)), first, config.method)
        group, score = np.full(len(view.ids), 2), np.full(len(view.ids), -float(len(order)) - 2)
        group[rows], score[rows] = 1, -len(order) - 1 / (1 + gap_C)
        group[rows[order]], score[rows[order]] = 0, -np.arange(float(len(order)))
        notes = {"step": step, "zero_rows": zeros, "refused": len(view.left_out)}
        return scores_table(view.ids, Labels(group, STAGES), group, score, notes)

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the first rows of the order.

        Raises:
            InputError: the budget is above the rows that were put in order.
        """
        check_budget(budget, scores.num_rows)
        ordered = scores.filter(pc.equal(scores["group"], 0))
        if budget > ordered.num_rows:
            raise InputError(
                f"a budget of {budget} rows is above the {ordered.num_rows} that `diverse` put in order: give it a larger "
                "max_picks (and candidates, if set)."
            )
        return super().pick(ordered, budget, seed)


def greedy(x_CD: Array, picks: int, first: int, method: str) -> tuple[Array, Array]:
    """Return the order [picks], and each row's distance from it [C]: to the nearest, or the mean; 0 where taken."""
    nearest = method == "k_center"
    # of each row: the squared distance from the nearest chosen one, or the sum of distances from all
    value_C = np.full(len(x_CD), np.inf if nearest else 0.0)
    length_C = _lengths(x_CD)
    taken_C, order, chosen = np.zeros(len(x_CD), bool), np.empty(picks, np.int64), first
    for number in range(picks):
        order[number], taken_C[chosen] = chosen, True
        squared_C = _distances(x_CD, length_C, x_CD[chosen])
        if nearest:
            np.minimum(value_C, squared_C, out=value_C)
        else:
            value_C += np.sqrt(squared_C)
        value_C[taken_C if not nearest else chosen] = -np.inf
        chosen = _largest(value_C)
    gap_C = np.sqrt(np.maximum(value_C, 0)) if nearest else np.maximum(value_C, 0) / picks
    return order, gap_C


def _largest(value_C: Array) -> int:
    """Return the first (smallest id) of the rows whose value is the largest but for rounding."""
    top = value_C.max()
    return int(np.argmax(value_C >= top - SAME * abs(top)))


def _distances(x_CD: Array, length_C: Array, point_D: Array) -> Array:
    """Return squared distances f64 [C]; each from its own block, so that neither cores nor shards change a bit of it."""
    out = np.empty(len(x_CD))
    work: Callable[[int], None] = partial(_block, x_CD, length_C, point_D, out)
    starts = range(0, len(x_CD), BLOCK)
    if len(starts) == 1:
        work(0)
    else:
        with ThreadPoolExecutor() as threads:
            list(threads.map(work, starts))
    return out


def _block(x_CD: Array, length_C: Array, point_D: Array, out: Array, start: int) -> None:
    lengths = length_C[start : start + BLOCK] + np.einsum("d,d", point_D, point_D)
    squared = lengths - 2 * (x_CD[start : start + BLOCK] @ point_D)
    out[start : start + BLOCK] = np.where(squared > SAME * lengths, squared, 0)


def _lengths(x_CD: Array) -> Array:
    """Return squared lengths f32 [C]."""
    return np.einsum("cd,cd->c", x_CD, x_CD)


def _vectors(view: View, step: int, rows: Array, unit: bool) -> tuple[Array, int]:
    """Return the candidates' vectors f32 [C, D] and how many of them are zero."""
    slot = np.full(len(view.ids), -1)
    slot[rows] = np.arange(len(rows))
    x_CD = np.zeros((len(rows), view.dim("embedding")), np.float32)
    for batch in view.scan("embedding", step):
        slots = slot[batch.positions]
        x_CD[slots[slots >= 0]] = batch.vec[slots >= 0]
    zeros = 0
    for start in range(0, len(x_CD), BLOCK):
        block = x_CD[start : start + BLOCK]
        length = np.sqrt(_lengths(block))[:, None]
        zeros += int((length == 0).sum())
        if unit:
            np.divide(block, length, out=block, where=length > 0)
    return x_CD, zeros


SELECTOR = Diverse
