"""LLaVA-NeXT beside the families' contract: tiles, lines and their ends are Hugging Face's; misfits are refused."""

import pytest
import torch
from folders import adapter
from misfits import SIZES, check, finished, noise
from transformers import LlavaNextProcessor
from vinnow.models import registry
from vinnow.models.components import set_trainable
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.family.of_hf.processor import FolderProcessor
from vinnow.models.load import load, load_processor
from vinnow.models.shape import read_shape
from vinnow.pool.vision import USUAL
from vinnow.store.errors import InputError

ALL = [*SIZES, (3000, 4), (336, 336)]
SETTINGS = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    texts = ["what is in the image?", "a red square", "[INST] <<SYS>> [/INST]"] * 20
    return registry.families()["llava_next"].tiny(str(tmp_path_factory.mktemp("next") / "model"), texts)


def processors(path):
    """The tiny model's processor, and that of LLaVA 1.6's tiles of 336 pixels."""
    small = load_processor(path)
    side = {"height": 336, "width": 336}
    full = type(small.image_processor)(size={"shortest_edge": 336}, crop_size=side)
    return [small, FolderProcessor("llava_next", small.tokenizer, full, SETTINGS)]


def theirs(processor):
    known = {n: processor.settings[n] for n in SETTINGS}
    return LlavaNextProcessor(processor.image_processor, processor.tokenizer, **known)


def test_tiles_and_tokens_are_the_processor_s_own(path):
    family, model = registry.families()["llava_next"], load(path).model
    for processor, counts in zip(processors(path), ([88, 42, 52], [1176, 870, 696]), strict=True):
        reader = family.reader(processor, "pad")
        media, each = finished(reader, ALL)
        assert {one["pixel_values"].dtype.name for one in each} == {"uint8"}
        text = [f"{i} <image> ?" for i in range(len(ALL))]
        expected = theirs(processor)(text=text, images=[noise(size) for size in ALL])
        # as `generate` takes them: as many tiles as the picture of most, zeros behind the rest
        batch = {"input_ids": torch.ones(1, 1), "attention_mask": torch.ones(1, 1), "media": media}
        inputs = family.generating(model, batch)
        assert set(inputs) == {"input_ids", "attention_mask", "pixel_values", "image_sizes"}
        assert inputs["image_sizes"].tolist() == [list(s) for s in expected["image_sizes"]]
        pixels = torch.stack([torch.as_tensor(p) for p in expected["pixel_values"]])
        assert (inputs["pixel_values"] - pixels).abs().max() <= 1e-6
        for size, ids in zip(ALL, expected["input_ids"], strict=True):
            assert reader.ids(size) == [reader.image_id] * ids.count(reader.image_id)
        assert [len(reader.ids(size)) for size in ALL[:3]] == counts


@torch.no_grad()
def test_features_are_packed_as_the_model_does(path):
    reader, model = make_encoder(load_processor(path), "own").reader, load(path, "float64").model
    media, each = finished(reader, ALL, double=True)
    family = registry.family_of(model)
    for layer in (-2, -1):
        model.config.vision_feature_layer = layer
        inputs = family.generating(model, {"input_ids": None, "attention_mask": None, "media": media})
        features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
        shown_RH = family.connect(model, family.see(model, media), media)
        assert (shown_RH - torch.cat(features)).abs().max() <= 1e-12
        assert [len(f) for f in features] == [len(reader.ids(size)) for size in ALL]
    newline = model.model.image_newline
    ends = [int((f == newline).all(1).sum()) for f in features]
    assert ends == [8, 2, 12, 6, 0, 4, 0, 8]  # of a long strip no line is left
    assert [len(one["pixel_values"]) for one in each] == [5, 4, 4, 5, 4, 3, 3, 5]


def test_a_price_is_counted_on_the_usual_picture(path):
    reader = make_encoder(load_processor(path), "own").reader
    assert read_shape(path).image_tokens == len(reader.ids(USUAL))


def test_the_end_of_a_line_trains_and_is_kept_with_the_projector(path, tmp_path):
    model = load(path).model
    assert "model.image_newline" in set_trainable(model, ["projector"])
    assert not {n for n in set_trainable(model, ["vision_tower"]) if "newline" in n}
    before = model.model.image_newline.detach().clone()
    again = load(adapter(path, tmp_path / "adapter")).model.get_base_model()
    assert (again.model.image_newline - before).abs().max() > 0.01
    family = registry.family_of(model)
    assert family.modern("image_newline", model) == "model.image_newline"
    assert family.modern("language_model.lm_head.weight", model) == "lm_head.weight"


@pytest.mark.parametrize(
    ("answer", "prompt", "template"),
    [
        ("{{ ' ' + m['content'][0]['text'] + '</s> ' }}", "", "own"),
        # folders of llava-v1.6 write it so: plain text, and nothing
        ("{{ ' ' + m['content'][0]['text'] + '<\\\\s> ' }}", "", "mistral_instruct"),
        ("{% generation %}{{ m['content'][0]['text'] + ' ' }}{% endgeneration %}", "", "mistral_instruct"),
        # and this is another beginning of an answer than the history's
        ("{{ ' ' + m['content'][0]['text'] + '</s>' }}", "\\n", "mistral_instruct"),
        ("{{ 'I say' }}", "", "mistral_instruct"),
    ],
)
def test_a_chat_template_that_does_not_end_answers_is_not_taken(path, answer, prompt, template):
    loaded = load(path)
    assert default_template(path) == "own"
    user = (
        "{% if m['role'] == 'user' %}[INST] {% for p in m['content'] %}{{ p['text'] or '<image>' }}{% endfor %} [/INST]"
    )
    loaded.processor.tokenizer.chat_template = (
        f"{{% for m in messages %}}{user}{{% else %}}{answer}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '{prompt}' }}}}{{% endif %}}"
    )
    family = registry.family_of(loaded.model)
    assert family.template(loaded.model.config, loaded.processor.tokenizer) == template
    loaded.processor.tokenizer.chat_template = None
    assert family.template(loaded.model.config, loaded.processor.tokenizer) == "mistral_instruct"


GRIDS = [[32, 64], [64, 32]]


@pytest.mark.parametrize(
    ("file", "section", "name", "value", "message"),
    [
        ("config.json", None, "image_token_index", 7, "image_token_index 7, the tokenizer's of <image> is"),
        (
            "config.json",
            None,
            "image_grid_pinpoints",
            GRIDS,
            r"image_grid_pinpoints \[\[32, 64\], \[64, 32\]\], the image",
        ),
        ("config.json", None, "image_grid_pinpoints", [[32, 50]], r"\[\[32, 50\]\]: no whole tiles of 32 pixels"),
        (
            "config.json",
            None,
            "vision_feature_select_strategy",
            "full",
            "vision_feature_select_strategy full, processor",
        ),
        ("config.json", "vision_config", "patch_size", 16, "patch_size 16, processor_config.json 8"),
        ("config.json", "vision_config", "image_size", 16, "image_size 16, the image processor 32"),
        ("processor_config.json", None, "num_additional_image_tokens", 0, "makes 16 tokens of a tile, .* so 15"),
        ("preprocessor_config.json", None, "do_rescale", False, "has do_rescale off"),
    ],
)
def test_what_does_not_fit_is_refused(path, tmp_path, file, section, name, value, message):
    with pytest.raises(InputError, match=message):
        check(path, tmp_path / "model", file, section, name, value)


def test_settings_that_are_not_there_and_image_modes_are_refused(path):
    processor = load_processor(path)
    with pytest.raises(InputError, match="image mode 'square': LLaVA-NeXT takes pictures as they are"):
        make_encoder(processor, "own", image_mode="square")
    processor.settings = {}
    with pytest.raises(InputError, match=r"processor_config\.json lacks patch_size"):
        make_encoder(processor, "own")
