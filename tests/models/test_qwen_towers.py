"""Qwen's families: pictures, or windows of them, attend in one call a length, as each alone; positions without a loop."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._pytree import tree_leaves
from vinnow.models import registry
from vinnow.models.encoding import make_encoder
from vinnow.models.family.of_qwen.family import QwenFamily
from vinnow.models.family.of_qwen.positions import positions
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


@pytest.mark.parametrize("rows", [["ttit", "tititt", "tt"], ["tit"], ["i", "iit"], ["tt", "tii"]], ids="-".join)
def test_positions_are_those_of_hugging_face(path, rows):
    model = load(path).model
    image, merge = model.config.image_token_id, model.config.vision_config.spatial_merge_size
    rng = np.random.default_rng(0)
    grids, ids = [], []
    for row in rows:
        tokens = []
        for kind in row:
            if kind == "t":
                tokens += [9] * int(rng.integers(1, 7))
                continue
            high, wide = map(int, rng.integers(1, 6, 2))
            grids.append([1, merge * high, merge * wide])
            # a picture's marks stand around it
            tokens += [7, *[image] * (high * wide), 8]
        ids.append(torch.tensor(tokens))
    ids_BT = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    mask_BT = torch.nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
    grids_I3, image_BT = torch.tensor(grids), ids_BT == image
    expected, _ = model.model.get_rope_index(ids_BT, image_BT.int(), grids_I3, attention_mask=mask_BT)
    ours = positions(mask_BT, torch.nonzero(image_BT, as_tuple=True), grids_I3, merge)
    assert ours.dtype == expected.dtype
    assert torch.equal(ours, expected)
