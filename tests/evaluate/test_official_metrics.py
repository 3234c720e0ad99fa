"""Official figures from answers, each worked by hand from the official script's rule."""

import pytest
from vinnow.evaluate import registry
from vinnow.evaluate.benchmark import Answered, fair_score
from vinnow.pool.records import Record


def answered(name, rows):
    """Return the rows of (reference, answer or None for a question that could not be asked, extra, images)."""
    benchmark, all_rows = registry.find(name), []
    for i, (right, answer, extra, *images) in enumerate(rows):
        turns = [{"from": "human", "value": extra.get("asked", "What?")}, {"from": "gpt", "value": right}]
        record = Record(i, name, str(extra.get("category", "t")), tuple(images), turns, extra)
        score = 0.0 if answer is None else fair_score(benchmark, answer, record)
        all_rows.append(Answered(record, answer or "", score))
    return benchmark.aggregate(all_rows)


def test_pope_by_split_and_their_mean():
    # adversarial: read as no, yes, yes, no against no, no, yes, yes: one hit of two said and of two labels
    # ("There is not" is a no: the word `not`; "nothing" is none of the three words, so a yes)
    adversarial = [("no", "There is not, no."), ("no", "nothing"), ("yes", "Yes"), ("yes", "No, yes")]
    # popular: all right; random: the yes could not be asked, so it counts as a no
    popular, random_ = [("yes", "yes"), ("no", "No.")], [("yes", None), ("no", "no"), ("yes", "is it. no")]
    rows = [
        (right, answer, {"category": split})
        for split, some in (("adversarial", adversarial), ("popular", popular), ("random", random_))
        for right, answer in some
    ]
    metrics = answered("pope", rows)
    parts = metrics.parts
    assert [parts[f"adversarial {n}"] for n in ("accuracy", "precision", "recall", "F1", "yes ratio")] == [0.5] * 5
    assert [parts[f"popular {n}"] for n in ("accuracy", "precision", "recall", "F1", "yes ratio")] == [1, 1, 1, 1, 0.5]
    # random: 1 hit, 1 said, 2 labels: P 1, R 1/2, F1 2/3; right 2 of 3
    assert parts["random precision"] == 1
    assert parts["random recall"] == 0.5
    assert parts["random F1"] == pytest.approx(2 / 3)
    assert parts["random yes ratio"] == pytest.approx(1 / 3)
    assert (metrics.headline, metrics.value) == ("mean F1", pytest.approx((0.5 + 1 + 2 / 3) / 3))
    # "nothing", and "is it. no", of which the first sentence is read
    assert metrics.notes == ["2 answers say neither yes nor no: the official rule counts them as yes"]


def test_pope_without_a_yes_is_told_and_no_division_by_zero():
    metrics = answered("pope", [("no", "no", {"category": "random"})])
    assert (metrics.value, metrics.parts["random accuracy"]) == (0, 1)
    assert metrics.notes == [
        f"random: {n} is a share of nothing, and counts as 0" for n in ("precision", "recall", "F1")
    ]


def test_scienceqa_counts_pictures_apart():
    asked = {"asked": "Which?\nA. one\nB. two"}
    # of those with a picture B and "B. two" are read; "B.", "(B)" and "b" fail, as in LLaVA's script
    said = ["B", "B. two", "B.", "(B)", "b", None]
    rows = [("B", answer, asked, "pic.png") for answer in said] + [("A", "The answer is A.", asked), ("A", "B", asked)]
    metrics = answered("scienceqa", rows)
    assert (metrics.headline, metrics.value) == ("image accuracy", pytest.approx(2 / 6))
    assert metrics.parts["accuracy"] == pytest.approx(3 / 8)
    assert metrics.notes == ["3 answers name no option as the official script reads them, and are wrong"]
    text = answered("scienceqa", rows[6:])
    assert (text.headline, text.value, len(text.notes)) == ("accuracy", 0.5, 1)


def test_seed_tells_what_is_no_letter():
    asked = {"asked": "Which?\nA. one\nB. two", "choices": ["one", "two"]}
    metrics = answered("seed", [("B", answer, asked, "pic.png") for answer in ("B", "A", "B.", "C", None)])
    assert metrics.value == pytest.approx(1 / 5)
    assert metrics.notes == ["2 answers name no option as the official script reads them, and are wrong"]


def test_textvqa_is_the_mean_of_soft_scores():
    # 3 of 10 said red: 0.9; 7 said blue: 1; nobody said green: 0; not asked: 0
    people = {"answers": ["red"] * 3 + ["blue"] * 7}
    rows = [("blue", answer, people) for answer in ("Red.", "the blue", "green", None)]
    metrics = answered("textvqa", rows)
    assert (metrics.headline, metrics.value) == ("accuracy", pytest.approx(1.9 / 4))


def test_a_benchmark_without_figures_of_its_own_gives_its_accuracy():
    metrics = answered("exact_match", [("a", "A.", {}), ("b", "c", {})])
    assert (metrics.headline, metrics.value, metrics.parts) == ("accuracy", 0.5, {})


def test_gqa_by_kind():
    query, verify = {"structural": "query"}, {"structural": "verify"}
    # full stops at the end and case are no matter, spaces and other words are
    rows = [("red", "Red.", query), ("red", "a red", query), ("yes", "yes..", verify), ("no", None, verify)]
    metrics = answered("gqa", rows)
    assert (metrics.headline, metrics.value) == ("accuracy", 0.5)
    assert metrics.parts == {"open": 0.5, "binary": 0.5}


def test_mme_sums_accuracy_and_both_of_a_picture():
    # count: of picture a both are right, of b one: acc 3/4, acc+ 1/2: 100 x (0.75 + 0.5) = 125
    # ("Not yes" begins with "not ", which holds "no"; "It is yes" shows neither in its first four letters)
    count, code = {"category": "count"}, {"category": "code_reasoning"}
    rows = [("yes", "Yes, so", count, "a"), ("no", "Not yes", count, "a"), ("yes", "yes", count, "b")]
    rows += [("yes", "It is yes", count, "b"), ("no", "no", code, "c"), ("yes", None, code, "c")]
    metrics = answered("mme", rows)
    assert (metrics.headline, metrics.value) == ("perception", 125)
    assert (metrics.parts["count acc"], metrics.parts["count acc+"], metrics.parts["cognition"]) == (0.75, 0.5, 50)
    lacking, unclear = metrics.notes
    assert lacking.startswith("no questions of existence")
    assert unclear == "1 answers begin with neither yes nor no, and are wrong"


def test_hidden_answers_claim_no_score():
    rows = [("(hidden)", "(hidden)", {"hidden": True}), ("(hidden)", "cat", {"hidden": True})]
    for name in ("vqav2", "vizwiz"):
        metrics = answered(name, rows)
        assert (metrics.value, metrics.notes) == (
            None,
            ["the answers to 2 questions are hidden: no score is claimed"],
        )
