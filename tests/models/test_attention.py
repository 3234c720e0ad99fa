"""Attention trajectories: each reading against a naive loop, against `output_attentions`, and alone against in company."""

import numpy as np
import pytest
import torch
from batches import LENGTHS, inputs_of, make_batch
from vinnow.models.forward import on_device
from vinnow.models.load import load
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.singular import exact, gram, iterated, top_singular_values
from vinnow.store.errors import InputError


def raw_outputs(model, batch, mask=True):
    """Every layer's q_proj and k_proj outputs [B, L, W], by hooks on Hugging Face's own forward."""
    kept = []
    hooks = [
        getattr(layer.self_attn, p).register_forward_hook(lambda m, a, out: kept.append(out))
        for layer in model.model.language_model.layers
        for p in ("q_proj", "k_proj")
    ]
    names = ("input_ids", "attention_mask") if mask else ("input_ids",)
    with torch.no_grad():
        model(**inputs_of(batch, *names))
    for h in hooks:
        h.remove()
    return list(zip(kept[::2], kept[1::2], strict=True))


def naive(model, row, k=5):
    """The formula of the paper for one sample, with loops: flat q·kᵀ, softmax over its keys, text × image, sum, SVD."""
    batch = make_batch(model, [row])
    image = (batch["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    if not len(image):
        return np.zeros(k)
    total = 0
    for q, key in raw_outputs(model, batch):
        q, key, block = q[0].double(), key[0].double(), []
        for t in range(int(image[-1]) + 1, q.shape[0]):
            weights = torch.softmax(q[t] @ key.T / q.shape[1] ** 0.5, 0)
            block.append(weights[image])
        total = total + torch.stack(block)
    return torch.linalg.svdvals(total)[:k].numpy()


def naive_heads(path, row, k=5):
    """The attention that the eager model says it computes, averaged over heads, text × image, summed over layers."""
    model = load(path, attn="eager").model
    batch = make_batch(model, [row])
    image = (batch["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    if not len(image):
        return np.zeros(k)
    with torch.no_grad():
        out = model(**inputs_of(batch, "input_ids"), output_attentions=True)
    whole = sum(a[0].double().mean(0) for a in out.attentions)
    return torch.linalg.svdvals(whole[int(image[-1]) + 1 :, image])[:k].numpy()


@pytest.mark.parametrize("reading", ["flat", "heads"])
def test_values_equal_the_naive_loop(tiny_model, reading):
    model = load(tiny_model).model
    got = AttentionTap(model, 5, reading)(make_batch(model))
    for i in range(len(LENGTHS)):
        expected = naive(model, i) if reading == "flat" else naive_heads(tiny_model, i)
        np.testing.assert_allclose(got[i], expected, rtol=2e-5, atol=1e-6)
    assert not got[3].any()
    assert (np.diff(got[0]) <= 0).all()
    assert got[0].min() > 0


@pytest.mark.parametrize("reading", ["flat", "heads"])
@pytest.mark.parametrize("mates", [[0], [0, 3], [0, 1], [4, 0, 1, 2], [0, 4, 4]])
def test_a_row_does_not_depend_on_its_batch_mates(tiny_model, mates, reading):
    model = load(tiny_model).model
    tap = AttentionTap(model, 5, reading)
    alone = tap(make_batch(model, [0]))[0]
    np.testing.assert_allclose(tap(make_batch(model, mates))[mates.index(0)], alone, rtol=1e-5)


def test_the_pass_ends_at_the_last_keys(tiny_model):
    model = load(tiny_model).model
    ran = []
    for i, layer in enumerate(model.model.language_model.layers):
        layer.mlp.register_forward_hook(lambda *_, i=i: ran.append(i))
    model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    AttentionTap(model, 5)(make_batch(model))
    assert ran == list(range(len(model.model.language_model.layers) - 1))
    AttentionTap(model, 5)(make_batch(model, [3]))  # text only: nothing to look at
    assert len(ran) == len(model.model.language_model.layers) - 1


def test_rows_must_be_padded_on_the_right(tiny_model):
    model = load(tiny_model).model
    batch = make_batch(model)
    batch["attention_mask"] = batch["attention_mask"].flip(1)
    with pytest.raises(InputError, match="padded on the right"):
        on_device(batch, model)


def test_top_singular_values_equal_svdvals():
    rng = torch.Generator().manual_seed(0)
    # a spectrum over six decades, tall and wide; pads must not matter
    for rows, cols in ((40, 16), (7, 64)):
        u, _ = torch.linalg.qr(torch.randn(rows, min(rows, cols), generator=rng).double())
        v, _ = torch.linalg.qr(torch.randn(cols, min(rows, cols), generator=rng).double())
        s = torch.logspace(2, -4, min(rows, cols)).double()
        block = (u * s) @ v.T
        padded = torch.zeros(2, rows + 9, cols).double()
        padded[0, :rows] = block
        got = top_singular_values(padded, 5)
        np.testing.assert_allclose(got[0], torch.linalg.svdvals(block)[:5], rtol=1e-5)
        assert not got[1].any()


def test_a_block_that_is_not_finite_spoils_nobody_else():
    blocks = torch.rand(3, 60, 40, generator=torch.Generator().manual_seed(0))
    blocks[1, 3, 3] = torch.nan
    for values in (iterated(gram(blocks), 5)[0], exact(gram(blocks), 5)):
        assert values[1].isnan().all()
        assert torch.allclose(values[[0, 2]], torch.linalg.svdvals(blocks[[0, 2]].double())[:, :5])


SPECTRA = {
    "steep": lambda i: torch.exp(-i / 2),
    "slow": lambda i: i**-0.5,
    "flat": lambda i: 1 - i * 1e-3,
    "noise": lambda i: 1 - (i / 200) ** 0.67,
    "rank 7": lambda i: (i <= 7) / i,
}


@pytest.mark.parametrize("name", list(SPECTRA))
@pytest.mark.parametrize("shape", [(90, 200), (200, 60)])
def test_iteration_is_exact_or_says_that_it_is_not(name, shape):
    rng = torch.Generator().manual_seed(1)
    u, _ = torch.linalg.qr(torch.randn(3, shape[0], min(shape), generator=rng).double())
    v, _ = torch.linalg.qr(torch.randn(3, shape[1], min(shape), generator=rng).double())
    blocks = (u * SPECTRA[name](torch.arange(1, min(shape) + 1).double())) @ v.transpose(1, 2)
    blocks[1, shape[0] // 2 :] = 0
    blocks[2] = 0
    got, bad = iterated(gram(blocks), 5)
    expected = torch.linalg.svdvals(blocks)[:, :5]
    assert torch.allclose(got[~bad], expected[~bad], rtol=1e-8, atol=1e-7)
    assert not bad[2]
    if name != "flat":
        assert not bad.any()
    assert torch.allclose(exact(gram(blocks), 5), expected, rtol=1e-8, atol=1e-7)
    alone, _ = iterated(
        gram(torch.cat([blocks[:1], torch.zeros(1, 30, shape[1]).double()], 1) if shape[0] < shape[1] else blocks[:1]),
        5,
    )
    if name != "flat":
        assert torch.allclose(alone[0], got[0], rtol=1e-9, atol=1e-9)


def test_fewer_rows_than_k_gives_zeros_behind():
    got = top_singular_values(torch.ones(1, 2, 8), 5)
    np.testing.assert_allclose(got, [[4, 0, 0, 0, 0]], atol=1e-6)


def test_the_value_moves_with_the_weights(tiny_model):
    model = load(tiny_model).model
    before = AttentionTap(model, 3)(make_batch(model))
    with torch.no_grad():
        model.model.language_model.layers[0].self_attn.q_proj.weight.mul_(30)
    assert np.abs(AttentionTap(model, 3)(make_batch(model))[0] - before[0]).max() > 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("reading", ["flat", "heads"])
def test_a_gpu_gives_the_same_values(tiny_model, reading):
    model = load(tiny_model).model
    expected = AttentionTap(model, 5, reading)(make_batch(model))
    got = AttentionTap(model.cuda(), 5, reading)(make_batch(model))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
