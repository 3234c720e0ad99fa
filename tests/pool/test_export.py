"""Formats out: what is written opens in the tool that it is for, and comes back as the same pool."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import make_records, write_records
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app
from vinnow.pool import export as room
from vinnow.pool.export import export
from vinnow.pool.images import load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, MissingRowsError
from vinnow.store.tables import PICKS, write_rows


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    """30 rows: two with two pictures, one with a system prompt, one with a literal `<image>`; ids of both types."""
    folder = tmp_path_factory.mktemp("export")
    records, pictures = make_records(30)
    records[1]["image"], records[2]["image"] = list(pictures)[:2], list(pictures)[1::-1]
    for i in (1, 2):
        turns = [{"from": "human", "value": "is <image> <image>?"}, {"from": "gpt", "value": "yes"}]
        records[i] |= {"conversations": turns, "id": i}
    records[3]["system"] = "Be brief."
    records[4]["conversations"][0]["value"] = "what does <image> mean?"
    source = write_records(folder, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return Pool(str(folder / "pool"))


@pytest.fixture(params=[7, 32_768])
def chunks(request, monkeypatch):
    monkeypatch.setattr(room, "_CHUNK", request.param)
    monkeypatch.setattr(room, "_PICTURED_ROWS", 4)


def again(tmp_path, source, **fields) -> Pool:
    ingest(IngestConfig(source=str(source), **fields), str(tmp_path / "again"))
    return Pool(str(tmp_path / "again"))


@pytest.mark.parametrize("form", ["llava", "sharegpt", "parquet"])
def test_what_is_written_ingests_to_the_same_ids(pool, tmp_path, chunks, form):
    order = np.random.default_rng(1).permutation(pool.ids())
    path = str(tmp_path / ("out.parquet" if form == "parquet" else "out.json"))
    done = export(pool, order, path, form)
    assert (done.rows, done.odd_marks) == (30, 1)
    exported = again(tmp_path, path, image_root=pool.image_root)
    assert exported.ids().tolist() == order.tolist()
    if form == "llava":
        by_id = {r.sample_id: r for r in pool.take(order)}
        assert all(r == by_id[r.sample_id] for r in exported.take(order))
    if form == "sharegpt":
        (told,) = [r.extra["system"] for r in exported.take(order) if "system" in r.extra]
        assert told == "Be brief."


def llama_factory(folder, name: str) -> list[dict]:
    """Read a data set as LLaMA-Factory's sharegpt converter does, by its description alone."""
    info = json.loads((folder / "dataset_info.json").read_text())[name]
    assert info["formatting"] == "sharegpt"
    tags, columns, rows = info["tags"], info["columns"], []
    for raw in json.loads((folder / info["file_name"]).read_text()):
        turns, system = raw[columns["messages"]], ""
        if turns[0][tags["role_tag"]] == tags["system_tag"]:
            system, turns = turns[0][tags["content_tag"]], turns[1:]
        odd, even = tags["user_tag"], tags["assistant_tag"]
        assert [t[tags["role_tag"]] for t in turns] == [odd, even] * (len(turns) // 2)
        texts = [t[tags["content_tag"]] for t in turns]
        rows.append({"texts": texts, "system": system, "images": raw[columns["images"]]})
    return rows


def test_sharegpt_loads_by_its_description(pool, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "m.json"}}')
    export(pool, pool.ids(), str(tmp_path / "chosen.json"), "sharegpt")
    rows = llama_factory(tmp_path, "chosen")
    for row, record in zip(rows, pool.take(pool.ids()), strict=True):
        assert row["texts"] == [t["value"] for t in record.conversations]
        assert row["images"] == list(record.images)
        assert row["system"] == record.extra.get("system", "")
    assert sum(sum(t.count("<image>") for t in r["texts"]) != len(r["images"]) for r in rows) == 1
    assert json.loads((tmp_path / "dataset_info.json").read_text())["mine"] == {"file_name": "m.json"}
    # `datasets` infers one type a column: the same keys and types in each row
    raw = json.loads((tmp_path / "chosen.json").read_text())
    assert {tuple((k, type(v)) for k, v in r.items()) for r in raw} == {
        (("id", str), ("messages", list), ("images", list))
    }


def test_parquet_with_pictures_inside(pool, tmp_path, chunks):
    path = tmp_path / "out.parquet"
    export(pool, pool.ids(), str(path), "parquet", embed=True)
    assert pq.ParquetFile(path).num_row_groups >= 8
    table = pq.read_table(path)
    assert table["id"].to_pylist()[1] == "1"
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names
    exported = again(tmp_path, path)
    for record, old in zip(exported.take(exported.ids()), pool.take(pool.ids()), strict=True):
        assert record.conversations == old.conversations
        assert (record.source, record.task) == (old.source, old.task)
        pictures = [load_image(exported.image_root, i) for i in record.images]
        for picture, relative in zip(pictures, old.images, strict=True):
            assert np.array_equal(np.array(picture), np.array(load_image(pool.image_root, relative)))


def test_what_is_no_json_in_a_record_is_none_in_the_export(tmp_path):
    turns = [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "r.json").write_text(
        json.dumps([{"id": 1, "score": [float("nan"), 0.5, {"x": -float("inf")}], "conversations": turns}])
    )
    source_pool = again(tmp_path, tmp_path / "r.json")
    export(source_pool, source_pool.ids(), str(tmp_path / "o.json"), "llava")
    export(source_pool, source_pool.ids(), str(tmp_path / "o.parquet"), "parquet")
    texts = (tmp_path / "o.json").read_text(), pq.read_table(tmp_path / "o.parquet")["extra"][0].as_py()
    assert all("NaN" not in t and "Infinity" not in t for t in texts)
    assert json.loads(texts[0])[0]["score"] == json.loads(texts[1])["score"] == [None, 0.5, {"x": None}]


@pytest.mark.parametrize("form", ["llava", "sharegpt", "parquet"])
def test_it_is_whole_or_not_at_all(pool, tmp_path, monkeypatch, form):
    monkeypatch.setattr(room, "_CHUNK", 7)
    path = tmp_path / "out"
    export(pool, pool.ids()[:3], str(path), form)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(MissingRowsError):
        export(pool, np.append(pool.ids()[:20], np.uint64(5)), str(path), form)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_lost_picture_ends_an_embedding_by_name(pool, tmp_path):
    gone = Pool(pool.root)
    gone.image_root = str(tmp_path)
    with pytest.raises(InputError, match=r"record .*Mend it, or export without embedding"):
        export(gone, gone.ids(), str(tmp_path / "out.parquet"), "parquet", embed=True)
    assert list(tmp_path.iterdir()) == []


def test_wrong_wishes_are_explained(pool, tmp_path):
    with pytest.raises(InputError, match="did you mean 'sharegpt'"):
        export(pool, pool.ids(), str(tmp_path / "x"), "sharegtp")
    with pytest.raises(InputError, match="Parquet only"):
        export(pool, pool.ids(), str(tmp_path / "x"), "llava", embed=True)


def test_the_command_line_exports_picks_in_rank_order(pool, tmp_path):
    ids = pool.ids()[[5, 3, 9]]
    columns = {"sample_id": ids, "rank": [2, 0, 1], "group": [0] * 3, "score": [0.0] * 3}
    columns |= {"selector": ["s"] * 3, "budget": [3] * 3, "seed": [0] * 3}
    import pyarrow as pa

    write_rows(tmp_path / "picks.parquet", pa.table(columns), PICKS)
    base = ["export", pool.root, "--format", "llava", "--out", str(tmp_path / "o.json")]
    done = CliRunner().invoke(app, [*base, "--picks", str(tmp_path / "picks.parquet")])
    assert done.exit_code == 0, done.output
    expected = [r.conversations for r in pool.take(ids[[1, 2, 0]])]
    assert [r["conversations"] for r in json.loads((tmp_path / "o.json").read_text())] == expected
    before = (tmp_path / "o.json").read_bytes()
    with pytest.raises(InputError, match="is there already"):
        CliRunner().invoke(app, base, catch_exceptions=False)
    assert (tmp_path / "o.json").read_bytes() == before
    base[-1] = str(tmp_path / "whole.json")
    assert "30 rows" in CliRunner().invoke(app, base).output
