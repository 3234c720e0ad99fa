"""Repeats among pictures: a difference hash of a picture, and which pictures nearly repeat an earlier one."""

from array import array
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ..store.arrays import Array

# bits of 64 in which two pictures may differ and still count as near repeats
NEAR = 3
# 64 bits in 5 bands: of two hashes that differ in 3 bits, 2 bands at least are equal
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))


def difference_hash(picture: Image.Image) -> int:
    """Return 64 bits: whether each cell of a 9 × 8 grey thumbnail is brighter than its right neighbour.

    Scaling, recompression and small changes of tone leave it alone (within a few bits); a mirror or a crop does not.
    A cell is the mean of 64 pixels spread over it: a tenth of the cost of all, which is a quarter of decoding a JPEG.
    """
    spread = picture.resize((72, 64), Image.Resampling.NEAREST).convert("L")
    cells = np.asarray(spread.resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")


def near_repeats(hashes_N: Array, distance: int = NEAR) -> Array:
    """Return for each hash (u64 [N]) the first earlier position within `distance` bits (at most 3), or -1 [N].

    Exact: hashes are compared within every group that shares two of five bands, which no pair so close can escape.
    """
    assert distance <= 3, "five bands share two only up to a distance of 3"
    distinct_U, first_U = np.unique(hashes_N, return_index=True)
    best_U = first_U.copy()
    for pair in combinations(_BANDS, 2):
        mask = sum(((1 << size) - 1) << shift for shift, size in pair)
        band_U = distinct_U & np.uint64(mask)
        order = np.argsort(band_U, kind="stable")
        edges = np.flatnonzero(np.diff(band_U[order])) + 1
        starts, ends = np.append(0, edges), np.append(edges, len(order))
        for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1]):
            _compare(distinct_U, first_U, best_U, order[start:end], distance)
    nearest_N = best_U[np.searchsorted(distinct_U, hashes_N)]
    return np.where(nearest_N < np.arange(len(hashes_N)), nearest_N, -1)


def _compare(hashes_U: Array, first_U: Array, best_U: Array, group: Array, distance: int) -> None:
    """Lower `best_U` of a group's members to the first position of a near one; by rows, so memory is linear."""
    step = max(1, (1 << 22) // len(group))
    for start in range(0, len(group), step):
        some = group[start : start + step]
        near = np.bitwise_count(hashes_U[some, None] ^ hashes_U[group]) <= distance
        first = np.where(near, first_U[group], np.iinfo(np.int64).max).min(1)
        best_U[some] = np.minimum(best_U[some], first)


class Likeness:
    """Counts repeats while rows go by: exact ones, and pictures (a file each, once) that nearly repeat another."""

    def __init__(self) -> None:
        self.repeats = 0
        self._hashes = array("Q")
        self._files = set[int]()

    def add(self, rows: pa.Table) -> None:
        """Take POOL rows."""
        self.repeats += rows.num_rows - rows["duplicate_of"].null_count
        if rows["image_hash"].null_count == rows.num_rows:
            return
        for images, image_hash in zip(rows["images"].to_pylist(), rows["image_hash"].to_pylist()):
            # the hash is that of the first picture
            if image_hash is not None and hash(images[0]) not in self._files:
                self._files.add(hash(images[0]))
                self._hashes.append(image_hash)

    def near(self) -> int:
        """Count the pictures that nearly repeat an earlier one."""
        return int((near_repeats(np.array(self._hashes, np.uint64)) >= 0).sum())


def counted(column: pa.ChunkedArray) -> dict[Any, int]:
    """Count a column's values."""
    return {v["values"]: v["counts"] for v in column.value_counts().to_pylist()}
