"""`kill -9` at 20 random moments of ingest and features: what the last, undisturbed run leaves is what one run leaves.

The stages run as they are, in a process that is forked anew after each kill; Ray around them is killed in
`test_kill_features.py`. Moments are drawn as shares of what the stages take undisturbed, however busy the machine is.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
from pictures import make_records, write_records
from vinnow.pool.reader import Pool
from vinnow.store.features import FeatureSet
from vinnow.store.files import read_json

KILLS, ROWS, KINDS = 20, 160, ("gradient", "trajectory")
SCRIPT = """
import json, os, random, signal, sys, time
source, images, twin, out, kills, spent = sys.argv[1:]
spent = json.loads(spent)  # seconds of each stage, undisturbed
import torch
torch.set_num_threads(1)
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.projections.config import ProjectionConfig
from vinnow.pool import writer
from vinnow.pool.ingest import IngestConfig, ingest
writer.PART_ROWS = 40  # several files

def job(workers):
    stage("ingest")
    ingest(IngestConfig(source=source, image_root=images, workers=workers), f"{out}/pool")
    for kind in ("gradient", "trajectory"):
        stage(kind)
        config = FeatureConfig(kind=kind, projection=ProjectionConfig(dim=64), rows_per_part=10)
        run_inline(make_spec(f"{out}/pool", [CheckpointRef(s, twin) for s in (1, 2)], config, f"{out}/features"))
    stage("done")

def stage(name):
    with open(f"{out}/stage", "a") as sink:
        sink.write(f"{name} {time.perf_counter()}\\n")

def stages():
    return [line.split() for line in open(f"{out}/stage")]

def attempt(seconds, workers):
    child = os.fork()
    if not child:
        try:
            job(workers)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return stages()[-1][0]

rng, seen = random.Random(0), []
os.makedirs(out)
for number in range(int(kills)):
    features = sum(spent[k] for k in ("gradient", "trajectory"))
    seconds = rng.uniform(0.05, 0.95) * spent["ingest"]
    if os.path.exists(f"{out}/pool/pool.json"):
        seconds = rng.uniform(0.1, 0.4) * features
    elif number >= int(kills) // 2:
        seconds = 2 * spent["ingest"] + rng.uniform(0.1, 0.4) * features
    seen.append(attempt(seconds, workers=2 * (number % 5 == 4)))
job(0)
last = stages()[-4:]
times = {a[0]: float(b[1]) - float(a[1]) for a, b in zip(last, last[1:])}
print(json.dumps([seen, times]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anywhere")
    return write_records(folder, *make_records(ROWS, seed=11)), str(folder / "images")


def run(source, twin_path, out, kills=0, spent=None):
    command = [sys.executable, "-c", SCRIPT, *source, twin_path, str(out), str(kills), json.dumps(spent or {})]
    said = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout.splitlines()[-1])


def test_twenty_kills_at_random_moments_leave_what_one_run_leaves(source, twin_path, tmp_path):
    _, spent = run(source, twin_path, tmp_path / "once")
    met, _ = run(source, twin_path, tmp_path / "killed", KILLS, spent)
    assert len(met) == KILLS
    assert met.count("ingest") >= 3, met
    assert len(met) - met.count("ingest") - met.count("done") >= 5, met
    killed, once = (Pool(str(tmp_path / n / "pool")) for n in ("killed", "once"))
    assert (killed.digest, killed.rows) == (once.digest, once.rows)
    facts = [read_json(tmp_path / n / "pool" / "pool.json") | {"seconds": 0} for n in ("killed", "once")]
    assert facts[0] == facts[1]
    for kind in KINDS:
        mine, theirs = (FeatureSet(tmp_path / n / "features", kind) for n in ("killed", "once"))
        assert mine.steps() == theirs.steps() == [1, 2]
        for step in (1, 2):
            a, b = mine.load(step), theirs.load(step)
            assert len(a.ids) == once.rows
            assert np.array_equal(a.ids, b.ids)
            assert np.array_equal(a.vec, b.vec)
            assert np.array_equal(a.norm, b.norm)
    left = {p.name for p in (tmp_path / "killed").rglob("*") if ".tmp-" in p.name and "pool" in p.parts}
    assert not left, "ingest clears away what a killed one left"
