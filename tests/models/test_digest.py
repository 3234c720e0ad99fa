"""A checkpoint's digest covers every file that changes a number, by its values, and nothing else."""

import json
import os
import random
import shutil

import folders
import pytest
import torch
from safetensors.torch import load_file, save_file
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec
from vinnow.models.load import load, model_digest
from vinnow.store.errors import InputError
from vinnow.store.files import read_json, write_json


@pytest.fixture(scope="module")
def kinds(tiny_model, tmp_path_factory):
    """Folders of every kind on one base, which no test changes."""
    root = tmp_path_factory.mktemp("kinds")
    base = folders.copied(tiny_model, root / "base")
    return {
        "whole": base,
        "adapter": folders.adapter(base, root / "adapter"),
        "trained": folders.trained(base, root / "trained"),
        "mores": folders.mores(base, root / "mores"),
        "llava": folders.llava_lora(base, root / "llava")[0],
    }


def bump(file):
    """Change one value of a file, in the way of its kind."""
    file = str(file)
    if file.endswith((".safetensors", ".bin")):
        state = folders.read(file)
        name = sorted(state)[0]
        folders.write(file, state | {name: state[name] + 1})
    elif os.path.basename(file) in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        value = read_json(file)
        value.setdefault("model", {}).setdefault("vocab", {})["base"] = 9
        write_json(file, value)
    elif file.endswith(".json"):
        value = read_json(file)
        # alpha, spec, sizes: some number or word deep inside
        for key in (
            "lora_alpha",
            "spec",
            "patch_size",
            "eos_token_id",
            "model_max_length",
            "projector_hidden_act",
            "x",
        ):
            if key in value or key == "x":
                value[key] = {"positions": "f1+l1"} if key == "spec" else 77
                break
        write_json(file, value)
    else:
        with open(file, "a") as sink:
            sink.write("more")


OWN = [
    ("whole", "model.safetensors"),
    ("whole", "config.json"),
    ("whole", "generation_config.json"),
    ("whole", "processor_config.json"),
    ("whole", "tokenizer.json"),
    ("whole", "tokenizer_config.json"),
    ("adapter", "adapter_config.json"),
    ("adapter", "adapter_model.safetensors"),
    ("adapter", "non_lora.safetensors"),
    ("llava", "adapter_config.json"),
    ("llava", "adapter_model.bin"),
    ("llava", "non_lora_trainables.bin"),
    ("trained", "trained.safetensors"),
    ("trained", "processor_config.json"),
    ("trained", "tokenizer.json"),
    ("mores", "mores.json"),
    ("mores", "mores.safetensors"),
    ("mores", "non_lora.safetensors"),
]


@pytest.mark.parametrize(("kind", "file"), OWN, ids=["-".join(o) for o in OWN])
def test_a_changed_file_changes_the_digest(kinds, tmp_path, kind, file):
    folder = folders.copied(kinds[kind], tmp_path / "copy")
    before = model_digest(folder)
    assert before == model_digest(kinds[kind])
    bump(f"{folder}/{file}")
    assert model_digest(folder) != before


ADDED = {
    "preprocessor_config.json": '{"crop_size": 64}',
    "chat_template.jinja": "{{ messages }}",
    "chat_template.json": '{"chat_template": "{{ messages }}"}',
    "special_tokens_map.json": '{"eos_token": "</s>"}',
    "added_tokens.json": '{"<image>": 4}',
    "tokenizer.model": "sentences",
    "vocab.json": '{"base": 1}',
    "merges.txt": "e n",
    "model.safetensors.index.json": '{"weight_map": {"a": "model.safetensors"}}',
    "quantize_config.json": '{"bits": 4}',
    "pytorch_model.bin": "weights",
}


@pytest.mark.parametrize("file", ADDED)
def test_a_file_that_comes_and_changes_changes_the_digest(kinds, tmp_path, file):
    folder = folders.copied(kinds["whole"], tmp_path / "copy")
    seen = [model_digest(folder)]
    for text in (ADDED[file], ADDED[file].replace("e", "o").replace("4", "5").replace("1", "2")):
        (tmp_path / "copy" / file).write_text(text)
        seen.append(model_digest(folder))
    assert len(set(seen)) == 3


OTHERS = (
    *("README.md", ".gitattributes", "optimizer.pt", "optimizer.bin", "scheduler.pt", "training_args.bin"),
    *("trainer_state.json", "log.jsonl", "rng_state_0.pth", "all_results.json", "moments.safetensors", "events.out"),
)


@pytest.mark.parametrize("file", OTHERS)
def test_what_trainers_leave_beside_changes_nothing(kinds, tmp_path, file):
    for kind in ("whole", "adapter"):
        folder = folders.copied(kinds[kind], tmp_path / kind)
        before = model_digest(folder)
        (tmp_path / kind / file).write_text("something")
        assert model_digest(folder) == before


def reordered(value):
    """The same value with its keys in another order."""
    if isinstance(value, dict):
        keys = list(value)
        random.Random(1).shuffle(keys)
        return {k: reordered(value[k]) for k in keys}
    return [reordered(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", ["whole", "adapter", "trained", "mores", "llava"])
def test_paths_versions_and_the_order_of_keys_do_not_count(kinds, tmp_path, kind):
    root = shutil.copytree(os.path.dirname(kinds["whole"]), tmp_path / "moved")
    folder, before = root / os.path.basename(kinds[kind]), model_digest(kinds[kind])
    changes = {
        "config.json": {"_name_or_path": "/elsewhere", "transformers_version": "9.9"},
        "tokenizer_config.json": {"name_or_path": "/elsewhere", "is_local": False},
        "adapter_config.json": {
            "base_model_name_or_path": str(root / "base"),
            "peft_version": "9.9",
            "inference_mode": False,
        },
        "trained.json": {"base": str(root / "base"), "relative": "../base"},
        "mores.json": {"base": str(root / "base"), "relative": "../base"},
    }
    for file in set(folder.glob("*.json")) - {folder / "non_lora.json"}:
        value = reordered(json.loads(file.read_text())) | changes.get(file.name, {})
        if file.name == "adapter_config.json" and isinstance(value["target_modules"], list):
            value["target_modules"] = value["target_modules"][::-1]
        file.write_text(json.dumps(value, indent=3))
    assert model_digest(str(folder)) == before
    load(str(folder))


def test_an_adapter_s_digest_is_also_its_base_s(kinds, tmp_path):
    root = shutil.copytree(os.path.dirname(kinds["whole"]), tmp_path / "run")
    lora = str(root / "llava")
    config = json.loads((root / "llava" / "adapter_config.json").read_text())
    (root / "llava" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "../base"}))
    seen = {model_digest(lora)}
    # the processor is the base's here
    for file in (
        "model.safetensors",
        "config.json",
        "processor_config.json",
        "tokenizer.json",
        "generation_config.json",
    ):
        bump(root / "base" / file)
        seen.add(model_digest(lora))
    assert len(seen) == 6
    # and here it is its own
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(kinds["whole"], file), lora)
    own = model_digest(lora)
    bump(root / "base" / "processor_config.json")
    assert model_digest(lora) == own


def test_one_word_of_a_vocabulary_counts(kinds, tmp_path):
    """A word may be called as a field that is left out elsewhere."""
    folder = folders.copied(kinds["whole"], tmp_path / "copy")
    seen = set()
    for number in (5, 6):
        (tmp_path / "copy" / "vocab.json").write_text(json.dumps({"revision": number, "cache_dir": 2}))
        seen.add(model_digest(folder))
    assert len(seen) == 2


def test_a_base_that_changed_is_refused_by_what_was_trained_from_it(kinds, tmp_path):
    for kind in ("trained", "mores"):
        root = shutil.copytree(os.path.dirname(kinds["whole"]), tmp_path / kind)
        for name in ("trained.json", "mores.json"):
            file = next(root.glob(f"*/{name}"))
            file.write_text(json.dumps(json.loads(file.read_text()) | {"base": str(root / "base")}))
        load(str(root / kind))
        bump(root / "base" / "generation_config.json")
        with pytest.raises(InputError, match="weights are others now, or its config or processor"):
            load(str(root / kind))


@pytest.mark.parametrize(
    ("kind", "file"),
    [("llava", "adapter_config.json"), ("whole", "processor_config.json"), ("whole", "tokenizer.json")],
)
def test_the_feature_key_changes_with_it(kinds, tiny_pool, tmp_path, kind, file):
    folder = folders.copied(kinds[kind], tmp_path / "copy")

    def key():
        config = FeatureConfig(kind="loss")
        return make_spec(tiny_pool, [CheckpointRef(1, folder)], config, str(tmp_path / "out")).keys[0].model

    before, path = key(), tmp_path / "copy" / file
    value = json.loads(path.read_text())
    if file == "adapter_config.json":
        value["lora_alpha"] = 32
    elif file == "processor_config.json":
        value["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    else:
        value["model"]["merges"] = value["model"]["merges"][:-1]
    path.write_text(json.dumps(value))
    assert key() != before


def test_shards_are_digested_by_name_and_content(kinds, tmp_path):
    folder = folders.copied(kinds["whole"], tmp_path / "sharded")
    state = load_file(f"{folder}/model.safetensors")
    os.remove(f"{folder}/model.safetensors")
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({n: state[n] for n in held}, f"{folder}/{file}", {"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: f for f, held in parts.items() for n in held}}
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert all(
        torch.equal(p, q) for p, q in zip(load(folder).model.parameters(), load(kinds["whole"]).model.parameters())
    )
    before = model_digest(folder)
    bump(f"{folder}/model-00002-of-00002.safetensors")
    assert model_digest(folder) != before
