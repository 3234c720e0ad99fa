"""contains: the reference as whole words, wherever it stands."""

import pytest
from vinnow.evaluate import registry
from vinnow.pool.records import Record
from vinnow.pool.refusals import RefusedError

CASES = [
    ("red bus", "It is a red  bus.", 1),
    ("Red Bus.", "a RED\nbus, I think", 1),
    ("red bus", "a red double bus", 0),
    ("red", "colored", 0),
    ("red", "red-brown", 1),
    ("5", "There are 5 cats", 1),
    ("5", "15", 0),
    ("5", "3.5", 0),
    ("5", "5.2", 0),
    ("5", "1,5", 0),
    ("5", "It is 5.", 1),
    ("5", "4, 5, 6", 1),
    ("don", "don't", 0),
    ("t", "don't", 0),
    ("c++", "In C++ it is", 1),
    ("a.b", "axb", 0),
    ("图", "a 图 here", 1),
    ("yes", "", 0),
]


def record_of(right):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": right}]
    return Record(1, "s", "t", (), turns)


@pytest.mark.parametrize(("right", "answer", "score"), CASES)
def test_whole_words_are_read(right, answer, score):
    assert registry.find("contains").score(answer, record_of(right)) == score


@pytest.mark.parametrize("right", ["", " . ", "one two three four five six seven eight nine ten eleven"])
def test_what_is_no_short_answer_is_refused(right):
    with pytest.raises(RefusedError, match="wants 1 to 10 words"):
        registry.find("contains").check(record_of(right))
    registry.find("contains").check(record_of("one two three four five six seven eight nine ten"))
