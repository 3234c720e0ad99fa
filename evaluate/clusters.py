"""Which questions belong together: those about one picture are right and wrong together, see `statistics/pairs.py`.

One picture is one file's bytes, wherever the file lies: a table's rows may each bring the same picture along under another
path, and the pictures of official files are not looked at by ingest. Nothing less exact will do: the difference hash that
ingest takes (`pool/dedup.py`) was used before, and puts flat drawings together (of easy-VQA's 1,000 test pictures, all
different, it tells 557 apart). Clusters that are too large make an interval too wide, and of a single one there is none.
Pictures that only look alike (recompressed, cut) are another question, and stay apart.
"""

from hashlib import blake2b

import numpy as np
import pyarrow as pa

from ..pool.images import read_image
from ..pool.reader import Pool
from ..pool.records import Record
from ..pool.refusals import ImageError
from ..store.errors import InputError
from ..store.tables import EVALS


class Clusters:
    """Names EVALS' `cluster` of records whose pictures lie under `root`; each file is read once."""

    def __init__(self, root: str | None) -> None:
        self._root = root
        self._known: dict[str, str] = {}

    def of(self, record: Record) -> str:
        """Return the cluster of a record: its first picture's file, by its bytes.

        A row without a picture is a cluster of its own; a picture that cannot be read goes by its path.
        """
        if not record.images:
            return f"row:{record.sample_id}"
        path = record.images[0]
        if path not in self._known:
            self._known[path] = self._name(path)
        return self._known[path]

    def _name(self, path: str) -> str:
        try:
            return f"bytes:{blake2b(read_image(self._root, path), digest_size=8).hexdigest()}"
        except ImageError:
            return f"path:{path}"


def with_clusters(evals: pa.Table, pool: Pool) -> pa.Table:
    """Return an EVALS table with the clusters that it lacks, as one that was written before there were any does.

    No picture is opened for that: they go by ingest's difference hash, else by their paths. The first may put several
    pictures together, so an interval may come out too wide.

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
