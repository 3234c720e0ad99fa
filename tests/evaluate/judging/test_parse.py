"""A judge's first line: what is two scores, and what is none."""

import pytest
from vinnow.evaluate.judging.parse import official_scores, scores_of

# text: (ours, the released script's; None is its −1 −1)
CASES = {
    "8 9": ((8, 9), (8, 9)),
    "8 9\nBecause 3 4.": ((8, 9), (8, 9)),
    "8, 9": ((8, 9), None),
    "8,9": ((8, 9), (8, 9)),
    "8.5 9": ((8.5, 9), (8.5, 9)),
    " 8\t10 \r\nwhy": ((8, 10), None),
    "\n\n8 9": ((8, 9), None),
    "10 1": ((10, 1), (10, 1)),
    "Assistant 1: 8": (None, None),
    "Assistant 1: 8, Assistant 2: 9": (None, None),
    "": (None, None),
    "   \n": (None, None),
    "11 3": (None, (11, 3)),
    "0 3": (None, (0, 3)),
    "3 10.5": (None, (3, 10.5)),
    "-1 5": (None, (-1, 5)),
    "8": (None, None),
    "8 9 7": (None, None),
    "8/10 9/10": (None, None),
    "8-9": (None, None),
    "nan 5": (None, None),
    "inf 5": (None, None),
    "٨ ٩": (None, (8, 9)),
    "Scores:\n8 9": (None, None),
}


@pytest.mark.parametrize("text", CASES)
def test_two_scores_or_none(text):
    assert (scores_of(text), official_scores(text)) == CASES[text]
