"""`vinnow demo`: the whole machine, small, on real embedded data."""

import os
from typing import Any

from ...store.claim import claim
from ...store.errors import InputError, VinnowError
from ...store.tables import REFUSED, read_rows
from ..progress import console, show
from ..runs.begin import devices_of
from ..runs.config import RunConfig, apply_set, read_yaml, resolve
from ..runs.placing import place_run
from ..runs.run import run_stages
from .easy_vqa import DemoData, DemoDataConfig, build


def run_demo(out: str, sets: list[str], gpus: str = "auto", recipe: str = "demo") -> str:
    """Build the data, run every stage, check that exactly the planted damage was refused; return the report's path.

    `--set data.…` reaches the data (`data.pictures=1000`), everything else the run. `gpus`: as for every run
    (`placing.find_devices`); recipe, batches, seeds and precision stay. `recipe`: what is run, by name or path.

    Raises:
        InputError: as `placing.find_devices`; the recipe is none of the demo's.
    """
    values = read_yaml(recipe)
    if absent := [n for n in ("ray", "warmup", "proxy", "finetune", "evaluate", "features") if n not in values]:
        raise InputError(
            f"{recipe!r} is no recipe of the demo: it has no {absent[0]!r}. See pipelines/recipes/demo.yaml."
        )
    for entry in sets:
        apply_set(values, entry)
    devices = devices_of(values | {"out": out}, gpus)
    if devices.gpus:
        values = place_run(left_open(values), devices, lambda section, _: section)
        for entry in sets:  # once more: a place that is asked for is no open one
            apply_set(values, entry)
    else:
        values["devices"] = devices.model_dump()
    data_config = DemoDataConfig.parse(values.pop("data", {}), "data")
    with claim(out, "run", r"run\.json"):
        data = build(os.path.join(out, "data"), data_config)
        config = demo_config(out, values, data)
        if not (config.ray.dashboard or config.ray.address or os.environ.get("RAY_ADDRESS")):
            said = "without Ray's dashboard, whose start takes long on few cores (--set ray.dashboard=true)"
            console.print(said, markup=False, soft_wrap=True)
        path = run_stages(config)
    check_damage(out, data)
    show(f"report: {path}")
    return str(path)


def left_open(values: dict[str, Any]) -> dict[str, Any]:
    """Return the demo's values without its places on a CPU of two cores: `--gpus` fills them.

    Its recipe, batches, seeds and precision stay: on whatever it computes, its numbers are to be compared.
    """
    exact = {"precision": "float32"}
    own = exact | {"loader_workers": 0}  # processes that would take longer to start than these trainings to run

    def free(section: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in section.items() if k != "workers"} | own

    return {k: v for k, v in values.items() if k not in ("actors", "sweep")} | {
        "ray": {k: v for k, v in values["ray"].items() if k != "dashboard"},
        "warmup": [stage | {"train": free(stage["train"])} for stage in values["warmup"]],
        "proxy": free(values["proxy"]),
        "features": [f | exact for f in values["features"]],
        "finetune": free(values["finetune"]),
        "evaluate": values["evaluate"] | exact,
    }


def demo_config(out: str, values: dict, data: DemoData) -> RunConfig:
    """Fill the demo's sources into its recipe."""
    for name, source in (
        ("pool", data.train),
        ("captions", data.captions),
        ("target", data.target),
        ("test", data.test),
    ):
        values[name] = values[name] | {"source": source, "image_root": data.images}
    return resolve(values | {"out": out})


def check_damage(out: str, data: DemoData) -> None:
    """Hold the ingest to the damage that was planted: these rows refused with these reasons, and no others.

    Raises:
        VinnowError: something else was refused, or let through.
    """
    table = read_rows(os.path.join(out, "pool", "refused.parquet"), REFUSED)
    refused = sorted(zip(table["row"].to_pylist(), table["reason"].to_pylist(), strict=True))
    if refused != sorted(tuple(p) for p in data.planted):
        raise VinnowError(f"refused rows {refused} are not the planted ones {sorted(data.planted)}.")
