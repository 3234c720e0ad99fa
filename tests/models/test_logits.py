"""Logits in losses: at most a budget of bytes at one time, with the values of all at once, and counted in memory."""

import pytest
import torch
from vinnow.actors.config import FeatureConfig
from vinnow.actors.kind import Held, kind_of
from vinnow.models import specs
from vinnow.models.cost import logit_bytes
from vinnow.models.shape import read_shape
from vinnow.models.taps import forward


def loss_and_gradient(hidden, weight, target):
    hidden = hidden.clone().requires_grad_()
    losses = forward._HeadLoss.apply(hidden, weight, target)
    return losses.detach(), torch.autograd.grad(losses.sum(), hidden)[0]


@pytest.mark.parametrize(("vocab", "positions"), [(152_000, 500), (32_000, 2_500)])
def test_the_cut_changes_no_value_and_holds_the_budget(vocab, positions, monkeypatch):
    torch.manual_seed(0)
    hidden, weight = torch.randn(positions, 8), torch.randn(vocab, 8)
    target = torch.randint(0, vocab, (positions,))
    seen, wide = [], forward.wide
    monkeypatch.setattr(forward, "wide", lambda x: seen.append(x.numel() * 4) or wide(x))
    losses, gradient = loss_and_gradient(hidden, weight, target)
    assert len(seen) == 4  # two cuts, there and back
    assert max(seen) <= specs.LOGIT_BYTES
    monkeypatch.setattr(forward, "logit_rows", lambda vocab: 16_384)
    whole = loss_and_gradient(hidden, weight, target)
    # a product of other sizes may be added in another order
    torch.testing.assert_close(losses, whole[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, whole[1], rtol=1e-5, atol=1e-6)


def test_one_position_always_has_its_logits():
    assert specs.logit_rows(10**9) == 1
    assert specs.logit_rows(32_000) == 2_097


def test_kinds_that_read_logits_count_them(tiny_model):
    shape = read_shape(tiny_model)
    held, fewer = Held(4, 60, 1, 3), logit_bytes(shape, 240, 4)
    assert fewer == 240 * shape.vocab * 12
    assert logit_bytes(shape, 10**9, 2) <= specs.LOGIT_BYTES / 4 * 10
    for name, reads in {"loss": 1, "entropy": 1, "gradient": 1, "embedding": 0, "trajectory": 0}.items():
        kind = kind_of(FeatureConfig.parse({"kind": name, "precision": "float32"}))
        assert kind.logits(shape, held) == fewer * reads, name
        assert kind.memory(shape, held) > kind.logits(shape, held)
    counted = kind_of(FeatureConfig.parse({"kind": "loss", "precision": "float32"})).memory(shape, held)
    without = kind_of(FeatureConfig.parse({"kind": "embedding", "precision": "float32"})).memory(shape, held)
    assert counted - without == fewer
