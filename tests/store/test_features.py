"""The store's laws: written whole, finite, one key, no row missing, no row twice."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vinnow.store.errors import (
    DuplicateRowsError,
    InputError,
    KeyMismatchError,
    MissingRowsError,
    NotFiniteError,
)
from vinnow.store.features import READERS, FeatureBatch, FeatureSet, shards_done, write_shard
from vinnow.store.keys import FeatureKey, recipe_text
from vinnow.store.tables import POOL, conform, read_rows, write_rows

KEY = FeatureKey(kind="gradient", dim=16, pool="p" * 16, model="m" * 16, checkpoint=3, recipe=recipe_text(seed=0))


def batch(ids, seed=0, dim=16):
    rng = np.random.default_rng(seed)
    ids = np.asarray(ids, dtype=np.uint64)
    return FeatureBatch(ids, np.full(len(ids), 7, np.int32), rng.normal(size=(len(ids), dim)).astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip_is_bit_exact_in_the_stored_type(tmp_path, dtype):
    rows = batch([2**63 + 5, 1, 9])
    write_shard(tmp_path, KEY, "part-0", rows, dtype)
    got = FeatureSet(tmp_path, "gradient").load(3, np.array([9, 2**63 + 5], dtype=np.uint64))
    assert np.array_equal(got.vec, rows.vec.astype(dtype).astype(np.float32)[[2, 0]])
    assert got.ids.tolist() == [9, 2**63 + 5]


def test_reader_refuses_missing_and_double_rows(tmp_path):
    write_shard(tmp_path, KEY, "part-0", batch(range(100)))
    with pytest.raises(MissingRowsError, match="100 of 300"):
        FeatureSet(tmp_path, "gradient").load(3, np.arange(300, dtype=np.uint64))
    write_shard(tmp_path, KEY, "part-1", batch([5, 200]))
    with pytest.raises(DuplicateRowsError, match="1 of 102"):
        FeatureSet(tmp_path, "gradient").load(3, np.arange(10, dtype=np.uint64))


def test_another_key_is_refused_and_the_field_is_named(tmp_path):
    write_shard(tmp_path, KEY, "part-0", batch(range(4)))
    other = replace(KEY, model="x" * 16)
    with pytest.raises(KeyMismatchError, match=r"model: 'mmm.*against 'xxx"):
        shards_done(tmp_path, other)
    with pytest.raises(KeyMismatchError, match="pool"):
        FeatureSet(tmp_path, "gradient").check_key(pool="other")
    write_shard(tmp_path, other, "part-1", batch([50]))
    with pytest.raises(KeyMismatchError, match="model"):
        list(FeatureSet(tmp_path, "gradient").scan(3))


def test_values_not_finite_after_the_cast_are_refused(tmp_path):
    rows = batch([11, 12])
    rows.vec[1, 3] = 1e30  # finite in float32, infinite in float16
    with pytest.raises(NotFiniteError, match="sample_id 12"):
        write_shard(tmp_path, KEY, "part-0", rows, "float16")
    assert shards_done(tmp_path, KEY) == set()
    write_shard(tmp_path, KEY, "part-0", rows, "float32")
    assert shards_done(tmp_path, KEY) == {"part-0"}


def test_a_crash_while_writing_leaves_no_part(tmp_path, monkeypatch):
    import vinnow.store.files as files

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path, KEY, "part-0", batch([1]))
    assert shards_done(tmp_path, KEY) == set()


def test_tables_are_checked_at_both_ends(tmp_path):
    table = pa.table({"sample_id": pa.array([1], pa.uint64())})
    with pytest.raises(InputError, match="columns missing"):
        write_rows(tmp_path / "pool.parquet", table, POOL)
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="is damaged, or no Parquet file"):
        read_rows(tmp_path / "broken.parquet", POOL)
    with pytest.raises(InputError, match="no such table"):
        read_rows(tmp_path / "none.parquet", POOL)
    nulls = pa.table({n: pa.nulls(1, POOL.field(n).type) for n in POOL.names})
    with pytest.raises(InputError, match="null values"):
        conform(nulls, POOL, "pool")


def test_no_features_says_how_to_make_them(tmp_path):
    with pytest.raises(InputError, match="vinnow features"):
        FeatureSet(tmp_path, "gradient")


def test_norms_are_kept_and_made_where_they_are_not_given(tmp_path):
    rows = batch([1, 2, 3])
    write_shard(tmp_path, KEY, "part-0", replace(rows, norm=np.array([5.0, 0, 7])))
    write_shard(tmp_path, KEY, "part-1", batch([4, 5], seed=1))
    got = FeatureSet(tmp_path, "gradient").load(3)
    assert got.norm.dtype == np.float32
    assert got.norm[:3].tolist() == [5, 0, 7]
    np.testing.assert_allclose(got.norm[3:], np.linalg.norm(batch([4, 5], seed=1).vec, axis=1), rtol=1e-6)
    with pytest.raises(InputError, match=r"norms have shape \(2,\) for 3 rows"):
        write_shard(tmp_path, KEY, "part-2", replace(rows, norm=np.ones(2)))
    with pytest.raises(NotFiniteError, match="sample_id 2"):
        write_shard(tmp_path, KEY, "part-2", replace(rows, norm=np.array([1, np.inf, 1])))


@pytest.mark.parametrize("first", ["float16", "int8", "bit1"])
def test_two_storages_under_one_key_are_refused(tmp_path, first):
    write_shard(tmp_path, KEY, "part-0", batch([1, 2]), first)
    assert shards_done(tmp_path, KEY, first) == shards_done(tmp_path, KEY) == {"part-0"}
    with pytest.raises(KeyMismatchError, match=f"stored: '{first}' against 'float32'"):
        shards_done(tmp_path, KEY, "float32")
    write_shard(tmp_path, KEY, "part-1", batch([3]), "float32")
    with pytest.raises(KeyMismatchError, match=f"part-1.*stored: 'float32' against '{first}'"):
        FeatureSet(tmp_path, "gradient").load(3)


def test_another_optimizer_is_another_key(tmp_path):
    adam = replace(KEY, optimizer="a" * 16)
    assert adam.digest() != KEY.digest()
    assert KEY.optimizer == ""
    write_shard(tmp_path, adam, "part-0", batch([1]))
    assert FeatureSet(tmp_path, "gradient").key(3) == adam
    with pytest.raises(KeyMismatchError, match=r"optimizer: 'aaa.*' against ''"):
        shards_done(tmp_path, KEY)


@pytest.mark.parametrize("lost", ["norm", "storage"])
def test_a_part_of_another_version_is_named(tmp_path, lost):
    path = write_shard(tmp_path, KEY, "part-0", batch([1]))
    table = pq.ParquetFile(path).read()
    old = table.drop_columns("norm") if lost == "norm" else table.replace_schema_metadata(KEY.to_metadata())
    pq.write_table(old, path)
    for read in (lambda: shards_done(tmp_path, KEY), lambda: FeatureSet(tmp_path, "gradient").load(3)):
        with pytest.raises(InputError, match=r"part-0.*make the features anew"):
            read()


def test_a_scan_reads_a_few_parts_ahead_and_no_more(tmp_path):
    for p in range(READERS + 3):
        write_shard(tmp_path, KEY, f"part-{p}", batch([10 * p, 10 * p + 1]), "int8")
    scan = FeatureSet(tmp_path, "gradient").scan(3)
    assert next(scan).ids.tolist() == [0, 1]
    (tmp_path / f"gradient/step=00000003/part-{READERS + 2}.parquet").unlink()
    for p in range(1, READERS + 2):
        assert next(scan).ids.tolist() == [10 * p, 10 * p + 1]
    with pytest.raises(InputError, match="no such table"):
        next(scan)


def test_a_part_of_several_row_groups_is_read_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("vinnow.store.features._GROUP_BYTES", 4 * KEY.dim * 2)
    for p in range(3):
        write_shard(tmp_path, KEY, f"part-{p}", batch(list(range(10 * p, 10 * p + 7))))
    batches = list(FeatureSet(tmp_path, "gradient").scan(3))
    assert [len(b.ids) for b in batches] == [2, 2, 2, 1] * 3
    assert np.concatenate([b.ids for b in batches]).tolist() == [10 * p + i for p in range(3) for i in range(7)]
    whole = batch(list(range(7))).vec
    np.testing.assert_allclose(np.concatenate([b.vec for b in batches[:4]]), whole, atol=1e-3)


def test_targets_keep_tasks_in_any_storage(tmp_path):
    rows = replace(batch([1, 2, 3]), task=np.array(["a", "b", "a"]))
    for stored in ("float32", "bit1"):
        write_shard(tmp_path / stored, KEY, "part-0", rows, stored)
        got = FeatureSet(tmp_path / stored, "gradient").load(3, np.array([2, 1], np.uint64))
        assert got.task.tolist() == ["b", "a"]
