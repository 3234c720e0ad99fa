"""What a selector may see: ids, pool columns and the features that it declares; never a model, an actor or Ray."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from ..store.errors import DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError, suggest
from ..store.features import FeatureBatch, FeatureSet
from ..store.keys import FeatureKey

Array = np.ndarray[Any, Any]


class View:
    """A pool and its features. Axes: N rows (ids ascending), D features, M target rows.

    `columns` are pool columns in the order of the given ids; `refused` ids (rows that a needed feature stage could not
    compute) are left out. `checkpoint_weights` (step → weight) default to equal ones.
    """

    def __init__(
        self,
        ids: Array,
        columns: dict[str, Array],
        *,
        features_root: str | None = None,
        targets_root: str | None = None,
        needs: tuple[str, ...] = (),
        checkpoint_weights: dict[int, float] | None = None,
        refused: Array | None = None,
    ) -> None:
        order = np.argsort(ids, kind="stable")
        if refused is not None and len(refused):
            order = order[~np.isin(ids[order], refused)]
        self.ids: Array = np.asarray(ids, np.uint64)[order]
        self._columns = {n: c[order] for n, c in columns.items()}
        self.features_root, self.targets_root, self.needs = features_root, targets_root, needs
        self.refused = np.asarray(refused if refused is not None else [], np.uint64)
        self._weights = checkpoint_weights
        self._sets: dict[str, FeatureSet] = {}

    def column(self, name: str) -> Array:
        """Return one pool column [N]."""
        if name not in self._columns:
            raise InputError(f"the pool has no column {name!r}{suggest(name, self._columns)}")
        return self._columns[name]

    def steps(self, kind: str) -> list[int]:
        """List the checkpoints of a kind, ascending."""
        return self._set(kind).steps()

    def weights(self, kind: str) -> dict[int, float]:
        """Return the weight of each checkpoint, summing to 1.

        Raises:
            InputError: weights were given, but not for every checkpoint, or they sum to nothing.
        """
        steps = self.steps(kind)
        given = self._weights or dict.fromkeys(steps, 1.0)
        missing = [s for s in steps if s not in given]
        total = sum(given.get(s, 0.0) for s in steps)
        if missing or total <= 0:
            raise InputError(f"checkpoint weights {given} do not fit the {kind} steps {steps}.")
        return {s: given[s] / total for s in steps}

    def scan(self, kind: str, step: int) -> Iterator[tuple[Array, FeatureBatch]]:
        """Yield `(positions in ids, batch)`; in the end every row must have been there exactly once.

        Raises:
            MissingRowsError, DuplicateRowsError, InputError: rows missing, twice, or not of this pool.
        """
        seen = np.zeros(len(self.ids), bool)
        for batch in self._set(kind).scan(step):
            known = ~np.isin(batch.ids, self.refused)
            batch = FeatureBatch(batch.ids[known], batch.n_tokens[known], batch.vec[known])
            if not len(batch.ids):
                continue
            at = np.searchsorted(self.ids, batch.ids)
            if (at >= len(self.ids)).any() or (self.ids[np.minimum(at, len(self.ids) - 1)] != batch.ids).any():
                raise InputError(f"{kind} at step {step} holds rows that are not in this pool: made for another one.")
            if seen[at].any() or len(np.unique(at)) != len(at):
                raise DuplicateRowsError(f"{kind} at step {step}: rows are there twice.")
            seen[at] = True
            yield at, batch
        if not seen.all():
            raise MissingRowsError(
                f"{kind} at step {step}: {int(seen.sum())} of {len(seen)} rows are there. Run `vinnow features` again: it "
                "goes on where it stopped."
            )

    def load(self, kind: str, step: int) -> Array:
        """Return one checkpoint's vectors f32 [N, D] in the order of `ids`; for narrow features (trajectories, losses)."""
        out: Array | None = None
        for at, batch in self.scan(kind, step):
            if out is None:
                out = np.zeros((len(self.ids), batch.vec.shape[1]), np.float32)
            out[at] = batch.vec
        assert out is not None
        return out

    def targets(self, kind: str, step: int) -> FeatureBatch:
        """Return the targets' vectors f32 [M, D] with their tasks.

        Raises:
            KeyMismatchError: they were made by another model or recipe (but `mode`, which may differ by design).
        """
        self._allow("targets")
        if self.targets_root is None:
            raise InputError("this selector reads targets: give their feature store (--targets).")
        found = FeatureSet(self.targets_root, kind)
        mine, theirs = _comparable(self._set(kind).key(step)), _comparable(found.key(step))
        wrong = [f"{n}: {mine[n]!r} against {theirs[n]!r}" for n in mine if mine[n] != theirs[n]]
        if wrong:
            raise KeyMismatchError(f"targets and features of {kind} at step {step} differ in {'; '.join(wrong)}.")
        batch = found.load(step)
        if batch.task is None:
            raise InputError(f"{self.targets_root}: no tasks in it; make it with `vinnow features --targets`.")
        return batch

    def digest_facts(self) -> dict[str, Any]:
        """Return what a score depends on: the keys of all needed features and targets, and the rows."""
        kinds = [n for n in self.needs if n != "targets"]
        facts: dict[str, Any] = {k: [asdict(self._set(k).key(s)) for s in self.steps(k)] for k in kinds}
        if "targets" in self.needs and self.targets_root is not None:
            for kind in kinds:
                found = FeatureSet(self.targets_root, kind)
                facts[f"targets {kind}"] = [asdict(found.key(s)) for s in found.steps()]
        return facts | {"weights": self._weights}

    def _set(self, kind: str) -> FeatureSet:
        self._allow(kind)
        if self.features_root is None:
            raise InputError(f"this selector reads {kind!r} features: give their store (--features).")
        if kind not in self._sets:
            self._sets[kind] = FeatureSet(self.features_root, kind)
        return self._sets[kind]

    def _allow(self, kind: str) -> None:
        if kind not in self.needs:
            raise InputError(f"the selector reads {kind!r} but declares only {self.needs}; add it to `needs`.")


def _comparable(key: FeatureKey) -> dict[str, Any]:
    recipe = json.loads(key.recipe)
    recipe.pop("mode", None)  # LESS takes adam for the pool and sgd for targets
    return {"kind": key.kind, "dim": key.dim, "model": key.model, "checkpoint": key.checkpoint, "recipe": recipe}
