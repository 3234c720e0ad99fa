"""Connectors: what each computes and trains, that it comes back from disk, its taps against autograd."""

import json
import shutil

import numpy as np
import pytest
import torch
from batches import inputs_of
from families import CONNECTORS, SMALL, TEXTS, batch_for, in_memory, tiny_config
from PIL import Image
from torch import nn
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from vinnow.evaluate.answers import AnswerActor
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.run import make_spec
from vinnow.models.adapters import add_adapter
from vinnow.models.components import component_of, set_trainable
from vinnow.models.encoding import make_encoder
from vinnow.models.family.of_llava.connectors import make_connector
from vinnow.models.family.of_llava.files import put_projector, write_projector
from vinnow.models.family.of_llava.pictures import count_image_tokens
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.load import load, load_processor, model_digest
from vinnow.models.merge import merge
from vinnow.models.mores import add_mores
from vinnow.models.mores_files import save_mores
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.specs import AdapterSpec, ConnectorSpec, MoresSpec
from vinnow.models.taps.forward import EmbeddingTap
from vinnow.models.taps.gradients import GradientTap
from vinnow.models.trained import save_trained
from vinnow.pool.images import load_image
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.train.checkpoint import _write_adapter
from vinnow.train.loss import LossModule

QUERIES = ("resampler", "qformer")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved tiny model for each connector, by kind."""
    root = tmp_path_factory.mktemp("connectors")
    return {kind: build_tiny_model(str(root / kind), TEXTS, tiny_config(kind)) for kind in CONNECTORS}


def logits(model, rows=(0, 1, 2)):
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    batch = batch_for(base, tiny_config(base.config.connector["kind"]), rows)
    with torch.no_grad():
        return model(**inputs_of(batch, "input_ids", "attention_mask")).logits


def moved(model):
    """The model with every trained parameter moved."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("kind", CONNECTORS)
def test_a_step_moves_the_connector_alone_and_it_comes_back(folders, tmp_path, kind):
    loaded = load(folders[kind])
    model, config = loaded.model, tiny_config(kind)
    parts = ["projector"] if kind != "identity" else ["language_model"]
    names = set(set_trainable(model, parts))
    assert {component_of(n) for n in names} == set(parts)
    before = {n: p.clone() for n, p in model.named_parameters()}
    loss = LossModule(model)(batch_for(model, config))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10.0)
    loss.backward()
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    # a key's bias adds one number to all scores of a query: its gradient is 0 in exact arithmetic
    assert changed - {n for n in names if "k_proj.bias" in n} == {n for n in names if "k_proj.bias" not in n}
    model.save_pretrained(tmp_path / "saved")
    loaded.processor.save_pretrained(tmp_path / "saved")
    again = load(str(tmp_path / "saved"))
    batch = batch_for(model, config)
    inputs = inputs_of(batch, "input_ids", "attention_mask")
    with torch.no_grad():
        assert torch.equal(again.model(**inputs).logits, model(**inputs).logits)
    # Hugging Face's own class holds the default alone
    _, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert (not info["missing_keys"] and not info["unexpected_keys"]) == (kind == "mlp2x_gelu")


@pytest.mark.parametrize("kind", CONNECTORS)
def test_a_batch_without_a_picture_has_the_same_graph(kind):
    model = in_memory(tiny_config(kind))
    set_trainable(model, ["projector", "language_model"] if kind != "identity" else ["language_model"])
    LossModule(model)(batch_for(model, tiny_config(kind), [3])).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad) or kind == "identity"
    shown = [p.grad for n, p in model.named_parameters() if component_of(n) == "projector"]
    assert not any(g.any() for g in shown)


@pytest.mark.parametrize(
    ("kind", "tower"), [*((kind, "clip") for kind in CONNECTORS), ("linear", "siglip"), ("qformer", "siglip")]
)
def test_a_picture_s_tokens_are_counted_alike(folders, tmp_path, kind, tower):
    folder = (
        folders[kind]
        if tower == "clip"
        else build_tiny_model(str(tmp_path / "twin"), TEXTS, tiny_config(kind, tower=tower))
    )
    processor = load_processor(folder)
    expected = 4 if kind not in QUERIES else SMALL["queries"]
    assert count_image_tokens(processor) == expected == make_encoder(processor).reader.fixed
    theirs = AutoProcessor.from_pretrained(folder)
    done = theirs(images=Image.new("RGB", (50, 40)), text="USER: <image>\nwhat is it?", return_tensors="pt")
    assert int((done["input_ids"] == theirs.image_token_id).sum()) == expected
    with torch.no_grad():
        load(folder).model(**done)


def test_a_count_that_leaves_no_token_is_refused(folders):
    processor = load_processor(folders["resampler"])
    processor.num_additional_image_tokens, processor.vision_feature_select_strategy = -4, "full"
    with pytest.raises(InputError, match="which leaves none"):
        count_image_tokens(processor)


@pytest.fixture
def exact_norms(monkeypatch):
    """Hugging Face's RMSNorm rounds to float32 inside; float64 comparisons need it to stay wide."""

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu", *QUERIES])
def test_taps_equal_batch_one_autograd(exact_norms, kind):
    config = tiny_config(kind)
    model = in_memory(config, torch.float64)
    for p in model.model.multi_modal_projector.parameters():  # biases of 0 would hide a wrong one
        nn.init.normal_(p, std=0.3)
    tap = GradientTap(model, "projector", ProjectionConfig(kind="none"))
    wanted = list(tap.parameters().values())
    got = tap(batch_for(model, config))
    for row in range(5):
        for p in wanted:
            p.requires_grad_(True)
        batch = batch_for(model, config, [row])
        expected = torch.zeros(got.shape[1], dtype=torch.float64)
        if row not in (2, 3):  # no trained token, no picture
            out = model(**inputs_of(batch, "input_ids", "attention_mask")).logits
            loss = nn.functional.cross_entropy(out[0, :-1], batch["labels"][0, 1:], ignore_index=-100)
            expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)])
            assert expected.any()
        for p in wanted:
            p.requires_grad_(False)
        assert np.abs(got[row] - expected.numpy()).max() <= 1e-9 * max(float(expected.abs().max()), 1e-300), row


def test_what_has_no_linears_has_no_taps_and_still_embeds():
    model = in_memory(tiny_config("identity"))
    with pytest.raises(InputError, match="no Linear module matches"):
        GradientTap(model, "projector", ProjectionConfig(kind="none"))
    with pytest.raises(InputError, match=r"no parameters of \['projector'\]"):
        set_trainable(model, ["projector"])
    for kind in CONNECTORS:
        model = in_memory(tiny_config(kind))
        embeddings = EmbeddingTap(model, "both")(batch_for(model, tiny_config(kind)))
        assert np.isfinite(embeddings).all()
        assert embeddings[0, 32:].any()
        assert not embeddings[3, 32:].any()


def test_adapters_mores_and_trained_weights_go_onto_it(folders, tmp_path):
    base = folders["resampler"]
    model = add_adapter(load(base).model, AdapterSpec(r=2))
    model.peft_config["default"].base_model_name_or_path = base
    reached = [n for n, m in model.named_modules() if hasattr(m, "lora_A")]
    assert reached
    assert all(".language_model.layers." in n for n in reached)
    set_trainable(model, ["lora", "projector"])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    _write_adapter(moved(model), str(adapter), None)
    assert torch.allclose(logits(load(str(adapter)).model), logits(model), atol=1e-6)
    whole = load(merge(str(adapter), str(tmp_path / "whole")))
    assert torch.allclose(logits(whole.model), logits(model), atol=1e-4)
    assert count_image_tokens(whole.processor) == SMALL["queries"]

    model = load(base).model
    add_mores(model, MoresSpec(rank=2, positions="f1+l1")).base = base
    set_trainable(model, ["mores", "projector"])
    (tmp_path / "mores").mkdir()
    save_mores(moved(model), str(tmp_path / "mores"), model_digest(base), "non_lora.safetensors")
    load_processor(base).save_pretrained(str(tmp_path / "mores"))
    assert torch.equal(logits(load(str(tmp_path / "mores")).model), logits(model))

    model = load(base).model
    names = set_trainable(model, ["projector"])
    (tmp_path / "trained").mkdir()
    save_trained(str(tmp_path / "trained"), moved(model).named_parameters(), base, model_digest(base), 3)
    model.config.save_pretrained(tmp_path / "trained")
    load_processor(base).save_pretrained(str(tmp_path / "trained"))
    again, plain = load(str(tmp_path / "trained")).model, load(base).model
    for name, weight in again.named_parameters():
        trained = model.get_parameter(name).bfloat16().float()
        assert torch.equal(weight, trained if name in names else plain.get_parameter(name))


def test_weights_of_another_connector_are_refused(folders, tmp_path):
    other = shutil.copytree(folders["resampler"], tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    for changed in ({"kind": "mlp3x_gelu"}, config["connector"] | {"queries": 5}, None):
        values = {k: v for k, v in config.items() if k != "connector"} | ({"connector": changed} if changed else {})
        (other / "config.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match=r"do not fit the model|cannot be loaded"):
            load(str(other))
    (other / "config.json").write_text(json.dumps(config | {"connector": {"kind": "resampla"}}))
    with pytest.raises(InputError, match="did you mean 'resampler'"):
        load(str(other))


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu"])
def test_llava_s_files_of_other_stacks(folders, tmp_path, kind):
    model = load(folders[kind]).model
    set_trainable(model, ["projector"])
    write_projector(moved(model), tmp_path / "mm_projector.bin")
    state = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    places = ["weight", "bias"] if kind == "linear" else [f"{i}.{n}" for i in (0, 2, 4) for n in ("weight", "bias")]
    assert list(state) == [f"model.mm_projector.{p}" for p in places]
    again = load(folders[kind]).model
    put_projector(again, tmp_path / "mm_projector.bin")
    assert torch.equal(logits(again), logits(model))
    for other in ("mlp2x_gelu", "resampler"):
        with pytest.raises(InputError, match=r"the projector in .* does not fit its model"):
            put_projector(load(folders[other]).model, tmp_path / "mm_projector.bin")
    with pytest.raises(InputError, match="connector is qformer"):
        write_projector(load(folders["qformer"]).model, tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "linaer"}, "did you mean 'linear'"),
        ({"kind": "linear", "queries": 4}, "linear has no queries"),
        ({"kind": "resampler", "width": 30}, "width 30 is no multiple of heads 8"),
    ],
)
def test_bad_specs_are_said(values, words):
    with pytest.raises(InputError, match=words):
        ConnectorSpec.parse(values)


def test_queries_see_all_patches_and_only_their_own_picture():
    for kind in QUERIES:
        torch.manual_seed(0)
        connector = make_connector(ConnectorSpec.parse({"kind": kind} | SMALL), 24, 40, std=0.3)
        x = torch.randn(2, 9, 24)
        out = connector(x)
        assert out.shape == (2, 4, 40)
        assert torch.allclose(connector(x[1:])[0], out[1], atol=1e-5)
        # tokens of a picture carry no order of their own: the tower has put it into them
        assert torch.allclose(connector(x[:, torch.randperm(9)]), out, atol=1e-5)
        for patch in range(9):
            changed = x.clone()
            changed[:, patch] += 1
            assert not torch.allclose(connector(changed), out, atol=1e-4)


def test_other_parts_answer_as_plain_generate_does(tiny_pool, tmp_path):
    config = tiny_config("resampler", llm="mistral", tower="siglip", init_std=0.3)
    folder = build_tiny_model(str(tmp_path / "twin"), TEXTS, config)
    values = {"model": folder, "pool": tiny_pool, "run": "r", "max_new_tokens": 4, "template": "mistral_instruct"}
    actor = AnswerActor(make_spec(EvalConfig.parse(values | {"max_len": 250}), str(tmp_path / "out")))
    records = Pool(tiny_pool).take(Pool(tiny_pool).ids()[:5])
    prompts = [actor.generator.encoder.prompt(r) for r in records]
    got = actor.answer([actor.decoder.pictures(r, p) for p, r in zip(prompts, records, strict=True)])
    model, tokenizer = load(folder).model, actor.generator.tokenizer
    for record, prompt, answer in zip(records, prompts, got, strict=True):
        inputs = {"input_ids": torch.from_numpy(prompt.input_ids)[None]}
        if record.images:
            shown = actor.generator.encoder.reader.pixels(load_image(actor.decoder.root, record.images[0]))
            inputs["pixel_values"] = torch.from_numpy(shown)[None]
        end = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, len(prompt.input_ids) :]
        assert answer == tokenizer.decode(end, skip_special_tokens=True).strip()
    assert len(set(got)) > 1
