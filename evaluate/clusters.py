"""Which questions belong together: those about one picture are right and wrong together, see `statistics/pairs.py`."""

import numpy as np
import pyarrow as pa

from ..pool.reader import Pool
from ..pool.records import Record
from ..store.errors import InputError
from ..store.tables import EVALS


def cluster_of(record: Record) -> str:
    """Return EVALS' `cluster` of a record: its first picture, by the hash that ingest took, else by its path.

    A row without a picture is a cluster of its own. The hash comes first since a table's rows may each bring the same
    picture along under another path.
    """
    if not record.images:
        return f"row:{record.sample_id}"
    return _picture(record.images[0], record.image_hash)


def with_clusters(evals: pa.Table, pool: Pool) -> pa.Table:
    """Return an EVALS table with the clusters that it lacks, as one that was written before there were any does.

    Raises:
        InputError: a row that lacks one is not in the pool.
    """
    if not evals["cluster"].null_count:
        return evals
    # as columns, not records: a report reads them at every turn
    images, hashes = pool.column("images"), pool.column("image_hash")
    keys = {
        str(sample): _picture(paths[0], number) if len(paths) else f"row:{sample}"
        for sample, paths, number in zip(pool.ids().tolist(), images, hashes, strict=True)
    }
    samples, known = evals["sample"].to_pylist(), evals["cluster"].to_pylist()
    lost = [s for s, k in zip(samples, known, strict=True) if k is None and s not in keys]
    if lost:
        raise InputError(f"{pool.root}: {len(lost)} answered questions are not in this pool, first {lost[0]!r}.")
    filled = [keys[s] if k is None else k for s, k in zip(samples, known, strict=True)]
    number = evals.schema.get_field_index("cluster")
    return evals.set_column(number, EVALS.field("cluster"), pa.array(filled, pa.string()))


def _picture(path: str, number: int | None) -> str:
    return f"path:{path}" if number is None else f"hash:{np.uint64(number):016x}"
