"""The embedding tap against Hugging Face's own forward pass, a row at a time and without pads."""

import json

import numpy as np
import pytest
import torch
from batches import make_batch
from vinnow.models.cost import RowSize, forward_flop
from vinnow.models.load import load
from vinnow.models.shape import hidden_size, read_shape
from vinnow.models.taps.forward import EmbeddingTap
from vinnow.store.errors import InputError


@pytest.fixture(scope="module")
def model(tiny_model):
    return load(tiny_model, "float64").model


def naive(model, batch, row, pooling):
    n = int(batch["attention_mask"][row].sum())
    ids = batch["input_ids"][row, :n].tolist()
    pixels = None
    if row in batch["image_owner"].tolist():
        pixels = batch["media"]["pixel_values"][batch["image_owner"] == row].double()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), pixel_values=pixels, output_hidden_states=True)
    last, first = out.hidden_states[-1][0], out.hidden_states[0][0]
    mark = model.config.image_token_id
    text = [last[i] for i, token in enumerate(ids) if token != mark]
    image = [first[i] for i, token in enumerate(ids) if token == mark]
    zero = torch.zeros(last.shape[1], dtype=last.dtype)
    means = {"text": sum(text) / len(text), "image": sum(image) / len(image) if image else zero}
    return np.concatenate([means[p].numpy() for p in (("text", "image") if pooling == "both" else (pooling,))])


@pytest.mark.parametrize("pooling", ["text", "image", "both"])
def test_equals_a_forward_pass_of_one_row(model, pooling):
    batch = make_batch(model)
    tap = EmbeddingTap(model, pooling)
    vec = tap(batch)
    assert vec.dtype == np.float32
    assert vec.shape == (5, tap.dim)
    for row in range(5):
        np.testing.assert_allclose(vec[row], naive(model, batch, row, pooling), rtol=1e-5, atol=1e-7)
    # alone, in another order, without any picture
    np.testing.assert_allclose(tap(make_batch(model, rows=(3,)))[0], vec[3], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tap(make_batch(model, rows=(4, 0)))[::-1], vec[[0, 4]], rtol=1e-5, atol=1e-7)


def test_the_width_is_read_from_the_config(tiny_model, tmp_path):
    assert hidden_size(tiny_model) == 64
    adapter = {"base_model_name_or_path": tiny_model, "r": 2, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    assert hidden_size(str(tmp_path)) == 64
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="no LLaVA"):
        hidden_size(str(tmp_path / "plain"))


def test_it_costs_a_forward_pass_without_the_head(tiny_model):
    shape, row = read_shape(tiny_model), RowSize.fixed(60, labels=9)
    loss, embedding = (forward_flop(shape, row, head).items for head in (True, False))
    assert embedding == {k: v for k, v in loss.items() if k != "lm_head fwd"}
    assert len(embedding) == len(loss) - 1
