"""The feature store: `ROOT/NAME/step=NNNNNNNN/part-*.parquet`, one folder per checkpoint, one key and storage per folder.

A feature is called after its kind, or otherwise where a store holds several of one kind.

Laws: a shard appears by temporary file + rename, so its presence means done; its vectors are finite after the cast; the
reader refuses another key, another storage, a missing row and a row twice. Axes: N rows, D = `key.dim`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from .arrays import Array
from .batches import FeatureBatch, Footer, joined, read_footer, to_batch, to_table
from .errors import DamagedError, DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError
from .files import exists, join, list_files, look_at, open_fs, reading_parquet, write_parquet
from .keys import FeatureKey
from .names import path_part
from .prefetch import prefetch
from .quantise import FLOATS

# threads that read a store while its reader computes, and how many row groups they are ahead at most
READERS = 2
# bytes of one row group's vectors in float32: what `scan` holds is a few of them
_GROUP_BYTES = 1 << 25
_ANEW = "Run `vinnow features` again: it looks at every part, and computes damaged ones anew."
_STEP = re.compile(r"step=(\d+)/[^/]+\.parquet$")


def step_folder(root: str | os.PathLike[str], feature: str, step: int) -> str:
    """Return the folder of one feature at one checkpoint."""
    return join(root, path_part(feature, "feature or kind"), f"step={step:08d}")


def write_shard(
    root: str | os.PathLike[str],
    key: FeatureKey,
    name: str,
    batch: FeatureBatch,
    dtype: str = "float16",
    feature: str | None = None,
) -> str:
    """Write one shard, whole or not at all, and return its path; `dtype`: float32, float16, int8 or bit1.

    `feature`: what the feature is called; None: as its kind.

    Raises:
        NotFiniteError: a value is NaN or infinite after the cast to `dtype`; names the first row.
        InputError: the vectors' width is not `key.dim`, or the dtype is unknown.
    """
    path = join(step_folder(root, feature or key.kind, key.checkpoint), f"{path_part(name, 'part')}.parquet")
    table = to_table(key, batch, dtype, name)
    # only leaf columns can be split by byte stream; the vector's leaf is vec.list.element
    split = ("vec.list.element",) if dtype in FLOATS else ()
    rows = max(1, _GROUP_BYTES // (4 * key.dim))
    write_parquet(path, table, split_columns=split, dictionary=False, row_group_size=rows)
    return path


def shards_done(
    root: str | os.PathLike[str], key: FeatureKey, stored: str | None = None, feature: str | None = None
) -> set[str]:
    """Name the shards already written under exactly this key and, where it is given, in this storage.

    `feature`: what the feature is called; None: as its kind.

    Raises:
        KeyMismatchError: the folder holds features of another key or storage; lists what differs.
        DamagedError: a shard's footer cannot be read.
    """
    done = set()
    for path in list_files(step_folder(root, feature or key.kind, key.checkpoint), ".parquet"):
        footer = _read_footer(path)
        _refuse_other(path, footer, Footer(key, stored or footer.stored))
        done.add(_name(path))
    return done


def drop_damaged(root: str | os.PathLike[str], feature: str, step: int) -> list[str]:
    """Read every shard of a checkpoint, and delete those that are not as they were written; return their names."""
    paths = list_files(step_folder(root, feature, step), ".parquet")
    with ThreadPoolExecutor(READERS, thread_name_prefix="features") as threads:
        damaged = [path for path, sound in zip(paths, threads.map(_is_sound, paths), strict=True) if not sound]
    for path in damaged:
        fs, inner = open_fs(path)
        fs.delete_file(inner)
    return [_name(path) for path in damaged]


def _is_sound(path: str) -> bool:
    try:
        with reading_parquet(path, _ANEW, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group, use_threads=False)
    except DamagedError:
        return False
    return True


def _name(path: str) -> str:
    return path.rsplit("/", 1)[1].removesuffix(".parquet")


def drop_shard(root: str | os.PathLike[str], key: FeatureKey, name: str, feature: str | None = None) -> None:
    """Take back a shard that is computed anew, if it is there.

    Its list of refusals changes next: a shard must not stand beside a list that no longer names its missing rows.
    """
    path = join(step_folder(root, feature or key.kind, key.checkpoint), f"{name}.parquet")
    if exists(path):
        fs, inner = open_fs(path)
        fs.delete_file(inner)


class FeatureSet:
    """Reads all checkpoints of one feature, by its name."""

    def __init__(self, root: str | os.PathLike[str], name: str) -> None:
        self.root, self.name = os.fspath(root), name
        self._shards: dict[int, list[str]] = {}
        for path in list_files(join(root, name), ".parquet", recursive=True):
            if match := _STEP.search(path):
                self._shards.setdefault(int(match.group(1)), []).append(path)
        if not self._shards:
            raise InputError(f"no {name!r} features under {self.root!r}. Make them with `vinnow features`.")

    def steps(self) -> list[int]:
        """List the checkpoints, ascending."""
        return sorted(self._shards)

    def key(self, step: int) -> FeatureKey:
        """Return the key of one checkpoint, from its first shard."""
        return _read_footer(self._of(step)[0]).key

    def stored(self, step: int) -> str:
        """Return how one checkpoint is stored (float32, float16, int8 or bit1), from its first shard."""
        return _read_footer(self._of(step)[0]).stored

    def check_key(self, **expected: Any) -> None:
        """Refuse features whose key differs in any of the given fields, at any checkpoint."""
        for step in self.steps():
            footer = _read_footer(self._of(step)[0])
            _refuse_other(self._of(step)[0], footer, replace(footer, key=replace(footer.key, **expected)))

    def scan(self, step: int, every: int = 1) -> Iterator[FeatureBatch]:
        """Yield one batch per row group, in shard order, dequantised to float32; memory does not grow with the pool.

        Threads read up to READERS row groups ahead. `every`: only each so-manyth shard is read, for who wants a sample.

        Raises:
            KeyMismatchError: a shard has another key or storage than the first one.
        """
        first = _read_footer(self._of(step)[0])
        with ThreadPoolExecutor(READERS, thread_name_prefix="features") as threads:
            paths = self._of(step)[::every]
            for path, file, batch in prefetch(threads, lambda path: _read_group(path, first), paths, READERS):
                yield batch
                more = range(1, file.num_row_groups)
                for _, _, later in prefetch(threads, partial(_read_group, path, first, file), more, READERS):
                    yield later

    def load(self, step: int, ids: Array | None = None) -> FeatureBatch:
        """Load one checkpoint; with `ids`, exactly those rows in that order.

        Raises:
            MissingRowsError: some of `ids` have no row ("100 of 300").
            DuplicateRowsError: a row is there twice.
        """
        whole = joined(list(self.scan(step)))
        take = match_rows(whole.ids, whole.ids if ids is None else ids, f"{self.name} at step {step}")
        return whole if ids is None else whole.rows(take)

    def ids(self, step: int, every: int = 1) -> Array:
        """Return the ids of one checkpoint, in shard order, without reading vectors; of each so-manyth shard (`every`)."""
        ids_of_shards = []
        for path in self._of(step)[::every]:
            with reading_parquet(path, _ANEW) as file:
                read_footer(file.schema_arrow, path)
                ids_of_shards.append(file.read(columns=["sample_id"])["sample_id"].to_numpy())
        return np.concatenate(ids_of_shards)

    def _of(self, step: int) -> Sequence[str]:
        if step not in self._shards:
            raise InputError(f"no {self.name!r} features at step {step}; there are {self.steps()} in {self.root!r}.")
        return self._shards[step]


def match_rows(have: Array, want: Array, what: str) -> Array:
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
    places = np.searchsorted(ranked, want)
    known = np.zeros(len(want), bool)
    if len(ranked):
        known = (places < len(ranked)) & (ranked[np.minimum(places, len(ranked) - 1)] == want)
    if not known.all():
        raise MissingRowsError(
            f"{what}: {int(known.sum())} of {len(want)} rows are there. Run `vinnow features` again: it goes on where it "
            "stopped."
        )
    return order[places]


def _read_group(
    path: str, wanted: Footer, parquet: pq.FileMetaData | None = None, group: int = 0
) -> tuple[str, pq.FileMetaData, FeatureBatch]:
    """Read one row group of a shard that must have the wanted key and storage; returns Parquet's own footer too."""
    # several small columns: buffering them first and a thread for each cost more than they save (measured)
    with reading_parquet(path, _ANEW, metadata=parquet, pre_buffer=False) as file:
        if parquet is None:
            _refuse_other(path, read_footer(file.schema_arrow, path), wanted)
        names = [n for n in file.schema_arrow.names if n != "step"]
        table = file.read_row_group(group, columns=names, use_threads=False)
        return path, file.metadata, to_batch(table, wanted.stored, wanted.key.dim)


def _read_footer(path: str) -> Footer:
    with reading_parquet(path, _ANEW) as file:
        return read_footer(file.schema_arrow, path)


def _refuse_other(path: str, footer: Footer, wanted: Footer) -> None:
    """Refuse a shard of another key or storage."""
    differences = footer.key.differences(wanted.key)
    if footer.stored != wanted.stored:
        differences.append(f"stored: {footer.stored!r} against {wanted.stored!r}")
    if differences:
        raise KeyMismatchError(
            f"{path}: these features were made under another key (found against wanted): {'; '.join(differences)}. "
            "Use another output folder, or make them anew."
        )


def exists_any(root: str | os.PathLike[str], name: str) -> bool:
    """Say whether any features of this name lie under a root."""
    return look_at(join(root, name)).type == pafs.FileType.Directory


def is_store(root: str | os.PathLike[str]) -> bool:
    """Say whether a root is a folder that holds a part of any feature."""
    if look_at(root).type != pafs.FileType.Directory:
        return False
    return any(_STEP.search(path) for path in list_files(root, ".parquet", recursive=True))
