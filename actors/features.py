"""The feature actor: a plain class that turns parts of the pool into parts of the feature store.

It runs inline in a test, on local Ray, and on a GPU alike: `stream.py` hands it to the flow. The unit of work is one part:
written whole or not at all, so a retried or repeated task changes nothing. Axes: N rows of a part, D width of a vector.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..models.forward import on_device, seen_once
from ..models.load import load
from ..models.registry import family_of
from ..pool.batching import count_tokens
from ..pool.collate import collate
from ..pool.decode import Refusal
from ..store.arrays import Array
from ..store.cut import write_cut
from ..store.errors import InputError
from ..store.features import FeatureBatch, drop_shard, write_shard
from ..store.keys import FeatureKey
from ..store.meters import FEATURE_ROWS, FEATURE_TOKENS, Stopwatch, flush
from ..store.quantise import error, row_norms
from ..store.refusals import write_refused
from .config import FeatureSpec
from .kind import kind_of
from .loader import LoadedPart, PartLoader, unpack
from .sharing import same_tower, share_equal


@dataclass(frozen=True)
class TapBatch:
    """What a tap gave for a batch, still on the device: `rows` of the part, their vectors and, of some taps, norms."""

    rows: list[int]
    vec_BD: torch.Tensor
    norm_B: torch.Tensor | None


@dataclass(frozen=True)
class Vectors:
    """A part's vectors at one checkpoint, f32 [N, D], and the norms [N] of what they stand for."""

    vec_ND: Array
    norm_N: Array


class FeatureActor:
    """`__init__` loads the checkpoints of this pass; `__call__` computes and writes whole parts."""

    def __init__(self, spec: FeatureSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec, self.kind, self.watch = spec, kind_of(spec.config), Stopwatch(spec.config.kind)
        self.loader = PartLoader(spec)
        self.keys = {key.checkpoint: key for key in spec.keys}
        self.pad_id = self.loader.encoder.tokenizer.pad_token_id or 0
        self.models: dict[int, Any] = {}
        self.taps: dict[int, Any] = {}
        # what their taps had counted when the last part ended, by step
        self.counted: dict[int, tuple[int, float]] = {}
        self.ran: dict[int, Counter[str]] = {}
        # why a checkpoint of this pass could not be loaded, by step; the others go on
        self.failed: dict[int, str] = {}
        for number, key in enumerate(spec.keys):
            try:
                self._load(number, key)
            except InputError as error:
                self.failed[key.checkpoint] = str(error)
        self.one_tower = self._shares_tower()
        self.watch.spent("loading")
        for meter in (FEATURE_ROWS, FEATURE_TOKENS):
            meter.begin(kind=spec.config.kind)

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
        inside = (
            {id(m) for whole in family_of(self.first).vision(self.first) for m in whole.modules()} if others else set()
        )
        tapped = bool(others) and any(id(m) in inside for m in next(iter(self.taps.values())).modules.values())
        return bool(others) and not tapped and all(same_tower(self.first, m) for m in others)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Take {part, todo[, payload]}: its name, the steps to compute, and the part itself where a loader has read it."""
        return self.compute(part["part"], [int(step) for step in part["todo"].split(",")], part.get("payload"))

    def compute(self, name: str, steps: list[int], payload: bytes | None = None) -> dict[str, Any]:
        """Compute and write one part at the given checkpoints; return its counts.

        Pictures are decoded once, and so runs a tower that they share. Steps whose checkpoint could not be loaded are left
        out; `failed` names them.
        """
        self.watch.spent("waiting")
        steps = [s for s in steps if s in self.models]
        counts = {"part": name, "rows": 0, "steps": len(steps)} | _counts() | self._failures()
        if not steps:
            return counts
        part = self.loader.load(name) if payload is None else unpack(payload)
        self.watch.spent("reading")
        write_cut(self.spec.out, self.spec.config.name, name, {e.sample_id: e.cut for e in part.encoded if e.cut})
        for step, vectors in self._vectors(part, steps, counts).items():
            self._write(name, part, self.keys[step], vectors, counts)
        self._count_small(steps, counts)
        self._count_ways(steps, counts)
        self.watch.spent("writing")
        flush()
        return counts | {"rows": len(part.encoded) * len(steps)}

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

    def _count_ways(self, steps: list[int], counts: dict[str, Any]) -> None:
        """Say how many rows of this part went which way through the decoder, of taps that know several."""
        here = Counter[str]()
        for step in steps:
            now = Counter(self.taps[step].facts().get("ran", {}))
            here += now - self.ran.get(step, Counter())
            self.ran[step] = now
        counts["ran"] = json.dumps(here)

    def _vectors(self, part: LoadedPart, steps: list[int], counts: dict[str, Any]) -> dict[int, Vectors]:
        """Return each step's vectors and norms."""
        batches: dict[int, list[TapBatch]] = {s: [] for s in steps}
        for step in steps:
            self.taps[step].restart()
        for rows, batch in self.batches(part, counts):
            batch = on_device(batch, self.first)
            if self.one_tower and len(steps) > 1 and batch["media"]:
                batch["seen"] = seen_once(self.first, batch["media"])
            for step in steps:
                tap = self.taps[step]
                vec = self._fitting(tap.tensors(batch), len(rows), self.keys[step].dim)
                batches[step].append(TapBatch(rows, vec, tap.norms()))
            self.watch.spent("computing")
            FEATURE_ROWS.add(len(rows) * len(steps), kind=self.spec.config.kind)
            FEATURE_TOKENS.add(batch["input_ids"].numel() * len(steps), kind=self.spec.config.kind)
        # the device is waited for here, once a part and step
        for step in steps:
            self.taps[step].settle()
        vectors = {s: _gather(some, len(part.encoded), self.keys[s].dim) for s, some in batches.items()}
        self.watch.spent("computing")
        return vectors

    def _fitting(self, vec_BD: torch.Tensor, rows: int, dim: int) -> torch.Tensor:
        """Return a tap's vectors, which are as many and as wide as the kind says: another shape would be broadcast."""
        if tuple(vec_BD.shape) == (rows, dim):
            return vec_BD
        what = f"kind {self.kind.name!r} says dim {dim}, but its tap gave {list(vec_BD.shape)} for {rows} rows"
        raise InputError(f"{what}. Make `dim` and the tap agree: [rows, dim], a row a sample.")

    def batches(self, part: LoadedPart, counts: dict[str, Any]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yield a part's batches under the token budget, with their rows; counts tokens and pads."""
        lengths = [len(e.input_ids) for e in part.encoded]
        for rows in self.kind.batches(lengths):
            computed, pads = count_tokens(lengths, rows)
            counts["tokens"] += computed
            counts["padded"] += pads
            yield rows, self._collate(part, rows)

    def _write(self, name: str, part: LoadedPart, key: FeatureKey, vectors: Vectors, counts: dict[str, Any]) -> None:
        config = self.spec.config
        vec_ND, norm_N = vectors.vec_ND, vectors.norm_N
        refused = list(part.refused)
        keep = np.isfinite(vec_ND).all(1) & np.isfinite(norm_N)
        vec_ND = self.kind.finished(vec_ND, norm_N)
        for i in np.flatnonzero(~keep):
            what = f"{config.name} at step {key.checkpoint}"
            refused.append(Refusal(part.encoded[i].sample_id, "", "not_finite", what))
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
        batch = collate([part.encoded[i] for i in rows], self.pad_id)
        # uint8 travels, floats are made on the device
        return self.loader.encoder.finish(batch, self.spec.device) | {"pad_id": self.pad_id}


def _counts() -> dict[str, Any]:
    return {"tokens": 0, "padded": 0, "refused": 0, "entries": 0.0, "under_eps": 0.0, "storage_error": 0.0, "ran": "{}"}


def _gather(batches: list[TapBatch], rows: int, dim: int) -> Vectors:
    vec_ND, norm_N = np.zeros((rows, dim), np.float32), np.zeros(rows, np.float32)
    for batch in batches:
        vec_ND[batch.rows] = batch.vec_BD.float().cpu().numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            norms = batch.norm_B
            norm_N[batch.rows] = row_norms(vec_ND[batch.rows]) if norms is None else norms.float().cpu().numpy()
    return Vectors(vec_ND, norm_N)
