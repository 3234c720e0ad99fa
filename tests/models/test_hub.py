"""A hub's name means its copy in Hugging Face's cache; other layouts are recognised, and told what to do with."""

import json
import shutil

import folders
import huggingface_hub
import pytest
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec
from vinnow.evaluate import shards
from vinnow.evaluate.config import EvalConfig
from vinnow.models.check import check_model
from vinnow.models.family.of_llava.build import BuildConfig, build
from vinnow.models.folders import check_folder, local_model
from vinnow.models.load import load, model_digest
from vinnow.store.errors import InputError
from vinnow.train.config import TrainConfig

NAME = "acme-ai/tiny-llava.v1"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a working folder of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache"


def put(cache, name, folder):
    """Put a folder into the cache as a download leaves it: links to blobs."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text("0123abc")
    shutil.copytree(folder, home / "blobs")
    shot = home / "snapshots/0123abc"
    shot.mkdir(parents=True)
    for file in (home / "blobs").iterdir():
        (shot / file.name).symlink_to(file)
    return shot


def test_a_name_that_is_cached_is_its_copy(cache, tiny_model, tiny_pool, tmp_path):
    shot = put(cache, NAME, tiny_model)
    assert check_folder(NAME) == shot
    assert local_model(NAME) == str(shot)
    check_model(NAME)
    assert model_digest(NAME) == model_digest(tiny_model)
    assert load(NAME).model.config.model_type == "llava"
    config = TrainConfig(model=NAME, pool=tiny_pool)
    assert config.absolute().model == str(shot)
    spec = make_spec(tiny_pool, [CheckpointRef(1, NAME)], FeatureConfig(kind="loss"), str(tmp_path / "out"))
    assert spec.checkpoints[0].path == str(shot)
    assert shards.make_spec(EvalConfig(model=NAME, pool=tiny_pool, run="x"), "out").config.model == str(shot)


def test_a_folder_of_that_name_goes_first(cache, tiny_model):
    put(cache, NAME, tiny_model)
    shutil.copytree(tiny_model, NAME)
    assert str(check_folder(NAME)) == NAME


def test_a_name_that_is_not_cached_is_told_how_to_fetch(cache, tiny_pool):
    words = rf"hf download {NAME} --local-dir tiny-llava\.v1"
    for use in (
        check_folder,
        load,
        lambda n: check_folder(TrainConfig(model=n, pool=tiny_pool).absolute().model),
        lambda n: shards.make_spec(EvalConfig(model=n, pool=tiny_pool, run="x"), "out"),
        lambda n: build(BuildConfig(llm=n, tower=n), "built"),
    ):
        with pytest.raises(InputError, match=words) as error:
            use(NAME)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError) as error:
        check_folder("/models/acme/llava")
    assert "hf download" not in str(error.value)


def test_an_adapters_base_may_be_a_name(cache, tiny_model, tmp_path):
    folder = folders.adapter(tiny_model, str(tmp_path / "adapter"))
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": NAME}))
    with pytest.raises(InputError, match=f"hf download {NAME}"):
        check_model(folder)
    put(cache, NAME, tiny_model)
    check_model(folder)


def test_a_copy_without_its_blobs_is_named(cache, tiny_model):
    shot = put(cache, NAME, tiny_model)
    (cache / f"models--{NAME.replace('/', '--')}/blobs/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors.*symbolic link that leads nowhere"):
        check_model(NAME)
    assert shot.exists()


LAYOUTS = {
    "llava_llama": (
        {"model_type": "llava_llama", "mm_vision_tower": "openai/clip-vit-large-patch14-336"},
        ["LLaVA's own code", "mm_vision_tower 'openai/clip-vit-large-patch14-336'", "convert_llava_weights_to_hf.py"],
    ),
    "llava_mistral": (
        {"model_type": "llava_mistral", "mm_vision_tower": "openai/clip"},
        ["LLaVA's own code", "merge --projector"],
    ),
    # LLaVA v1.0 called itself as Hugging Face's class is called now
    "llava v1.0": (
        {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"], "mm_vision_tower": "openai/clip"},
        ["LLaVA's own code", "llava-hf"],
    ),
    "llm": (
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        ["a language model alone", "vinnow build --llm", "none of those that work here"],
    ),
    "tower": ({"model_type": "clip", "architectures": ["CLIPModel"]}, ["a vision tower alone", "vinnow build --tower"]),
    "video": (
        {"model_type": "llava_next_video", "vision_config": {}},
        ["'llava_next_video' cannot be used", "Types that work"],
    ),
    "odd": ({"model_type": ["x"], "architectures": 3}, ["model_type is ['x']"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_of_another_layout(tiny_model, tmp_path, name):
    settings, words = LAYOUTS[name]
    folder = shutil.copytree(tiny_model, tmp_path / "other")
    (folder / "config.json").write_text(json.dumps(settings))
    for use in (check_model, load):
        with pytest.raises(InputError) as error:
            use(str(folder))
        for word in (*words, str(folder)):
            assert word in str(error.value)
        assert "\n" not in str(error.value)
