"""What is said of a difference: the one place that turns an interval and a p value into words."""

from typing import Literal

from ...store.errors import InputError
from .interval import Interval

Verdict = Literal["better", "worse", "cannot tell"]
# a difference is told apart where so rare a one would be chance
LEVEL = 0.05


def decide(difference: Interval, p: float, level: float = LEVEL) -> Verdict:
    """Return `better` or `worse` where interval and p (adjusted, where there are several) both say so, else `cannot tell`.

    Either alone errs: a bootstrap of three differing questions cannot see that three of three is chance (p = 0.25), and
    random signs do not know how training seeds vary.

    Raises:
        InputError: p, or the estimate, is no number.
    """
    if not 0 <= p <= 1 or difference.estimate != difference.estimate:
        raise InputError(f"no verdict on a difference of {difference.estimate} with p = {p}: they are no numbers.")
    if p >= level:
        return "cannot tell"
    if difference.low > 0 and difference.estimate > 0:
        return "better"
    if difference.high < 0 and difference.estimate < 0:
        return "worse"
    return "cannot tell"
