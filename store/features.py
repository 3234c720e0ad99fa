"""The feature store: `ROOT/KIND/step=NNNNNNNN/part-*.parquet`, one folder a checkpoint, one key a folder.

Laws: a part appears by temporary file + rename, so its presence means done; its vectors are finite after the cast; the
reader refuses another key, a missing row and a row twice. Axes: N rows, D = `key.dim`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from .errors import DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError, NotFiniteError
from .files import join, list_files, open_fs, write_parquet
from .keys import FeatureKey
from .tables import conform, features_schema, targets_schema

DTYPES = {"float16": pa.float16(), "float32": pa.float32()}
_STEP = re.compile(r"step=(\d+)/[^/]+\.parquet$")


@dataclass(frozen=True)
class FeatureBatch:
    """Rows of one part: `ids` u64 [N], `n_tokens` i32 [N], `vec` f32 [N, D], `task` [N] for targets, else None."""

    ids: np.ndarray[Any, Any]
    n_tokens: np.ndarray[Any, Any]
    vec: np.ndarray[Any, Any]
    task: np.ndarray[Any, Any] | None = None


def step_folder(root: str | os.PathLike[str], kind: str, step: int) -> str:
    """Return the folder of one kind at one checkpoint."""
    return join(root, kind, f"step={step:08d}")


def write_part(
    root: str | os.PathLike[str], key: FeatureKey, name: str, batch: FeatureBatch, dtype: str = "float16"
) -> str:
    """Write one part, whole or not at all, and return its path.

    Raises:
        NotFiniteError: a value is NaN or infinite after the cast to `dtype`; names the first row.
        InputError: the vectors' width is not `key.dim`, or the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise InputError(f"features are stored as {sorted(DTYPES)}, not {dtype!r}.")
    if batch.vec.ndim != 2 or batch.vec.shape[1] != key.dim:
        raise InputError(f"{key.kind}: vectors have shape {batch.vec.shape}, the key says dim={key.dim}.")
    with np.errstate(over="ignore"):
        cast_ND = batch.vec.astype(dtype)
    bad = np.flatnonzero(~np.isfinite(cast_ND).all(axis=1))
    if bad.size:
        raise NotFiniteError(
            f"{key.kind} at step {key.checkpoint}: {bad.size} rows are not finite as {dtype}, first sample_id "
            f"{int(batch.ids[bad[0]])}. Store float32, or look at that record."
        )
    kind = DTYPES[dtype]
    columns = {
        "sample_id": pa.array(batch.ids.astype(np.uint64)),
        "step": pa.array(np.full(len(batch.ids), key.checkpoint, dtype=np.int64)),
        "n_tokens": pa.array(batch.n_tokens.astype(np.int32)),
        "vec": pa.FixedSizeListArray.from_arrays(pa.array(cast_ND.reshape(-1), type=kind), key.dim),
    }
    schema = features_schema(key.dim, kind)
    if batch.task is not None:
        columns["task"] = pa.array(list(batch.task), type=pa.string())
        schema = targets_schema(key.dim, kind)
    table = conform(pa.table(columns), schema, name).replace_schema_metadata(key.to_metadata())
    path = join(step_folder(root, key.kind, key.checkpoint), f"{name}.parquet")
    # only leaf columns can be split by byte stream; the vector's leaf is vec.list.element
    write_parquet(path, table, split_columns=("vec.list.element",))
    return path


def parts_done(root: str | os.PathLike[str], key: FeatureKey) -> set[str]:
    """Name the parts already written under exactly this key.

    Raises:
        KeyMismatchError: the folder holds features of another key; lists what differs.
    """
    done = set()
    for path in list_files(step_folder(root, key.kind, key.checkpoint), ".parquet"):
        _refuse_other_key(path, _read_key(path), key)
        done.add(path.rsplit("/", 1)[1].removesuffix(".parquet"))
    return done


class FeatureSet:
    """Reads all checkpoints of one kind."""

    def __init__(self, root: str | os.PathLike[str], kind: str) -> None:
        self.root, self.kind = os.fspath(root), kind
        self._parts: dict[int, list[str]] = {}
        for path in list_files(join(root, kind), ".parquet", recursive=True):
            if match := _STEP.search(path):
                self._parts.setdefault(int(match.group(1)), []).append(path)
        if not self._parts:
            raise InputError(f"no {kind!r} features under {self.root!r}. Make them with `vinnow features`.")

    def steps(self) -> list[int]:
        """List the checkpoints, ascending."""
        return sorted(self._parts)

    def key(self, step: int) -> FeatureKey:
        """Return the key of one checkpoint, from its first part."""
        return _read_key(self._of(step)[0])

    def check_key(self, **expected: Any) -> None:
        """Refuse features whose key differs in any of the given fields, at any checkpoint."""
        for step in self.steps():
            key = self.key(step)
            _refuse_other_key(self._of(step)[0], key, replace(key, **expected))

    def scan(self, step: int) -> Iterator[FeatureBatch]:
        """Yield one batch a row group, in part order; memory does not grow with the pool.

        Raises:
            KeyMismatchError: a part has another key than the first one.
        """
        first = self.key(step)
        for path in self._of(step):
            fs, inner = open_fs(path)
            with fs.open_input_file(inner) as source:
                file = pq.ParquetFile(source)
                _refuse_other_key(path, FeatureKey.from_metadata(file.schema_arrow.metadata, path), first)
                for group in range(file.num_row_groups):
                    yield _to_batch(file.read_row_group(group), first.dim)

    def load(self, step: int, ids: np.ndarray[Any, Any] | None = None) -> FeatureBatch:
        """Load one checkpoint; with `ids`, exactly those rows in that order.

        Raises:
            MissingRowsError: some of `ids` have no row ("100 of 300").
            DuplicateRowsError: a row is there twice.
        """
        batches = list(self.scan(step))
        whole = FeatureBatch(
            np.concatenate([b.ids for b in batches]),
            np.concatenate([b.n_tokens for b in batches]),
            np.concatenate([b.vec for b in batches]),
            np.concatenate([b.task for b in batches if b.task is not None]) if batches[0].task is not None else None,
        )
        take = match_rows(whole.ids, whole.ids if ids is None else ids, f"{self.kind} at step {step}")
        if ids is None:
            return whole
        return FeatureBatch(
            whole.ids[take],
            whole.n_tokens[take],
            whole.vec[take],
            None if whole.task is None else whole.task[take],
        )

    def ids(self, step: int) -> np.ndarray[Any, Any]:
        """Return the ids of one checkpoint, in part order, without reading vectors."""
        found = []
        for path in self._of(step):
            fs, inner = open_fs(path)
            with fs.open_input_file(inner) as source:
                found.append(pq.ParquetFile(source).read(columns=["sample_id"])["sample_id"].to_numpy())
        return np.concatenate(found)

    def _of(self, step: int) -> Sequence[str]:
        if step not in self._parts:
            raise InputError(f"no {self.kind!r} features at step {step}; there are {self.steps()} in {self.root!r}.")
        return self._parts[step]


def match_rows(have: np.ndarray[Any, Any], want: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """Return where each of `want` (u64) stands in `have` (u64).

    Raises:
        DuplicateRowsError: `have` holds an id twice.
        MissingRowsError: some of `want` are not there.
    """
    order = np.argsort(have, kind="stable")
    ranked = have[order]
    twice = int((ranked[1:] == ranked[:-1]).sum())
    if twice:
        raise DuplicateRowsError(f"{what}: {twice} of {len(have)} rows are there twice. Remove the surplus part.")
    at = np.searchsorted(ranked, want)
    found = (at < len(ranked)) & (ranked[np.minimum(at, max(len(ranked) - 1, 0))] == want) if len(ranked) else at < 0
    if not found.all():
        raise MissingRowsError(
            f"{what}: {int(found.sum())} of {len(want)} rows are there. Run `vinnow features` again: it goes on where it "
            "stopped."
        )
    return order[at]


def _read_key(path: str) -> FeatureKey:
    fs, inner = open_fs(path)
    try:
        with fs.open_input_file(inner) as source:
            return FeatureKey.from_metadata(pq.read_schema(source).metadata, path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path!r} is not a readable Parquet file: {error}. Delete it and run again.") from error


def _refuse_other_key(path: str, found: FeatureKey, wanted: FeatureKey) -> None:
    differences = found.differences(wanted)
    if differences:
        raise KeyMismatchError(
            f"{path}: these features were made under another key (found against wanted): {'; '.join(differences)}. "
            "Use another output folder, or make them anew."
        )


def _to_batch(table: pa.Table, dim: int) -> FeatureBatch:
    vec = table["vec"].combine_chunks()
    flat = (
        vec.flatten() if isinstance(vec, pa.FixedSizeListArray) else pa.concat_arrays([c.flatten() for c in vec.chunks])
    )
    task = np.array(table["task"].to_pylist()) if "task" in table.column_names else None
    return FeatureBatch(
        table["sample_id"].to_numpy(),
        table["n_tokens"].to_numpy(),
        flat.to_numpy(zero_copy_only=False).reshape(-1, dim).astype(np.float32),
        task,
    )


def exists_any(root: str | os.PathLike[str], kind: str) -> bool:
    """Say whether any features of a kind lie under a root."""
    fs, inner = open_fs(join(root, kind))
    return fs.get_file_info(inner).type == pafs.FileType.Directory
