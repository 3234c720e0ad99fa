"""The feature actor: a plain class that turns parts of the pool into parts of the feature store.

It runs inline in a test, on local Ray, and on a GPU alike; `stream.py` puts it on Ray Data. The unit of work is one part:
written whole or not at all, so a retried or repeated task changes nothing. Axes: N rows of a part, D width of a vector.
"""

import json
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..models.load import load
from ..models.taps.forward import on_device, tower_features
from ..pool.collate import collate, stack
from ..store.cut import write_cut
from ..store.errors import InputError
from ..store.features import FeatureBatch, drop_shard, write_shard
from ..store.keys import FeatureKey
from ..store.quantise import error, row_norms
from ..store.refusals import write_refused
from ..store.tries import begin, end
from .config import FeatureSpec
from .kind import kind_of
from .loader import LoadedPart, PartLoader, unpack
from .sharing import same_tower, share_equal

Array = np.ndarray[Any, Any]


class FeatureActor:
    """`__init__` loads the checkpoints of this pass; `__call__` computes and writes whole parts."""

    def __init__(self, spec: FeatureSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec, self.kind = spec, kind_of(spec.config)
        self.loader = PartLoader(spec)
        self.keys = {key.checkpoint: key for key in spec.keys}
        self.pad_id = self.loader.encoder.tokenizer.pad_token_id or 0
        self.models: dict[int, Any] = {}
        self.taps: dict[int, Any] = {}
        self.counted: dict[int, tuple[int, float]] = {}
        # why a checkpoint of this pass could not be loaded, by step; the others go on
        self.failed: dict[int, str] = {}
        for number, key in enumerate(spec.keys):
            try:
                self._load(number, key)
            except InputError as error:
                self.failed[key.checkpoint] = str(error)
        self.one_tower = self._shares_tower()

    def _load(self, number: int, key: FeatureKey) -> None:
        loaded = load(self.spec.checkpoints[number].path, self.spec.config.precision, self.spec.device)
        if loaded.digest != key.model:  # the driver made the keys; the weights changed on disk since
            raise InputError(f"{loaded.path!r} changed while the run was under way. Run again.")
        if self.models:
            share_equal(self.first, loaded.model)
        self.taps[key.checkpoint] = self.kind.tap(loaded.model, self.spec, number)
        self.models[key.checkpoint] = loaded.model

    @property
    def first(self) -> Any:
        """The pass's first model that could be loaded."""
        return next(iter(self.models.values()))

    def _shares_tower(self) -> bool:
        """Say whether several checkpoints have one tower: then its features are computed once a batch."""
        others = list(self.models.values())[1:]
        tapped = bool(others) and any("vision_tower" in n for n in next(iter(self.taps.values())).modules)
        return bool(others) and not tapped and all(same_tower(self.first, m) for m in others)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take rows of (part, todo[, payload]); return one row of counts for each part."""
        payloads = batch.get("payload", [None] * len(batch["part"]))
        rows = [
            self.compute(str(name), [int(s) for s in str(todo).split(",")], payload)
            for name, todo, payload in zip(batch["part"], batch["todo"], payloads, strict=True)
        ]
        return {k: np.array([r[k] for r in rows]) for k in rows[0]}

    def compute(self, name: str, steps: list[int], payload: bytes | None = None) -> dict[str, Any]:
        """Compute one part at the given checkpoints: pictures are decoded once, and so runs a tower that they share.

        Steps whose checkpoint could not be loaded are left out; `failed` names them.
        """
        start = time.perf_counter()
        steps = [s for s in steps if s in self.models]
        if not steps:
            return {"part": name, "rows": 0, "steps": 0, "seconds": 0.0} | _counts() | self._failures()
        begin(self.spec.out, self.spec.config.name, name, self.spec.config.max_part_retries, self._rows_of(name))
        try:
            return self._computed(name, steps, payload, start)
        finally:
            end(self.spec.out, self.spec.config.name, name)

    def _rows_of(self, name: str) -> str:
        part = self.loader.parts[name]
        ids = self.loader.pool.ids()[part.start : part.start + part.rows]
        return f"rows {part.start} to {part.start + part.rows - 1} of the pool, sample_id {ids[0]} to {ids[-1]}"

    def _computed(self, name: str, steps: list[int], payload: bytes | None, start: float) -> dict[str, Any]:
        part = self.loader.load(name) if payload is None else unpack(payload)
        counts = _counts()
        write_cut(self.spec.out, self.spec.config.name, name, {e.sample_id: e.cut for e in part.encoded if e.cut})
        for step, (vec_ND, norm_N) in self._vectors(part, steps, counts).items():
            self._write(name, part, self.keys[step], (vec_ND, norm_N), counts)
        self._count_small(steps, counts)
        return {
            "part": name,
            "rows": len(part.encoded) * len(steps),
            "steps": len(steps),
            "seconds": time.perf_counter() - start,
        } | (counts | self._failures())

    def _failures(self) -> dict[str, str]:
        return {"failed": json.dumps(self.failed)}

    def _count_small(self, steps: list[int], counts: dict[str, Any]) -> None:
        """Add how many second moments this part met, and how many of them were under Adam's epsilon."""
        for step in steps:
            facts = self.taps[step].facts()
            entries = facts.get("entries", 0)
            now = (entries, entries * facts.get("below_eps", 0.0))
            before = self.counted.get(step, (0, 0.0))
            counts["entries"] += now[0] - before[0]
            counts["under_eps"] += now[1] - before[1]
            self.counted[step] = now

    def _vectors(self, part: LoadedPart, steps: list[int], counts: dict[str, Any]) -> dict[int, tuple[Array, Array]]:
        """Return each step's vectors [N, D] and the norms [N] of what they stand for."""
        made: dict[int, list[tuple[list[int], torch.Tensor, torch.Tensor | None]]] = {s: [] for s in steps}
        for step in steps:
            self.taps[step].restart()
        for rows, batch in self.batches(part, counts):
            batch = on_device(batch, self.first)
            if self.one_tower and len(steps) > 1 and batch.get("pixel_values") is not None:
                batch["tower_features"] = tower_features(self.first, batch["pixel_values"])
            for step in steps:
                tap = self.taps[step]
                vec = tap.tensors(batch)
                made[step].append((rows, vec, tap.norms()))
        # the device is waited for here, once a part and step
        for step in steps:
            self.taps[step].settle()
        return {step: _gather(found, len(part.encoded), self.keys[step].dim) for step, found in made.items()}

    def batches(self, part: LoadedPart, counts: dict[str, Any]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yield a part's batches under the token budget, with their rows; counts tokens and pads."""
        lengths = [len(e.input_ids) for e in part.encoded]
        for rows in self.kind.batches(lengths):
            longest = max(lengths[i] for i in rows)
            counts["tokens"] += longest * len(rows)
            counts["padded"] += longest * len(rows) - sum(lengths[i] for i in rows)
            yield rows, self._collate(part, rows)

    def _write(
        self, name: str, part: LoadedPart, key: FeatureKey, found: tuple[Array, Array], counts: dict[str, Any]
    ) -> None:
        config = self.spec.config
        vec_ND, norm_N = found
        refused = list(part.refused)
        keep = np.isfinite(vec_ND).all(1) & np.isfinite(norm_N)
        vec_ND = self.kind.finished(vec_ND, norm_N)
        for i in np.flatnonzero(~keep):
            refused.append((part.encoded[i].sample_id, "", "not_finite", f"{config.name} at step {key.checkpoint}"))
        ids = np.array([e.sample_id for e in part.encoded], np.uint64)
        lengths = np.array([len(e.input_ids) for e in part.encoded], np.int32)
        tasks = np.array(part.tasks, object)[keep] if self.spec.targets else None
        counts["refused"] += len(refused)
        if config.dtype in ("int8", "bit1") and keep.any():
            counts["storage_error"] = max(counts["storage_error"], error(vec_ND[keep], config.dtype)["mean"])
        drop_shard(self.spec.out, key, name, config.name)
        write_refused(
            self.spec.out, config.name, key.checkpoint, name, refused, self._task_of if self.spec.targets else None
        )
        batch = FeatureBatch(ids[keep], lengths[keep], vec_ND[keep], tasks, norm_N[keep])
        write_shard(self.spec.out, key, name, batch, config.dtype, config.name)

    @cached_property
    def _task_of(self) -> dict[int, str]:
        pool = self.loader.pool
        return dict(zip(pool.ids().tolist(), pool.column("task").tolist(), strict=True))

    def _collate(self, part: LoadedPart, rows: list[int]) -> dict[str, Any]:
        batch = collate([part.encoded[i] for i in rows], [()] * len(rows), self.pad_id)
        u8_I3HW, batch["image_owner"] = stack([part.pixels[i] for i in rows])
        if u8_I3HW is not None:
            # uint8 travels, floats are made on the device
            batch["pixel_values"] = self.loader.encoder.normalise(u8_I3HW.to(self.spec.device))
        return batch | {"pad_id": self.pad_id}


def _counts() -> dict[str, Any]:
    return {"tokens": 0, "padded": 0, "refused": 0, "entries": 0.0, "under_eps": 0.0, "storage_error": 0.0}


def _gather(
    found: list[tuple[list[int], torch.Tensor, torch.Tensor | None]], rows: int, dim: int
) -> tuple[Array, Array]:
    vec_ND, norm_N = np.zeros((rows, dim), np.float32), np.zeros(rows, np.float32)
    for at, vec, norms in found:
        vec_ND[at] = vec.float().cpu().numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            norm_N[at] = row_norms(vec_ND[at]) if norms is None else norms.float().cpu().numpy()
    return vec_ND, norm_N
