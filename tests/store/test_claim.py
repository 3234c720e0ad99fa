"""An output folder is empty or the stage's own, and has one writer."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from vinnow.store import lock as locks
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
    old = time.time() - 2 * locks.STALE
    os.utime(lock, (old, old))
    with claim(str(tmp_path / "out"), "ingest"):
        pass
    lock.write_text("{")  # cut off by a crash
    os.utime(lock, (old, old))
    with claim(str(tmp_path / "out"), "ingest"):
        pass


def test_what_a_kill_left_of_a_mark_or_a_lock_holds_nobody_up(tmp_path):
    for name in (f"{MARK}.tmp-4b1913b4699c", f"{LOCK}.123"):
        (tmp_path / name).write_text("{")
    with claim(str(tmp_path), "run"):
        (tmp_path / "x").write_text("1")


def hold_elsewhere(out, seconds_ago=0.0, **fields):
    """Leave the lock that a process of another machine would hold, which it touched so long ago."""
    lock = out / LOCK
    held = {"host": "elsewhere", "machine": "another", "pid": 1, "born": "", "since": time.time(), "stage": "train"}
    lock.write_text(json.dumps(held | {"command": "vinnow train x.yaml"} | fields))
    then = time.time() - seconds_ago
    os.utime(lock, (then, then))
    return lock


def test_who_is_refused_is_told_how_the_folder_becomes_free(tmp_path):
    with claim(str(tmp_path / "out"), "train"):
        (tmp_path / "out/x").write_text("1")
    lock = hold_elsewhere(tmp_path / "out", 100)
    with pytest.raises(BusyError) as said, claim(str(tmp_path / "out"), "train"):
        pass
    assert ": vinnow train x.yaml). Wait for it, or name another output folder. It was last heard of 10" in str(
        said.value
    )
    assert str(said.value).endswith(
        f"if that machine is gone, the folder is free in 3 min, or as soon as you delete {str(lock)!r}."
    )
    lock.unlink()
    with claim(str(tmp_path / "out"), "train"):
        pass
    assert not lock.exists()


def test_containers_that_share_a_name_are_told_apart(tmp_path):
    """By the number of a process alone one would take over what the other writes."""
    (tmp_path / "out").mkdir()
    hold_elsewhere(tmp_path / "out", host=socket.gethostname(), pid=(1 << 22) + 1)
    with pytest.raises(BusyError, match="last heard of"), claim(str(tmp_path / "out"), "train"):
        pass


def test_an_attempt_follows_one_of_the_same_driver_at_once_and_waits_for_anybody_else_s(tmp_path):
    """A trial whose node is lost leaves its lock; nobody on that node will ever take it away."""
    run, out = tmp_path / "run", tmp_path / "run/sweep/a/train"
    with claim(str(run), "run"):
        with locks.attempt_of(str(run)), claim(str(out), "train"):
            mine = json.loads((out / LOCK).read_text())
            (out / "x").write_text("1")
        lock = hold_elsewhere(out, run=mine["run"])
        with pytest.raises(BusyError), claim(str(out), "train"):  # typed by hand, in the middle of it
            pass
        with locks.attempt_of(str(run)), claim(str(out), "train"):
            pass
        hold_elsewhere(out, run=f"{mine['run']}0")  # of a driver before
        with locks.attempt_of(str(run)), pytest.raises(BusyError), claim(str(out), "train"):
            pass
        lock.unlink()


def test_a_folder_behind_a_uri_has_one_writer_too(tmp_path):
    """As a bucket's does: there the lock is made in two steps, and its age is the store's own."""
    out = f"file://{tmp_path}/out"
    with claim(out, "train"):
        (tmp_path / "out/x").write_text("1")
        held = json.loads((tmp_path / "out" / LOCK).read_text())
        assert held["pid"] == os.getpid()
    assert not (tmp_path / "out" / LOCK).exists()
    lock = hold_elsewhere(tmp_path / "out", 100)
    with pytest.raises(BusyError, match=rf"as soon as you delete 'file://{lock}'"), claim(out, "train"):
        pass
    hold_elsewhere(tmp_path / "out", 2 * locks.STALE)
    with claim(out, "train"):
        pass
    # a dead process of this machine
    process = subprocess.Popen([sys.executable, "-c", HOLD.replace('"ingest"', '"train"'), out], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(BusyError, match=f"process {process.pid} on"), claim(out, "train"):
        pass
    process.kill()
    process.wait()
    with claim(out, "train"):
        pass


def test_who_was_suspended_for_too_long_ends_and_leaves_the_new_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "TOUCH", 0.01)
    told, out = threading.Event(), tmp_path / "out"
    monkeypatch.setattr(locks, "when_taken", [lambda what: told.set()])

    def work():
        with claim(str(out), "train"):
            (out / "x").write_text("1")
            hold_elsewhere(out)
            assert told.wait(60)

    with pytest.raises(BusyError, match="was taken over by process 1 on elsewhere"):
        work()
    assert json.loads((out / LOCK).read_text())["host"] == "elsewhere"


def test_ages_are_those_of_the_disk_s_own_clock(tmp_path, monkeypatch):
    """A machine whose clock is hours ahead must not take a living writer for a dead one."""
    (tmp_path / "out").mkdir()
    hold_elsewhere(tmp_path / "out")
    now = time.time()
    monkeypatch.setattr(locks.time, "time", lambda: now + 7200)
    with pytest.raises(BusyError, match=r"last heard of \d s ago"), claim(str(tmp_path / "out"), "train"):
        pass


def test_a_lock_tells_the_command_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/vinnow/__main__.py", "train", "a.yaml", "--set", "api_key=sk-123"])
    with claim(str(tmp_path / "out"), "train"):
        assert json.loads((tmp_path / "out" / LOCK).read_text())["command"] == "vinnow train a.yaml --set api_key=…"
        (tmp_path / "out/x").write_text("1")


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
