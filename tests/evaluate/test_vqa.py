"""Ten people's answers: EvalAI's normaliser, and the mean over ten leave-one-outs, each case worked by hand."""

from itertools import combinations

import pytest
from vinnow.evaluate.vqa import commonest, evalai, people_of, soft_score
from vinnow.pool.refusals import RefusedError

# by the rules in order: lower case; no commas and question marks; 's apart; punctuation goes where a space is beside it,
# else it becomes a space; full stops go unless a digit follows; words of numbers, articles, apostrophes
NORMALISED = [
    ("The cat's two dogs.", "cat 's 2 dogs"),
    ("A  red\nbus", "red bus"),
    ("1,000", "1000"),
    ("3.5", "3.5"),
    (".5 and 5.", ".5 and 5"),
    ("None", "0"),
    ("ten-four", "10 4"),
    ("red- bus", "red bus"),
    ("dont", "don't"),
    ("couldnt've", "couldn't've"),
    ("couldn'tve", "couldn't've"),
    ("somebody'd", "somebodyd"),
    ("who?", "who"),
    ("yes!", "yes"),
    ("an", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "plain"), NORMALISED)
def test_the_normaliser(text, plain):
    assert evalai(text) == plain
    assert evalai(plain) == plain or "'s" in plain


def test_only_32_full_stops_go_as_published():
    # re.UNICODE is 32, and is passed where the count of replacements stands
    assert evalai("a. " * 40 + "x") == "a. " * 7 + "a. x"
    assert evalai("b. " * 40) == "b " * 32 + "b. " * 7 + "b."
    assert evalai("b. " * 40, compat=False) == ("b " * 40).strip()


@pytest.mark.parametrize(("same", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_ten_leave_one_outs(same, score):
    # 3 of 10 said it: left out once each, they leave 2 three times (2/3) and 3 seven times (1): (3 x 2/3 + 7) / 10 = 0.9
    people = ["Red."] * same + [f"other {i}" for i in range(10 - same)]
    assert soft_score("red", people) == pytest.approx(score)
    naive = [min(1, sum(evalai(p) == "red" for p in nine) / 3) for nine in combinations(people, 9)]
    assert soft_score("a red", people) == pytest.approx(sum(naive) / 10)


def test_people_are_ten_texts_and_the_commonest_stands_as_it_was_written():
    people = ["a Bus", *["car"] * 4, *["bus."] * 4, "x"]
    assert commonest(people) == "a Bus"
    assert soft_score(commonest(people), people) == 1
    assert people_of([{"answer": p, "answer_confidence": "yes"} for p in people]) == people
    for wrong in (people[:9], [*people[:9], None], None, "abcdefghij"):
        with pytest.raises(RefusedError, match="not ten texts"):
            people_of(wrong)
