"""word_f1: how many words an answer and its reference have in common."""

import pytest
from vinnow.evaluate import registry
from vinnow.pool.records import Record

CASES = [
    ("A red bus.", "a RED, bus", 1),
    ("red bus", "bus red", 1),
    ("red bus", "it is a red bus", 2 * 2 / (2 + 5)),
    ("red red", "red", 2 * 1 / 3),
    ("yes", "no", 0),
    ("yes", "", 0),
    ("", "", 1),
    ("...", "...", 1),
    ("", "no", 0),
    ("红色的车", "红色", 2 * 2 / (4 + 2)),
    ("it's 3.5", "it s 3 5", 1),
]


@pytest.mark.parametrize(("right", "answer", "score"), CASES)
def test_words_are_counted_as_often_as_both_have_them(right, answer, score):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": right}]
    assert registry.find("word_f1").score(answer, Record(1, "s", "t", (), turns)) == pytest.approx(score)
