"""Captions and boxes from COCO's files and from tables: what is read, normalised, counted and refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions import write_coco
from vinnow.pipelines.generate.drawing import draw
from vinnow.pipelines.generate.prompts import OWN, describe, load_prompts
from vinnow.pipelines.generate.subjects import Subject, read_subjects
from vinnow.store.errors import InputError

KINDS = ("conversation", "detail", "reasoning")


def test_coco_as_a_prompt_shows_it(tmp_path):
    (subject,) = read_subjects(*write_coco(tmp_path, 1)).pictures
    captions = "Picture 0: a dog and a ball, seen 0.\nPicture 0: a dog and a ball, seen 1."
    assert describe(subject, "conversation", 9) == captions
    for kind in ("detail", "reasoning"):
        assert describe(subject, kind, 9) == f"{captions}\n\ndog: [0.100, 0.300, 0.600, 0.800]"


def test_what_of_coco_is_not_used_is_counted(tmp_path):
    images = [
        {"id": 1, "file_name": "first.jpg", "width": 100, "height": 100},
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 100},
        {"id": 2, "file_name": "b.jpg", "width": 100, "height": 100},
        {"id": 3, "width": 100, "height": 100},
        {"file_name": "no-id.jpg"},
    ]
    notes = [{"image_id": 1, "caption": " A cat. "}, {"image_id": 9, "caption": "x"}, {"image_id": 1, "caption": " "}]
    notes += [{"image_id": 1}, {"image_id": [], "caption": "x"}, {"image_id": 3, "caption": "x"}]

    def box(bbox, image=1, category=1, **more):
        return {"image_id": image, "category_id": category, "bbox": bbox, "segmentation": [[0.5] * 8]} | more

    boxes = [
        box([-10, 50, 30, 80]),  # reaches over the edge
        box([0, 0, 10, 10], image=8),
        box([0, 0, 10, 10], category=7),
        box([0, 0, 10, 10], iscrowd=1),
        box([0, 0, 0, 10]),
        box([200, 0, 10, 10]),
        box(["x", 0, 1, 1]),
        box([float("nan"), 0, 1, 1]),
        box(None),
        box([0, 0, 1, 1], category=[]),
    ]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": notes}))
    categories = [{"id": 1, "name": "cat"}, {"id": 2}]
    (tmp_path / "i.json").write_text(json.dumps({"images": [], "annotations": boxes, "categories": categories}))
    subjects = read_subjects(str(tmp_path / "c.json"), str(tmp_path / "i.json"))
    first, second, third = subjects.pictures
    assert first.image == "a.jpg"
    assert first.captions == ("A cat.",)
    assert [b.line() for b in first.boxes] == ["cat: [0.000, 0.500, 0.200, 1.000]"]
    assert (second.captions, second.fault) == ((), None)
    assert third.fault == "the picture has no file_name"
    assert subjects.told == {
        "pictures without an id": 1,
        "pictures whose id a later one has, too": 1,
        "captions of no picture in the file": 2,
        "captions without a text": 2,
        "pictures without captions": 2,
        "pictures without boxes": 2,
        "boxes of no picture in the captions": 1,
        "boxes of no known category": 2,
        "boxes of crowds": 1,
        "boxes without an area, or outside of the picture": 5,
    }


def test_tables_in_both_formats(tmp_path):
    box = {"category": "dog", "bbox": [10.0, 10.0, 40.0, 20.0]}
    rows = [
        {"image": "a.jpg", "width": 100, "height": 50, "captions": ["A dog.", "A\ndog runs."], "boxes": [box]},
        {"image": "b.jpg", "width": 100, "height": 50, "captions": [], "boxes": []},
        {"image": "c.jpg", "width": 0, "height": 50, "captions": ["x"], "boxes": [box]},
        {"image": None, "width": 1, "height": 50, "captions": ["x"], "boxes": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + "[1]\n")
    (tmp_path / "t.json").write_text(json.dumps(rows))
    for name in ("t.parquet", "t.json", "t.jsonl"):
        first, second, third, fourth, *rest = read_subjects(str(tmp_path / name), None).pictures
        assert describe(first, "detail", 5) == "A dog.\nA dog runs.\n\ndog: [0.100, 0.200, 0.500, 0.600]"
        assert second == Subject("b.jpg")
        assert "a box is none" in third.fault
        assert "names no picture" in fourth.fault
        assert [bool(s.fault) for s in rest] == ([True] if name == "t.jsonl" else [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"annotations": 1, "images": []}', "annotations"),
        ('{"annotations": [1], "images": []}', "annotations"),
        ('{"annotations": []}', "images"),
        ('{"annotations": [', "cannot be read"),
        ('{"annotations": [], "images": []}', "no pictures"),
        ("[]", "no pictures"),
        ('[{"image": "a", "captions": ["x"]}, {"image": "a", "captions": ["y"]}]', "'a' 2 times"),
    ],
)
def test_a_source_that_is_none_is_one_line(text, said, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_subjects(str(tmp_path / "c.json"), None)


def test_a_table_brings_its_own_boxes(tmp_path):
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(InputError, match="holds its boxes itself"):
        read_subjects(str(tmp_path / "t.json"), "instances.json")
    pq.write_table(pa.table({"image": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no column 'captions'"):
        read_subjects(str(tmp_path / "t.parquet"), None)


def test_the_largest_boxes_are_shown_in_their_order(tmp_path):
    sizes = [1, 5, 3, 4]
    boxes = [{"category": f"c{s}", "bbox": [0, 0, s, s]} for s in sizes]
    (tmp_path / "t.json").write_text(
        json.dumps([{"image": "a", "width": 9, "height": 9, "captions": "x", "boxes": boxes}])
    )
    (subject,) = read_subjects(str(tmp_path / "t.json"), None).pictures
    lines = describe(subject, "detail", 2).splitlines()
    assert [line.split(":")[0] for line in lines[2:]] == ["c5", "c4"]


# ---- which picture is asked what -----------------------------------------------------------------


def test_a_mix_is_kept_and_a_larger_limit_only_adds():
    subjects = [Subject(f"{i}.jpg", ("x",)) for i in range(1580)]
    shares = {"conversation": 58 / 158, "detail": 23 / 158, "reasoning": 77 / 158}
    jobs = draw(subjects, shares, 0, None)
    assert [j.subject for j in jobs] == subjects
    assert [sum(j.kind == k for j in jobs) for k in KINDS] == [580, 230, 770]
    before: set = set()
    for limit in (1, 7, 158, 900):
        some = {(j.subject.image, j.kind) for j in draw(subjects, shares, 0, limit)}
        assert len(some) == limit
        assert before <= some
        before = some
    assert before <= {(j.subject.image, j.kind) for j in jobs}
    counts = [sum(j.kind == k for j in draw(subjects, shares, 0, 100)) for k in KINDS]
    assert all(abs(n - 100 * shares[k]) <= 1 for n, k in zip(counts, KINDS, strict=True))
    assert draw(subjects, shares, 1, 100) != draw(subjects, shares, 0, 100)


# ---- prompts -------------------------------------------------------------------------------------


def test_our_own_prompts_are_whole_and_keep_their_own_rules():
    from vinnow.pipelines.generate.answers import check, turns_of
    from vinnow.pipelines.generate.config import GenerateConfig

    config = GenerateConfig.parse(
        {"kind": "mix", "source": "c.json", "endpoint": {"base_url": "http://localhost/v1", "model": "m"}}
    )
    for kind, prompts in load_prompts(None, list(KINDS)).items():
        assert len(prompts.examples) >= 2
        for captions, answer in prompts.examples:
            assert ("[" in captions) == (kind != "conversation")
            check(turns_of(kind, answer, "What is it?"), config.words[kind])
        assert (len(set(prompts.questions)) > 9) == (kind == "detail")


def test_own_prompts_also_in_llavas_folders(tmp_path):
    place = tmp_path / "complex_reasoning"
    place.mkdir()
    (place / "system_message.txt").write_text("Think.\n")
    (place / "000_caps.txt").write_text("a cat")
    (place / "000_conv.txt").write_text("Question:\nq\n===\nAnswer:\na")
    prompts = load_prompts(str(tmp_path), ["reasoning"])["reasoning"]
    said = prompts.messages(Subject("a.jpg", ("a dog",)), 9)
    assert [(m.role, m.text) for m in said] == [
        ("system", "Think."),
        ("user", "a cat"),
        ("assistant", "Question:\nq\n===\nAnswer:\na"),
        ("user", "a dog"),
    ]
    (place / "000_conv.txt").write_text(" ")
    with pytest.raises(InputError, match=r"000_conv.txt' is empty"):
        load_prompts(str(tmp_path), ["reasoning"])
    with pytest.raises(InputError, match="system_message"):
        load_prompts(str(tmp_path), ["detail"])


def test_the_question_of_a_description_is_drawn_by_the_seed():
    prompts = load_prompts(OWN, ["detail"])["detail"]
    drawn = [prompts.question(0, f"{i}.jpg") for i in range(60)]
    assert drawn == [prompts.question(0, f"{i}.jpg") for i in range(60)]
    assert len(set(drawn)) > 5
    assert drawn != [prompts.question(1, f"{i}.jpg") for i in range(60)]
