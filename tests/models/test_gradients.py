"""Batched hook gradients against an independent oracle: batch-1 autograd over the parameters, in float64."""

import numpy as np
import pytest
import torch
from batches import LENGTHS, inputs_of, make_batch
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from vinnow.models.components import add_lora, canonical, component_of, pick_linears, set_trainable
from vinnow.models.forward import last_hidden, on_device
from vinnow.models.load import load
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.projections.signs import rademacher_signs
from vinnow.models.specs import LoraSpec
from vinnow.models.taps.forward import LossTap, sample_losses
from vinnow.models.taps.gradients import GradientTap
from vinnow.store.errors import InputError

REGEXES = [r"re:vision_tower\..*layers\.0\.mlp\.fc1", r"re:lm_head|layers\.1\..*(v|down)_proj$"]


@pytest.fixture
def exact_norms(monkeypatch):
    """Hugging Face's RMSNorm rounds to float32 inside; float64 comparisons need it to stay wide."""

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def prepared(tiny_model, which):
    model = load(tiny_model, dtype="float64").model
    if "lora" in which:
        torch.manual_seed(0)
        model = add_lora(model, LoraSpec(r=4, alpha=8, dropout=0.1, init="gaussian")).double().eval()
        for name, p in model.named_parameters():  # a zero B would hide a wrong dA
            if ".lora_B." in name:
                torch.nn.init.normal_(p, std=0.05)
    return model


def oracle(model, which, row):
    """Autograd at batch size 1 over the parameters themselves, concatenated in the taps' order."""
    names = pick_linears(model, which)
    wanted = [p for m in names.values() for p in (m.weight, m.bias) if p is not None]
    for p in model.parameters():
        p.requires_grad_(False)
    for p in wanted:
        p.requires_grad_(True)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    batch = make_batch(base, [row])
    if batch["media"]:
        batch["media"] = {n: v.double() for n, v in batch["media"].items()}
    labels = batch["labels"]
    if (labels == -100).all() or (not batch["media"] and which in ("projector", REGEXES[0])):
        return torch.zeros(sum(p.numel() for p in wanted), dtype=torch.float64)
    logits = base(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        pixel_values=batch["media"].get("pixel_values"),
    ).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=-100)
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(wanted, grads, strict=True)])


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("which", ["projector", "lora", "projector+lora", *REGEXES])
def test_batched_gradients_equal_batch_one_autograd(tiny_model, exact_norms, which, fast):
    model = prepared(tiny_model, which)
    expected = torch.stack([oracle(model, which, i) for i in range(len(LENGTHS))]).numpy()
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    tap = GradientTap(model, which, ProjectionConfig(kind="none"), fast=fast)
    assert (tap.decoder is not None) == fast
    got = tap(make_batch(base))
    for i in range(len(LENGTHS)):
        scale = np.abs(expected[i]).max()
        assert np.abs(got[i] - expected[i]).max() <= 1e-9 * scale, f"row {i}"
    assert np.abs(expected[0]).max() > 0
    assert not got[2].any()  # no trained token
    if which in ("projector", REGEXES[0]):
        assert not got[3].any()  # text-only


def test_two_pictures_of_one_sample_add_up(tiny_model, exact_norms):
    model = prepared(tiny_model, "projector")
    batch = make_batch(model, [0, 1])
    ids = torch.cat([batch["input_ids"][:1, :17], batch["input_ids"][:1, 1:]], 1)  # a second image block
    two = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.cat([torch.full((1, 17), -100), batch["labels"][:1, 1:]], 1),
        "media": {"pixel_values": batch["media"]["pixel_values"][:2].double()},
        "image_owner": torch.tensor([0, 0]),
    }
    two = {k: v[:, :40] if k in ("input_ids", "attention_mask", "labels") else v for k, v in two.items()}
    tap = GradientTap(model, "projector", ProjectionConfig(kind="none"))
    got = tap(two)[0]
    params = [p for m in tap.modules.values() for p in (m.weight, m.bias)]
    for p in params:
        p.requires_grad_(True)
    two = on_device(two, model)
    losses, _ = sample_losses(model, two, last_hidden(model, two))
    grads = torch.autograd.grad(losses.sum(), params)
    expected = torch.cat([g.flatten() for g in grads]).numpy()
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()


def test_gradient_checkpointing_changes_nothing(tiny_model, exact_norms):
    model = prepared(tiny_model, "projector+lora")
    base = model.get_base_model()
    plain = GradientTap(model, "projector+lora", ProjectionConfig(dim=64))(make_batch(base))
    base.gradient_checkpointing_enable({"use_reentrant": False})
    tap = GradientTap(model, "projector+lora", ProjectionConfig(dim=64))
    base.train()  # checkpointing is active in train mode only
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    assert np.abs(tap(make_batch(base)) - plain).max() <= 1e-9 * np.abs(plain).max()


def test_streamed_projection_equals_projecting_the_whole_gradient(tiny_model):
    model = prepared(tiny_model, "projector")
    config = ProjectionConfig(dim=64, seed=5)
    tap = GradientTap(model, "projector", config)
    got = tap(make_batch(model))
    raw = GradientTap(model, "projector", ProjectionConfig(kind="none"))(make_batch(model))
    signs = np.concatenate(
        [rademacher_signs(5, n, (0, s), 64, dtype=torch.float64).numpy() for n, s in _sizes(tap).items()]
    )
    assert np.allclose(got, raw @ signs / 8, rtol=1e-6, atol=1e-9 * np.abs(raw).max())


def _sizes(tap):
    return {
        f"{n}.{k}": p.numel()
        for n, m in tap.modules.items()
        for k, p in (("weight", m.weight), ("bias", m.bias))
        if p is not None
    }


def test_losses_are_per_sample_means(tiny_model):
    model = load(tiny_model).model
    batch = make_batch(model)
    got = LossTap(model)(batch)[:, 0]
    for i in (0, 1, 3, 4):
        one = make_batch(model, [i])
        out = model(**inputs_of(one, "input_ids", "attention_mask", "labels"))
        assert got[i] == pytest.approx(out.loss.item(), rel=1e-5)
    assert got[2] == 0


def test_wrong_choices_say_what_to_do(tiny_model):
    model = load(tiny_model).model
    with pytest.raises(InputError, match="must be an adapter"):
        pick_linears(model, "lora")
    with pytest.raises(InputError, match="did you mean 'projector'"):
        pick_linears(model, "projektor")
    with pytest.raises(InputError, match="not a regular expression"):
        pick_linears(model, "re:(")
    with pytest.raises(InputError, match="eval mode"):
        GradientTap(model.train(), "projector", ProjectionConfig(dim=32))


def test_parts_name_every_parameter_and_lora_stays_in_the_language_model(tiny_model):
    model = load(tiny_model).model
    names = set_trainable(model, ["projector"])
    assert sorted({component_of(n) for n in names}) == ["projector"]
    with pytest.raises(InputError, match="lora"):
        set_trainable(model, ["lora"])
    wrapped = add_lora(model, LoraSpec(r=2, alpha=4))
    lora = set_trainable(wrapped, ["lora"])
    assert lora
    assert all("language_model.layers" in n for n in lora)
    assert canonical("base_model.model.model.x.q_proj.lora_A.default") == "model.x.q_proj.lora_A"
