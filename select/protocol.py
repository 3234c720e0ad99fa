"""The selector protocol: heavy, budget-free `score`, and `pick` in seconds on the driver."""

from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa

from ..store import config
from .needs import Needs
from .view import View

# worth: of any two rows the better one scores higher, and picks are the best ones. order: a row's place among the picks
# hangs on more than its score, or the score is that place. chance: the score is drawn, and picks are a sample.
ScoreMeans = Literal["worth", "order", "chance"]
MEANINGS: tuple[ScoreMeans, ...] = ("worth", "order", "chance")


class Selector(Protocol):
    """A selection method: one file in `methods/` that ends in `SELECTOR = ItsClass`.

    `needs` says what it reads: features, targets, fields of the source records; the View refuses all else. `seeded` says
    whether its scores depend on the seed: if not, one file of scores serves all seeds. `score_means` says how its scores
    are to be read; a class may leave it out, which is "order".
    Higher scores are better; ties go to the smaller sample_id.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]
    seeded: ClassVar[bool]
    score_means: ClassVar[ScoreMeans]
    Config: ClassVar[type[config.Config]]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES; streams with `view.scan`, so that memory does not grow with rows × width."""
        ...

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return exactly `budget` rows as PICKS.

        Raises:
            InputError: the budget is below 1, or above what the method can choose from.
        """
        ...
