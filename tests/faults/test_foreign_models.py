"""Odd model folders through the command that only looks, before Ray, and the one that loads: one line, no traceback."""

import json
import shutil
from pathlib import Path

import folders
import foreign
import pytest
from foreign import BINARY, DEEP, JSON, VALUES, one_line, put_field, vinnow

# files that a folder may be without, or hold as any object: what is damaged there still is named
OPTIONAL = ("generation_config.json", "preprocessor_config.json", "special_tokens_map.json", "added_tokens.json")
OBJECTS = {"object", "other-object", "nan", "surrogate"}
FIELDS = {
    "config.json": [
        *("model_type", "text_config", "vision_config", "text_config.hidden_size", "text_config.num_hidden_layers"),
        *("text_config.vocab_size", "vision_config.image_size", "vision_config.patch_size", "image_token_index"),
        *("vision_feature_layer", "connector", "quantization_config"),
    ],
    "processor_config.json": ["patch_size", "num_additional_image_tokens", "image_token"],
    "tokenizer_config.json": ["model_max_length"],
    "tokenizer.json": ["model", "added_tokens", "model.vocab"],
}
ADAPTERS = {
    "adapter": ("adapter_config.json", ["r", "target_modules", "peft_type", "base_model_name_or_path"]),
    "trained": ("trained.json", ["base", "base_digest", "relative", "names"]),
    "mores": ("mores.json", ["base", "relative", "spec", "spec.rank", "spec.layers"]),
}
INDEXES = {
    "list": "[1]",
    "no-map": "{}",
    "map-is-a-list": '{"weight_map": [1]}',
    "missing-shard": '{"weight_map": {"a": "model-00001.safetensors"}}',
    "number": '{"weight_map": {"a": 7}}',
    "list-of-shards": '{"weight_map": {"a": ["x"]}}',
    "mixed": '{"weight_map": {"a": 7, "b": "x"}}',
    "leads-out": '{"weight_map": {"a": "../../etc/passwd"}}',
    "nested": DEEP,
}


@pytest.fixture(scope="module")
def kinds(tiny_model, tmp_path_factory):
    """A sound folder of each kind."""
    place = tmp_path_factory.mktemp("kinds")
    adapters = {name: getattr(folders, name)(tiny_model, str(place / name)) for name in ADAPTERS}
    return adapters | {"twin": tiny_model}


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr("vinnow.actors.cluster.ensure_ray", foreign.no_ray)


def looked_at(folder, pool, out, may_pass=False) -> None:
    """Hold both commands to the law; `may_pass`: what is odd there need not hinder."""
    for arguments in (
        ["evaluate", "--model", folder, "--pool", pool, "--out", out / "eval"],
        ["export-projector", folder, "--out", out / "p.bin"],
    ):
        (out / "p.bin").unlink(missing_ok=True)
        said = vinnow(*arguments)
        assert not said.trace, said.trace
        if may_pass and said.code == 0:
            continue
        one_line(said, folder)


def copy(folder, out) -> Path:
    return Path(shutil.copytree(folder, out / "odd"))


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json", *OPTIONAL])
@pytest.mark.parametrize("how", JSON)
def test_a_settings_file(kinds, tiny_pool, tmp_path, file, how):
    folder = copy(kinds["twin"], tmp_path)
    (folder / file).touch()
    JSON[how](folder / file)
    looked_at(folder, tiny_pool, tmp_path, may_pass=how in OBJECTS | {"utf16"} and file != "config.json")


@pytest.mark.parametrize(("kind", "file"), [(k, f) for k, (f, _) in ADAPTERS.items()] + [("adapter", "non_lora.json")])
@pytest.mark.parametrize("how", JSON)
def test_what_names_a_base(kinds, tiny_pool, tmp_path, kind, file, how):
    folder = copy(kinds[kind], tmp_path)
    if how == "utf16" or (how in ("loop", "folder", "dangling", "fifo") and kind != "adapter"):
        pytest.skip("JSON, or another kind of folder")
    JSON[how](folder / file)
    looked_at(folder, tiny_pool, tmp_path, may_pass=file == "non_lora.json")


@pytest.mark.parametrize("how", BINARY)
@pytest.mark.parametrize("kind", ["twin", *ADAPTERS])
def test_weights(kinds, tiny_pool, tmp_path, kind, how):
    folder = copy(kinds[kind], tmp_path)
    for file in sorted(folder.glob("*.safetensors")):
        foreign.BINARY[how](file)
    looked_at(folder, tiny_pool, tmp_path, may_pass=how == "flipped")


@pytest.mark.parametrize(("file", "field"), [(f, n) for f, names in FIELDS.items() for n in names])
def test_a_field(kinds, tiny_pool, tmp_path, file, field):
    folder = copy(kinds["twin"], tmp_path)
    sound = (folder / file).read_text()
    for text in VALUES.values():
        (folder / file).write_text(sound)
        put_field(folder / file, field, text)
        looked_at(folder, tiny_pool, tmp_path, may_pass=True)


@pytest.mark.parametrize(("kind", "field"), [(k, n) for k, (_, names) in ADAPTERS.items() for n in names])
def test_a_field_of_what_names_a_base(kinds, tiny_pool, tmp_path, kind, field):
    folder, file = copy(kinds[kind], tmp_path), ADAPTERS[kind][0]
    sound = (folder / file).read_text()
    for text in VALUES.values():
        (folder / file).write_text(sound)
        put_field(folder / file, field, text)
        looked_at(folder, tiny_pool, tmp_path, may_pass=True)


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_of_shards(kinds, tiny_pool, tmp_path, name):
    folder = copy(kinds["twin"], tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00009.safetensors")
    (folder / "model.safetensors.index.json").write_text(INDEXES[name])
    looked_at(folder, tiny_pool, tmp_path)


@pytest.mark.parametrize("how", ["empty", "garbage", "list", "nested", "huge-number", "folder"])
def test_the_parts_of_a_build(kinds, tmp_path, how):
    folder = copy(kinds["twin"], tmp_path)
    for file in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        shutil.rmtree(folder)
        copy(kinds["twin"], tmp_path)
        (folder / file).touch()
        JSON[how](folder / file)
        one_line(vinnow("build", "--llm", folder, "--tower", folder, "--out", tmp_path / "built"))


def test_a_file_in_a_folders_place(tiny_pool, tmp_path):
    (tmp_path / "odd").write_text("x")
    looked_at(tmp_path / "odd", tiny_pool, tmp_path)
    foreign.clear(tmp_path / "odd")
    (tmp_path / "odd").symlink_to("odd")
    looked_at(tmp_path / "odd", tiny_pool, tmp_path)


def test_a_folder_is_sound_to_begin_with(kinds, tiny_pool, tmp_path):
    for folder in kinds.values():
        (tmp_path / "p.bin").unlink(missing_ok=True)
        assert vinnow("evaluate", "--model", folder, "--pool", tiny_pool, "--out", tmp_path / "eval").code == 0
        assert vinnow("export-projector", folder, "--out", tmp_path / "p.bin").code == 0
    assert json.loads(Path(kinds["adapter"], "adapter_config.json").read_text())["r"] == 4
