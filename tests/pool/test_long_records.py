"""Records without end: one refused row each, in bounded memory, and what follows is read; parts stay small."""

import gzip
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from peak import peak_of_ingest
from vinnow.pool import blocks, json_stream, writer
from vinnow.pool.formats import scienceqa, webdataset
from vinnow.pool.formats.source import Source
from vinnow.pool.formats.webdataset import read as read_webdataset
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.json_stream import iter_records
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError

TURNS = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a cat"}]
MIB = 1 << 20


def member(name: str, data: bytes = b"x") -> bytes:
    """One file of a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf() + data + bytes(-len(data) % 512)


def jsonl(*records: object) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


GOOD = {"conversations": TURNS}


@pytest.mark.parametrize("ending", [".jsonl.gz", ".json.gz"])
def test_a_line_or_record_without_end_is_one_refused_row(tmp_path, ending):
    path = tmp_path / f"r{ending}"
    with gzip.open(path, "wb", 1) as sink:
        lines = ending.startswith(".jsonl")
        sink.write(jsonl(GOOD, GOOD) if lines else b"[" + json.dumps(GOOD).encode() + b",")
        sink.write(b'{"conversations": [{"from": "human", "value": "')
        for _ in range(200):
            sink.write(b'\\\\\\"' + b"]a" * (MIB // 2))
        sink.write(b'"}]}' + (b"\n" + jsonl(GOOD) if lines else b"," + json.dumps(GOOD).encode() + b"]"))
    assert path.stat().st_size < 4 * MIB
    grown, said = peak_of_ingest(path, tmp_path / "pool")
    assert said == [3 if lines else 2, {"record_too_large": 1}]
    assert grown < 250


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}, {"x": "%s"}, {"b": 2}]',
        '[{"a": 1}, "%s", {"b": 2}]',
        '[{"a": 1}, ["\\\\", {"]": "}%s\\""}], {"b": 2}]',
        '[{"a": 1}, 1%s, {"b": 2}]',
        '{"a": 1}\n{"x": "%s"}\n{"b": 2}\n',
        '{"a": 1}\n{"x": "%s\n{"b": 2}',
    ],
)
def test_what_is_too_large_is_stepped_over_whole(tmp_path, monkeypatch, text, chunk):
    for module in (json_stream, blocks):
        monkeypatch.setattr(module, "RECORD_BYTES", 100)
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "r.json"
    path.write_text(text % ("1" * 333))
    first, bad, last = iter_records(str(path))
    assert (first, last) == ({"a": 1}, {"b": 2})
    assert bad.reason == "record_too_large"


@pytest.mark.parametrize(
    "wrapped", ['{"data": [%s, {"conversations": [1], "x": "%s"}, %s]}', '{"a": %s, "b": {"x": "%s"}, "c": %s}']
)
def test_a_wrapped_record_that_is_too_large_is_one_row(tmp_path, monkeypatch, wrapped):
    monkeypatch.setattr(json_stream, "RECORD_BYTES", 300)
    path = tmp_path / "r.json"
    path.write_text(wrapped % (json.dumps(GOOD), "1" * 999, json.dumps(GOOD)))
    rows = list(iter_records(str(path)))
    assert [getattr(f, "reason", "") for f in rows] == ["", "record_too_large", ""]


def test_a_file_of_other_things_is_named_before_it_is_held(tmp_path):
    path = tmp_path / "r.json.gz"
    with gzip.open(path, "wb", 1) as sink:
        sink.write(b'{"images": [0')
        for _ in range(200):
            sink.write(b", 0" * (MIB // 3))
        sink.write(b"]}")
    grown, said = peak_of_ingest(path, tmp_path / "pool")
    assert "r.json.gz: row 0: more than 16777216 bytes of values that are no records" in str(said)
    assert grown < 250


def test_parts_and_groups_of_long_records_hold_fewer_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_CHARS", 5000)
    monkeypatch.setattr(writer, "GROUP_CHARS", 1000)
    lengths = np.random.default_rng(1).integers(10, 900, 60)
    records = [
        {"id": i, "conversations": [TURNS[0], {"from": "gpt", "value": "a" * n}]}
        for i, n in enumerate(lengths.tolist())
    ]
    parts = []
    for name, batch in (("a", 1024), ("b", 7)):
        monkeypatch.setattr("vinnow.pool.examine._BATCH", batch)
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": records}))
        ingest(IngestConfig(source=str(tmp_path / f"{name}.json")), str(tmp_path / name))
        files = sorted((tmp_path / name).glob("part-*.parquet"))
        parts.append([f.read_bytes() for f in files])
        sizes = [pq.read_metadata(f) for f in files]
        assert sum(m.num_rows for m in sizes) == 60
        assert max(m.num_rows for m in sizes) < 40
        assert max(m.row_group(0).num_rows for m in sizes) < 8
    assert parts[0] == parts[1]
    pool = Pool(str(tmp_path / "a"))
    assert [len(r.conversations[1]["value"]) for r in pool.take(pool.ids())] == lengths.tolist()


def test_a_sample_of_many_files_or_much_text_is_one_refused_row(tmp_path, monkeypatch):
    good = json.dumps(GOOD).encode()
    shard = member("a.json", good) + member("b.json", b"[" * 900) + b"".join(member(f"c.{i}") for i in range(1500))
    path = tmp_path / "s.tar"
    path.write_bytes(shard + member("d.json", good) + bytes(1024))
    monkeypatch.setattr(webdataset, "RECORD_BYTES", len(good))
    rows = list(read_webdataset(Source(str(path))))
    assert [getattr(f, "reason", "") for f in rows] == ["", "record_too_large", "record_too_large", ""]


def test_problems_of_gigabytes_are_not_read(tmp_path, monkeypatch):
    for name in ("problems.json", "pid_splits.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(scienceqa, "_MOST", 1)
    with pytest.raises(InputError, match=r"problems\.json' has 2 bytes"):
        list(scienceqa.read(Source(str(tmp_path), split="train")))
