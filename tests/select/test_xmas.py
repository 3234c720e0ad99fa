"""XMAS against naive loops: trajectories, total variation, clusters, water-filling, text-only rows."""

import copy
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from vinnow.select import registry
from vinnow.select.methods.xmas import Xmas, cluster
from vinnow.select.needs import Needs
from vinnow.select.pickers import uniform
from vinnow.select.rows import columns_of, read_notes
from vinnow.store.errors import InputError

NEEDS = Needs(("trajectory",))


def run(world, root, budget, seed=0, **config):
    selector = registry.make("xmas", config)
    scores = selector.score(world.view(root, NEEDS), seed)
    return scores, selector.pick(scores, budget, seed)


def naive_trajectories(world, config):
    """{id: [numbers of checkpoint 1, of 2, …]} of the rows with an image, by the definition."""
    rows = [i for i in range(world.n) if world.columns["has_image"][i]]
    out = {int(world.ids[i]): [] for i in rows}
    for step in world.steps:
        values = {i: [float(v) for v in world.pool["trajectory"][step][i]][: config.get("top_k", 5)] for i in rows}
        if config.get("trajectory") != "vectors":
            values = {i: [sum(v)] for i, v in values.items()}
        columns = list(zip(*values.values(), strict=True))
        for i, row in values.items():
            if config.get("scale") == "log":
                row = [np.log(1 + v) for v in row]
            if config.get("scale") == "zscore":
                row = [(v - np.mean(c)) / np.std(c) for v, c in zip(row, columns, strict=True)]
            out[int(world.ids[i])].append(row)
    return out


CONFIGS = [
    {},
    {"top_k": 1},
    {"top_k": 3, "scale": "log"},
    {"scale": "zscore"},
    {"trajectory": "vectors"},
    {"trajectory": "vectors", "scale": "zscore", "kmeans": "sklearn"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_scores_are_minus_the_total_variation_and_groups_are_the_nearest_means(small, small_written, config):
    x = naive_trajectories(small, config)
    scores, _ = run(small, small_written, 5, clusters=4, **config)
    columns = (scores[n].to_pylist() for n in ("sample_id", "target", "group", "score"))
    rows = {i: (t, g, s) for i, t, g, s in zip(*columns, strict=True)}
    for i, steps in x.items():
        moved = sum(abs(b - a) for one, two in pairwise(steps) for a, b in zip(one, two, strict=True))
        assert rows[i][0] == "image"
        assert rows[i][2] == pytest.approx(-moved, rel=1e-5)
    # converged k-means: each row lies nearest to the mean of its own cluster
    flat = {i: np.concatenate(steps) for i, steps in x.items()}
    means = {g: np.mean([flat[i] for i in x if rows[i][1] == g], axis=0) for g in {rows[i][1] for i in x}}
    assert len(means) > 1
    for i in x:
        nearest = min(means, key=lambda g: np.linalg.norm(flat[i] - means[g]))
        assert np.linalg.norm(flat[i] - means[rows[i][1]]) <= np.linalg.norm(flat[i] - means[nearest]) + 1e-4
    for i in set(small.ids.tolist()) - set(x):
        assert rows[i] == ("text", -1, uniform(np.array([i], np.uint64), 0, "xmas text")[0])


def naive_pick(scores, budget, policy, smallest=1):
    """The loop of the release (spec: XMAS §6), with the text policies."""
    ids, group, score = columns_of(scores)
    members = {
        g: sorted((i for i in range(len(ids)) if group[i] == g), key=lambda i: (-score[i], ids[i]))
        for g in set(group.tolist())
    }
    text = members.pop(-1)
    chosen, left = [], budget
    if policy == "cluster":
        members[-1] = text
    elif policy != "none":
        share = {"proportional": budget * len(text) / len(ids), "all": len(text)}[policy]
        quota = int(share) + (share % 1 > 0.5)
        chosen, left = text[:quota], budget - quota
    order = sorted((g for g in members if len(members[g]) >= smallest), key=lambda g: (len(members[g]), g))
    for j, g in enumerate(order):
        taken = members[g][: left // (len(order) - j)]
        chosen, left = chosen + taken, left - len(taken)
    assert left == 0
    return {int(ids[i]) for i in chosen}


@pytest.mark.parametrize("policy", ["proportional", "cluster", "all", "none"])
@pytest.mark.parametrize("budget", [7, 8, 16, 23, 25])
def test_picks_are_the_published_loops(small, small_written, policy, budget):
    scores, picks = run(small, small_written, budget, clusters=5, text_policy=policy)
    assert set(picks["sample_id"].to_pylist()) == naive_pick(scores, budget, policy)


def test_small_clusters_can_be_left_out_as_published(small, small_written):
    scores, _ = run(small, small_written, 5, clusters=12)
    _, group, _ = columns_of(scores)
    sizes = np.bincount(group[group >= 0])
    assert (sizes < 3).any()
    reach = int(sizes[sizes >= 3].sum())
    scores, picks = run(small, small_written, reach, clusters=12, text_policy="none", smallest_cluster=3)
    assert set(picks["sample_id"].to_pylist()) == naive_pick(scores, reach, "none", 3)
    with pytest.raises(InputError, match="budget"):
        run(small, small_written, reach + 1, clusters=12, text_policy="none", smallest_cluster=3)


def test_text_policies_take_what_they_say(world, written):
    text = {int(i) for i, image in zip(world.ids, world.columns["has_image"], strict=True) if not image}
    taken = {
        policy: len(text & set(run(world, written, 45, text_policy=policy)[1]["sample_id"].to_pylist()))
        for policy in ("proportional", "all", "none", "cluster")
    }
    assert len(text) == 18
    assert taken["proportional"] == 9
    assert taken["all"] == 18
    assert taken["none"] == 0
    assert 0 < taken["cluster"] < 18 + 1
    with pytest.raises(InputError, match="18 text-only rows, above a budget of 10"):
        run(world, written, 10, text_policy="all")
    with pytest.raises(InputError, match="budget of 73"):
        run(world, written, 73, text_policy="none")


def test_odd_rows_and_empty_clusters_are_counted(small, tmp_path):
    odd = copy.deepcopy(small)
    image = np.flatnonzero(small.columns["has_image"])
    for vec in odd.pool["trajectory"].values():
        vec[image[4:]] = vec[image[4]]  # 4 + 1 different trajectories
    odd.pool["trajectory"][20][image[0], 3:] = 0  # fewer than k tokens
    odd.pool["trajectory"][30][image[1]] = 0
    odd.write(tmp_path, kinds=["trajectory"])
    scores, picks = run(odd, tmp_path, small.n, clusters=12)
    notes = read_notes(scores)
    assert picks.num_rows == small.n
    assert (notes["short_rows"], notes["zero_rows"]) == (2, 1)
    assert notes["text_rows"] == int((~small.columns["has_image"]).sum())
    assert notes["clusters"] == 12
    assert notes["empty_clusters"] == 12 - len(set(columns_of(scores)[1].tolist()) - {-1}) > 0


def test_the_number_of_clusters(world, written, small, small_written):
    assert read_notes(run(world, written, 5)[0])["clusters"] == 2
    assert registry.make("xmas")._clusters(624_610) == 1000
    assert registry.make("xmas")._clusters(1) == 1
    with pytest.raises(InputError, match="26 clusters of 25 rows"):
        run(small, small_written, 5, clusters=26)
    with pytest.raises(InputError, match="clusters"):
        registry.make("xmas", {"clusters": 0})


def test_what_cannot_be_clustered_is_refused(small, small_written, tmp_path):
    with pytest.raises(InputError, match="top_k is 6"):
        run(small, small_written, 5, top_k=6)
    blind = copy.deepcopy(small)
    blind.columns["has_image"][:] = False
    with pytest.raises(InputError, match="rows with an image"):
        run(blind, small_written, 5)
    short = copy.deepcopy(small)
    short.pool["trajectory"] = {10: small.pool["trajectory"][10]}
    short.write(tmp_path, kinds=["trajectory"])
    with pytest.raises(InputError, match="2 checkpoints or more"):
        run(short, tmp_path, 5)


def test_a_gpu_that_is_not_there_is_said(small, small_written):
    import faiss

    if getattr(faiss, "get_num_gpus", int)():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="faiss finds no GPU"):
        run(small, small_written, 5, kmeans="faiss_gpu")


def test_without_faiss_nothing_else_is_done_silently(small, small_written, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install faiss-cpu"):
        run(small, small_written, 5)
    assert run(small, small_written, 5, kmeans="sklearn")[1].num_rows == 5


REPEAT = """
import faiss, hashlib, sys
import numpy as np
from vinnow.select.methods.xmas import Xmas, cluster
faiss.omp_set_num_threads(int(sys.argv[1]))
x = np.random.default_rng(0).gamma(2, 3, (20000, 12)).astype(np.float32)
labels = cluster(x, 50, Xmas.Config(niter=20, train_points=9000), 1)
sys.stdout.write(hashlib.sha256(labels.tobytes()).hexdigest())
"""


def test_clusters_are_the_same_bits_in_another_process_and_with_more_threads():
    runs = [
        subprocess.run([sys.executable, "-c", REPEAT, threads], capture_output=True, text=True, check=True, cwd="/")
        for threads in ("1", "1", "3")
    ]
    assert len({r.stdout for r in runs}) == 1
    assert len(runs[0].stdout) == 64


def test_train_points_changes_what_is_learnt_from():
    x = np.random.default_rng(0).gamma(2, 3, (4000, 6)).astype(np.float32)
    whole, part = (cluster(x, 20, Xmas.Config(train_points=t), 0) for t in (None, 400))
    assert not np.array_equal(whole, part)
    assert np.array_equal(whole, cluster(x, 20, Xmas.Config(train_points=4000), 0))
    assert len(part) == 4000
    assert not np.array_equal(whole, cluster(x, 20, Xmas.Config(), 1))  # the seed decides where it starts
