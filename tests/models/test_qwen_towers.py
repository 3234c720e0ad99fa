"""Towers of Qwen's families: pictures, or windows of them, attend in one call a length, as each alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._pytree import tree_leaves
from vinnow.models import registry
from vinnow.models.encoding import make_encoder
from vinnow.models.family.of_qwen.family import QwenFamily
from vinnow.models.load import load
from vinnow.pool.collate import stack
from vinnow.pool.encode import Encoded

NAMES = sorted(name for name, family in registry.families().items() if isinstance(family, QwenFamily))
SIZES = {
    "many lengths": [(64, 64), (300, 40), (17, 130), (1000, 700), (64, 64)],
    "one length": [(64, 64), (64, 60), (64, 64)],
    "one picture": [(40, 90)],
}


def picture(size):
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture(scope="module", params=NAMES)
def path(request, tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square"] * 20
    return registry.find(request.param).tiny(str(tmp_path_factory.mktemp(request.param) / "model"), texts)


def test_all_of_them_are_here():
    assert {"qwen2_vl", "qwen2_5_vl", "qwen3_vl"} <= set(NAMES)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_stretches_of_one_length_attend_together_as_each_alone(path, attn, sizes):
    loaded = load(path, attn=attn)
    reader = make_encoder(loaded.processor, "chatml").reader
    media = tuple(reader.prepare(picture(size)) for size in SIZES[sizes])
    batch = reader.finish(stack([Encoded(1, np.arange(3), np.arange(3), ("a",) * len(media), media=media)])["media"])
    batch["pixel_values"] = batch["pixel_values"].double().requires_grad_()
    model = loaded.model.double()
    output = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"])
    alone = torch.stack((output.pooler_output, *getattr(output, "deepstack_features", ())))
    (slope,) = torch.autograd.grad(alone.square().sum(), batch["pixel_values"])
    together = torch.stack(tree_leaves(registry.family_of(model).see(model, batch)))
    assert ("forward" in vars(model.model.visual.blocks[0].attn)) == (attn == "sdpa")
    assert (together - alone).abs().max() <= 1e-12 * alone.abs().max()
    (ours,) = torch.autograd.grad(together.square().sum(), batch["pixel_values"])
    assert (ours - slope).abs().max() <= 1e-12 * slope.abs().max()
