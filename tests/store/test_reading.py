"""Foreign files become one line that names them; errors of our own code pass untouched; what Ray wraps is unwrapped."""

import json
import os
from dataclasses import dataclass

import pyarrow as pa
import pytest
from vinnow.store.errors import DamagedError, InputError, KeyTwiceError, one_line, root_cause
from vinnow.store.facts import read_as, read_fields, read_lines
from vinnow.store.files import exists, read_bytes, read_json, write_bytes
from vinnow.store.reading import check_path, parse_json, reading, shown

DEEP, HUGE = "[" * 100_000, "9" * 5000


def odd():
    """(what is raised, what must be said of it)."""
    bytes_error = UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid start byte")
    return [
        (OSError("no luck"), "no luck"),
        (IsADirectoryError(21, "Is a directory"), "it is a folder"),
        (PermissionError(13, "Permission denied"), "may not be read"),
        (pa.ArrowInvalid("not a\n parquet\nfile"), "not a parquet file"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deep"),
        (bytes_error, "byte 2 is not UTF-8"),
        (KeyError("rows"), "it has no 'rows'"),
        (TypeError("'int' object is not iterable"), "TypeError: 'int' object is not iterable"),
        (ValueError("Exceeds the limit (4300 digits) for integer string conversion"), "more than 4,300 digits"),
        (OverflowError("too large"), "too large"),
    ]


@pytest.mark.parametrize(("raised", "words"), odd(), ids=lambda x: type(x).__name__)
def test_what_parsing_raises_is_one_line(raised, words):
    with pytest.raises(InputError) as error, reading("a/b.json", "a manifest", "Make it anew."):
        raise raised
    said = str(error.value)
    assert said.startswith("'a/b.json' cannot be read as a manifest: ")
    assert words in said
    assert said.endswith(". Make it anew.")
    assert "\n" not in said
    assert error.value.__cause__ is raised


def test_our_own_errors_and_bugs_pass():
    ours = DamagedError("of ours")
    for error in (ours, AssertionError("a bug"), NotImplementedError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reading("x", "y"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("text", "words"),
    [(DEEP, "nested too deep"), (f'{{"a": {HUGE}}}', "4,300 digits"), ("{]", "is not JSON"), ("", "is not JSON")],
)
def test_json_that_cannot_be_read(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        read_json(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(error.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, words in (("fifo", "FIFO"), ("folder", "a folder"), ("loop", "circle"), ("dangling", "nowhere")):
        with pytest.raises(InputError, match=words):
            read_bytes(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_bytes(tmp_path / "nothing")


@pytest.mark.parametrize("path", ["", " ", "a\0b", "a" * 300, "x/" * 3000, "caf\udce9"])
def test_what_is_no_path(path):
    for use in (check_path, exists, read_bytes, lambda p: write_bytes(p, b"x")):
        with pytest.raises(InputError) as error:
            use(path)
        assert len(str(error.value)) < 400


@dataclass
class Note:
    rows: int
    by_task: dict[str, float]
    listed: str | None = None


def test_fields_are_held_to_their_kinds(tmp_path):
    path = tmp_path / "note.json"
    path.write_text('{"rows": 3, "by_task": {"a": 0.5}, "later": 1}')
    assert read_as(path, Note, "note", "Anew.") == Note(3, {"a": 0.5})
    assert read_fields(path, "note", "Anew.", rows=int, seed=int | None) == {
        "rows": 3,
        "by_task": {"a": 0.5},
        "later": 1,
        "seed": None,
    }
    for text, words in (
        ("[1]", "object"),
        ('{"by_task": {}}', "has no 'rows'"),
        ('{"rows": "many", "by_task": {}}', "'rows'.*integer.*many"),
        ('{"rows": 3, "by_task": {"a": [1]}}', "'by_task.a'"),
    ):
        path.write_text(text)
        with pytest.raises(DamagedError, match=words) as error:
            read_as(path, Note, "note", "Anew.")
        assert str(path) in str(error.value)
        assert str(error.value).endswith("Anew.")


def test_a_log_ends_at_its_last_whole_line_and_names_an_odd_one(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [r["step"] for r in read_lines(path, "step", "Anew.", step=int)] == [1, 2]
    for line in ("[1]", "{]", "{}", '{"step": null}', DEEP):
        path.write_text(f'{{"step": 1}}\n{line}\n')
        with pytest.raises(DamagedError, match="line 2"):
            read_lines(path, "step", "Anew.", step=int)


def test_what_is_shown_of_a_value_is_short():
    bomb = [0] * 9
    for _ in range(9):
        bomb = [bomb] * 9
    for value in (bomb, int(HUGE[:4000]) ** 2, "x" * 10**6, json.loads("[" * 500 + "]" * 500), {"a": bomb}):
        assert len(shown(value)) < 320
        assert "\n" not in shown(value)


# ---- what Ray wraps ------------------------------------------------------------------------------


def as_ray(name, module="ray.exceptions"):
    """An error class as Ray has it."""
    return type(name, (Exception,), {"__module__": module})


def wrapped(kind):
    """An error inside what Ray makes of it, as it reaches a driver."""
    task = as_ray("RayTaskError")("ray::f() (pid=7)\nTraceback (most recent call last):\n  File …\nKeyError: 'vec'")
    if kind == "task":
        task.cause = KeyError("vec")
        return task
    if kind == "user code":
        task.cause = as_ray("UserCodeException")("UDF failed")
        task.cause.__cause__ = KeyError("vec")
        return task
    train = as_ray("WorkerGroupError", "ray.train.v2.api.exceptions")("Training failed due to worker errors:\n…")
    if kind == "workers":
        task.cause, train.worker_failures = KeyError("vec"), {1: OSError("later"), 0: task}
        return train
    train.controller_failure = task
    task.cause = KeyError("vec")
    return train


@pytest.mark.parametrize("kind", ["task", "user code", "workers", "controller"])
def test_what_ray_wraps_is_told_by_its_cause(kind):
    error = wrapped(kind)
    assert type(root_cause(error)) is KeyError
    assert one_line(error) == "KeyError: 'vec'"


def test_of_an_error_of_which_only_the_text_came_through_the_last_words_stay():
    text = "ray::f() (pid=7)\nTraceback (most recent call last):\n  File …\nValueError: no such head"
    assert one_line(as_ray("TuneError", "ray.tune.error")(text)) == "no such head"
    assert one_line(as_ray("ActorDiedError")("")) == "ActorDiedError"


def test_ours_inside_is_told_in_its_own_words():
    error = wrapped("workers")
    error.worker_failures[0].cause = InputError("what, where, the way out")
    assert one_line(error) == "what, where, the way out"


def test_a_circle_ends():
    error = as_ray("RayTaskError")("x")
    error.cause = error
    assert one_line(error) == "x"


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "b": 2}', '{"c": [{"b": 1, "b": {}, "a": 3}]}'])
def test_a_key_twice_is_refused_where_that_is_asked(text):
    with pytest.raises(KeyTwiceError, match="'here' names 'b' twice") as caught:
        parse_json(text, "here", once=True)
    assert caught.value.key == "b"
    assert parse_json(text, "here") == json.loads(text)
    assert parse_json('{"a": {"b": 1}, "c": {"b": 1}}', "here", once=True) == {"a": {"b": 1}, "c": {"b": 1}}
