"""`kill -9` in the middle of `vinnow features`: the rerun ends with the same table, finished parts stay as they were."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from commands import forks, python_line
from pictures import make_records, write_records
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.projections.config import ProjectionConfig
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.features import FeatureSet

ROWS, ROWS_PER_PART = 180, 6
PARTS = ROWS // ROWS_PER_PART


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    source = write_records(folder, *make_records(ROWS, seed=5))
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


def expected(pool, tiny_model, kind, steps, out):
    """Each step's table of an undisturbed run."""
    own = {"projection": ProjectionConfig(dim=64)} if kind == "gradient" else {}
    config = FeatureConfig(kind=kind, rows_per_part=ROWS_PER_PART, **own)
    run_inline(make_spec(pool, [CheckpointRef(s, tiny_model) for s in steps], config, str(out)))
    return [table(out, kind, s) for s in steps]


def table(out, kind, step):
    rows = FeatureSet(str(out), kind).load(step)
    order = np.argsort(rows.ids)
    return rows.ids[order], rows.vec[order], rows.n_tokens[order]


def start(pool, tiny_model, out, kind="gradient", steps=(1,), python=()):
    """`python`: what the command is run by; none: it and its workers are forks of one process, and start at once."""
    own = ("projection.dim=64",) if kind == "gradient" else ()
    sets = (*own, f"rows_per_part={ROWS_PER_PART}", "ray.num_cpus=2", "ray.object_store_mb=200")
    command = [*(python or python_line()), "-m", "vinnow", "features", "--pool", pool, "--kind", kind]
    command += [x for s in steps for x in ("--checkpoint", f"{s}={tiny_model}")]
    command += ["--out", str(out), "--set", "ray.dashboard=false", *(x for s in sets for x in ("--set", s))]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        start_new_session=True,
    )


def parts(out):
    return {p: p.stat().st_mtime_ns for p in out.glob("*/step=*/part-*.parquet") if ".tmp-" not in p.name}


def wait_for_parts(process, out, count):
    begin = time.monotonic()
    while len(parts(out)) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() - begin < 90, "no parts appeared"
        time.sleep(0.005)


def finish(process):
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def same(features, expected):
    for mine, other in zip(features, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, other, strict=True))


def test_a_killed_driver_loses_and_doubles_nothing(pool, tiny_model, tmp_path, tmp_path_factory):
    process = start(pool, tiny_model, tmp_path, python=[sys.executable])
    wait_for_parts(process, tmp_path, 5)
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:  # the whole machine goes down, in no order
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    left = parts(tmp_path)
    assert 5 <= len(left) < PARTS
    # a half-written part must not count
    first = next(iter(left))
    first.with_name(first.stem + ".parquet.tmp-123").write_bytes(b"half")
    said = finish(start(pool, tiny_model, tmp_path))
    assert f"{PARTS - len(left)} parts written, {len(left)} were there" in " ".join(said.split())
    now = parts(tmp_path)
    assert len(now) == PARTS
    assert all(now[p] == written for p, written in left.items())
    undisturbed = expected(pool, tiny_model, "gradient", [1], tmp_path_factory.mktemp("undisturbed"))
    same([table(tmp_path, "gradient", 1)], undisturbed)


def test_a_killed_actor_loses_and_doubles_nothing(pool, tiny_model, tmp_path, tmp_path_factory):
    """Trajectories at two checkpoints in one pass."""
    process = start(pool, tiny_model, tmp_path, "trajectory", (1, 2))
    wait_for_parts(process, tmp_path, 5)
    actors = [p for p in forks() if "FeatureActor" in " ".join(p.cmdline())]
    assert actors
    for actor in actors:
        os.kill(actor.pid, signal.SIGKILL)
    before = parts(tmp_path)
    assert len(before) < 2 * PARTS
    finish(process)
    now = parts(tmp_path)
    assert len(now) == 2 * PARTS
    # a part that was under way may be written again; those that the driver had counted are not touched
    assert sum(now[p] != written for p, written in before.items()) <= 4 * len(actors)
    undisturbed = expected(pool, tiny_model, "trajectory", [1, 2], tmp_path_factory.mktemp("undisturbed"))
    same([table(tmp_path, "trajectory", s) for s in (1, 2)], undisturbed)
    assert len(Pool(pool).ids()) == ROWS
