"""The base of a simple selector: it scores, and the rows with the best scores are its picks."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pyarrow as pa

from ..store import config
from .needs import Needs
from .pickers import top_k
from .protocol import ScoreMeans
from .rows import columns_of, picks_table
from .view import View


class NoSettings(config.Config):
    """Nothing to set."""


class Ranked(ABC):
    """A selector that says its `name`, its `needs` and how it scores.

    What may differ is overridden: `Config`, where there is something to set (it is then `self.config`); `seeded`, where
    scores depend on the seed; `score_means`, where they are no worth; `pick`.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]
    seeded: bool = False
    score_means: ClassVar[ScoreMeans] = "worth"
    Config: ClassVar[type[config.Config]] = NoSettings

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES with one row per sample (`rows.scores_table`); higher is better."""

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the rows with the best scores, best first; ties go to the smaller sample_id.

        Raises:
            InputError: the budget is below 1, or above the rows.
        """
        ids, group, score = columns_of(scores)
        take = top_k(ids, score, budget)
        return picks_table(ids[take], group[take], score[take], self.name, budget, seed)
