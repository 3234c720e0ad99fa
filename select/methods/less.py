"""LESS: cosine of each row's projected gradient with a target set's (Xia et al. 2024; spec: LESS §1.4, ICONS §2).

Per checkpoint c with weight w_c (its mean learning rate): rows and targets are L2-normalised, targets averaged within
their task; the score against a task is Σ_c w_c ⟨row, task mean⟩. Then the maximum over tasks (LESS), their mean, or a
vote (ICONS). Only task means matter, so scoring is one narrow product while the store streams by. Axes: N rows, T tasks.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...store.config import Config
from ...store.errors import InputError, suggest
from ..pickers import columns_of, picks_table, scores_table, top_k, votes
from ..view import View


class Less:
    """`aggregate`: max (LESS), mean, or vote (each task votes for its best `vote_share` of the pool)."""

    name = "less"
    needs = ("gradient", "targets")

    class Config(Config):
        """`targets`: the tasks of the target set to aim at; None takes all."""

        aggregate: Literal["max", "mean", "vote"] = "max"
        targets: list[str] | None = None
        vote_share: float = Field(0.2, gt=0, le=1)

    def __init__(self, config: "Less.Config") -> None:
        self.config = config

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES: one row a sample (target = the task that decided), or one a sample and task for `vote`."""
        tasks, scores_NT = self._against_tasks(view)
        group = np.zeros(len(view.ids))
        if self.config.aggregate == "vote":
            ids = np.repeat(view.ids, len(tasks))
            return scores_table(ids, np.tile(tasks, len(view.ids)), np.repeat(group, len(tasks)), scores_NT.ravel())
        if self.config.aggregate == "mean":
            return scores_table(view.ids, "mean", group, scores_NT.mean(1))
        best = scores_NT.argmax(1)
        return scores_table(view.ids, np.array(tasks)[best], best, scores_NT.max(1))

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the best rows."""
        ids, group, score = columns_of(scores)
        if self.config.aggregate == "vote":
            ids = np.unique(ids)
            table = scores.sort_by([("sample_id", "ascending"), ("target", "ascending")])
            take, count = votes(ids, table["score"].to_numpy().reshape(len(ids), -1), budget, self.config.vote_share)
            return picks_table(ids[take], np.zeros(len(take)), count[take], self.name, (budget, seed))
        take = top_k(ids, score, budget)
        return picks_table(ids[take], group[take], score[take], self.name, (budget, seed))

    def _against_tasks(self, view: View) -> tuple[list[str], np.ndarray[Any, Any]]:
        tasks: list[str] = []
        total = np.zeros(0)
        for step, weight in view.weights("gradient").items():
            names, means_TD = self._task_means(view, step)
            if not len(total):
                tasks, total = names, np.zeros((len(view.ids), len(names)), np.float32)
            for at, batch in view.scan("gradient", step):
                total[at] += weight * (unit_rows(batch.vec) @ means_TD.T)
        return tasks, total

    def _task_means(self, view: View, step: int) -> tuple[list[str], np.ndarray[Any, Any]]:
        batch = view.targets("gradient", step)
        assert batch.task is not None
        there = sorted(set(batch.task.tolist()))
        wanted = self.config.targets or there
        for name in wanted:
            if name not in there:
                raise InputError(f"the target set has no task {name!r}{suggest(name, there)}")
        unit = unit_rows(batch.vec)
        return list(wanted), np.stack([unit[batch.task == t].mean(0) for t in wanted])


def unit_rows(vec_ND: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """L2-normalise rows; a zero row (a text-only sample's projector gradient) stays zero."""
    norm_N1 = np.linalg.norm(vec_ND, axis=1, keepdims=True)
    return np.divide(vec_ND, norm_N1, out=np.zeros_like(vec_ND), where=norm_N1 > 0)


SELECTOR = Less
