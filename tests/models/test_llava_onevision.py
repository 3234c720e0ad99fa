"""LLaVA-OneVision beside the families' contract: a picture goes by how many its record has; misfits are refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from misfits import SIZES, check, finished, noise
from transformers import LlavaOnevisionProcessor
from vinnow.models import registry
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.family.of_hf.processor import FolderProcessor
from vinnow.models.forward import embed, on_device
from vinnow.models.load import load, load_processor
from vinnow.models.shape import read_shape
from vinnow.pool.collate import collate, stack
from vinnow.pool.decode import Decoder
from vinnow.pool.encode import Encoded
from vinnow.pool.records import Record
from vinnow.pool.vision import USUAL
from vinnow.store.errors import InputError

ALL = [*SIZES, (3000, 4), (32, 32)]
SETTINGS = {"num_image_tokens": 729, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square", "user assistant system"] * 20
    return registry.families()["llava_onevision"].tiny(str(tmp_path_factory.mktemp("ov") / "model"), texts)


@pytest.fixture(scope="module")
def model(path):
    return load(path, "float64").model


def processors(path):
    """The tiny model's processor, and one of the published tiles of 384 pixels on grids of up to 6 × 6."""
    small = load_processor(path)
    full = type(small.image_processor)()
    return [small, FolderProcessor("llava_onevision", small.tokenizer, full, SETTINGS)]


class Words:
    """What `LlavaOnevisionProcessor`, which cannot be prepare without torchvision, knows of its parts."""

    image_token = "<image>"
    _get_number_of_features = LlavaOnevisionProcessor._get_number_of_features
    _get_unpadded_features = LlavaOnevisionProcessor._get_unpadded_features

    def __init__(self, processor):
        self.image_processor = processor.image_processor
        vars(self).update({name: processor.settings[name] for name in SETTINGS})

    def tokens(self, cut):
        """How many image tokens each picture of a call of the image processor becomes."""
        replace = LlavaOnevisionProcessor.replace_image_token
        return [replace(self, cut, i).count("<image>") for i in range(len(cut["image_sizes"]))]


def together(reader, sizes):
    """As `finished`, of pictures of one record."""
    each = [reader.among(len(sizes)).prepare(noise(size)) for size in sizes]
    row = Encoded(1, np.arange(3), np.arange(3), tuple(map(str, sizes)), media=tuple(each))
    return reader.finish(stack([row])["media"]), each


def asked(family, model, media):
    return family.generating(model, {"input_ids": None, "attention_mask": None, "media": media})


def test_pictures_alone_and_beside_others_are_the_processor_s_own(path, model):
    family, counts = registry.family_of(model), []
    for processor in processors(path):
        reader, images = family.reader(processor, "pad"), [noise(size) for size in ALL]
        for form, prepare in (([[i] for i in images], finished), ([images], together)):
            media, each = prepare(reader, ALL)
            expected = processor.image_processor(form, return_tensors="pt")
            assert {one["pixel_values"].dtype.name for one in each} == {"uint8"}
            inputs = asked(family, model, media)
            assert (inputs["pixel_values"] - expected["pixel_values"]).abs().max() <= 1e-6
            assert inputs["image_sizes"].tolist() == expected["image_sizes"].tolist()
            assert inputs["batch_num_images"] == expected["batch_num_images"].tolist() == [len(row) for row in form]
            mine = [len(reader.among(len(form[0])).ids(size)) for size in ALL]
            assert mine == Words(processor).tokens(expected)
            counts.append(mine)
    assert counts[1] == [17] * 8
    assert counts[3] == [730] * 8
    assert len(set(counts[0])) > 5
    assert len(set(counts[2])) > 5


@torch.no_grad()
def test_features_are_packed_as_the_model_does(path, model):
    reader, family = make_encoder(load_processor(path), "chatml").reader, registry.family_of(model)
    for prepare, count in ((finished, 1), (together, len(ALL))):
        media, _ = prepare(reader, ALL)
        media = {n: v.double() if v.is_floating_point() else v for n, v in media.items()}
        inputs = asked(family, model, media)
        features = model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"], batch_num_images=inputs["batch_num_images"]
        ).pooler_output
        shown_RH = family.connect(model, family.see(model, media), media)
        assert (shown_RH - torch.cat(features)).abs().max() <= 1e-12
        assert [len(f) for f in features] == [len(reader.among(count).ids(size)) for size in ALL]
    # averaged to two tiles' worth: more lines were cut
    assert len(reader.ids((96, 96))) == 16 + 5 * 6
    assert reader.lines((96, 96), 4) == (12, 12)


def test_a_price_is_counted_on_the_usual_picture(path):
    reader = make_encoder(load_processor(path), "chatml").reader
    assert read_shape(path).image_tokens == len(reader.ids(USUAL))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in {"a": (64, 64), "b": (90, 40), "c": (40, 120)}.items():
        noise(size).save(folder / f"{name}.png")
    return str(folder)


def record(number, *images):
    """A record that asks for each picture in a turn of its own."""
    said = [{"from": f, "value": v} for i in images for f, v in (("human", f"<image>\nis it {i}?"), ("gpt", "yes"))]
    return Record(number, "s", "t", tuple(f"{i}.png" for i in images), said)


@torch.no_grad()
def test_a_prompt_shows_the_first_of_several_pictures_as_the_whole_record_does(path, model, root):
    processor = load_processor(path)
    encoder = make_encoder(processor, default_template(path))
    decoder, family = Decoder(encoder, root), registry.family_of(model)
    records = [record(1, "b", "c"), record(2, "b"), record(3, "c", "a", "b"), record(4, "a", "c"), record(5, "a")]
    rows = decoder.rows(records, lambda r: encoder.prompt(r, sizes=decoder.sizes(r)))
    counts = [int((row.input_ids == encoder.image_id).sum()) for row in rows]
    assert counts[0] == counts[2] == counts[3] == 17
    assert min(counts[1], counts[4]) > 17
    for row, one in zip(rows, records, strict=True):
        whole = encoder.encode(one, decoder.sizes(one))
        assert row.input_ids.tolist() == whole.input_ids[: len(row.input_ids)].tolist()
        assert len(row.media[0]["pixel_values"]) == (1 if len(one.images) > 1 else row.media[0]["tiles"][0])
    # Hugging Face's own code takes a picture of several that is shown alone for what it is
    batch = encoder.finish(collate(rows, processor.tokenizer.pad_token_id, "left"))
    media = {n: v.double() if v.is_floating_point() else v for n, v in batch["media"].items()}
    inputs = family.generating(model, batch | {"media": media})
    assert len(inputs["batch_num_images"]) == 4  # the two in the middle as one row's
    expected = model(**inputs).logits[:, -1]
    words = {"max_new_tokens": 4, "do_sample": False}
    answers = model.generate(**inputs, **words)[:, batch["input_ids"].shape[1] :]
    for i, row in enumerate(rows):
        right = on_device(encoder.finish(collate([row], 0)), model)
        embeds_BTH, arguments = embed(model, right)
        alone = family.head(model)(family.decode(model, embeds_BTH, arguments))[0, -1]
        assert (alone - expected[i]).abs().max() <= 1e-7  # pads on the left move positions, whose angles are float32
        assert int(alone.argmax()) == int(answers[i, 0])


def test_a_long_picture_beside_others_is_padded_without_the_square(path):
    processor = processors(path)[1]
    reader = registry.find("llava_onevision").reader(processor, "pad").among(2)
    for size in ((4000, 200), (40, 2500)):
        square = processor.image_processor(
            [[noise(size)] * 2], do_rescale=False, do_normalize=False, return_tensors="np"
        )
        assert np.array_equal(reader.prepare(noise(size))["pixel_values"], square["pixel_values"][0])
    # its square would have 3.6 gigapixels
    assert reader.prepare(noise((60_000, 8)))["pixel_values"].shape == (1, 3, 384, 384)


def test_its_published_chat_template_does_not_end_answers(path):
    tokenizer = load_processor(path).tokenizer
    assert "generation" in tokenizer.chat_template
    assert default_template(path) == "chatml"
    encoder = make_encoder(load_processor(path), "chatml")
    said = [{"from": "human", "value": "is <video> there?"}, {"from": "gpt", "value": "<video>"}]
    row = encoder.encode(Record(1, "s", "t", (), said))
    assert row.labels[row.labels >= 0].tolist()[-1] == encoder.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    # videos are words here
    assert tokenizer.convert_tokens_to_ids("<video>") not in row.input_ids.tolist()


@pytest.mark.parametrize(
    ("file", "section", "name", "value", "message"),
    [
        ("config.json", None, "image_token_index", 7, "image_token_index 7, the tokenizer's of <image> is"),
        ("config.json", None, "image_grid_pinpoints", [[32, 64]], r"image_grid_pinpoints \[\[32, 64\]\], the image"),
        ("config.json", None, "image_grid_pinpoints", [[32, 0]], r"\[\[32, 0\]\]: no whole tiles of 32 pixels"),
        ("config.json", None, "vision_aspect_ratio", "anyres_max_9", "vision_aspect_ratio anyres_max_9, processor"),
        ("config.json", None, "vision_aspect_ratio", "pad", "vision_aspect_ratio is 'pad'; it is anyres_max_ and"),
        (
            "config.json",
            None,
            "vision_feature_select_strategy",
            "default",
            "vision_feature_select_strategy default, proc",
        ),
        ("config.json", "vision_config", "patch_size", 16, "makes 4 tokens of a tile, .* num_image_tokens 16"),
        ("config.json", "vision_config", "image_size", 16, "image_size 16, the image processor 32"),
        ("processor_config.json", None, "num_image_tokens", 25, "makes 16 tokens of a tile"),
        ("preprocessor_config.json", None, "do_normalize", False, "has do_normalize off"),
    ],
)
def test_what_does_not_fit_is_refused(path, tmp_path, file, section, name, value, message):
    with pytest.raises(InputError, match=message):
        check(path, tmp_path / "model", file, section, name, value)


def test_settings_that_are_not_there_and_image_modes_are_refused(path):
    processor = load_processor(path)
    with pytest.raises(InputError, match="image mode 'square': LLaVA-OneVision takes pictures as they are"):
        make_encoder(processor, "chatml", image_mode="square")
    bare = SimpleNamespace(**vars(processor) | {"settings": {}})
    with pytest.raises(InputError, match=r"processor_config\.json lacks num_image_tokens"):
        registry.find("llava_onevision").reader(bare, "pad")
