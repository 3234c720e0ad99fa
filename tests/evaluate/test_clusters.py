"""EVALS' `cluster`: a picture by its hash, else by its path; null in tables of before, which are still read."""

import pyarrow.parquet as pq
from evals import evals
from vinnow.evaluate.clusters import cluster_of
from vinnow.pool.records import Record
from vinnow.store.tables import EVALS, read_rows

TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def test_a_cluster_is_the_first_picture_and_text_is_its_own():
    hashed = Record(1, "s", "t", ("p/1.jpg", "p/2.jpg"), TURNS, {}, (1 << 63) + 5)
    assert cluster_of(hashed) == "hash:8000000000000005"
    assert cluster_of(Record(2, "s", "t", ("p/1.jpg",), TURNS)) == "path:p/1.jpg"
    assert cluster_of(Record(3, "s", "t", (), TURNS)) == "row:3"


def test_a_table_of_before_is_read_without_clusters(tmp_path):
    pq.write_table(evals([1, 0]).drop_columns(["cluster"]), tmp_path / "old.parquet")
    assert read_rows(tmp_path / "old.parquet", EVALS)["cluster"].to_pylist() == [None, None]
