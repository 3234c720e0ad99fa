"""What a stage took, over all the times that it was started: the sum, how many they were, and the last one."""

import json

import pytest
from finished import finish
from foreign import vinnow
from vinnow.pipelines.report.gather import gather
from vinnow.pipelines.report.sections import stages_section
from vinnow.pipelines.runs.status import status
from vinnow.store import manifest as clocked
from vinnow.store.files import read_json, write_json
from vinnow.store.manifest import Manifest


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is told: `clock(3)`."""
    now = [0.0]
    monkeypatch.setattr(clocked.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def took(record):
    return record.seconds, record.starts, record.last_seconds


@pytest.mark.parametrize("how", ["stage", "growing"])
def test_starts_that_end_well_are_added_up(tmp_path, clock, how):
    manifest = Manifest(tmp_path, "0.1.0")
    start = getattr(manifest, how)
    with start("select", {"pool": "a"}):
        clock(3)
    assert took(manifest.read("select")) == (3, 1, 3)
    with pytest.raises(RuntimeError), start("select", {"pool": "a"}):  # noqa: PT012
        clock(100)
        raise RuntimeError("killed")
    assert took(manifest.read("select")) == (3, 1, 3)
    with start("select", {"pool": "b"}):
        clock(2)
    assert took(manifest.read("select")) == (5, 2, 2)
    # what it kept while it was under way is no start that ended
    with pytest.raises(RuntimeError), start("select", {"pool": "b"}) as record:  # noqa: PT012
        manifest.keep(record)
        raise RuntimeError("killed")
    assert took(manifest.read("select")) == (5, 2, 2)


def test_a_stage_that_is_looked_at_again_keeps_what_it_took(tmp_path, clock):
    manifest = Manifest(tmp_path, "0.1.0")
    for number in (1, 2, 3):
        with manifest.stage("features-loss", {}):
            clock(number)
        assert took(manifest.read("features-loss")) == (sum(range(number + 1)), number, number)
        manifest.undo("features-loss")
        assert manifest.read("features-loss") is None


def test_a_manifest_of_an_older_version_counts_as_one_start(tmp_path, clock):
    manifest = Manifest(tmp_path, "0.1.0")
    with manifest.growing("sweep", {}):
        clock(4)
    old = read_json(manifest.path("sweep"))
    assert (old.pop("starts"), old.pop("last_seconds")) == (1, 4)
    write_json(manifest.path("sweep"), old)
    assert took(manifest.read("sweep")) == (4, 1, None)
    with manifest.growing("sweep", {}):
        clock(1)
    assert took(manifest.read("sweep")) == (5, 2, 1)


def test_status_and_report_say_which_seconds_they_show(tmp_path, monkeypatch):
    run = finish(tmp_path, monkeypatch)
    assert {(s.starts, s.last_seconds) for s in status(str(run.out))} == {(1, s.seconds) for s in status(str(run.out))}
    assert "starts" not in vinnow("status", run.out).text
    section = stages_section(gather(str(run.out)), [])
    assert section["table"].head[:2] == ["stage", "seconds"]
    rows = read_json(run.out / "stages" / "features-gradient.json")["facts"]["rows"]
    assert f"features-gradient: {rows:,} rows ran by the lean decoder." in section["notes"]
    grown = vinnow("run", run.yaml, "--set", "budgets=[20%, 40%]")
    assert grown.code == 0, grown.text
    records = {name: read_json(run.out / "stages" / f"{name}.json") for name in ("select", "sweep", "ingest-pool")}
    assert [r["starts"] for r in records.values()] == [2, 2, 1]
    assert all(r["seconds"] > r["last_seconds"] > 0 for r in records.values() if r["starts"] > 1)
    whole, last = records["select"]["seconds"], records["select"]["last_seconds"]
    (line,) = (text for text in grown.text.splitlines() if "select " in text and text.startswith("done"))
    assert line.split(" s, ") == [f"done    {'select':<22} {last:8.1f}", f"{whole:,.1f} s in 2 starts"]
    said = vinnow("status", run.out).text
    assert f"{whole:,.1f} s in 2 starts, the last one {last:,.1f} s" in said
    as_json = {s["name"]: s for s in json.loads(vinnow("status", run.out, "--json").text)}
    assert [as_json["select"][n] for n in ("seconds", "starts", "last_seconds")] == [whole, 2, last]
    table = stages_section(gather(str(run.out)), [])["table"]
    assert table.head[:4] == ["stage", "seconds of all starts", "starts", "seconds of the last"]
    assert {len(row) for row in table.rows} == {len(table.head)}
    (row,) = (row for row in table.rows if row[0] == "select")
    assert row[1:4] == [f"{whole:,.1f}", "2", f"{last:,.1f}"]
    assert row[5] == "–", "its rows are not what each of its starts did"
