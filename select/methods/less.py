"""LESS: cosine of each row's projected gradient with a target set's (Xia et al. 2024; ICONS for the vote).

Per checkpoint c with weight w_c (its mean learning rate): rows and targets are L2-normalised, targets
averaged within their task; the score against a task is Σ_c w_c ⟨row, task mean⟩. Only task means matter
(mean_j ⟨row, v_j⟩ = ⟨row, mean_j v_j⟩), so tasks may have unequal sizes, and scoring is one narrow product
while the store streams by. Axes: N rows, D projected dimensions, M target rows, T tasks.
"""

import numpy as np

from ...store.arrays import Array
from ...store.errors import InputError
from ...store.usage import Usage
from ..influence import Influence, Products
from ..needs import Needs
from ..view import View

# rows of one product
BLOCK = 64


class Less(Influence):
    """Rows are normalised as they come out of the store: a quantised row by its own norm, not the one it had."""

    name = "less"
    kind = "gradient"
    needs = Needs(features=("gradient",), targets=True)

    def known_tasks(self, view: View, step: int) -> list[str]:
        """Return the target set's tasks, by name."""
        return sorted(set(view.targets(self.kind, step).task.tolist()))  # type: ignore[union-attr]

    def lost_tasks(self, view: View) -> dict[str, Usage]:
        """Return the tasks all of whose rows were refused, at every checkpoint or at the first."""
        return {t: usage for t, usage in view.target_usage(self.kind).items() if t and not usage.used}

    def products(self, view: View, step: int, tasks: list[str]) -> Products:
        """Return the cosines with the tasks' mean unit gradients at one checkpoint."""
        means_DT = np.ascontiguousarray(self._task_means(view, step, tasks).T, np.float32)
        return lambda batch: cosines(np.ascontiguousarray(batch.vec, np.float32), means_DT)

    def _task_means(self, view: View, step: int, tasks: list[str]) -> Array:
        """Return the mean unit gradient of each task, f64 [T, D]."""
        batch = view.targets(self.kind, step)
        vec_MD = batch.vec.astype(np.float64)
        norm_M1 = np.linalg.norm(vec_MD, axis=1, keepdims=True)
        unit_MD = np.divide(vec_MD, norm_M1, out=vec_MD, where=norm_M1 > 0)
        means = []
        for task in tasks:
            rows = batch.task == task
            if not rows.any():
                lost = view.target_usage(self.kind)[task].line()
                raise InputError(f"target task {task!r} has no row at step {step}: {lost}. Leave it out (`targets`).")
            if not (norm_M1[rows] > 0).any():
                raise InputError(
                    f"target task {task!r} has no gradient at step {step} (text-only rows have none in the "
                    "projector): leave it out (`targets`), or make gradients of more modules (`which`)."
                )
            means.append(unit_MD[rows].mean(0))
        return np.stack(means)


def cosines(vec_ND: Array, means_DT: Array) -> tuple[Array, int]:
    """Return ⟨row / |row|, mean⟩ f32 [N, T] (zero rows: 0), and the number of zero rows.

    Always in blocks of BLOCK rows, the last one filled up with zeros: BLAS adds up in another order for another
    number of rows, and the picks must not depend on how the store is cut into shards.
    """
    out_NT = np.zeros((len(vec_ND), means_DT.shape[1]), np.float32)
    filled_BD = np.zeros((BLOCK, vec_ND.shape[1]), np.float32)
    zeros = 0
    for start in range(0, len(vec_ND), BLOCK):
        rows_BD = vec_ND[start : start + BLOCK]
        n = len(rows_BD)
        if n < BLOCK:
            filled_BD[:n] = rows_BD
            rows_BD = filled_BD
        norm_B1 = np.sqrt(np.einsum("bd,bd->b", rows_BD, rows_BD))[:n, None]
        product_BT = (rows_BD @ means_DT)[:n]
        np.divide(product_BT, norm_B1, out=out_NT[start : start + n], where=norm_B1 > 0)
        zeros += int((norm_B1 == 0).sum())
    return out_NT, zeros


SELECTOR = Less
