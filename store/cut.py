"""Rows that lost a part of their answers at `max_len`, and are used: `ROOT/cut/FEATURE/PART.json`."""

import os
from collections.abc import Collection, Mapping

from .facts import read_as
from .files import exists, join, list_files, open_fs, write_json

FOLDER = "cut"


def write_cut(root: str | os.PathLike[str], feature: str, shard: str, tokens: Mapping[int, int]) -> None:
    """Write how many trained tokens each row of a shard lost, by sample_id; call it before the shard itself appears."""
    path = join(root, FOLDER, feature, f"{shard}.json")
    if tokens:
        write_json(path, {str(i): n for i, n in tokens.items()})
    elif exists(path):
        fs, inner = open_fs(path)
        fs.delete_file(inner)


def count_cut(root: str | os.PathLike[str], feature: str, shards: Collection[str]) -> int:
    """Return how many rows of these shards are listed."""
    files = list_files(join(root, FOLDER, feature), ".json")
    way_out = "Delete it: it is a list of rows alone."
    mine = [f for f in files if f.rsplit("/", 1)[1].removesuffix(".json") in shards]
    return sum(len(read_as(f, dict[str, int], "list of cut rows", way_out)) for f in mine)
