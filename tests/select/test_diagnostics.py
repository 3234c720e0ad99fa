"""What the report shows, against loops over 32 rows."""

import numpy as np
import pytest
from vinnow.select import registry
from vinnow.select.diagnostics import by_column, by_task, overlap, score_histogram, trajectory_clusters
from vinnow.select.needs import Needs
from vinnow.select.rows import columns_of
from vinnow.store.errors import MissingRowsError


def test_counts_overlap_and_histogram(small, small_written, world, written):
    view = small.view(small_written, Needs())
    random = registry.make("random")
    scores = random.score(view, 0)
    few, many = (random.pick(scores, b, 0) for b in (10, 20))
    chosen = set(few["sample_id"].to_pylist())
    rows = [i for i in range(small.n) if int(small.ids[i]) in chosen]
    tasks = [small.columns["task"][i] for i in rows]
    assert by_task(few, view) == {t: tasks.count(t) for t in sorted(set(tasks), key=lambda t: (-tasks.count(t), t))}
    assert sum(by_column(few, view, "source").values()) == 10
    assert overlap(few, many) == overlap(many, few) == 1
    other = random.pick(random.score(view, 1), 20, 1)
    shared = chosen & set(other["sample_id"].to_pylist())
    assert overlap(few, other) == len(shared) / 10
    edges, rows, picked = score_histogram(scores, few, 8)
    assert (len(edges), rows.sum(), picked.sum()) == (9, small.n, 10)
    assert (picked <= rows).all()
    assert picked[-1] == rows[-1] > 0
    with pytest.raises(MissingRowsError, match="0 of 10"):
        by_task(few, world.view(written, Needs()))


def test_clusters_with_their_mean_trajectories_and_sources(small, small_written):
    view = small.view(small_written, Needs(("trajectory",)))
    scores = registry.make("xmas", {"clusters": 5}).score(view, 0)
    ids, group, _ = columns_of(scores)
    mine = dict(zip(ids.tolist(), group.tolist(), strict=True))
    clusters = trajectory_clusters(view, scores, 3)
    sizes = sorted(np.bincount(group[group >= 0]).tolist(), reverse=True)
    assert [c.rows for c in clusters] == sizes[:3]
    for c in clusters:
        rows = [i for i in range(small.n) if mine[int(small.ids[i])] == c.group]
        want = [np.mean([small.pool["trajectory"][s][i].sum() for i in rows]) for s in small.steps]
        assert c.mean == pytest.approx(want, rel=1e-5)
        sources = [small.columns["source"][i] for i in rows]
        assert c.sources == {s: sources.count(s) for s in set(sources)}
    assert sum(c.rows for c in trajectory_clusters(view, scores, 99)) == int(small.columns["has_image"].sum())
