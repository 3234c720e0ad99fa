"""Checkpoint folders of every kind on a tiny model, made as their own programs make them, and ways to spoil their files."""

import json
import os
import shutil

import torch
from safetensors.torch import load_file, save_file
from vinnow.models.adapters import add_adapter
from vinnow.models.components import add_lora, set_trainable
from vinnow.models.load import NON_LORA, load, load_processor, model_digest
from vinnow.models.mores import add_mores
from vinnow.models.mores_files import save_mores
from vinnow.models.specs import AdapterSpec, LoraSpec, MoresSpec
from vinnow.models.trained import save_trained
from vinnow.train.checkpoint import _write_adapter


def shaken(model):
    """The model with every trained parameter moved."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def adapter(base, out, method="lora"):
    """An adapter and its projector, as our training writes them; the processor stays the base's."""
    spec = AdapterSpec(method=method, **({} if method == "ia3" else {"r": 4}))
    model = add_adapter(load(base).model, spec)
    model.peft_config["default"].base_model_name_or_path = str(base)
    set_trainable(model, ["lora", "projector"])
    os.makedirs(out)
    _write_adapter(shaken(model), str(out), None)
    return str(out)


def trained(base, out):
    """Trained weights alone (the projector's)."""
    model = load(base).model
    set_trainable(model, ["projector"])
    os.makedirs(out)
    save_trained(str(out), shaken(model).named_parameters(), str(base), model_digest(base), 7)
    model.config.save_pretrained(str(out))
    load_processor(base).save_pretrained(str(out))
    return str(out)


def mores(base, out):
    """MoReS and the projector."""
    model = load(base).model
    add_mores(model, MoresSpec(rank=2)).base = str(base)
    set_trainable(model, ["mores", "projector"])
    os.makedirs(out)
    save_mores(shaken(model), str(out), model_digest(base), NON_LORA)
    load_processor(base).save_pretrained(str(out))
    return str(out)


def llava_lora(base, out, **changes):
    """A LoRA and its projector as LLaVA's own code leaves them: names of a bare language model, torch's files."""
    model = add_lora(load(base).model, LoraSpec(r=4, alpha=8, dropout=0.0))
    set_trainable(model, ["lora", "projector"])
    shaken(model)
    os.makedirs(out)
    adapters, others = {}, {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        old = name.replace("model.language_model.layers", "model.layers").replace(".default", "")
        old = old.replace("multi_modal_projector.linear_1", "mm_projector.0").replace(
            "multi_modal_projector.linear_2", "mm_projector.2"
        )
        (adapters if ".lora_" in name else others)[old] = p.detach().clone()
    torch.save(adapters, os.path.join(out, "adapter_model.bin"))
    torch.save(others, os.path.join(out, "non_lora_trainables.bin"))
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": 4, "lora_alpha": 8,
        "lora_dropout": 0.05, "bias": "none", "modules_to_save": None, "inference_mode": True,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }  # fmt: skip
    with open(os.path.join(out, "adapter_config.json"), "w") as sink:
        json.dump(config | changes, sink)
    # it writes its own config along, of a type that Hugging Face does not know
    with open(os.path.join(out, "config.json"), "w") as sink:
        json.dump({"model_type": "llava_llama", "mm_projector_type": "mlp2x_gelu"}, sink)
    return str(out), model


def old_names(folder):
    """Rename a LoRA folder's tensors as transformers 4 called the modules."""
    file = os.path.join(folder, "adapter_model.safetensors")
    state = load_file(file)
    old = {n.replace("model.language_model.layers", "language_model.model.layers", 1): t for n, t in state.items()}
    assert old.keys() != state.keys()
    save_file(old, file, {"format": "pt"})


def copied(folder, out):
    """A copy that may be spoiled."""
    return str(shutil.copytree(folder, out))


def read(file):
    """A file's tensors."""
    if str(file).endswith(".safetensors"):
        return load_file(file)
    return torch.load(file, weights_only=True)


def write(file, state):
    """Write tensors as the file's kind wants them."""
    if str(file).endswith(".safetensors"):
        save_file({n: t.contiguous() for n, t in state.items()}, file, {"format": "pt"})
    else:
        torch.save(state, file)


def spoil(file, how):
    """Spoil a file of tensors in one way; return the name of the tensor that an error must say."""
    state = read(file)
    name = sorted(n for n, t in state.items() if t.ndim == 2)[-1]
    if how == "extra":
        state[name.replace("layers.0", "layers.7").replace("linear_", "linear_9") + "_more"] = state[name].clone()
        write(file, state)
        return "_more"
    if how == "missing":
        state.pop(name)
    if how == "half":
        state = {n: t for i, (n, t) in enumerate(sorted(state.items())) if i % 2}
        name = ""
    if how == "shape":
        state[name] = torch.zeros(state[name].shape[0] + 1, *state[name].shape[1:])
    if how == "empty":
        state, name = {}, os.path.basename(file)
    if how == "nothing":
        open(file, "wb").close()
        return os.path.basename(file)
    if how == "pointer":
        with open(file, "w") as sink:
            sink.write("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n")
        return "git-LFS pointer"
    if how == "cut":
        with open(file, "rb+") as sink:
            sink.truncate(os.path.getsize(file) - 20)
        return os.path.basename(file)
    write(file, state)
    return name
