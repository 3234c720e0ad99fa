"""Reading a pool in parts, by id and by column; and back to LLaVA's own JSON."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vinnow.pool import export, reader, writer
from vinnow.pool.export import write_llava_json
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import DamagedError, InputError, MissingRowsError

N = 700


def records() -> list[dict]:
    """Rows with awkward text, keys of their own, ids of both types, and repeats."""
    rows = []
    for i in range(N):
        turns = [
            {"from": "human", "value": f'q{i % 650} "\\ 🐱\n'},
            {"from": "gpt", "value": f"a{i % 5}\0\u2028"},
        ]
        record = {"id": i if i % 2 else f"s{i}", "conversations": turns, "model": ""}
        if i % 3 == 0:
            record["image"] = f"coco/{i % 6}.jpg"
            turns[0]["value"] = "<image>\n" + turns[0]["value"].strip()
        if i % 7 == 0:
            record |= {"task": "t", "source": "given", "nested": {"a": [1, None, "\ud800"]}}
        rows.append(record)
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A pool of parts of 128 rows and row groups of 50, so that reads cross both kinds of border."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "images/coco").mkdir(parents=True)
    from PIL import Image

    for i in range(6):
        Image.new("RGB", (4, 4)).save(folder / f"images/coco/{i}.jpg")
    (folder / "r.json").write_text(json.dumps(records()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "SHARD_ROWS", 128)
        patch.setattr(writer, "GROUP_ROWS", 50)
        ingest(
            IngestConfig(source=str(folder / "r.json"), image_root=str(folder / "images")),
            str(folder / "part-0/pool"),
        )
    return str(folder / "part-0/pool")


@pytest.fixture
def pool(root) -> Pool:
    return Pool(root)


def test_layout(pool, root):
    assert len(pool._files) == 6
    assert pq.ParquetFile(f"{root}/part-000000.parquet").num_row_groups == 3


def test_columns_stand_in_the_order_of_ids(pool):
    raw = records()
    assert pool.rows == len(pool.ids()) == len(set(pool.ids().tolist())) == N
    assert pool.ids().dtype == np.uint64
    assert pool.column("images").tolist() == [[r["image"]] if "image" in r else [] for r in raw]
    assert pool.has_image().tolist() == ["image" in r for r in raw]
    assert pool.column("task").tolist() == [r.get("task") or ("coco" if "image" in r else "text") for r in raw]
    chars = [sum(len(t["value"]) for t in r["conversations"]) for r in raw]
    assert pool.column("n_chars").tolist() == chars
    with pytest.raises(InputError, match="did you mean 'source'"):
        pool.column("sources")
    with pytest.raises(ValueError, match="read-only"):
        pool.ids()[0] = 1


@pytest.mark.parametrize("rows", [1, 33, 128, 300, N, 10_000])
def test_parts_are_all_rows_once_in_order(pool, rows):
    parts = pool.shards(rows)
    assert len(parts) == -(-N // rows)
    assert len({p.name for p in parts}) == len(parts)
    read = [r for p in parts[: None if rows > 1 else 60] for r in pool.read(p)]
    assert [r.sample_id for r in read] == pool.ids()[: len(read)].tolist()
    if rows > 1:
        assert [r.conversations for r in read] == [r["conversations"] for r in records()]
        assert [r.sample_id for b in pool.iter_batches(rows) for r in b] == pool.ids().tolist()


def test_a_part_is_named_by_its_content(pool, root):
    assert [p.name for p in pool.shards(100)] == [p.name for p in Pool(root).shards(100)]
    assert pool.shards(100)[0].name != pool.shards(101)[0].name
    with pytest.raises(InputError, match="rows_per_part"):
        pool.shards(0)


def test_take_keeps_the_order_asked_for(pool):
    rng, ids, raw = np.random.default_rng(0), pool.ids(), records()
    for positions in (rng.permutation(N), rng.integers(0, N, 50), np.array([N - 1, 0]), np.array([5, 5, 5]), []):
        taken = pool.take(ids[np.array(positions, int)])
        assert [r.sample_id for r in taken] == ids[np.array(positions, int)].tolist()
        assert [r.conversations for r in taken] == [raw[i]["conversations"] for i in positions]


def test_take_reads_only_the_row_groups_it_needs(pool, monkeypatch):
    read, real = [], pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_groups", lambda self, groups: (read.append(groups), real(self, groups))[1]
    )
    pool.take(pool.ids()[[3, 40, 130, 255, 131]])
    assert read == [[0], [0, 2]]


def test_ids_of_another_pool_are_refused(pool):
    with pytest.raises(MissingRowsError, match="2 of 3 rows are there, not 12345"):
        pool.take([int(pool.ids()[0]), 12345, int(pool.ids()[-1])])


def test_a_lost_part_is_noticed(root, tmp_path):
    import shutil

    shutil.copytree(root, tmp_path / "pool")
    (tmp_path / "pool/part-000002.parquet").unlink()
    for read in (Pool.ids, lambda p: p.column("task"), lambda p: p._rows(np.array([1]))):
        with pytest.raises(MissingRowsError, match=f"572 of {N} rows"):
            read(Pool(str(tmp_path / "pool")))
    (tmp_path / "pool/part-000002.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(InputError, match=r"part-000002\.parquet"):
        Pool(str(tmp_path / "pool")).ids()


def test_bytes_that_are_no_text_are_damage_by_the_part_s_name(root, tmp_path):
    shutil.copytree(root, tmp_path / "pool")
    (path, *_) = sorted((tmp_path / "pool").glob("part-*.parquet"))
    table = pq.read_table(path)
    column = table.column_names.index("source")
    pq.write_table(table.set_column(column, "source", pa.array([b"\xec("] * table.num_rows).view(pa.string())), path)
    broken = Pool(tmp_path / "pool")
    for read in (lambda: broken.take(broken.ids()[:1]), lambda: broken.column("source")):
        with pytest.raises(DamagedError, match=r"part-\d+\.parquet' is damaged.*UTF-?8"):
            read()


def test_no_pool_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="vinnow ingest"):
        Pool(str(tmp_path))


@pytest.mark.parametrize("chunk", [7, 32_768])
def test_export_gives_the_records_back(pool, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(export, "_CHUNK", chunk)
    order = np.random.default_rng(1).permutation(N)
    path = tmp_path / "new/folder/picks.json"
    assert write_llava_json(pool, pool.ids()[order], str(path)) == N
    raw = records()
    assert json.loads(path.read_text(encoding="utf-8")) == [raw[i] for i in order]
    assert [p.name for p in path.parent.iterdir()] == ["picks.json"]


def test_an_exported_pool_ingests_to_the_same_pool(pool, tmp_path):
    write_llava_json(pool, pool.ids(), str(tmp_path / "all.json"))
    config = IngestConfig(source=str(tmp_path / "all.json"), image_root=pool.image_root)
    assert ingest(config, str(tmp_path / "again")).digest == pool.digest
    assert Pool(str(tmp_path / "again")).ids().tolist() == pool.ids().tolist()


def test_export_is_whole_or_not_at_all(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_CHUNK", 7)
    path = tmp_path / "picks.json"
    write_llava_json(pool, pool.ids()[:3], str(path))
    before = path.read_bytes()
    with pytest.raises(MissingRowsError):
        write_llava_json(pool, np.append(pool.ids()[:20], np.uint64(5)), str(path))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["picks.json"]


def test_an_empty_choice_is_an_empty_list(pool, tmp_path):
    assert write_llava_json(pool, pool.ids()[:0], str(tmp_path / "none.json")) == 0
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize("text", ["[]", "{}", '{"digest": "x"}'])
def test_a_manifest_that_is_something_else_is_named(tmp_path, text):
    (tmp_path / "pool.json").write_text(text)
    with pytest.raises(DamagedError, match=r"pool\.json' is no pool's"):
        Pool(str(tmp_path))


@pytest.mark.parametrize("room", [0, 20_000, reader._HELD])
def test_rows_are_the_same_whatever_is_held(root, monkeypatch, room):
    """Rows from everywhere, again and again: from memory where there is room, never more of it than allowed and needed."""
    monkeypatch.setattr(reader, "_HELD", room)
    pool, order = Pool(root), np.random.default_rng(0)
    whole = {r.sample_id: r for shard in pool.shards(N) for r in Pool(root).read(shard)}
    for _ in range(12):
        ids = order.choice(pool.ids(), 9)
        assert pool.take(ids) == [whole[i] for i in ids.tolist()]
    held = sum(table.nbytes for table in pool._held.values())
    assert held <= max(room, 9 * max(table.nbytes for table in pool._held.values()))
    if room > 20_000:
        monkeypatch.setattr(Pool, "_open", lambda *_: pytest.fail("read a file again"))
        pool.take(pool.ids())
