"""Every family's tiny model is trained by the loop itself (DeepSpeed, one worker in this process) and by its parts.

What a training leaves is Hugging Face's own folder, or PEFT's: loaded by their classes alone, with their names of tensors.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from tinies import RECORDS, TEXT, each_family
from transformers import AutoConfig, AutoModelForImageTextToText
from vinnow.models.components import add_lora, base_of, component_of, set_trainable
from vinnow.models.load import load
from vinnow.models.merge import merge
from vinnow.models.specs import LoraSpec
from vinnow.train.config import TrainConfig
from vinnow.train.loss import LossModule
from vinnow.train.optimizer import make_optimizer
from vinnow.train.solo import Bases, fit_here

WHOLE = ["vision_tower", "projector", "language_model"]
KINDS = {
    "full": {"parts": WHOLE},
    "LoRA": {"parts": ["lora", "projector"], "lora": {"r": 2, "alpha": 4}},
}
# a row a micro-batch: some have a picture, some have none
STEPS = {"global_batch": 3, "micro_batch": 1, "max_steps": 2, "warmup_ratio": 0, "schedule": "constant", "max_len": 400}


@pytest.fixture(scope="module")
def trained_of(tiny_of, mixed_pool, tmp_path_factory):
    """By family and kind of training: the folder of the model that two steps leave, and the losses."""
    done: dict[tuple[str, str], Path] = {}

    def trained(name, kind):
        if (name, kind) not in done:
            t, out = tiny_of(name), tmp_path_factory.mktemp(f"{name}-{kind}")
            job = {"model": t.path, "pool": mixed_pool, "template": t.template, "lr": 1e-2}
            fit_here(TrainConfig.parse(job | STEPS | KINDS[kind]), str(out), Bases())
            done[name, kind] = out / "model"
        return done[name, kind]

    return trained


def tensor_names(folder):
    names = set()
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names |= set(opened.keys())
    return names


def plain(path):
    """A folder as `AutoModelForImageTextToText` loads it, with nothing missing and nothing left over."""
    loaded: Any = AutoModelForImageTextToText.from_pretrained(path, output_loading_info=True, dtype=torch.float32)
    model, info = loaded
    assert not any(info.values()), info
    return model.eval()


@torch.no_grad()
def logits(t, model):
    model = model.eval()
    return [model(**t.theirs(r, model)).logits for r in RECORDS[:3]]


def same(mine, theirs, atol=1e-5):
    return all(torch.allclose(a, b, atol=atol) for a, b in zip(mine, theirs, strict=True))


def moved(before, after):
    """By component: its parameters, and which of them differ."""
    parts = {}
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        parts.setdefault(component_of(name), {})[name] = not torch.equal(old, new)
    return parts


@pytest.mark.works("training: full")
@each_family
def test_all_components_are_trained(tiny_of, trained_of, name):
    t, folder = tiny_of(name), trained_of(name, "full")
    for component, weights in moved(t.copy(), load(str(folder)).model).items():
        assert sum(weights.values()) > len(weights) / 2, component


@pytest.mark.works("training: connector alone")
@each_family
def test_the_connector_alone_is_trained(tiny_of, name):
    t, parts = tiny_of(name), ["projector"]
    model = t.copy()
    losses = steps(t, model, TrainConfig.parse({"model": t.path, "pool": "-", "lr": 1e-2, "parts": parts}), 3)
    assert np.all(np.diff(losses) < 0)
    for component, weights in moved(t.copy(), model).items():
        assert any(weights.values()) == (component == "projector"), component


def steps(t, model, config, count):
    """The losses of so many steps on all records, by the loop's own loss and optimizer."""
    set_trainable(model, config.parts)
    module = LossModule(model).train()
    optimizer, losses = make_optimizer(list(module.named_parameters()), config), []
    for _ in range(count):
        optimizer.zero_grad()
        loss = module(t.batch())
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


@pytest.mark.works("saved models: Hugging Face's own folder and names")
@each_family
def test_a_trained_model_is_hugging_face_s_own_folder(tiny_of, trained_of, tmp_path, name):
    t, folder = tiny_of(name), trained_of(name, "full")
    mine, theirs = load(str(folder)).model, plain(folder)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    assert same(logits(t, theirs), logits(t, mine), 0)
    # what reads names alone (vLLM, SGLang) finds those that Hugging Face itself would have written
    theirs.save_pretrained(tmp_path)
    assert tensor_names(folder) == tensor_names(tmp_path)
    assert AutoConfig.from_pretrained(folder).architectures == AutoConfig.from_pretrained(tmp_path).architectures
    there = {f.name for f in folder.iterdir()}
    assert {f.name for f in Path(t.path).iterdir()} <= there


@pytest.mark.works("training and saving LoRA: PEFT's own folder; merged, Hugging Face's")
@each_family
def test_a_trained_adapter_is_peft_s_own_folder(tiny_of, trained_of, tmp_path, name):
    t, folder = tiny_of(name), trained_of(name, "LoRA")
    mine = load(str(folder)).model
    before = t.copy()
    assert not same(logits(t, mine), logits(t, before), 1e-3)
    base = plain(t.path)
    # the connector was trained beside it, in a file of its own
    own = dict(base_of(mine).named_parameters())
    for n, p in base.named_parameters():
        if component_of(n) == "projector":
            assert not torch.equal(p, own[n])
            p.data = own[n].detach().clone()
    theirs = PeftModel.from_pretrained(base, folder)
    weights = dict(theirs.named_parameters())
    assert all(torch.equal(p, weights[n]) for n, p in mine.named_parameters())
    assert any(".lora_B." in n and bool(p.abs().max() > 0) for n, p in weights.items())
    assert same(logits(t, theirs), logits(t, mine), 0)
    merged = plain(merge(str(folder), str(tmp_path / "merged")))
    assert same(logits(t, merged), logits(t, mine))
    assert tensor_names(tmp_path / "merged") == tensor_names(t.path)


class Asked(dict):
    """Parameters of a module, which tell whenever one is asked for and in which module's pass, as ZeRO-3's table does."""

    def __init__(self, module, parameters, running, asked):
        super().__init__(parameters)
        self.module, self.running, self.asked = module, running, asked

    def __getitem__(self, name):
        self.asked.append((self.running[-1], f"{self.module}.{name}"))
        return super().__getitem__(name)


def watched(module):
    """Return a list that a module's passes write into, of (running module, parameter)."""
    running, asked = [""], []
    for n, m in module.named_modules():
        m.__dict__["_parameters"] = Asked(n, m._parameters, running, asked)
        m.register_forward_pre_hook(lambda m, a, n=n: running.append(n))
        m.register_forward_hook(lambda m, a, out: running.pop() and None)
    return asked


@pytest.mark.works("training: a micro-batch of text alone among pictures")
@each_family
@pytest.mark.parametrize("kind", list(KINDS))
def test_text_alone_goes_through_the_modules_that_pictures_go_through(tiny_of, name, kind):
    """ZeRO-3 gathers a weight where it is first asked for, ZeRO-2 reduces gradients as they come: alike on all ranks."""
    t = tiny_of(name)
    model = t.copy()
    if kind == "LoRA":
        model = add_lora(model, LoraSpec(r=2, alpha=4))
    set_trainable(model, KINDS[kind]["parts"])
    module, seen = LossModule(model).train(), []
    asked = watched(model)
    for record in (RECORDS[0], RECORDS[TEXT], RECORDS[2]):
        asked.clear()
        module.zero_grad()
        batch = t.batch([record])
        asked.clear()
        loss = module(batch)
        order = list(dict.fromkeys(asked))
        loss.backward()
        seen.append((order, [n for n, p in model.named_parameters() if p.grad is not None]))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) > 20
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    # of a tower, layers behind the one that is read have none, in no batch
    without = trained - set(seen[0][1])
    assert all(component_of(n) == "vision_tower" for n in without)
    assert len(without) < len(trained) / 2


@pytest.mark.works("training: QLoRA (4 bits)")
@each_family
def test_adapters_train_on_four_bits(tiny_of, name):
    pytest.importorskip("bitsandbytes")
    t = tiny_of(name)
    torch.manual_seed(0)
    model = add_lora(load(t.path, quantise="nf4").model, LoraSpec(r=2, alpha=4))
    quantised = {component_of(f"{n}.x") for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}
    assert quantised == {"language_model"}
    config = TrainConfig.parse({"model": t.path, "pool": "-", "lr": 1e-2} | KINDS["LoRA"])
    assert np.all(np.diff(steps(t, model, config, 4)) < 0)
