"""The question as it stands; correct is the reference itself."""

from ..benchmark import SameAnswer


class ExactMatch(SameAnswer):
    """Whatever the pool asks."""

    name = "exact_match"


BENCHMARK = ExactMatch
