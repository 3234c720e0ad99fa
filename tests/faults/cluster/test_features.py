"""Features on several nodes: actors and nodes are lost and added on the way; the table is that of an undisturbed run."""

import json
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from nodes import until
from pictures import make_records, write_records
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.projections.config import ProjectionConfig
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.store.features import FeatureSet

# each is a whole command or three, on a machine that may do much else
pytestmark = pytest.mark.timeout(900)
ROWS, ROWS_PER_PART = 240, 4
PARTS = ROWS // ROWS_PER_PART


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    source = write_records(folder, *make_records(ROWS, seed=5))
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


@pytest.fixture(scope="module")
def undisturbed(pool, tiny_model, tmp_path_factory):
    config = FeatureConfig(kind="gradient", rows_per_part=ROWS_PER_PART, projection=ProjectionConfig(dim=64))
    out = str(tmp_path_factory.mktemp("undisturbed"))
    run_inline(make_spec(pool, [CheckpointRef(1, tiny_model)], config, out))
    return table(out)


def table(out):
    """Every row of the table, in the pool's order; a row that is missing or there twice is an error of the reader's."""
    rows = FeatureSet(str(out), "gradient").load(1)
    assert len(rows.ids) == len(set(rows.ids.tolist())) == ROWS
    return rows.ids, rows.vec, rows.n_tokens


def line(pool, tiny_model, out):
    sets = ("projection.dim=64", f"rows_per_part={ROWS_PER_PART}", "actors.actors=2")
    names = ["features", "--pool", pool, "--kind", "gradient", "--checkpoint", f"1={tiny_model}", "--out", out]
    return [*names, *(x for s in sets for x in ("--set", s))]


def parts(out):
    return [p for p in out.glob("gradient/step=*/part-*.parquet") if ".tmp-" not in p.name]


def written_ids(out):
    """Return the ids of all rows of all files, as they lie there."""
    return [i for path in parts(out) for i in pq.ParquetFile(path).read(["sample_id"])["sample_id"].to_pylist()]


def under_way(out):
    """Return by its process the part that each has begun and not ended."""
    notes = [(p.stem, p.read_text()) for p in (out / "tries/gradient").glob("*.json")]
    return {json.loads(text)["pid"]: part for part, text in notes}


def held(nodes, command, out, count):
    """Freeze actors as they come, each of them inside a part, until there are so many; return them, and their parts."""

    def all_inside():
        actors = nodes.actors("FeatureActor")
        for actor in actors:
            freeze(actor)
        inside = under_way(out)
        for actor in actors:
            if actor["Pid"] not in inside:  # it is between two parts
                go_on(actor)
        inside = [(actor, inside[actor["Pid"]]) for actor in actors if actor["Pid"] in inside]
        return inside if len(inside) == count else None

    return command.until(all_inside)


def freeze(actor):
    process = psutil.Process(actor["Pid"])
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED)


def go_on(actor):
    psutil.Process(actor["Pid"]).resume()


def same(out, undisturbed):
    assert all(np.array_equal(a, b) for a, b in zip(table(out), undisturbed, strict=True))


def test_an_actor_and_then_a_node_are_lost(nodes, pool, tiny_model, undisturbed, tmp_path, account):
    nodes.have(2)
    command = nodes.start(*line(pool, tiny_model, tmp_path))
    inside = held(nodes, command, tmp_path, 2)
    while len(parts(tmp_path)) < 3:  # some parts are done, most are not
        for actor, _ in inside:
            go_on(actor)
        time.sleep(0.05)
        inside = held(nodes, command, tmp_path, 2)
    (killed, first_part), (other, second_part) = inside
    psutil.Process(killed["Pid"]).kill()
    command.until(lambda: [a for a in nodes.actors("FeatureActor") if a["NumRestarts"] and a["Pid"] != killed["Pid"]])
    again = next(a for a, _ in held(nodes, command, tmp_path, 2) if a["Pid"] != other["Pid"])
    assert again["ActorID"] == killed["ActorID"]
    written = {p: p.stat().st_mtime_ns for p in parts(tmp_path)}
    assert 3 <= len(written) < PARTS
    nodes.crash(nodes.node_of(other["Pid"]))
    go_on(again)
    said = command.end()
    assert "features gradient: 2 parts were begun again, since the process that computed them was gone" in said
    assert f"{PARTS} parts written, 0 were there; {ROWS} rows computed" in said
    assert {p.stem for p, when in written.items() if p.stat().st_mtime_ns != when} <= {first_part, second_part}
    same(tmp_path, undisturbed)
    account("rows", written_ids(tmp_path), ROWS, "2 parts")
    nodes.idle()


def test_a_node_that_is_added_half_way_is_used(nodes, pool, tiny_model, undisturbed, tmp_path, account):
    """The test is the autoscaler that the head's config promises: it brings the second node when work is under way."""
    nodes.have(1)
    home = tmp_path / "home"
    home.mkdir()
    kinds = {"head": {"resources": {}}, "spot": {"max_workers": 2, "resources": {"CPU": 1}}}
    config = {"max_workers": 2, "head_node_type": "head", "available_node_types": kinds}
    (home / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
    out = tmp_path / "out"
    command = nodes.start(*line(pool, tiny_model, out), HOME=str(home))
    held(nodes, command, out, 1)
    assert "waits for 2 × (1 CPU)" in command.said()
    assert "the autoscaler may start spot" in command.said()
    added = nodes.add()
    both = {nodes.node_of(actor["Pid"]): actor for actor, _ in held(nodes, command, out, 2)}
    assert added in both
    assert both.keys() != {added}
    for actor in both.values():
        go_on(actor)
    said = command.end()
    assert "begun again" not in said
    assert f"{PARTS} parts written, 0 were there; {ROWS} rows computed" in said
    same(out, undisturbed)
    account("rows", written_ids(out), ROWS, "nothing")
    nodes.idle()
