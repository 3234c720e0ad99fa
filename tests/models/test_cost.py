"""Costs by formula: the table of spec LESS §6.3, parameter counts, and Hugging Face's own models as the oracle."""

import json

import pytest
import torch
from families import llava
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
)
from vinnow.models.components import component_of, pick_linears
from vinnow.models.cost import (
    RowSize,
    Sketch,
    activation_bytes_per_token,
    elements,
    forward_flop,
    gradient_flop,
    training_flop_per_row,
    trajectory_flop,
)
from vinnow.models.family.of_llava.llms import LORA_TARGETS
from vinnow.models.shape import UnknownShapeError, read_shape, shape_of
from vinnow.store.errors import InputError

ALL = RowSize.fixed(776, labels=776)


@pytest.fixture(scope="module")
def seven():
    return shape_of(llava())


def on_meta(config, lora=0):
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
        return get_peft_model(model, LoraConfig(r=lora, target_modules=LORA_TARGETS)) if lora else model


def test_parameter_counts_are_those_of_the_spec(seven):
    wide = seven.with_lora(128)
    assert elements(wide.chosen("lora")) == 319_815_680
    assert elements(wide.chosen("projector")) == 20_979_712
    assert elements(wide.chosen("projector+lora")) == 340_795_392
    qkvo = seven.with_lora(128, ("q_proj", "k_proj", "v_proj", "language_model.o_proj", "self_attn.o_proj"))
    assert elements(qkvo.chosen(r"re:language_model.*\.lora_")) == 134_217_728
    thirteen = shape_of(llava(layers=40, width=5120, heads=40, ffn=13824))
    assert elements(thirteen.with_lora(128).chosen("lora")) == 500_695_040
    linears = [d for d in seven.linears if d.place == "language_model"]
    assert elements(linears) == 6_476_005_376
    assert activation_bytes_per_token(seven) == 4_915_200


TABLE = [
    ("vision fwd", 0.382), ("linears fwd", 10.051), ("linears dX", 10.051), ("attention fwd", 0.158),
    ("attention bwd", 0.395), ("lm_head fwd", 0.203), ("lm_head dX", 0.203), ("lora fwd", 0.496), ("lora dX", 0.496),
    ("per-sample gradients", 0.496), ("projector fwd", 0.024),
]  # fmt: skip


@pytest.mark.parametrize(("item", "tflop"), TABLE)
def test_each_row_of_the_spec_s_table(seven, item, tflop):
    cost = gradient_flop(seven.with_lora(128), ALL, "lora")
    # 0.024 is given to two digits
    assert cost.items[item] == pytest.approx(tflop, rel=0.02)
    assert cost.total == pytest.approx(22.96, rel=0.001)
    assert set(cost.items) == {name for name, _ in TABLE} | {"projection"}


def test_projector_gradients_and_label_rows(seven):
    cost = gradient_flop(seven, RowSize.fixed(776, labels=200), "projector")
    assert cost.items["projector dX"] == pytest.approx(0.019, rel=0.02)
    assert cost.items["per-sample gradients"] == pytest.approx(0.024, rel=0.02)
    assert cost.items["lm_head fwd"] == pytest.approx(0.05, rel=0.05)
    # the backward pass still crosses all layers: 5 % less than LoRA
    assert 0.9 < cost.total / gradient_flop(seven.with_lora(128), ALL, "lora").total < 0.96


@pytest.mark.parametrize(
    ("which", "sketch", "tflop"),
    [
        ("lora", Sketch("rademacher", 8192), 5.24),
        ("projector", Sketch("rademacher", 8192), 0.344),
        ("projector+lora", Sketch("rademacher", 8192), 5.58),
        ("lora", Sketch("rademacher", 5120), 3.27),
        ("projector", Sketch("rademacher", 5120), 0.215),
        ("projector+lora", Sketch("sjlt", 8192, 2), 2 * 340_795_392 * 2 / 1e12),
        ("projector+lora", Sketch("targets", 22), 0.0150),
        ("lora", Sketch("none", 0), 0.0),
    ],
)
def test_projections(seven, which, sketch, tflop):
    cost = gradient_flop(seven.with_lora(128), ALL, which, sketch)
    assert cost.items["projection"] == pytest.approx(tflop, rel=0.02)


def test_kron_never_forms_the_gradient(seven):
    cost = gradient_flop(seven.with_lora(128), ALL, "lora", Sketch("kron", 8192))
    assert "per-sample gradients" not in cost.items
    assert cost.items["projection"] < 0.7


def test_forward_only_kinds(seven):
    loss, path = (flop(seven, RowSize.fixed(776, 200)) for flop in (forward_flop, trajectory_flop))
    assert loss.total == pytest.approx(0.382 + 10.051 + 0.158 + 0.052 + 0.024, rel=0.005)
    assert "lm_head fwd" not in path.items
    assert path.items["trajectory"] == pytest.approx(2 * 200 * 776 * 4096 * 32 / 1e12)
    text = forward_flop(seven, RowSize.fixed(776, 200, image=False))
    assert text.items["vision fwd"] == text.items["projector fwd"] == 0


def test_training_costs(seven):
    lora = training_flop_per_row(seven.with_lora(128), ALL, ["lora"])
    assert lora.total == pytest.approx(22.96, rel=0.001)
    full = training_flop_per_row(seven, ALL, ["projector", "language_model"])
    assert full.items["weight gradients"] == pytest.approx(10.051 + 0.203 + 0.024, rel=0.01)
    again = training_flop_per_row(seven, ALL, ["projector", "language_model"], checkpointing=True)
    assert again.total - full.total == pytest.approx(10.209, rel=0.01)
    everything = training_flop_per_row(seven, ALL, ["vision_tower", "projector", "language_model"])
    # forward 1, dX 1, dW 1, and attention's backward 2.5
    assert everything.items["vision dX"] == pytest.approx(0.3485 + 2.5 * 0.0327, rel=0.01)


def test_late_layers_end_the_backward_pass_early(seven):
    late = gradient_flop(seven, ALL, r"re:language_model\.layers\.(30|31)\.")
    assert late.items["linears dX"] == pytest.approx(10.051 / 16, rel=0.01)
    assert late.items["attention bwd"] == pytest.approx(0.395 / 16, rel=0.01)
    assert "projector dX" not in late.items


@pytest.mark.parametrize("lora", [0, 8])
@pytest.mark.parametrize(
    "which", ["projector", "lora", "projector+lora", r"re:layers\.1\.mlp", r"re:^lm_head", "re:q_proj"]
)
def test_chosen_linears_are_those_of_the_model(lora, which):
    config = llava(layers=2, kv_heads=8, vision_layers=2)
    shape, model = shape_of(config), on_meta(config, lora)
    shape = shape.with_lora(lora) if lora else shape
    if not lora and "lora" in which:
        if which == "lora":
            with pytest.raises(InputError, match="no Linear matches"):
                shape.chosen(which)
        return
    try:
        modules = pick_linears(model, which).values()
    except InputError:
        with pytest.raises(InputError, match="no Linear matches"):
            shape.chosen(which)
        return
    mine = [(d.outputs, d.inputs, d.bias) for d in shape.chosen(which)]
    assert mine == [(m.out_features, m.in_features, m.bias is not None) for m in modules]


@pytest.mark.parametrize("lora", [0, 128])
@pytest.mark.parametrize("text", [LlamaConfig, MistralConfig, Qwen2Config])
def test_parameters_by_part_are_the_model_s(lora, text):
    config = llava(kv_heads=8, text=text, tied=text is Qwen2Config)
    shape = shape_of(config).with_lora(lora) if lora else shape_of(config)
    counts = dict.fromkeys(shape.parameters(), 0)
    for name, parameter in on_meta(config, lora).named_parameters():
        counts[component_of(name)] += parameter.numel()
    assert shape.parameters() == counts


def test_a_checkpoint_s_shape_is_read_from_its_folder(tiny_model, tmp_path):
    shape = read_shape(tiny_model)
    model = LlavaForConditionalGeneration.from_pretrained(tiny_model)
    assert sum(shape.parameters().values()) == sum(p.numel() for p in model.parameters())
    adapter = {"r": 4, "target_modules": LORA_TARGETS, "base_model_name_or_path": tiny_model}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    assert read_shape(str(tmp_path)) == shape.with_lora(4)


def test_what_has_no_formula_is_said(seven, tmp_path):
    with pytest.raises(UnknownShapeError, match="no formulas for"):
        shape_of(LlamaConfig())
    with pytest.raises(InputError, match="no checkpoint at"):
        read_shape(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="did you mean 'projector'"):
        seven.chosen("projectr")
    with pytest.raises(InputError, match="not a regular expression"):
        seven.chosen("re:(")
    with pytest.raises(InputError, match="unknown projection 'sjl'"):
        gradient_flop(seven, ALL, "projector", Sketch("sjl", 8))
