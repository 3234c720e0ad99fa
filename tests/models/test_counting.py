"""What is counted on a model's own code: the formulas that stood before it, sums by hand, and products that really ran."""

import json
from pathlib import Path

import pytest
import torch
from batches import make_batch
from families import in_memory, llava, tiny_config
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlavaConfig, MixtralConfig, Qwen2_5_VLConfig
from vinnow.models import registry
from vinnow.models.components import component_of, set_trainable
from vinnow.models.cost import RowSize, Sketch, forward_flop, gradient_flop, training_flop_per_row, trajectory_flop
from vinnow.models.shape import UnknownShapeError, shape_of
from vinnow.train.loss import LossModule

# figures of the formulas by kind, Linears, projection and training parts, TFLOP; LoRA r = 128
RECORDED = json.loads((Path(__file__).parent / "data" / "formulas.json").read_text())
MEAN = RowSize(tokens=700.0, squares=540_000.0, labels=180.0, images=0.9)
SIZES = {"7B": {}, "13B": {"layers": 40, "width": 5120, "heads": 40, "ffn": 13824}}
SKETCHES = {s.kind: s for s in (Sketch("rademacher", 8192), Sketch("sjlt", 8192, 2), Sketch("kron", 8192))}
SKETCHES |= {s.kind: s for s in (Sketch("targets", 22), Sketch("none", 0))}


def price(shape, name):
    """The price that a recorded name stands for."""
    match name.split():
        case ["gradient", which, sketch]:
            return gradient_flop(shape.with_lora(128), MEAN, which, SKETCHES[sketch])
        case ["training", joined, *checkpointing]:
            parts = joined.split("+")
            return training_flop_per_row(
                shape.with_lora(128) if "lora" in parts else shape, MEAN, parts, bool(checkpointing)
            )
        case ["trajectory"]:
            return trajectory_flop(shape, MEAN)
        case _:
            return forward_flop(shape, MEAN, head=name == "loss")


@pytest.mark.parametrize("size", SIZES)
def test_counted_figures_are_those_of_the_formulas(size):
    shape = shape_of(llava(**SIZES[size]))
    assert len(RECORDED[size]) == 28
    for name, recorded in RECORDED[size].items():
        cost = price(shape, name)
        assert cost.total == pytest.approx(sum(recorded.values()), rel=1e-3), name
        assert cost.items == pytest.approx(recorded, rel=0.01), name


def test_types_that_parts_name_change_nothing():
    config = llava(layers=2)
    config.dtype, config.text_config.dtype, config.vision_config.dtype = torch.bfloat16, torch.float16, torch.float32
    named, plain = shape_of(config), shape_of(llava(layers=2))
    assert named.architecture != plain.architecture
    assert forward_flop(named, MEAN) == forward_flop(plain, MEAN)
    assert named.linears == plain.linears


def test_qwen_of_7b_is_what_a_hand_adds_up():
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    text |= {"num_key_value_heads": 4, "vocab_size": 152064}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    vision |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    shape = shape_of(Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=151655))
    # 640 × 480 pixels: 46 × 34 patches of 14, two by two 23 × 17 tokens, windows of 4 × 4 tokens
    patches, tokens = 46 * 34, 23 * 17
    windows = [4 * w * h for w in (4, 4, 4, 4, 4, 3) for h in (4, 4, 4, 4, 1)]
    assert (shape.image_tokens, sum(windows)) == (tokens, patches)
    row = RowSize(700.0, 500_000.0, 90.0, 1.0, shown=2.0 * tokens)
    squares = 4 * patches**2 + 28 * sum(n**2 for n in windows)
    linears = 32 * patches * 2 * (4 * 1280**2 + 3 * 1280 * 3420)
    by_hand = {
        # patches hold two pictures in a row, of three colours
        "vision fwd": 2 * (linears + 4 * 1280 * squares + 2 * patches * (2 * 3 * 14**2) * 1280),
        "projector fwd": 2 * tokens * 2 * (5120 * 5120 + 5120 * 3584),
        "linears fwd": 700 * 28 * 2 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944),
        "attention fwd": 2 * 500_000 * 3584 * 28,
        "lm_head fwd": 90 * 2 * 3584 * 152064,
    }
    forward = forward_flop(shape, row)
    assert forward.items == pytest.approx({name: flop / 1e12 for name, flop in by_hand.items()}, rel=1e-9)
    assert shape.parameters()["language_model"] == 7_615_616_512
    back = gradient_flop(shape.with_lora(8), row, "projector+lora").items
    assert back["projector dX"] == pytest.approx(2 * tokens * 2 * 5120 * 3584 / 1e12)
    assert back["linears dX"] == pytest.approx(forward.items["linears fwd"])
    assert back["attention bwd"] == pytest.approx(2.5 * forward.items["attention fwd"])
    assert "vision dX" not in back


@pytest.mark.parametrize("llm", ["llama", "phi3"])
@pytest.mark.parametrize("parts", [["projector"], ["projector", "language_model"]])
def test_training_costs_the_products_that_really_run(parts, llm):
    config = tiny_config(llm=llm)
    model = in_memory(config)
    model.set_attn_implementation("eager")
    set_trainable(model, parts)
    batch = make_batch(model, rows=(0,), tokens=4)
    with FlopCounterMode(display=False) as counter:
        LossModule(model)(batch).backward()
    ids_BT, labels = batch["input_ids"], int((batch["labels"][:, 1:] != -100).sum())
    cost = training_flop_per_row(shape_of(model.config), RowSize.fixed(ids_BT.shape[1], labels), parts)
    # written out, attention has all of the scores, and keeps them for its way back
    causal = cost.items["attention fwd"]
    assert cost.items["attention bwd"] == pytest.approx(2.5 * causal)
    ran = counter.get_total_flops() / 1e12 - (6 - 3.5) * causal
    assert cost.total == pytest.approx(ran, rel=1e-9)


def test_experts_count_as_those_that_a_token_sees():
    text = MixtralConfig(
        vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2,
    )  # fmt: skip
    vision = CLIPVisionConfig(num_hidden_layers=1)
    shape = shape_of(LlavaConfig(vision_config=vision, text_config=text, image_token_index=4))
    forward = forward_flop(shape, RowSize.fixed(100, 10)).items["linears fwd"] * 1e12
    attention, router, expert = 2 * 64 * 64 + 2 * 64 * 32, 64 * 8, 3 * 64 * 128
    assert forward == pytest.approx(100 * 3 * 2 * (attention + router + 2 * expert))


OWN = """
from vinnow.models.family.llava import Llava

class Own(Llava):
    name = "{name}"
    kinds = ("{name}_vl",)
    label = "a family of one's own"
    processors = ("OwnProcessor",)

    def see(self, model, media):
        seen = super().see(model, media)
        {more}
        return seen

FAMILY = Own
"""


@pytest.mark.parametrize(("name", "more"), [("own", ""), ("looking", "assert float(seen.sum()) != 1")])
def test_a_family_of_one_s_own_has_a_price_from_the_protocol_alone(name, more, tmp_path, monkeypatch):
    (tmp_path / f"{name}.py").write_text(OWN.format(name=name, more=more))
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path))
    config = llava(layers=2)
    config.model_type = f"{name}_vl"
    if more:  # it asks for a value, and there is none
        with pytest.raises(UnknownShapeError, match="a family of one's own of this config cannot be counted: DataDep"):
            shape_of(config)
        return
    mine, theirs = shape_of(config), shape_of(llava(layers=2))
    for parts in (["projector"], ["projector", "language_model"]):
        assert training_flop_per_row(mine, MEAN, parts) == training_flop_per_row(theirs, MEAN, parts)
    assert mine.with_lora(4).parameters() == theirs.with_lora(4).parameters()
    with torch.device("meta"):
        model = registry.find(f"{name}_vl").class_of(config)(config)
    counts = dict.fromkeys(mine.parameters(), 0)
    for parameter, value in model.named_parameters():
        counts[component_of(parameter)] += value.numel()
    assert mine.parameters() == counts
