"""Normalising as LLaVA's trainer does, and a reason for each kind of damage."""

import pytest
from vinnow.pool.checks import REASONS, RefusedError, check_record, source_of


def turns(*values: str) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("<image>\nwhat?", "<image>\nwhat?"),
        ("what?\n<image>", "<image>\nwhat?"),
        ("<image> vs <image> compare", "<image>\nvs  compare"),  # the spec's own run of LLaVA
        ("<image>", "<image>"),
        ("what?", "<image>\nwhat?"),
    ],
)
def test_the_image_mark_goes_in_front(asked, expected):
    checked = check_record({"image": "a/b.jpg", "conversations": turns(asked, "yes", "sure?", "yes")})
    assert [t["value"] for t in checked.conversations] == [expected, "yes", "sure?", "yes"]


def test_the_mark_stays_in_its_turn():
    checked = check_record({"image": "b.jpg", "conversations": turns("hi", "hello", "<image> what?", "cat")})
    assert [t["value"] for t in checked.conversations] == ["hi", "hello", "<image>\nwhat?", "cat"]


def test_a_literal_mark_without_a_picture_is_text():
    record = {"image": None, "conversations": turns("what is <image>?", "a tag, <image>")}
    checked = check_record(record)
    assert checked.images == ()
    assert checked.conversations == record["conversations"]


def test_a_leading_gpt_turn_is_dropped_and_unknown_keys_of_turns_too():
    raw = {"conversations": [{"from": "gpt", "value": "hi"}, *turns("q", "a")]}
    raw["conversations"][1]["weight"] = 1
    assert check_record(raw).conversations == turns("q", "a")


@pytest.mark.parametrize(
    ("raw", "source", "task"),
    [
        ({"image": "coco/train2017/1.jpg"}, "coco", "coco"),
        ({"image": "./vg/VG_100K/1.jpg"}, "vg", "vg"),
        ({"image": "1.jpg"}, "image", "image"),
        ({"image": "1.jpg", "task": "color"}, "image", "color"),
        ({"image": "gqa/1.jpg", "source": "mine", "task": 7}, "mine", "7"),
        ({"source": None}, "text", "text"),
        ({"source": ""}, "text", "text"),
    ],
)
def test_source_and_task(raw, source, task):
    checked = check_record(raw | {"conversations": turns("q", "a"), "id": 5, "model": ""})
    assert (checked.source, checked.task) == (source, task)
    # what was given comes back by export; what was inferred does not pretend to have been given
    assert checked.extra == {k: v for k, v in raw.items() if k != "image"} | {"id": 5, "model": ""}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["a <image> b <image>", "x"], ["a <image> b <image>", "x"]),  # marks stay where they stand
        (["<image> a", "x", "and <image>?", "y"], ["<image> a", "x", "and <image>?", "y"]),
        ([" a ", "x", "b", "y"], ["<image>\n<image>\na", "x", "b", "y"]),
        (["", "x"], ["<image>\n<image>", "x"]),
        (["<image>\n<image>", "in <image> words"], ["<image>\n<image>", "in <image> words"]),
    ],
)
@pytest.mark.parametrize("key", ["image", "images"])
def test_several_pictures_have_a_mark_each(asked, expected, key):
    checked = check_record({key: ["coco/1.jpg", "vg/2.jpg"], "conversations": turns(*asked)})
    assert checked.images == ("coco/1.jpg", "vg/2.jpg")
    assert [t["value"] for t in checked.conversations] == expected
    assert (checked.source, checked.extra) == ("coco", {})


@pytest.mark.parametrize("marks", [1, 3])
def test_another_number_of_marks_says_both_numbers(marks):
    with pytest.raises(RefusedError, match=f"2 pictures, but {marks} <image>") as error:
        check_record({"image": ["a.jpg", "b.jpg"], "conversations": turns("<image> " * marks, "x")})
    assert error.value.reason == "image_count"


@pytest.mark.parametrize("raw", [{"images": ["a/b.jpg"]}, {"image": ["a/b.jpg"]}, {"image": "a/b.jpg", "images": []}])
def test_a_list_of_one_is_one_picture(raw):
    plain = check_record({"image": "a/b.jpg", "conversations": turns("what?\n<image>", "yes")})
    assert check_record(raw | {"conversations": turns("what?\n<image>", "yes")}) == plain


GOOD = turns("q", "a")
BAD = [
    ("not_an_object", ["a", "list"]),
    ("not_an_object", None),
    ("no_conversations", {}),
    ("no_conversations", {"conversations": None}),
    ("no_conversations", {"conversations": "q"}),
    ("no_conversations", {"conversations": []}),
    ("bad_turn", {"conversations": ["q", "a"]}),
    ("bad_turn", {"conversations": [*GOOD, {"from": "human"}]}),
    ("bad_turn", {"conversations": [{"from": "human", "value": None}, GOOD[1]]}),
    ("bad_turn", {"conversations": [{"from": ["human"], "value": "q"}, GOOD[1]]}),
    ("bad_role", {"conversations": [{"from": "tool", "value": "s"}, *GOOD]}),
    ("not_alternating", {"conversations": [GOOD[0], *GOOD]}),
    ("not_alternating", {"conversations": [*GOOD, GOOD[0]]}),
    ("not_alternating", {"conversations": [GOOD[1]]}),
    ("not_alternating", {"conversations": [GOOD[1], GOOD[1], *GOOD]}),
    ("empty_answer", {"conversations": turns("q", "", "q2", " \n")}),
    ("bad_image", {"conversations": GOOD, "image": ["a.jpg", None]}),
    ("bad_image", {"conversations": GOOD, "images": ["a.jpg", ""]}),
    ("bad_image", {"conversations": GOOD, "images": {"size": 3}}),
    ("bad_image", {"conversations": GOOD, "image": "a.jpg", "images": ["b.jpg"]}),
    ("bad_image", {"conversations": GOOD, "image": ""}),
    ("bad_image", {"conversations": GOOD, "image": 17}),
    ("bad_label", {"conversations": GOOD, "source": {"a": 1}}),
    ("bad_label", {"conversations": GOOD, "task": True}),
    ("too_many_images", {"conversations": turns("<image> a", "x", "<image> b", "y"), "image": "a.jpg"}),
    ("bad_text", {"conversations": turns("q", "half \ud83d")}),
    ("bad_text", {"conversations": GOOD, "image": "a\udc80.jpg"}),
    ("bad_text", {"conversations": GOOD, "task": "\udc80"}),
]


@pytest.mark.parametrize(("reason", "raw"), BAD)
def test_each_damage_has_its_reason(reason, raw):
    with pytest.raises(RefusedError) as error:
        check_record(raw)
    assert error.value.reason == reason
    source_of(raw).encode()  # whatever the damage, its source can be listed


def test_one_empty_answer_of_two_is_no_refusal():
    assert len(check_record({"conversations": turns("q", "", "q2", "a")}).conversations) == 4


def test_refusals_have_no_other_reasons():
    assert all(REASONS.values())
    with pytest.raises(AssertionError):
        RefusedError("some_new_reason")
