"""What a selector may see: ids, pool columns and the features it declares; never a model, an actor or Ray.

Axes: N pool rows (ids ascending), D features, M target rows.
"""

import json
from collections.abc import Iterator
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..store.arrays import Array
from ..store.errors import DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError, suggest
from ..store.features import FeatureBatch, FeatureSet
from ..store.files import digest
from ..store.ids import ids_digest
from ..store.keys import FeatureKey
from ..store.refusals import listing, refused_tasks
from ..store.usage import Usage
from .needs import Needs

# in front of a column's name: a field of the source records
EXTRA = "extra:"


@dataclass(frozen=True)
class ViewBatch(FeatureBatch):
    """Rows of one shard, and where they stand in `view.ids`: `positions` [rows]."""

    positions: Array = field(kw_only=True)


@dataclass(eq=False)
class View:
    """A pool and its features.

    `ids` and `columns` [N] come in any order, the same for all; ids are kept ascending. `refused` ids (rows
    that a needed feature stage could not compute) are left out of the pool: a budget counts the rest.
    `checkpoint_weights` (step → weight) default to equal ones; steps without features are ignored.

    Raises:
        DuplicateRowsError: an id is there twice.
    """

    ids: Array
    columns: dict[str, Array]
    _: KW_ONLY
    features_root: str | None = None
    targets_root: str | None = None
    needs: Needs = field(default_factory=Needs)
    checkpoint_weights: dict[int, float] | None = None
    refused: Array | None = None

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids, np.uint64)
        self.left_out: Array = np.unique(np.asarray([] if self.refused is None else self.refused, np.uint64))
        order = np.argsort(ids, kind="stable")
        order = order[~_among(ids[order], self.left_out)]
        self.ids = ids[order]
        twice = int((self.ids[1:] == self.ids[:-1]).sum())
        if twice:
            raise DuplicateRowsError(f"the pool: {twice} of {len(ids)} ids are there twice.")
        self.columns = {n: np.asarray(c)[order] for n, c in self.columns.items()}
        self._sets: dict[tuple[str, str], FeatureSet] = {}
        self._placed: dict[int, tuple[Array, Array, Array]] = {}

    def column(self, name: str) -> Array:
        """Return one pool column [N]: `source`, `task`, `has_image`, `n_chars`, or a declared `extra:FIELD` (objects).

        Raises:
            InputError: there is no such column, or the selector does not declare it.
        """
        if name.startswith(EXTRA):
            self._allow(name.removeprefix(EXTRA) in self.needs.fields, name)
        if name not in self.columns:
            raise InputError(f"the pool has no column {name!r}{suggest(name, self.columns)}")
        return self.columns[name]

    def steps(self, kind: str) -> list[int]:
        """List the checkpoints of a kind, ascending."""
        return self._features(kind).steps()

    def dim(self, kind: str) -> int:
        """Return the width of a kind's vectors."""
        return self._features(kind).key(self.steps(kind)[0]).dim

    def recipe(self, kind: str) -> dict[str, Any]:
        """Return the maths of a kind (`FeatureKey.recipe`), the same at every checkpoint."""
        return self._features(kind).key(self.steps(kind)[0]).facts()

    def weights(self, kind: str, explicit: dict[int, float] | None = None) -> dict[int, float]:
        """Return each checkpoint's weight, summing to 1; `explicit` ones must name checkpoints that are there.

        Raises:
            InputError: the weights do not fit the checkpoints, or sum to nothing.
        """
        steps = self.steps(kind)
        weights = explicit or self.checkpoint_weights or dict.fromkeys(steps, 1.0)
        unknown = sorted(set(explicit or ()) - set(steps))
        missing = [s for s in steps if s not in weights]
        used = {s: float(weights[s]) for s in steps if s in weights}
        if unknown or missing or min(used.values()) < 0 or sum(used.values()) <= 0:
            raise InputError(
                f"checkpoint weights {weights} do not fit the {kind} steps {steps} "
                f"(unknown {unknown}, missing {missing}): give each a weight of 0 or more, one above 0."
            )
        return {s: w / sum(used.values()) for s, w in used.items()}

    def scan(self, kind: str, step: int) -> Iterator[ViewBatch]:
        """Yield the pool's rows of one checkpoint, shard by shard; memory does not grow with the pool.

        Raises:
            InputError: the kind is not declared, there are no such features, or they hold rows of another
                pool. MissingRowsError, DuplicateRowsError: at the end, when not every row came exactly once.
        """
        seen = np.zeros(len(self.ids), bool)
        for number, whole in enumerate(self._features(kind).scan(step)):
            keep, positions = self._place(number, whole.ids, f"{kind} at step {step}")
            if seen[positions].any():
                raise DuplicateRowsError(f"{kind} at step {step}: rows are there twice. Remove the surplus part.")
            seen[positions] = True
            # vectors are copied only when refused rows must go
            rows = whole if keep.all() else whole.rows(keep)
            yield ViewBatch(rows.ids, rows.n_tokens, rows.vec, norm=rows.norm, positions=positions)
        if not seen.all():
            raise MissingRowsError(
                f"{kind} at step {step}: {int(seen.sum())} of {len(seen)} rows are there. Run "
                "`vinnow features` again: it goes on where it stopped."
            )

    def load(self, kind: str, step: int) -> Array:
        """Return one checkpoint's vectors f32 [N, D] in the order of `ids`; for narrow features (losses)."""
        out = np.zeros((len(self.ids), self.dim(kind)), np.float32)
        for batch in self.scan(kind, step):
            out[batch.positions] = batch.vec
        return out

    def targets(self, kind: str, step: int) -> FeatureBatch:
        """Return the targets' vectors f32 [M, D] with their tasks.

        Raises:
            KeyMismatchError: they were made by another model or recipe than the pool's. `mode` and `optimizer`
                may differ: LESS takes adam gradients for the pool and sgd ones for the targets.
        """
        features = self._targets(kind)
        mine, theirs = _comparable(self._features(kind).key(step)), _comparable(features.key(step))
        names = sorted(set(mine) | set(theirs))
        wrong = [f"{n}: {mine.get(n)!r} against {theirs.get(n)!r}" for n in names if mine.get(n) != theirs.get(n)]
        if wrong:
            raise KeyMismatchError(
                f"features and targets of {kind} at step {step} cannot be compared: {'; '.join(wrong)}. "
                "Make one of them anew."
            )
        batch = features.load(step)
        if batch.task is None:
            raise InputError(f"{self.targets_root}: no tasks in it; make it with `vinnow features --targets`.")
        return batch

    def target_usage(self, kind: str) -> dict[str, Usage]:
        """Account for the target rows by task, those refused at any step among them; lists without tasks count as ""."""
        features = self._targets(kind)
        assert self.targets_root is not None
        tasks = features.load(features.steps()[0]).task
        refused, where = refused_tasks(self.targets_root, features.name), listing(self.targets_root, [features.name])
        there = [] if tasks is None else tasks.tolist()
        return {t: Usage(there.count(t), refused.get(t, {}), where) for t in sorted({*there, *refused})}

    def digest_facts(self) -> dict[str, Any]:
        """Return what scores depend on: rows, columns, weights, the keys of declared features and targets."""
        kinds = self.needs.features
        sets = {k: self._features(k) for k in kinds}
        if self.needs.targets:
            sets |= {f"targets {k}": self._targets(k) for k in kinds}
        # the storage too: a quantised store gives other cosines under the same key
        facts: dict[str, Any] = {
            k: [asdict(s.key(step)) | {"stored": s.stored(step)} for step in s.steps()] for k, s in sets.items()
        }
        # rows of targets that were refused may have come back, under the same key
        if self.needs.targets:
            facts["target rows"] = [
                [ids_digest(self._targets(k).ids(s)) for s in self._targets(k).steps()] for k in kinds
            ]
        columns = {n: (_objects_digest if n.startswith(EXTRA) else _column_digest)(c) for n, c in self.columns.items()}
        return facts | {"weights": self.checkpoint_weights, "rows": ids_digest(self.ids), "columns": columns}

    def _place(self, number: int, ids: Array, what: str) -> tuple[Array, Array]:
        """Return which rows of a shard count, and where those stand in `self.ids`."""
        # checkpoints are cut alike: looking rows up again at each of 104 steps cost more than all else in XMAS
        known = self._placed.get(number)
        if known is not None and np.array_equal(known[0], ids):
            return known[1:]
        keep = ~_among(ids, self.left_out)
        mine = ids[keep]
        order = np.argsort(mine)
        ranked = mine[order]
        positions = np.empty(len(mine), np.int64)
        positions[order] = np.searchsorted(self.ids, ranked)
        strange = mine[~_among(mine, self.ids)]
        if len(strange):
            raise InputError(
                f"{what} holds rows that are not in this pool, first sample_id {int(strange[0])}: these features "
                "were made for another pool."
            )
        if (ranked[1:] == ranked[:-1]).any():
            raise DuplicateRowsError(f"{what}: rows are there twice in one part. Make that part anew.")
        self._placed[number] = ids, keep, positions
        return keep, positions

    def _features(self, kind: str) -> FeatureSet:
        self._allow(kind in self.needs.features, kind)
        if self.features_root is None:
            raise InputError(f"this selector reads {kind!r} features: give their store (--features).")
        return self._open(self.features_root, kind)

    def _targets(self, kind: str) -> FeatureSet:
        self._allow(self.needs.targets, "targets")
        self._allow(kind in self.needs.features, kind)
        if self.targets_root is None:
            raise InputError("this selector reads targets: give their feature store (--targets).")
        return self._open(self.targets_root, kind)

    def _open(self, root: str, kind: str) -> FeatureSet:
        if (root, kind) not in self._sets:
            features = FeatureSet(root, self.needs.name_of(kind))
            first = features.key(features.steps()[0])
            if kind in self.needs.reads and first.kind != kind:
                raise InputError(
                    f"reads: {features.name!r} in {root!r} are {first.kind} features, and the selector reads {kind!r}."
                )
            # numbers of two recipes must not be added up over checkpoints; `optimizer` is each checkpoint's own
            features.check_key(kind=first.kind, dim=first.dim, pool=first.pool, recipe=first.recipe)
            self._sets[root, kind] = features
        return self._sets[root, kind]

    def _allow(self, declared: bool, what: str) -> None:
        if not declared:
            raise InputError(f"the selector reads {what!r} but declares only {self.needs.words()}; add it to `needs`.")


def _among(ids: Array, known: Array) -> Array:
    """Say for each id whether it is in `known` (ascending); np.isin would sort it again for every shard."""
    if not len(known):
        return np.zeros(len(ids), bool)
    return known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids


def _comparable(key: FeatureKey) -> dict[str, Any]:
    recipe = {f"recipe.{n}": v for n, v in key.facts().items() if n != "mode"}
    return {"kind": key.kind, "dim": key.dim, "model": key.model, "checkpoint": key.checkpoint} | recipe


def _column_digest(column: Array) -> str:
    values = pa.array(column).dictionary_encode()
    return digest(values.indices.to_numpy(zero_copy_only=False).tobytes(), json.dumps(values.dictionary.to_pylist()))


def _objects_digest(column: Array) -> str:
    return digest(json.dumps(column.tolist(), sort_keys=True))
