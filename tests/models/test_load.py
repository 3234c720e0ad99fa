"""Loading: Hugging Face folders as they are, and clear words for what cannot be loaded."""

import json
import shutil

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration
from vinnow.models.load import load, load_processor, model_digest
from vinnow.models.parts import LoraSpec, add_lora
from vinnow.store.errors import InputError


def test_the_twin_is_a_plain_hugging_face_folder(twin_path):
    model = LlavaForConditionalGeneration.from_pretrained(twin_path)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert AutoProcessor.from_pretrained(twin_path).tokenizer.image_token == "<image>"


def test_digest_is_content(twin_path, tmp_path):
    copy = shutil.copytree(twin_path, tmp_path / "copy")
    assert model_digest(str(copy)) == model_digest(twin_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"projector_hidden_act": "relu"}))
    assert model_digest(str(copy)) != model_digest(twin_path)


def test_an_adapter_loads_on_its_base(twin_path, tmp_path):
    wrapped = add_lora(load(twin_path).model, LoraSpec(r=2, alpha=4, init="gaussian"))
    wrapped.peft_config["default"].base_model_name_or_path = twin_path
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    loaded = load(str(tmp_path / "adapter"))
    name = next(n for n in dict(loaded.model.named_parameters()) if ".lora_A." in n)
    assert torch.equal(loaded.model.get_parameter(name), wrapped.get_parameter(name))
    assert loaded.digest != model_digest(twin_path)
    assert loaded.processor.image_token_id == load_processor(twin_path).image_token_id


def test_what_cannot_be_loaded_is_said(twin_path, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither config\.json"):
        load(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="did you mean 'float32'"):
        load(twin_path, dtype="float23")
    other = shutil.copytree(twin_path, tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="not a LLaVA"):
        load(str(other))
    bare = shutil.copytree(twin_path, tmp_path / "bare")
    settings = json.loads((bare / "processor_config.json").read_text())
    settings.pop("patch_size")
    (bare / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="patch_size"):
        load_processor(str(bare))
