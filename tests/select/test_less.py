"""LESS against a naive loop on 32 rows: mean in a task, then maximum, mean or votes; weighted checkpoints."""

import copy
import tracemalloc

import numpy as np
import pytest
from vinnow.select import registry
from vinnow.select.methods.less import cosines
from vinnow.select.needs import Needs
from vinnow.select.rows import read_notes
from vinnow.store.errors import InputError, KeyMismatchError
from vinnow.store.features import FeatureBatch, write_shard
from vinnow.store.keys import recipe_text
from vinnow.store.quantise import roundtrip

NEEDS = Needs(("gradient",), targets=True)


def unit(v):
    norm = sum(float(x) ** 2 for x in v) ** 0.5
    return [float(x) / norm if norm else 0.0 for x in v]


def naive(world, weights, tasks):
    """Σ_c w_c · mean over the task's rows of cos(row, target), a product at a time: {id: {task: score}}."""
    out = {}
    for i in range(world.n):
        out[int(world.ids[i])] = row = dict.fromkeys(tasks, 0.0)
        for step, weight in weights.items():
            mine = unit(world.pool["gradient"][step][i])
            for task in tasks:
                cos = [
                    sum(a * b for a, b in zip(mine, unit(v), strict=True))
                    for v, t in zip(world.targets[step], world.tasks, strict=True)
                    if t == task
                ]
                row[task] += weight / sum(weights.values()) * sum(cos) / len(cos)
    return out


def run(world, root, budget, weights=None, **config):
    selector = registry.make("less", config)
    scores = selector.score(world.view(root, NEEDS, checkpoint_weights=weights), 0)
    return scores, selector.pick(scores, budget, 0)["sample_id"].to_pylist()


EQUAL = {10: 1.0, 20: 1.0, 30: 1.0}
DECAY = {10: 1.7e-5, 20: 1.3e-5, 30: 0.3e-5}


@pytest.mark.parametrize("weights", [EQUAL, DECAY])
@pytest.mark.parametrize("targets", [None, ["shape", "color"]])
@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_scores_and_picks_are_the_naive_loops(small, small_written, aggregate, targets, weights):
    expected = naive(small, weights, targets or sorted(set(small.tasks)))
    scores, picks = run(small, small_written, 7, weights, aggregate=aggregate, targets=targets)
    fold = max if aggregate == "max" else lambda v: sum(v) / len(v)
    want = {i: fold(list(row.values())) for i, row in expected.items()}
    got = dict(zip(scores["sample_id"].to_pylist(), scores["score"].to_pylist(), strict=True))
    assert got == pytest.approx(want, abs=1e-6)
    # rounding joins what a repeated gradient makes equal
    assert picks == sorted(want, key=lambda i: (-round(want[i], 6), i))[:7]
    if aggregate == "max":
        for i, target in zip(scores["sample_id"].to_pylist(), scores["target"].to_pylist(), strict=True):
            assert expected[i][target] == pytest.approx(want[i], abs=1e-6)


def test_a_vote_is_each_tasks_best_share(small, small_written):
    rows = naive(small, EQUAL, sorted(set(small.tasks)))
    scores, picks = run(small, small_written, 12, aggregate="vote", vote_share=0.25)
    assert scores.num_rows == 3 * small.n
    got = {
        (i, t): s for i, t, s in zip(*(scores[n].to_pylist() for n in ("sample_id", "target", "score")), strict=True)
    }
    assert got == pytest.approx({(i, t): s for i, row in rows.items() for t, s in row.items()}, abs=1e-6)
    count, rank = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
    for task in set(small.tasks):
        mine = {i: round(row[task], 6) for i, row in rows.items()}
        threshold = np.percentile(list(mine.values()), 75)
        for i in rows:
            count[i] += mine[i] >= threshold
            rank[i] += sum(other > mine[i] for other in mine.values())
    assert picks == sorted(rows, key=lambda i: (-count[i], rank[i], i))[:12]


def test_checkpoint_weights_of_the_config_win_over_the_runs_and_zero_skips_a_checkpoint(small, small_written):
    by_run, _ = run(small, small_written, 5, DECAY)
    by_config, _ = run(small, small_written, 5, EQUAL, checkpoint_weights=DECAY)
    assert by_run["score"].equals(by_config["score"])
    last, _ = run(small, small_written, 5, checkpoint_weights={10: 0, 20: 0, 30: 2.0})
    want = naive(small, {30: 1.0}, sorted(set(small.tasks)))
    got = dict(zip(last["sample_id"].to_pylist(), last["score"].to_pylist(), strict=True))
    assert got == pytest.approx({i: max(r.values()) for i, r in want.items()}, abs=1e-6)
    assert read_notes(last)["checkpoint_weights"] == {"30": 1.0}


@pytest.mark.parametrize(
    "weights",
    [{10: 1.0}, {10: 1, 20: 1, 30: 1, 40: 1}, dict.fromkeys((10, 20, 30), 0.0), {10: -1, 20: 1, 30: 1}],
)
def test_checkpoint_weights_that_do_not_fit_are_refused(small, small_written, weights):
    with pytest.raises(InputError, match="checkpoint weights"):
        run(small, small_written, 5, checkpoint_weights=weights)


def test_zero_gradients_score_nothing_and_are_counted(small, small_written):
    scores, _ = run(small, small_written, 5)
    zero = {int(i) for i, v in zip(small.ids, small.pool["gradient"][10], strict=True) if not v.any()}
    got = dict(zip(scores["sample_id"].to_pylist(), scores["score"].to_pylist(), strict=True))
    assert zero
    assert {got[i] for i in zero} == {0.0}
    assert read_notes(scores)["zero_rows"] == dict.fromkeys(map(str, small.steps), len(zero))


def test_a_task_that_is_unknown_or_has_no_gradient_is_refused(small, small_written, tmp_path):
    with pytest.raises(InputError, match="did you mean 'color'"):
        run(small, small_written, 5, targets=["colour"])
    blank = copy.deepcopy(small)
    for vec in blank.targets.values():
        vec[small.tasks == "shape"] = 0
    blank.write(tmp_path, kinds=["gradient"])
    with pytest.raises(InputError, match="'shape' has no gradient at step 10"):
        run(blank, tmp_path, 5)
    assert len(run(blank, tmp_path, 5, targets=["color", "count"])[1]) == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": "other"}, "model"),
        ({"recipe": recipe_text(mode="sgd", seed=1)}, "recipe.seed: 0 against 1"),
        ({"recipe": recipe_text(mode="sgd", seed=0, extra=1)}, "recipe.extra"),
    ],
)
def test_targets_made_otherwise_are_refused_by_field(small, tmp_path, changes, field):
    small.write(tmp_path, kinds=["gradient"])
    small.write_targets(tmp_path, **changes)  # over the fitting ones
    with pytest.raises(KeyMismatchError, match=field):
        run(small, tmp_path, 5)


def test_cosines_do_not_depend_on_how_rows_are_cut():
    rng = np.random.default_rng(0)
    rows, means = rng.normal(size=(700, 1024)).astype(np.float32), rng.normal(size=(1024, 57)).astype(np.float32)
    whole, _ = cosines(rows, means)
    for size in (1, 3, 64, 97):
        cut = np.concatenate([cosines(rows[i : i + size], means)[0] for i in range(0, 700, size)])
        assert np.array_equal(whole, cut)
    norms = np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    np.testing.assert_allclose(whole, rows.astype(float) @ means / norms, atol=1e-5)


@pytest.mark.parametrize("stored", ["float16", "int8", "bit1"])
def test_quantised_rows_are_compared_as_they_come_back(small, tmp_path, stored):
    small.write(tmp_path, kinds=["gradient"], dtype=stored)
    back = copy.copy(small)
    back.pool = {"gradient": {s: roundtrip(v, stored) for s, v in small.pool["gradient"].items()}}
    want = {i: max(row.values()) for i, row in naive(back, DECAY, sorted(set(small.tasks))).items()}
    scores, _ = run(small, tmp_path, 5, DECAY)
    got = dict(zip(scores["sample_id"].to_pylist(), scores["score"].to_pylist(), strict=True))
    assert got == pytest.approx(want, abs=1e-6)


def test_the_norm_that_was_divided_out_is_not_divided_out_again(small, small_written, tmp_path):
    small.write_targets(tmp_path)
    for step, vec in small.pool["gradient"].items():
        batch = FeatureBatch(small.ids, np.ones(small.n, np.int32), vec, norm=np.full(small.n, 123.0))
        write_shard(tmp_path / "features", small.key("gradient", step, vec.shape[1]), "part-0", batch, "float32")
    assert run(small, tmp_path, 5)[0].equals(run(small, small_written, 5)[0])


def test_adam_rows_meet_sgd_targets_and_moments_differ_between_steps(small, small_written, tmp_path):
    small.write_targets(tmp_path)
    for step, vec in small.pool["gradient"].items():
        key = small.key("gradient", step, vec.shape[1], optimizer=f"moments{step}")
        batch = FeatureBatch(small.ids, np.ones(small.n, np.int32), vec)
        write_shard(tmp_path / "features", key, "part-0", batch, "float32")
    assert run(small, tmp_path, 5)[0].equals(run(small, small_written, 5)[0])


@pytest.mark.parametrize("stored", ["float32", "bit1"])
def test_scoring_never_holds_the_pools_vectors(world, tmp_path, stored):
    """Peak memory of 1,600 rows × 8192 (52 MB as float32) in parts of 20: a few parts, not the pool."""
    rng, dim, n = np.random.default_rng(0), 8192, 1600
    wide = copy.copy(world)
    wide.ids, wide.columns = np.arange(n, dtype=np.uint64), {}
    wide.targets = {10: rng.normal(size=(len(world.tasks), dim)).astype(np.float32)}
    key = wide.key("gradient", 10, dim)
    for p, ids in enumerate(np.array_split(wide.ids, n // 20)):
        vec = rng.normal(size=(20, dim)).astype(np.float32)
        write_shard(tmp_path / "features", key, f"part-{p:03d}", FeatureBatch(ids, ids.astype(np.int32), vec), stored)
    batch = FeatureBatch(wide.ids[:8], np.ones(8, np.int32), wide.targets[10], world.tasks)
    target_key = wide.key("gradient", 10, dim, recipe=recipe_text(mode="sgd", seed=0))
    write_shard(tmp_path / "targets", target_key, "part-0", batch, "float32")
    wide.n = n
    view = wide.view(tmp_path, NEEDS)
    tracemalloc.start()
    try:
        registry.make("less").score(view, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * dim * 4 / 8
