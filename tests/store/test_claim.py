"""An output folder is empty or the stage's own, and has one writer."""

import json
import os
import subprocess
import sys
import time

import pytest
from vinnow.store import claim as claims
from vinnow.store.claim import LOCK, MARK, BusyError, check_new_file, check_out, claim
from vinnow.store.errors import InputError


def test_an_empty_folder_is_marked_and_taken_again_by_its_stage_alone(tmp_path):
    out = tmp_path / "a/b"
    with claim(str(out), "ingest"):
        (out / "x").write_text("1")
        assert json.loads((out / LOCK).read_text())["pid"] == os.getpid()
    assert sorted(os.listdir(out)) == [MARK, "x"]
    with claim(str(out), "ingest"):
        pass
    with pytest.raises(InputError, match=r"was made by 'ingest', not by 'train'"), claim(str(out), "train"):
        pass


def test_a_folder_with_other_files_is_refused_and_one_of_known_names_taken(tmp_path):
    (tmp_path / "part-000000.parquet").write_text("theirs")
    with (
        pytest.raises(InputError, match=r"holds other files \('part-000000.parquet'\)"),
        claim(str(tmp_path), "ingest"),
    ):
        pass
    assert os.listdir(tmp_path) == ["part-000000.parquet"]
    (tmp_path / "pool.json").write_text("{}")
    with claim(str(tmp_path), "ingest", r"pool\.json"):
        pass


@pytest.mark.parametrize("out", ["", "  ", "/dev/null", "FILE"])
def test_what_is_no_folder_is_refused(tmp_path, out):
    (tmp_path / "FILE").write_text("x")
    with pytest.raises(InputError, match=r"empty path|is no folder"):
        check_out(str(tmp_path / out) if out == "FILE" else out)
    assert (tmp_path / "FILE").read_text() == "x"


def test_an_output_file_is_new(tmp_path):
    (tmp_path / "train.json").write_text("theirs")
    check_new_file(str(tmp_path / "new.json"))
    for path in ("", "/dev/full", str(tmp_path), str(tmp_path / "train.json")):
        with pytest.raises(InputError, match=r"empty path|no regular file|is there already"):
            check_new_file(path)


def test_what_is_read_does_not_lie_in_the_output(tmp_path):
    (tmp_path / "out/model").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out/model")
    for name in ("out", "out/model", "out/../out/model", "link"):
        with pytest.raises(InputError, match="is to be read, and lies in the output folder"):
            check_out(str(tmp_path / "out"), [None, str(tmp_path / name)])
    check_out(str(tmp_path / "out"), [str(tmp_path / "output"), str(tmp_path)])


HOLD = """
import sys, time
from vinnow.store.claim import claim
with claim(sys.argv[1], "ingest"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_dead_one_followed(tmp_path):
    out = str(tmp_path / "out")
    process = subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    said = rf"is being written by 'ingest' \(process {process.pid} on .*, since \d{{4}}-"
    with pytest.raises(BusyError, match=said), claim(out, "ingest"):
        pass
    process.kill()
    process.wait()
    with claim(out, "ingest"):
        pass


def test_another_host_is_believed_while_it_touches_its_lock(tmp_path, monkeypatch):
    with claim(str(tmp_path / "out"), "ingest"):
        (tmp_path / "out/x").write_text("1")
    lock = tmp_path / "out" / LOCK
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "", "since": time.time(), "stage": "ingest"}))
    with pytest.raises(BusyError, match="process 1 on elsewhere"), claim(str(tmp_path / "out"), "ingest"):
        pass
    old = time.time() - 2 * claims._STALE
    os.utime(lock, (old, old))
    with claim(str(tmp_path / "out"), "ingest"):
        pass
    lock.write_text("{")  # cut off by a crash
    os.utime(lock, (old, old))
    with claim(str(tmp_path / "out"), "ingest"):
        pass


def test_a_number_that_is_another_process_s_by_now_holds_nothing(tmp_path):
    with claim(str(tmp_path / "out"), "ingest"):
        held = json.loads((tmp_path / "out" / LOCK).read_text())
        (tmp_path / "out/x").write_text("1")
    (tmp_path / "out" / LOCK).write_text(json.dumps(held | {"born": "1"}))
    with claim(str(tmp_path / "out"), "ingest"):
        pass


def test_a_stage_that_wrote_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no source"), claim(str(tmp_path / "out"), "ingest"):
        raise ValueError("no source")
    assert not (tmp_path / "out").exists()
