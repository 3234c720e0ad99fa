"""Adam modes through the whole stage: moments found in the checkpoint, in the key, and equal to the naive formula."""

import shutil

import numpy as np
import pytest
import torch
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.load import load
from vinnow.models.moments import MOMENTS, save_moments
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.projections.signs import rademacher_signs
from vinnow.models.taps.gradients import GradientTap
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, KeyMismatchError
from vinnow.store.features import FeatureSet

CONFIG = FeatureConfig(
    mode="adam", projection=ProjectionConfig(dim=64), rows_per_part=32, token_budget=900, unit_rows=False
)


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    """The tiny model with moments of its projector beside it, as a training with save_moments leaves them."""
    folder = shutil.copytree(tiny_model, tmp_path / "checkpoint-7")
    tap = GradientTap(load(tiny_model).model, "projector", CONFIG.projection)
    generator = torch.Generator().manual_seed(0)
    first = {n: torch.randn(p.shape, generator=generator) * 1e-3 for n, p in tap.parameters().items()}
    second = {n: torch.rand(p.shape, generator=generator) * 1e-7 for n, p in tap.parameters().items()}
    save_moments(folder / MOMENTS, first, second, 7, (0.9, 0.999), 1e-8)
    return str(folder), first, second


def test_adam_features_are_the_naive_formula(tiny_pool, checkpoint, tmp_path):
    folder, first, second = checkpoint
    spec = make_spec(tiny_pool, [CheckpointRef(7, folder)], CONFIG, str(tmp_path / "out"))
    report = run_inline(spec)
    assert report.extra["entries"] > 0
    assert 0 < report.extra["under_eps"] < 1
    rows = FeatureSet(str(tmp_path / "out"), "gradient").load(7)
    actor = FeatureActor(spec)
    raw = GradientTap(load(folder).model, "projector", ProjectionConfig(kind="none"), fast=False)
    part = actor.loader.load(Pool(tiny_pool).shards(32)[0].name)
    names, begin = raw.sizes(), 0
    g = raw(actor._collate(part, list(range(len(part.encoded))))).astype(np.float64)
    expected = np.zeros((len(g), 64))
    for name, size in names.items():
        m, v = first[name].double().flatten().numpy(), second[name].double().flatten().numpy()
        piece, begin = g[:, begin : begin + size], begin + size
        up = (0.9 * m + 0.1 * piece) / (1 - 0.9**8)
        down = (0.999 * v + 0.001 * piece**2) / (1 - 0.999**8)
        signs = rademacher_signs(0, name, (0, size), 64, dtype=torch.float64).numpy() / 8
        expected += (up / (np.sqrt(down) + 1e-8)) @ signs
    has_image = np.array([bool(e.images) for e in part.encoded])
    expected *= has_image[:, None]  # a text-only row has no gradient in the projector: no momentum either
    by_id = dict(zip(rows.ids.tolist(), rows.vec, strict=True))
    got = np.stack([by_id[e.sample_id] for e in part.encoded])
    assert 0 < has_image.sum() < len(part.encoded)
    assert np.abs(got - expected).max() <= 2e-4 * np.abs(expected).max()


def test_another_optimizer_state_is_another_feature(tiny_pool, checkpoint, tiny_model, tmp_path):
    folder, first, second = checkpoint
    run_inline(make_spec(tiny_pool, [CheckpointRef(7, folder)], CONFIG, str(tmp_path / "out")))
    save_moments(tmp_path / "other.safetensors", first, second, 8, (0.9, 0.999), 1e-8)
    other = make_spec(
        tiny_pool, [CheckpointRef(7, folder, str(tmp_path / "other.safetensors"))], CONFIG, str(tmp_path / "out")
    )
    with pytest.raises(KeyMismatchError, match="optimizer"):
        run_inline(other)
    with pytest.raises(InputError, match="no optimizer state"):
        make_spec(tiny_pool, [CheckpointRef(7, tiny_model)], CONFIG, str(tmp_path / "out"))
    targets = make_spec(tiny_pool, [CheckpointRef(7, tiny_model)], CONFIG, str(tmp_path / "t"), targets=True)
    assert targets.config.mode == "sgd"
    assert targets.keys[0].optimizer == ""
