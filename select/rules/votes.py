"""Each target votes for its best share of the pool, and most votes win (ICONS, Wu et al. 2024)."""

import numpy as np
from pydantic import Field

from ...store.config import Config
from ..pickers import votes
from ..rule import Candidates, Rule, Taken


class Votes(Rule):
    """Each target votes for its best share of the pool; most votes win, ties go to the better mean rank."""

    name = "votes"
    each_target = True

    class Config(Config):
        """What a target votes for."""

        share: float = Field(0.2, gt=0, lt=1, description="The share of the pool that a target votes for.")

    def pick(self, candidates: Candidates, budget: int) -> Taken:
        """Return the rows with most votes; the score is their number."""
        take, count_N = votes(candidates.ids_N, candidates.scores_NT, budget, self.config.share)
        return Taken(take, np.zeros(budget, np.int64), count_N[take])


RULE = Votes
