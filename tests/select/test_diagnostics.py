"""What is counted of scores, against loops over 32 rows."""

import numpy as np
from vinnow.select import registry
from vinnow.select.diagnostics import Diagnosis, diagnose, without_feature
from vinnow.select.needs import Needs
from vinnow.select.rows import Labels, columns_of, scores_table


def test_clusters_without_a_row_and_rows_of_zeros_are_counted(small, small_written):
    view = small.view(small_written, Needs(("trajectory",)))
    scores = registry.make("xmas", {"clusters": 5}).score(view, 0)
    diagnosis = diagnose(scores)
    group, score = columns_of(scores)[1:]
    pictured = [i for i in range(small.n) if small.columns["has_image"][i]]
    assert (diagnosis.rows, diagnosis.clusters) == (small.n, 5)
    assert diagnosis.empty_clusters == 5 - len(set(group[group >= 0].tolist()))
    assert diagnosis.zero_scores == sum(s == 0 for s in score.tolist())
    zero = {i for s in small.steps for i in pictured if small.pool["trajectory"][s][i][0] == 0}
    assert diagnosis.zero_features == len(zero)


def test_a_row_scores_zero_where_every_target_gives_it_that():
    ids = np.array([1, 2, 3, 1, 2, 3], np.uint64)
    targets = Labels(np.repeat([0, 1], 3), ["a", "b"])
    scores = scores_table(ids, targets, np.zeros(6), np.array([0, 0, 0.5, 0, 0.5, 0]), {"zero_rows": {"1": 4, "2": 7}})
    assert diagnose(scores) == Diagnosis(3, 1, 7, None, None)
    assert diagnose(scores_table(ids[:3], "", np.zeros(3), np.ones(3))) == Diagnosis(3, 0, None, None, None)


def test_rows_without_a_feature_are_told_by_what_was_read():
    assert (
        without_feature({}, 9)
        == without_feature({"zero_rows": {"1": 0}}, 9)
        == without_feature({"zero_rows": 0}, 9)
        == ""
    )
    assert without_feature({"zero_rows": {"1": 2, "2": 2}}, 9).startswith(
        "2 of 9 rows have no gradient and score 0: text"
    )
    assert "(by checkpoint: 1: 2, 2: 3)" in without_feature({"zero_rows": {"1": 2, "2": 3}}, 9)
    # trajectories and embeddings are no gradients
    assert without_feature({"zero_rows": 2}, 9) == "2 of 9 rows have no feature (all zeros): nothing tells them apart."
