"""What of a sound row is read otherwise than it stands, or passed over, is counted by ingest and told by the doctor."""

import json

import pytest
from PIL import Image
from vinnow.pool.checks import RefusedError, check_record
from vinnow.pool.doctor import WARNINGS, examine, render
from vinnow.pool.draft import draft, from_bytes, to_bytes
from vinnow.pool.formats.chat import to_llava
from vinnow.pool.ingest import IngestConfig, ingest, told_of
from vinnow.pool.odd import ODD, SIZES


def asks(text, answer="A square."):
    return [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]


def shows(text, image="a.jpg"):
    return {"image": image, "conversations": asks(text)}


def chat(*turns, **more):
    return to_llava({"messages": [{"role": ("user", "assistant")[n % 2]} | t for n, t in enumerate(turns)]} | more)


def kinds(raw):
    return [kind for kind, _ in check_record(raw).odd]


MARKS = [
    ("<image>\nWhat?", []),
    (" <image> What?", []),
    ("Look at this: <image> what is it?", ["mark_moved"]),
    ("left <image> right <image> differ?", ["mark_moved", "marks_dropped"]),
    ("<image>\n<image>\nWhat?", ["marks_dropped"]),
    ("What?", ["mark_added"]),
    ("<IMG_CONTEXT>\nWhat?", ["mark_added", "other_mark"]),
    ("<start_of_image>What?", ["mark_added", "other_mark"]),
    ("<IMAGE> What?", ["mark_added", "other_mark"]),
    ("<image_1> What?", ["mark_added", "other_mark"]),
    ("<image>\nWhat of <|image_1|>?", ["other_mark"]),
    ("<image>\nWhat is an <imagery> or <b>?", []),
    ("<|vision_start|><|image_pad|><|vision_end|>What?", []),
]


@pytest.mark.parametrize(("text", "expected"), MARKS)
def test_marks(text, expected):
    assert kinds(shows(text)) == expected
    assert kinds({"conversations": asks(text.replace("<|vision_start|><|image_pad|><|vision_end|>", ""))}) == []


def test_marks_of_several_pictures():
    assert kinds(shows("What?", ["a.jpg", "b.jpg"])) == ["mark_added"]
    assert kinds(shows("a <image> b <image>", ["a.jpg", "b.jpg"])) == []


def test_what_is_told_changes_no_text():
    """Other programs' marks stay text, so that a pool made before keeps its ids."""
    checked = check_record(shows("<image_1> What?"))
    assert checked.conversations == asks("<image>\n<image_1> What?")
    said = chat({"content": "What?"}, {"content": "A square.", "reasoning_content": "Four sides."})
    assert check_record(said).conversations == asks("What?")


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_reasoning(key):
    assert check_record(chat({"content": "a"}, {"content": "b", key: "hm"})).odd == (("reasoning_left_out", key),)
    ours = asks("What?")
    ours[1][key] = "hm"
    assert check_record({"conversations": ours}).odd == (("reasoning_left_out", key),)
    ours[1][key] = ""
    assert check_record({"conversations": ours}).odd == ()


@pytest.mark.parametrize("tools", [[{"name": "f"}], '[{"name": "f"}]'])
def test_tools(tools):
    assert kinds(chat({"content": "a"}, {"content": "b"}, tools=tools)) == ["tools_left_out"]
    assert kinds({"conversations": asks("What?"), "tools": tools}) == ["tools_left_out"]
    assert kinds({"conversations": asks("What?"), "tools": tools[:0] or "[]"}) == []


@pytest.mark.parametrize("key", SIZES)
def test_sizes(key):
    part = {"type": "image", "image": "a.jpg", key: 280}
    said = chat({"content": [part, {"type": "text", "text": "What?"}]}, {"content": "A square."})
    assert check_record(said).odd == (("picture_size_left_out", key),)
    assert check_record(said).conversations == asks("<image>\nWhat?")
    listed = shows("<image>\nWhat?", [{"path": "a.jpg", key: 280}])
    assert check_record(listed).odd == (("picture_size_left_out", key),)


def test_a_masked_answer_is_refused_as_one_of_weight_0():
    masked, idle = asks("What?"), asks("What?")
    masked[1]["mask"] = True
    idle[0]["mask"], idle[1]["mask"] = True, False
    for raw in ({"conversations": masked}, chat({"content": "What?"}, {"content": "b", "mask": True})):
        with pytest.raises(RefusedError, match="not to be trained on") as error:
            check_record(raw)
        assert error.value.reason == "bad_turn"
    assert check_record({"conversations": idle}).conversations == asks("What?")


def test_it_travels_between_processes():
    drafted = draft([7, shows("see <image> it"), shows("<image>\nit"), shows("it")])
    assert list(drafted.odd) == [1, 3]
    assert from_bytes(to_bytes(drafted).to_pybytes()).odd == drafted.odd


def test_ingest_and_the_doctor_tell_the_same(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    records = [shows(text) for text, _ in MARKS] + [shows("gone <image>", "none.jpg"), {"conversations": asks("Hi?")}]
    (tmp_path / "r.json").write_text(json.dumps([*records, shows("Look at this: <image> what is it?")]))
    config = IngestConfig(
        source=str(tmp_path / "r.json"), image_root=str(tmp_path), duplicates="refuse", max_refused=0.5
    )
    counts = {"mark_added": 4, "other_mark": 5, "mark_moved": 2, "marks_dropped": 1}
    counted = examine(config)
    # neither the refused row nor those that repeat another's content count
    assert {name: n for name, n in counted.warnings.items() if name in ODD} == counts
    assert counted.examples["mark_moved"][0] == "row 2: 'Look at this: <image> what is it?'"
    assert ODD.keys() <= WARNINGS.keys()
    assert render(counted)
    report = ingest(config, str(tmp_path / "pool"))
    assert report.odd == counts
    assert json.loads((tmp_path / "pool/pool.json").read_text())["odd"] == counts
    assert f"2 rows: {ODD['mark_moved']} (mark_moved)." in told_of(report)
    # a pool of before has no such count; it is the same pool
    manifest = json.loads((tmp_path / "pool/pool.json").read_text())
    (tmp_path / "pool/pool.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "odd"}))
    again = ingest(config, str(tmp_path / "pool"))
    assert (again.digest, again.odd, told_of(again)) == (report.digest, {}, [])
    assert ingest(config.model_copy(update={"workers": 2}), str(tmp_path / "other")).odd == counts
    assert report.reasons == {"image_missing": 1, "duplicate": report.reasons["duplicate"]}
