"""Comparisons of EVALS: paired by question, clustered by picture, adjusted, and silent about nothing."""

import math

import numpy as np
import pytest
from evals import alike, evals
from vinnow.evaluate.statistics.compare import adjusted, compare
from vinnow.evaluate.statistics.pairs import merge_clusters, read_scores
from vinnow.store.errors import DuplicateRowsError, InputError


def test_compare_pairs_by_sample_not_by_row():
    scores = np.r_[np.ones(60), np.zeros(40)]
    names = [str(i) for i in range(100)]
    order = np.random.default_rng(0).permutation(100)
    shuffled = evals(scores[order], [names[i] for i in order])
    same = compare([evals(scores, names)], [shuffled], seed=0)
    assert (same.difference.estimate, same.difference.low, same.difference.high, same.p) == (0, 0, 0, 1)
    assert same.verdict == "cannot tell"
    worse = compare([evals(np.r_[np.ones(20), np.zeros(80)], names)], [evals(scores, names)], seed=0)
    assert worse.verdict == "worse"
    assert worse.difference.estimate == pytest.approx(-0.4)
    assert worse.p == pytest.approx(2 * 0.5**40, rel=1e-9)
    assert compare([evals(scores)], [evals(np.zeros(100))], seed=0).verdict == "better"


def test_seeds_are_averaged_sample_by_sample():
    scores = read_scores([evals([1, 0, 1, 0]), evals([1, 1, 0, 0])])
    means = dict(zip(scores.names_N.tolist(), scores.mean_N.tolist(), strict=True))
    assert means == {"0": 1, "1": 0.5, "2": 0.5, "3": 0}
    result = compare([evals([1, 0]), evals([1, 1])], [evals([0, 0])], seed=0)
    assert result.difference.estimate == pytest.approx(0.75)
    assert (result.p, result.seeds) == (0.5, (2, 1))  # the signs of two samples
    assert any("One training seed on one side" in note for note in result.notes)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_few_samples_that_all_agree_settle_nothing(n):
    """3:0 is p = 0.25, whatever a bootstrap of three thinks of it."""
    first, second = np.r_[np.ones(n), np.zeros(50)], np.zeros(50 + n)
    told = compare([evals(first)], [evals(second)], seed=0)
    assert told.p == pytest.approx(2 * 0.5**n)
    assert told.verdict == "cannot tell"
    several = compare([evals(first), evals(first)], [evals(second)], seed=0)
    assert several.p == pytest.approx(min(1, 2 * 0.5**n), abs=0.02)
    assert several.verdict == "cannot tell"


def test_verdict_interval_and_p_never_contradict_each_other():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        tables = []
        clusters = rng.integers(0, 30, 60)
        for shift in rng.choice([-0.4, 0, 0, 0.4], 4):
            right = rng.random(60) < 0.5 + shift
            tables.append(evals(right.astype(float), clusters=clusters))
        for result in adjusted([compare([t], [tables[0]], seed=0) for t in tables[1:]]):
            clear = result.p_adjusted < 0.05 and not result.difference.low <= 0 <= result.difference.high
            assert result.p_adjusted >= result.p
            assert (result.verdict != "cannot tell") == clear
            assert result.verdict != ("worse" if result.difference.estimate > 0 else "better")
            seen.add((result.verdict, result.p < 0.05))
    # some are told apart alone, and not among three
    assert seen == {("better", True), ("worse", True), ("cannot tell", True), ("cannot tell", False)}


def test_a_planted_difference_of_3_points_is_told():
    rng = np.random.default_rng(0)
    difference = alike((500, 18), (0.03, 0.91, 0.06), 0.05, rng).ravel()
    clusters = np.repeat(np.arange(500), 18)
    both = rng.random(9000) < 0.8
    first, second = (np.where(difference == 0, both, difference == sign) for sign in (1, -1))
    result = compare([evals(first, clusters=clusters)], [evals(second, clusters=clusters)], seed=0)
    assert result.verdict == "better"
    assert (result.rows, result.clusters) == (9000, 500)
    assert result.difference.estimate == pytest.approx(0.03, abs=0.01)
    unclustered = compare([evals(first)], [evals(second)], seed=0)
    assert unclustered.test == "McNemar, exact"
    width, rows = (r.difference.high - r.difference.low for r in (result, unclustered))
    assert width > 1.15 * rows


def test_holm_counts_the_comparisons_of_a_table():
    base = evals(np.zeros(60))
    results = adjusted([compare([evals(np.r_[np.ones(n), np.zeros(60 - n)])], [base], seed=0) for n in (6, 7, 30)])
    assert [r.p for r in results] == pytest.approx([2 * 0.5**n for n in (6, 7, 30)])
    assert [r.p_adjusted for r in results] == pytest.approx([2 * 0.5**6, 4 * 0.5**7, 6 * 0.5**30])
    assert [r.comparisons for r in results] == [3, 3, 3]
    assert adjusted([]) == []


def test_together_is_what_any_table_has_together():
    one = np.array(["a", "a", None, None, "b", "row:5"], object)
    other = np.array(["x", None, "x", None, "y", "row:5"], object)
    cluster, unknown = merge_clusters([one, one, other])
    assert [cluster[0] == c for c in cluster] == [True, True, True, False, False, False]
    assert len(set(cluster)) == 4
    assert (sorted(set(cluster)), unknown) == ([0, 1, 2, 3], 1)


def test_what_the_interval_does_not_know_is_told():
    scores = np.r_[np.ones(30), np.zeros(30)]
    one = compare([evals(scores, clusters=["p"] * 60)], [evals(np.zeros(60), clusters=["p"] * 60)], seed=0)
    assert (one.verdict, one.p, one.difference.bounded) == ("cannot tell", 1, False)
    assert any("one picture" in note for note in one.notes)
    few = compare(
        [evals(scores, clusters=np.arange(60) % 9)], [evals(np.zeros(60), clusters=np.arange(60) % 9)], seed=0
    )
    assert any("Only 9 pictures" in note for note in few.notes)
    older = compare([evals(scores, clusters=[None] * 60)], [evals(np.zeros(60), clusters=[None] * 60)], seed=0)
    assert older.unknown == 60
    assert any("Of 60 of 60 questions" in note for note in older.notes)
    # one side knows
    assert compare([evals(scores, clusters=[None] * 60)], [evals(np.zeros(60))], seed=0).unknown == 0
    several = compare([evals(scores)] * 3, [evals(scores)] * 3, seed=0)
    assert several.notes == []
    two = compare([evals(scores)] * 2, [evals(scores)], seed=0)
    assert any("rests on 1 degree of freedom" in note for note in two.notes)
    assert any("One training seed on one side" in note for note in two.notes)


def test_seeds_that_differ_widen_the_interval_and_a_sign_test_alone_would_not_know():
    rng = np.random.default_rng(0)
    base = rng.random(2000) < 0.6
    flips = [rng.random(2000) < share for share in (0.0, 0.15, 0.3)]
    runs = [evals(base | flip) for flip in flips]
    lone = compare([runs[1]], [evals(base)], seed=0)
    both = compare(runs, [evals(base)], seed=0)
    assert lone.p < 1e-9
    # six points, by seeds that differ by as many: nothing is known
    assert both.p > 0.3
    assert both.test == "t over seeds and pictures, and random signs of clusters, exact"
    assert both.difference.high - both.difference.low > 3 * (lone.difference.high - lone.difference.low)
    assert both.detectable > 0.2 > lone.detectable


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="3 against 3 samples, 2 in common; '2' is in one of them alone"):
        compare([evals([1, 0, 1])], [evals([1, 0, 1], ["0", "1", "x"])], seed=0)
    with pytest.raises(DuplicateRowsError, match="twice"):
        compare([evals([1, 0], ["a", "a"])], [evals([1, 0])], seed=0)
    with pytest.raises(InputError, match="other samples"):
        read_scores([evals([1, 0]), evals([1])])
    with pytest.raises(InputError, match="at least one"):
        compare([], [evals([1])], seed=0)
    with pytest.raises(InputError, match="no question"):
        compare([evals([])], [evals([])], seed=0)
    with pytest.raises(InputError, match=r"other benchmarks \(b against c\)"):
        compare([evals([1, 0])], [evals([1, 0], benchmark="c")], seed=0)
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match=r"1 of 2 scores are no numbers.*first of '1'"):
            compare([evals([1, bad])], [evals([1, 0])], seed=0)
