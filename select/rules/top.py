"""The rows with the best scores, wherever they come from."""

from ..pickers import top_k
from ..rule import Candidates, Rule, Taken


class Top(Rule):
    """The best scores, best first."""

    name = "top"

    def pick(self, candidates: Candidates, budget: int) -> Taken:
        """Return the best rows."""
        score_N = candidates.scores_NT[:, 0]
        take = top_k(candidates.ids_N, score_N, budget)
        return Taken(take, candidates.group_N[take], score_N[take])


RULE = Top
