"""Loading: Hugging Face folders as they are, and clear words for what cannot be loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration
from vinnow.models.components import add_lora, set_trainable
from vinnow.models.load import load, load_processor, model_digest
from vinnow.models.specs import LoraSpec
from vinnow.models.trained import save_trained
from vinnow.store.errors import InputError


def test_the_twin_is_a_plain_hugging_face_folder(tiny_model):
    model = LlavaForConditionalGeneration.from_pretrained(tiny_model)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert AutoProcessor.from_pretrained(tiny_model).tokenizer.image_token == "<image>"


def test_digest_is_content(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    assert model_digest(str(copy)) == model_digest(tiny_model)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"projector_hidden_act": "relu"}))
    assert model_digest(str(copy)) != model_digest(tiny_model)


def test_an_adapter_loads_on_its_base(tiny_model, tmp_path):
    wrapped = add_lora(load(tiny_model).model, LoraSpec(r=2, alpha=4, init="gaussian"))
    wrapped.peft_config["default"].base_model_name_or_path = tiny_model
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    loaded = load(str(tmp_path / "adapter"))
    name = next(n for n in dict(loaded.model.named_parameters()) if ".lora_A." in n)
    assert torch.equal(loaded.model.get_parameter(name), wrapped.get_parameter(name))
    assert loaded.digest != model_digest(tiny_model)
    assert loaded.processor.image_token_id == load_processor(tiny_model).image_token_id


def test_what_cannot_be_loaded_is_said(tiny_model, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither config\.json"):
        load(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="did you mean 'float32'"):
        load(tiny_model, dtype="float23")
    other = shutil.copytree(tiny_model, tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="none of those that work here"):
        load(str(other))
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    settings = json.loads((bare / "processor_config.json").read_text())
    settings.pop("patch_size")
    (bare / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="patch_size"):
        load_processor(str(bare))


def trained_alone(tiny_model, folder, base):
    """A folder of the projector's weights alone, moved by one, trained from `base`."""
    model = load(tiny_model).model
    names = set_trainable(model, ["projector"])
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).add_(1.0)
    folder.mkdir(parents=True)
    save_trained(str(folder), model.named_parameters(), str(base), model_digest(str(base)), 7)
    load_processor(tiny_model).save_pretrained(str(folder))
    model.config.save_pretrained(str(folder))
    return names


def test_trained_weights_alone_load_on_the_base_they_name(tiny_model, tmp_path):
    base = shutil.copytree(tiny_model, tmp_path / "run" / "base")
    names = trained_alone(tiny_model, tmp_path / "run" / "checkpoint-7", base)
    start = load(tiny_model).model
    # a run's folder may move as a whole
    moved = shutil.move(tmp_path / "run", tmp_path / "moved") / "checkpoint-7"
    loaded = load(str(moved))
    for name, weight in loaded.model.named_parameters():
        before = start.get_parameter(name)
        assert torch.equal(weight, (before + 1).bfloat16().float() if name in names else before)
    assert loaded.digest != model_digest(tiny_model)
    # its base's weights are part of what it is
    other = load_file(tmp_path / "moved" / "base" / "model.safetensors")
    save_file({k: v + 1 for k, v in other.items()}, tmp_path / "moved" / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="whose weights are others now"):
        load(str(moved))
    shutil.rmtree(tmp_path / "moved" / "base")
    with pytest.raises(InputError, match="their base is gone"):
        load(str(moved))


def test_damaged_weights_are_named(tiny_model, tmp_path):
    cut = shutil.copytree(tiny_model, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:10_000])
    with pytest.raises(InputError, match=r"model\.safetensors' cannot be loaded, it is damaged or was cut short"):
        load(str(cut))
    trained_alone(tiny_model, tmp_path / "part", tiny_model)
    save_file({"model.no_such.weight": torch.zeros(2)}, tmp_path / "part" / "trained.safetensors")
    with pytest.raises(InputError, match=r"does not fit its model\. Tensors that fit nothing: model\.no_such\.weight"):
        load(str(tmp_path / "part"))
