"""LESS: cosine of each row's projected gradient with a target set's (Xia et al. 2024; ICONS for the vote).

Per checkpoint c with weight w_c (its mean learning rate): rows and targets are L2-normalised, targets
averaged within their task; the score against a task is Σ_c w_c ⟨row, task mean⟩. Then the maximum over tasks
(LESS), their mean, or a vote (ICONS). Only task means matter (mean_j ⟨row, v_j⟩ = ⟨row, mean_j v_j⟩), so
tasks may have unequal sizes, and scoring is one narrow product while the store streams by. Axes: N rows, D
projected dimensions, T tasks.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...store.config import Config
from ...store.errors import InputError, suggest
from ..pickers import top_k, votes
from ..rows import columns_of, matrix_of, matrix_scores_table, picks_table, scores_table
from ..view import View

Array = np.ndarray[Any, Any]
BLOCK = 4096


class Less:
    """Rows whose gradient is zero (text-only ones, in the projector) score 0 and are counted in the notes."""

    name = "less"
    needs = ("gradient", "targets")
    seeded = False

    class Config(Config):
        """How scores against the tasks of the target set become one.

        `aggregate`: max (LESS), mean, or vote (ICONS: each task votes for its best `vote_share` of the pool).
        `targets`: the tasks to aim at; None takes all. `checkpoint_weights`: step → mean learning rate there,
        for every step; None takes those of the run, else equal ones.
        """

        aggregate: Literal["max", "mean", "vote"] = "max"
        targets: list[str] | None = Field(None, min_length=1)
        vote_share: float = Field(0.2, gt=0, lt=1)
        checkpoint_weights: dict[int, float] | None = None

    def __init__(self, config: "Less.Config") -> None:
        self.config = config

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES: one row a sample (target = the task that decided); for `vote` one a sample and task.

        Memory: f32 [N, T], and one part of the store.

        Raises:
            InputError: a task is unknown, or has no gradient at all.
            KeyMismatchError: features and targets were not made alike.
        """
        tasks, scores_NT, notes = self._against_tasks(view)
        if self.config.aggregate == "vote":
            return matrix_scores_table(view.ids, tasks, scores_NT, notes)
        if self.config.aggregate == "mean":
            nothing = np.zeros(len(view.ids))
            return scores_table(view.ids, "mean", nothing, scores_NT.mean(1, dtype=np.float64), notes)
        best = scores_NT.argmax(1)
        return scores_table(view.ids, (best, tasks), best, scores_NT.max(1), notes)

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the best rows; for `vote` the score is the number of votes."""
        if self.config.aggregate == "vote":
            ids, scores_NT = matrix_of(scores)
            take, count = votes(ids, scores_NT, budget, self.config.vote_share)
            return picks_table(ids[take], np.zeros(budget), count[take], self.name, (budget, seed))
        ids, group, score = columns_of(scores)
        take = top_k(ids, score, budget)
        return picks_table(ids[take], group[take], score[take], self.name, (budget, seed))

    def _against_tasks(self, view: View) -> tuple[list[str], Array, dict[str, Any]]:
        weights = view.weights("gradient", self.config.checkpoint_weights)
        used = {step: weight for step, weight in weights.items() if weight > 0}
        tasks = self._tasks(view, next(iter(used)))
        total_NT = np.zeros((len(view.ids), len(tasks)), np.float32)
        zero_rows = dict.fromkeys(used, 0)
        for step, weight in used.items():
            means_TD = self._task_means(view, step, tasks)
            for batch in view.scan("gradient", step):
                cosine_NT, zeros = cosines(batch.vec, means_TD)
                total_NT[batch.at] += (weight * cosine_NT).astype(np.float32)
                zero_rows[step] += zeros
        return (
            tasks,
            total_NT,
            {"zero_rows": zero_rows, "checkpoint_weights": used, "refused": len(view.left_out)},
        )

    def _tasks(self, view: View, step: int) -> list[str]:
        there = sorted(set(view.targets("gradient", step).task.tolist()))  # type: ignore[union-attr]
        for name in self.config.targets or []:
            if name not in there:
                raise InputError(f"the target set has no task {name!r}{suggest(name, there)}")
        return list(dict.fromkeys(self.config.targets or there))

    def _task_means(self, view: View, step: int, tasks: list[str]) -> Array:
        """Return the mean unit gradient of each task, f64 [T, D]."""
        batch = view.targets("gradient", step)
        vec_MD = batch.vec.astype(np.float64)
        norm_M1 = np.linalg.norm(vec_MD, axis=1, keepdims=True)
        unit_MD = np.divide(vec_MD, norm_M1, out=vec_MD, where=norm_M1 > 0)
        means = []
        for task in tasks:
            rows = batch.task == task
            if not (norm_M1[rows] > 0).any():
                raise InputError(
                    f"target task {task!r} has no gradient at step {step} (text-only rows have none in the "
                    "projector): leave it out (`targets`), or make gradients of more modules (`which`)."
                )
            means.append(unit_MD[rows].mean(0))
        return np.stack(means)


def cosines(vec_ND: Array, means_TD: Array) -> tuple[Array, int]:
    """Return ⟨row / |row|, mean⟩ f64 [N, T] (zero rows: 0), and the number of zero rows.

    In float64, block by block: BLAS adds up in another order for another number of rows, and in float32 that
    would let the picks depend on how the store is cut into parts.
    """
    out_NT = np.zeros((len(vec_ND), len(means_TD)))
    zeros = 0
    for start in range(0, len(vec_ND), BLOCK):
        rows_BD = vec_ND[start : start + BLOCK].astype(np.float64)
        norm_B1 = np.sqrt(np.einsum("bd,bd->b", rows_BD, rows_BD))[:, None]
        block_BT = out_NT[start : start + BLOCK]
        np.divide(rows_BD @ means_TD.T, norm_B1, out=block_BT, where=norm_B1 > 0)
        zeros += int((norm_B1 == 0).sum())
    return out_NT, zeros


SELECTOR = Less
