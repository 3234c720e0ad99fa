"""`vinnow demo`: the whole machine, small, on real embedded data."""

import os
from typing import Any

from ...store.claim import claim
from ...store.errors import InputError, VinnowError
from ...store.tables import REFUSED, read_rows
from ..config import RunConfig, apply_set, read_yaml, resolve
from ..progress import console, show
from ..whole import whole_run
from .easy_vqa import DemoData, DemoDataConfig, build


def run_demo(out: str, sets: list[str], gpus: str = "auto") -> str:
    """Build the data, run every stage, check that exactly the planted damage was refused; return the report's path.

    `--set data.…` reaches the data (`data.pictures=1000`), everything else the run. `gpus`: "1" puts every stage that
    computes on one GPU, "0" on the CPU, "auto" on a GPU where there is one; recipe, batches and seeds stay.

    Raises:
        InputError: `gpus` is something else, or a GPU that this machine does not have.
    """
    values = read_yaml("demo")
    name = find_gpu(gpus)
    console.print(f"computing on {name or 'the CPU'} (--gpus {gpus})")
    if name is not None:
        values = on_a_gpu(values)
    for entry in sets:
        apply_set(values, entry)
    data_config = DemoDataConfig.parse(values.pop("data", {}), "data")
    with claim(out, "run", r"run\.json|data"):
        data = build(os.path.join(out, "data"), data_config)
        path = whole_run(demo_config(out, values, data))
    check_damage(out, data)
    show(f"report: {path}")
    return str(path)


def find_gpu(gpus: str) -> str | None:
    """Return the name of the GPU to compute on, None for the CPU."""
    if gpus not in ("auto", "0", "1"):
        raise InputError(f"--gpus {gpus}: the demo takes auto, 0 (the CPU) or 1.")
    if gpus == "0":
        return None
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if gpus == "1":
        raise InputError("--gpus 1: PyTorch sees no CUDA device here (torch.cuda.is_available() is false).")
    return None


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
