"""InternVL beside the families' contract: tiles and expansions are its processor's, and what does not fit is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from misfits import SIZES, check, finished, noise
from transformers import InternVLProcessor
from vinnow.models import registry
from vinnow.models.encoding import make_encoder
from vinnow.models.family.of_hf.processor import FolderProcessor
from vinnow.models.load import load, load_processor
from vinnow.models.shape import read_shape
from vinnow.pool.records import Record
from vinnow.store.errors import InputError


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square", "user assistant system"] * 20
    return registry.families()["internvl"].tiny(str(tmp_path_factory.mktemp("internvl") / "model"), texts)


def readers(path):
    """The tiny model's own tiles of 32 pixels, at most four, and those that InternVL 3.5 has."""
    small = load_processor(path)
    full = small.image_processor.__class__(size={"height": 448, "width": 448}, max_patches=12, crop_to_patches=False)
    large = FolderProcessor("internvl", small.tokenizer, full, {"image_seq_length": 256})
    return [make_encoder(processor, "chatml").reader for processor in (small, large)]


def test_tiles_are_the_processor_s_own(path):
    counts = []
    for reader in readers(path):
        batch, media = finished(reader, SIZES)
        # the processor cuts whatever its image processor's file says
        expected = reader.images([noise(size) for size in SIZES], crop_to_patches=True, return_tensors="pt")
        assert {one["pixel_values"].dtype for one in media} == {np.dtype(np.uint8)}
        assert (batch["pixel_values"] - expected["pixel_values"]).abs().max() <= 1e-6
        theirs = InternVLProcessor.replace_image_token
        own = SimpleNamespace(start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>")
        own.image_seq_length = reader.tokens
        for number, size in enumerate(SIZES):
            text = theirs(own, {"num_patches": expected["num_patches"].tolist()}, number)
            assert reader.ids(size) == reader.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert reader.ids(size).count(reader.image_id) == reader.tokens * len(media[number]["pixel_values"])
        counts.append([len(one["pixel_values"]) for one in media])
    assert counts == [[5, 5, 5, 5, 5, 1], [1, 8, 9, 7, 13, 1]]


@torch.no_grad()
def test_features_of_tiles_are_the_model_s_own(path):
    reader, model = readers(path)[0], load(path, "float64").model
    media, _ = finished(reader, SIZES[:3], double=True)
    family = registry.family_of(model)
    for layer, strategy in ((-1, "default"), (-2, "default"), (1, "default")):
        model.config.vision_feature_layer, model.config.vision_feature_select_strategy = layer, strategy
        expected = model.get_image_features(media["pixel_values"]).pooler_output.flatten(0, 1)
        shown_RH = family.connect(model, family.see(model, media), media)
        assert (shown_RH - expected).abs().max() <= 1e-12
        assert len(shown_RH) == sum(reader.ids(s).count(reader.image_id) for s in SIZES[:3])
        assert len(shown_RH.unique(dim=0)) == len(shown_RH)


def test_a_price_is_counted_on_a_tile(path):
    shape = read_shape(path)
    assert shape.image_tokens == 4
    tower = [d for d in shape.linears if d.place == "vision_tower"]
    assert {d.rows for d in tower} == {17}  # 16 patches and the class token
    assert {d.rows for d in shape.linears if d.place == "projector"} == {4}


def test_videos_and_words_that_look_like_marks_stay_words(path):
    encoder = make_encoder(load_processor(path), "chatml")
    marks = [encoder.tokenizer.convert_tokens_to_ids(t) for t in ("<video>", "<img>", "<IMG_CONTEXT>")]
    said = [{"from": "human", "value": "is <video> or <img><IMG_CONTEXT> there?"}, {"from": "gpt", "value": "<video>"}]
    assert not set(marks) & set(encoder.encode(Record(1, "s", "t", (), said)).input_ids.tolist())


@pytest.mark.parametrize(
    ("file", "section", "name", "value", "message"),
    [
        ("config.json", None, "image_token_id", 7, "image_token_id 7, the tokenizer's of <IMG_CONTEXT> is"),
        (
            "config.json",
            "vision_config",
            "image_size",
            [64, 64],
            r"image_size \[64, 64\], the image processor \[32, 32\]",
        ),
        (
            "config.json",
            "vision_config",
            "patch_size",
            [4, 4],
            "makes 16 tokens of a tile, .*image_seq_length is 4",
        ),
        ("config.json", None, "downsample_ratio", 0.25, "makes 1 tokens of a tile"),
        ("config.json", None, "downsample_ratio", 0.3, "4 × 4 patches of a tile cannot be merged so"),
        ("config.json", None, "vision_feature_layer", [-2, -1], "reads one layer"),
        ("processor_config.json", None, "image_seq_length", 256, "image_seq_length is 256"),
        ("preprocessor_config.json", None, "do_normalize", False, "has do_normalize off"),
    ],
)
def test_what_does_not_fit_is_refused(path, tmp_path, file, section, name, value, message):
    with pytest.raises(InputError, match=message):
        check(path, tmp_path / "model", file, section, name, value)


def test_image_modes_and_foreign_tokenizers_are_refused(path):
    processor = load_processor(path)
    with pytest.raises(InputError, match="image mode 'square': InternVL takes pictures as they are"):
        make_encoder(processor, "chatml", image_mode="square")
    vocab = processor.tokenizer
    bare = SimpleNamespace(convert_tokens_to_ids=lambda t: None if t == "</img>" else vocab.convert_tokens_to_ids(t))
    bare.convert_ids_to_tokens = vocab.convert_ids_to_tokens
    with pytest.raises(InputError, match="does not know the token '</img>'"):
        registry.find("internvl").reader(FolderProcessor("internvl", bare, processor.image_processor), "pad")
