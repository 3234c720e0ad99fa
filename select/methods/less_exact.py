"""LESS without a projection: exact inner products with target tasks that were known when the pool streamed by.

The `influence` feature holds, for each row, ⟨gradient, mean unit gradient of task t⟩ for T tasks, and the exact
gradient norm; score = Σ_c w_c · product / norm. No projection noise, and T numbers per row instead of 8192; new
targets need a new pass over the pool. Axes: N rows, T tasks.
"""

import numpy as np

from ...store.arrays import Array
from ...store.errors import InputError
from ..influence import Influence, Products
from ..needs import Needs
from ..view import View


class LessExact(Influence):
    """The tasks and their order stand in the features' recipe: `{"targets": {"tasks": […], "digest": "…"}}`."""

    name = "less_exact"
    kind = "influence"
    needs = Needs(features=("influence",))

    def known_tasks(self, view: View, step: int) -> list[str]:
        """Return the tasks that the features were made for, in the order of their columns.

        Raises:
            InputError: the recipe names no tasks, one twice, or not as many as the vectors have columns.
        """
        targets = view.recipe(self.kind).get("targets")
        tasks = list(targets.get("tasks", [])) if isinstance(targets, dict) else []
        if not tasks or len(set(tasks)) != len(tasks) or len(tasks) != view.dim(self.kind):
            raise InputError(
                f"influence features of {view.dim(self.kind)} columns name the tasks {tasks}; they need one name a "
                "column, each once. Make them anew with `vinnow features`."
            )
        return tasks

    def products(self, view: View, step: int, tasks: list[str]) -> Products:
        """Return the chosen tasks' products over the row's norm at one checkpoint."""
        known = self.known_tasks(view, step)
        columns = [known.index(t) for t in tasks]
        return lambda batch: over_norm(batch.vec[:, columns], batch.norm)


def over_norm(vec_NT: Array, norm_N: Array | None) -> tuple[Array, int]:
    """Return products over norms f64 [N, T] (rows without a gradient: 0), and the number of such rows."""
    assert norm_N is not None, "readers return norms"
    norm_N1 = norm_N.astype(np.float64)[:, None]
    out_NT = np.divide(vec_NT, norm_N1, out=np.zeros(vec_NT.shape), where=norm_N1 > 0)
    return out_NT, int((norm_N1 == 0).sum())


SELECTOR = LessExact
