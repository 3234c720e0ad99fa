"""What the Python API hands back: an open pool, features, picks. Each shows itself in one line; tables are Arrow's.

`.to_pandas()` of any table is pyarrow's own, and needs pandas.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..pool.images import load_image
from ..pool.reader import Pool
from ..pool.records import Record
from ..store.arrays import Array
from ..store.errors import InputError, suggest
from ..store.features import FeatureSet
from ..store.files import join
from ..store.tables import PICKS, POOL, REFUSED, read_rows
from ..store.usage import Usage

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..actors.config import FeatureReport


class OpenPool(Pool):
    """A finished pool for looking at: whole columns, batches, single records, pictures. N rows, in file order.

    Only what is asked for is read. Beside this, `ids()`, `column(name)`, `has_image()`, `extra(names)`, `take(ids)` and
    `digest` of `pool/reader.py`.
    """

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"pool {self.root!r}: {self.usage.line()}"

    @property
    def columns(self) -> list[str]:
        """The names of the columns (POOL of `store/tables.py`)."""
        return list(POOL.names)

    @property
    def usage(self) -> Usage:
        """Rows used, and refused ones by reason."""
        return Usage(self.rows, self.facts["reasons"] or {}, join(self.root, "refused.parquet"))

    def refused(self) -> pa.Table:
        """Return the rows that ingest refused (REFUSED): row number of the source, reason, detail."""
        return read_rows(join(self.root, "refused.parquet"), REFUSED)

    def batches(self, rows: int = 1024, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the pool as Arrow, at most `rows` rows at a time, in file order; memory does not grow with it.

        Raises:
            InputError: there is no such column, or `rows` is below 1.
        """
        names = self._known(columns)
        if rows < 1:
            raise InputError(f"rows is {rows}; a batch has one row or more.")
        self.ids()  # other rows than the manifest's are refused before the first batch
        for number in range(len(self._files)):
            with self._open(number) as file:
                for batch in file.iter_batches(rows, columns=names):
                    batch.validate(full=True)
                    yield batch.select(names)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return columns of all rows as an Arrow table [N]. Raises: as `batches`."""
        names = self._known(columns)
        return pa.Table.from_batches(self.batches(8192, names), pa.schema([POOL.field(n) for n in names]))

    def record(self, sample_id: int) -> Record:
        """Return one record by its id.

        Raises:
            MissingRowsError: it is not in this pool.
        """
        return self.take([sample_id])[0]

    def pictures(self, sample_id: int, image_root: str | None = None) -> list["Image"]:
        """Return a record's pictures as RGB, as the model sees them; [] for text alone.

        `image_root`: where they lie now, if not where ingest found them.

        Raises:
            MissingRowsError: no such record.
            ImageError: a picture is missing, damaged, or another one than at ingest.
        """
        record, root = self.record(sample_id), self.check_images(image_root)
        return [load_image(root, image, seen=record.seen(image)) for image in record.images]

    def _known(self, columns: Sequence[str] | None) -> list[str]:
        names = list(POOL.names if columns is None else columns)
        for name in names:
            if name not in POOL.names:
                raise InputError(f"a pool has no column {name!r}{suggest(name, POOL.names)}")
        return names


@dataclass(frozen=True)
class Features:
    """Features by name in a store: what `score` and `pick` take as `features` or `targets`.

    `root`: the store's folder; `report`: what the call that made them did, None where they were there.
    """

    root: str
    name: str
    report: "FeatureReport | None" = None

    @cached_property
    def stored(self) -> FeatureSet:
        """The reader; `scan(step)` streams what is too large for memory."""
        return FeatureSet(self.root, self.name)

    def steps(self) -> list[int]:
        """Return the checkpoints, ascending."""
        return self.stored.steps()

    def table(self, step: int) -> pa.Table:
        """Return one checkpoint's features in memory: sample_id u64, n_tokens i32, norm f32, vec list<f32>[D].

        Raises:
            InputError: there are none of this step.
        """
        batch = self.stored.load(step)
        vec = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(batch.vec), pa.float32()), batch.vec.shape[1])
        return pa.table({"sample_id": batch.ids, "n_tokens": batch.n_tokens, "norm": batch.norm, "vec": vec})

    def __repr__(self) -> str:
        return f"{self.name} features in {self.root!r}: steps {', '.join(map(str, self.steps()))}"


@dataclass(frozen=True)
class Picks:
    """A choice: the PICKS file at `path`, the same rows as LLaVA's JSON at `records`, both best first.

    `told`: what the command line would say of it (rows refused, rows without a gradient).
    """

    path: str
    records: str
    told: tuple[str, ...] = ()

    @cached_property
    def table(self) -> pa.Table:
        """PICKS [budget]: sample_id, rank, group, score, selector, budget, seed."""
        return read_rows(self.path, PICKS)

    @property
    def ids(self) -> Array:
        """The chosen ids u64 [budget], best first."""
        return self.table.sort_by("rank")["sample_id"].to_numpy()

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return "\n".join([f"{len(self):,} rows in {self.path}", *self.told])
