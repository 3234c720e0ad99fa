"""Qwen3-VL beside the families' contract: patches, deepstack, price, and what is refused."""

import copy
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3VLConfig
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from vinnow.models import registry
from vinnow.models.check import check_model
from vinnow.models.components import component_of, set_trainable
from vinnow.models.cost import RowSize, forward_flop, gradient_flop, training_flop_per_row
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.forward import decode, embed, on_device
from vinnow.models.load import load, load_processor
from vinnow.models.shape import shape_of
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.forward import LossTap
from vinnow.pool.collate import collate, stack
from vinnow.pool.encode import Encoded, EncodeError
from vinnow.pool.records import Record
from vinnow.store.errors import InputError
from vinnow.train.loss import LossModule

SIZES = [(64, 64), (300, 40), (17, 130), (1000, 700), (64, 64)]
MERGERS = ("merger", "deepstack_merger_list.0", "deepstack_merger_list.1")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square", "user assistant system You are a helpful assistant."] * 20
    return registry.families()["qwen3_vl"].tiny(str(tmp_path_factory.mktemp("qwen3") / "model"), texts)


def picture(size):
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def encoder_of(path):
    return make_encoder(load_processor(path), default_template(path), 400)


def batch_of(path, *sizes):
    """A row with a picture of each size, and one of text."""
    encoder = encoder_of(path)
    said = {"from": "human", "value": "<image>" * len(sizes) + " what is in the image?"}, "a red square"
    turns = [said[0], {"from": "gpt", "value": said[1]}]
    shown = Record(1, "s", "t", tuple(map(str, range(len(sizes)))), turns)
    plain = Record(2, "s", "t", (), [{"from": "human", "value": "what is in it?"}, turns[1]])
    media = [encoder.reader.prepare(picture(size)) for size in sizes]
    rows = [encoder.encode(shown, list(sizes)).showing(media), encoder.encode(plain)]
    return encoder.finish(collate(rows, encoder.tokenizer.pad_token_id))


def theirs(model, batch):
    """Hugging Face's own output of a model that nothing of ours has touched."""
    assert not any("forward" in vars(block.attn) for block in model.model.visual.blocks)
    assert "_deepstack_process" not in vars(model.model.language_model)
    names = ("input_ids", "attention_mask", "labels")
    kinds = (batch["input_ids"] == model.config.image_token_id).int()
    media = {n: v.double() if v.is_floating_point() else v for n, v in batch["media"].items()}
    return model(**{n: batch[n] for n in names}, mm_token_type_ids=kinds, **media)


def test_patches_and_their_tokens_are_the_processor_s_own(path):
    processor = load_processor(path)
    reader = encoder_of(path).reader
    media = [reader.prepare(picture(size)) for size in SIZES]
    row = Encoded(1, np.arange(3), np.arange(3), tuple("abcde"), media=tuple(media))
    batch = reader.finish(stack([row])["media"])
    expected = processor.image_processor([picture(size) for size in SIZES], return_tensors="pt")
    assert {one["pixel_values"].dtype for one in media} == {np.dtype(np.uint8)}
    assert torch.equal(batch["image_grid_thw"], expected["image_grid_thw"])
    assert (batch["pixel_values"] - expected["pixel_values"]).abs().max() <= 1e-6
    own = SimpleNamespace(image_processor=processor.image_processor, image_token="<|image_pad|>")
    for number, size in enumerate(SIZES):
        inside = Qwen3VLProcessor.replace_image_token(own, expected, number)
        text = f"<|vision_start|>{inside}<|vision_end|>"
        assert reader.ids(size) == processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len({len(reader.ids(size)) for size in SIZES}) > 3


def test_published_settings_give_the_published_numbers_of_tokens(path):
    processor = load_processor(path)
    # Qwen3-VL's preprocessor_config.json: patches of 16, a picture of 256 × 256 pixels at least
    settings = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16}
    processor.image_processor = type(processor.image_processor)(**settings)
    reader = make_encoder(processor, "chatml").reader
    tokens = {(640, 480): 20 * 15, (480, 640): 20 * 15, (64, 64): 8 * 8, (4000, 200): 125 * 6}
    assert {size: reader.ids(size).count(reader.image_id) for size in tokens} == tokens


def test_gradients_through_each_merger_are_those_of_hugging_face(path):
    batch = batch_of(path, (64, 64), (40, 90))
    plain, model = (load(path, "float64").model for _ in range(2))
    weights = [[m.model.visual.get_submodule(n).linear_fc1.weight for n in MERGERS] for m in (plain, model)]
    # both rows are as long as each other in labels: the mean of all tokens is the mean of rows
    expected = torch.autograd.grad(theirs(plain, batch).loss, weights[0])
    ours = torch.autograd.grad(LossModule(model)(batch), weights[1])
    for mine, other in zip(ours, expected, strict=True):
        assert (mine - other).abs().max() <= 1e-6 * other.abs().max()
        assert other.abs().max() > 0
    assert not torch.allclose(expected[1], expected[2])


@torch.no_grad()
def test_each_deeper_feature_has_its_say_and_its_place(path):
    batch = batch_of(path, (64, 64), (40, 90))
    model, plain = (load(path, "float64").model for _ in range(2))
    taken = on_device(batch, model)
    embeds_BTH, arguments = embed(model, taken)
    before = decode(model, embeds_BTH, arguments)
    expected = plain.model(
        **{n: v for n, v in taken.items() if n in ("input_ids", "attention_mask")},
        **taken["media"],
        mm_token_type_ids=(taken["input_ids"] == model.config.image_token_id).int(),
    ).last_hidden_state
    real = taken["attention_mask"].bool()
    assert (before - expected)[real].abs().max() <= 1e-12 * before.abs().max()
    # a mask, as Hugging Face's own code gives one, is taken too
    mask_BT = taken["input_ids"] == model.config.image_token_id
    assert torch.equal(decode(model, embeds_BTH, arguments | {"visual_pos_masks": mask_BT}), before)
    losses = [LossTap(model)(batch)[:, 0]]
    for merger in MERGERS[1:]:
        module = model.model.visual.get_submodule(merger).linear_fc2
        kept = copy.deepcopy(module.state_dict())
        module.weight.zero_()
        module.bias.zero_()
        losses.append(LossTap(model)(batch)[:, 0])
        module.load_state_dict(kept)
    assert len({float(loss[0]) for loss in losses}) == 3
    assert len({float(loss[1]) for loss in losses}) == 1  # text


@torch.no_grad()
def test_trajectories_of_heads_are_what_eager_attention_says(path):
    batch = batch_of(path, (64, 64))
    plain = load(path, attn="eager").model
    kinds = (batch["input_ids"] == plain.config.image_token_id).int()
    names = ("input_ids", "attention_mask")
    out = plain(
        **{n: batch[n] for n in names}, **batch["media"], mm_token_type_ids=kinds, output_attentions=True
    ).attentions
    whole = sum(a[0].double().mean(0) for a in out)
    image, rows = kinds[0].nonzero()[:, 0], int(batch["attention_mask"][0].sum())
    expected = torch.linalg.svdvals(whole[int(image[-1]) + 1 : rows, image])[:5].numpy()
    got = AttentionTap(load(path).model, 5, "heads")(batch)
    np.testing.assert_allclose(got[0], expected, rtol=2e-5, atol=1e-6)
    assert not got[1].any()


def test_the_price_is_what_a_hand_adds_up():
    text = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32}
    text |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    vision = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096}
    shape = shape_of(Qwen3VLConfig(text_config=text, vision_config=vision))
    # 640 × 480 pixels: 40 × 30 patches of 16, two by two 20 × 15 tokens; a merger at the end and three in the middle
    patches, tokens = 40 * 30, 20 * 15
    assert shape.image_tokens == tokens
    row = RowSize(700.0, 500_000.0, 90.0, 1.0, shown=2.0 * tokens)
    tower = 27 * (patches * 2 * (4 * 1152**2 + 2 * 1152 * 4304) + 4 * 1152 * patches**2)
    by_hand = {
        "vision fwd": 2 * (tower + 2 * patches * (2 * 3 * 16**2) * 1152),
        "projector fwd": 4 * 2 * tokens * 2 * (4608 * 4608 + 4608 * 4096),
        "linears fwd": 700 * 36 * 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288),
        "attention fwd": 2 * 500_000 * 4096 * 36,
        "lm_head fwd": 90 * 2 * 4096 * 151936,
    }
    assert forward_flop(shape, row).items == pytest.approx({n: flop / 1e12 for n, flop in by_hand.items()}, rel=1e-6)
    # 8.77 thousand million, as its weights' files say
    assert sum(shape.parameters().values()) == pytest.approx(8.767e9, rel=1e-3)
    # mergers run in the middle of the tower; what lies behind them there is not passed on the way back
    back = gradient_flop(shape, row, "projector").items
    assert "vision dX" not in back
    assert back["per-sample gradients"] == pytest.approx(by_hand["projector fwd"] / 1e12)


@pytest.mark.parametrize("parts", [["projector"], ["projector", "language_model"]])
def test_training_costs_the_products_that_really_run(path, parts):
    config, words = load(path).model.config, 40
    config.vision_config.patch_size = 32  # the usual picture is soon seen
    config._attn_implementation = "eager"
    family = registry.family_of(config)
    model = family.class_of(config)(config)
    set_trainable(model, parts)
    media = family.pictures(config, 1)
    shown = int(media["image_grid_thw"].prod()) // 4
    ids_BT = torch.tensor([[5, *[config.image_token_id] * shown, *[6] * words]])
    labels_BT = torch.where(torch.arange(ids_BT.shape[1]) > shown + 10, ids_BT, -100)
    batch = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "labels": labels_BT, "media": media}
    with FlopCounterMode(display=False) as counter:
        LossModule(model)(batch | {"image_owner": torch.zeros(1, dtype=torch.long)}).backward()
    row = RowSize.fixed(ids_BT.shape[1], int((labels_BT[:, 1:] != -100).sum()))
    cost = training_flop_per_row(shape_of(config), row, parts)
    # written out, attention has all of the scores, and keeps them for its way back
    ran = counter.get_total_flops() / 1e12 - (6 - 3.5) * cost.items["attention fwd"]
    # versions before 5.18 turn positions into angles by a small product
    assert cost.total == pytest.approx(ran, rel=5e-5)


def test_mergers_are_the_connector(path):
    model = load(path).model
    mergers = [f"model.visual.{name}." for name in MERGERS]
    for name, _ in model.named_parameters():
        inside = name.startswith(tuple(mergers))
        assert (component_of(name) == "projector") == inside
    assert component_of("model.visual.blocks.0.attn.qkv.weight") == "vision_tower"


def test_what_it_cannot_take_is_said(path, tmp_path):
    processor = load_processor(path)
    with pytest.raises(InputError, match="image mode 'square'"):
        make_encoder(processor, "chatml", image_mode="square")
    reader = encoder_of(path).reader
    for tried in (lambda: reader.ids((3000, 10)), lambda: reader.prepare(picture((3000, 10)))):
        with pytest.raises(EncodeError, match=r"3000 × 10 pixels: absolute aspect ratio"):
            tried()
    short = make_encoder(processor, "chatml", max_len=30)
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]
    with pytest.raises(EncodeError, match="its last image ends at token"):
        short.encode(Record(1, "s", "t", ("a",), turns), [(64, 64)])


def test_a_text_that_would_become_a_video_s_mark_is_refused(path, tmp_path):
    shutil.copytree(path, tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    written = json.loads(file.read_text())
    (mark,) = [token for token in written["added_tokens"] if token["content"] == "<|video_pad|>"]
    mark["special"] = False
    file.write_text(json.dumps(written))
    settings = tmp_path / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"extra_special_tokens": {}}))
    with pytest.raises(InputError, match=r"literal '<\|video_pad\|>' in a text would become a mark of Qwen3-VL"):
        make_encoder(load_processor(str(tmp_path / "model")), "chatml")


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        (None, "image_token_id", 7, "image_token_id 7, the tokenizer's of <|image_pad|> is"),
        ("vision_config", "patch_size", 4, "patch_size 4, the image processor 8"),
        ("vision_config", "spatial_merge_size", 4, "spatial_merge_size 4, the image processor 2"),
        ("text_config", "vocab_size", 50, "vocab_size 50, the tokenizer's ids go up to"),
        ("vision_config", "deepstack_visual_indexes", [0, 3], "deepstack_visual_indexes [0, 3], which are not blocks"),
        ("vision_config", "deepstack_visual_indexes", [1, 0], "deepstack_visual_indexes [1, 0], which are not blocks"),
        (
            "text_config",
            "num_hidden_layers",
            1,
            "2 deepstack_visual_indexes, one for each of the decoder's first layers",
        ),
    ],
)
def test_a_config_and_a_processor_that_differ_are_refused(path, tmp_path, section, name, value, message):
    shutil.copytree(path, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    (config if section is None else config[section])[name] = value
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=re.escape(message)):
        registry.find("qwen3_vl").check_fit(Qwen3VLConfig.from_dict(config), load_processor(path), path)
    with pytest.raises(InputError):
        check_model(str(tmp_path / "model"))
