"""Idefics3 and SmolVLM beside the families' contract: squares and their text are Hugging Face's own processor's.

The oracle is `Idefics3Processor`; SmolVLM's says the same of pictures, in a class that asks for num2words.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from vinnow.models import registry
from vinnow.models.check import check_model
from vinnow.models.components import add_lora, canonical, component_of
from vinnow.models.cost import RowSize, training_flop_per_row
from vinnow.models.encoding import make_encoder
from vinnow.models.family.of_idefics.tiles import grid, padded
from vinnow.models.load import load, load_processor
from vinnow.models.mores import add_mores, mores_of
from vinnow.models.shape import read_shape, shape_of
from vinnow.models.specs import LoraSpec, MoresSpec
from vinnow.pool.collate import stack
from vinnow.pool.encode import Encoded
from vinnow.store.errors import InputError

SIZES = [(64, 64), (300, 40), (17, 130), (1, 1), (3, 500), (33, 32), (64, 65), (1000, 700), (4000, 200)]
# an image processor's settings, and how many ways to cut the sizes above come of them at least
SETTINGS = [
    ({}, 3),
    ({"size": {"longest_edge": 100}}, 4),
    ({"size": {"longest_edge": 33}}, 3),
    ({"size": {"longest_edge": 32}}, 1),
    ({"size": {"height": 70, "width": 40}}, 1),
    ({"do_resize": False}, 4),
    ({"do_image_splitting": False}, 1),
]


@pytest.fixture(scope="module", params=["idefics3", "smolvlm"])
def path(request, tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square", "User Assistant"] * 20
    return registry.families()[request.param].tiny(str(tmp_path_factory.mktemp(request.param) / "model"), texts)


def picture(size):
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize(("settings", "ways"), SETTINGS)
def test_squares_and_their_text_are_the_processor_s_own(path, settings, ways):
    processor = load_processor(path)
    chosen = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}} | settings
    images = processor.image_processor = type(processor.image_processor)(**chosen)
    theirs, reader = (
        Idefics3Processor(images, processor.tokenizer, image_seq_len=4),
        make_encoder(processor, "chatml").reader,
    )
    shapes = set()
    for size in [s for s in SIZES if settings.get("do_resize", True) or max(s) < 1000]:
        expected = theirs(images=[[picture(size)]], text=[reader.mark])
        assert reader.ids(size) == expected["input_ids"][0]
        media = reader.prepare(picture(size))
        assert {n: v.dtype for n, v in media.items()} == {"pixel_values": np.dtype(np.uint8)}
        pixels = reader.finish({n: torch.from_numpy(v) for n, v in media.items()})["pixel_values"]
        assert np.abs(pixels.numpy() - expected["pixel_values"][0]).max() <= 1e-6
        # all of every square is picture, so no mask travels
        assert np.all(expected["pixel_attention_mask"])
        assert reader.ids(size).count(reader.image_id) == 4 * len(pixels)
        shapes.add(grid(images, size))
    assert len(shapes) >= ways


def test_rows_without_text_marks_for_squares_are_tokenised_as_text(path):
    processor = load_processor(path)
    plain = registry.find("idefics3").image_processor()(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    processor.image_processor = plain
    reader = make_encoder(processor, "chatml").reader
    assert "<row_3_col_1>" not in processor.tokenizer.get_vocab()
    theirs = Idefics3Processor(plain, processor.tokenizer, image_seq_len=4)
    assert reader.ids((90, 90)) == theirs(images=[[picture((90, 90))]], text=["<image>"])["input_ids"][0]


def test_generation_takes_the_processor_s_padded_form_and_black_pictures_count(path):
    loaded = load(path, "float64")
    family, reader = registry.family_of(loaded.model), make_encoder(loaded.processor, "chatml").reader
    black, small = Image.new("RGB", (90, 40)), Image.new("RGB", (5, 5), (127, 127, 127))
    shown = [[black, picture((40, 90))], [], [small]]
    rows = [
        Encoded(i, np.arange(3), np.arange(3), (), media=tuple(reader.prepare(one) for one in some))
        for i, some in enumerate(shown)
    ]
    batch = stack(rows)
    media = {n: v.double() for n, v in reader.finish(batch["media"]).items()}
    ids_BT = torch.zeros(3, 4, dtype=torch.long)
    inputs = family.generating(loaded.model, batch | {"media": media, "input_ids": ids_BT, "attention_mask": ids_BT})
    expected = loaded.processor.image_processor(shown, return_tensors="pt")["pixel_values"]
    assert inputs["pixel_values"].shape == expected.shape
    assert (inputs["pixel_values"] - expected).abs().max() <= 1e-6
    ours = family.connect(loaded.model, family.see(loaded.model, media), media)
    theirs = loaded.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    assert len(ours) == 4 * sum(int(c) for c in batch["media_counts"]["pixel_values"])
    assert (ours - torch.cat(list(theirs))).abs().max() <= 1e-9


def test_padding_keeps_rows_apart():
    pixels = torch.arange(1, 6).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    out = padded(pixels, torch.tensor([1, 1, 3]), torch.tensor([1, 2, 2]), 4)
    assert out[:, :, 0, 0, 0].tolist() == [[0, 0, 0], [1, 2, 3], [0, 0, 0], [4, 5, 0]]


def test_what_is_added_lies_in_the_decoder_s_own_name(path):
    loaded = load(path)
    lm = registry.family_of(loaded.model).decoder(loaded.model)
    mores = add_mores(loaded.model, MoresSpec(rank=2))
    assert mores_of(loaded.model) is mores
    assert len(mores.layers) == len(lm.layers)
    wrapped = add_lora(load(path).model, LoraSpec(r=2))
    added = sorted({canonical(n) for n, _ in wrapped.named_parameters() if component_of(n) == "lora"})
    assert len(added) == 2 * 7 * len(lm.layers)
    assert all(n.startswith("model.text_model.layers.") for n in added)
    assert {d.name for d in read_shape(path).with_lora(2).linears if d.component == "lora"} == {
        n.removesuffix(".weight") for n, _ in wrapped.named_parameters() if component_of(n) == "lora"
    }
    with pytest.raises(InputError, match="reaches"):
        add_lora(load(path).model, LoraSpec(r=2, targets=r".*vision_model.*q_proj"))


def test_a_price_goes_by_the_squares_of_a_usual_picture():
    text = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280}
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 12}
    vision |= {"image_size": 512, "patch_size": 16}
    config = AutoConfig.for_model(
        "smolvlm", text_config=text, vision_config=vision, scale_factor=4, image_token_id=49190
    )
    shape = shape_of(config)
    # 640 × 480 pixels: 4 × 3 squares and the whole, each (512 / 16 / 4)² tokens
    assert shape.image_tokens == 13 * 64
    row = RowSize(1000.0, 500_000.0, 90.0, 1.0, shown=13.0 * 64)
    cost = training_flop_per_row(shape, row, ["projector"], False)
    assert cost.items["projector fwd"] == pytest.approx(13 * 64 * 2 * (768 * 16) * 576 / 1e12)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"image_token_id": 7}, r"image_token_id 7, the tokenizer \d+"),
        (
            "preprocessor_config.json",
            {"max_image_size": {"longest_edge": 48}},
            r"squares of 48 pixels are 6² patches, merged 2² at a time, .* image_seq_len 4",
        ),
        ("processor_config.json", {"image_seq_len": 9}, "image_seq_len 9"),
        (
            "preprocessor_config.json",
            {"image_mean": [0.0, 0.0, 0.0]},
            "all zeros, which the model's own code takes for",
        ),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize off"),
    ],
)
def test_what_does_not_go_together_is_refused(path, tmp_path, file, change, message):
    shutil.copytree(path, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / file).read_text())
    (tmp_path / "model" / file).write_text(json.dumps(settings | change))

    def used():
        check_model(str(tmp_path / "model"))
        make_encoder(load_processor(str(tmp_path / "model")), "chatml")

    with pytest.raises(InputError, match=message):
        used()
