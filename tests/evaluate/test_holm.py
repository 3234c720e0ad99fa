"""Holm by hand, and the one verdict."""

import math

import numpy as np
import pytest
from vinnow.evaluate.statistics.holm import holm
from vinnow.evaluate.statistics.interval import Interval
from vinnow.evaluate.statistics.verdict import LEVEL, decide
from vinnow.store.errors import InputError


def test_holm_by_hand():
    # 4 · 0.005, 3 · 0.01, 2 · 0.03, then 0.04 which may not be below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.3]) == [0.3]
    assert holm([]) == []
    assert holm([0.5, 0.9, 0.6]) == [1, 1, 1]
    assert holm([0.02, 0.02, 0.02]) == pytest.approx([0.06] * 3)


def test_holm_is_the_loop_of_its_definition():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ps = rng.random(int(rng.integers(1, 12))).round(1).tolist()
        ranked = sorted(ps)
        expected = [
            max(min(1, (len(ps) - j) * ranked[j]) for j in range(ranked.index(p) + ranked.count(p))) for p in ps
        ]
        # of equal ones the first takes the largest factor, and the others may not be below it
        assert holm(ps) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1])
def test_what_is_no_p_is_refused(bad):
    with pytest.raises(InputError, match="from 0 to 1"):
        holm([0.1, bad])
    with pytest.raises(InputError, match="no numbers"):
        decide(Interval(0.1, 0.05, 0.2), bad)


def test_a_verdict_takes_interval_and_p_and_contradicts_neither():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(3000):
        low, middle, high = np.sort(rng.normal(rng.choice([-0.2, 0, 0.2]), 0.1, 3)).round(2)
        p = float(rng.choice([0, 0.01, 0.049, LEVEL, 0.2, 1]))
        said = decide(Interval(middle, low, high), p)
        if p >= LEVEL or low <= 0 <= high:
            assert said == "cannot tell"
        else:
            assert said == ("better" if middle > 0 else "worse")
        seen.add(said)
    assert seen == {"better", "worse", "cannot tell"}


def test_no_interval_no_verdict():
    assert decide(Interval.unknown(0.5), 0.0) == "cannot tell"
    # skewed draws: an interval on the other side of the estimate says nothing
    assert decide(Interval(-0.1, 0.01, 0.2), 0.0) == "cannot tell"
    with pytest.raises(InputError, match="no numbers"):
        decide(Interval(math.nan, 0.1, 0.2), 0.01)
