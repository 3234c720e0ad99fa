"""LESS on exact products: the scores of LESS itself where nothing was projected, and a naive loop on 32 rows."""

import copy

import numpy as np
import pytest
from vinnow.select import registry
from vinnow.select.rows import read_notes
from vinnow.store.errors import InputError
from vinnow.store.features import FeatureBatch, write_shard
from vinnow.store.keys import recipe_text

DECAY = {10: 1.7e-5, 20: 1.3e-5, 30: 0.3e-5}
TASKS = ["color", "count", "shape"]


def run(world, root, budget=7, weights=None, name="less_exact", **config):
    selector = registry.make(name, config)
    scores = selector.score(world.view(root, selector.needs, checkpoint_weights=weights), 0)
    return scores, selector.pick(scores, budget, 0)


def naive(world, weights):
    """{id: {task: Σ_c w_c product / norm}}, a number at a time."""
    out = {int(i): dict.fromkeys(TASKS, 0.0) for i in world.ids}
    for step, weight in weights.items():
        for i, row, gradient in zip(
            world.ids, world.pool["influence"][step], world.pool["gradient"][step], strict=True
        ):
            norm = sum(float(x) ** 2 for x in gradient) ** 0.5
            for task, product in zip(TASKS, row, strict=True):
                if norm:
                    out[int(i)][task] += weight / sum(weights.values()) * float(product) / norm
    return out


@pytest.mark.parametrize("targets", [None, ["shape", "color"], ["count"]])
@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_scores_and_picks_are_the_naive_loops(small, small_written, aggregate, targets):
    scores, picks = run(small, small_written, 7, DECAY, aggregate=aggregate, targets=targets)
    fold = max if aggregate == "max" else lambda v: sum(v) / len(v)
    want = {i: fold([row[t] for t in targets or TASKS]) for i, row in naive(small, DECAY).items()}
    got = dict(zip(scores["sample_id"].to_pylist(), scores["score"].to_pylist(), strict=True))
    assert got == pytest.approx(want, abs=1e-6)
    assert picks["sample_id"].to_pylist() == sorted(want, key=lambda i: (-round(want[i], 6), i))[:7]


@pytest.mark.parametrize("aggregate", ["max", "mean", "vote"])
def test_without_a_projection_it_is_less(small, small_written, aggregate):
    """The same rows, targets and weights through the projected path with nothing projected."""
    exact, less = (run(small, small_written, 9, DECAY, n, aggregate=aggregate)[0] for n in ("less_exact", "less"))
    for column in ("sample_id", "target", "group"):
        assert exact[column].equals(less[column])
    np.testing.assert_allclose(exact["score"].to_numpy(), less["score"].to_numpy(), atol=1e-6)


def test_a_vote_is_each_tasks_best_share_then_mean_rank_then_id(small, small_written):
    rows = naive(small, DECAY)
    _, picks = run(small, small_written, 12, DECAY, aggregate="vote", vote_share=0.25)
    count, rank = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0.0)
    for task in TASKS:
        mine = {i: round(row[task], 6) for i, row in rows.items()}
        threshold = np.percentile(list(mine.values()), 75)
        for i in rows:
            count[i] += mine[i] >= threshold
            rank[i] += sum(other > mine[i] for other in mine.values()) / len(TASKS)
    want = sorted(rows, key=lambda i: (-count[i], round(rank[i], 9), i))[:12]
    assert picks["sample_id"].to_pylist() == want
    assert picks["score"].to_pylist() == [count[i] for i in want]


def test_rows_without_a_gradient_score_nothing_and_are_counted(small, small_written):
    scores, _ = run(small, small_written)
    zero = {int(i) for i, v in zip(small.ids, small.pool["gradient"][10], strict=True) if not v.any()}
    got = dict(zip(scores["sample_id"].to_pylist(), scores["score"].to_pylist(), strict=True))
    assert zero
    assert {got[i] for i in zero} == {0.0}
    assert read_notes(scores)["zero_rows"] == dict.fromkeys(map(str, small.steps), len(zero))


def test_an_unknown_target_names_the_nearest(small, small_written):
    with pytest.raises(InputError, match="did you mean 'count'"):
        run(small, small_written, targets=["counts"])


@pytest.mark.parametrize("tasks", [None, [], ["a", "b"], ["a", "b", "b"], ["a", "b", "c", "d"]])
def test_columns_without_one_name_each_are_refused(small, tmp_path, tasks):
    bare = copy.copy(small)
    facts = {} if tasks is None else {"targets": {"tasks": tasks, "digest": "t"}}
    for step, vec in bare.pool["influence"].items():
        batch = FeatureBatch(bare.ids, np.ones(bare.n, np.int32), vec)
        key = bare.key("influence", step, 3, recipe=recipe_text(mode="adam", **facts))
        write_shard(tmp_path / "features", key, "part-0", batch, "float32")
    with pytest.raises(InputError, match="one name a column"):
        run(bare, tmp_path)
