"""Where a run begins: its config read, put on what there is to compute on, and checked; what cannot fit is said."""

import os
from typing import Any

from ...actors.capacity import Share, require
from ...actors.cluster import RayConfig
from ...models.encoding import refuse_words, unnamed_template
from ...store.errors import InputError
from ...store.files import exists, join
from ...train.config import TrainConfig
from .config import RunConfig, apply_set, read_run, resolve, saved_run
from .placing import Devices, find_devices, place_run, place_training
from .plan_shown import does_not_fit
from .prices import Prices
from .samples import look_at_pool
from .sections import where_of, with_recipe

FEWER = "Set fewer workers (a global batch may be divided by any number), or use_gpu: false."


def load_placed(path: str, sets: list[str] | None, gpus: str) -> RunConfig:
    """Read a run's config and its `--set`s, and place it. Raises: as `config.load_run` and `placing.find_devices`."""
    return placed(read_run(path), sets, gpus)


def placed(values: dict[str, Any], sets: list[str] | None, gpus: str) -> RunConfig:
    """Return the checked run of plain values, its open places filled; a run that goes on stays where it began.

    Raises:
        InputError: as `config.resolve` and `placing.find_devices`.
    """
    for entry in sets or []:
        apply_set(values, entry)
    return resolve(place_run(values, devices_of(values, gpus), _merged))


def devices_of(values: dict[str, Any], gpus: str) -> Devices:
    """Return what a run of these values computes on: with "auto" what it began on, else what is found."""
    devices = _begun(values.get("out")) if gpus == "auto" else None
    return devices or find_devices(RayConfig.parse(values.get("ray") or {}, "ray"), gpus)


def placed_training(values: dict[str, Any], own_names: set[str], devices: Devices) -> dict[str, Any]:
    """Return a training's plain values with its open places filled; `own_names`: fields of the user, not of a recipe.

    Raises:
        InputError: the recipe's template is another family's than the model's.
    """
    model, template = values.get("model"), values.get("template")
    if isinstance(model, str) and "template" not in own_names and isinstance(template, str):
        refuse_words("the recipe", template, model)
    elif isinstance(model, str) and "template" not in values:
        named = unnamed_template(model)
        values = values | ({"template": named} if named else {})
    own = {k: v for k, v in values.items() if k in own_names}
    return values | place_training(own, values, devices)


def too_large(config: TrainConfig, devices: Devices) -> list[str]:
    """Say it where a training's model and largest batch cannot fit a card: memory is a lower estimate."""
    if not config.use_gpu or devices.memory_gb is None:
        return []
    prices = Prices.of_model(config.model, {"pool": look_at_pool(config.pool)})
    need, limit = prices.training(config, "pool", 1).memory, devices.memory_gb * 1e9
    return [does_not_fit("this training", need, limit)] if need > limit else []


def require_workers(config: TrainConfig, what: str) -> None:
    """Return if the connected cluster can hold a training's workers. Raises: as `actors.capacity.require`."""
    require(what, [Share(config.workers, 1, 1 if config.use_gpu else 0)], FEWER)


def without_gpus(config: RunConfig) -> str | None:
    """Return what is wrong where a training asks for GPUs and `--gpus` found none on this machine; None where nothing is.

    A cluster is asked later, by `require_workers`: it may have been joined, or start nodes.
    """
    here = config.devices is not None and not config.devices.gpus
    if not here or config.ray.address or os.environ.get("RAY_ADDRESS"):
        return None
    sections = {f"warmup.{s.name}": s.train for s in config.warmup}
    sections |= {} if config.proxy is None else {"proxy": config.proxy}
    sections |= {where_of(name): section for name, section in config.finetune.by_name().items()}
    for where, section in sections.items():
        if section.use_gpu:
            asked = f"{section.workers} × 1 GPU"
            return f"{where} asks for {asked}, and there is none here: --gpus 0 trains on the CPU, or name a cluster."
    return None


def _begun(out: Any) -> Devices | None:
    """Return what a run in this folder began on; None where there is none, or it does not say."""
    if not isinstance(out, str) or not out or not exists(join(out, "run.json")):
        return None
    devices = saved_run(out)["config"].get("devices")
    return None if devices is None else Devices.parse(devices, "run.json: devices")


def _merged(section: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        return with_recipe(section, where)
    except InputError:  # said by `resolve`, with all else that is wrong
        return section
