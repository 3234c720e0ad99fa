"""Wilson's interval against values worked out by hand and by others."""

import pytest
from vinnow.evaluate.statistics.interval import wilson_interval
from vinnow.store.errors import InputError

# what the formulas gave that stood here before SciPy's: (correct, rows, confidence) → bounds, (only first, only second) → p
WILSON = {
    (0, 1, 0.95): (0.0, 0.7934506856227626),
    (1, 1, 0.95): (0.20654931437723745, 1.0),
    (0, 20, 0.99): (0.0, 0.24910540109875334),
    (20, 20, 0.9): (0.8808421626390356, 1.0),
    (1, 20, 0.95): (0.008881448800795375, 0.236131193446742),
    (8, 10, 0.95): (0.49016247153664183, 0.9433178485456247),
    (81, 263, 0.9): (0.2633136171884814, 0.35656634960848815),
    (3987, 7135, 0.95): (0.5472448960636475, 0.5702811765966914),
    (199590, 665298, 0.99): (0.2985557340939616, 0.30145005867891),
    (665297, 665298, 0.95): (0.999991485168294, 0.9999997346683925),
}


def test_wilson_by_hand():
    # p = 0.8, n = 10: the two roots of (p̂ - p)² = z² p (1 - p) / n
    interval = wilson_interval(8, 10)
    for root in (interval.low, interval.high):
        assert (0.8 - root) ** 2 == pytest.approx(1.959963985**2 * root * (1 - root) / 10, rel=1e-6)
    assert interval.low < 0.8 < interval.high
    # Newcombe 1998: 81 of 263 → 0.2553 to 0.3662
    assert wilson_interval(81, 263).low == pytest.approx(0.2553, abs=5e-5)
    assert wilson_interval(81, 263).high == pytest.approx(0.3662, abs=5e-5)
    assert wilson_interval(0, 20).low == 0
    assert wilson_interval(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson_interval(20, 20).high == 1
    for bad in ((1, 0), (3, 2), (-1, 5)):
        with pytest.raises(InputError, match="0 ≤ correct ≤ rows"):
            wilson_interval(*bad)


@pytest.mark.parametrize("asked", WILSON)
def test_wilson_is_what_it_was(asked):
    interval = wilson_interval(*asked)
    assert (interval.low, interval.high) == pytest.approx(WILSON[asked], rel=0, abs=1e-12)
    assert interval.estimate == asked[0] / asked[1]
    assert interval.low <= interval.estimate <= interval.high
