"""Attention trajectories: against a naive loop, against `torch.linalg.svdvals`, and alone against in company."""

import numpy as np
import pytest
import torch
from batches import LENGTHS, make_batch
from vinnow.models.load import load
from vinnow.models.taps.attention import AttentionTap, top_singular_values


def naive(model, row, k=5):
    """The formula of the paper for one sample, with loops: flat q·kᵀ, softmax over its keys, text × image, sum, SVD."""
    batch = make_batch(model, [row])
    kept = []
    hooks = [
        getattr(layer.self_attn, p).register_forward_hook(lambda m, a, out: kept.append(out[0].double()))
        for layer in model.model.language_model.layers
        for p in ("q_proj", "k_proj")
    ]
    with torch.no_grad():
        model(**{n: batch[n] for n in ("input_ids", "attention_mask", "pixel_values")})
    for h in hooks:
        h.remove()
    image = (batch["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    if not len(image):
        return np.zeros(k)
    total = 0
    for q, key in zip(kept[::2], kept[1::2], strict=True):
        block = []
        for t in range(int(image[-1]) + 1, q.shape[0]):
            weights = torch.softmax(q[t] @ key.T / q.shape[1] ** 0.5, 0)
            block.append(weights[image])
        total = total + torch.stack(block)
    return torch.linalg.svdvals(total)[:k].numpy()


def test_values_equal_the_naive_loop(twin_path):
    model = load(twin_path).model
    got = AttentionTap(model, 5)(make_batch(model))
    for i in range(len(LENGTHS)):
        np.testing.assert_allclose(got[i], naive(model, i), rtol=1e-5, atol=1e-7)
    assert not got[3].any()
    assert (np.diff(got[0]) <= 0).all()
    assert got[0].min() > 0


@pytest.mark.parametrize("mates", [[0], [0, 3], [0, 1], [4, 0, 1, 2], [0, 4, 4]])
def test_a_row_does_not_depend_on_its_batch_mates(twin_path, mates):
    model = load(twin_path).model
    tap = AttentionTap(model, 5)
    alone = tap(make_batch(model, [0]))[0]
    np.testing.assert_allclose(tap(make_batch(model, mates))[mates.index(0)], alone, rtol=1e-5)


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


def test_fewer_rows_than_k_gives_zeros_behind():
    got = top_singular_values(torch.ones(1, 2, 8), 5)
    np.testing.assert_allclose(got, [[4, 0, 0, 0, 0]], atol=1e-6)


def test_the_value_moves_with_the_weights(twin_path):
    model = load(twin_path).model
    before = AttentionTap(model, 3)(make_batch(model))
    with torch.no_grad():
        model.model.language_model.layers[0].self_attn.q_proj.weight.mul_(30)
    assert np.abs(AttentionTap(model, 3)(make_batch(model))[0] - before[0]).max() > 1e-4
