"""Exact influence: products with target means, without a projection, against the un-projected gradients themselves."""

import numpy as np
import pytest
from vinnow.actors.config import ActorResources, CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.means import means_path
from vinnow.actors.stream import make_spec, run_features, run_inline
from vinnow.models.load import load
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.taps.gradients import GradientTap
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.features import FeatureSet

CONFIG = FeatureConfig(kind="influence", which="projector", rows_per_part=16, token_budget=900)
READING = FeatureConfig(kind="loss", rows_per_part=16, token_budget=900)


def raw_gradients(pool, tiny_model):
    """Every row's whole gradient at batch size 1, by id, and its task."""
    spec = make_spec(pool, [CheckpointRef(1, tiny_model)], READING, "unused")
    actor = FeatureActor(spec)
    tap = GradientTap(load(tiny_model).model, "projector", ProjectionConfig(kind="none"), fast=False)
    grads = {}
    for ref in Pool(pool).shards(16):
        part = actor.loader.load(ref.name)
        for i, row in enumerate(part.encoded):
            grads[row.sample_id] = (tap(actor._collate(part, [i]))[0].astype(np.float64), part.tasks[i])
    return grads


@pytest.mark.parametrize("where", ["inline", "ray"])
def test_influence_is_the_inner_product_with_task_means(tiny_pool, target_pool, tiny_model, tmp_path, request, where):
    checkpoints = [CheckpointRef(10, tiny_model), CheckpointRef(20, tiny_model)]
    spec = make_spec(tiny_pool, checkpoints, CONFIG, str(tmp_path), target_pool=target_pool)
    if where == "ray":
        request.getfixturevalue("ray_cluster")
        run_features(spec, ActorResources(actors=2))
    else:
        run_inline(spec)
    targets = raw_gradients(target_pool, tiny_model).values()
    tasks = sorted({t for _, t in targets})
    unit = [(g / np.linalg.norm(g) if g.any() else g, t) for g, t in targets]
    means = np.stack([np.mean([g for g, t in unit if t == task], 0) for task in tasks])
    rows = FeatureSet(str(tmp_path), "influence").load(20)
    exact = raw_gradients(tiny_pool, tiny_model)
    expected = np.stack([means @ exact[int(i)][0] for i in rows.ids])
    assert rows.vec.shape == (60, len(tasks))
    np.testing.assert_allclose(rows.vec, expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(rows.norm, [np.linalg.norm(exact[int(i)][0]) for i in rows.ids], rtol=1e-4)
    assert rows.norm.max() > 0
    before = [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.*")) if p.is_file()]
    assert run_inline(spec).parts == 0
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.*")) if p.is_file()] == before


def test_targets_that_cannot_be_used_say_so(tiny_pool, target_pool, tiny_model, tmp_path):
    with pytest.raises(InputError, match="--target-pool"):
        make_spec(tiny_pool, [CheckpointRef(1, tiny_model)], CONFIG, str(tmp_path))
    with pytest.raises(InputError, match="not a URI"):
        make_spec(tiny_pool, [CheckpointRef(1, tiny_model)], CONFIG, "s3://bucket/out", target_pool=target_pool)
    with pytest.raises(InputError, match="store them as float32"):
        FeatureConfig.parse({"kind": "influence", "dtype": "int8"})
    with pytest.raises(InputError, match="never forms the gradient"):
        FeatureConfig.parse({"projection": {"kind": "kron"}, "mode": "adam"})
    run_inline(make_spec(tiny_pool, [CheckpointRef(1, tiny_model)], CONFIG, str(tmp_path), target_pool=target_pool))
    other = make_spec(tiny_pool, [CheckpointRef(2, tiny_model)], CONFIG, str(tmp_path), target_pool=tiny_pool)
    (tmp_path / "target-means" / "step=00000001.safetensors").rename(means_path(other.out, "influence", 2))
    with pytest.raises(InputError, match="other targets or another checkpoint"):
        run_inline(other)
