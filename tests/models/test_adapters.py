"""PEFT's methods on the tiny model: what trains, that it trains, and that it comes back from disk. 4 bits on a CPU."""

import pytest
import torch
from batches import inputs_of, make_batch
from vinnow.models.adapters import add_adapter, target_regex
from vinnow.models.components import canonical, component_of, pick_linears, set_trainable
from vinnow.models.load import load
from vinnow.models.shape import read_shape
from vinnow.models.specs import METHODS, AdapterSpec
from vinnow.store.errors import InputError
from vinnow.train.checkpoint import _write_adapter
from vinnow.train.loss import LossModule

SMALL = {"ia3": {}, "oft": {"r": 4}, "vera": {"r": 8}}


def wrapped(tiny_model, method, **load_options):
    torch.manual_seed(0)
    model = add_adapter(
        load(tiny_model, **load_options).model, AdapterSpec(method=method, **SMALL.get(method, {"r": 4}))
    )
    model.peft_config["default"].base_model_name_or_path = tiny_model
    set_trainable(model, ["lora", "projector"])
    return model


def step(model, rate=0.05):
    batch = make_batch(model.get_base_model())
    loss = LossModule(model)(batch)
    loss.backward()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for p in named.values():
            p -= rate * p.grad.sign()
    return loss.item(), named


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_the_language_model_alone_and_comes_back(tiny_model, tmp_path, method):
    model = wrapped(tiny_model, method)
    _, named = step(model)
    added = [n for n in named if component_of(n) == "lora"]
    assert added
    spec = AdapterSpec(method=method, **SMALL.get(method, {"r": 4}))
    blocks = [d for d in read_shape(tiny_model).linears if d.place == "language_model"]
    blocks = [(d.name.rsplit(".", 1)[-1], d.outputs, d.inputs) for d in blocks]
    assert spec.parameters(blocks) == sum(named[n].numel() for n in added)
    assert all(".language_model.layers." in n for n in added)
    assert any(named[n].grad.abs().max() > 0 for n in added)
    # what the wrapper reached is the decoder's Linears, and all else is the base's own
    plain = dict(load(tiny_model).model.named_parameters())
    mine = {canonical(n): p for n, p in model.named_parameters() if component_of(n) not in ("lora", "projector")}
    assert all(torch.equal(p, plain[n]) for n, p in mine.items())
    _write_adapter(model.eval(), str(tmp_path), None)
    again, batch = load(str(tmp_path)).model, make_batch(model.get_base_model())
    inputs = inputs_of(batch, "input_ids", "attention_mask")
    with torch.no_grad():
        assert torch.allclose(again(**inputs).logits, model(**inputs).logits, atol=1e-5)
        assert not torch.allclose(again(**inputs).logits, load(tiny_model).model(**inputs).logits, atol=1e-3)


def test_constants_are_the_published_ones():
    assert AdapterSpec().numbers() == (128, 256, 0.05)
    assert AdapterSpec(method="oft").numbers() == (16, None, 0.0)
    assert AdapterSpec(method="dora", r=8).numbers() == (8, 256, 0.05)


def test_no_target_reaches_tower_projector_or_head(tiny_model):
    import re

    model = load(tiny_model).model
    leaves = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    pattern = re.compile(target_regex(sorted(leaves), "language_model"))
    reached = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and pattern.fullmatch(n)}
    assert reached == {n for n in dict(model.named_modules()) if re.search(r"language_model.*_proj$", n)}
    assert len(reached) == 14


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "adapter"}, "method"),
        ({"method": "ia3", "r": 4}, "ia3 has no r"),
        ({"method": "oft", "alpha": 4}, "oft has no alpha"),
        ({"targets": ["vision_tower.*"]}, "names of Linears"),
    ],
)
def test_bad_specs_are_said(values, words):
    with pytest.raises(InputError, match=words):
        AdapterSpec.parse(values)


@pytest.mark.refuses(
    "gradients of DoRA's adapters (their products are no plain Linears), and adapters on Linears that a decoder lacks"
)
def test_what_a_model_lacks_is_said(tiny_model):
    with pytest.raises(InputError, match="the decoder's layers have"):
        add_adapter(load(tiny_model).model, AdapterSpec(targets=["q_proj", "fc1"]))
    with pytest.raises(InputError, match="this is DoRA"):
        pick_linears(wrapped(tiny_model, "dora"), "projector+lora")
    with pytest.raises(InputError, match="unknown quantise"):
        load(tiny_model, quantise="int4")


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_four_bits_hold_the_language_model_alone_and_adapters_train_on_it(tiny_model, tmp_path, method):
    pytest.importorskip("bitsandbytes")
    model = wrapped(tiny_model, method, quantise="nf4")
    quantised = {canonical(n) for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}
    plain = load(tiny_model).model
    assert quantised == {
        n for n, m in plain.named_modules() if "language_model" in n and isinstance(m, torch.nn.Linear)
    }
    losses = [step(model, 1e-2)[0] for _ in range(4) if model.zero_grad() is None]
    assert losses[-1] < losses[0]
    _write_adapter(model, str(tmp_path), None)
    assert type(load(str(tmp_path)).model).__name__.startswith("Peft")
