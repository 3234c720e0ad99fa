"""Influence of pool rows on target tasks, shared by LESS with projected gradients and with exact ones.

score(row, task) = Σ_c w_c · cosine-like product at checkpoint c, w_c the mean learning rate there; then the maximum
over tasks (LESS), their mean, or a vote (ICONS). Axes: N rows, T tasks.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from threadpoolctl import threadpool_limits

from ..store.arrays import Array
from ..store.config import Config
from ..store.errors import InputError, suggest
from ..store.usage import Usage
from .pickers import votes
from .ranked import Ranked
from .rows import Labels, matrix_of, matrix_scores_table, picks_table, scores_table
from .view import View, ViewBatch

# one shard of the store → (products [rows, T], number of rows without a gradient)
Products = Callable[[ViewBatch], tuple[Array, int]]


class Aggregation(Config):
    """How scores against the tasks of the target set become one."""

    aggregate: Literal["max", "mean", "vote"] = Field(
        "max", description="max (LESS), mean, or vote (ICONS: each task votes for its best `vote_share` of the pool)."
    )
    targets: list[str] | None = Field(None, min_length=1, description="The tasks to aim at; null: all.")
    vote_share: float = Field(0.2, gt=0, lt=1, description="The share of the pool that a task votes for.")
    checkpoint_weights: dict[int, float] | None = Field(
        None, description="Step → mean learning rate there, for every step; null: those of the run, else equal ones."
    )


class Influence(Ranked):
    """Base of a selector whose scores add up over checkpoints; a subclass says which tasks and which products.

    Rows whose gradient is zero (text-only ones, in the projector) score 0 and are counted in the notes.
    """

    # the feature kind that is streamed
    kind: ClassVar[str]
    Config = Aggregation
    config: Aggregation
    # fields that a pick rule over all targets takes the place of
    replaced_by_rule: ClassVar[tuple[str, ...]] = ("aggregate", "vote_share")

    @abstractmethod
    def known_tasks(self, view: View, step: int) -> list[str]:
        """Return the tasks that can be aimed at, in the order in which ties between them are broken."""

    def lost_tasks(self, view: View) -> dict[str, Usage]:
        """Return the tasks of the target set that have no row left, and what became of their rows."""
        return {}

    @abstractmethod
    def products(self, view: View, step: int, tasks: list[str]) -> Products:
        """Return what one checkpoint's shards are mapped with; it must not depend on how shards are cut."""

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES: one row per sample (target = the task that decided); for `vote` one per sample and task.

        Memory: f32 [N, T], and one shard of the store.

        Raises:
            InputError: a task is unknown, or has no gradient at all.
            KeyMismatchError: features and targets were not made alike.
        """
        if self.config.aggregate == "vote":
            return self.score_targets(view, seed)
        tasks, scores_NT, notes = self._against_tasks(view)
        if self.config.aggregate == "mean":
            nothing = np.zeros(len(view.ids))
            return scores_table(view.ids, "mean", nothing, scores_NT.mean(1, dtype=np.float64), notes)
        best = scores_NT.argmax(1)
        return scores_table(view.ids, Labels(best, tasks), best, scores_NT.max(1), notes)

    def score_targets(self, view: View, seed: int) -> pa.Table:
        """Return SCORES with one row per sample and task, for a pick rule that reads them all. Raises: as `score`."""
        tasks, scores_NT, notes = self._against_tasks(view)
        return matrix_scores_table(view.ids, tasks, scores_NT, notes)

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the best rows; for `vote` the score is the number of votes."""
        if self.config.aggregate == "vote":
            ids, scores_NT = matrix_of(scores)
            take, count = votes(ids, scores_NT, budget, self.config.vote_share)
            return picks_table(ids[take], np.zeros(budget), count[take], self.name, budget, seed)
        return super().pick(scores, budget, seed)

    def _against_tasks(self, view: View) -> tuple[list[str], Array, dict[str, Any]]:
        weights = view.weights(self.kind, self.config.checkpoint_weights)
        used = {step: weight for step, weight in weights.items() if weight > 0}
        tasks = self._chosen(self.known_tasks(view, next(iter(used))), self.lost_tasks(view))
        total_NT = np.zeros((len(view.ids), len(tasks)), np.float32)
        zero_rows = dict.fromkeys(used, 0)
        for step, weight in used.items():
            product = self.products(view, step, tasks)
            # the store's readers use the other cores; BLAS with threads of its own takes ten times as long on small blocks
            with threadpool_limits(1):
                for batch in view.scan(self.kind, step):
                    part_NT, zeros = product(batch)
                    total_NT[batch.positions] += (weight * part_NT).astype(np.float32)
                    zero_rows[step] += zeros
        notes = {"zero_rows": zero_rows, "checkpoint_weights": used, "refused": len(view.left_out)}
        return tasks, total_NT, notes

    def _chosen(self, there: list[str], lost: dict[str, Usage]) -> list[str]:
        """Return the tasks to aim at; a task without a row left is never left out in silence."""
        for name in self.config.targets or sorted(lost):
            if name in lost:
                others = ", ".join(repr(t) for t in there if t not in lost) or "none"
                raise InputError(
                    f"target task {name!r} cannot be aimed at: {lost[name].line()}. Mend its rows and make the target "
                    f"features again, or say which tasks to aim at (`targets`; there are {others})."
                )
            if name not in there:
                raise InputError(f"the target set has no task {name!r}{suggest(name, there)}")
        return list(dict.fromkeys(self.config.targets or there))
