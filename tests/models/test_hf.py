"""The types of `hf.py`'s table beside the families' contract: their processor's own numbers, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from vinnow.models import registry
from vinnow.models.check import check_model
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.family.hf import KINDS
from vinnow.models.family.of_hf.plain import Plain
from vinnow.models.load import load, load_processor
from vinnow.models.shape import read_shape
from vinnow.store.errors import InputError
from vinnow.store.scan import classes_of

SIZES = [(64, 64), (300, 40), (17, 130), (33, 32), (400, 90), (4000, 200)]


@pytest.fixture(scope="module", params=[entry.kind for entry in KINDS])
def path(request, tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square", "user assistant"] * 20
    return registry.families()[request.param].tiny(str(tmp_path_factory.mktemp(request.param) / "model"), texts)


def picture(size):
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_pictures_and_their_text_are_the_processor_s_own(path):
    processor = load_processor(path)
    encoder = make_encoder(processor, default_template(path))
    reader, squares = encoder.reader, set()
    for size in SIZES:
        expected = reader.theirs(images=[picture(size)], text=[f"here {reader.mark} it is"], return_tensors="np")
        media = reader.prepare(picture(size))
        assert media["pixel_values"].dtype == np.uint8
        pixels = reader.finish({n: torch.from_numpy(v) for n, v in media.items()})["pixel_values"]
        assert np.abs(pixels.numpy() - expected["pixel_values"]).max() <= 2e-6
        ids, words = reader.ids(size), processor.tokenizer
        around = [words(text, add_special_tokens=False)["input_ids"] for text in ("here ", " it is")]
        assert [*around[0], *ids, *around[1]] == expected["input_ids"][0].tolist()
        assert ids.count(reader.image_id) % len(pixels) == 0
        squares.add(len(pixels))
    assert (len(squares) == 1) == (reader.fixed is not None)


def test_tower_and_connector_are_one_step_so_both_are_looked_at_before_it_is_shared(path):
    model = load(path).model
    family = registry.family_of(model)
    assert isinstance(family, Plain)
    assert family.connector(model) in family.vision(model)
    usual = read_shape(path).image_tokens
    assert usual == family.entry.squares * family.entry.tokens(model.config)


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        (None, "image_token_id", 7, "image_token_id 7, the tokenizer"),
        ("vision_config", "image_size", 64, "image_size 64, the image processor 32"),
    ],
)
def test_a_config_and_a_processor_that_differ_are_refused(path, section, name, value, message):
    config, family = load(path).model.config, registry.family_of(load(path).model)
    changed = config.to_dict()
    (changed if section is None else changed[section])[name] = value
    with pytest.raises(InputError, match=message):
        family.check_fit(type(config).from_dict(changed), load_processor(path), path)


def test_a_processor_that_counts_other_tokens_is_refused(path, tmp_path):
    shutil.copytree(path, tmp_path / "model")
    file = tmp_path / "model" / "processor_config.json"
    settings = json.loads(file.read_text())
    name = next(n for n in ("num_image_tokens", "patch_size") if n in settings)
    file.write_text(json.dumps(settings | {name: 2 * settings[name]}))
    with pytest.raises(InputError, match="that give tokens"):
        check_model(str(tmp_path / "model"))


def test_a_file_may_hold_several_families_and_none_twice(tmp_path):
    families = registry.families()
    assert all(families[entry.kind].label.startswith(entry.label) for entry in KINDS)
    one = type(families["aya_vision"])
    module = type("module", (), {"FAMILY": (one, one)})
    with pytest.raises(InputError, match="two families are called 'aya_vision'"):
        classes_of(iter([(module, tmp_path)]), "FAMILY", "family", lambda _kind, _file: None)
