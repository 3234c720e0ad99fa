"""Random: the baseline that everything must beat. Uniform and nested: a larger budget holds a smaller one."""

import numpy as np
import pyarrow as pa

from ..needs import Needs
from ..pickers import uniform
from ..ranked import Ranked
from ..rows import scores_table
from ..view import View


class Random(Ranked):
    """Scores are a hash of (sample_id, seed)."""

    name = "random"
    needs = Needs()
    seeded = True
    score_means = "chance"

    def score(self, view: View, seed: int) -> pa.Table:
        """Return one score per row, uniform in (0, 1)."""
        return scores_table(view.ids, "", np.zeros(len(view.ids)), uniform(view.ids, seed, self.name))


SELECTOR = Random
