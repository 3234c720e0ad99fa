"""Mean gradients of target tasks, one file a checkpoint: what exact influence is measured against.

Each target row counts with its unit gradient (LESS), so a first pass finds the exact norms and a second one adds up. The
file is safetensors: parameter name → [T, P], T tasks in the order of its metadata.
"""

import os
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..models.projections.targets import Means, Norms
from ..models.taps.forward import on_device
from ..models.taps.gradients import GradientTap
from ..pool.reader import Pool
from ..store.errors import InputError
from .config import FeatureSpec
from .loader import LoadedPart


def target_tasks(pool: str) -> list[str]:
    """Return the tasks of a target pool, in order: the columns of its influence features."""
    return sorted(set(Pool(pool).column("task").tolist()))


def means_path(out: str, step: int) -> str:
    """Return where the means of a checkpoint stand.

    Raises:
        InputError: the output is not a path of a file system (safetensors are mapped, not streamed).
    """
    if "://" in out:
        raise InputError(f"{out!r}: influence needs an output folder that all nodes can open as a path, not a URI.")
    return os.path.join(out, "target-means", f"step={step:08d}.safetensors")


def write_means(spec: FeatureSpec, number: int) -> str:
    """Compute and write the means of the spec's checkpoint `number`, unless the file is there; returns its path.

    Raises:
        InputError: a file of other targets or another model is there, or a task has no gradient at all.
    """
    from .features import FeatureActor

    path, key = means_path(spec.out, spec.keys[number].checkpoint), spec.keys[number]
    facts = {"model": key.model, "recipe": key.recipe}
    if os.path.exists(path):
        with safe_open(path, "pt") as file:
            found = {k: v for k, v in (file.metadata() or {}).items() if k in facts}
        if found != facts:
            raise InputError(
                f"{path} holds the means of other targets or another checkpoint. Use another output folder."
            )
        return path
    assert spec.target_pool is not None
    # an actor that reads and batches the targets; the taps come later
    reading = replace(
        spec,
        pool=spec.target_pool,
        config=spec.config.model_copy(update={"kind": "loss"}),
        checkpoints=(spec.checkpoints[number],),
        keys=(replace(key, kind="loss", dim=1, pool=Pool(spec.target_pool).digest),),
    )
    actor = FeatureActor(reading)
    if actor.failed:
        raise InputError(f"step {key.checkpoint}: {next(iter(actor.failed.values()))}")
    sums = _add_up(actor, Pool(spec.target_pool), target_tasks(spec.target_pool))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.tmp-{uuid.uuid4().hex[:8]}"
    kind = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(spec.config.precision, torch.float32)
    save_file({n: s.to("cpu", kind).contiguous() for n, s in sums.items()}, temporary, facts)
    os.replace(temporary, path)
    return path


def read_means(path: str, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Read a file of means onto a device."""
    with safe_open(path, "pt", device=device) as file:
        return {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118


def _add_up(actor: Any, pool: Pool, tasks: list[str]) -> dict[str, torch.Tensor]:
    model, config = actor.first, actor.spec.config
    norms_tap = GradientTap(model, config.which, Norms())
    parts = [actor.loader.load(p.name) for p in pool.parts(config.rows_per_part)]
    counts = {"tokens": 0, "padded": 0}
    norms = []
    for part in parts:
        norm_N = np.zeros(len(part.encoded))
        for rows, batch in actor.batches(part, counts):
            norm_N[rows] = norms_tap.tensors(on_device(batch, model))[:, 0].double().cpu().numpy()
        norms.append(norm_N)
    sizes = _check_targets(parts, norms, tasks)
    sink = Means(len(tasks))
    tap = GradientTap(model, config.which, sink)
    for part, norm_N in zip(parts, norms, strict=True):
        for rows, batch in actor.batches(part, counts):
            weights = np.zeros((len(rows), len(tasks)))
            for at, i in enumerate(rows):
                if norm_N[i] > 0:
                    weights[at, tasks.index(part.tasks[i])] = 1 / norm_N[i] / sizes[part.tasks[i]]
            sink.weights_BK = torch.from_numpy(weights)
            tap.tensors(on_device(batch, model))
    return sink.sums


def _check_targets(parts: list[LoadedPart], norms: list[np.ndarray[Any, Any]], tasks: list[str]) -> dict[str, int]:
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
