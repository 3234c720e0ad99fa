"""From which fields of a config the numbers of a stage follow. All others say where and how fast it runs, and are free.

A field that is named nowhere here counts: a new one is safe, until somebody says that it is free.
"""

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from ...evaluate.config import JOB as EVALUATION
from ...evaluate.config import EvalRecipe
from ...store.manifest import StageRecord
from ...store.reading import parse_json
from ...train.config import JOB as TRAINING
from ...train.config import ORDER, TrainConfig
from ...train.recipe import FREE, TrainRecipe
from .config import PLACES

# free fields by what has them; the rooms' own docstrings say that they change nothing
POOL_FREE = ("strict", "max_refused", "threads", "workers")
FEATURE_FREE = ("token_budget", "max_rows", "checkpoints_per_pass", "max_part_retries", *PLACES)
TRAIN_FREE = (*FREE, *PLACES)
EVAL_FREE = ("token_budget", "max_rows", "actors", "cpus_per_actor", "gpus_per_actor", "threads", *PLACES)
# whole sections of a run that are
RUN_FREE = ("out", "ray", "actors", "plan", "devices", "held_out")


def pace_of(config: TrainRecipe) -> tuple[str, ...]:
    """Return the fields that say on how much a training runs, which it may not change while it is under way.

    A step's gradient does not depend on them, unless every micro-batch has a mean of its own.
    """
    return ("use_gpu",) if config.loss_mean == "micro_batch" else ("use_gpu", "workers", "micro_batch")


def how_trained(config: TrainRecipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields from which a training's numbers follow, and those of its pace."""
    tree, pace = without(config, *TRAINING, *TRAIN_FREE), pace_of(config)
    return {k: v for k, v in tree.items() if k not in pace}, {k: tree[k] for k in pace}


def how_asked(config: EvalRecipe) -> dict[str, Any]:
    """Return the fields from which answers and scores follow, and how their parts are cut."""
    return without(config, *EVALUATION, *EVAL_FREE)


def recipe_json(config: TrainConfig) -> str:
    """Return how a training is done as the JSON that its trial's digest holds: fields in the order that they always had."""
    tree = config.model_dump(mode="json", exclude={"model", "pool", "picks", *PLACES})
    return to_json({n: tree[n] for n in (*ORDER, *sorted(tree.keys() - set(ORDER))) if n in tree}).decode()


def without(config: BaseModel, *free: str) -> dict[str, Any]:
    """Return a config's fields as plain values, but for those that are free to change."""
    return config.model_dump(mode="json", exclude=set(free))


def kept(how: dict[str, Any], before: StageRecord | None, free: Iterable[str]) -> str:
    """Return a stage's config as JSON for its manifest; where one is there, free fields stay as they were then."""
    if before is not None and isinstance(before.inputs.get("config"), str):
        then = parse_json(before.inputs["config"], f"stage {before.name!r}")
        if isinstance(then, dict):
            how = {n: then[n] if n in free and n in then else v for n, v in how.items()}
            if how == then:  # also one that another version wrote otherwise
                return before.inputs["config"]
    return json.dumps(how, separators=(",", ":"))


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List the leaves in which two plain trees differ, as `a.b: was X, is Y`."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(set(before) | set(now))
        return [d for n in names for d in differences(before.get(n), now.get(n), f"{where}.{n}".lstrip("."))]
    if _are_sections(before) and _are_sections(now) and len(before) == len(now):
        return [d for i, pair in enumerate(zip(before, now)) for d in differences(*pair, f"{where}.{i}")]
    return [] if before == now else [f"{where}: was {before!r}, is {now!r}"]


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) for v in value)
