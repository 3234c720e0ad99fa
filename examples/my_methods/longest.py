"""Longest: the records with the most text; what many papers' scores turn out to follow."""

import numpy as np
from vinnow.select.needs import Needs
from vinnow.select.pickers import top_k
from vinnow.select.rows import columns_of, picks_table, scores_table
from vinnow.store.config import Config


class Longest:
    """Reads no features: the pool's own columns are every selector's."""

    name = "longest"
    needs = Needs()
    seeded = False
    score_means = "worth"

    class Config(Config):
        """`per_picture`: how many characters a picture counts for."""

        per_picture: int = 0

    def __init__(self, config):
        self.config = config

    def score(self, view, seed):
        """Return characters as scores: higher is better."""
        size_N = view.column("n_chars") + self.config.per_picture * view.column("has_image")
        return scores_table(view.ids, "", np.zeros(len(view.ids)), size_N)

    def pick(self, scores, budget, seed):
        """Return the best, ties by id."""
        ids, group, score = columns_of(scores)
        take = top_k(ids, score, budget)
        return picks_table(ids[take], group[take], score[take], self.name, (budget, seed))


SELECTOR = Longest
