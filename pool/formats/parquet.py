"""Parquet shards of Hugging Face `datasets`: `conversations` or `messages`, and pictures' bytes or paths.

Pictures' bytes are not read here: a record refers to them as `FILE.parquet/ROW/K`. Columns that JSON cannot hold
(dates, other bytes) are left out.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...store.errors import InputError
from ...store.files import open_fs
from ..archives.members import DAMAGE
from ..archives.parquet import image_column
from .chat import to_llava
from .source import Format, Source, below, folder_of, shards, shards_root

_ROWS = 512
_SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}\.parquet")


def read(source: Source) -> Iterator[Any]:
    """Yield the rows of all shards, a few hundred in memory at a time.

    Raises:
        InputError: a shard cannot be read, has no turns, or lies outside the image root that was given.
    """
    for path in files(source):
        fs, inner = open_fs(path)
        row = 0
        try:
            with fs.open_input_file(inner) as handle:
                shard = _Shard(pq.ParquetFile(handle), path, source)
                for batch in shard.file.iter_batches(_ROWS, columns=shard.columns):
                    for raw in batch.to_pylist():
                        yield to_llava(shard.record(raw, row))
                        row += 1
        except InputError:
            raise
        except DAMAGE as error:
            raise InputError(f"{path!r} cannot be read at row {row} or soon after: {error}.") from error


class _Shard:
    """What is read of a shard, and how its pictures are referred to."""

    def __init__(self, file: pq.ParquetFile, path: str, source: Source) -> None:
        schema = file.schema_arrow
        if not {"conversations", "messages"} & set(schema.names):
            raise InputError(f"{path!r} has no column `conversations` or `messages`; found {schema.names}.")
        self.file, self.pictures = file, image_column(schema)
        self.columns = [f.name for f in schema if f.name != self.pictures and _is_plain(f.type)]
        self.embedded = False
        if self.pictures is None:
            return
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        mine = [leaf for leaf in leaves if leaf.split(".")[0] == self.pictures]
        # of struct{bytes, path} the paths tell how many pictures there are, at a thousandth of the bytes
        self.columns += [leaf for leaf in mine if leaf.endswith(".path")] or mine
        self.embedded = not _all_null(file.metadata, next(leaf for leaf in mine if not leaf.endswith(".path")))
        if self.embedded:
            self.name = below(path, source.image_root or folder_of(source.path))

    def record(self, raw: dict[str, Any], row: int) -> dict[str, Any]:
        """Return a row with its pictures as paths."""
        if self.pictures is None:
            return raw
        cell = raw.pop(self.pictures)
        cells = cell if isinstance(cell, list) else [] if cell is None else [cell]
        if self.embedded:
            return raw | {"images": [f"{self.name}/{row}/{k}" for k in range(len(cells))]}
        return raw | {"images": [c.get("path") if isinstance(c, dict) else c for c in cells]}


def _all_null(footer: pq.FileMetaData, leaf: str) -> bool:
    """Say whether no picture of a shard has bytes, by its footer alone."""
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            facts = column.statistics if column.path_in_schema == leaf else None
            if column.path_in_schema == leaf and (facts is None or facts.num_values > 0):
                return False
    return True


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_plain(f.type) for f in kind)
    tests = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return any(t(kind) for t in tests) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def files(source: Source) -> list[str]:
    """Return the shards, of one split.

    Raises:
        InputError: there is none, or there are several splits and none was chosen.
    """
    found = shards(source.path, ".parquet")
    names = {f: (m[1] if (m := _SPLIT.fullmatch(PurePosixPath(f).name)) else "") for f in found}
    splits = sorted(set(names.values()))
    if source.split is None:
        if len(splits) > 1:
            raise InputError(f"{source.path!r} has shards of several splits, {splits}: choose one (--split).")
        return found
    if source.split not in splits:
        raise InputError(f"{source.path!r} has no shard of split {source.split!r}; its splits are {splits}.")
    return [f for f in found if names[f] == source.split]


PARQUET = Format(
    "parquet",
    "a .parquet file, a folder or a pattern of them, with a column conversations or messages, and images or image",
    read,
    files,
    shards_root,
    frozenset({"split"}),
)
