"""Makes the mean gradients of target tasks (`means.py`): a worker of the flow, one checkpoint per part.

Each target row counts with its unit gradient (LESS), so a first pass finds the exact norms and a second one adds up.
Axes: N rows of a part, M rows of all parts, T tasks.
"""

import json
import os
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..models.forward import on_device
from ..models.projections.targets import Means, Norms
from ..models.taps.gradients import GradientTap
from ..pool.reader import Pool
from ..store.arrays import Array
from ..store.errors import InputError
from ..store.features import shards_done
from ..store.machine import writing
from ..store.reading import as_kind, parse_json, reading
from ..store.refusals import listing, write_refused
from ..store.usage import TRY_AGAIN, Usage
from .account import check_tasks
from .config import FeatureConfig, FeatureSpec
from .features import FeatureActor
from .loader import LoadedPart
from .means import ANEW, means_folder, means_path, target_tasks


@dataclass
class TargetMeans:
    """Plain class: computes and writes the target means of one checkpoint of the spec a part."""

    spec: FeatureSpec

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Take {part, number}, the number of a checkpoint; return {part, path}."""
        return {"part": part["part"], "path": write_means(self.spec, part["number"])}


def means_steps(spec: FeatureSpec) -> list[dict[str, Any]]:
    """Return the flow's items: one per checkpoint of the spec."""
    steps = [(number, c.step) for number, c in enumerate(spec.checkpoints)]
    return [{"part": f"step-{s:08d}", "place": f"targets at step {s}", "number": n} for n, s in steps]


def write_means(spec: FeatureSpec, number: int) -> str:
    """Compute and write the means of the spec's checkpoint `number`, unless the file is there; returns its path.

    Means without rows whose pictures could not be read are made anew as long as no features were measured against them.

    Raises:
        InputError: a file of other targets or another model is there, a task has no gradient at all, or too many of the
            target rows, or most of a task's, were refused.
    """
    key = spec.keys[number]
    path = means_path(spec.out, spec.config.name, key.checkpoint)
    facts = {"model": key.model, "recipe": key.recipe}
    if os.path.exists(path):
        with reading(path, "means of targets", ANEW, (SafetensorError,)), safe_open(path, "pt") as file:
            header = file.metadata() or {}
        if {k: v for k, v in header.items() if k in facts} != facts:
            raise InputError(
                f"{path} holds the means of other targets or another checkpoint. Use another output folder."
            )
        refused = parse_json(header.get("refused", "{}"), f"{path}: its header", ANEW)
        missed = as_kind(refused, dict[str, int], path, "means of targets", ANEW)
        if not TRY_AGAIN & missed.keys() or shards_done(spec.out, key, feature=spec.config.name):
            return path
    assert spec.target_pool is not None
    # an actor that reads and batches the targets; the taps come later
    aim = replace(
        spec,
        pool=spec.target_pool,
        config=_reading(spec.config),
        checkpoints=(spec.checkpoints[number],),
        keys=(replace(key, kind="loss", dim=1, pool=Pool(spec.target_pool).digest),),
    )
    actor = FeatureActor(aim)
    if actor.failed:
        raise InputError(f"step {key.checkpoint}: {next(iter(actor.failed.values()))}")
    sums, usage = _add_up(actor, key.checkpoint, spec.config.which, target_tasks(spec.target_pool))
    kind = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(spec.config.precision, torch.float32)
    _write(path, {n: s.to("cpu", kind).contiguous() for n, s in sums.items()}, facts, usage)
    return path


def _write(path: str, sums: dict[str, torch.Tensor], facts: dict[str, str], usage: Usage) -> None:
    temporary = f"{path}.tmp-{uuid.uuid4().hex[:8]}"
    with writing(path):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            save_file(sums, temporary, facts | {"refused": json.dumps(usage.refused)})
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.remove(temporary)


def _reading(config: FeatureConfig) -> FeatureConfig:
    """Return the config of an actor that reads the targets as `config` has its rows read."""
    common = {n: getattr(config, n) for n in FeatureConfig.model_fields}
    return FeatureConfig(**(common | {"kind": "loss", "image_root": config.target_image_root}))


def _add_up(actor: Any, step: int, which: str, tasks: list[str]) -> tuple[dict[str, torch.Tensor], Usage]:
    """Return the sums by parameter, and what became of the target rows."""
    model = actor.first
    norms_tap = GradientTap(model, which, Norms())
    parts = [actor.loader.load(name) for name in actor.loader.parts]
    usage = _account(actor, step, parts)
    counts = {"tokens": 0, "padded": 0}
    norms = []
    for part in parts:
        norm_N = np.zeros(len(part.encoded))
        for rows, batch in actor.batches(part, counts):
            norm_N[rows] = norms_tap.tensors(on_device(batch, model))[:, 0].double().cpu().numpy()
        norms.append(norm_N)
    sizes = _check_targets(parts, norms, tasks)
    sink = Means(len(tasks))
    tap = GradientTap(model, which, sink)
    for part, norm_N in zip(parts, norms, strict=True):
        for rows, batch in actor.batches(part, counts):
            weights = np.zeros((len(rows), len(tasks)))
            for place, i in enumerate(rows):
                if norm_N[i] > 0:
                    weights[place, tasks.index(part.tasks[i])] = 1 / norm_N[i] / sizes[part.tasks[i]]
            sink.weights_BK = torch.from_numpy(weights)
            tap.tensors(on_device(batch, model))
    return sink.sums, usage


def _account(actor: Any, step: int, parts: list[LoadedPart]) -> Usage:
    """List the target rows that were refused, and see that enough of them, and of each task, are left."""
    out, pool, limit = actor.spec.out, actor.loader.pool, actor.spec.config.max_refused
    folder = means_folder(actor.spec.config.name)
    task_of = dict(zip(pool.ids().tolist(), pool.column("task").tolist(), strict=True))
    for name, part in zip(actor.loader.parts, parts, strict=True):
        write_refused(out, folder, step, name, part.refused, task_of)
    reasons = Counter(reason for part in parts for _, _, reason, _ in part.refused)
    usage = Usage(sum(len(p.encoded) for p in parts), dict(reasons), listing(out, [folder]))
    check_tasks(pool, out, folder, limit)
    usage.check(f"targets in {actor.spec.pool}", limit)
    return usage


def _check_targets(parts: list[LoadedPart], norms: list[Array], tasks: list[str]) -> dict[str, int]:
    """Return how many rows each task has; every row must have a finite gradient, every task one that is not zero."""
    task_M = np.concatenate([np.array(p.tasks, object) for p in parts])
    norm_M = np.concatenate(norms)
    ids_M = [e.sample_id for p in parts for e in p.encoded]
    bad = np.flatnonzero(~np.isfinite(norm_M))
    if bad.size:
        raise InputError(f"{bad.size} target rows have a gradient that is not finite, first sample_id {ids_M[bad[0]]}.")
    for task in tasks:
        if not (norm_M[task_M == task] > 0).any():
            raise InputError(
                f"target task {task!r} has no gradient (text-only rows have none in the projector): leave it out of the "
                "target pool, or take gradients of more modules (`which`)."
            )
    return {t: int((task_M == t).sum()) for t in tasks}
