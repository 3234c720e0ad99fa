"""The selector protocol: heavy, budget-free `score`, and `pick` in seconds on the driver."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from ..store.config import Config
from .view import View


@runtime_checkable
class Selector(Protocol):
    """A selection method: one file in `methods/` with such a class.

    `needs` names the feature kinds it reads, and "targets" if it reads targets; the View refuses all else. Higher scores
    are better; ties go to the smaller sample_id.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    Config: ClassVar[type[Config]]

    def __init__(self, config: Any) -> None: ...

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES; streams with `view.scan`, memory must not grow with rows × width."""
        ...

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return exactly `budget` rows as PICKS."""
        ...
