"""Weights that are no weights: NaN, whole numbers, a config that is not used, a cast that overflows."""

import json
import os
import re
from pathlib import Path

import folders
import pytest
import torch
from safetensors.torch import load_file, save_file
from vinnow.models.check import check_model
from vinnow.models.components import add_lora, canonical
from vinnow.models.family.of_llava.files import write_projector
from vinnow.models.load import load
from vinnow.models.merge import merge
from vinnow.models.moments import load_moments, save_moments
from vinnow.models.specs import LoraSpec
from vinnow.store.errors import InputError


@pytest.fixture(scope="module")
def kinds(tiny_model, tmp_path_factory):
    """A folder of each kind."""
    root, path = tmp_path_factory.mktemp("made"), str(tiny_model)
    return {
        "whole": (path, "model.safetensors"),
        "adapter": (folders.adapter(path, root / "adapter"), "adapter_model.safetensors"),
        "trained": (folders.trained(path, root / "trained"), "trained.safetensors"),
        "mores": (folders.mores(path, root / "mores"), "mores.safetensors"),
        "llava": (folders.llava_lora(path, root / "llava")[0], "adapter_model.bin"),
    }


def changed(kinds, kind, out, change):
    """Copy a folder with its largest tensor changed; returns it, and a part of the tensor's name that an error has."""
    folder, file = kinds[kind]
    copy = folders.copied(folder, out)
    path = os.path.join(copy, file)
    torch_made = file.endswith(".bin")
    state = torch.load(path, weights_only=True) if torch_made else load_file(path)
    name = max(state, key=lambda n: (state[n].numel(), n))
    state[name] = change(state[name].clone())
    torch.save(state, path) if torch_made else save_file(state, path, metadata={"format": "pt"})
    return copy, re.sub(r"\.weight$", "", name).rsplit(".", 1)[-1]


def one_nan(tensor):
    tensor.view(-1)[3] = float("nan")
    return tensor


@pytest.mark.parametrize("kind", ["whole", "adapter", "trained", "mores", "llava"])
def test_values_that_are_not_finite_and_whole_numbers_are_refused_by_name(kinds, tmp_path, kind):
    folder, name = changed(kinds, kind, tmp_path / "nan", one_nan)
    check_model(folder)  # headers alone
    with pytest.raises(InputError, match=rf"holds NaN or infinite values in .*{name}"):
        load(folder)
    folder, name = changed(kinds, kind, tmp_path / "int", lambda t: (t * 127).to(torch.int8))
    for work in (check_model, load):
        with pytest.raises(InputError, match=rf"holds whole numbers where weights belong.*: .*{name}"):
            work(folder)


def test_no_broken_model_is_merged(kinds, tiny_model, tmp_path):
    folder, _ = changed(kinds, "adapter", tmp_path / "a", one_nan)
    with pytest.raises(InputError, match="NaN or infinite"):
        merge(folder, str(tmp_path / "out"))
    loaded, file = load(tiny_model), tmp_path / "mm_projector.bin"
    write_projector(loaded.model, file)
    state = torch.load(file, weights_only=True)
    cases = {
        "float16": (
            {n: w * 1e7 for n, w in state.items()},
            r"cast to float16, holds NaN or infinite values in .*linear",
        ),
        "float32": (
            {n: one_nan(w.clone()) for n, w in state.items()},
            r"the projector in .* holds NaN or infinite values",
        ),
        "bfloat16": ({n: w.to(torch.int8) for n, w in state.items()}, r"the projector in .* holds whole numbers"),
    }
    for dtype, (broken, said) in cases.items():
        torch.save(broken, file)
        with pytest.raises(InputError, match=said):
            merge(str(tiny_model), str(tmp_path / "out"), projector=str(file), dtype=dtype)
    assert not (tmp_path / "out").exists()


def test_a_config_that_is_not_the_base_s_is_refused(kinds, tmp_path):
    folder = folders.copied(kinds["trained"][0], tmp_path / "t")
    file = Path(folder) / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["rms_norm_eps"] = 0.01
    config["transformers_version"] = "4.0"
    file.write_text(json.dumps(config))
    for work in (check_model, load):
        with pytest.raises(InputError, match=r"text_config.rms_norm_eps is 0.01, the base's 1e-0\d"):
            work(folder)


def test_a_pad_token_behind_the_vocabulary_is_refused(tiny_model, tmp_path):
    folder = folders.copied(str(tiny_model), tmp_path / "pad")
    file = Path(folder) / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["pad_token_id"] = 9999
    file.write_text(json.dumps(config))
    for work in (check_model, load):
        with pytest.raises(InputError, match=r"text_config.pad_token_id is 9999, and its vocabulary has \d+ entries"):
            work(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_damaged_moments_are_named(tiny_model, tmp_path, value):
    model = add_lora(load(tiny_model).model, LoraSpec(r=2, alpha=4))
    shapes = {canonical(n): p.shape for n, p in model.named_parameters() if ".lora_" in n}
    first, second = ({n: torch.zeros(s) for n, s in shapes.items()} for _ in range(2))
    name, file = sorted(shapes)[-1], tmp_path / "moments.safetensors"
    second[name].view(-1)[0] = value
    save_moments(file, first, second, 3, (0.9, 0.99), 1e-8)
    with pytest.raises(
        InputError, match=rf"moments.safetensors', exp_avg_sq: {re.escape(name)} has values that are not"
    ):
        load_moments(file, shapes)
