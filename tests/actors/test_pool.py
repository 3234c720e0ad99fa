"""One flow for every plain class: the same rows inline and on Ray, parts done once, and failures that name their part."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from vinnow.actors.pool import Flow, Workers, remaining, run_shards
from vinnow.store.errors import InputError, VinnowError
from vinnow.store.tries import FOLDER, PoisonError

PARTS = [{"part": f"part-{i}", "place": f"rows {i} to {i}", "number": i} for i in range(5)]


class Doubler:
    """A loader: adds bytes that end in zeros, which NumPy's own type of bytes would lose."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, part):
        assert type(part["number"]) is int
        assert type(part["part"]) is str
        return part | {"number": self.factor * part["number"], "payload": b"x\0\0"}


class Writer:
    """A worker: writes each part whole; one that is told so dies, or raises, at one part."""

    def __init__(self, out, dies="", once=True, raises=None):
        self.out, self.dies, self.once, self.raises = Path(out), dies, once, raises

    def __call__(self, part):
        name, flag = part["part"], self.out / "died"
        if self.raises is not None and name == "part-3":
            raise self.raises
        if name == self.dies and not (self.once and flag.exists()):
            flag.touch()
            os.kill(os.getpid(), 9)
        (self.out / name).write_text(str(part["number"]))
        return {"part": name, "number": part["number"], "bytes": len(part.get("payload", b""))}


class Broken:
    """A worker whose start fails."""

    def __init__(self, error):
        raise error


def flow_of(out, where, **changes):
    return replace(Flow("testing", str(out), "test", inline=where == "inline"), **changes)


def rows_of(*arguments):
    return sorted(run_shards(*arguments), key=lambda row: row["part"])


@pytest.fixture(scope="module")
def ray(ray_cluster):
    """Ray, whose workers get this file's classes by value."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield "ray"
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(params=["inline", "ray"])
def where(request):
    return request.getfixturevalue("ray") if request.param == "ray" else "inline"


def test_parts_pass_through_every_pool(tmp_path, where):
    pools = [Workers(Doubler, {"factor": 2}), Workers(Writer, {"out": str(tmp_path)}, count=2)]
    rows = rows_of(PARTS, pools, flow_of(tmp_path, where))
    assert rows == [{"part": p["part"], "number": 2 * p["number"], "bytes": 3} for p in PARTS]
    assert [(tmp_path / p["part"]).read_text() for p in PARTS] == ["0", "2", "4", "6", "8"]
    assert list(run_shards([], pools, flow_of(tmp_path, where))) == []


def test_an_error_of_ours_arrives_as_it_is(tmp_path, where):
    pool = Workers(Writer, {"out": str(tmp_path), "raises": InputError("a row of part-3 is mad. Mend it.")})
    with pytest.raises(InputError, match=r"^a row of part-3 is mad\. Mend it\.$"):
        list(run_shards(PARTS, [pool], flow_of(tmp_path, where)))
    with pytest.raises(InputError, match=r"^no weights here\.$"):
        list(run_shards(PARTS, [Workers(Broken, {"error": InputError("no weights here.")})], flow_of(tmp_path, where)))


def test_anothers_error_is_one_line_and_a_trace(tmp_path, ray):
    pool = Workers(Writer, {"out": str(tmp_path), "raises": ZeroDivisionError("by zero")})
    with pytest.raises(VinnowError, match=r"by zero.*failure\.txt has the trace") as caught:
        list(run_shards(PARTS, [pool], flow_of(tmp_path, ray)))
    assert "\n" not in str(caught.value)
    assert "ZeroDivisionError" in (tmp_path / "failure.txt").read_text()


def test_a_worker_that_died_is_replaced_and_its_part_done(tmp_path, ray):
    pool = Workers(Writer, {"out": str(tmp_path), "dies": "part-2"})
    rows = rows_of(PARTS, [pool], flow_of(tmp_path, ray))
    assert (tmp_path / "died").exists()
    assert [row["part"] for row in rows] == [p["part"] for p in PARTS]
    assert not list((tmp_path / FOLDER).rglob("*.json"))


def test_a_part_that_kills_worker_after_worker_is_named(tmp_path, ray):
    pool = Workers(Writer, {"out": str(tmp_path), "dies": "part-2", "once": False})
    began = time.perf_counter()
    with pytest.raises(PoisonError, match=r"computed test of part-2 \(rows 2 to 2\) died 2 times"):
        list(run_shards(PARTS, [pool], flow_of(tmp_path, ray, most=2)))
    assert time.perf_counter() - began < 60
    # a new flow counts anew
    rows = rows_of(PARTS, [Workers(Writer, {"out": str(tmp_path)})], flow_of(tmp_path, "inline"))
    assert len(rows) == 5
    assert not list((tmp_path / FOLDER).rglob("*.json"))


def test_what_is_there_is_left_out():
    names = [p["part"] for p in PARTS]
    assert remaining("x", names, {"part-1", "part-3"}) == ["part-0", "part-2", "part-4"]
    assert remaining("x", names, set(names), {"part-3"}) == ["part-3"]
    assert remaining("x", names, set(names)) == []
    with pytest.raises(InputError, match=r"^out: step 3 holds parts .*\(first 'part-7'\): rows_per_part was another"):
        remaining("out: step 3", names, {"part-8", "part-7"})
