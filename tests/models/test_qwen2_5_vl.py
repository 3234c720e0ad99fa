"""Qwen2.5-VL beside the families' contract: patches are its processor's own numbers, and what does not fit is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from vinnow.models import registry
from vinnow.models.check import check_model
from vinnow.models.encoding import make_encoder
from vinnow.models.load import load, load_processor
from vinnow.models.shape import hidden_size
from vinnow.pool.collate import stack
from vinnow.pool.encode import Encoded, EncodeError
from vinnow.store.errors import InputError

SIZES = [(64, 64), (300, 40), (17, 130), (1000, 700)]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square", "user assistant system You are a helpful assistant."] * 20
    return registry.families()["qwen2_5_vl"].tiny(str(tmp_path_factory.mktemp("qwen") / "model"), texts)


def picture(size):
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_patches_are_the_processor_s_own(path):
    processor = load_processor(path)
    reader = make_encoder(processor, "chatml").reader
    media = [reader.prepare(picture(size)) for size in SIZES]
    row = Encoded(1, np.arange(3), np.arange(3), tuple("abcd"), media=tuple(media))
    batch = reader.finish(stack([row])["media"])
    expected = processor.image_processor([picture(size) for size in SIZES], return_tensors="pt")
    assert {v.dtype for one in media for n, v in one.items() if n == "pixel_values"} == {np.dtype(np.uint8)}
    assert torch.equal(batch["image_grid_thw"], expected["image_grid_thw"])
    assert (batch["pixel_values"] - expected["pixel_values"]).abs().max() <= 1e-6
    for size, one in zip(SIZES, media, strict=True):
        ids = reader.ids(size)
        assert ids.count(reader.image_id) == int(one["image_grid_thw"].prod()) // 4 == len(ids) - 2
    assert len({len(reader.ids(size)) for size in SIZES}) > 2


@pytest.mark.refuses("image mode `square` where pictures keep their sizes, and pictures longer than a processor takes")
def test_what_it_cannot_take_is_said(path):
    processor = load_processor(path)
    with pytest.raises(InputError, match="image mode 'square'"):
        make_encoder(processor, "chatml", image_mode="square")
    reader = make_encoder(processor, "chatml").reader
    for tried in (lambda: reader.ids((3000, 10)), lambda: reader.prepare(picture((3000, 10)))):
        with pytest.raises(EncodeError, match=r"3000 × 10 pixels: absolute aspect ratio"):
            tried()
    assert hidden_size(path) == 48


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        (None, "image_token_id", 7, "image_token_id 7, the tokenizer's of <|image_pad|> is"),
        ("vision_config", "patch_size", 4, "patch_size 4, the image processor 8"),
        ("text_config", "vocab_size", 50, "vocab_size 50, the tokenizer's ids go up to"),
    ],
)
def test_a_config_and_a_processor_that_differ_are_refused(path, tmp_path, section, name, value, message):
    shutil.copytree(path, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    (config if section is None else config[section])[name] = value
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        registry.find("qwen2_5_vl").check_fit(
            type(load(path).model.config).from_dict(config), load_processor(path), path
        )
    if name != "image_token_id":
        with pytest.raises(InputError):
            check_model(str(tmp_path / "model"))


def test_a_model_that_no_family_knows_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_6_vl"}))
    with pytest.raises(InputError, match=r"'qwen2_6_vl' model, none of .*llava, .*nearest.*'qwen2_5_vl'"):
        load(str(tmp_path))
