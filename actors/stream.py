"""Features of a pool: its parts go through the flow's actors into the feature store.

Exactly once: a part is the unit of work, its file appears whole, parts that are there are not computed again, and a
task that Ray retries after a lost worker writes the same file. Ray Data's own checkpointing is not used: its unit is a
block, and leaves such as `from_items` duplicate rows silently (spec: Ray §1).
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from ..models.check import check_model
from ..models.encoding import make_encoder, with_template
from ..models.folders import local_model
from ..models.load import load_processor, model_digest
from ..models.shape import hidden_size
from ..pool.paths import absolute_root
from ..pool.reader import Pool
from ..store.claim import claim
from ..store.errors import InputError, VinnowError
from ..store.files import absolute, join
from ..store.keys import FeatureKey
from ..store.learning_rates import of_checkpoint, write_rates
from ..store.meters import tell_parts
from .account import damage_notes, open_work, settle
from .config import ActorResources, CheckpointRef, FeatureConfig, FeatureReport, FeatureSpec
from .features import FeatureActor
from .kind import kind_of
from .loader import PartLoader
from .means import means_folder, means_path, target_tasks
from .pool import Flow, Workers, in_our_words, run_shards
from .target_means import TargetMeans, means_steps


class CheckpointError(InputError):
    """Checkpoints that could not be loaded; `report` says what was done with the others."""

    def __init__(self, message: str, report: FeatureReport) -> None:
        super().__init__(message)
        self.report = report


Progress = Callable[[int, int], None]


def make_spec(
    pool: str,
    checkpoints: list[CheckpointRef],
    config: FeatureConfig,
    out: str,
    *,
    targets: bool = False,
    target_pool: str | None = None,
) -> FeatureSpec:
    """Resolve what is to be computed: digests of pool and checkpoints become the feature keys.

    `targets`: the pool is a target set (its rows keep their tasks, in mode `sgd`). `target_pool`: the target set of
    influence.

    Raises:
        InputError: no checkpoint, one that is missing, damaged or at odds with its processor, two with one step;
            influence without a target pool; a mode that needs Adam's moments where a checkpoint has none.
    """
    if targets:
        config = kind_of(config).for_targets()
    pool, out = absolute(pool), absolute(out)
    roots = {n: getattr(config, n) for n in ("image_root", "target_image_root")}
    config = config.model_copy(update={n: absolute_root(root) for n, root in roots.items()})
    _check_checkpoints(checkpoints)
    config = with_template(config, checkpoints[0].path)
    text = make_encoder(
        load_processor(checkpoints[0].path), config.template, config.max_len, config.image_mode, config.pictures
    ).recipe()
    kind, facts, tasks = kind_of(config), None, []
    if kind.aims:
        if target_pool is None:
            raise InputError(f"{config.kind} is measured against targets: give their pool (--target-pool).")
        # an output that cannot hold them is refused here, not on a worker
        means_path(out, config.name, checkpoints[0].step)
        target_pool = absolute(target_pool)
        tasks = target_tasks(target_pool)
        facts = {"tasks": tasks, "digest": Pool(target_pool).digest}
    dim = kind.dim(lambda: hidden_size(checkpoints[0].path), len(tasks))
    # workers start in other folders than the driver
    reached = tuple(
        replace(c, path=local_model(c.path), optimizer=c.optimizer and absolute(c.optimizer)) for c in checkpoints
    )
    keys = tuple(
        FeatureKey(
            kind=config.kind,
            dim=dim,
            pool=Pool(pool).digest,
            model=model_digest(c.path),
            checkpoint=c.step,
            recipe=kind.key_recipe(text, facts),
            optimizer=kind.optimizer(c),
        )
        for c in reached
    )
    return FeatureSpec(pool, out, config, reached, keys, targets, target_pool if facts else None)


def _check_checkpoints(checkpoints: list[CheckpointRef]) -> None:
    if not checkpoints:
        raise InputError("no checkpoint given: features need at least one, as STEP=FOLDER.")
    steps = [c.step for c in checkpoints]
    if len(set(steps)) != len(steps):
        raise InputError(f"two checkpoints have the same step: {steps}.")
    for checkpoint in checkpoints:
        check_model(checkpoint.path)


def run_features(
    spec: FeatureSpec,
    resources: ActorResources | None = None,
    progress: Progress | None = None,
    connect: Callable[[], None] | None = None,
) -> FeatureReport:
    """Compute what is missing and return what was done; a finished run does nothing and starts no Ray.

    Parts with rows that were refused for a picture that can be read by now are computed anew. `connect` is called before
    Ray is needed, if it is.

    Raises:
        BusyError: another process writes this feature into the output folder.
        KeyMismatchError: the output folder holds features of another pool, model or recipe.
        CheckpointError: some checkpoints could not be loaded; it names them. Parts of all others are written.
        LostRowsError: more than `max_refused` of the rows were refused. All parts are written.
        VinnowError: an actor failed; names a file that has the whole trace.
    """
    resources = resources or ActorResources()
    spec = replace(spec, threads=resources.threads, device="cuda" if resources.gpus_per_actor else "cpu")
    with claim(join(spec.out, spec.config.name), f"features {spec.config.name}", r"step=\d+"):
        return _run(spec, resources, progress, connect)


def run_inline(spec: FeatureSpec) -> FeatureReport:
    """The same without Ray, in this process: for tests and for looking at one part in a debugger."""
    return _run(spec, None)


def _run(
    spec: FeatureSpec,
    resources: ActorResources | None,
    progress: Progress | None = None,
    connect: Callable[[], None] | None = None,
) -> FeatureReport:
    """Do what is missing; inline, without resources. Passes of few parts too, if these say so."""
    start, work = time.perf_counter(), open_work(spec)
    report = FeatureReport(spec.config.name, [k.checkpoint for k in spec.keys])
    write_rates(spec.out, spec.config.name, {c.step: of_checkpoint(c.path) for c in spec.checkpoints})
    report.notes += damage_notes(work)
    report.skipped_parts = work.skipped
    total, tell = len(work.places) * len(spec.keys), _telling(spec, progress)
    tell(report.skipped_parts, total)
    for one_pass in _passes(spec):
        items = work.items(one_pass)
        here = resources is not None and len(items) <= resources.inline_parts
        if items and connect is not None and not here:
            connect()
        rows = _compute(one_pass, items, None if here else resources)
        for row in _here(rows, spec.out) if here else rows:
            _add(report, row)
            tell(report.skipped_parts + report.parts, total)
    report.seconds = round(time.perf_counter() - start, 3)
    settle(report, spec)
    _refuse_failed(report, spec)
    return report


def _telling(spec: FeatureSpec, progress: Progress | None) -> Progress:
    """Return what is told how many parts are done: the meters, and who asked."""

    def tell(done: int, total: int) -> None:
        tell_parts(spec.config.kind, done, total)
        if progress:
            progress(done, total)

    return tell


def _here(rows: Iterator[dict[str, Any]], out: str) -> Iterator[dict[str, Any]]:
    """Pass on what this process computes as if actors did: errors in our words, and its threads are left as they were."""
    threads = torch.get_num_threads()
    try:
        yield from rows
    except Exception as error:
        raise in_our_words(error, out) from error
    finally:
        torch.set_num_threads(threads)


def _passes(spec: FeatureSpec) -> Iterator[FeatureSpec]:
    size = spec.config.checkpoints_per_pass
    pairs = iter(zip(spec.checkpoints, spec.keys, strict=True))
    while chunk := tuple(islice(pairs, size)):
        yield replace(spec, checkpoints=tuple(c for c, _ in chunk), keys=tuple(k for _, k in chunk))


def _compute(
    spec: FeatureSpec, items: list[dict[str, Any]], resources: ActorResources | None
) -> Iterator[dict[str, Any]]:
    """Yield what actors did with each part of a pass; the targets' means, where it needs them, are made first."""
    config, arguments = spec.config, {"spec": spec}
    flow = Flow(f"features {config.name}", spec.out, config.name, config.max_part_retries, resources is None)
    take = resources or ActorResources()
    places = {"count": take.actors, "cpus": take.cpus_per_actor, "gpus": take.gpus_per_actor}
    actors = [Workers(FeatureActor, arguments, **places)]
    if take.loaders:
        actors.insert(0, Workers(PartLoader, arguments, take.loaders))
    try:
        if items and spec.target_pool is not None:
            aims = replace(flow, product=means_folder(config.name))
            for _ in run_shards(means_steps(spec), [Workers(TargetMeans, arguments, **places)], aims):
                pass
        yield from run_shards(items, actors, flow)
    except VinnowError as error:
        if flow.inline or "out of memory" not in str(error).lower():
            raise
        raise VinnowError(f"{error} Give a smaller token_budget or max_rows, or fewer checkpoints_per_pass.") from error


def _add(report: FeatureReport, row: dict[str, Any]) -> None:
    """Add what an actor did with one part."""
    report.parts += int(row["steps"])
    report.rows += int(row["rows"])
    report.tokens += int(row["tokens"])
    report.padded += int(row["padded"])
    report.failed |= {int(step): why for step, why in json.loads(str(row["failed"])).items()}
    for way, rows in json.loads(str(row["ran"])).items():
        report.ran[way] = report.ran.get(way, 0) + rows
    _add_facts(report.extra, row)


def _refuse_failed(report: FeatureReport, spec: FeatureSpec) -> None:
    if not report.failed:
        return
    path_of = {c.step: c.path for c in spec.checkpoints}
    named = "; ".join(f"step {s} ({path_of[s]}): {why}" for s, why in sorted(report.failed.items()))
    raise CheckpointError(
        f"{len(report.failed)} of {len(spec.keys)} checkpoints could not be loaded, the others' {report.feature} features "
        f"are in {spec.out}: {named} Mend or leave out what is named and run again: only that is missing.",
        report,
    )


def _add_facts(extra: dict[str, Any], row: dict[str, Any]) -> None:
    entries = extra.get("entries", 0.0) + float(row["entries"])
    under = extra.get("entries", 0.0) * extra.get("under_eps", 0.0) + float(row["under_eps"])
    if entries:
        extra |= {"entries": entries, "under_eps": under / entries}
    if row["storage_error"]:
        extra["storage_error"] = max(extra.get("storage_error", 0.0), float(row["storage_error"]))
