"""Disks without room, a stdout that takes nothing, low limits: one line with the way out, and a rerun that ends well."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys

import finished
import numpy as np
import pytest
from foreign import one_line, vinnow
from pictures import make_records, write_records
from PIL import Image
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.projections.config import ProjectionConfig
from vinnow.pipelines.runs import status
from vinnow.pool.workers import _refused
from vinnow.store.errors import InputError, VinnowError, WriteError
from vinnow.store.features import FeatureSet
from vinnow.store.files import append_line, read_bytes, whole_folder, write_lines
from vinnow.store.machine import refusal, writing
from vinnow.train import stop

FULL = r"No space left on device. Make room there, or name another place, and run again."
READ_ONLY = r"Read-only file system. Mount it for writing, or name another place, and run again."


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return write_records(folder, *make_records(20)), str(folder / "images")


@pytest.fixture
def command(request, records, tiny_pool, tiny_model, disk):
    """A command by its name, as it writes onto the disk."""
    source, images = records
    out = str(disk.path / "out")
    return {
        "ingest": ["ingest", source, "--images", images, "--out", out],
        "twin": ["twin", "--pool", tiny_pool, "--out", out, "--set", "hidden=32"],
        "init": ["init", source, "--out", f"{out}.yaml"],
        "doctor": ["doctor", source, "--images", images, "--json", f"{out}.json"],
        "export json": ["export", tiny_pool, "--out", f"{out}.json"],
        "export parquet": ["export", tiny_pool, "--out", f"{out}.parquet", "--embed-images"],
        "export-projector": ["export-projector", tiny_model, "--out", f"{out}.bin"],
        "select": ["select", "--pool", tiny_pool, "--selector", "random", "--budget", "20%", "--out", out],
    }[request.param]


COMMANDS = ["ingest", "twin", "init", "doctor", "export json", "export parquet", "export-projector", "select"]


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_full_or_read_only_disk_is_one_line_and_the_rerun_ends_well(command, disk):
    disk.fill()
    said = vinnow(*command)
    assert said.code == 1
    line = one_line(said, disk.path)
    assert line.startswith("failed: cannot write '")
    assert FULL in line
    assert disk.files() == set()
    disk.clear()
    disk.remount("ro")
    said = vinnow(*command)
    assert said.code == 1
    assert READ_ONLY in one_line(said, disk.path)
    disk.remount("rw")
    said = vinnow(*command)
    assert said.code == 0, said.text
    assert disk.files()


def test_a_disk_that_fills_again_and_again_gives_the_run_of_a_large_one(disk, tmp_path, monkeypatch):
    """A whole run on a disk that grows a little after each failure: most stages meet its end."""
    undisturbed = finished.finish(tmp_path / "undisturbed", monkeypatch)
    values = undisturbed.config | {"out": str(disk.path / "out")}
    (tmp_path / "run.yaml").write_text(json.dumps(values))
    disk.remount("size=64k")
    size, lines = 64, []
    while (said := vinnow("run", tmp_path / "run.yaml", seconds=100)).code:
        assert said.code == 1
        lines.append(one_line(said, disk.path))
        assert FULL in lines[-1]
        assert not list(disk.path.rglob("*.tmp-*"))
        size = size + 64 if size < 320 else size * 5 // 4
        assert size < 32_000, "it never ends"
        disk.remount(f"size={size}k")
    assert len(lines) > 5
    met = {part for line in lines for part in line.split("'")[1].removeprefix(f"{values['out']}/").split("/")[:1]}
    assert {"twin", "train", "sweep"} <= met, met
    for name in ("picks", "scores"):
        for mine in sorted((undisturbed.out / name).rglob("*.parquet")):
            assert read_bytes(mine) == read_bytes(disk.path / "out" / name / mine.name)
    mine, theirs = (FeatureSet(f"{o}/features", "gradient").load(3) for o in (undisturbed.out, values["out"]))
    assert np.array_equal(mine.ids, theirs.ids)
    assert np.array_equal(mine.vec, theirs.vec)
    disk.fill()
    report = (disk.path / "out/report.html").read_bytes()
    assert FULL in one_line(vinnow("report", disk.path / "out"), str(disk.path / "out"))
    assert (disk.path / "out/report.html").read_bytes() == report
    assert vinnow("status", disk.path / "out").code == 0
    takes_nothing("status", str(disk.path / "out"), "--json")
    takes_nothing("plan", str(tmp_path / "run.yaml"))


def test_features_on_a_full_disk_go_on_where_there_was_room(tiny_pool, tiny_model, disk, tmp_path):
    config = FeatureConfig(kind="gradient", projection=ProjectionConfig(dim=64), rows_per_part=10)
    outs = [str(disk.path / "out"), str(tmp_path / "out")]
    mine, whole = (make_spec(tiny_pool, [CheckpointRef(1, tiny_model)], config, out) for out in outs)
    disk.fill(but=24_576)
    with pytest.raises(WriteError, match=f"cannot write '{disk.path}/out/.*{FULL}"):
        run_inline(mine)
    disk.clear()
    there = run_inline(mine)
    assert 0 < there.skipped_parts < 6
    run_inline(whole)
    a, b = (FeatureSet(out, "gradient").load(1) for out in outs)
    assert np.array_equal(a.ids, b.ids)
    assert np.array_equal(a.vec, b.vec)


def test_a_log_is_never_cut(disk):
    """Neither by half a row nor by its own renewal: a training that goes on reads it."""
    log, rows = disk.path / "log.jsonl", [{"step": n, "text": "x" * 300} for n in range(30)]
    disk.fill(but=8192)
    with pytest.raises(WriteError, match=FULL):
        _ = [append_line(log, row) for row in rows]
    kept = log.read_text().splitlines()
    assert 10 < len(kept) < 30
    assert [json.loads(line)["step"] for line in kept] == list(range(len(kept)))
    with pytest.raises(WriteError, match=FULL):
        write_lines(log, rows[:25])
    assert log.read_text().splitlines() == kept
    disk.clear()
    append_line(log, rows[0])
    assert len(log.read_text().splitlines()) == len(kept) + 1


def test_a_model_is_whole_or_not_there_whichever_library_wrote(tiny_model, disk):
    """safetensors says it by an error of its own."""
    from vinnow.models.load import load

    model = load(tiny_model).model
    disk.fill(but=65_536)
    with (
        pytest.raises(WriteError, match=f"cannot write '{disk.path}/model': {FULL}"),
        whole_folder(disk.path / "model") as folder,
    ):
        model.save_pretrained(folder)
    assert disk.files() == set()


def test_what_ended_a_training_for_want_of_room_is_not_tried_again(tmp_path):
    stop.leave(str(tmp_path), WriteError("cannot write 'x': full"))
    with pytest.raises(WriteError, match="cannot write 'x': full"):
        stop.raise_left(str(tmp_path))


def test_no_room_to_note_that_there_is_no_room(disk):
    disk.fill()
    stop.leave(str(disk.path), WriteError("cannot write 'x': full"))
    stop.raise_left(str(disk.path))


def takes_nothing(*arguments):
    """Run a command whose stdout is a disk without room."""
    from vinnow.pipelines.cli import main as edge

    with open("/dev/full", "w") as sink, contextlib.redirect_stdout(sink):
        before, sys.argv = sys.argv, ["vinnow", *arguments]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
                edge.main()
        finally:
            sys.argv = before
            sink.flush()  # it was let go: nothing is held that Python would write at its end
    assert ended.value.code == 1
    assert "failed: the result cannot be written to stdout: No space left" in " ".join(said.getvalue().split())


@pytest.mark.parametrize("arguments", [["selectors"], ["selectors", "--json"], ["--version"], ["plan", "--help"]])
def test_a_stdout_that_takes_nothing_is_told(arguments):
    takes_nothing(*arguments)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_takes_nothing_is_told_in_a_process_of_its_own(unbuffered):
    line = [sys.executable, "-m", "vinnow", "--version"]
    with open("/dev/full", "w") as sink:
        ended = subprocess.run(
            line,
            stdout=sink,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        "failed: the result cannot be written to stdout: No space left on device. Make room where it goes, or send it "
        "elsewhere, and run again.\n"
    )


def test_a_reader_of_stdout_that_has_had_enough_is_no_failure_to_tell():
    line = f"{sys.executable} -m vinnow --help | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.returncode in (0, 1)


def test_a_full_log_does_not_hold_up_the_end(tmp_path):
    code = "from vinnow.pipelines.cli import ending\nending.lost('Ray is gone.')\n"
    with open("/dev/full", "w") as sink:
        ended = subprocess.run([sys.executable, "-c", code], stderr=sink, stdout=sink, timeout=30, check=False)
    assert ended.returncode == 1


def test_a_trace_that_finds_no_room_stays_off_the_terminal(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/it")

    monkeypatch.setattr(status, "status", full)
    monkeypatch.setattr("tempfile.mkstemp", full)
    said = vinnow("status", "runs/x")
    assert said.code == 1
    assert said.text == f"failed: '/somewhere/it': {FULL}\n"


def test_too_many_open_files_are_no_fault_of_a_picture(records, tmp_path, monkeypatch):
    """Else sound rows would be refused as unreadable."""

    def opened(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Image, "open", opened)
    line = ["ingest", records[0], "--images", records[1], "--out", tmp_path / "pool", "--set", "workers=0"]
    said = vinnow(*line, "--set", "max_refused=1")
    assert said.code == 1
    assert "Too many open files. Allow more of them (`ulimit -n 65536`), and run again." in one_line(said, "pics/")
    assert not (tmp_path / "pool/pool.json").exists()


def rayish(cause):
    error = type("RayTaskError", (Exception,), {"__module__": "ray.exceptions"})("ray::f() (pid=7)\nTraceback …")
    error.cause = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), f"'/a/b': {FULL}"),
        (OSError(errno.EFBIG, "File too large"), "File too large. Let files grow (`ulimit -f unlimited`)"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), FULL),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 832 vs 790"), FULL),
        (RuntimeError("can't start new thread"), "Resource temporarily unavailable (no more processes or threads)."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "Cannot allocate memory. Free memory"),
        (RuntimeError("Task was killed due to the node running low on memory."), "Cannot allocate memory. Free memory"),
        (RuntimeError("DataLoader worker is killed by signal: Bus error. out of shared memory"), "Enlarge /dev/shm"),
        (MemoryError(), "Cannot allocate memory. Free memory"),
        (rayish(OSError(errno.EROFS, "Read-only file system", "/a")), f"'/a': {READ_ONLY}"),
        (InputError("'x' is damaged: No space left on device"), None),
        (OSError(errno.ENOENT, "No such file or directory"), None),
        (PermissionError(errno.EACCES, "Permission denied"), None),
        (ZeroDivisionError("division by zero"), None),
    ],
)
def test_what_the_machine_refused_is_told_by_its_words(error, words):
    said = refusal(error)
    assert said is None if words is None else words in said


def test_a_place_where_this_user_may_not_write(tmp_path):
    with (
        pytest.raises(WriteError, match=r"cannot write 'p': Permission denied\. Let this user write there"),
        writing("p"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "p.tmp-123")


def test_a_process_that_reads_records_answers_what_it_was_refused():
    assert _refused(MemoryError()).startswith("Cannot allocate memory.")
    assert _refused(VinnowError("ours")) == "ours"
    with pytest.raises(FileNotFoundError):
        _refused(FileNotFoundError(errno.ENOENT, "No such file"))
