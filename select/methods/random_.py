"""Random: the baseline that everything must beat. Uniform and nested: a larger budget holds a smaller one."""

import numpy as np
import pyarrow as pa

from ...store.config import Config
from ..needs import Needs
from ..pickers import top_k, uniform
from ..rows import columns_of, picks_table, scores_table
from ..view import View


class Random:
    """Scores are a hash of (sample_id, seed)."""

    name = "random"
    needs = Needs()
    seeded = True
    score_means = "chance"

    class Config(Config):
        """Nothing to set."""

    def __init__(self, config: "Random.Config") -> None:
        self.config = config

    def score(self, view: View, seed: int) -> pa.Table:
        """Return one score a row, uniform in (0, 1)."""
        return scores_table(view.ids, "", np.zeros(len(view.ids)), uniform(view.ids, seed, self.name))

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the best scores."""
        ids, group, score = columns_of(scores)
        take = top_k(ids, score, budget)
        return picks_table(ids[take], group[take], score[take], self.name, (budget, seed))


SELECTOR = Random
