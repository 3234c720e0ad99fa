"""What rules over groups share: a budget split over them, and the best rows of each."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ...store.config import Config
from ..pickers import per_group
from ..rule import By, Candidates, Rule, Taken


class Grouped(Rule):
    """A subclass says how a budget is split over groups: `split(sizes_G, budget) -> quota_G`."""

    split: ClassVar[Callable[[Array, int], Array]]

    class Config(Config):
        """What the groups are."""

        by: By = Field(
            "source",
            description="A pool column (source, task, has_image), or group: what the method groups by (the target that "
            "decided).",
        )

    def pick(self, candidates: Candidates, budget: int) -> Taken:
        """Return the groups' best rows, interleaved by the groups' shares."""
        score_N, group_N = candidates.scores_NT[:, 0], candidates.groups(self.config.by)
        numbers, sizes = np.unique(group_N, return_counts=True)
        quota = dict(zip(numbers.tolist(), type(self).split(sizes, budget).tolist(), strict=True))
        take = per_group(candidates.ids_N, score_N, group_N, quota)
        return Taken(take, group_N[take], score_N[take])
