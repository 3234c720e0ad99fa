"""MoReS against a loop of its own, in float64; and what must not be touched is not."""

import os

import numpy as np
import pytest
import torch
from batches import inputs_of, make_batch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, LlamaConfig, LlavaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from vinnow.models.adapters import add_adapter
from vinnow.models.components import component_of, set_trainable
from vinnow.models.folders import MORES
from vinnow.models.load import NON_LORA, load, load_processor, model_digest
from vinnow.models.mores import add_mores, steer, steered_BT
from vinnow.models.mores_files import WEIGHTS, save_mores
from vinnow.models.shape import shape_of
from vinnow.models.specs import AdapterSpec, MoresSpec
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.forward import LossTap
from vinnow.models.taps.gradients import GradientTap
from vinnow.store.errors import InputError
from vinnow.train.loss import LossModule

HF = ("input_ids", "attention_mask")


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch):
    """Hugging Face's RMSNorm rounds to float32 inside; float64 comparisons need it to stay wide."""

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def steered_model(tiny_model, **spec):
    """The tiny model in float64 with MoReS whose every weight is random."""
    torch.manual_seed(0)
    model = load(tiny_model, "float64").model
    mores = add_mores(model, MoresSpec.parse({"rank": 3, "dropout": 0.0} | spec))
    with torch.no_grad():
        for parameter in mores.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def batch_of(model, rows=(0, 1, 2, 3, 4)):
    batch = make_batch(model, rows)
    if batch["media"]:
        batch["media"] = {n: v.to(next(model.parameters()).dtype) for n, v in batch["media"].items()}
    return batch


def logits(model, batch):
    with torch.no_grad():
        return model(**inputs_of(batch, *HF)).logits


def chosen(places, policy):
    """Which of a row's image tokens a policy takes: (by the lower layers, by the upper ones)."""
    n = len(places)
    if policy == "f2+l3":
        return places[:2] + [p for p in places[-3:] if p not in places[:2]]
    if policy == "uniform5":
        return [places[i * ((n - 1) // (min(n, 5) - 1))] for i in range(min(n, 5))] if n > 1 else places
    k = int(np.ceil(0.3 * n))
    return [p for r, p in enumerate(places) if (r + 1) * k // n > r * k // n]


def gram_schmidt(a):
    out = []
    for column in a.T:
        for q in out:
            column = column - (q @ column) * q
        out.append(column / np.linalg.norm(column))
    return np.stack(out, 1)


def naive(model, ids, pixels, picked):
    """One row without pads: each layer's own forward, then its chosen tokens by the published equation."""
    base, lm = model.model, model.model.language_model
    x = base.get_input_embeddings()(ids[None]).clone()
    if pixels is not None:
        x[0, ids == model.config.image_token_id] = base.get_image_features(pixels).pooler_output[0]
    rotary = lm.rotary_emb(x, torch.arange(len(ids))[None])
    for i, layer in enumerate(lm.layers):
        x = layer.forward(x, position_embeddings=rotary).clone()
        one = dict(model.mores.layers).get(str(i))
        for p in picked(i) if one is not None else ():
            h = x[0, p].numpy()
            r = gram_schmidt(one.rotate.numpy()) if one.orthogonal else one.rotate.numpy()
            edited = h + r @ (one.source.weight.numpy() @ h + one.source.bias.numpy() - r.T @ h)
            x[0, p] = torch.from_numpy(edited)
    return model.lm_head(lm.norm(x))[0]


@pytest.mark.parametrize(
    "spec",
    [
        {"positions": "f2+l3"},
        {"positions": "uniform5", "layers": [1]},
        {"positions": "ratio0.3", "orthogonal": False},
        {"positions": "f2+l3", "share": False},
    ],
)
@torch.no_grad()
def test_a_batch_is_steered_as_a_loop_over_rows_does_it(tiny_model, spec):
    model = steered_model(tiny_model, **spec)
    batch, image = batch_of(model), model.config.image_token_id
    got = logits(model, batch)
    for row in range(5):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        places = torch.nonzero(ids == image)[:, 0].tolist()
        shown = torch.nonzero(batch["image_owner"] == row)[:, 0]

        def picked(layer, places=places):
            if not places:
                return []
            if spec.get("share", True):
                return chosen(places, spec["positions"])
            return places[:2] if layer == 0 else places[-3:]

        want = naive(model, ids, batch["media"]["pixel_values"][shown] if len(shown) else None, picked)
        assert torch.allclose(got[row, : len(ids)], want, atol=1e-9)
    # and steering is no small thing here
    assert not torch.allclose(got, logits(load(tiny_model, "float64").model, batch), atol=1e-2)


def test_rows_without_a_picture_are_untouched_to_the_last_bit(tiny_model):
    plain, model = load(tiny_model).model, load(tiny_model).model
    add_mores(model, MoresSpec(dropout=0.5))
    for rows, row in (((3,), 0), ((0, 3), 1)):
        batch = batch_of(plain, rows)
        assert torch.equal(logits(model.train(), batch)[row], logits(plain, batch)[row])
    assert not torch.equal(logits(model, batch)[0], logits(plain, batch)[0])


def test_batch_mates_pads_and_sides_do_not_matter(tiny_model):
    model = steered_model(tiny_model)
    batch = batch_of(model)
    together, alone = logits(model, batch), batch_of(model, (0,))
    n = alone["input_ids"].shape[1]
    assert torch.allclose(together[0, :n], logits(model, alone)[0], atol=1e-9)
    left = {k: torch.roll(batch[k][:1], -n if k == "x" else batch[k].shape[1] - n, 1) for k in HF}
    padded = logits(model, left | {"media": alone["media"]})
    assert torch.allclose(padded[0, -n:], together[0, :n], atol=1e-9)


def test_an_identity_start_changes_nothing(tiny_model):
    plain, model = load(tiny_model).model, load(tiny_model).model
    add_mores(model, MoresSpec(start="identity", positions="ratio1", rank=8, dropout=0.3))
    batch = batch_of(plain)
    assert torch.allclose(logits(model.train(), batch), logits(plain, batch), atol=2e-6)
    published = load(tiny_model).model
    add_mores(published, MoresSpec(positions="ratio1", rank=8, dropout=0.3))
    assert not torch.allclose(logits(published, batch), logits(plain, batch), atol=1e-4)
    basis = published.mores.layers["0"].basis(torch.float32)
    assert torch.allclose(basis.T @ basis, torch.eye(8), atol=1e-6)


def gradients(model, batch, checkpointing=None):
    model.train()
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    LossModule(model)(batch).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("rows", [(0, 1, 2, 3, 4), (3,)])
def test_gradients_are_there_with_and_without_checkpointing(tiny_model, rows):
    grads = []
    for checkpointing in (None, True, False):
        model = steered_model(tiny_model)
        set_trainable(model, ["mores", "projector"])
        grads.append(gradients(model, batch_of(model, rows), checkpointing))
    assert {component_of(n) for n in grads[0]} == {"mores", "projector"}
    for name, grad in grads[0].items():
        # a batch without a picture has the same graph, with zeros (ZeRO counts on it); the last layer's is never read
        assert bool(grad.any()) == (len(rows) > 1 and "mores.layers.1" not in name), name
        assert all(torch.equal(other[name], grad) for other in grads[1:]), name


def test_gradients_are_those_of_finite_differences(tiny_model):
    model = steered_model(tiny_model)
    batch = batch_of(model, (0, 1, 3))

    def loss():
        out = model(**inputs_of(batch, *HF)).logits[:, :-1]
        return torch.nn.functional.cross_entropy(out.flatten(0, 1), batch["labels"][:, 1:].flatten())

    for name in ("rotate", "source.weight", "source.bias"):
        parameter = model.get_parameter(f"mores.layers.0.{name}").requires_grad_(True)
        (grad,) = torch.autograd.grad(loss(), [parameter])
        way, start = torch.randn_like(parameter), parameter.detach().clone()
        with torch.no_grad():
            ends = [loss() for sign in (1, -1) if parameter.copy_(start + sign * 1e-5 * way) is parameter]
            parameter.copy_(start)
        assert ((ends[0] - ends[1]) / 2e-5).item() == pytest.approx((grad * way).sum().item(), rel=1e-5)


def test_generation_with_a_cache_is_the_full_forward_step_by_step(tiny_model):
    model = steered_model(tiny_model, positions="f3+l2")
    batch = batch_of(model, (0, 1))
    n = [int(m.sum()) for m in batch["attention_mask"]]
    # generation pads on the left
    for k, fill in (("input_ids", 3), ("attention_mask", 0)):
        rows = [torch.cat([torch.full((max(n) - m,), fill), x[:m]]) for x, m in zip(batch[k], n)]
        batch[k] = torch.stack(rows)
    inputs = inputs_of(batch, *HF)
    cached = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=3)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    for _ in range(6):
        step = logits(model, {"input_ids": ids, "attention_mask": mask, "media": batch["media"]})
        ids = torch.cat([ids, step[:, -1:].argmax(-1)], 1)
        mask = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], 1)
    assert cached.tolist() == ids.tolist()


class Whole:
    """A sink that keeps whole gradients, by name."""

    factors, dim = False, 0

    def start(self, rows, device, dtype):
        self.kept = {}

    def add(self, name, grads):
        self.kept[name] = grads

    def finish(self):
        return torch.zeros(0)


def test_taps_see_the_steered_model(tiny_model):
    model, plain = steered_model(tiny_model), load(tiny_model, "float64").model
    batch = batch_of(model)
    tap = GradientTap(model, "projector", Whole())
    tap.tensors(batch)
    assert tap.decoder is None
    parameters = tap.parameters()
    for row in range(5):
        one = batch_of(model, (row,))
        if not one["media"] or (one["labels"] == -100).all():
            assert not any(g[row].any() for g in tap.sink.kept.values())
            continue
        for p in parameters.values():
            p.requires_grad_(True)
        out = model(**inputs_of(one, *HF)).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(out, one["labels"][0, 1:])
        for (name, p), grad in zip(parameters.items(), torch.autograd.grad(loss, list(parameters.values()))):
            assert torch.allclose(tap.sink.kept[name][row], grad.flatten(), atol=1e-10), name
            p.requires_grad_(False)
    for kind in (LossTap, AttentionTap):
        steered, other = kind(model)(batch), kind(plain)(batch)
        assert np.allclose(steered[3], other[3])  # text alone
        assert not np.allclose(steered[0], other[0], rtol=1e-3)


def test_a_language_model_called_past_the_ids_is_refused(tiny_model):
    model = steered_model(tiny_model)
    embeds = torch.zeros(1, 5, model.config.text_config.hidden_size, dtype=torch.float64)
    with pytest.raises(InputError, match=r"call mores\.steer"):
        model.model.language_model(inputs_embeds=embeds)
    steer(model, torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(InputError, match=r"call mores\.steer"):
        model.model.language_model(inputs_embeds=embeds)
    batch = batch_of(model, (0,))
    first = model(**inputs_of(batch, *HF), use_cache=True)
    with pytest.raises(InputError, match="all of its pictures in one pass"):
        model(**inputs_of(batch, "input_ids"), past_key_values=first.past_key_values)


def test_it_is_saved_and_loaded_with_the_projector(tiny_model, tmp_path):
    model = load(tiny_model).model
    add_mores(model, MoresSpec(rank=2, positions="uniform3", layers="1:")).base = tiny_model
    set_trainable(model, ["mores", "projector"])
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    save_mores(model, str(tmp_path), model_digest(tiny_model), NON_LORA)
    load_processor(tiny_model).save_pretrained(str(tmp_path))
    again, batch = load(str(tmp_path)), batch_of(model)
    assert torch.equal(logits(again.model, batch), logits(model.eval(), batch))
    assert again.model.mores.spec == model.mores.spec
    assert again.digest != model_digest(tiny_model)
    # the spec is part of what the model computes
    text = (tmp_path / MORES).read_text()
    (tmp_path / MORES).write_text(text.replace("uniform3", "uniform4"))
    assert load(str(tmp_path)).digest != again.digest
    (tmp_path / MORES).write_text(text.replace('"rank": 2', '"rank": 3'))
    with pytest.raises(InputError, match=r"Of another shape: layers\.1\.rotate \[64, 2\] for \[64, 3\]"):
        load(str(tmp_path))
    assert len(load_file(tmp_path / WEIGHTS)) == 3


@pytest.mark.parametrize(
    ("layers", "width", "counts"),
    [
        (32, 2560, (163_872, 327_744, 655_488)),
        (32, 4096, (262_176, 524_352, 1_048_704)),
        (40, 5120, (409_640, 819_280, 1_638_560)),
    ],
    ids=["phi-2", "vicuna-7B", "vicuna-13B"],
)
def test_parameters_are_those_of_the_published_table(layers, width, counts):
    text = LlamaConfig(hidden_size=width, num_hidden_layers=layers, intermediate_size=64, vocab_size=64)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(LlavaConfig(text_config=text))
    for rank, count in zip((1, 2, 4), counts):
        spec = MoresSpec(rank=rank)
        mores = add_mores(model, spec)
        assert sum(p.numel() for p in mores.parameters()) == count == spec.parameters(layers, width)
        del model.mores


def test_at_ranks_1_and_2_it_trains_less_than_a_500th_of_lora():
    """LLaVA-1.5-7B's LLM, LoRA r = 128. Rank 4, which the shipped run takes, is a 305th."""
    text = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, vocab_size=32064)
    blocks = [d for d in shape_of(LlavaConfig(text_config=text)).linears if d.place == "language_model"]
    lora = AdapterSpec(r=128).parameters((d.name.rsplit(".", 1)[-1], d.outputs, d.inputs) for d in blocks)
    assert lora == 319_815_680
    shares = [lora // MoresSpec(rank=rank).parameters(32, 4096) for rank in (1, 2, 4)]
    assert shares == [1219, 609, 304]
    assert min(shares[:2]) >= 500


def test_it_goes_onto_an_adapter_and_comes_back_with_it(tiny_model, tmp_path):
    lora, steered = str(tmp_path / "lora"), str(tmp_path / "steered")
    os.mkdir(steered)
    model = add_adapter(load(tiny_model).model, AdapterSpec(r=4))
    model.peft_config["default"].base_model_name_or_path = tiny_model
    for name, p in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(p.data, std=0.05)
    model.save_pretrained(lora)
    load(tiny_model).processor.save_pretrained(lora)
    model = load(lora).model
    mores = add_mores(model, MoresSpec(dropout=0.0))
    mores.base = lora
    set_trainable(model, ["mores"])
    save_mores(model, steered, model_digest(lora), NON_LORA)
    load(tiny_model).processor.save_pretrained(steered)
    batch, again = make_batch(model.get_base_model()), load(steered).model
    inputs = inputs_of(batch, "input_ids", "attention_mask")
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        assert torch.equal(again(**inputs).logits, expected)
        assert not torch.allclose(load(lora).model(**inputs).logits, expected, atol=1e-3)


def test_policies_take_exactly_as_many_as_they_say():
    for n in range(1, 40):
        image = torch.tensor([[False] + [True] * n + [False, False]])
        for policy, count in (
            ("f4+l5", min(n, 9)),
            ("uniform7", min(n, 7)),
            ("ratio0.29", int(np.ceil(0.29 * n - 1e-9))),
        ):
            first, last = steered_BT(image, policy)
            taken = first | last
            assert int(taken.sum()) == count, (policy, n)
            assert not (taken & ~image).any()


@pytest.mark.parametrize(("n", "k"), [(576, 9), (576, 2), (576, 1), (5, 9), (10, 9), (729, 4)])
def test_uniform_takes_the_published_tokens(n, k):
    taken, _ = steered_BT(torch.tensor([[False] * 3 + [True] * n + [False, False]]), f"uniform{k}")
    apart = (n - 1) // max(1, min(n, k) - 1)
    assert (taken[0].nonzero()[:, 0] - 3).tolist() == [i * apart for i in range(min(n, k))]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"positions": "first4"}, "positions are"),
        ({"positions": "f0+l0"}, "steer no token"),
        ({"positions": "ratio1.5"}, "at most 1"),
        ({"positions": "uniform3", "share": False}, "share"),
        ({"layers": "0-3"}, "layers are all"),
        ({"rnak": 3}, "did you mean 'rank'"),
    ],
)
def test_bad_specs_are_said(values, words):
    with pytest.raises(InputError, match=words):
        MoresSpec.parse(values)


def test_layers_and_rank_must_fit_the_model(tiny_model):
    model = load(tiny_model).model
    for spec, words in (({"layers": [2]}, "0 to 1"), ({"layers": "5:"}, "none of"), ({"rank": 65}, "width 64")):
        with pytest.raises(InputError, match=words):
            add_mores(model, MoresSpec.parse(spec))
    add_mores(model, MoresSpec())
    with pytest.raises(InputError, match="already"):
        add_mores(model, MoresSpec())
