"""Stratified: random inside a pool column's groups, each with its share of the pool (largest remainders)."""

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...store.config import Config
from ..needs import Needs
from ..pickers import per_group, proportional, uniform
from ..rows import Labels, columns_of, picks_table, scores_table
from ..view import View


class Stratified:
    """Group = number of the row's value in `column` (in their order); score = a hash of (sample_id, seed)."""

    name = "stratified"
    needs = Needs()
    seeded = True
    score_means = "chance"

    class Config(Config):
        """What the strata are."""

        column: str = Field("source", description="A pool column: source, task or has_image.")

    def __init__(self, config: "Stratified.Config") -> None:
        self.config = config

    def score(self, view: View, seed: int) -> pa.Table:
        """Return one score per row; target = the value that the row has in the column."""
        column = pa.array(view.column(self.config.column)).cast(pa.string()).fill_null("").dictionary_encode()
        # numbered by name, not by first appearance: the numbers may not depend on which rows are there first
        labels = column.dictionary.to_pylist()
        order = sorted(range(len(labels)), key=lambda i: labels[i])
        number = np.empty(len(labels), np.int32)
        number[order] = np.arange(len(labels))
        group = number[column.indices.to_numpy()]
        names = [labels[i] for i in order]
        return scores_table(view.ids, Labels(group, names), group, uniform(view.ids, seed, self.name))

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return each group's share."""
        ids, group, score = columns_of(scores)
        numbers, sizes = np.unique(group, return_counts=True)
        quota = dict(zip(numbers.tolist(), proportional(sizes, budget).tolist(), strict=True))
        take = per_group(ids, score, group, quota)
        return picks_table(ids[take], group[take], score[take], self.name, budget, seed)


SELECTOR = Stratified
