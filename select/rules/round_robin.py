"""Each target in turn takes its best row that is not taken yet (RDS+'s rule over tasks, Ivison et al. 2025).

Axes: N rows, T targets, B rows picked.
"""

import numpy as np

from ..pickers import best_first, check_budget
from ..rule import Candidates, Rule, Taken


class RoundRobin(Rule):
    """Each target in turn takes its best row that no other has taken; group = the target's number."""

    name = "round_robin"
    each_target = True

    def pick(self, candidates: Candidates, budget: int) -> Taken:
        """Return the rows as they are taken; the score is that against the target that took the row."""
        ids_N, scores_NT = candidates.ids_N, candidates.scores_NT
        check_budget(budget, len(ids_N))
        targets = scores_NT.shape[1]
        # no target can come to a row behind its first `budget`: the others have taken fewer than that
        orders = [best_first(ids_N, scores_NT[:, t])[:budget].astype(np.int32) for t in range(targets)]
        free, place = bytearray(b"\1") * len(ids_N), [0] * targets
        taken: list[int] = []
        while len(taken) < budget:
            t = len(taken) % targets
            order_B = orders[t]
            while not free[row := int(order_B[place[t]])]:
                place[t] += 1
            free[row] = 0
            taken.append(row)
        group_B = np.arange(budget) % targets
        positions_B = np.array(taken, np.int64)
        return Taken(positions_B, group_B, scores_NT[positions_B, group_B])


RULE = RoundRobin
