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

# rows of one product: they stay in the cache
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

    The picks must not depend on how the store is cut into shards, but BLAS adds up a row in another order for another place
    of it among others (with AVX2, also inside a block of one size). So both sides are rounded to whole numbers of a row's
    (a mean's) largest entry, few enough that every sum of products is exact in float64, in whatever order: 20 bits at 8192
    dimensions, whose error is about that of adding up in float32.
    """
    levels = _levels(vec_ND.shape[1])
    peak_T = np.abs(means_DT).max(0, initial=0.0).astype(np.float64)
    whole_DT = np.rint(means_DT.astype(np.float64) * (levels / np.where(peak_T > 0, peak_T, 1)))
    out_NT = np.zeros((len(vec_ND), means_DT.shape[1]), np.float32)
    zeros = 0
    for start in range(0, len(vec_ND), BLOCK):
        rows_BD = vec_ND[start : start + BLOCK]
        peak_B1 = np.maximum(rows_BD.max(1), -rows_BD.min(1))[:, None]
        # float32 holds these whole numbers, and takes half the time to find them
        scaled_BD = rows_BD / np.where(peak_B1 > 0, peak_B1, 1) * np.float32(levels)
        whole_BD = np.rint(scaled_BD, out=scaled_BD).astype(np.float64)
        norm_B1 = np.sqrt(np.einsum("bd,bd->b", whole_BD, whole_BD))[:, None]
        product_BT = (whole_BD @ whole_DT) * (peak_T / levels)
        np.divide(product_BT, norm_B1, out=out_NT[start : start + BLOCK], where=norm_B1 > 0, casting="same_kind")
        zeros += int((norm_B1 == 0).sum())
    return out_NT, zeros


def _levels(dim: int) -> float:
    """Return the largest whole numbers of which `dim` products add up to less than 2⁵³."""
    return 2.0 ** ((53 - int(np.ceil(np.log2(max(dim, 2))))) // 2)


SELECTOR = Less
