"""String rules, accuracy, the majority baseline, and the benchmarks' prompts."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from vinnow.evaluate.benchmark import LETTER, SHORT
from vinnow.evaluate.metrics import (
    accuracy,
    count_options,
    exact_match,
    majority_baseline,
    option_letter,
    scienceqa_letter,
    yes_or_no,
)
from vinnow.evaluate.registry import find
from vinnow.pool.records import Record
from vinnow.store.errors import InputError
from vinnow.store.tables import EVALS


def record(question, answer, **extra):
    turns = [
        {"from": "human", "value": question},
        {"from": "gpt", "value": answer},
        {"from": "human", "value": "and then?"},
        {"from": "gpt", "value": "nothing"},
    ]
    return Record(7, "s", "t", None, turns, extra)


def evals(rows):
    names = ("task", "correct", "reference")
    table = pa.Table.from_pylist([dict(zip(names, r, strict=True)) for r in rows])
    for i, name in enumerate(EVALS.names):
        if name not in names:
            fill = [0.0] * len(rows) if name == "score" else [str(k) for k in range(len(rows))]
            table = table.add_column(min(i, table.num_columns), name, [fill])
    return table.select(EVALS.names).cast(EVALS)


def test_exact_match_forgives_case_space_and_one_full_stop():
    assert exact_match(" Yes. ", "yes")
    assert exact_match("dark blue", "Dark Blue")
    assert not exact_match("yes it is", "yes")
    assert not exact_match("", "yes")
    assert not exact_match("1.5", "15")


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("A", "A"),
        ("B. the sea", "B"),
        ("The answer is C.", "C"),
        ("I think so. The answer is A.", "A"),
        ("B.", None),
        ("(B)", None),
        ("b", None),
        ("D", None),
        ("The answer is A. The answer is B.", None),
        ("The answer is D.", None),
        ("", None),
    ],
)
def test_option_letters_are_read_as_llava_reads_them(answer, read):
    assert option_letter(answer, 3) == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("No", "no"),
        ("no, there is none", "no"),
        ("There is not one. Yes", "no"),
        ("Yes. No", "yes"),
        ("nothing", "yes"),
        ("", "yes"),
    ],
)
def test_yes_and_no_are_read_as_pope_reads_them(answer, read):
    assert yes_or_no(answer) == read


def test_options_are_counted_from_their_lines():
    assert count_options("What?\nA. one\nB. two\nC. three\n") == 3
    assert count_options("What?\n(A) one\n(B) two") == 2
    with pytest.raises(InputError, match="no option lines"):
        count_options("What?")
    with pytest.raises(InputError, match="'AC'"):
        count_options("What?\nA. one\nC. three")


def test_accuracy_counts_rows_and_tasks():
    shares = accuracy(evals([("b", True, "x"), ("b", False, "x"), ("a", True, "y"), ("b", False, "z")]))
    assert shares.overall == 0.5
    assert shares.by_task == {"a": 1.0, "b": pytest.approx(1 / 3)}
    assert shares.rows_by_task == {"a": 1, "b": 3}
    assert shares.rows == 4
    with pytest.raises(InputError, match="empty"):
        accuracy(EVALS.empty_table())


def test_the_majority_is_taken_by_task_with_ties_by_name():
    rows = [("yn", True, a) for a in ("no", "No.", "yes")]
    rows += [("c", False, a) for a in ("red", "blue", "red", "blue")]
    majority = majority_baseline(evals(rows))
    assert majority.answers == {"c": "blue", "yn": "no"}
    assert majority.by_task == {"c": 0.5, "yn": pytest.approx(2 / 3)}
    assert majority.overall == pytest.approx(4 / 7)
    with pytest.raises(InputError, match="empty"):
        majority_baseline(EVALS.empty_table())


def test_only_the_first_question_is_asked_with_the_suffix_once():
    asked = find("short_answer").ask(record("what?", "a cat"))
    assert [t["value"] for t in asked.conversations] == ["what?" + SHORT, "a cat"]
    assert find("short_answer").ask(asked) == asked
    assert find("exact_match").ask(record("what?", "a cat")).conversations[0]["value"] == "what?"


def test_benchmarks_score():
    assert find("exact_match").score("A cat.", record("what?", "a cat")) == 1
    assert find("exact_match").score("nothing", record("what?", "a cat")) == 0
    assert find("yes_no").score("No, there is not.", record("is it?", "no")) == 1
    assert find("yes_no").score("There is.", record("is it?", "no")) == 0
    letters = find("option_letter")
    assert letters.score("B. two", record("What?\nA. one\nB. two" + LETTER, "B")) == 1
    assert letters.score("C", record("What?\nA. one\nB. two", "C")) == 0
    assert letters.score("C", record("What?", "C", choices=["x", "y", "z"])) == 1
    assert letters.score("", record("What?", "B", choices=["x", "y"])) == 0


ROWS = json.loads((Path(__file__).parent / "data/scienceqa_letters.json").read_text())["rows"]


def test_scienceqa_letters_are_those_that_the_official_script_reads():
    assert len(ROWS) == 86
    for row in ROWS:
        assert scienceqa_letter(row["answer"], row["choices"]) == row["read_as"], row
    assert any(option_letter(r["answer"], r["choices"]) != r["read_as"] for r in ROWS)  # ours is another rule


def test_scienceqa_scores_by_the_official_reading():
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "B"}]
    record = Record(1, "s", "t", (), turns, {"choices": ["x", "y"]})
    expected = {"B": 1, "B. y": 1, "The answer is Berlin.": 1, "B.": 0, "": 0, "E. The answer is B.": 0}
    assert {a: find("scienceqa").score(a, record) for a in expected} == expected
    assert find("option_letter").score("E. The answer is B.", record) == 1
