"""What a driver refuses before anything starts: files that are not what they say, configs and processors that disagree."""

import json
import os
import shutil
import sys

import folders
import pytest
from safetensors.torch import load_file, save_file
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec
from vinnow.evaluate import shards as evaluation
from vinnow.evaluate.config import EvalConfig
from vinnow.models.check import check_model
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.load import load
from vinnow.models.merge import merge
from vinnow.models.specs import ConnectorSpec, TinyModelConfig
from vinnow.pipelines.cli import main as cli
from vinnow.store.errors import InputError
from vinnow.store.files import read_json
from vinnow.train import run as training
from vinnow.train.config import TrainConfig


def edit(file, **changes):
    """Change fields of a JSON file; a dot goes into an object, None removes."""
    with open(file) as source:
        value = json.load(source)
    for name, new in changes.items():
        *way, last = name.split("__")
        section = value
        for step in way:
            section = section[step]
        if new is None:
            section.pop(last, None)
        else:
            section[last] = new
    with open(file, "w") as sink:
        json.dump(value, sink)


CONFIG, PROCESSOR, TOKENIZER = "config.json", "processor_config.json", "tokenizer_config.json"
DISAGREE = {
    "image_token_index": (
        CONFIG,
        {"image_token_index": 3},
        "image_token_index 3, the tokenizer's id of '<image>' is 4",
    ),
    "image_token_id": (CONFIG, {"image_token_index": None, "image_token_id": 3}, "image_token_id 3"),
    "both": (CONFIG, {"image_token_id": 3}, "image_token_id 3"),
    "absent": (CONFIG, {"image_token_index": None}, r"image_token_index \(by default\) 32000"),
    "image_token": (
        PROCESSOR,
        {"image_token": "<picture>"},
        "image_token '<picture>', tokenizer_config.json",
    ),
    "other_token": (PROCESSOR, {"image_token": "<unk>"}, "image_token '<unk>', tokenizer_config.json has '<image>'"),
    "patch": (PROCESSOR, {"patch_size": 8}, "vision_config.patch_size 16, processor_config.json has patch_size 8"),
    "config_patch": (CONFIG, {"vision_config__patch_size": 8}, "do not fit|patch_size"),
    "strategy": (
        PROCESSOR,
        {"vision_feature_select_strategy": "full"},
        "'default', processor_config.json has 'full'",
    ),
    "config_strategy": (CONFIG, {"vision_feature_select_strategy": "full"}, "strategy 'full', processor"),
    "extra": (PROCESSOR, {"num_additional_image_tokens": 2}, "num_additional_image_tokens 2, .*must be 1"),
    "no_extra": (PROCESSOR, {"num_additional_image_tokens": None}, "num_additional_image_tokens"),
    "crop": (PROCESSOR, {"image_processor__crop_size": {"height": 32, "width": 32}}, "image_size 64, .*32 × 32"),
    "oblong": (PROCESSOR, {"image_processor__crop_size": {"height": 64, "width": 32}}, "64 × 32"),
    "small": (PROCESSOR, {"image_processor__size": {"shortest_edge": 32}}, "size 32, less than crop_size 64"),
    "no_crop": (PROCESSOR, {"image_processor__do_center_crop": False}, "do_center_crop true"),
    "no_rescale": (PROCESSOR, {"image_processor__do_rescale": False}, "do_rescale false"),
    "no_normalize": (PROCESSOR, {"image_processor__do_normalize": False}, "do_normalize false"),
    "unknown_token": (
        TOKENIZER,
        {"image_token": "<no>", "model_specific_special_tokens": {"image_token": "<no>"}},
        "<no>",
    ),
    "layer": (CONFIG, {"vision_feature_layer": -9}, "vision_feature_layer -9, the tower has 2 layers"),
    "foreign_id": (CONFIG, {"image_token_index": -200}, "image_token_index -200"),
    "pad_is_image": (TOKENIZER, {"pad_token": "<image>"}, "pads would count as pictures"),
    "pad": (
        CONFIG,
        {"text_config__pad_token_id": 2},
        "text_config.pad_token_id 2, the tokenizer's pad_token '<pad>' is 3",
    ),
}


@pytest.mark.parametrize("name", DISAGREE)
def test_a_config_and_a_processor_that_disagree_are_refused(tiny_model, tmp_path, name):
    file, changes, words = DISAGREE[name]
    folder = folders.copied(tiny_model, tmp_path / "model")
    edit(f"{folder}/{file}", **changes)
    for look in (check_model, load):
        with pytest.raises(InputError, match=words):
            look(folder)


def test_words_behind_the_embedding_s_last_row_are_refused(tiny_model, tmp_path):
    folder = folders.copied(tiny_model, tmp_path / "model")
    rows = read_json(f"{folder}/config.json")["text_config"]["vocab_size"]
    edit(f"{folder}/config.json", text_config__vocab_size=rows - 1)
    state = load_file(f"{folder}/model.safetensors")
    cut = {n: t[: rows - 1].contiguous() if t.shape[0] == rows else t for n, t in state.items()}
    save_file(cut, f"{folder}/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"vocab_size {rows - 1}, the tokenizer's ids go up to {rows - 1}"):
        check_model(folder)


@pytest.mark.parametrize(
    "parts",
    [
        {"tower": "siglip"},
        {"tower": "dinov2"},
        {"llm": "qwen2"},
        {"connector": ConnectorSpec(kind="resampler", queries=4, width=32, layers=1, heads=4)},
        {"connector": ConnectorSpec(kind="linear")},
    ],
    ids=["siglip", "dinov2", "qwen2", "resampler", "linear"],
)
def test_every_family_s_own_folder_passes(tmp_path, parts):
    words = ["USER: what is this? ASSISTANT: red"] * 9
    model = build_tiny_model(str(tmp_path / "twin"), words, TinyModelConfig(layers=1, vision_layers=2, **parts))
    check_model(model)
    edit(f"{model}/processor_config.json", num_additional_image_tokens=-3)
    with pytest.raises(InputError, match=r"num_additional_image_tokens|too few"):
        check_model(model)


def broken(folder, file, text):
    with open(f"{folder}/{file}", "w") as sink:
        sink.write(text)


FILES = {
    "pointer": ("model.safetensors", "version https://git-lfs.github.com/spec/v1\nsize 9\n", "git-LFS pointer"),
    "pointer_json": ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\nsize 9\n", "git-LFS pointer"),
    "page": ("config.json", "<!DOCTYPE html><html>404</html>", "is a web page"),
    "page_weights": ("model.safetensors", "<html>Sign in</html>", "is a web page"),
    "empty": ("config.json", "", "config.json' is empty"),
    "empty_weights": ("model.safetensors", "", "model.safetensors' is empty"),
    "list": ("config.json", "[]", "holds a JSON list"),
    "text": ("processor_config.json", "hello", "is not JSON"),
    "cut": ("tokenizer.json", '{"version": "1.0", "mod', "is not JSON"),
    "no_weights": ("model.safetensors", "x" * 400, "damaged or was cut short"),
    "unknown": ("config.json", '{"model_type": "my_new_thing"}', "model_type is 'my_new_thing'"),
    "nothing": ("config.json", "{}", "model_type is None"),
    "llama": ("config.json", '{"model_type": "llama"}', "none of those that work here"),
    "video": ("config.json", '{"model_type": "llava_next_video"}', "'llava_next_video' cannot be used.*made for video"),
    "llava_llama": ("config.json", '{"model_type": "llava_llama"}', "LLaVA's own code.*convert"),
    "llava_mistral": ("config.json", '{"model_type": "llava_mistral"}', "LLaVA's own code.*convert"),
    "tokenizer": ("tokenizer.json", '{"version": "1.0"}', "no usable tokenizer"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_what_it_says_is_named(tiny_model, tmp_path, name):
    file, text, words = FILES[name]
    folder = folders.copied(tiny_model, tmp_path / "model")
    broken(folder, file, text)
    for look in (check_model, load):
        with pytest.raises(InputError, match=words) as said:
            look(folder)
    assert os.path.join("model", "") in str(said.value) or "model'" in str(said.value)


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_that_a_folder_brings_is_refused(tiny_model, tmp_path, file):
    folder = folders.copied(tiny_model, tmp_path / "model")
    edit(f"{folder}/{file}", auto_map={"AutoModel": "modeling.Mine"})
    with pytest.raises(InputError, match=rf"{file}' names code of its own .* remove auto_map"):
        check_model(folder)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            "bitsandbytes is not installed: pip install bitsandbytes",
        ),
        ({"load_in_8bit": True}, "bitsandbytes is not installed"),
        ({"quant_method": "gptq", "bits": 4}, "gptqmodel is not installed"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel is not installed"),
        ({"quant_method": "new"}, "cannot be loaded here"),
        ({}, "cannot be loaded here"),
    ],
)
def test_quantised_weights_without_their_library_are_refused(tiny_model, tmp_path, monkeypatch, told, words):
    monkeypatch.setattr("vinnow.models.fit.find_spec", lambda _: None)
    folder = folders.copied(tiny_model, tmp_path / "model")
    edit(f"{folder}/config.json", quantization_config=told)
    for look in (check_model, load):
        with pytest.raises(InputError, match=words):
            look(folder)


def sharded(tiny_model, out):
    """A copy of the tiny model in two shards; returns it and its shards' names."""
    folder = folders.copied(tiny_model, out)
    state = load_file(f"{folder}/model.safetensors")
    os.remove(f"{folder}/model.safetensors")
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for i, file in enumerate(files):
        save_file({n: t for j, (n, t) in enumerate(state.items()) if j % 2 == i}, f"{folder}/{file}", {"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: files[j % 2] for j, n in enumerate(state)}}
    with open(f"{folder}/model.safetensors.index.json", "w") as sink:
        json.dump(index, sink)
    return folder, files


def test_shards_are_all_there(tiny_model, tmp_path):
    folder, files = sharded(tiny_model, tmp_path / "model")
    check_model(folder)
    name = folders.spoil(f"{folder}/{files[1]}", "missing")
    with pytest.raises(InputError, match=rf"{files[1]}' lacks \['{name}'\]"):
        check_model(folder)
    os.remove(f"{folder}/{files[1]}")
    with pytest.raises(InputError, match=rf"names '{files[1]}' with \d+ tensors, and there is no such file"):
        load(folder)
    shutil.copy(f"{tiny_model}/model.safetensors", folder)
    with pytest.raises(InputError, match="remove what is stale"):
        check_model(folder)


def test_bases_that_are_not_there_or_go_round_are_said(tiny_model, tmp_path):
    lora, _ = folders.llava_lora(tiny_model, tmp_path / "lora")
    for base, words in (
        ("lmsys/vicuna-7b-v1.5", "no such folder is here. Models are local folders"),
        (".", "names its own folder"),
        ("../other", "is an adapter itself"),
        (None, "does not name its base"),
    ):
        if base == "../other":
            shutil.copytree(lora, tmp_path / "other")
        edit(f"{lora}/adapter_config.json", base_model_name_or_path=base)
        with pytest.raises(InputError, match=words):
            check_model(lora)
    one, two = folders.trained(tiny_model, tmp_path / "one"), folders.trained(tiny_model, tmp_path / "two")
    edit(f"{one}/trained.json", base=two)
    edit(f"{two}/trained.json", base=one)
    with pytest.raises(InputError, match="go round in a circle"):
        check_model(one)
    edit(f"{one}/trained.json", base=None)
    with pytest.raises(InputError, match=r"trained\.json' lacks \['base'\]"):
        check_model(one)


def test_folders_within_are_pointed_at(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "run" / "checkpoint-7")
    with pytest.raises(InputError, match=r"There are some in its folders \['checkpoint-7'\]"):
        check_model(str(tmp_path / "run"))


def test_no_weights_are_read(tiny_model, tmp_path):
    """The check of a model of any size costs headers: a file whose tensors are a hole of 4 GB passes."""
    folder = folders.copied(tiny_model, tmp_path / "model")
    words = 10_000_000
    edit(f"{folder}/config.json", text_config__vocab_size=words)
    with open(f"{folder}/model.safetensors", "rb") as source:
        size = int.from_bytes(source.read(8), "little")
        head, offset = json.loads(source.read(size)), 0
    for name, entry in head.items():
        if name == "__metadata__":
            continue
        if "embed_tokens" in name or "lm_head" in name:
            entry["shape"][0] = words
        length = 4
        for n in entry["shape"]:
            length *= n
        entry["data_offsets"] = [offset, offset + length]
        offset += length
    text = json.dumps(head).encode()
    with open(f"{folder}/model.safetensors", "wb") as sink:
        sink.write(len(text).to_bytes(8, "little") + text)
        sink.truncate(8 + len(text) + offset)
    assert offset > 4e9
    check_model(folder)


def wrong_token(tiny_model, out):
    """The case seen in public: config.json's image token is not the tokenizer's."""
    folder = folders.copied(tiny_model, out)
    edit(f"{folder}/config.json", image_token_id=3)
    return folder


WORDS = r"config\.json' and the processor in .* image_token_id 3, the tokenizer's id of '<image>' is 4"


@pytest.mark.parametrize("kind", ["gradient", "influence", "trajectory", "loss", "embedding"])
def test_every_kind_of_feature_refuses_a_foreign_image_token(tiny_pool, target_pool, tiny_model, tmp_path, kind):
    folder = wrong_token(tiny_model, tmp_path / "model")
    with pytest.raises(InputError, match=WORDS):
        make_spec(
            tiny_pool,
            [CheckpointRef(1, tiny_model), CheckpointRef(2, folder)],
            FeatureConfig(kind=kind),
            str(tmp_path / "out"),
            target_pool=target_pool,
        )


def test_every_stage_refuses_it_before_ray_starts(tiny_pool, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "_fit", lambda *_: pytest.fail("Ray would have started"))
    monkeypatch.setattr("vinnow.actors.cluster.ensure_ray", lambda *_: pytest.fail("Ray would have started"))
    folder, out = wrong_token(tiny_model, tmp_path / "model"), str(tmp_path / "out")
    config = TrainConfig.parse({"model": folder, "pool": tiny_pool, "global_batch": 8, "micro_batch": 8})
    with pytest.raises(InputError, match=WORDS):
        training.train(config, out)
    with pytest.raises(InputError, match=WORDS):
        evaluation.make_spec(EvalConfig(model=folder, pool=tiny_pool, run="x"), out)
    lora, _ = folders.llava_lora(tiny_model, tmp_path / "lora")
    edit(f"{lora}/adapter_config.json", base_model_name_or_path=folder)
    with pytest.raises(InputError, match=WORDS):
        merge(lora, out)
    recipe = tmp_path / "train.yaml"
    recipe.write_text(f"model: {folder}\npool: {tiny_pool}\nglobal_batch: 8\nmicro_batch: 8\n")
    for command in (
        ["features", "--pool", tiny_pool, "--checkpoint", f"1={folder}", "--kind", "trajectory"],
        ["evaluate", "--model", folder, "--pool", tiny_pool],
        ["train", str(recipe)],
    ):
        monkeypatch.setattr(sys, "argv", ["vinnow", *command, "--out", out])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = " ".join(capsys.readouterr().err.split())
        assert end.value.code == 2
        assert "image_token_id 3" in said
        assert "Traceback" not in said
        assert not os.path.exists(out)
