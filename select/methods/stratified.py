"""Stratified: random inside groups of a pool column, each group with its share of the pool (largest remainders)."""

import numpy as np
import pyarrow as pa

from ...store.config import Config
from ..pickers import columns_of, per_group, picks_table, proportional, scores_table, uniform
from ..view import View


class Stratified:
    """Group = the row's value in `column`; score = a hash of (sample_id, seed)."""

    name = "stratified"
    needs = ()

    class Config(Config):
        """`column`: a pool column (source, task, has_image)."""

        column: str = "source"

    def __init__(self, config: "Stratified.Config") -> None:
        self.config = config

    def score(self, view: View, seed: int) -> pa.Table:
        """Return one score a row, and its group's number (groups by name, ascending)."""
        values = view.column(self.config.column).astype(str)
        labels, group = np.unique(values, return_inverse=True)
        return scores_table(view.ids, labels[group], group, uniform(view.ids, seed))

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return each group's share."""
        ids, group, score = columns_of(scores)
        numbers, sizes = np.unique(group, return_counts=True)
        quota = dict(zip(numbers.tolist(), proportional(sizes, budget).tolist(), strict=True))
        take = per_group(ids, score, group, quota)
        return picks_table(ids[take], group[take], score[take], self.name, (budget, seed))


SELECTOR = Stratified
