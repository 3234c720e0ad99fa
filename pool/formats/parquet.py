"""Parquet shards of Hugging Face `datasets`: turns in one of the layouts of `layouts`, and pictures' bytes or paths.

Pictures' bytes are not read here: a record refers to them as `FILE.parquet/ROW/K`. What JSON cannot
hold (dates, decimals, other bytes) is carried as text.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from ...store.errors import InputError
from ...store.files import open_fs
from ..archives.members import DAMAGE, File
from ..archives.pages import OversizeError
from ..archives.parquet import image_column
from ..refusals import RefusedError
from .bounded import rows_of
from .cells import has_pictures, plain
from .chat import to_llava
from .layouts import SOURCES, TURNS, layout_of
from .source import Format, Source, below, folder_of, shards, shards_root
from .splits import data_set_of, of_split


def read(source: Source) -> Iterator[Any]:
    """Yield the rows of all shards, a few hundred in memory at a time; one of too many bytes is a `RefusedError`.

    Raises:
        InputError: a shard cannot be read (names the column that would unpack to too much), has no turns, or lies outside
            the image root that was given.
    """
    for path in files(source):
        fs, inner = open_fs(path)
        row = 0
        try:
            with fs.open_input_file(inner) as handle:
                shard = _Shard(pq.ParquetFile(handle), path, source)
                for raw in rows_of(File(fs, inner), shard.file.metadata, shard.columns):
                    yield raw if isinstance(raw, RefusedError) else to_llava(shard.record(raw, row))
                    row += 1
        except InputError:
            raise
        except OversizeError as error:
            raise InputError(f"{path!r}: {error}: no table of records does. It is not read.") from error
        except DAMAGE as error:
            raise InputError(f"{path!r} cannot be read at row {row} or soon after: {error}.") from error


class _Shard:
    """What is read of a shard, and how its pictures are referred to."""

    def __init__(self, file: pq.ParquetFile, path: str, source: Source) -> None:
        schema = file.schema_arrow
        self.file, self.pictures, self.set = file, image_column(schema), data_set_of(path)
        names = [n for n in schema.names if n != self.pictures]
        self.make = layout_of(names, path, source.layout)
        self.kinds = {n: schema.field(n).type for n in names}
        idle_pictures = [n for n, k in self.kinds.items() if has_pictures(k) and (self.pictures or n not in TURNS)]
        if idle_pictures:  # rows would be trained without them
            raise InputError(
                f"{path!r} has pictures, or other files, in {idle_pictures}, beside {self.pictures or 'none'} in `images` "
                "or `image`: write pictures into one column `images`; sound and video are not read."
            )
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        # of struct{bytes, path} the paths tell how many pictures there are, at a thousandth of the bytes
        idle = [n for n in leaves if n.endswith(".bytes") and f"{n[:-6]}.path" in leaves]
        shown = [n for n in idle if self.pictures in (None, n.split(".")[0])]
        if self.pictures is not None and not shown:
            shown = [n for n in leaves if n.split(".")[0] == self.pictures]
        self.columns = [n for n in leaves if n not in idle]
        self.embedded = any(not _all_null(file.metadata, leaf) for leaf in shown)
        if self.embedded:
            self.name = below(path, source.image_root or folder_of(source.path))

    def record(self, raw: dict[str, Any], row: int) -> Any:
        """Return a row in a record's keys, with its pictures as paths."""
        number = itertools.count()

        def refer(cell: Any) -> Any:
            k = next(number)
            return f"{self.name}/{row}/{k}" if self.embedded and self.pictures is None else cell.get("path")

        shown: list[Any] = []
        if self.pictures is not None:
            cell = raw.pop(self.pictures)
            cells = cell if isinstance(cell, list) else [] if cell is None else [cell]
            shown = [c.get("path") if isinstance(c, dict) else c for c in cells]
            if self.embedded:
                shown = [f"{self.name}/{row}/{k}" for k in range(len(cells))]
        try:
            raw = {n: plain(v, self.kinds[n], refer) for n, v in raw.items()}
        except RefusedError as error:
            return error
        if self.pictures is not None:
            if (named := raw.pop("image", None)) is not None:  # beside `images`: what the pictures were called
                raw.setdefault("image_names", named)
            raw["images"] = shown
        record = self.make(raw, len(shown))
        if isinstance(record, dict) and not (isinstance(record.get("source"), str) and record["source"]):
            told = next((record[n] for n in SOURCES if isinstance(record.get(n), str) and record[n]), None)
            if told or self.embedded:
                record["source"] = told or self.set
        return record


def _all_null(footer: pq.FileMetaData, leaf: str) -> bool:
    """Say whether no picture of a shard has bytes, by its footer alone."""
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            facts = column.statistics if column.path_in_schema == leaf else None
            if column.path_in_schema == leaf and (facts is None or facts.num_values > 0):
                return False
    return True


def files(source: Source) -> list[str]:
    """Return the shards, of one split.

    Raises:
        InputError: there is none, or there are several splits and none was chosen.
    """
    return of_split(shards(source.path, ".parquet"), source, folder_of(source.path))


PARQUET = Format(
    "parquet",
    "a .parquet file, a folder or a pattern of them, with conversations, messages or texts (or ScienceQA's columns, "
    "or question and answer), and images or image",
    read,
    files,
    shards_root,
    frozenset({"split", "layout"}),
)
