"""Some rows of a pool as a pool of their own: what is to be asked beside what was asked before."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..store.arrays import Array
from ..store.files import exists, join, list_files, reading_parquet, write_json
from ..store.ids import ids_digest
from .ingest import MANIFEST
from .reader import Pool
from .writer import PoolWriter


def write_subset(pool: Pool, ids: Array, out: str) -> Pool:
    """Write the rows of these ids (u64 [N], each in the pool), in the pool's order, to `out`; one that is there stays.

    Nothing is decoded again; pictures lie where the pool has them.
    """
    if exists(join(out, MANIFEST)):
        return Pool(out)
    writer, wanted = PoolWriter(out), pa.array(np.asarray(ids, np.uint64))
    for path in list_files(pool.root, ".parquet"):
        if not os.path.basename(path).startswith("part-"):
            continue
        with reading_parquet(path, "Delete the pool, and ingest it again.") as file:
            for number in range(file.num_row_groups):
                rows = file.read_row_group(number)
                writer.add(rows.filter(pc.is_in(rows["sample_id"], wanted)), [])
    writer.close()
    kept = pool.ids()[np.isin(pool.ids(), ids)]
    facts = {"digest": ids_digest(kept), "rows": len(kept), "image_root": pool.image_root, "reasons": {}}
    write_json(join(out, MANIFEST), facts)
    return Pool(out)
