"""A score that is none is refused by benchmark and sample, whatever a benchmark's author made of it."""

import pytest
from vinnow.evaluate.benchmark import Benchmark, fair_score
from vinnow.pool.records import Record
from vinnow.store.errors import InputError

RECORD = Record(7, "s", "t", (), [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])


def scored(rule):
    class Own(Benchmark):
        name = "own"

        def score(self, answer, record):
            return rule(answer)

    return fair_score(Own(), "", RECORD)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 100, -0.1, None])
def test_what_is_no_score_is_refused(wrong):
    with pytest.raises(InputError, match="benchmark 'own', sample 7"):
        scored(lambda answer: wrong)


def test_a_score_that_fails_on_an_empty_answer_is_named():
    with pytest.raises(InputError, match=r"sample 7.*IndexError.*the empty one too"):
        scored(lambda answer: answer.split()[0])


def test_a_fair_one_is_kept():
    assert scored(lambda answer: True) == 1.0
    assert scored(lambda answer: 0.25) == 0.25
