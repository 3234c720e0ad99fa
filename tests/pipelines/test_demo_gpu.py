"""The demo on a GPU: every section that computes goes there, and nothing that decides the numbers changes."""

import copy

import pytest
import torch
from vinnow.pipelines.config import read_yaml, resolve
from vinnow.pipelines.demo.run import find_gpu, on_a_gpu
from vinnow.pipelines.flows import differences
from vinnow.store.errors import InputError


def test_all_that_computes_goes_to_one_gpu_and_the_recipe_stays():
    values = {k: v for k, v in read_yaml("demo").items() if k != "data"} | {"out": "-"}
    before = copy.deepcopy(values)
    run = resolve(on_a_gpu(values))
    assert values == before
    for section in (*(stage.train for stage in run.warmup), run.proxy, run.finetune):
        assert section["use_gpu"] is True
        assert section["workers"] == 1
    changed = differences(resolve(before).model_dump(), run.model_dump())
    places = {line.split(":")[0] for line in changed}
    sections = ("finetune.use_gpu", "finetune.workers", "proxy.use_gpu", "proxy.workers")
    assert places - {"warmup"} <= {
        *sections,
        "actors.actors",
        "actors.gpus_per_actor",
        "evaluate.gpus_per_actor",
        "sweep.concurrent",
    }
    for was, now in zip(before["warmup"], run.warmup, strict=True):
        assert now.train == was["train"] | {"use_gpu": True, "workers": 1}


def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_what_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_gpu("auto") is None
    assert find_gpu("0") is None
    with pytest.raises(InputError, match="no CUDA device"):
        find_gpu("1")
    with pytest.raises(InputError, match="auto, 0"):
        find_gpu("two")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert (find_gpu("auto"), find_gpu("1"), find_gpu("0")) == ("a card", "a card", None)
