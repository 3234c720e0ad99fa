"""What a local Ray needs of its machine: told before it starts, or when memory runs out under it."""

import os
import resource
import shutil
import subprocess
import sys

import pytest
from foreign import one_line, vinnow
from vinnow.actors import surroundings
from vinnow.pipelines.cli import ray_words
from vinnow.store.errors import VinnowError, WriteError


def test_a_temporary_folder_without_room_is_told_before_ray_starts(disk, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(disk.path))
    surroundings.check_surroundings()
    disk.fill()
    with pytest.raises(WriteError, match=rf"session in '{disk.path}/ray': No space left on device.*RAY_TMPDIR"):
        surroundings.check_surroundings()
    disk.clear()
    shutil.rmtree(disk.path / "ray")
    disk.remount("ro")
    with pytest.raises(WriteError, match=rf"session in '{disk.path}/ray': Read-only file system\..*RAY_TMPDIR"):
        surroundings.check_surroundings()


@pytest.mark.parametrize(
    ("limit", "values", "words"),
    [
        (resource.RLIMIT_NOFILE, (64, 64), "may have 64 files open, and Ray needs 256 at least.*`ulimit -n 65536`"),
        (resource.RLIMIT_NPROC, (60, 60), r"may start \d+ more processes and threads, and Ray needs 256.*`ulimit -u"),
    ],
)
def test_low_limits_are_told_before_ray_starts(limit, values, words, monkeypatch):
    real = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda one: values if one == limit else real(one))
    monkeypatch.setattr(os, "getuid", lambda: 65_534)
    with pytest.raises(VinnowError, match=words):
        surroundings.check_surroundings()


def test_a_ray_that_kills_worker_after_worker_for_memory_is_told(tmp_path):
    log = tmp_path / "raylet.out"
    kills = surroundings.Kills(str(log))
    assert kills.fault(0) == ""  # no log yet
    one = b"[2026] (raylet) x.cc:1: Memory on the node is low\nSelected to kill: (Task: pid=7)\n"
    log.write_bytes(one * 11 + one[:-9])  # the last one is not yet written to its end
    assert kills.fault(10) == ""
    with open(log, "ab") as sink:
        sink.write(one[-9:])
    assert kills.fault(80) == ""  # eleven of them are long ago
    with open(log, "ab") as sink:
        sink.write(one * 11)
    said = kills.fault(90)
    assert said.startswith("the machine's memory is nearly full: Ray has killed 12 of its workers within a minute")
    assert said.endswith("Free memory, or ask for fewer or smaller actors, loaders or workers.")


def test_ray_tells_nothing_among_the_results():
    code = (
        "from vinnow.pipelines.cli import ray_words\nray_words.keep_apart()\nfrom ray._private import worker\n"
        "worker.print_to_stdstream({'lines': ['Raylet is terminated'], 'pid': 'raylet', 'is_err': False}, False)\n"
        "print(open(ray_words.kept_in()).read())\nray_words.forget()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[:1] == ["(raylet) Raylet is terminated"]
    assert ended.stderr == ""


def test_a_soft_limit_is_raised(monkeypatch):
    real, limits = resource.getrlimit, []
    monkeypatch.setattr(resource, "getrlimit", lambda n: (64, 4096) if n == resource.RLIMIT_NOFILE else real(n))
    monkeypatch.setattr(resource, "setrlimit", lambda n, values: limits.append((n, values)))
    surroundings.check_surroundings()
    assert limits == [(resource.RLIMIT_NOFILE, (4096, 4096))]


def test_a_ray_that_does_not_start_is_one_line_and_no_bug(monkeypatch, tiny_pool, tiny_model, tmp_path):
    import ray

    def late(**_):
        raise Exception("The current node timed out during startup.\nThis could happen because …")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_words, "keep_apart", lambda: None)
    monkeypatch.setattr(ray, "init", late)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    line = ["features", "--pool", tiny_pool, "--checkpoint", f"1={tiny_model}", "--out", tmp_path / "out"]
    said = vinnow(*line)
    assert said.code == 1
    assert one_line(said).startswith(
        "failed: Ray does not start: Exception: The current node timed out during startup."
    )
    assert "Is the machine busy, or short of memory or processes? Then run again. Its logs: " in one_line(said)
