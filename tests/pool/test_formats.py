"""Every format in: the same records as in LLaVA's JSON, pictures from where they lie, damage listed, shards named."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import make_records
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app
from vinnow.pool.examine import read_records, settle
from vinnow.pool.formats.registry import FORMATS, choose, detect
from vinnow.pool.formats.source import Source
from vinnow.pool.images import load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.tables import REFUSED, read_rows

RECORDS, PICTURES = make_records(10)
TWO = {
    "id": "two",
    "image": list(PICTURES)[:2],
    "conversations": [{"from": "human", "value": "is <image> like <image>?"}, {"from": "gpt", "value": "yes"}],
}
ROWS = [*RECORDS, TWO]


def png(picture) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()


def names(record) -> list[str]:
    image = record.get("image")
    return [image] if isinstance(image, str) else image or []


def as_messages(record, parts: bool = False) -> list[dict]:
    messages = [{"role": "system", "content": "Be brief."}]
    for turn in record["conversations"]:
        content = turn["value"]
        if parts:
            texts = content.replace("<image>\n", "<image>").split("<image>")
            content = [{"type": "text", "text": texts[0]}]
            for text in texts[1:]:
                content += [{"type": "image", "text": None}, {"type": "text", "text": text}]
        messages.append({"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": content})
    return messages


def pool_of(tmp_path, source, **fields) -> Pool:
    ingest(IngestConfig(source=str(source), **fields), str(tmp_path / "made"))
    return Pool(str(tmp_path / "made"))


def records_of(pool: Pool) -> list:
    return pool.take(pool.ids())


def check_texts(pool: Pool, spaced: bool = True) -> None:
    """The pool holds ROWS, whatever their pictures are called."""
    assert pool.facts["refused"] == 0, pool.facts["reasons"]
    squeeze = (lambda t: t) if spaced else (lambda t: t.replace("<image>\n", "<image>").strip())
    for record, raw in zip(records_of(pool), ROWS, strict=True):
        assert [squeeze(t["value"]) for t in record.conversations] == [
            squeeze(t["value"]) for t in raw["conversations"]
        ]
        assert len(record.images) == len(names(raw))


def check_pictures(pool: Pool) -> None:
    for record, raw in zip(records_of(pool), ROWS, strict=True):
        for relative, name in zip(record.images, names(raw), strict=True):
            assert np.array_equal(np.array(load_image(pool.image_root, relative)), np.array(PICTURES[name]))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for name, picture in PICTURES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
    return folder


@pytest.fixture
def zipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as sink:
        for name, picture in PICTURES.items():
            sink.writestr(name, png(picture))
    return tmp_path / "all.zip"


def test_llava_json_with_pictures_in_a_zip(tmp_path, zipped):
    (tmp_path / "r.json").write_text(json.dumps(ROWS))
    pool = pool_of(tmp_path, tmp_path / "r.json", image_root=str(zipped))
    check_texts(pool)
    check_pictures(pool)
    assert pool.image_root == str(zipped)
    assert [r.images for r in records_of(pool)] == [tuple(names(r)) for r in ROWS]


@pytest.mark.parametrize("style", ["messages", "parts", "conversations", "jsonl.gz"])
def test_sharegpt(tmp_path, images, style):
    rows = []
    for raw in ROWS:
        turns = as_messages(raw, parts=style == "parts")
        if style == "conversations":
            tags = {"user": "human", "assistant": "gpt", "system": "system"}
            turns = [{"from": tags[t["role"]], "value": t["content"]} for t in turns]
        key = "conversations" if style == "conversations" else "messages"
        rows.append({key: turns, "images": names(raw), "id": raw["id"]})
    path = tmp_path / "r.json"
    if style == "jsonl.gz":
        path = tmp_path / "r.jsonl.gz"
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        path.write_text(json.dumps(rows))
    assert detect(str(path)).name == "sharegpt"
    pool = pool_of(tmp_path, path, image_root=str(images))
    check_texts(pool, spaced=style != "parts")
    check_pictures(pool)
    assert all(r.extra["system"] == "Be brief." for r in records_of(pool))


def test_other_roles_are_refused(tmp_path):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    call = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": "f"},
        {"from": "observation", "value": "o"},
    ]
    rows = [
        {"messages": talk},
        {"conversations": [*call, {"from": "gpt", "value": "a"}]},
        {"messages": [*talk, {"role": "system", "content": "late"}, talk[1]]},
        {"messages": [{"role": "system", "content": "one"}, *talk], "system": "other"},
        {"messages": [{"role": "user", "content": [{"type": "video"}]}, talk[1]]},
        {"messages": "q"},
        ["q"],
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    ingest(IngestConfig(source=str(tmp_path / "r.json"), format="sharegpt", max_refused=1), str(tmp_path / "made"))
    refused = read_rows(tmp_path / "made/refused.parquet", REFUSED).to_pylist()
    reasons = ["bad_role", "bad_role", "bad_system", "unsupported_media", "no_conversations", "not_an_object"]
    assert [(r["row"], r["reason"]) for r in refused] == list(enumerate(reasons, 1))


def write_shards(folder, style: str, group: int = 4) -> None:
    """Two shards of ROWS: bytes or paths, `conversations` or `messages`, and a column that JSON cannot hold."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
    message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate((ROWS[:6], ROWS[6:])):
        cells = [[{"bytes": png(PICTURES[n]), "path": n} for n in names(r)] for r in rows]
        columns = {"id": pa.array([r["id"] for r in rows]), "when": pa.array([0] * len(rows), pa.date32())}
        if style == "messages":
            columns["messages"] = pa.array([as_messages(r) for r in rows], message)
        else:
            columns["conversations"] = pa.array([r["conversations"] for r in rows], turn)
        if style == "paths":
            cells = [[c | {"bytes": None} for c in cell] for cell in cells]
        if style == "strings":
            columns["images"] = pa.array([names(r) for r in rows], pa.list_(pa.string()))
        elif style == "binary":
            columns["images"] = pa.array([[c["bytes"] for c in cell] for cell in cells], pa.list_(pa.binary()))
        else:
            columns["images"] = pa.array(cells, pa.list_(struct))
        pq.write_table(pa.table(columns), folder / f"train-{number:05d}-of-00002.parquet", row_group_size=group)


@pytest.mark.parametrize("style", ["conversations", "messages", "binary"])
@pytest.mark.parametrize("source_as", ["folder", "pattern"])
def test_parquet_with_pictures_inside(tmp_path, style, source_as):
    write_shards(tmp_path / "set/data", style)
    source = tmp_path / "set" / ("data/train-*.parquet" if source_as == "pattern" else "")
    pool = pool_of(tmp_path, source)
    check_texts(pool)
    check_pictures(pool)
    assert pool.image_root == str(tmp_path / "set" / ("data" if source_as == "pattern" else ""))
    assert all(
        ("system" in r.extra) == (style == "messages") and r.extra["when"] == "1970-01-01" for r in records_of(pool)
    )


@pytest.mark.parametrize("style", ["paths", "strings"])
def test_parquet_with_paths(tmp_path, images, style):
    write_shards(tmp_path / "data", style)
    pool = pool_of(tmp_path, tmp_path / "data", image_root=str(images))
    assert [r.images for r in records_of(pool)] == [tuple(names(r)) for r in ROWS]
    check_pictures(pool)


def test_one_picture_a_row_in_a_struct(tmp_path):
    rows = [r for r in RECORDS if "image" in r]
    cells = [{"bytes": png(PICTURES[r["image"]]), "path": None} for r in rows] + [None]
    talk = [r["conversations"] for r in rows] + [RECORDS[4]["conversations"]]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, struct), "conversations": talk}), tmp_path / "p.parquet")
    pool = pool_of(tmp_path, tmp_path / "p.parquet")
    assert [len(r.images) for r in records_of(pool)] == [1] * 8 + [0]
    assert records_of(pool)[3].images == ("p.parquet/3/0",)


def test_pictures_bytes_are_not_read_for_the_records(tmp_path, monkeypatch):
    write_shards(tmp_path / "data", "conversations")
    asked, real = [], pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, *a, columns: (asked.extend(columns), real(self, *a, columns=columns))[1],
    )
    assert len(list(read_records(IngestConfig(source=str(tmp_path / "data"))))) == len(ROWS)
    assert asked
    assert not any("bytes" in c or c == "images" for c in asked)


def test_shards_that_cannot_be_used_are_named(tmp_path):
    write_shards(tmp_path / "data", "conversations")
    with pytest.raises(InputError, match="not under the image root"):
        list(read_records(IngestConfig(source=str(tmp_path / "data"), image_root=str(tmp_path / "other"))))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/a.parquet").symlink_to(tmp_path / "data/train-00000-of-00002.parquet")
    with pytest.raises(InputError, match=r"a\.parquet.*is a link that leads out"):
        list(read_records(IngestConfig(source=str(tmp_path / "cache"))))
    whole = (tmp_path / "data/train-00001-of-00002.parquet").read_bytes()
    (tmp_path / "data/train-00001-of-00002.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet"):
        list(read_records(IngestConfig(source=str(tmp_path / "data"))))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"no column `conversations`.*\['text'\]"):
        list(read_records(IngestConfig(source=str(tmp_path / "t.parquet"))))


def test_splits_of_shards_are_not_mixed(tmp_path):
    write_shards(tmp_path / "data", "conversations")
    (tmp_path / "data/train-00001-of-00002.parquet").rename(tmp_path / "data/test-00000-of-00001.parquet")
    source = str(tmp_path / "data")
    with pytest.raises(InputError, match=r"several splits, \['test', 'train'\]"):
        list(read_records(IngestConfig(source=source)))
    assert len(list(read_records(IngestConfig(source=source, split="test")))) == len(ROWS) - 6
    with pytest.raises(InputError, match="no shard of split 'val'"):
        list(read_records(IngestConfig(source=source, split="val")))


def write_tars(folder) -> None:
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate((ROWS[:6], ROWS[6:])):
        with tarfile.open(folder / f"s-{number:06d}.tar", "w") as tar:

            def put(name, data, tar=tar):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

            for i, raw in enumerate(rows):
                key = f"./part/{number}{i:04d}"
                many = len(names(raw)) > 1
                for k, name in reversed(list(enumerate(names(raw)))):  # the record says their order
                    put(f"{key}.{k}.png" if many else f"{key}.PNG", png(PICTURES[name]))
                told = {k: v for k, v in raw.items() if k != "image"}
                if many:
                    told["images"] = [f"{number}{i:04d}.{k}.png" for k in range(len(names(raw)))]
                put(f"{key}.json", json.dumps(told).encode())


def test_webdataset(tmp_path):
    write_tars(tmp_path / "shards")
    pool = pool_of(tmp_path, tmp_path / "shards")
    check_texts(pool)
    check_pictures(pool)
    assert records_of(pool)[0].images == ("s-000000.tar/part/00000.PNG",)


@pytest.mark.parametrize("suffix", ["tif", "JFIF", "bmp", "mp4", "wav", "xyz"])
@pytest.mark.parametrize("told", ["json", "txt"])
def test_no_medium_of_a_shard_is_dropped_in_silence(tmp_path, suffix, told):
    reason = {"mp4": "unsupported_media", "wav": "unsupported_media", "xyz": "bad_image"}.get(suffix)
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]
    record = json.dumps({"conversations": turns}).encode() if told == "json" else b"a red circle"
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        members = [(f"a.{suffix}", png(PICTURES["pics/0.png"])), (f"a.{told}", record), ("b.txt", b"a text")]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    pool = pool_of(tmp_path, tmp_path / "s.tar", max_refused=1)
    refused = read_rows(tmp_path / "made/refused.parquet", REFUSED).to_pylist()
    assert [r["reason"] for r in refused if r["row"] == 0] == ([reason] if reason else [])
    assert [r.images for r in records_of(pool) if r.images] == ([] if reason else [(f"s.tar/a.{suffix}",)])


def test_captions_and_damaged_samples_of_a_shard(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in [
            ("__hidden.txt", b"x"),
            ("._a.jpg", b"x"),
            ("a.png", png(PICTURES["pics/0.png"])),
            ("a.txt", b" a red circle \n"),
            ("b.png", png(PICTURES["pics/1.png"])),
            ("b.json", b'{"caption": "a blue one", "url": "u"}'),
            ("c.json", b"{broken"),
            ("d.json", b"[1]"),
            ("e.txt", b"\xff"),
            ("f.cls", b"7"),
            ("g.json", b'{"id": 3}'),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    pool = pool_of(tmp_path, tmp_path / "s.tar", max_refused=1)
    first, second = records_of(pool)
    assert [t["value"] for t in first.conversations] == ["<image>", "a red circle"]
    assert (first.images, first.extra["id"]) == (("s.tar/a.png",), "a")
    assert (second.conversations[1]["value"], second.extra["url"]) == ("a blue one", "u")
    refused = read_rows(tmp_path / "made/refused.parquet", REFUSED).to_pylist()
    reasons = ["not_an_object", "not_an_object", "bad_text", "no_conversations", "no_conversations"]
    assert [r["reason"] for r in refused] == reasons
    assert ["'c'" in refused[0]["detail"], "'f'" in refused[3]["detail"]] == [True, True]


@pytest.mark.parametrize("damage", ["cut", "between", "torn", "gz"])
def test_a_damaged_shard_ends_the_read_by_name(tmp_path, damage):
    write_tars(tmp_path / "shards")
    path = tmp_path / "shards/s-000001.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[3].offset
    torn = data[:offset] + b"\xff" * 512 + data[offset + 512 :]
    path.write_bytes(
        {"cut": data[: offset + 600], "between": data[:offset], "torn": torn, "gz": gzip.compress(data)}[damage]
    )
    with pytest.raises(InputError, match=r"s-000001\.tar.*cannot be read to its end"):
        list(read_records(IngestConfig(source=str(tmp_path / "shards"))))


def test_unknown_sources_list_what_is_known(tmp_path):
    (tmp_path / "r.csv").write_text("a,b")
    (tmp_path / "empty").mkdir()
    for path in ("r.csv", "empty"):
        with pytest.raises(InputError, match="in no format that is known") as error:
            detect(str(tmp_path / path))
        assert all(f.looks in str(error.value) for f in FORMATS.values())
    for path, words in (("gone.json", "no such file"), ("gone*.parquet", "no file of that pattern")):
        with pytest.raises(InputError, match=words):
            detect(str(tmp_path / path))
    (tmp_path / "empty/a.tar").write_bytes(b"")
    (tmp_path / "empty/a.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="parquet and webdataset"):
        detect(str(tmp_path / "empty"))


def test_options_that_mean_nothing_are_refused(tmp_path):
    (tmp_path / "r.json").write_text("[]")
    path = str(tmp_path / "r.json")
    for fields in ({"split": "train"}, {"layout": "qcm"}):
        with pytest.raises(InputError, match="means nothing in format 'llava'"):
            settle(IngestConfig(source=path, **fields))
    with pytest.raises(InputError, match="did you mean 'parquet'"):
        choose(Source(path), "parket")
    with pytest.raises(InputError, match="layout"):
        IngestConfig.parse({"source": path, "layout": "cqm"})


def test_one_odd_record_makes_no_other_format(tmp_path):
    (tmp_path / "r").write_text("\ufeff \n" + json.dumps([*RECORDS, {"messages": []}, 5]))
    assert detect(str(tmp_path / "r")).name == "llava"


def test_a_shard_that_changes_is_another_source(tmp_path):
    write_shards(tmp_path / "data", "conversations")
    config = IngestConfig(source=str(tmp_path / "data"))
    first = ingest(config, str(tmp_path / "made"))
    assert ingest(config, str(tmp_path / "made")) == first
    write_shards(tmp_path / "data", "messages")
    with pytest.raises(InputError, match="size: was"):
        ingest(config, str(tmp_path / "made"))


def test_the_command_line_takes_format_and_split(tmp_path):
    write_shards(tmp_path / "data", "conversations")
    (tmp_path / "data/train-00001-of-00002.parquet").rename(tmp_path / "data/test-00000-of-00001.parquet")
    source = str(tmp_path / "data")
    ingested = CliRunner().invoke(
        app, ["ingest", source, "--format", "parquet", "--split", "train", "--out", str(tmp_path / "made")]
    )
    assert ingested.exit_code == 0, ingested.output
    assert Pool(str(tmp_path / "made")).rows == 6
    assert CliRunner().invoke(app, ["doctor", source, "--split", "test"]).exit_code == 0
