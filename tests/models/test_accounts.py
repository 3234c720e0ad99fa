"""Every loader accounts for every tensor: what fits nothing, is missing or has another shape is refused by name."""

import json
import os
import re
import shutil

import folders
import peft
import pytest
import torch
from batches import inputs_of, make_batch
from safetensors.torch import load_file, save_file
from vinnow.models.check import check_model
from vinnow.models.components import add_lora, base_of, canonical
from vinnow.models.family.of_llava.files import put_projector, write_projector
from vinnow.models.load import load, model_digest
from vinnow.models.merge import merge
from vinnow.models.moments import load_moments, save_moments
from vinnow.models.specs import METHODS, LoraSpec
from vinnow.store.errors import InputError

HOW = ("extra", "missing", "half", "shape", "empty", "nothing", "pointer", "cut")


@pytest.fixture(scope="module")
def kinds(tiny_model, tmp_path_factory):
    """A folder of each kind."""
    root = tmp_path_factory.mktemp("made")
    tiny_model = str(tiny_model)
    return {
        "whole": tiny_model,
        "adapter": folders.adapter(tiny_model, root / "adapter"),
        "trained": folders.trained(tiny_model, root / "trained"),
        "mores": folders.mores(tiny_model, root / "mores"),
        "llava": folders.llava_lora(tiny_model, root / "llava")[0],
    }


FILES = [
    ("whole", "model.safetensors"),
    ("adapter", "adapter_model.safetensors"),
    ("adapter", "non_lora.safetensors"),
    ("trained", "trained.safetensors"),
    ("mores", "mores.safetensors"),
    ("mores", "non_lora.safetensors"),
    ("llava", "adapter_model.bin"),
    ("llava", "non_lora_trainables.bin"),
]


@pytest.mark.parametrize(("kind", "file"), FILES, ids=["-".join(f) for f in FILES])
def test_what_does_not_fit_is_refused_by_name(kinds, tmp_path, kind, file):
    check_model(kinds[kind])
    load(kinds[kind])
    for how in HOW:
        folder = folders.copied(kinds[kind], tmp_path / how)
        name = folders.spoil(os.path.join(folder, file), how)
        # the name by which the error says it may be today's
        said = re.escape(name.rsplit(".", 2)[-2] if name.count(".") > 2 else name)
        for look in (check_model, load):
            with pytest.raises(InputError, match=said):
                look(folder)


@pytest.mark.parametrize(
    ("kind", "file"), [f for f in FILES if f[0] != "whole"], ids=["-".join(f) for f in FILES if f[0] != "whole"]
)
def test_a_folder_without_one_of_its_files_is_refused(kinds, tmp_path, kind, file):
    folder = folders.copied(kinds[kind], tmp_path / "copy")
    os.remove(os.path.join(folder, file))
    with pytest.raises(InputError, match=re.escape(file)):
        check_model(folder)
    with pytest.raises(InputError, match=re.escape(file)):
        load(folder)


def logits(model):
    base = base_of(model)
    batch = make_batch(base)
    with torch.no_grad():
        return model(**inputs_of(batch, "input_ids", "attention_mask")).logits


def test_a_lora_folder_of_llava_says_what_its_training_said(tiny_model, tmp_path):
    folder, model = folders.llava_lora(tiny_model, tmp_path / "lora")
    again = load(folder).model
    assert torch.equal(logits(again), logits(model.eval()))
    assert not torch.allclose(logits(again), logits(load(tiny_model).model), atol=1e-3)
    assert not any("vision_tower" in n and "lora" in n for n, _ in again.named_parameters())
    # "a whole model" is that, not the base
    whole = load(merge(folder, str(tmp_path / "whole"))).model
    assert torch.allclose(logits(whole), logits(model), atol=1e-4)
    # alpha is its config's
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 16}))
    assert not torch.allclose(logits(load(folder).model), logits(model), atol=1e-4)


@pytest.mark.parametrize("targets", ["all-linear", r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"])
def test_its_targets_and_patterns_are_read_as_they_were_written(tiny_model, tmp_path, targets):
    alpha = {"model.layers.0.self_attn.q_proj": 64, "layers.1.mlp.up_proj": 2}
    folder, model = folders.llava_lora(tiny_model, tmp_path / "lora", target_modules=targets, alpha_pattern=alpha)
    for name, module in model.named_modules():
        if name.endswith("language_model.layers.0.self_attn.q_proj"):
            module.scaling["default"] = 64 / 4
        if name.endswith("language_model.layers.1.mlp.up_proj"):
            module.scaling["default"] = 2 / 4
    assert torch.equal(logits(load(folder).model), logits(model.eval()))
    folder, _ = folders.llava_lora(tiny_model, tmp_path / "gone", alpha_pattern={"layers.9.self_attn.q_proj": 64})
    with pytest.raises(InputError, match=r"alpha_pattern names modules that have no adapter: .*layers\.9"):
        check_model(folder)


def test_names_of_transformers_4_are_translated(tiny_model, kinds, tmp_path):
    folder = folders.copied(kinds["adapter"], tmp_path / "old")
    folders.old_names(folder)
    check_model(folder)
    assert torch.equal(logits(load(folder).model), logits(load(kinds["adapter"]).model))
    # half in one layout, half in another
    state = load_file(f"{folder}/adapter_model.safetensors")
    first = next(iter(state))
    state[first.replace("language_model.model", "model.language_model")] = state.pop(first)
    save_file(state, f"{folder}/adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="mixes names of different layouts"):
        load(folder)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_of_every_method_are_accounted_for(tiny_model, tmp_path, method):
    folder = folders.adapter(tiny_model, tmp_path / method, method)
    check_model(folder)
    load(folder)
    folders.spoil(f"{folder}/adapter_model.safetensors", "half")
    with pytest.raises(InputError, match=r"[Mm]issing tensors: base_model"):
        check_model(folder)


@pytest.mark.parametrize(
    "more",
    [
        {"modules_to_save": ["multi_modal_projector"]},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"use_dora": True},
        {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"q_proj": 3}},
        {"use_rslora": True},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"trainable_token_indices": {"embed_tokens": [5, 6]}},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=lambda more: "-".join(more),
)
def test_what_peft_itself_saves_comes_back(tiny_model, tmp_path, more):
    spec = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | more
    model = peft.get_peft_model(load(tiny_model).model, peft.LoraConfig(**spec))
    model.peft_config["default"].base_model_name_or_path = tiny_model
    folders.shaken(model).save_pretrained(str(tmp_path / "a"))
    check_model(str(tmp_path / "a"))
    again = load(str(tmp_path / "a")).model
    assert torch.equal(logits(again), logits(model))
    name = folders.spoil(str(tmp_path / "a" / "adapter_model.safetensors"), "missing")
    for look in (check_model, load):
        with pytest.raises(InputError, match=re.escape(name)):
            look(str(tmp_path / "a"))


def test_an_adapter_of_another_rank_or_model_is_refused(tiny_model, kinds, tmp_path):
    folder = folders.copied(kinds["adapter"], tmp_path / "rank")
    config = json.loads((tmp_path / "rank" / "adapter_config.json").read_text())
    (tmp_path / "rank" / "adapter_config.json").write_text(json.dumps(config | {"r": 2}))
    with pytest.raises(
        InputError, match=r"Of another shape: base_model\.model.*lora_A\.weight \[4, 64\] for \[2, 64\]"
    ):
        check_model(folder)
    (tmp_path / "rank" / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["no_proj"]}))
    with pytest.raises(InputError, match=r"adapter_config\.json' does not fit its base"):
        load(folder)
    (tmp_path / "rank" / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    with pytest.raises(InputError, match="does not name its base"):
        load(folder)


def test_two_files_of_one_adapter_must_be_one(kinds, tmp_path):
    folder = folders.copied(kinds["adapter"], tmp_path / "both")
    state = load_file(f"{folder}/adapter_model.safetensors")
    torch.save(state, f"{folder}/adapter_model.bin")
    load(folder)
    torch.save({n: t + 1 for n, t in state.items()}, f"{folder}/adapter_model.bin")
    with pytest.raises(InputError, match="they differ"):
        check_model(folder)
    os.remove(f"{folder}/adapter_model.bin")
    shutil.copy(f"{folder}/non_lora.safetensors", f"{folder}/non_lora_trainables.bin")
    with pytest.raises(InputError, match=r"remove the one that is stale"):
        check_model(folder)


def test_no_pickled_object_of_an_adapter_is_run(kinds, tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    for file in ("adapter_model.bin", "non_lora_trainables.bin"):
        folder = folders.copied(kinds["llava"], tmp_path / file)
        torch.save(torch.load(f"{folder}/{file}", weights_only=True) | {"trap": Trap()}, f"{folder}/{file}")
        for look in (check_model, load):
            with pytest.raises(InputError, match="which loading would run"):
                look(folder)
    assert not (tmp_path / "ran").exists()


def test_two_checkpoints_in_one_folder_are_refused(tiny_model, kinds, tmp_path):
    folder = folders.copied(kinds["adapter"], tmp_path / "two")
    shutil.copy(f"{tiny_model}/model.safetensors", folder)
    with pytest.raises(InputError, match=r"two checkpoints at once: \['adapter_config\.json', 'model\.safetensors'\]"):
        load(folder)
    with pytest.raises(InputError, match="two checkpoints at once"):
        model_digest(folder)


def test_what_old_files_hold_besides_is_legal(tiny_model, tmp_path):
    folder = folders.copied(tiny_model, tmp_path / "old")
    state = load_file(f"{folder}/model.safetensors")
    front = "vision_tower.vision_model." if any("vision_model" in n for n in state) else "vision_tower."
    state[f"{front}embeddings.position_ids"] = torch.arange(17)[None]
    state["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(state, f"{folder}/model.safetensors", {"format": "pt"})
    check_model(folder)
    load(folder)


def test_tied_weights_are_legal_absences(tmp_path):
    from vinnow.models.family.of_llava.tiny import build_tiny_model
    from vinnow.models.specs import TinyModelConfig

    tied = build_tiny_model(
        str(tmp_path / "tied"), ["USER: what is this? ASSISTANT: red"] * 9, TinyModelConfig(llm="gemma")
    )
    assert not any("lm_head" in n for n in load_file(f"{tied}/model.safetensors"))
    check_model(tied)
    check_model(folders.adapter(tied, tmp_path / "adapter"))


@pytest.mark.parametrize("how", ["extra", "missing", "shape", "empty", "nothing", "cut", "pointer"])
def test_projector_files_are_accounted_for(tiny_model, tmp_path, how):
    model = load(tiny_model).model
    file = tmp_path / "mm_projector.bin"
    write_projector(model, file)
    name = folders.spoil(str(file), how)
    said = name if how in ("extra", "nothing", "cut", "pointer") else "linear_2.weight" if how != "empty" else "nothing"
    with pytest.raises(InputError, match=re.escape(said)):
        put_projector(model, file)


@pytest.mark.parametrize("how", ["extra", "missing", "shape", "empty", "nothing", "cut"])
def test_moments_are_accounted_for(tiny_model, tmp_path, how):
    model = add_lora(load(tiny_model).model, LoraSpec(r=2, alpha=4))
    known = {canonical(n): p.shape for n, p in model.named_parameters()}
    shapes = {n: s for n, s in known.items() if ".lora_" in n}
    zeros = {n: torch.zeros(s) for n, s in shapes.items()}
    name, changed = sorted(shapes)[-1], dict(zeros)
    file = tmp_path / "moments.safetensors"
    if how == "extra":
        changed["model.no_such.weight"] = torch.zeros(2)
        name = "model.no_such.weight"
    if how == "missing":
        changed.pop(name)
    if how == "shape":
        changed[name] = torch.zeros(3, 3)
    save_moments(file, changed, {n: z + 0 for n, z in changed.items()}, 3, (0.9, 0.99), 1e-8)
    if how in ("empty", "nothing", "cut"):
        name = folders.spoil(str(file), how)
    with pytest.raises(InputError, match=re.escape(name)):
        load_moments(file, shapes, known=known)
    # one moment of a parameter without the other
    save_moments(file, zeros, {n: z + 0 for n, z in zeros.items() if n != sorted(shapes)[0]}, 3, (0.9, 0.99), 1e-8)
    with pytest.raises(InputError, match=re.escape(sorted(shapes)[0])):
        load_moments(file, shapes, known=known)
