"""Features: what is written of each row at each checkpoint, one stage for the pool and one for the target set."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ...actors.config import ActorResources, CheckpointRef, FeatureConfig
from ...actors.kind import kind_of
from ...store.files import folder_bytes, join, list_files
from ...store.manifest import StageRecord
from ..progress import bar
from .identity import FEATURE_FREE, without
from .ingest_stage import ANEW
from .stage import Held, Planned, Planning, Run, Stage, StageStatus, tell
from .training_stage import checkpoints_of

_BYTES = {"float16": 2.0, "float32": 4.0, "int8": 1.0, "bit1": 1 / 8}


@dataclass(frozen=True)
class Features(Stage):
    """One feature of a pool's rows: `folder` is "features" (of the pool) or "targets" (of the target set).

    `before`: the stage that leaves the model which the proxy began with.
    """

    config: FeatureConfig
    folder: str
    before: str | None
    choosing: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """`features-NAME` or `targets-NAME`."""
        return f"{self.folder}-{self.config.name}"

    @property
    def pool(self) -> str:
        """The pool whose rows it is of."""
        return "target" if self.folder == "targets" else "pool"

    @property
    def needs(self) -> tuple[str, ...]:
        """The models, the rows and, for a kind that aims, the targets."""
        model = "proxy" if self.run_config.proxy is not None else self.before
        pools = [self.pool, *(["target"] if kind_of(self.config).aims and self.pool != "target" else [])]
        return (*([model] if model else []), *(f"ingest-{p}" for p in pools))

    def settings(self) -> dict[str, Any]:
        """What its numbers follow from, and how its parts are cut."""
        model = {} if self.needs[0] == "proxy" or self.before else {"model.path": self.run_config.model.path}
        return {f"features.{self.config.name}": without(self.config, *FEATURE_FREE)} | model

    def estimate(self, planning: Planning) -> list[Planned]:
        """Price a pass over the rows at every checkpoint."""
        run, kind = self.run_config, kind_of(self.config)
        proxy = None if run.proxy is None else run.proxy.recipe()
        steps = [] if proxy is None else proxy.kept_checkpoints(proxy.planned_steps(planning.rows("pool")))
        points = 1 if proxy is None else len(steps)
        stored = kind.for_targets() if self.pool == "target" else self.config
        rows, dim = planning.rows(self.pool) * points, planning.prices.dim(self.config)
        line = self.line(self.name, f"{self.config.kind}, dim {dim}, {points} checkpoints", rows, self.config)
        line.bytes, line.devices = int(rows * dim * _BYTES[stored.dtype]), run.actors.actors
        each, kind_of_device = run.actors.gpus_per_actor or run.actors.cpus_per_actor, "CPU"
        if run.actors.gpus_per_actor:
            kind_of_device = "GPU"
        line.on = f"{run.actors.actors} actors × {each:g} {kind_of_device}"
        line.config["actors"] = run.actors.model_dump(mode="json")
        line.price = planning.prices.feature(self.config, self.pool, points, proxy)
        return [line]

    def stand(self, lines: list[Planned], planning: Planning) -> None:
        """Count the parts that are there, of all checkpoints."""
        for line in lines:
            rows = planning.rows(self.pool)
            of = max(1, math.ceil(rows / self.config.rows_per_part) * line.rows // max(1, rows))
            parts = list_files(join(self.run_config.out, self.folder, self.config.name), ".parquet", recursive=True)
            there = min(of - 1, sum("/step=" in p for p in parts))
            line.stands(of if self.is_done() else there, of, "parts")

    def run(self, run: Run) -> None:
        """Write it at every checkpoint that the run has."""
        self.make(run, checkpoints_of(run, self.before))

    def make(self, run: Run, checkpoints: list[CheckpointRef]) -> None:
        """Write it at these checkpoints. Raises: as `make_spec` and `run_features`."""
        from ...actors.account import shards_back
        from ...actors.cluster import ensure_ray
        from ...actors.stream import make_spec, run_features
        from .fitting import check_fit

        config, targets = self.config, self.pool == "target"
        if targets:
            config = config.model_copy(update={"image_root": config.target_image_root})
        aim = run.folder("target") if kind_of(config).aims else None
        out = run.folder(self.folder)
        spec = make_spec(run.folder(self.pool), checkpoints, config, out, targets=targets, target_pool=aim)

        def work(record: StageRecord) -> None:
            limits = (config.image_root, config.max_refused)
            check_fit(self.name, run.folder(self.pool), spec.checkpoints[0].path, config, limits)
            with bar(f"{self.folder} {config.name}", "parts") as tell_parts:
                report = run_features(spec, run.config.actors, tell_parts, lambda: ensure_ray(run.config.ray))
            record.facts.update(rows=report.rows, tokens=report.tokens, padded=report.padded)
            record.account(report.usage)
            for note in report.notes:
                tell(note)
            record.facts.update(report.extra)
            if report.ran:
                record.facts["ran"] = report.ran
            record.facts["actors"] = run.config.actors.model_dump(mode="json")
            record.facts["bytes"] = folder_bytes(join(out, config.name))

        inputs = {"keys": " ".join(k.digest() for k in spec.keys)}
        if run.manifest.changed(self.name, inputs) == [] and (back := shards_back(spec)):
            if run.manifest.read("select") is None:
                run.manifest.undo(self.name)
            else:
                tell(f"{self.name}: {len(back)} parts have rows whose pictures can be read by now. {ANEW}")
        run.stage(self.name, inputs, work)

    def progress(self, run_dir: str) -> StageStatus:
        """Count the parts that are there."""
        folder = join(run_dir, self.folder, self.config.name)
        parts = list_files(folder, ".parquet", recursive=True)
        if not parts:
            return self.begun(False, "")
        steps = {p.rsplit("/", 2)[1] for p in parts}
        said = f"{len(parts):,} parts at {len(steps)} checkpoints are there and stay"
        return StageStatus(self.name, "under way", bytes=folder_bytes(folder), detail=said)

    def held(self, record: StageRecord, results: list[dict[str, Any]]) -> Held | None:
        """Its actors and what prepares batches beside them, as long as it took."""
        then = record.facts.get("actors")  # what they were when it ran, if the manifest says
        own = self.run_config.actors if then is None else ActorResources.parse(then, f"stage {self.name!r}: actors")
        each = Held(own.gpus_per_actor, own.cpus_per_actor).times(own.actors)
        return Held(each.gpu, each.cpu + own.loaders).times(record.seconds / 3600)
