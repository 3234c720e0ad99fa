"""The demo's data: truthful, without leaks, and refused exactly where damage was planted."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import easy_vqa
import pytest
from PIL import Image, ImageDraw
from vinnow.pipelines.demo.easy_vqa import DemoDataConfig, build, kind_of, look
from vinnow.pipelines.demo.text_only import COLORS, SHAPES, all_questions
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.tables import REFUSED, read_rows

SMALL = DemoDataConfig(pictures=200, text_rows=50, test_per_task=40, target_rows=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build(str(tmp_path_factory.mktemp("demo")), SMALL)


def rows(path):
    return json.loads(Path(path).read_text())


def test_every_question_of_the_package_has_a_kind_and_its_answer_fits():
    for questions, answers, _ in (easy_vqa.get_train_questions(), easy_vqa.get_test_questions()):
        for question, answer in zip(questions, answers, strict=True):
            allowed = {"color": COLORS, "shape": SHAPES}.get(kind_of(question), ("yes", "no"))
            assert answer in allowed, (question, answer)
    with pytest.raises(InputError, match="how many"):
        kind_of("how many are there?")


def test_ingest_refuses_exactly_the_planted_rows(data, tmp_path):
    assert Counter(reason for _, reason in data.planted) == dict.fromkeys(
        ("image_missing", "image_truncated", "duplicate", "bad_role", "image_outside_root"), 2
    )
    report = ingest(
        IngestConfig(source=data.train, image_root=data.images, duplicates="refuse"), str(tmp_path / "pool")
    )
    refused = read_rows(tmp_path / "pool/refused.parquet", REFUSED)
    reasons = sorted(zip(refused["row"].to_pylist(), refused["reason"].to_pylist(), strict=True))
    assert reasons == sorted(data.planted)
    assert report.rows == data.rows["train"] - len(data.planted)
    assert set(report.by_task) == {"color", "shape", "is_color", "is_shape", "text"}
    assert report.by_source["text"] == SMALL.text_rows
    for name in ("captions", "test", "target"):
        clean = ingest(
            IngestConfig(source=getattr(data, name), image_root=data.images, duplicates="refuse"),
            str(tmp_path / name),
        )
        assert (clean.rows, clean.refused) == (data.rows[name], 0)
        assert len(set(Pool(str(tmp_path / name)).ids().tolist())) == clean.rows


def test_turns_are_the_packages_own_in_its_order(data):
    asked = {}
    for question, answer, picture in zip(*easy_vqa.get_train_questions(), strict=True):
        asked.setdefault((picture, kind_of(question)), []).append((question, answer))
    planted = {row for row, _ in data.planted}
    with_picture = [r for i, r in enumerate(rows(data.train)) if i not in planted and "image" in r]
    assert len({r["image"] for r in with_picture}) == SMALL.pictures
    for record in with_picture:
        values = [t["value"].replace("<image>\n", "") for t in record["conversations"]]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        picture = int(Path(record["image"]).stem)
        assert pairs == asked[picture, record["task"]][: SMALL.turns_max]
        assert sum("<image>" in t["value"] for t in record["conversations"]) == 1


def test_test_and_target_pictures_do_not_meet_each_other_or_the_pool(data):
    target, test = rows(data.target), rows(data.test)
    assert Counter(r["task"] for r in target) == {"color": 8}
    assert Counter(r["task"] for r in test) == dict.fromkeys(("color", "shape", "is_color", "is_shape"), 40)
    assert not {r["image"] for r in target} & {r["image"] for r in test}
    assert all(r["image"].startswith("test/") for r in target + test)
    assert not any(str(r.get("image")).startswith("test/") for r in rows(data.train) + rows(data.captions))
    assert all(len(r["conversations"]) == 2 for r in target + test)


def test_captions_agree_with_the_packages_yes_and_no(data):
    facts = {}
    for question, answer, picture in zip(*easy_vqa.get_train_questions(), strict=True):
        if kind_of(question) in ("is_color", "is_shape") and not re.search(r"\b(not|no)\b", question):
            thing = re.search("|".join(COLORS + SHAPES), question).group()
            facts[picture, thing] = answer == "yes"
    checked = 0
    for record in rows(data.captions):
        caption = record["conversations"][1]["value"]
        for (picture, thing), there in facts.items():
            if picture == int(Path(record["image"]).stem):
                assert (thing in caption) == there, (caption, thing)
                checked += 1
    assert checked > 200
    assert len({r["conversations"][1]["value"] for r in rows(data.captions)}) > 50


def test_size_and_place_are_read_from_the_pixels():
    picture = Image.new("RGB", (60, 60), (240, 250, 245))
    ImageDraw.Draw(picture).rectangle((1, 45, 8, 52), fill=(0, 0, 0))
    assert look(picture) == ("small", "bottom left")
    ImageDraw.Draw(picture).rectangle((0, 0, 59, 59), fill=(240, 250, 245))
    ImageDraw.Draw(picture).ellipse((15, 15, 45, 45), fill=(255, 255, 0))
    assert look(picture) == ("large", "centre")


def test_text_rows_are_distinct_and_true():
    questions = all_questions()
    assert len({q for q, _ in questions}) == len(questions)
    told = dict(questions)
    assert told["a picture shows one red circle. is there not a red shape?"] == "no"
    assert told["a picture shows one red circle. is there not a blue shape?"] == "yes"
    assert told["a picture shows one teal triangle. what shape is teal?"] == "triangle"
    assert told["which of these is a color: circle, gray?"] == "gray"


def test_again_is_the_same_and_does_nothing(data, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in Path(data.train).parent.glob("*.json")}
    assert build(str(Path(data.train).parent), SMALL) == data
    assert {p: p.stat().st_mtime_ns for p in before} == before
    other = build(str(tmp_path / "b"), SMALL)
    assert Path(other.train).read_bytes() == Path(data.train).read_bytes()
    with pytest.raises(InputError, match="another config"):
        build(str(Path(data.train).parent), SMALL.model_copy(update={"seed": 1}))


def test_what_cannot_be_built_is_said(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there are"):
        build(str(tmp_path), SMALL.model_copy(update={"test_per_task": 5000}))
    with pytest.raises(InputError, match="target pictures for 'shape'"):
        build(
            str(tmp_path),
            SMALL.model_copy(update={"target_tasks": ("color", "shape"), "target_rows": 600}),
        )
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(InputError, match=r"pip install easy-vqa==1\.0"):
        build(str(tmp_path), SMALL)
