"""What the stages of a run held: GPU-hours and CPU-hours, of seconds that it recorded and devices that its config names.

The processes of ingest and select are not counted: Ray gives them nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ...actors.config import ActorResources
from ...evaluate.config import EvalConfig
from ...store.manifest import StageRecord
from ...train.config import TrainConfig
from ..config import finetunes


@dataclass(frozen=True)
class Held:
    """Devices × hours of a stage, or devices alone; `cpu` are the cores that Ray kept for it."""

    gpu: float
    cpu: float

    def times(self, factor: float) -> "Held":
        """Return `factor` as much."""
        return Held(self.gpu * factor, self.cpu * factor)

    @staticmethod
    def total(parts: "Iterable[Held]") -> "Held":
        """Add up."""
        known = list(parts)
        return Held(sum(h.gpu for h in known), sum(h.cpu for h in known))


def held(config: dict[str, Any], record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
    """Return what a stage held, in hours; None for one that Ray gave nothing. `results`: the sweep's trials."""
    kind, _, name = record.name.partition("-")
    if kind == "sweep":
        return Held.total(_trial(config, r) for r in results)
    if kind in ("features", "targets"):
        devices = _actors(config.get("actors") or {}, ActorResources)
    elif kind == "proxy":
        devices = _workers(config["proxy"])
    elif kind == "warmup":
        devices = _workers({s["name"]: s["train"] for s in config["warmup"]}[name])
    else:
        return None
    return devices.times(record.seconds / 3600)


def _trial(config: dict[str, Any], result: dict[str, Any]) -> Held:
    training = _workers(finetunes(config["finetune"])[result.get("variant") or ""])
    answering = _actors(config.get("evaluate") or {}, EvalConfig)
    hours = result["train_seconds"] / 3600, result.get("eval_seconds", 0.0) / 3600
    return Held.total([training.times(hours[0]), answering.times(hours[1])])


def _workers(section: dict[str, Any]) -> Held:
    workers = float(_field(section, TrainConfig, "workers"))
    return Held(workers if _field(section, TrainConfig, "use_gpu") else 0.0, workers)


def _actors(section: dict[str, Any], kind: type[BaseModel]) -> Held:
    each = Held(_field(section, kind, "gpus_per_actor"), _field(section, kind, "cpus_per_actor"))
    found = each.times(_field(section, kind, "actors"))
    # what prepares batches beside the actors; an evaluation has none
    return Held(found.gpu, found.cpu + section.get("loaders", 0))


def _field(section: dict[str, Any], kind: type[BaseModel], name: str) -> Any:
    """Return a field of a plain section, or its default: a run of another version is still told of."""
    return section.get(name, kind.model_fields[name].default)
