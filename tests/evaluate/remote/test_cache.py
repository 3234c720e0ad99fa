"""The store of answers: on disk before it is handed on, whole after a kill, shared by processes."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vinnow.evaluate.remote.cache import Cache
from vinnow.evaluate.remote.reply import Reply, Tokens
from vinnow.store.errors import DamagedError, InputError, WriteError

PARENT = Path(__file__).parents[4]
WRITER = """
import sys
from vinnow.evaluate.remote.cache import Cache
from vinnow.evaluate.remote.reply import Reply
cache, name = Cache(sys.argv[1]), sys.argv[2]
for i in range(int(sys.argv[3])):
    cache.put(f"{name}-{i}", Reply("x" * 2000, model=name), 1.0)
    print(i, flush=True)
"""


def writer(path, name, n) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(path), name, str(n)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=PARENT, env=os.environ | {"PYTHONPATH": str(PARENT)}
    )


def test_what_goes_in_comes_out(tmp_path):
    replies = {
        "a": Reply("Grüße \ud800\0", "stop", Tokens(3, 4), "m"),
        "b": Reply("", "length", None, ""),
    }
    cache = Cache(str(tmp_path / "deep" / "c.sqlite"))
    for key, reply in replies.items():
        cache.put(key, reply, 0.5)
    cache.lose("c", 0.25, certain=True)
    cache.lose("d", 0.0, certain=True)
    cache.close()
    again = Cache(str(tmp_path / "deep" / "c.sqlite"))
    assert {key: again.get(key) for key in (*replies, "c")} == {**replies, "c": None}
    assert (len(again), again.spent()) == (2, 1.25)


def test_a_kill_loses_nothing_that_was_handed_on(tmp_path):
    path = tmp_path / "c.sqlite"
    child = writer(path, "a", 100_000)
    handed = -1
    until = time.monotonic() + 30
    while handed < 50 and time.monotonic() < until:
        handed = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    handed = max([handed, *(int(line) for line in child.stdout.read().splitlines()[:-1])])
    child.wait()
    cache = Cache(str(path))
    assert all(cache.get(f"a-{i}") == Reply("x" * 2000, model="a") for i in range(handed + 1))
    assert len(cache) <= handed + 3
    cache.put("after", Reply("y"), 0.0)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_was_under_way_at_a_kill_is_known_and_counts_until_it_is_answered(tmp_path):
    path = str(tmp_path / "c.sqlite")
    killed = Cache(path)
    names = [killed.send("answered", 1.0), killed.send("a", 2.0), killed.send("b", 4.0), killed.send("failed", 8.0)]
    killed.put("answered", Reply("x"), 0.5)
    killed.lose("failed", 0.25, certain=True)
    assert len({*names}) == 4
    cache = Cache(path)  # as after a kill
    assert [cache.was_under_way(k) for k in ("answered", "a", "b", "failed", "new")] == [False] * 5
    assert (cache.take_over(), cache.killed(), cache.spent()) == (2, 2, 0.5 + 0.25 + 2 + 4)
    assert [cache.was_under_way(k) for k in ("answered", "a", "b", "failed", "new")] == [
        False,
        True,
        True,
        False,
        False,
    ]
    # the same name where nothing came of it, another where something did
    assert cache.send("a", 2.0) == names[1]
    cache.put("a", Reply("y"), 1.0)
    assert cache.send("failed", 8.0) != names[3]
    cache.lose("failed", 8.0, certain=False)
    again = Cache(path)
    assert (again.take_over(), again.killed(), again.spent()) == (1, 2, 0.5 + 0.25 + 2 + 4 + 1 + 8)
    other = Cache(str(tmp_path / "other.sqlite"))
    assert other.send("a", 2.0) != names[1]


def test_a_cache_of_before_is_read(tmp_path):
    path = tmp_path / "c.sqlite"
    Cache(str(path)).put("k", Reply("x"), 2.0)
    with sqlite3.connect(path) as db:
        for table in ("sent", "killed", "salt"):
            db.execute(f"DROP TABLE {table}")
    cache = Cache(str(path))
    assert (cache.get("k"), cache.take_over(), cache.spent()) == (Reply("x"), 0, 2.0)


def test_two_processes_write_one_cache(tmp_path):
    path = tmp_path / "c.sqlite"
    children = [writer(path, name, 150) for name in "ab"] + [writer(path, "a", 150)]
    assert [child.communicate()[1] or child.returncode for child in children] == [0, 0, 0]
    cache = Cache(str(path))
    assert len(cache) == 300
    assert cache.spent() == 450  # what both asked was paid by both
    assert all(cache.get(f"{n}-{i}") for n in "ab" for i in range(150))


def test_something_else_is_left_alone(tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    before = other.read_bytes()
    with pytest.raises(InputError, match="no cache of answers"):
        Cache(str(other))
    assert other.read_bytes() == before
    (tmp_path / "text").write_text("not a database, and long enough to be seen as none " * 20)
    with pytest.raises(DamagedError, match=r"text.* is damaged"):
        Cache(str(tmp_path / "text"))
    with pytest.raises(InputError, match="folder"):
        Cache(str(tmp_path))
    with pytest.raises(InputError, match="local disk"):
        Cache("s3://bucket/c.sqlite")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/c\.sqlite"):
        Cache(str(tmp_path / "file" / "c.sqlite"))


def test_a_flipped_answer_is_named(tmp_path):
    cache = Cache(str(tmp_path / "c.sqlite"))
    cache.put("k", Reply("x"), 0.0)
    cache._db.execute("UPDATE answers SET reply = '{\"no\": 1}'")
    with pytest.raises(DamagedError, match="the answer k"):
        cache.get("k")
