"""`--gpus auto`: what a machine or a cluster has decides where a run computes, wherever its config leaves that open.

A field that the config or `--set` gives is never touched; nor is a recipe's precision. What was found stands in the run's
`devices`, so that a run that goes on, wherever, is the same run.
"""

import os
from collections.abc import Callable
from typing import Any

from pydantic import Field

from ...actors.capacity import startable
from ...actors.cluster import RayConfig, ensure_ray
from ...store.config import Config
from ...store.errors import InputError

# an actor with a GPU is fed by so many loaders, a training worker by so many processes, where there are CPUs
LOADERS, LOADER_WORKERS = 6, 4
Section = dict[str, Any]


class Devices(Config):
    """What a run computes on."""

    gpus: int = Field(0, description="GPUs; 0: the CPUs.")
    cpus: int = Field(1, description="CPUs.")
    name: str = Field("", description="The GPUs' kind, where they are all of one.")
    bfloat16: bool = Field(False, description="The GPUs compute in bfloat16.")
    memory_gb: float | None = Field(None, description="A card's memory in 10^9 bytes; null: not asked.")
    asked: str = Field("auto", description="What --gpus said.")

    def __str__(self) -> str:
        if not self.gpus:
            return f"the CPU (--gpus {self.asked}" + (": no GPU was found)" if self.asked == "auto" else ")")
        kind = "bfloat16 where a config names no precision" if self.bfloat16 else "float32"
        return f"{self.gpus} × {self.name or 'GPU'} (--gpus {self.asked}), {kind}"


def find_devices(ray: RayConfig, gpus: str) -> Devices:
    """Return what there is to compute on: of the cluster that `ray` or RAY_ADDRESS names, else of this machine.

    `gpus`: "auto" takes all GPUs, or the CPU where there is none; a number takes so many.

    Raises:
        InputError: it is neither; there are fewer GPUs; or the cluster has none now, and its autoscaler may start some.
    """
    if gpus != "auto" and not gpus.isdecimal():
        raise InputError(f"--gpus {gpus}: it is auto, or a number of GPUs (0: the CPU).")
    if ray.num_gpus is not None and gpus == "auto" and not _address(ray):
        gpus = str(ray.num_gpus)
    if gpus == "0":
        return Devices(cpus=_cpus(ray), asked=gpus)
    devices = _of_cluster(ray) if _address(ray) else _of_machine(ray)
    more = [n for n in startable() or [] if n.gpus] if _address(ray) else []
    if gpus == "auto":
        if more and not devices.gpus:
            kinds = ", ".join(sorted({n.kind for n in more}))
            raise InputError(
                f"no GPU is up now, and the autoscaler may start {kinds}: say how many with --gpus (0: CPUs)."
            )
        return devices
    if int(gpus) > devices.gpus + sum(int(n.gpus) for n in more):
        raise InputError(
            f"--gpus {gpus}: there {'is' if devices.gpus == 1 else 'are'} {devices.gpus} here{_why_none(devices)}."
        )
    if not devices.gpus:  # they are still to be started
        devices = devices.model_copy(update={"name": more[0].kind, "bfloat16": True})
    return devices.model_copy(update={"gpus": int(gpus), "asked": gpus})


def place_training(own: Section, merged: Section, devices: Devices) -> Section:
    """Return a training's own fields with those of the place put in; `merged`: the same over its recipe.

    A global batch stays what it is: so many workers are taken as divide it into micro-batches.
    """
    if not devices.gpus:
        back = {"use_gpu": False, "workers": 1} if devices.asked == "0" and merged.get("use_gpu") else {}
        return back | own
    if own.get("use_gpu") is False:
        return own
    added: Section = {"use_gpu": True, "workers": _workers(merged, devices.gpus)}
    workers = own.get("workers", added["workers"])
    if "loader_workers" not in merged and isinstance(workers, int) and workers > 0:
        added["loader_workers"] = max(0, min(LOADER_WORKERS, devices.cpus // workers - 2))
    if "precision" not in merged and devices.bfloat16 and merged.get("zero_stage") != 0:
        added["precision"] = "bfloat16"
    return added | own


def place_actors(own: Section, devices: Devices) -> Section:
    """Return `actors` with a GPU for each, and loaders to feed it."""
    if not devices.gpus or "gpus_per_actor" in own:
        return own
    spare = devices.cpus - devices.gpus
    return {"actors": devices.gpus, "gpus_per_actor": 1, "loaders": max(0, min(LOADERS * devices.gpus, spare))} | own


def place_precision(own: Section, devices: Devices) -> Section:
    """Return the fields of what computes on a GPU with the precision that the card is made for."""
    return {"precision": "bfloat16"} | own if devices.bfloat16 else own


def place_evaluation(own: Section, devices: Devices, actors: int) -> Section:
    """Return an evaluation's fields with `actors` of a GPU each."""
    if not devices.gpus or "gpus_per_actor" in own:
        return own
    return place_precision({"actors": actors, "gpus_per_actor": 1} | own, devices)


def place_run(values: Section, devices: Devices, merge: Callable[[Section, str], Section]) -> Section:
    """Return a run's plain values with all that computes on these devices; what is no mapping is left to be refused.

    `merge` puts a section over its recipe. Trials share the devices: as many run at a time as there are workers for.
    """
    placed = values | {"devices": devices.model_dump()}
    if isinstance(placed.get("proxy"), dict):
        placed["proxy"] = place_training(placed["proxy"], merge(placed["proxy"], "proxy"), devices)
    if isinstance(placed.get("warmup"), list):
        placed["warmup"] = [_stage(stage, devices, merge) for stage in placed["warmup"]]
    if isinstance(placed.get("finetune"), dict):
        placed["finetune"] = _finetune(placed["finetune"], devices, merge)
    if not devices.gpus:
        return placed
    if isinstance(placed.get("actors", {}), dict):
        placed["actors"] = place_actors(placed.get("actors", {}), devices)
        if placed["actors"].get("gpus_per_actor") and isinstance(placed.get("features"), list):
            placed["features"] = [place_precision(f, devices) if isinstance(f, dict) else f for f in placed["features"]]
    share = _share(placed.get("finetune"), devices)
    if isinstance(placed.get("sweep", {}), dict):
        placed["sweep"] = {"concurrent": max(1, devices.gpus // share)} | placed.get("sweep", {})
    if isinstance(placed.get("evaluate", {}), dict):
        placed["evaluate"] = place_evaluation(placed.get("evaluate", {}), devices, share)
    if isinstance(placed.get("plan", {}), dict) and devices.memory_gb is not None:
        placed["plan"] = {"gpu_memory_gb": devices.memory_gb} | placed.get("plan", {})
    return placed


def _stage(stage: Any, devices: Devices, merge: Callable[[Section, str], Section]) -> Any:
    if not isinstance(stage, dict) or not isinstance(stage.get("train", {}), dict):
        return stage
    own = stage.get("train", {})
    return stage | {"train": place_training(own, merge(own, f"warmup.{stage.get('name')}"), devices)}


def _finetune(section: Section, devices: Devices, merge: Callable[[Section, str], Section]) -> Section:
    variants = section.get("variants")
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        return place_training(section, merge(section, "finetune"), devices)
    common = {k: v for k, v in section.items() if k != "variants"}
    placed = {}
    for name, own in variants.items():
        whole = merge(common | own, f"finetune.variants.{name}")
        both = place_training(common | own, whole, devices)
        placed[name] = own | {k: v for k, v in both.items() if k not in common and k not in own}
    return common | {"variants": placed}


def _share(finetune: Any, devices: Devices) -> int:
    """Return how many GPUs a trial takes: the largest number of workers of its fine-tunes."""
    sections = finetune.get("variants", {"": finetune}).values() if isinstance(finetune, dict) else []
    counts = [s.get("workers", finetune.get("workers", 1)) for s in sections if isinstance(s, dict)]
    return max([1, *(min(c, devices.gpus) for c in counts if isinstance(c, int))])


def _workers(merged: Section, gpus: int) -> int:
    """Return the most workers that divide the global batch into whole micro-batches."""
    from ...train.config import TrainConfig

    fields = TrainConfig.model_fields
    whole, micro = (merged.get(n, fields[n].default) for n in ("global_batch", "micro_batch"))
    if not isinstance(whole, int) or not isinstance(micro, int) or micro < 1:
        return 1
    return max([1, *(n for n in range(1, gpus + 1) if whole % (micro * n) == 0)])


def _address(ray: RayConfig) -> str | None:
    return ray.address or os.environ.get("RAY_ADDRESS")


def _cpus(ray: RayConfig) -> int:
    return ray.num_cpus or len(os.sched_getaffinity(0))


def _of_machine(ray: RayConfig) -> Devices:
    import torch

    if not torch.cuda.is_available():
        return Devices(cpus=_cpus(ray))
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return Devices(
        gpus=len(cards),
        cpus=_cpus(ray),
        name=" or ".join(sorted({c.name for c in cards})),
        bfloat16=torch.cuda.is_bf16_supported(including_emulation=False),
        memory_gb=round(min(c.total_memory for c in cards) / 1e9, 1),
    )


def _of_cluster(config: RayConfig) -> Devices:
    import ray

    ensure_ray(config)
    resources = ray.cluster_resources()
    kinds = sorted(name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:"))
    gpus = int(resources.get("GPU", 0))
    return Devices(
        gpus=gpus, cpus=int(resources.get("CPU", 1)), name=" or ".join(kinds) if gpus else "", bfloat16=gpus > 0
    )


def _why_none(devices: Devices) -> str:
    return "" if devices.gpus else " (PyTorch sees no CUDA device, or the cluster has none)"
