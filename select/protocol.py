"""The selector protocol: heavy, budget-free `score`, and `pick` in seconds on the driver."""

from typing import Any, ClassVar, Protocol

import pyarrow as pa

from ..store import config
from .view import View


class Selector(Protocol):
    """A selection method: one file in `methods/` that ends in `SELECTOR = ItsClass`.

    `needs` names the feature kinds that it reads, "targets" if it reads targets, and "extra:FIELD" for a field
    of the source records; the View refuses all else. `seeded` says whether its scores depend on the seed: if
    not, one file of scores serves all seeds.
    Higher scores are better; ties go to the smaller sample_id.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    seeded: ClassVar[bool]
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
