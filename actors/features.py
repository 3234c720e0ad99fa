"""The feature actor: a plain class that turns parts of the pool into parts of the feature store.

It runs inline in a test, on local Ray, and on a GPU alike; `stream.py` puts it on Ray Data. The unit of work is one part:
written whole or not at all, so a retried or repeated task changes nothing.
"""

import time
from typing import Any

import numpy as np
import torch

from ..models.load import load
from ..models.taps.attention import AttentionTap
from ..models.taps.forward import LossTap
from ..models.taps.gradients import GradientTap
from ..pool.collate import collate
from ..store.features import FeatureBatch, write_part
from ..store.keys import FeatureKey
from ..store.refusals import write_refused
from .batching import token_batches
from .config import FeatureConfig, FeatureSpec
from .loader import LoadedPart, PartLoader, unpack


class FeatureActor:
    """`__init__` loads the checkpoints of this pass; `__call__` computes and writes whole parts."""

    def __init__(self, spec: FeatureSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self.loader = PartLoader(spec)
        config = spec.config
        loaded = [load(c.path, config.precision, spec.device) for c in spec.checkpoints]
        for model, key in zip(loaded, spec.keys, strict=True):
            # the driver made the keys; the weights may have changed on disk since
            assert model.digest == key.model, f"{model.path} changed while the run was under way"
        self.taps = {key.checkpoint: make_tap(m.model, config) for m, key in zip(loaded, spec.keys, strict=True)}
        self.keys = {key.checkpoint: key for key in spec.keys}
        self.pad_id = loaded[0].processor.tokenizer.pad_token_id or 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take rows of (part, todo[, payload]); return one row of counts for each part."""
        payloads = batch.get("payload", [None] * len(batch["part"]))
        rows = [
            self.compute(str(name), [int(s) for s in str(todo).split(",")], payload)
            for name, todo, payload in zip(batch["part"], batch["todo"], payloads, strict=True)
        ]
        return {k: np.array([r[k] for r in rows]) for k in rows[0]}

    def compute(self, name: str, steps: list[int], payload: bytes | None = None) -> dict[str, Any]:
        """Compute one part at the given checkpoints: pictures are decoded once for all of them."""
        start = time.perf_counter()
        part = self.loader.load(name) if payload is None else unpack(payload)
        counts = {"tokens": 0, "padded": 0, "refused": 0}
        for step in steps:
            self._one_step(name, part, self.keys[step], counts)
        return {
            "part": name,
            "rows": len(part.encoded) * len(steps),
            "seconds": time.perf_counter() - start,
        } | counts

    def _one_step(self, name: str, part: LoadedPart, key: FeatureKey, counts: dict[str, int]) -> None:
        config = self.spec.config
        n = len(part.encoded)
        vec_ND = np.zeros((n, key.dim), np.float32)
        lengths = [len(e.input_ids) for e in part.encoded]
        for rows in token_batches(lengths, config.token_budget, config.max_rows):
            vec_ND[rows] = self.taps[key.checkpoint](self._collate(part, rows))
            longest = max(lengths[i] for i in rows)
            counts["tokens"] += longest * len(rows)
            counts["padded"] += longest * len(rows) - sum(lengths[i] for i in rows)
        refused = list(part.refused)
        keep = np.isfinite(vec_ND).all(1)
        if config.kind == "gradient" and config.unit_rows:
            norm_N1 = np.linalg.norm(vec_ND, axis=1, keepdims=True)
            vec_ND = np.divide(vec_ND, norm_N1, out=np.zeros_like(vec_ND), where=norm_N1 > 0)
        for i in np.flatnonzero(~keep):
            refused.append((part.encoded[i].sample_id, "", "not_finite", f"{key.kind} at step {key.checkpoint}"))
        ids = np.array([e.sample_id for e in part.encoded], np.uint64)
        tasks = np.array(part.tasks, object)[keep] if self.spec.targets else None
        counts["refused"] += len(refused)
        write_refused(self.spec.out, key.kind, key.checkpoint, name, refused)
        batch = FeatureBatch(ids[keep], np.array(lengths, np.int32)[keep], vec_ND[keep], tasks)
        write_part(self.spec.out, key, name, batch, config.dtype)

    def _collate(self, part: LoadedPart, rows: list[int]) -> dict[str, Any]:
        pixels = [part.pixels[i] for i in rows]
        batch = collate([part.encoded[i] for i in rows], [None] * len(rows), self.pad_id)
        owner = [r for r, p in enumerate(pixels) if p is not None]
        if owner:
            # uint8 travels, floats are made on the device
            u8 = torch.from_numpy(np.stack([p for p in pixels if p is not None])).to(self.spec.device)
            batch["pixel_values"] = self.loader.encoder.normalise(u8)
        batch["image_owner"] = torch.tensor(owner, dtype=torch.long)
        return batch


def make_tap(model: Any, config: FeatureConfig) -> Any:
    """Return the tap of a feature kind: batch → vectors [B, D]. A new kind is one entry here and in `FeatureConfig`."""
    if config.kind == "gradient":
        return GradientTap(model, config.which, config.projection, config.mode)
    if config.kind == "trajectory":
        return AttentionTap(model, config.top_k)
    return LossTap(model)
