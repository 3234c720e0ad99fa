"""Shares of a source: which rows a pool takes, so that pools of one source hold each row once, whatever their order.

A row's place from 0 to 1 is a hash of its first picture's path, so that all rows of a picture lie in one share; of its
content where it has none, so that repeats do. What was refused before that was known goes by its row's number.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from .draft import Draft

Share = tuple[float, float]
ALL = (0.0, 1.0)


def place_of(images: Sequence[str], content: bytes) -> float:
    """Return a row's place, 0 to below 1."""
    if not images:
        return _place(content)
    return _place(hashlib.blake2b(images[0].encode("utf-8", "surrogatepass"), digest_size=8).digest())


def width(share: Share | None) -> float:
    """Return how much of a source a share is."""
    begin, end = share or ALL
    return end - begin


def inside(share: Share, place: float) -> bool:
    """Say whether a share holds a place."""
    return share[0] <= place < share[1]


def taken(share: Share | None, first: int, draft: Draft) -> Draft:
    """Return a draft with the rows of a share alone; `first`: the source's number of the draft's first row."""
    if share is None:
        return draft
    columns = (draft.table[name].to_pylist() for name in ("images", "content"))
    keep = [n for n, row in enumerate(zip(*columns, strict=True)) if inside(share, place_of(*row))]
    refused = [r for r in draft.refused if inside(share, place_of_row(first + r.row))]
    return replace(draft, table=draft.table.take(pa.array(keep, pa.int64())), refused=refused)


def place_of_row(row: int) -> float:
    """Return the place of a row of which nothing else is known."""
    return _place(hashlib.blake2b(row.to_bytes(8, "little"), digest_size=8).digest())


def _place(digest: bytes) -> float:
    # 53 bits: a float holds them all, and stays below 1
    return (int.from_bytes(digest[:8], "little") >> 11) / (1 << 53)
