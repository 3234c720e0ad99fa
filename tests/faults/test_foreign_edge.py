"""The last net: what nobody foresaw is one line too, with its traceback in a file, and Ray's wrapping is taken off."""

import re
from pathlib import Path

import pytest
from foreign import vinnow
from vinnow.pipelines.runs import status
from vinnow.store.errors import InputError, VinnowError


def raising(error):
    def work(*_):
        raise error

    return work


def test_a_bug_is_one_line_and_its_traceback_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(status, "status", raising(ZeroDivisionError("division\nby zero")))
    said = vinnow("status", "runs/x")
    assert said.code == 1
    assert not said.trace
    assert said.text.count("\n") == 1
    assert said.text.startswith(
        "failed: ZeroDivisionError: division by zero. This is a bug of vinnow: please report it;"
    )
    file = Path(re.search(r"is in '(.+)'", said.text)[1])
    kept = file.read_text()
    assert kept.startswith("vinnow status runs/x\n")
    assert "Traceback (most recent call last)" in kept
    assert "in work" in kept


def test_a_full_disk_is_no_bug(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(status, "status", raising(OSError(28, "No space left on device")))
    said = vinnow("status", "runs/x")
    assert said.code == 1
    assert "No space left on device" in said.text
    assert "a bug of vinnow" not in said.text


@pytest.mark.parametrize(("ours", "word", "code"), [(InputError, "error", 2), (VinnowError, "failed", 1)])
def test_what_ray_wraps_is_told_as_what_it_is(monkeypatch, ours, word, code):
    ray = type("RayTaskError", (Exception,), {"__module__": "ray.exceptions"})("ray::f() (pid=7)\nTraceback …")
    ray.cause = ours("no such picture [bold]x[/] \x1b[31m")
    monkeypatch.setattr(status, "status", raising(ray))
    said = vinnow("status", "runs/x")
    # neither markup nor a terminal's escapes
    assert said.text == f"{word}: no such picture [bold]x[/] \\x1b[31m\n"
    assert said.code == code
