"""`vinnow demo`: the whole machine, small, on real embedded data."""

import os
from typing import Any

from ...store.errors import VinnowError
from ...store.tables import REFUSED, read_rows
from ..config import RunConfig, apply_set, read_yaml, resolve
from ..progress import console
from ..whole import whole_run
from .easy_vqa import DemoData, DemoDataConfig, build


def run_demo(out: str, sets: list[str], gpu: bool = False) -> str:
    """Build the data, run every stage, check that exactly the planted damage was refused; return the report's path.

    `--set data.…` reaches the data (`data.pictures=1000`), everything else the run. `gpu`: every stage that computes runs
    on one GPU; recipe, batches and seeds stay.
    """
    values = read_yaml("demo")
    if gpu:
        values = on_a_gpu(values)
    for entry in sets:
        apply_set(values, entry)
    data_config = DemoDataConfig.parse(values.pop("data", {}), "data")
    data = build(os.path.join(out, "data"), data_config)
    config = demo_config(out, values, data)
    path = whole_run(config)
    check_damage(out, data)
    console.print(f"report: [bold]{path}[/]")
    return str(path)


def on_a_gpu(values: dict[str, Any]) -> dict[str, Any]:
    """Return a run's plain values with one GPU for whatever computes: one worker, one actor, one trial at a time.

    A step's loss does not depend on the number of workers, so the recipe's global batches stay as they are.
    """
    alone = {"use_gpu": True, "workers": 1}
    return values | {
        "warmup": [stage | {"train": stage["train"] | alone} for stage in values["warmup"]],
        "proxy": values["proxy"] | alone,
        "finetune": values["finetune"] | alone,
        "actors": values["actors"] | {"actors": 1, "gpus_per_actor": 1},
        "evaluate": values["evaluate"] | {"gpus_per_actor": 1},
        "sweep": values["sweep"] | {"concurrent": 1},
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
    found = sorted(zip(table["row"].to_pylist(), table["reason"].to_pylist(), strict=True))
    if found != sorted(tuple(p) for p in data.planted):
        raise VinnowError(f"refused rows {found} are not the planted ones {sorted(data.planted)}.")
