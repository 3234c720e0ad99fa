"""The stages of a run, in order: pool → model → warm-up → proxy (if any) → features → picks → sweep → report.

Each stage ends in a manifest (`RUN/stages/NAME.json`); one that is done with the same inputs is skipped, one whose inputs
changed is refused by name. The stages themselves resume inside (parts, checkpoints, trials).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..actors.account import parts_back
from ..actors.cluster import ensure_ray
from ..actors.config import CheckpointRef, FeatureConfig
from ..actors.kind import kind_of
from ..actors.stream import make_spec, run_features
from ..models.check import check_model
from ..models.family.of_llava.tiny import build_twin, words_of
from ..models.folders import check_folder
from ..models.load import model_digest
from ..pool.ingest import IngestConfig, ingest, pictures_back, usage_of
from ..pool.reader import Pool
from ..store.errors import DamagedError, InputError
from ..store.files import exists, folder_bytes, join, write_json
from ..store.manifest import Manifest, StageRecord
from ..store.names import place_in
from ..store.reading import reading, with_fields
from ..train.run import TrainReport, refuse_early, train
from .begin import require_workers
from .config import PLACES, POOLS, RunConfig, StageSection, saved_run, train_config
from .picking import select_all
from .progress import bar, console
from .watch import training_bar

_ANEW = "Picks and trainings were made without them: begin again in another `out` to use them."


@dataclass
class Run:
    """A run under way: its config, its manifests, and the checkpoints made so far."""

    config: RunConfig
    manifest: Manifest

    @property
    def out(self) -> str:
        """The run's folder."""
        return self.config.out

    def folder(self, *names: str) -> str:
        """Return a place inside the run's folder."""
        return join(self.out, *names)

    def stage(self, name: str, inputs: dict[str, Any], work: Callable[[StageRecord], None]) -> StageRecord:
        """Do a stage unless it is done.

        Raises:
            InputError: it was done with other inputs; names them.
        """
        changed = self.manifest.changed(name, inputs)
        if changed:
            raise InputError(
                f"{self.out}: stage {name!r} was done with other inputs ({'; '.join(changed)}). "
                f"Use another `out`, or delete that folder to begin again."
            )
        if changed is None:
            with self.manifest.stage(name, inputs) as record:
                work(record)
        done = self.manifest.read(name)
        assert done is not None
        console.print(f"[dim]{'done   ' if changed is None else 'already'}[/] {name:<22} {done.seconds:8.1f} s")
        usage = done.usage()
        if usage is not None and (usage.refused or changed is None):
            console.print(f"        {usage.line()}", markup=False, soft_wrap=True)
        return done


def start(config: RunConfig) -> Run:
    """Open a run's folder: save the resolved config, or refuse a folder that another config made."""
    saved = join(config.out, "run.json")
    tree = {"digest": config.digest(), "config": config.model_dump(mode="json"), "version": __version__}
    if exists(saved):
        before = saved_run(config.out)
        if before["digest"] != tree["digest"] and _digest_now(before["config"]) != tree["digest"]:
            changed = differences(before["config"], tree["config"])
            raise InputError(
                f"{config.out}: this run was started with another config: {'; '.join(changed[:8])}. "
                "Use another `out`, or delete that folder to begin again."
            )
    else:
        write_json(saved, tree)
    return Run(config, Manifest(config.out, __version__))


def _digest_now(saved: dict[str, Any]) -> str:
    """Return the digest of a saved config as it is read today: an older one held fields that its kinds never read."""
    try:
        return RunConfig.parse(saved).digest()
    except InputError:
        return ""


def ingest_pools(run: Run) -> None:
    """Ingest every pool that the config names, into `RUN/pool`, `RUN/captions`, …"""
    for name in POOLS:
        config: IngestConfig | None = getattr(run.config, name)
        if config is not None:
            _ingest_one(run, name, config)


def prepare_model(run: Run) -> str:
    """Return the folder of the model to start from; a twin is built with a tokenizer trained on the pools' words."""
    section = run.config.model
    if section.path is not None:
        check_model(section.path)
        return str(check_folder(section.path))
    twin, out = section.twin, run.folder("twin")
    assert twin is not None

    def work(record: StageRecord) -> None:
        build_twin(out, _words(run), twin)
        record.facts["digest"] = model_digest(out)

    run.stage("twin", {"twin": twin.model_dump_json(), "pool": Pool(run.folder("pool")).digest}, work)
    return out


def warm_up(run: Run, model: str) -> str:
    """Run the trainings before the proxy (stage 1, say), each from the one before; return the last model."""
    for section in run.config.warmup:
        model = train_stage(run, f"warmup-{section.name}", section, model).model
    return model


def checkpoints_of(run: Run, model: str) -> list[CheckpointRef]:
    """Return the models at which features are taken, oldest first: the proxy's checkpoints, trained over the whole pool.

    Without a proxy it is `model` alone, as step 0.

    Raises:
        InputError: the proxy leaves no checkpoint (set proxy.checkpoint_count or proxy.checkpoint_steps).
    """
    if run.config.proxy is None:
        return [CheckpointRef(0, model)]
    report = train_stage(run, "proxy", StageSection(name="proxy", data="pool", train=run.config.proxy), model)
    if not report.checkpoints:
        raise InputError("the proxy left no checkpoints: set proxy.checkpoint_count to 3 or more.")
    return [CheckpointRef(int(c.step), c.path) for c in report.checkpoints]


def train_stage(run: Run, name: str, section: StageSection, model: str) -> TrainReport:
    """Run one training of the run's own; returns its report, from disk when it is done."""
    pool, out = run.folder(section.data), run.folder("train", name)
    config = train_config(
        section.train, name, model=os.path.abspath(model), pool=os.path.abspath(pool), seed=run.config.seed
    )

    def work(record: StageRecord) -> None:
        refuse_early(config, out)
        ensure_ray(run.config.ray)
        require_workers(config, f"training {name}")
        with training_bar(name, out):
            report = train(config, out)
        record.facts.update(rows=report.rows, loss=report.loss, steps=report.steps)
        record.account(report.usage)
        record.facts["bytes"] = folder_bytes(out)

    run.stage(
        name, {"config": config.model_dump_json(exclude={"model", "pool", *PLACES}), "data": Pool(pool).digest}, work
    )
    return TrainReport.read(out)


def make_features(run: Run, checkpoints: list[CheckpointRef]) -> None:
    """Write every kind of feature at every checkpoint, for the pool and for the targets."""
    for config in run.config.features:
        _features(run, config, checkpoints, "pool", "features")
        if run.config.target is not None and kind_of(config).of_targets:
            _features(run, config, checkpoints, "target", "targets")


def pick(run: Run, weights: dict[int, float] | None) -> dict[tuple[str, str, int], str]:
    """Score and pick for every selector, budget and seed; returns the PICKS files."""
    inputs = {
        "selectors": repr(run.config.selectors),
        "budgets": repr(run.config.budgets),
        "seeds": repr(run.config.seeds),
        "pool": Pool(run.folder("pool")).digest,
    }
    made: dict[tuple[str, str, int], str] = {}

    def work(record: StageRecord) -> None:
        try:
            made.update(select_all(run.config, run.out, weights))
        except DamagedError as error:
            for config in run.config.features:  # its parts are looked at again, and the damaged ones made anew
                for out in ("features", "targets"):
                    run.manifest.undo(f"{out}-{config.name}")
            raise DamagedError(f"{error} In a run: run it again.") from error
        record.facts.update(
            rows=Pool(run.folder("pool")).rows, picks={"|".join(map(str, k)): v for k, v in made.items()}
        )

    done = run.stage("select", inputs, work)
    # a run's folder may have been moved; its manifest must not lead out of it
    folder, file, way_out = (
        os.path.abspath(run.folder("picks")),
        run.manifest.path("select"),
        "Delete it and run again.",
    )
    facts = with_fields(done.facts, {"picks": dict[str, str]}, file, "manifest of picks", way_out)
    with reading(file, "a manifest of picks", way_out):
        keys = {tuple(k.split("|")): place_in(folder, v, file) for k, v in facts["picks"].items()}
        return {(name, budget, int(seed)): path for (name, budget, seed), path in keys.items()}


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List the leaves in which two plain trees differ, as `a.b: was X, is Y`."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(set(before) | set(now))
        return [d for n in names for d in differences(before.get(n), now.get(n), f"{where}.{n}".lstrip("."))]
    if _are_sections(before) and _are_sections(now) and len(before) == len(now):
        return [d for i, pair in enumerate(zip(before, now)) for d in differences(*pair, f"{where}.{i}")]
    return [] if before == now or where in ("out", "ray") or _free(where) else [f"{where}: was {before!r}, is {now!r}"]


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) for v in value)


def _free(where: str) -> bool:
    """Say whether a field changes no result: what `RunConfig.digest` leaves out."""
    section, _, name = where.rpartition(".")
    return name in ("max_refused", "max_part_retries") or (name in PLACES and section not in POOLS)


def _tell(what: str) -> None:
    console.print(f"        {what}", markup=False, soft_wrap=True)


def _ingest_one(run: Run, name: str, config: IngestConfig) -> None:
    out = run.folder(name)

    def work(record: StageRecord) -> None:
        with bar(f"ingest {name}", "rows") as tell:
            report = ingest(config, out, progress=lambda rows: tell(rows, 0))
        record.facts["rows"] = report.rows
        record.account(usage_of(report, out))
        record.facts["bytes"] = folder_bytes(out)

    stage, inputs = f"ingest-{name}", {"config": config.model_dump_json(exclude={"max_refused"})}
    if run.manifest.changed(stage, inputs) == [] and (back := pictures_back(config, out)):
        # what follows was made of the pool as it is
        _tell(f"ingest-{name}: {len(back)} pictures that could not be read can be by now. {_ANEW}")
    run.stage(stage, inputs, work)


def _features(run: Run, config: FeatureConfig, checkpoints: list[CheckpointRef], pool: str, out: str) -> None:
    targets = pool == "target"
    if targets:
        config = config.model_copy(update={"image_root": config.target_image_root})
    aim = run.folder("target") if kind_of(config).aims else None
    spec = make_spec(run.folder(pool), checkpoints, config, run.folder(out), targets=targets, target_pool=aim)

    def work(record: StageRecord) -> None:
        with bar(f"{out} {config.name}", "parts") as tell:
            report = run_features(spec, run.config.actors, tell, lambda: ensure_ray(run.config.ray))
        record.facts.update(rows=report.rows, tokens=report.tokens, padded=report.padded)
        record.account(report.usage)
        for note in report.notes:
            _tell(note)
        record.facts.update(report.extra)
        record.facts["bytes"] = folder_bytes(join(run.folder(out), config.name))

    stage, inputs = f"{out}-{config.name}", {"keys": " ".join(k.digest() for k in spec.keys)}
    if run.manifest.changed(stage, inputs) == [] and (parts := parts_back(spec)):
        if run.manifest.read("select") is None:
            run.manifest.undo(stage)
        else:
            _tell(f"{stage}: {len(parts)} parts have rows whose pictures can be read by now. {_ANEW}")
    run.stage(stage, inputs, work)


def _words(run: Run) -> list[str]:
    """Texts for the twin's tokenizer: of every pool but the test's."""
    there = [name for name in ("captions", "pool", "target") if getattr(run.config, name) is not None]
    return words_of([Pool(run.folder(name)) for name in there])
