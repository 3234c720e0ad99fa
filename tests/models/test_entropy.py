"""The entropy tap against softmax over whole logits, and what its slices take."""

import numpy as np
import pytest
import torch
from batches import make_batch
from vinnow.models.load import load
from vinnow.models.taps import entropy
from vinnow.models.taps.entropy import EntropyTap, entropies
from vinnow.models.taps.forward import on_device


@pytest.fixture(scope="module")
def model(tiny_model):
    twin = load(tiny_model, "float64").model
    with torch.no_grad():  # random weights are as good as undecided
        twin.lm_head.weight.mul_(40)
    return twin


def naive(model, batch):
    """Return each row's mean entropy, of Hugging Face's own logits."""
    with torch.no_grad():
        inputs = on_device(batch, model)
        pixels = inputs["media"]["pixel_values"]
        out = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], pixel_values=pixels.to(model.dtype)
        )
    probs = out.logits.softmax(-1)
    means = []
    for row, labels in enumerate(batch["labels"].tolist()):
        terms = [-(p * p.log()).sum().item() for p, label in zip(probs[row], labels[1:], strict=False) if label != -100]
        means.append(sum(terms) / max(1, len(terms)))
    return np.array(means)


@pytest.mark.parametrize("words", [1, 7, 4096])
def test_equals_the_entropy_of_whole_logits(model, monkeypatch, words):
    monkeypatch.setattr(entropy, "SLICE", words)
    batch = make_batch(model)
    vec = EntropyTap(model)(batch)
    assert vec.shape == (5, 1)
    np.testing.assert_allclose(vec[:, 0], naive(model, batch), rtol=1e-6)
    assert vec[2] == 0  # no trained token
    assert 0.1 < vec[[0, 1, 3, 4]].min() < vec.max() < 0.9 * np.log(470)


def test_certain_and_undecided_words_and_large_logits():
    head = torch.nn.Linear(2, 9001, bias=False)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[8999, 0] = 1
        head.weight[:2, 1] = 1
    hidden = torch.tensor([[0.0, 0.0], [500.0, 0.0], [0.0, 1e4], [-1e4, 0.0]])
    expected = [np.log(9001), 0, np.log(2), np.log(9000)]
    np.testing.assert_allclose(entropies(head, hidden).detach(), expected, rtol=1e-5, atol=1e-6)
    biased = torch.nn.Linear(2, 9001)
    with torch.no_grad():
        biased.weight.copy_(head.weight)
        biased.bias.zero_()
    np.testing.assert_allclose(entropies(biased, hidden).detach(), expected, rtol=1e-5, atol=1e-6)


def test_no_more_logits_than_a_slice_exist(monkeypatch):
    monkeypatch.setattr(entropy, "SLICE", 64)
    monkeypatch.setattr(entropy, "LOGIT_BYTES", 4 * 64 * 8)
    seen, streamed = [], entropy._streamed

    def watched(slices):
        def each():
            for logits in slices:
                seen.append(tuple(logits.shape))
                yield logits

        return streamed(each())

    monkeypatch.setattr(entropy, "_streamed", watched)
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(4, 1000, bias=False), torch.randn(20, 4)
    with torch.no_grad():
        out, logits = entropies(head, hidden), head(hidden)
    np.testing.assert_allclose(out, torch.distributions.Categorical(logits=logits).entropy(), rtol=1e-5)
    assert max(rows for rows, _ in seen) == 8
    assert max(words for _, words in seen) == 64
    assert len(seen) == 3 * 16
