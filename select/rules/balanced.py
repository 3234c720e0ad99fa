"""The budget split over groups evenly, small groups whole, the best rows of each."""

import numpy as np
from pydantic import Field

from ...store.config import Config
from ..pickers import per_group
from ..pickers import water_fill as split
from ..rule import By, Candidates, Rule, Taken


class Balanced(Rule):
    """Evenly over groups, the best rows of each; groups smaller than their share are taken whole."""

    name = "balanced"

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
        quota = dict(zip(numbers.tolist(), split(sizes, budget).tolist(), strict=True))
        take = per_group(candidates.ids_N, score_N, group_N, quota)
        return Taken(take, group_N[take], score_N[take])


RULE = Balanced
