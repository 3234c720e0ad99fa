"""A flipped, zeroed or cut byte of a table is found where it is read, named, and the part made anew."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from vinnow.store.batches import FeatureBatch
from vinnow.store.errors import DamagedError, InputError
from vinnow.store.features import FeatureSet, drop_damaged, shards_done, write_shard
from vinnow.store.keys import FeatureKey
from vinnow.store.tables import PICKS, read_rows, write_rows

KEY = FeatureKey(kind="gradient", dim=64, pool="pool", model="model", checkpoint=1, recipe="recipe")


def part(root, name, seed):
    rng = np.random.default_rng(seed)
    ids = np.arange(seed * 100, seed * 100 + 40, dtype=np.uint64)
    vec = rng.standard_normal((40, 64)).astype(np.float32)
    return write_shard(root, KEY, name, FeatureBatch(ids, np.full(40, 7, np.int32), vec, None, None), "float32")


def spoil(path, offset, how):
    data = bytearray(Path(path).read_bytes())
    if how == "bit":
        data[offset] ^= 1 << (offset % 8)
    elif how == "block":
        data[offset : offset + 512] = bytes(len(data[offset : offset + 512]))
    else:
        del data[offset:]
    Path(path).write_bytes(data)


@pytest.mark.parametrize("how", ["bit", "block", "cut"])
def test_no_damage_reads_as_other_numbers(tmp_path, how):
    path = part(tmp_path, "part-a", 0)
    whole = Path(path).read_bytes()
    size = len(whole)
    expected = FeatureSet(tmp_path, "gradient").load(1)
    refused = 0
    for offset in range(4, size - 8, 97):
        spoil(path, offset, how)
        try:
            read = FeatureSet(tmp_path, "gradient").load(1)
        except InputError:  # damage, or a footer that names another key
            refused += 1
        else:  # a byte that no reader needs
            assert np.array_equal(read.vec, expected.vec), offset
            assert np.array_equal(read.ids, expected.ids), offset
        Path(path).write_bytes(whole)
    assert refused > 0.9 * len(range(4, size - 8, 97))


def test_a_damaged_part_is_named_and_taken_away(tmp_path):
    paths = [part(tmp_path, f"part-{n}", n) for n in range(3)]
    spoil(paths[1], 2000, "bit")
    with pytest.raises(DamagedError, match=r"part-1\.parquet' is damaged.*Run `vinnow features` again"):
        FeatureSet(tmp_path, "gradient").load(1)
    assert drop_damaged(tmp_path, "gradient", 1) == ["part-1"]
    assert shards_done(tmp_path, KEY) == {"part-0", "part-2"}
    assert drop_damaged(tmp_path, "gradient", 1) == []


def test_other_tables_are_verified_too(tmp_path):
    rows = [
        {"sample_id": i, "rank": i, "group": 0, "score": float(i), "selector": "s", "budget": 9, "seed": 0}
        for i in range(5000)
    ]
    table = pa.Table.from_pylist(rows, schema=PICKS)
    path = str(tmp_path / "picks.parquet")
    write_rows(path, table, PICKS)
    spoil(path, 60, "bit")
    with pytest.raises(DamagedError, match=r"picks\.parquet' is damaged"):
        read_rows(path, PICKS)
