"""`--gpus auto`: what is open goes where the machine can, what is given stays."""

import json

import pytest
import torch
from vinnow.actors import capacity
from vinnow.actors.cluster import RayConfig
from vinnow.pipelines.runs.begin import placed, placed_training, without_gpus
from vinnow.pipelines.runs.config import read_yaml
from vinnow.pipelines.runs.placing import Devices, find_devices, place_run
from vinnow.pipelines.runs.sections import with_recipe
from vinnow.store.errors import InputError
from vinnow.train.config import TrainConfig

NONE = Devices(cpus=2)
ONE = Devices(gpus=1, cpus=16, name="A Card", bfloat16=True, memory_gb=80.0)
FOUR = ONE.model_copy(update={"gpus": 4, "cpus": 32})
RUN = {
    "out": "-",
    "pool": {"source": "-"},
    "test": {"source": "-"},
    "model": {"twin": {}},
    "proxy": {"recipe": "llava15-lora", "checkpoint_count": 3},
    "features": [{"kind": "trajectory"}, {"kind": "loss", "precision": "float32"}],
    "selectors": [{"name": "xmas"}, {"name": "random"}],
    "budgets": ["10%"],
    "finetune": {"parts": ["projector"], "global_batch": 96, "micro_batch": 16},
}


def run_on(monkeypatch, devices, **changes):
    monkeypatch.setattr("vinnow.pipelines.runs.begin.find_devices", lambda ray, gpus: devices)
    return placed(json.loads(json.dumps(RUN | changes)), None, "auto")


def test_a_gpu_machine_uses_its_gpus(monkeypatch):
    run = run_on(monkeypatch, FOUR)
    assert run.devices == FOUR
    proxy = run.proxy
    assert (proxy.use_gpu, proxy.workers, proxy.precision, proxy.accumulation) == (True, 4, "bfloat16", 2)
    # 96 rows in micro-batches of 16: three workers divide them, four do not
    tune = run.finetune
    assert (tune.use_gpu, tune.workers, tune.precision, tune.loader_workers) == (True, 3, "bfloat16", 4)
    assert (run.actors.actors, run.actors.gpus_per_actor, run.actors.loaders) == (4, 1, 24)
    assert [f.precision for f in run.features] == ["bfloat16", "float32"]
    assert {"actors": 3, "gpus_per_actor": 1, "precision": "bfloat16"}.items() <= run.evaluate.model_dump().items()
    assert run.sweep.concurrent == 1  # trials of three GPUs each
    assert run.plan.gpu_memory_gb == 80.0
    assert "4 × A Card (--gpus auto), bfloat16" in str(run.devices)


def test_one_gpu_takes_a_recipe_of_eight(monkeypatch):
    values = read_yaml("llava15-lora", "train")
    config = TrainConfig.parse(placed_training(values | {"model": "-", "pool": "-"}, set(), ONE))
    assert (config.workers, config.use_gpu, config.global_batch, config.accumulation) == (1, True, 128, 8)
    asked = placed_training(values | {"workers": 2}, {"workers"}, ONE)
    assert asked["workers"] == 2  # refused later, where the cluster is known
    run = run_on(monkeypatch, ONE)
    assert (run.proxy.workers, run.sweep.concurrent, run.evaluate.actors) == (1, 1, 1)


def test_what_is_given_stays(monkeypatch):
    sections = {
        "finetune": RUN["finetune"] | {"use_gpu": False, "workers": 2},
        "actors": {"gpus_per_actor": 0, "actors": 2},
        "evaluate": {"gpus_per_actor": 0},
        "sweep": {"concurrent": 5},
    }
    run = run_on(monkeypatch, FOUR, **sections)
    assert {k: run.finetune.model_dump().get(k) for k in ("use_gpu", "workers", "precision")} == {
        "use_gpu": False,
        "workers": 2,
        "precision": None,
    }
    assert (run.actors.actors, run.actors.gpus_per_actor, run.sweep.concurrent) == (2, 0, 5)
    assert [f.precision for f in run.features] == ["float32", "float32"]
    assert run.evaluate.model_dump() == {"gpus_per_actor": 0}


def test_variants_are_placed_each(monkeypatch):
    both = {"parts": ["projector"], "micro_batch": 4, "variants": {"a": {"global_batch": 8}, "b": {"global_batch": 16}}}
    run = run_on(monkeypatch, FOUR, finetune=both)
    assert {n: s.workers for n, s in run.finetune.variants.items()} == {"a": 2, "b": 4}
    assert (run.sweep.concurrent, run.evaluate.actors) == (1, 4)


def test_a_machine_without_gpus_changes_nothing(monkeypatch):
    run = run_on(monkeypatch, NONE)
    plain = placed_training(RUN["finetune"], set(RUN["finetune"]), NONE)
    assert plain == RUN["finetune"] == run.finetune.model_dump()
    assert run.proxy.workers == 8  # the recipe's, and it asks for GPUs: refused where the cluster is known
    assert (without_gpus(run) or "").startswith("proxy asks for 8 × 1 GPU, and there is none here: --gpus 0 ")
    assert without_gpus(run.model_copy(update={"ray": RayConfig(address="head:1")})) is None
    cpu = NONE.model_copy(update={"asked": "0"})
    placed = place_run(json.loads(json.dumps(RUN)), cpu, with_recipe)
    assert (placed["proxy"]["use_gpu"], placed["proxy"]["workers"]) == (False, 1)  # said so, with --gpus 0


def test_a_run_goes_on_where_it_began(tmp_path, monkeypatch):
    from vinnow.pipelines.runs.opening import start

    out = {"out": str(tmp_path / "run")}
    began = run_on(monkeypatch, ONE, **out)
    start(began)
    again = run_on(monkeypatch, NONE, **out)
    assert again == began
    start(again)  # the same run


def test_where_it_runs_is_no_other_run(monkeypatch):
    exact = {"finetune": RUN["finetune"] | {"use_gpu": False}, "actors": {"gpus_per_actor": 0}, "proxy": None}
    fixed = exact | {"selectors": [{"name": "random"}], "evaluate": {"gpus_per_actor": 0}, "sweep": {"concurrent": 1}}
    fixed["features"] = []
    assert run_on(monkeypatch, NONE, **fixed).digest() == run_on(monkeypatch, FOUR, **fixed).digest()


def test_devices_are_found_and_wrong_words_refused(monkeypatch):
    ray = RayConfig()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_devices(ray, "auto").gpus == 0
    assert "no GPU was found" in str(find_devices(ray, "auto"))
    for gpus, words in (("two", "it is auto, or a number"), ("-1", "it is auto"), ("1", "there are 0 here")):
        with pytest.raises(InputError, match=words):
            find_devices(ray, gpus)
    monkeypatch.setattr("vinnow.pipelines.runs.placing._of_machine", lambda ray: FOUR)
    assert find_devices(ray, "auto") == FOUR
    assert find_devices(ray, "2").gpus == 2
    assert find_devices(RayConfig(num_gpus=1), "auto").gpus == 1
    assert find_devices(ray, "0").gpus == 0
    with pytest.raises(InputError, match="there are 4 here"):
        find_devices(ray, "8")


def test_an_autoscaler_without_a_gpu_up_is_asked_for_a_number(monkeypatch):
    monkeypatch.setattr("vinnow.pipelines.runs.placing._of_cluster", lambda ray: NONE)
    monkeypatch.setattr("vinnow.pipelines.runs.placing.startable", lambda: [capacity.Node(16, 1, "gpu_l40s")] * 2)
    ray = RayConfig(address="auto")
    with pytest.raises(InputError, match="may start gpu_l40s: say how many"):
        find_devices(ray, "auto")
    devices = find_devices(ray, "2")
    assert (devices.gpus, devices.name, devices.bfloat16) == (2, "gpu_l40s", True)
    with pytest.raises(InputError, match="--gpus 3"):
        find_devices(ray, "3")
