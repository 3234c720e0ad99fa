"""One shard of the feature store: rows in memory ↔ an Arrow table, in any storage. Axes: N rows, D = `key.dim`.

Measured on 1000 × 8192 Gaussian rows, one core: codes as one fixed-size binary per row, plain + zstd, take 7.1 KB per row
for int8 (14 ms to write, 9 to read) and 1.0 KB for bit1 (1 ms). As lists the leaves of int8 are Parquet INT32: 32 KB
plain, 10.8 with zstd, 7.2 with a dictionary, all some ten times slower. Floats stay lists, in BYTE_STREAM_SPLIT + zstd
(fp16: 13.5 KB, against 14.7 plain).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .arrays import Array
from .errors import DamagedError, InputError, NotFiniteError
from .keys import FeatureKey
from .quantise import CODES, STORED, code_width, decode, encode, row_norms
from .tables import conform, features_schema, refuse_other_columns, targets_schema

# in the footer, beside the key: two storages of one feature are the same feature, but not the same numbers
STORED_FOOTER = b"vinnow.stored"


@dataclass(frozen=True)
class Footer:
    """What every shard says of itself: the features' key, and the storage of the vectors."""

    key: FeatureKey
    stored: str


@dataclass(frozen=True)
class FeatureBatch:
    """Rows of one shard: `ids` u64 [N], `n_tokens` i32 [N], `vec` f32 [N, D], `task` [N] for targets, else None.

    `norm` f32 [N] is the L2 norm of the row before it was scaled or quantised (for unit rows: the norm that was
    divided out). Without it the writer takes that of `vec`; readers always return it.
    """

    ids: Array
    n_tokens: Array
    vec: Array
    task: Array | None = None
    norm: Array | None = None

    def rows(self, positions: Array) -> "FeatureBatch":
        """Return the rows at these positions (or where a mask is true)."""
        task, norm = (None if c is None else c[positions] for c in (self.task, self.norm))
        return FeatureBatch(self.ids[positions], self.n_tokens[positions], self.vec[positions], task, norm)


def joined(batches: list[FeatureBatch]) -> FeatureBatch:
    """Return the batches as one; a column that any of them lacks is None."""
    columns = [[getattr(b, name) for b in batches] for name in ("ids", "n_tokens", "vec", "task", "norm")]
    ids, n_tokens, vec, task, norm = (None if any(x is None for x in c) else np.concatenate(c) for c in columns)
    assert ids is not None
    assert n_tokens is not None
    assert vec is not None
    return FeatureBatch(ids, n_tokens, vec, task, norm)


def to_table(key: FeatureKey, batch: FeatureBatch, stored: str, what: str) -> pa.Table:
    """Return one shard as FEATURES or TARGETS with its footer.

    Raises:
        NotFiniteError: a value is NaN or infinite as `stored`, or a norm is; names the first row.
        InputError: the vectors' width is not `key.dim`, the norms are not one per row, or the storage is unknown.
    """
    if batch.vec.ndim != 2 or batch.vec.shape[1] != key.dim:
        raise InputError(f"{key.kind}: vectors have shape {batch.vec.shape}, the key says dim={key.dim}.")
    codes, scale_N = encode(batch.vec, stored)
    norm_N = _norms(key, batch)
    finite = np.isfinite(norm_N) & (np.isfinite(codes).all(1) if scale_N is None else np.isfinite(scale_N))
    bad = np.flatnonzero(~finite)
    if bad.size:
        raise NotFiniteError(
            f"{key.kind} at step {key.checkpoint}: {bad.size} rows are not finite as {stored}, first sample_id "
            f"{int(batch.ids[bad[0]])}. Store float32, or look at that record."
        )
    columns = {
        "sample_id": pa.array(batch.ids.astype(np.uint64)),
        "step": pa.array(np.full(len(batch.ids), key.checkpoint, dtype=np.int64)),
        "n_tokens": pa.array(batch.n_tokens.astype(np.int32)),
        "norm": pa.array(norm_N),
        "vec": _column(codes, stored, key.dim),
    }
    if scale_N is not None:
        columns["scale"] = pa.array(scale_N)
    schema = features_schema(key.dim, stored)
    if batch.task is not None:
        columns["task"] = pa.array(list(batch.task), type=pa.string())
        schema = targets_schema(key.dim, stored)
    footer = key.to_metadata() | {STORED_FOOTER: stored.encode()}
    return conform(pa.table(columns), schema, what).replace_schema_metadata(footer)


def to_batch(table: pa.Table, stored: str, dim: int) -> FeatureBatch:
    """Return a table's rows, dequantised to f32 [N, D] whatever the storage."""
    empty = [n for n in table.column_names if table[n].null_count]
    if empty:
        raise DamagedError(f"a feature part has rows without {empty}. Make the features anew.")
    vec = table["vec"].combine_chunks()
    chunks = vec.chunks if isinstance(vec, pa.ChunkedArray) else [vec]
    codes = np.concatenate([_codes(c, stored, dim) for c in chunks]) if len(chunks) != 1 else _codes(vec, stored, dim)
    scale_N = table["scale"].to_numpy() if stored in CODES else None
    return FeatureBatch(
        table["sample_id"].to_numpy(),
        table["n_tokens"].to_numpy(),
        decode(codes, scale_N, stored, dim),
        np.array(table["task"].to_pylist()) if "task" in table.column_names else None,
        table["norm"].to_numpy(),
    )


def read_footer(schema: pa.Schema, path: str) -> Footer:
    """Return a shard's key and storage.

    Raises:
        InputError: it was not written by vinnow, or by a version without norms and storages.
    """
    key = FeatureKey.from_metadata(schema.metadata, path)
    stored = schema.metadata.get(STORED_FOOTER, b"").decode()
    if stored not in STORED or "norm" not in schema.names:
        raise InputError(
            f"{path}: a part without row norms, or in an unknown storage ({stored!r}): another version of vinnow wrote "
            "it. Delete this folder and make the features anew."
        )
    if key.dim < 1:
        raise DamagedError(f"{path!r}: its key says that a vector has {key.dim} numbers. Make the features anew.")
    refuse_other_columns(schema, features_schema(key.dim, stored), path, "Make the features anew.")
    return Footer(key, stored)


def _norms(key: FeatureKey, batch: FeatureBatch) -> Array:
    if batch.norm is None:
        norm_N = row_norms(batch.vec)
    elif batch.norm.shape != (len(batch.ids),):
        raise InputError(f"{key.kind}: norms have shape {batch.norm.shape} for {len(batch.ids)} rows; give one a row.")
    else:
        norm_N = batch.norm
    with np.errstate(over="ignore"):
        return norm_N.astype(np.float32)


def _column(codes: Array, stored: str, dim: int) -> pa.Array:
    if stored in CODES:
        width = code_width(stored, dim)
        buffers = [None, pa.py_buffer(np.ascontiguousarray(codes))]
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(codes), buffers)
    return pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), dim)


def _codes(vec: pa.Array, stored: str, dim: int) -> Array:
    if stored not in CODES:
        return vec.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    width = code_width(stored, dim)
    if not len(vec):
        return np.zeros((0, width), np.uint8)
    kind = np.int8 if stored == "int8" else np.uint8
    start = vec.offset * width
    return np.frombuffer(vec.buffers()[1], kind)[start : start + len(vec) * width].reshape(-1, width)
