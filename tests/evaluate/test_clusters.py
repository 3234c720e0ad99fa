"""EVALS' `cluster`: a picture by its file's bytes, wherever it lies; null in tables of before, which are still read."""

import shutil

import pyarrow.parquet as pq
from evals import evals
from pictures import make_records, write_records
from PIL import Image, ImageDraw
from vinnow.evaluate.clusters import Clusters, with_clusters
from vinnow.pool.dedup import difference_hash
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.pool.records import Record
from vinnow.store.tables import EVALS, read_rows

TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def record(number, *images):
    return Record(number, "s", "t", images, TURNS)


def test_a_cluster_is_the_first_picture_and_text_is_its_own(tmp_path):
    for name, color in (("1.png", "red"), ("2.png", "blue")):
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "1.png", tmp_path / "again" / "other.png")
    clusters = Clusters(str(tmp_path))
    first = clusters.of(record(1, "1.png", "2.png"))
    assert first.startswith("bytes:")
    assert clusters.of(record(2, "again/other.png")) == first == Clusters(str(tmp_path)).of(record(3, "1.png"))
    assert clusters.of(record(4, "2.png")) not in (first, "path:2.png")
    assert clusters.of(record(5)) == "row:5"
    assert clusters.of(record(6, "gone.png")) == "path:gone.png"


def test_flat_drawings_that_differ_are_apart(tmp_path):
    """As easy-VQA's are: one shape, one colour; the difference hash of a thumbnail cannot tell most of them apart."""
    hashes, names = set(), set()
    clusters = Clusters(str(tmp_path))
    for number in range(40):
        picture = Image.new("RGB", (64, 64), (240, 240, 250 - number))
        ImageDraw.Draw(picture).rectangle((20, 20, 40, 40), fill=(200, number, 0))
        picture.save(tmp_path / f"{number}.png")
        hashes.add(difference_hash(picture))
        names.add(clusters.of(record(number, f"{number}.png")))
    assert len(names) == 40
    assert len(hashes) < 5


def test_clusters_that_a_table_lacks_come_of_the_pool(tmp_path):
    source = write_records(tmp_path, *make_records(9))
    pools = []
    for check in ("decode", "none"):
        out = str(tmp_path / check)
        ingest(IngestConfig(source=source, image_root=str(tmp_path / "images"), check_images=check), out)
        pools.append(Pool(out))
    for pool, kind in zip(pools, ("hash:", "path:"), strict=True):
        table = evals([1] * pool.rows, samples=[str(i) for i in pool.ids()], clusters=[None] * pool.rows)
        filled = with_clusters(table, pool)["cluster"].to_pylist()
        assert [c[:5] for c in filled] == [kind if has else "row:" + c[4] for c, has in zip(filled, pool.has_image())]


def test_a_table_of_before_is_read_without_clusters(tmp_path):
    pq.write_table(evals([1, 0]).drop_columns(["cluster"]), tmp_path / "old.parquet")
    assert read_rows(tmp_path / "old.parquet", EVALS)["cluster"].to_pylist() == [None, None]
