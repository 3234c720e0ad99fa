"""What is put onto every family's tiny model: PEFT's methods by their default targets, and MoReS."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from tinies import RECORDS, TEXT, Wide, each_family
from vinnow.models.adapters import add_adapter
from vinnow.models.components import base_of, canonical, component_of, set_trainable
from vinnow.models.cost import RowSize, forward_flop, gradient_flop, training_flop_per_row, trajectory_flop
from vinnow.models.load import load, model_digest
from vinnow.models.mores import add_mores
from vinnow.models.mores_files import save_mores
from vinnow.models.products import LINEARS
from vinnow.models.shape import read_shape
from vinnow.models.specs import DEFAULT_TARGETS, METHODS, AdapterSpec, MoresSpec
from vinnow.models.taps.forward import LossTap
from vinnow.train.checkpoint import _write_adapter
from vinnow.train.config import TrainConfig
from vinnow.train.loss import LossModule
from vinnow.train.optimizer import make_optimizer

SMALL = {"ia3": {}, "oft": {"r": 4}, "vera": {"r": 8}}


def spec_of(method):
    return AdapterSpec(method=method, **SMALL.get(method, {"r": 2}))


def decoder_linears(model, name_of_decoder):
    named = model.named_modules()
    return {n for n, m in named if isinstance(m, torch.nn.Linear) and f"{name_of_decoder}.layers." in n}


@pytest.mark.works("adapters: LoRA, DoRA, IA3, OFT, VeRA, LoHa, LoKr")
@each_family
@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_onto_the_decoder_trains_and_is_peft_s_own(tiny_of, tmp_path, name, method):
    t = tiny_of(name)
    torch.manual_seed(0)
    plain = t.copy()
    linears = decoder_linears(plain, t.family.decoder_name)
    if method in DEFAULT_TARGETS:
        linears = {n for n in linears if n.rsplit(".", 1)[-1] in DEFAULT_TARGETS[method]}
    model = add_adapter(plain, spec_of(method))
    model.peft_config["default"].base_model_name_or_path = t.path
    set_trainable(model, ["lora"])
    added = [n for n, p in model.named_parameters() if p.requires_grad]
    reached = {n for n in linears if any(canonical(a).startswith(f"{n}.") for a in added)}
    assert reached == linears
    assert all(any(canonical(a).startswith(f"{n}.") for n in linears) for a in added)
    LossModule(model).train()(t.batch()).backward()
    with torch.no_grad():
        for n in added:
            p = model.get_parameter(n)
            p -= 0.05 * p.grad.sign()
    _write_adapter(model.eval(), str(tmp_path), None)
    asked = t.theirs(RECORDS[0], model)
    with torch.no_grad():
        mine, before = model(**asked).logits, t.copy()(**asked).logits
        theirs = PeftModel.from_pretrained(t.copy(), tmp_path).eval()(**asked).logits
    assert torch.allclose(theirs, mine, atol=1e-5)
    assert not torch.allclose(before, mine, atol=1e-3)


def steered_by_hand(t, model):
    """A plain model with MoReS's equation at the first and last two of a row's image tokens behind each layer.

    Returns what gives one record's loss.
    """
    mores, plain, places = base_of(model).mores, t.copy("float64"), []

    def steered(number):
        part = mores.layers[str(number)]
        columns, triangle = torch.linalg.qr(part.rotate)
        columns = columns * torch.where(triangle.diagonal() < 0, -1.0, 1.0)

        def hook(module, args, out):
            hidden = (out if isinstance(out, torch.Tensor) else out[0]).clone()
            for place in places:
                h = hidden[0, place]
                hidden[0, place] = h + columns @ (part.source.weight @ h + part.source.bias - columns.T @ h)
            return hidden if isinstance(out, torch.Tensor) else (hidden, *out[1:])

        return hook

    for number, layer in enumerate(t.family.decoder(plain).layers):
        layer.register_forward_hook(steered(number))

    def loss(record):
        asked = t.theirs(record, plain)
        image = t.family.image_mask(plain.config, asked["input_ids"])[0].nonzero()[:, 0].tolist()
        places[:] = sorted({*image[:2], *image[-2:]})
        return plain(**asked).loss.item()

    return loss


@pytest.mark.works("MoReS: steers, trains, saves and loads")
@each_family
def test_mores_steers_trains_and_comes_back(tiny_of, tmp_path, name):
    t = tiny_of(name)
    torch.manual_seed(0)
    model = t.copy("float64")
    mores = add_mores(model, MoresSpec.parse({"rank": 3, "positions": "f2+l2", "dropout": 0.0}))
    mores.base = t.path
    with torch.no_grad(), Wide():
        for p in mores.parameters():
            p.copy_(torch.randn_like(p))
        losses = LossTap(model)(t.batch())[:, 0]
        assert losses == pytest.approx(np.array([*map(steered_by_hand(t, model), RECORDS)]), rel=1e-9)
        plain = LossTap(t.model)(t.batch())[:, 0]
    assert losses[TEXT] == pytest.approx(plain[TEXT], rel=1e-9)
    assert all(abs(losses - plain)[[0, 2, 3]] > 1e-6)
    parts = set_trainable(model, ["mores", "projector"])
    config = TrainConfig.parse({"model": t.path, "pool": "-", "lr": 1e-2, "parts": ["mores", "projector"], "mores": {}})
    module = LossModule(model).train()
    optimizer, falling = make_optimizer(list(module.named_parameters()), config), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = module(t.batch())
        loss.backward()
        optimizer.step()
        falling.append(float(loss))
    assert falling[2] < falling[1] < falling[0]
    assert {component_of(n) for n in parts} == {"mores", "projector"}
    save_mores(model.eval(), str(tmp_path), model_digest(t.path), "non_lora.safetensors")
    t.loaded.processor.save_pretrained(tmp_path)
    again = load(str(tmp_path), "float64").model
    assert again.mores.numbers == mores.numbers
    assert (LossTap(again)(t.batch()) == LossTap(model)(t.batch())).all()


@pytest.mark.works("vinnow plan: a price without weights")
@each_family
def test_a_price_needs_no_weights(tiny_of, tmp_path, name, monkeypatch):
    t = tiny_of(name)
    # a usual picture has thousands of a tiny tower's patches; such a config's price is kept for nobody else
    for module in [m for n, m in sys.modules.items() if n.startswith("vinnow.models.family.") and hasattr(m, "USUAL")]:
        monkeypatch.setattr(module, "USUAL", (64, 48))
    config = json.loads(Path(t.path, "config.json").read_text()) | {"of_a_test": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = read_shape(str(tmp_path))
    counts: dict[str, int] = {}
    for n, p in t.model.named_parameters():
        counts[component_of(n)] = counts.get(component_of(n), 0) + p.numel()
    assert shape.parameters() == counts
    linears = {n: (m.out_features, m.in_features) for n, m in t.model.named_modules() if isinstance(m, LINEARS)}
    assert {d.name: (d.outputs, d.inputs) for d in shape.linears} == linears
    assert shape.image_tokens > 0
    row = RowSize(tokens=80.0, squares=7000.0, labels=9.0, images=1.0, shown=20.0)
    forward = forward_flop(shape, row)
    assert all(v > 0 for v in forward.items.values())
    assert {"vision fwd", "linears fwd", "attention fwd", "lm_head fwd"} <= forward.items.keys()
    for cost in (
        gradient_flop(shape, row, "projector"),
        gradient_flop(shape.with_lora(4), row, "lora"),
        training_flop_per_row(shape, row, ["vision_tower", "projector", "language_model"]),
    ):
        assert cost.total > forward.total
    assert trajectory_flop(shape, row).items["trajectory"] > 0
    model = add_adapter(t.copy(), AdapterSpec(r=4))
    added = sum(p.numel() for n, p in model.named_parameters() if component_of(n) == "lora")
    assert shape.with_lora(4).parameters()["lora"] == added
