"""The demo on a GPU: every section that computes goes there, and nothing that decides the numbers changes."""

import copy

from vinnow.pipelines.demo.run import left_open
from vinnow.pipelines.runs.config import read_yaml, resolve
from vinnow.pipelines.runs.identity import differences
from vinnow.pipelines.runs.placing import Devices, place_run

CARD = Devices(gpus=1, cpus=16, name="A Card", bfloat16=True, memory_gb=80.0)
PLACES = {"use_gpu", "workers", "loader_workers", "precision"}


def test_all_that_computes_goes_to_one_gpu_and_the_recipe_stays():
    values = {k: v for k, v in read_yaml("demo").items() if k != "data"} | {"out": "-"}
    before = copy.deepcopy(values)
    run = resolve(place_run(left_open(values), CARD, lambda section, _: section))
    assert values == before
    for section in (*(stage.train for stage in run.warmup), run.proxy, run.finetune):
        assert (section.use_gpu, section.workers, section.precision) == (True, 1, "float32")
    assert (run.actors.actors, run.actors.gpus_per_actor, run.sweep.concurrent) == (1, 1, 1)
    assert (run.evaluate.gpus_per_actor, run.evaluate.precision) == (1, "float32")
    was = resolve(before)
    changed = {line.split(":")[0] for line in differences(was.model_dump(), run.model_dump())}
    for name in changed:
        section, field = name.split(".")[0], name.split(".")[-1]
        assert section in ("devices", "actors", "sweep", "plan", "evaluate", "ray") or field in PLACES, name
    assert (was.ray.dashboard, run.ray.dashboard, run.actors.inline_parts) == (False, True, 0)
    assert {f.precision for f in run.features} == {"float32"}
    for old, new in zip(was.warmup, run.warmup, strict=True):
        before, after = old.train.model_dump(), new.train.model_dump()
        assert {k for k in before | after if before.get(k) != after.get(k)} <= PLACES
