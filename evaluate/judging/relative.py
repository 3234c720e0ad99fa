"""The relative score: 100 × mean score of the model ÷ mean score of the reference, by category and over all questions.

`all` pools the questions; it is no mean of categories. Axes: N questions, R draws.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...store.arrays import Array
from ...store.errors import InputError
from ..statistics.bootstrap import percentile, resampled_sums
from ..statistics.interval import Interval

ALL = "all"


@dataclass(frozen=True)
class RelativeScore:
    """Per cent with its 95 % interval (pictures are drawn, with all their questions), and the two means, of 10."""

    relative: Interval
    model: float
    reference: float
    questions: int

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it; `low` and `high` are null where there is no interval."""
        bounds = asdict(self.relative)
        low, high = (bounds[n] if self.relative.bounded else None for n in ("low", "high"))
        own = {"model": self.model, "reference": self.reference, "questions": self.questions}
        return {"relative": self.relative.estimate, "low": low, "high": high} | own


def relative_scores(
    model_N: Array, reference_N: Array, category_N: Array, picture_N: Array, seed: int
) -> dict[str, RelativeScore]:
    """Return the relative score of each category, and of `all`.

    Raises:
        InputError: no question, or the reference's mean is not above 0.
    """
    if ALL in category_N.tolist():
        raise InputError(f"a category is called {ALL!r}, which is what all questions together are called: rename it.")
    masks = {str(c): category_N == c for c in sorted(set(category_N.tolist()))} | {ALL: np.ones(len(category_N), bool)}
    return {name: _relative(model_N[m], reference_N[m], picture_N[m], seed, name) for name, m in masks.items()}


def _relative(model_N: Array, reference_N: Array, picture_N: Array, seed: int, name: str) -> RelativeScore:
    if not len(model_N):
        raise InputError(f"{name}: no question was scored, so there is no relative score.")
    model, reference = float(model_N.mean()), float(reference_N.mean())
    if reference <= 0:
        raise InputError(f"{name}: the reference's mean score is {reference:.3g}: there is nothing to be relative to.")
    estimate, cluster_N = 100 * model / reference, np.unique(picture_N, return_inverse=True)[1]
    interval = Interval.unknown(estimate)
    if cluster_N.max() > 0:
        sums_RK = resampled_sums(np.stack([model_N, reference_N], 1), cluster_N, seed)
        # the official way's −1 may sink a draw's reference
        if (sums_RK[:, 2] > 0).all():
            interval = percentile(estimate, 100 * sums_RK[:, 1] / sums_RK[:, 2])
    return RelativeScore(interval, model, reference, len(model_N))
