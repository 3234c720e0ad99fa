"""No picture, film, sound or system prompt of a record is dropped without a word, however it is spelled."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from vinnow.models.encoding import make_encoder
from vinnow.models.load import load_processor
from vinnow.pool.checks import RefusedError, check_record
from vinnow.pool.doctor import examine
from vinnow.pool.encode import EncodeError
from vinnow.pool.export import export
from vinnow.pool.formats.chat import to_llava
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool


def asks(text="<image>\nWhat?"):
    return [{"from": "human", "value": text}, {"from": "gpt", "value": "A square."}]


KEYS = ["image", "images", "image_path", "image_paths", "image_file", "img", "image_url", "picture", "photo"]
VALUES = [
    "a.jpg",
    ["a.jpg"],
    {"path": "a.jpg"},
    {"path": "a.jpg", "bytes": None},
    [{"path": "a.jpg"}],
    {"url": "a.jpg"},
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("text", ["<image>\nWhat?", "What?"])
def test_every_spelling_of_one_picture_is_the_same_record(key, value, text):
    checked = check_record({"id": 1, key: value, "conversations": asks(text)})
    assert checked.images == ("a.jpg",)
    assert checked.conversations == asks()
    assert checked.extra == {"id": 1}


@pytest.mark.parametrize(
    "raw",
    [
        {"image": "a.jpg", "images": ["a.jpg"]},
        {"image": "a.jpg", "image_path": "/data/coco/a.jpg"},
        {"image": "a.jpg", "image_url": "https://example.org/1234"},
    ],
)
def test_two_keys_of_one_picture_agree(raw):
    assert check_record(raw | {"conversations": asks()}).images == ("a.jpg",)


PARTS = [
    {"type": "image", "path": "a.jpg"},
    {"type": "image", "url": "a.jpg"},
    {"type": "image", "image": "a.jpg"},
    {"type": "image", "image": {"path": "a.jpg", "bytes": None}},
    {"type": "image_url", "image_url": {"url": "a.jpg", "detail": "low"}},
    {"type": "image_url", "image_url": "a.jpg"},
    {"type": "input_image", "image_url": "a.jpg"},
    {"image": "a.jpg"},
]


@pytest.mark.parametrize("part", PARTS)
def test_every_spelling_of_a_part_is_read(part):
    said = {"type": "text", "text": "What?"}
    raw = {
        "messages": [
            {"role": "user", "content": [part, said]},
            {"role": "assistant", "content": [{"text": "A square."}]},
        ]
    }
    checked = check_record(to_llava(raw))
    assert (checked.images, checked.conversations) == (("a.jpg",), asks())


def test_bare_marks_take_the_records_pictures():
    raw = {
        "messages": [{"role": "user", "content": [{"type": "image"}, "What?"]}, {"role": "assistant", "content": "x"}]
    }
    assert check_record(to_llava(raw | {"images": ["b.jpg"]})).images == ("b.jpg",)


def test_tags_in_a_turn_name_pictures():
    qwen = "Picture 1: <img>a.jpg</img>\nPicture 2: <img>sub/b.png</img>\nWhich?"
    checked = check_record({"conversations": asks(qwen)})
    assert checked.images == ("a.jpg", "sub/b.png")
    assert checked.conversations[0]["value"] == "Picture 1: <image>\nPicture 2: <image>\nWhich?"
    vision = "<|vision_start|><|image_pad|><|vision_end|>What?"
    assert check_record({"image": "a.jpg", "conversations": asks(vision)}).conversations == asks()
    markup = asks("Write <img>the word</img> and explain <img src='a.jpg'> in HTML.")
    assert check_record({"conversations": markup}).conversations == markup


BAD = [
    ("unsupported_media", {"video": "v.mp4", "conversations": asks("<video>\nWhat?")}),
    ("unsupported_media", {"video": "v.mp4", "conversations": asks()}),
    ("unsupported_media", {"image": "a.jpg", "videos": ["v.mp4"], "conversations": asks()}),
    ("unsupported_media", {"audios": ["s.wav"], "conversations": asks("What is said?")}),
    ("unsupported_media", {"conversations": asks("<audio>\nWhat is said?")}),
    ("unsupported_media", {"conversations": asks("What is said?\n<video>")}),
    ("unsupported_media", {"media": "clips/1.mp4", "conversations": asks("What?")}),
    ("bad_image", {"photo_name": "a.jpg", "conversations": asks("What?")}),
    ("bad_image", {"media": [{"file": "a.png"}], "conversations": asks("What?")}),
    ("bad_image", {"image": "data:image/png;base64,iVBORw0KGgo=", "conversations": asks()}),
    ("bad_image", {"image": {"bytes": "iVBORw0KGgo="}, "conversations": asks()}),
    ("bad_image", {"image_base64": "data:image/png;base64,iVBORw0KGgo=", "conversations": asks("What?")}),
    ("bad_image", {"image": "a.jpg", "image_path": "b.jpg", "conversations": asks()}),
    ("bad_image", {"image": "a.jpg", "conversations": asks("<img>b.jpg</img>What?")}),
    ("bad_image", {"image": {"size": 3}, "conversations": asks()}),
    ("bad_system", {"system": ["a"], "conversations": asks("What?")}),
    ("bad_system", {"system": "a", "system_prompt": "b", "conversations": asks("What?")}),
    (
        "bad_role",
        {"conversations": [*asks("What?"), {"from": "system", "value": "late"}, {"from": "gpt", "value": "x"}]},
    ),
]


@pytest.mark.parametrize(("reason", "raw"), BAD)
def test_what_is_not_read_is_refused_by_name(reason, raw):
    with pytest.raises(RefusedError) as caught:
        check_record(raw)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("unsupported_media", {"type": "video", "video": "v.mp4"}),
        ("unsupported_media", {"type": "audio", "path": "s.wav"}),
        ("unsupported_media", {"type": "input_audio", "audio": {"data": "x"}}),
        ("bad_turn", {"type": "tool_use", "name": "f"}),
        ("bad_turn", {"type": "document", "source": {}}),
        ("bad_image", {"type": "image", "source": {"type": "base64", "data": "x"}}),
        ("bad_image", {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}),
        ("bad_image", {"type": "image", "image": {"bytes": "x"}}),
    ],
)
def test_parts_that_are_not_read_are_refused_by_name(reason, part):
    raw = {
        "messages": [
            {"role": "user", "content": [part, {"type": "text", "text": "q"}]},
            {"role": "assistant", "content": "a"},
        ]
    }
    with pytest.raises(RefusedError) as caught:
        check_record(to_llava(raw))
    assert caught.value.reason == reason


def test_what_only_looks_like_media_stays():
    fine = {
        "id": "coco/1.jpg",
        "url": "https://example.org/page",
        "model": "x.v1",
        "score": 1,
        "note": "see a.jpg there",
    }
    assert check_record(fine | {"conversations": asks("What?")}).extra == fine
    kept = {"image": "a.jpg", "caption_file": "a.png"}
    assert check_record(kept | {"conversations": asks()}).extra == {"caption_file": "a.png"}


# ---- system prompts --------------------------------------------------------------------------------


def told(how, text="Answer like a pirate."):
    turns = asks("What?")
    return {
        "key": {"system": text, "conversations": turns},
        "prompt": {"system_prompt": text, "conversations": turns},
        "turn": {"conversations": [{"from": "system", "value": text}, *turns]},
        "both": {"system": text, "conversations": [{"from": "system", "value": text}, *turns]},
    }[how]


def pool_of(tmp_path, records, name="pool"):
    (tmp_path / f"{name}.json").write_text(json.dumps(records))
    ingest(IngestConfig(source=str(tmp_path / f"{name}.json")), str(tmp_path / name))
    return Pool(str(tmp_path / name))


def test_a_system_prompt_is_part_of_the_record_however_it_is_carried(tmp_path):
    ids = {how: pool_of(tmp_path, [told(how)], how).ids()[0] for how in ("key", "prompt", "turn", "both")}
    assert len(set(ids.values())) == 1
    plain = pool_of(tmp_path, [{"conversations": asks("What?")}], "plain").ids()[0]
    other = pool_of(tmp_path, [told("key", "Answer in French.")], "other").ids()[0]
    assert len({plain, other, ids["key"]}) == 3


def test_it_stands_where_the_templates_own_stood(tmp_path, tiny_model):
    pool = pool_of(tmp_path, [told("turn"), {"conversations": asks("What?")}])
    encoder = make_encoder(load_processor(tiny_model))
    mine, plain = sorted(pool.take(pool.ids()), key=lambda r: not r.system)
    texts = {r.system: encoder.tokenizer.decode(encoder.encode(r).input_ids) for r in (mine, plain)}
    assert "Answer like a pirate. USER: What?" in texts[mine.system]
    assert "curious user" not in texts[mine.system]
    assert "curious user" in texts[""]
    trained = encoder.encode(mine)
    words = encoder.tokenizer.decode(trained.input_ids[trained.labels != -100])
    assert "pirate" not in words
    assert "square" in words
    assert "pirate" in encoder.tokenizer.decode(encoder.prompt(mine).input_ids)
    with pytest.raises(EncodeError, match="no place for a system prompt"):
        make_encoder(load_processor(tiny_model), "plain").encode(mine)


@pytest.mark.parametrize("form", ["llava", "sharegpt", "parquet"])
def test_it_survives_export(tmp_path, form):
    pool = pool_of(tmp_path, [told("turn"), {"conversations": asks("Else?")}])
    path = tmp_path / f"out.{'parquet' if form == 'parquet' else 'json'}"
    export(pool, pool.ids(), str(path), form)
    ingest(IngestConfig(source=str(path)), str(tmp_path / "again"))
    assert np.array_equal(np.sort(Pool(str(tmp_path / "again")).ids()), np.sort(pool.ids()))


UNHEARD = [
    ("bad_image", 0, {"image": "a.jpg"}, "names a picture ('image': 'a.jpg')"),
    ("unsupported_media", 0, {"video": "a.mp4"}, "only pictures are read"),
    ("bad_turn", 1, {"weight": 0}, "not to be trained on ('weight': 0)"),
    ("bad_turn", 1, {"loss": False}, "not to be trained on ('loss': False)"),
    ("bad_turn", 1, {"tool_calls": [{"name": "f"}]}, "calls are not trained on"),
]


@pytest.mark.parametrize(("reason", "number", "more", "said"), UNHEARD)
def test_what_a_turn_says_of_itself_is_not_passed_over(reason, number, more, said):
    turns = asks("What?")
    turns[number] |= more
    chat = [{"role": {"human": "user", "gpt": "assistant"}[t["from"]], "content": t["value"]} for t in turns]
    chat[number] |= more
    for raw in ({"conversations": turns}, {"messages": chat}):
        record = to_llava(raw) if "messages" in raw else raw
        with pytest.raises(RefusedError, match=re.escape(said)) as error:
            check_record(record)
        assert error.value.reason == reason
    idle = [asks("What?")[0] | {"train": False, "image": None}, asks()[1] | {"weight": 1, "video": []}]
    assert check_record({"conversations": idle}).conversations == asks("What?")


def test_an_answer_to_nothing_is_left_out_and_kept_beside(tmp_path):
    turns = [{"from": "gpt", "value": "Hello."}, *asks("What?")]
    checked = check_record({"conversations": turns})
    assert (checked.conversations, checked.extra) == (asks("What?"), {"answer_left_out": "Hello."})
    (tmp_path / "r.json").write_text(json.dumps([{"conversations": turns}, {"conversations": asks("Else?")}]))
    assert examine(IngestConfig(source=str(tmp_path / "r.json"))).warnings == {"answer_left_out": 1}


def test_doctor_counts_all_of_these(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    records = [{"image_path": "a.jpg", "conversations": asks()}, told("key"), *(raw for _, raw in BAD)]
    (tmp_path / "r.json").write_text(json.dumps(records))
    report = examine(IngestConfig(source=str(tmp_path / "r.json"), image_root=str(tmp_path)))
    assert report.rows == 2
    wanted = {reason: sum(r == reason for r, _ in BAD) for reason in dict.fromkeys(r for r, _ in BAD)}
    assert report.reasons == wanted
    assert report.warnings["system_prompt"] == 1
