"""Parquet as hubs have it: layouts, types that JSON lacks, pictures inside turns; one source a data set; out again."""

import datetime
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from vinnow.pool.checks import RefusedError
from vinnow.pool.examine import read_records
from vinnow.pool.export import export
from vinnow.pool.formats.layouts import listed
from vinnow.pool.formats.splits import data_set_of, split_of
from vinnow.pool.images import load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TALK = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "this"}]


def shown(colour: int) -> dict:
    sink = io.BytesIO()
    Image.new("RGB", (8, 6), (colour, 40, 90)).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}


def pool_of(tmp_path, columns: dict, name: str = "set/data/train-00000-of-00001.parquet") -> Pool:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    ingest(IngestConfig(source=str(tmp_path / "set")), str(tmp_path / "pool"))
    return Pool(str(tmp_path / "pool"))


def records(pool: Pool) -> list:
    return pool.take(pool.ids())


def test_dates_and_bytes_in_turns_and_columns_lose_no_column(tmp_path):
    when = datetime.datetime(2024, 5, 1)
    turns = [[t | {"created": when, "raw": b"x"} for t in TALK]]
    pool = pool_of(tmp_path, {"conversations": turns, "when": [when], "raw": [b"ab"], "image": pa.array([shown(1)])})
    (record,) = records(pool)
    assert record.conversations[1]["value"] == "this"
    assert (record.extra["when"], record.extra["raw"]) == ("2024-05-01T00:00:00", "YWI=")
    assert record.source == "set"


def test_pictures_inside_turns(tmp_path):
    part = pa.struct([("type", pa.string()), ("text", pa.string()), ("image", PICTURE)])
    turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(part))]))
    asked = [{"type": "image", "image": shown(c)} for c in (10, 200)] + [{"type": "text", "text": "same?"}]
    talk = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
    ]
    pool = pool_of(tmp_path, {"messages": pa.array([talk], turn)})
    (record,) = records(pool)
    assert [load_image(pool.image_root, i).getpixel((0, 0))[0] for i in record.images] == [10, 200]


@pytest.mark.parametrize("column", ["source", None])
def test_texts_of_user_and_assistant(tmp_path, column):
    columns = {
        "images": pa.array([[shown(1)]], pa.list_(PICTURE)),
        "texts": [[{"user": "q", "assistant": "a", "source": "inner"}, {"user": "r", "assistant": "b", "source": "inner"}]],
        "ratings": [[5, 4]],
    }  # fmt: skip
    pool = pool_of(tmp_path, columns | ({"source": ["outer"]} if column else {}))
    (record,) = records(pool)
    assert [t["value"] for t in record.conversations] == ["<image>\nq", "a", "r", "b"]
    assert record.source == ("outer" if column else "inner")


def test_scienceqa_of_the_hub(tmp_path):
    row = {"question": "Q", "choices": ["x", "y"], "answer": 1, "hint": "", "task": "closed choice", "lecture": "L"}
    row |= {"subject": "natural science", "solution": "S", "grade": "grade2"}
    pool = pool_of(tmp_path, {"image": pa.array([shown(1), None], PICTURE)} | {k: [v, v] for k, v in row.items()})
    first, second = records(pool)
    assert first.conversations[1]["value"] == "L S The answer is B."
    assert [len(r.images) for r in (first, second)] == [1, 0]
    assert (first.source, first.task) == ("scienceqa", "natural science")


def test_sequence_structs_and_views(tmp_path):
    turns = {k: [t[k] for t in TALK] for k in ("from", "value")}
    assert listed(turns) == TALK
    name = pa.array(["d"]).dictionary_encode()
    pool = pool_of(tmp_path, {"conversations": [turns], "dataset": name, "image": pa.array([shown(1)], PICTURE)})
    assert records(pool)[0].conversations[1] == TALK[1]
    assert records(pool)[0].source == "d"


def test_question_and_answer_only_where_one_reading_is_left(tmp_path):
    image = {"image": pa.array([shown(1)], PICTURE)}
    pool = pool_of(tmp_path, image | {"question": ["q"], "answer": ["a"]})
    assert [t["value"] for t in records(pool)[0].conversations] == ["<image>\nq", "a"]
    for more in ({"caption": ["c"]}, {"choices": [["a"]]}):
        pq.write_table(pa.table(image | {"question": ["q"], "answer": ["a"]} | more), tmp_path / "t.parquet")
        with pytest.raises(InputError, match=r"one question .* with one answer"):
            list(read_records(IngestConfig(source=str(tmp_path / "t.parquet"))))


def test_names_of_shards():
    assert data_set_of("/d/vqa/data/train-00000-of-00004.parquet") == "vqa"
    assert data_set_of("/d/mine-00001-of-00004.parquet") == "mine"
    assert data_set_of("/d/vqa/train/0003.parquet") == "vqa"
    assert [split_of(f"/d/{n}", "/d") for n in ("test.parquet", "val/0.parquet", "train_1.jsonl", "a.json")] == [
        "test", "val", "train", "",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["llava", "sharegpt"])
def test_pictures_inside_come_out_as_files_and_in_again(tmp_path, form):
    image = pa.array([shown(1), shown(2), shown(2)], PICTURE)
    pool = pool_of(tmp_path, {"id": list("abc"), "conversations": [TALK] * 3, "image": image})
    done = export(pool, pool.ids(), str(tmp_path / "out/o.json"), form)
    assert done.pictures == "o_images"
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2
    ingest(IngestConfig(source=str(tmp_path / "out/o.json"), image_root=str(tmp_path / "out")), str(tmp_path / "two"))
    again = Pool(str(tmp_path / "two"))
    for a, b in zip(records(pool), records(again), strict=True):
        assert a.conversations == b.conversations
        one, other = (np.array(load_image(p.image_root, r.images[0])) for p, r in ((pool, a), (again, b)))
        assert np.array_equal(one, other)


def test_json_files_of_a_folder_and_their_splits(tmp_path):
    for name in ("b.json", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps({"id": name, "conversations": TALK}))
    config = IngestConfig(source=str(tmp_path), check_images="none")
    assert [r["id"] for r in read_records(config)] == ["a.jsonl", "b.json"]
    (tmp_path / "test.json").write_text("[]")
    with pytest.raises(InputError, match="several splits"):
        list(read_records(config))


@pytest.mark.parametrize("beside", [True, False])
def test_pictures_in_other_columns_are_not_left_out(tmp_path, beside):
    columns = {"conversations": [TALK], "picture": pa.array([shown(1)], PICTURE)}
    columns |= {"image": pa.array([shown(2)], PICTURE)} if beside else {}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"pictures, or other files, in \['picture'\]"):
        list(read_records(IngestConfig(source=str(tmp_path / "t.parquet"))))


def test_a_picture_in_a_column_of_plain_bytes_is_refused_by_row(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    turns = [[{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]] * 2
    table = pa.table({"conversations": turns, "photo": pa.array([buffer.getvalue(), b"no picture"], pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = list(read_records(IngestConfig(source=str(tmp_path / "a.parquet"))))
    assert isinstance(rows[0], RefusedError)
    assert rows[0].reason == "bad_image"
    assert isinstance(rows[1], dict)


def test_names_beside_embedded_pictures_are_kept(tmp_path):
    columns = {"conversations": [TALK], "image": ["coco/1.png"], "images": pa.array([[shown(1)]], pa.list_(PICTURE))}
    (record,) = records(pool_of(tmp_path, columns))
    assert (record.extra["image_names"], len(record.images)) == ("coco/1.png", 1)


def test_a_shard_whose_pictures_are_all_paths_is_read_beside_one_with_bytes(tmp_path):
    pool_of(tmp_path, {"conversations": [TALK], "image": pa.array([shown(1)], PICTURE)})
    named = pa.array([{"bytes": None, "path": "away.png"}])  # as pyarrow types a column without a value: null
    pq.write_table(
        pa.table({"conversations": [TALK], "image": named}), tmp_path / "set/data/train-00001-of-00002.parquet"
    )
    report = ingest(IngestConfig(source=str(tmp_path / "set"), max_refused=0.5), str(tmp_path / "both"))
    assert (report.rows, report.reasons) == (1, {"image_missing": 1})


def test_files_in_other_columns_and_a_layout_that_means_nothing_are_refused(tmp_path):
    sound = pa.array([{"bytes": b"RIFF", "path": "a.wav"}], PICTURE)
    with pytest.raises(InputError, match=r"\['audio'\], .*sound and video are not read"):
        pool_of(tmp_path, {"conversations": [TALK], "audio": sound})
    pq.write_table(pa.table({"conversations": [TALK]}), tmp_path / "set/data/train-00000-of-00001.parquet")
    config = IngestConfig(source=str(tmp_path / "set"), layout="qcm")
    with pytest.raises(InputError, match=r"a layout \(qcm\) means nothing in it"):
        ingest(config, str(tmp_path / "pool"))
