"""LLaVA's projector files in and out, and whole models out of adapters."""

import sys

import pytest
import torch
from batches import inputs_of, make_batch
from transformers import LlavaForConditionalGeneration
from vinnow.models.adapters import add_adapter
from vinnow.models.components import set_trainable
from vinnow.models.family.of_llava.files import put_projector, read_projector, write_projector
from vinnow.models.load import load, load_processor, model_digest
from vinnow.models.merge import merge
from vinnow.models.mores import add_mores
from vinnow.models.mores_files import save_mores
from vinnow.models.specs import AdapterSpec, MoresSpec
from vinnow.pipelines.cli import main as cli
from vinnow.store.errors import InputError
from vinnow.train.checkpoint import _write_adapter


def shaken(model):
    """The model with every trained parameter moved."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def logits(model):
    batch = make_batch(model.get_base_model() if hasattr(model, "get_base_model") else model)
    with torch.no_grad():
        return model(**inputs_of(batch, "input_ids", "attention_mask")).logits


@pytest.mark.parametrize(
    ("file", "front"), [("mm_projector.bin", "model."), ("non_lora_trainables.bin", "base_model.model.model.")]
)
def test_a_projector_goes_out_and_comes_back(tiny_model, tmp_path, file, front):
    model = load(tiny_model).model
    set_trainable(model, ["projector"])
    write_projector(shaken(model), tmp_path / file)
    state = torch.load(tmp_path / file, weights_only=True)
    assert list(state) == [f"{front}mm_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]
    assert torch.equal(state[f"{front}mm_projector.2.weight"], model.model.multi_modal_projector.linear_2.weight)
    other = load(tiny_model).model
    put_projector(other, tmp_path / file)
    assert torch.equal(logits(other), logits(model))


def test_files_that_do_not_fit_are_refused(tiny_model, tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_projector(tmp_path / "none.bin")
    (tmp_path / "text.bin").write_text("no tensors")
    with pytest.raises(InputError, match=r"no file of torch\.save"):
        read_projector(tmp_path / "text.bin")
    torch.save({"model.mm_projector.query": torch.zeros(2, 2)}, tmp_path / "queries.bin")
    with pytest.raises(InputError, match=r"no part of a projector of Linears .*a checkpoint of other parts"):
        read_projector(tmp_path / "queries.bin")
    torch.save({"model.mm_projector.1.weight": torch.zeros(2, 2)}, tmp_path / "odd.bin")
    with pytest.raises(InputError, match=r"mm_projector\.1\.weight"):
        read_projector(tmp_path / "odd.bin")
    torch.save({"model.mm_projector.0.weight": torch.zeros(2, 2)}, tmp_path / "small.bin")
    with pytest.raises(
        InputError,
        match=r"the projector in .* does not fit.*Missing tensors: linear_1\.bias.*shape: linear_1\.weight \[2, 2\] for",
    ):
        put_projector(load(tiny_model).model, tmp_path / "small.bin")

    class Trap:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"model.mm_projector.0.weight": Trap()}, tmp_path / "trap.bin")
    with pytest.raises(InputError, match="which loading would run"):
        read_projector(tmp_path / "trap.bin")


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "oft"])
def test_a_merged_adapter_is_a_plain_model_that_says_the_same(tiny_model, tmp_path, method):
    numbers = {} if method == "ia3" else {"r": 4}
    model = add_adapter(load(tiny_model).model, AdapterSpec(method=method, **numbers))
    model.peft_config["default"].base_model_name_or_path = tiny_model
    set_trainable(model, ["lora", "projector"])
    shaken(model)
    (tmp_path / "adapter").mkdir()
    _write_adapter(model, str(tmp_path / "adapter"), None)
    whole = LlavaForConditionalGeneration.from_pretrained(merge(str(tmp_path / "adapter"), str(tmp_path / "whole")))
    assert torch.allclose(logits(whole.eval()), logits(model), atol=1e-4)
    assert load(str(tmp_path / "whole")).processor.image_token == "<image>"
    with pytest.raises(InputError, match="is there already"):
        merge(str(tmp_path / "adapter"), str(tmp_path / "whole"))


def test_the_commands_write_and_refuse(tiny_model, tmp_path, monkeypatch, capsys):
    def vinnow(*words):
        monkeypatch.setattr(sys, "argv", ["vinnow", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, " ".join(capsys.readouterr().err.split())

    model = load(tiny_model).model
    set_trainable(model, ["projector"])
    write_projector(shaken(model), tmp_path / "mm_projector.bin")
    whole, file = str(tmp_path / "whole"), str(tmp_path / "again.bin")
    assert vinnow("merge", tiny_model, "--projector", str(tmp_path / "mm_projector.bin"), "--out", whole)[0] == 0
    assert vinnow("export-projector", whole, "--out", file)[0] == 0
    before, after = read_projector(tmp_path / "mm_projector.bin"), read_projector(file)
    assert all(torch.equal(before[n], after[n]) for n in before)
    code, said = vinnow("merge", tiny_model, "--out", str(tmp_path / "x"))
    assert (code, "whole model already" in said) == (2, True)
    (tmp_path / "mores").mkdir()
    add_mores(model, MoresSpec(rank=1)).base = tiny_model
    save_mores(model, str(tmp_path / "mores"), model_digest(tiny_model), "non_lora.safetensors")
    load_processor(tiny_model).save_pretrained(str(tmp_path / "mores"))
    code, said = vinnow("merge", str(tmp_path / "mores"), "--out", str(tmp_path / "x"))
    assert (code, "cannot be merged: it edits hidden states" in said) == (2, True)
