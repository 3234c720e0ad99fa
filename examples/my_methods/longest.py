"""Longest: the records with the most text; what many papers' scores turn out to follow."""

import numpy as np
from pydantic import Field
from vinnow.select.needs import Needs
from vinnow.select.ranked import Ranked
from vinnow.select.rows import scores_table
from vinnow.store.config import Config


class Longest(Ranked):
    """Reads no features: the pool's own columns are every selector's."""

    name = "longest"
    needs = Needs()

    class Config(Config):
        """What a picture counts for."""

        per_picture: int = Field(0, description="How many characters a picture counts for.")

    def score(self, view, seed):
        """Return characters as scores: higher is better."""
        size_N = view.column("n_chars") + self.config.per_picture * view.column("has_image")
        return scores_table(view.ids, "", np.zeros(len(view.ids)), size_N)


SELECTOR = Longest
