"""What a run would wait for in vain: devices that its stages ask for and that are not there, seen before it begins."""

import math
import os
from collections.abc import Iterator

from ...actors.capacity import Node, Share, connected, fits, lacking, startable
from ...actors.pool import FEWER as FEWER_ACTORS
from .begin import FEWER, without_gpus
from .choices import trials
from .config import RunConfig
from .placing import find_devices
from .stage import Planned

# the stage, what asks as its message says it, what it asks for at one time, and the way out
Asked = tuple[str, str, list[Share], str]


def missing(config: RunConfig, plan: list[Planned]) -> list[str]:
    """Return what of a plan's stages, but for those done, cannot run on what is there, as the run would refuse it."""
    none = without_gpus(config)
    if none is not None:
        return [none]
    there = _there(config)
    if there is None:
        return []
    nodes, more = there
    waits = {line.within for line in plan if not line.done}
    rows = {line.stage: line.rows for line in plan}
    said = [
        lacking(what, shares, nodes, more, way_out)
        for stage, what, shares, way_out in _asked(config, rows)
        if stage in waits and not fits(shares, [*nodes, *more])
    ]
    return list(dict.fromkeys(said))


def _there(config: RunConfig) -> tuple[list[Node], list[Node]] | None:
    """Return the nodes that are there and those that may be started; None where nobody here knows."""
    if config.ray.address or os.environ.get("RAY_ADDRESS"):
        import ray

        more = startable() if ray.is_initialized() else None
        return None if more is None else (connected(), more)
    here = find_devices(config.ray.model_copy(update={"num_gpus": None}), "auto")
    gpus = here.gpus if config.ray.num_gpus is None else config.ray.num_gpus
    return [Node(here.cpus, gpus)], []


def _asked(config: RunConfig, rows: dict[str, int]) -> Iterator[Asked]:
    trainings = {f"warmup-{s.name}": s.train for s in config.warmup}
    trainings |= {} if config.proxy is None else {"proxy": config.proxy}
    for name, section in trainings.items():
        yield name, f"training {name}", [Share(section.workers, 1, float(section.use_gpu))], FEWER
    take = config.actors
    for feature in config.features:
        for folder, pool in (("features", "pool"), ("targets", "target")):
            parts = math.ceil(rows.get(f"ingest-{pool}", 0) / feature.rows_per_part)
            actors = Share(min(take.actors, parts), take.cpus_per_actor, take.gpus_per_actor)
            loaders = [Share(min(take.loaders, parts), 1)] if take.loaders else []
            yield f"{folder}-{feature.name}", f"features {feature.name}", [*loaders, actors], FEWER_ACTORS
    sections = config.finetune.by_name()
    first = {variant: name for name, (_, variant) in reversed(trials(config).items())}
    for variant, name in first.items():
        section = sections[variant]
        yield "sweep", f"trial {name}", [Share(section.workers, 1, float(section.use_gpu))], FEWER
    asked = config.evaluate
    parts = math.ceil(rows.get("ingest-test", 0) / asked.rows_per_part)
    answers = Share(min(asked.actors, parts), asked.cpus_per_actor, asked.gpus_per_actor)
    yield "sweep", "evaluate answers", [answers], FEWER_ACTORS
