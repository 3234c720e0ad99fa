"""An estimate and its interval; Wilson's interval of a share."""

import math
from dataclasses import dataclass

from ...store.errors import InputError


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval at the given confidence; −∞ to ∞ where nothing can be said (`bounded` is false)."""

    estimate: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @classmethod
    def unknown(cls, estimate: float) -> "Interval":
        """An estimate of one cluster: how others would differ from it cannot be seen."""
        return cls(estimate, -math.inf, math.inf)


def wilson_interval(correct: int, rows: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share of independent rows (Wilson 1927; no continuity correction).

    Raises:
        InputError: no rows, or more correct than rows.
    """
    if not 0 <= correct <= rows or rows < 1:
        raise InputError(f"a share needs 0 ≤ correct ≤ rows and rows ≥ 1, not {correct} of {rows}.")
    # here: it takes a second to import
    from scipy.stats import binomtest

    bounds = binomtest(correct, rows).proportion_ci(confidence, method="wilson")
    return Interval(correct / rows, float(bounds.low), float(bounds.high))
