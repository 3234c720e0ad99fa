"""The stages of a run, in order: one list, which run, plan, status and report go through. A new stage is an entry here."""

from collections.abc import Iterator

from ...actors.kind import kind_of
from .config import POOLS, RunConfig
from .feature_stage import Features
from .ingest_stage import Ingest
from .model_stage import Twin, model_stage
from .sections import StageSection
from .select_stage import Select
from .stage import Stage
from .sweep_stage import Sweep
from .training_stage import Proxy, WarmUp


def stages_of(config: RunConfig) -> list[Stage]:
    """Return a run's stages in the order in which they run; each reads only what those before it left."""
    return list(_stages(config))


def _stages(config: RunConfig) -> Iterator[Stage]:
    for pool in POOLS:
        if getattr(config, pool) is not None:
            yield Ingest(config, pool)
    before: str | None = None
    if config.model.twin is not None:
        yield Twin(config)
        before = "twin"
    for section in config.warmup:
        stage = WarmUp(config, section, before)
        yield stage
        before = stage.name
    if config.proxy is not None:
        yield Proxy(config, StageSection(name="proxy", data="pool", train=config.proxy), before)
    for feature in config.features:
        yield Features(config, feature, "features", model_stage(config))
        if config.target is not None and kind_of(feature).of_targets:
            yield Features(config, feature, "targets", model_stage(config))
    yield Select(config)
    yield Sweep(config)
