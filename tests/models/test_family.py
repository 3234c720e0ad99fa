"""Models by parts: every language model with every tower is Hugging Face's own arithmetic; built folders; refusals."""

import json
import shutil
import sys

import pytest
import torch
from batches import inputs_of
from families import SIZES, Words, batch_for, in_memory, make_tokenizer, tiny_config, write_llm, write_tower
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    Gemma2Config,
    GPT2Config,
    LlavaForConditionalGeneration,
    MambaConfig,
)
from vinnow.models.adapters import add_adapter
from vinnow.models.components import add_lora, component_of, pick_linears, tied_linears
from vinnow.models.cost import RowSize, forward_flop
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.family.of_llava.build import BuildConfig, build
from vinnow.models.family.of_llava.llms import LLMS, OTHER, fitting_template, llm_of
from vinnow.models.family.of_llava.model import class_of
from vinnow.models.family.of_llava.pictures import count_image_tokens
from vinnow.models.family.of_llava.tiny import tiny_model_config
from vinnow.models.family.of_llava.towers import TOWERS
from vinnow.models.forward import last_hidden, on_device
from vinnow.models.load import load
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.shape import shape_of
from vinnow.models.specs import AdapterSpec, LoraSpec, TinyModelConfig
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.forward import sample_losses
from vinnow.models.taps.gradients import GradientTap
from vinnow.models.taps.lean.architectures import TABLE
from vinnow.pipelines.cli import main as cli
from vinnow.pipelines.runs.prices import tiny_model_shape
from vinnow.store.errors import InputError
from vinnow.train.loss import LossModule


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("llm", LLMS)
def test_the_loss_is_that_of_hugging_face(llm, tower):
    config = tiny_config(llm=llm, tower=tower)
    model = in_memory(config)
    batch = batch_for(model, config)
    inputs = inputs_of(batch, "input_ids", "attention_mask", "labels")
    with torch.no_grad():
        expected = model(**inputs).loss
        assert torch.allclose(LossModule(model)(batch), expected, atol=1e-5)
        mine = on_device(batch, model)
        losses_B, counts_B = sample_losses(model, mine, last_hidden(model, mine))
        assert torch.allclose((losses_B * counts_B).sum() / counts_B.sum(), expected, atol=1e-5)
        # the pictures do reach it
        assert not torch.allclose(model(**inputs | {"pixel_values": -inputs["pixel_values"]}).loss, expected, atol=1e-6)


@pytest.mark.parametrize("llm", LLMS)
def test_taps_of_any_decoder_equal_batch_one_autograd(llm):
    config = tiny_config(llm=llm)
    model = in_memory(config, torch.float64)
    tap = GradientTap(model, r"re:language_model\.layers\.0\.|linear_1", ProjectionConfig(kind="none"))
    lean = type(model.model.language_model).__name__ in TABLE
    assert lean == (llm not in ("smollm3", "phi", "phi3", "stablelm"))
    got, wanted = tap(batch_for(model, config, [0, 1, 4])), list(tap.parameters().values())
    for number, row in enumerate((0, 1, 4)):
        batch = batch_for(model, config, [row])
        for p in wanted:
            p.requires_grad_(True)
        loss = model(**inputs_of(batch, "input_ids", "attention_mask", "labels")).loss
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)]).numpy()
        # some norms round to float32 inside
        assert abs(got[number] - expected).max() <= 1e-5 * abs(expected).max()


def windowed(llm):
    """A model whose layers with a window see six tokens, and SmolLM3's second one no positions; and its batch."""
    config = tiny_config(llm=llm)
    model_config = tiny_model_config(config, Words())
    if getattr(model_config.text_config, "sliding_window", None) is not None:
        model_config.text_config.sliding_window = 6
    if llm == "smollm3":
        model_config.text_config.no_rope_layers = [1, 0]
    torch.manual_seed(0)
    model = class_of(model_config)(model_config).eval()
    return model, batch_for(model, config, [1])


@pytest.mark.parametrize("llm", [name for name in LLMS if name != "phi3"])
def test_attention_by_heads_is_what_the_model_computes(llm):
    model, batch = windowed(llm)
    got = AttentionTap(model, 4, "heads")(batch)[0]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(**inputs_of(batch, "input_ids"), output_attentions=True)
    whole = sum(a[0].double().mean(0) for a in out.attentions)
    image = (batch["input_ids"][0] == 4).nonzero()[:, 0]
    expected = torch.linalg.svdvals(whole[int(image[-1]) + 1 :, image])[:4].numpy()
    assert got == pytest.approx(expected, rel=2e-5, abs=1e-6)
    assert got[0] > 0.01


def test_attention_that_is_not_known_is_said():
    with pytest.raises(InputError, match="no q_proj/k_proj"):
        AttentionTap(in_memory(tiny_config(llm="phi3")), 4, "flat")
    model_config = tiny_model_config(tiny_config(llm="stablelm"), Words())
    model_config.text_config.qk_layernorm = True
    model = class_of(model_config)(model_config).eval()
    AttentionTap(model, 4, "flat")
    with pytest.raises(InputError, match="qk_layernorm: take 'flat'"):
        AttentionTap(model, 4, "heads")
    model = in_memory(tiny_config(llm="gemma3_text"))
    layer = model.model.language_model.layers[1].self_attn
    layer.attn_logit_softcapping = 50.0
    with pytest.raises(InputError, match="attn_logit_softcapping: take 'flat'"):
        AttentionTap(model, 4, "heads")
    layer.attn_logit_softcapping, layer.q_norm.weight = None, torch.nn.Parameter(torch.ones(32))
    with pytest.raises(InputError, match="q_norm over all heads: take 'flat'"):
        AttentionTap(model, 4, "heads")


def test_gemma_scales_words_and_not_pictures():
    """By √width, inside its embedding: connectors learn features of the size of scaled words."""
    config = tiny_config(llm="gemma")
    model = in_memory(config)
    ids, plain = torch.arange(10, 20), model.model.language_model.embed_tokens.weight
    words = model.get_input_embeddings()(ids)
    assert torch.allclose(words, plain[ids] * config.hidden**0.5, rtol=1e-3)
    seen = {}
    layers = model.model.language_model.layers
    hook = layers[0].register_forward_pre_hook(lambda _, args: seen.setdefault("in", args[0]))
    batch = batch_for(model, config, [0])
    with torch.no_grad():
        model(input_ids=batch["input_ids"], pixel_values=batch["media"]["pixel_values"])
        shown = torch.cat(list(model.get_image_features(batch["media"]["pixel_values"]).pooler_output))
    hook.remove()
    assert torch.allclose(seen["in"][batch["input_ids"] == 4], shown, atol=1e-6)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of small parts by name."""
    root = tmp_path_factory.mktemp("parts")
    llms = {name: write_llm(root / name, name) for name in ("llama", "phi", "gemma")}
    return llms | {name: write_tower(root / name, name) for name in ("clip", "siglip", "dinov2")}


def text_logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(20, 30)[None]).logits


@pytest.mark.parametrize(("llm", "tower", "template"), [("llama", "clip", "v1"), ("gemma", "dinov2", "gemma")])
def test_the_default_is_a_plain_folder_with_its_parts_unchanged(parts, tmp_path, llm, tower, template):
    built = build(BuildConfig(llm=parts[llm], tower=parts[tower]), str(tmp_path / "made"))
    assert (built.template, built.image_tokens, built.plain) == (template, 4, True)
    assert set(built.added) == {"<pad>", "<image>"}
    assert default_template(built.path) == template
    model, info = LlavaForConditionalGeneration.from_pretrained(built.path, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    own = AutoModelForCausalLM.from_pretrained(parts[llm])
    words = own.get_input_embeddings().weight
    assert torch.equal(text_logits(model)[..., : len(words)], text_logits(own))
    assert len(model.get_input_embeddings().weight) % 64 == 0
    assert torch.allclose(model.get_input_embeddings().weight[len(words) :], words.mean(0), atol=1e-6)
    eyes, pixels = AutoModel.from_pretrained(parts[tower]), torch.randn(1, 3, 32, 32)
    for name, weight in eyes.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], weight)
    # Hugging Face's processor, ours, and the model agree on a picture's tokens
    processor = AutoProcessor.from_pretrained(built.path)
    assert processor.image_processor.image_mean == pytest.approx(list(TOWERS[tower].colours[0]))
    ids = [processor.image_token_id] * count_image_tokens(processor)
    model(input_ids=torch.tensor([ids]), pixel_values=pixels)
    with pytest.raises(InputError, match="is there already"):
        build(BuildConfig(llm=parts[llm], tower=parts[tower]), built.path)


def test_a_head_with_a_bias_keeps_it(parts, tmp_path):
    own = AutoModelForCausalLM.from_pretrained(parts["phi"])
    with torch.no_grad():
        own.lm_head.bias.normal_()
    own.save_pretrained(tmp_path / "phi")
    make_tokenizer("phi").save_pretrained(tmp_path / "phi")
    built = build(BuildConfig(llm=str(tmp_path / "phi"), tower=parts["siglip"]), str(tmp_path / "made"))
    assert (built.template, built.plain) == ("phi", False)
    loaded = load(built.path)
    assert torch.equal(text_logits(loaded.model)[..., : own.lm_head.out_features], text_logits(own))
    assert make_encoder(loaded.processor, built.template).reader.fixed == 4


def test_a_tower_comes_out_of_a_model_of_pictures_and_texts(parts, tmp_path):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    both = CLIPModel(CLIPConfig(text_config=small, vision_config=small | {"image_size": 32, "patch_size": 16}))
    both.save_pretrained(tmp_path / "clip")
    colours = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(colours))
    built = build(BuildConfig(llm=parts["llama"], tower=str(tmp_path / "clip"), seed=3), str(tmp_path / "made"))
    loaded = load(built.path)
    assert list(loaded.processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    mine = loaded.model.model.vision_tower.encoder.layers[1].mlp.fc2.weight
    assert torch.equal(mine, both.vision_model.encoder.layers[1].mlp.fc2.weight)


def test_a_flexible_tower_takes_another_size(parts, tmp_path):
    config = BuildConfig(llm=parts["llama"], tower=parts["dinov2"], image_size=64)
    loaded = load(build(config, str(tmp_path / "made")).path)
    assert count_image_tokens(loaded.processor) == 16
    ids = torch.full((1, 16), loaded.processor.image_token_id)
    loaded.model(input_ids=ids, pixel_values=torch.zeros(1, 3, 64, 64))
    with pytest.raises(InputError, match="takes 32 pixels alone"):
        build(config.model_copy(update={"tower": parts["clip"]}), str(tmp_path / "x"))
    with pytest.raises(InputError, match="no multiple of the tower's patches"):
        build(config.model_copy(update={"image_size": 50}), str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("llm", "tokens", "template"),
    [
        ("llama", "llama", "v1"),
        ("llama", "qwen2", "chatml"),  # SmolLM2
        ("mistral", "mistral", "mistral_instruct"),
        ("qwen3", "qwen3", "chatml"),
        ("stablelm", "stablelm", "phi"),
        ("gemma3_text", "gemma", "gemma"),
        ("phi", "llama", "v1"),  # a tokenizer without <|endoftext|>
    ],
)
def test_the_template_follows_language_model_and_tokenizer(llm, tokens, template):
    assert fitting_template(CONFIG_MAPPING[llm](), make_tokenizer(tokens)) == template


def bad(folder, model, tokenizer="llama"):
    torch.manual_seed(0)
    model.save_pretrained(folder)
    make_tokenizer(tokenizer).save_pretrained(folder)
    return str(folder)


def test_parts_that_do_not_go_together_are_said(parts, tmp_path, monkeypatch):
    def refused(words, **changes):
        with pytest.raises(InputError, match=words):
            build(BuildConfig.parse({"llm": parts["llama"], "tower": parts["clip"]} | changes), str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    small = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 400}
    refused("has no `layers`", llm=bad(tmp_path / "gpt2", AutoModelForCausalLM.from_config(GPT2Config(**small))))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 400}
    more = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    soft = AutoModelForCausalLM.from_config(Gemma2Config(**sizes, **more, final_logit_softcapping=0.01))
    refused("does more to its logits", llm=bad(tmp_path / "gemma2", soft))
    wide = write_llm(tmp_path / "wide", hidden=64)
    refused("identity: the vision tower gives 32 values", llm=wide, connector={"kind": "identity"})
    refused("no vision tower of type 'llama'", tower=parts["llama"])
    refused("no language model's folder", llm=str(tmp_path / "none"))
    refused("feature_layer -9", feature_layer=-9)
    refused("cannot be loaded|weights do not fit", llm=damaged(parts["llama"], tmp_path / "cut"))
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", False)
    refused("its tokenizer is slow")


def damaged(folder, out):
    shutil.copytree(folder, out)
    (out / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes()[:5000])
    return str(out)


def test_the_command_builds_and_refuses(parts, tmp_path, monkeypatch, capsys):
    def vinnow(*words):
        monkeypatch.setattr(
            sys, "argv", ["vinnow", "build", "--llm", parts["llama"], "--out", str(tmp_path / "made"), *words]
        )
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code, " ".join((said.out + said.err).split())

    code, said = vinnow("--tower", parts["siglip"], "--connector", "resampla")
    assert (code, "did you mean 'resampler'" in said) == (2, True)
    small = [word for n in ("queries=3", "width=32", "heads=4", "layers=1") for word in ("--set", f"connector.{n}")]
    code, said = vinnow("--tower", parts["siglip"], "--connector", "resampler", *small, "--set", "dtype=bfloat16")
    assert (code, "3 tokens per picture; train it with template: v1; its config.json names parts" in said) == (0, True)
    loaded = load(str(tmp_path / "made"), dtype="bfloat16")
    assert make_encoder(loaded.processor, default_template(loaded.path)).reader.fixed == 3
    assert json.loads((tmp_path / "made" / "config.json").read_text())["connector"]["kind"] == "resampler"


@pytest.mark.parametrize("llm", ["llama", "phi", "phi3"])
def test_lora_goes_where_the_language_model_has_its_linears(llm):
    def reached(model):
        return {n.removeprefix("base_model.model.") for n, m in model.named_modules() if hasattr(m, "lora_A")}

    expected = {
        n
        for n, m in in_memory(tiny_config(llm=llm)).named_modules()
        if isinstance(m, torch.nn.Linear) and ".layers." in n
    } - {n for n, _ in in_memory(tiny_config(llm=llm)).named_modules() if "vision_tower" in n}
    assert {n.rsplit(".", 1)[-1] for n in expected} == set(LLMS[llm].linears)
    assert reached(add_lora(in_memory(tiny_config(llm=llm)), LoraSpec(r=2))) == expected
    assert reached(add_adapter(in_memory(tiny_config(llm=llm)), AdapterSpec(r=2))) == expected
    for method in ("ia3", "oft"):
        if llm != "phi3":
            add_adapter(in_memory(tiny_config(llm=llm)), AdapterSpec(method=method, r=4 if method == "oft" else None))
            continue
        with pytest.raises(InputError, match=r"'qkv_proj'.*, not all of .*name your own"):
            add_adapter(in_memory(tiny_config(llm=llm)), AdapterSpec(method=method))


@pytest.mark.parametrize(
    "targets",
    [r".*\.q_proj", r".*", "all-linear", r".*linear_1", "lm_head", r".*language_model\.layers\..*norm", "q_proj"],
)
def test_lora_stays_in_the_decoder_s_layers(targets):
    with pytest.raises(InputError, match=r"layers alone, here \['q_proj', 'k_proj'"):
        add_lora(in_memory(tiny_config()), LoraSpec(r=2, targets=targets))
    with pytest.raises(InputError, match="not a regular expression"):
        add_lora(in_memory(tiny_config()), LoraSpec(r=2, targets="("))


def test_a_twin_of_unknown_parts_is_refused():
    for field in ("llm", "tower"):
        with pytest.raises(InputError, match="unknown part 'lama'"):
            TinyModelConfig.parse(SIZES | {field: "lama"})
    assert llm_of(MambaConfig()) is OTHER


@pytest.mark.parametrize("connector", ["mlp2x_gelu", "linear", "mlp3x_gelu", "resampler", "qformer"])
@pytest.mark.parametrize("llm", LLMS)
def test_shapes_are_the_model_s(llm, connector):
    model = in_memory(tiny_config(connector, llm=llm))
    shape, counts = shape_of(model.config), dict.fromkeys(("vision_tower", "projector", "language_model"), 0)
    for name, parameter in model.named_parameters():
        counts[component_of(name)] += parameter.numel()
    assert shape.parameters() == counts
    # a head that is the embedding too is no gradient's
    tied = tied_linears(model)
    modules = pick_linears(model, f"re:^(?!{'|'.join(tied)})" if tied else "re:.").items()
    mine = [(d.name, d.outputs, d.inputs, d.bias) for d in shape.linears if d.name not in tied]
    assert mine == [(n, m.out_features, m.in_features, m.bias is not None) for n, m in modules]


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("llm", ["llama", "phi"])
def test_every_twin_has_a_price(llm, tower):
    shape = tiny_model_shape(tiny_config(llm=llm, tower=tower))
    forward = forward_flop(shape, RowSize.fixed(60, labels=9)).items
    assert all(forward[f"{item} fwd"] > 0 for item in ("vision", "projector", "linears", "attention", "lm_head"))
