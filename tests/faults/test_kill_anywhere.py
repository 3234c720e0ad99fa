"""`kill -9` at 20 random moments of ingest and features: what the last, undisturbed run leaves is what one run leaves.

The stages run as they are, in a process that is forked anew after each kill; Ray around them is killed in
`test_kill_features.py`. Moments are drawn as shares of what the stages take undisturbed, however busy the machine is.
"""

import json
import subprocess

import numpy as np
import pytest
from commands import python_line
from pictures import make_records, write_records
from vinnow.pool.reader import Pool
from vinnow.store.features import FeatureSet
from vinnow.store.files import read_json

KILLS, ROWS, KINDS = 20, 160, ("gradient", "trajectory")
SCRIPT = """
import json, os, random, shutil, signal, sys, time
source, images, twin, folder, kills = sys.argv[1:]
import torch
torch.set_num_threads(1)
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.projections.config import ProjectionConfig
from vinnow.pool import writer
from vinnow.pool.ingest import IngestConfig, ingest
writer.SHARD_ROWS = 40  # several files

def job(out, workers):
    stage(out, "ingest")
    ingest(IngestConfig(source=source, image_root=images, workers=workers), f"{out}/pool")
    own = {"gradient": {"projection": ProjectionConfig(dim=64)}}
    for kind in ("gradient", "trajectory"):
        stage(out, kind)
        config = FeatureConfig(kind=kind, rows_per_part=10, **own.get(kind, {}))
        run_inline(make_spec(f"{out}/pool", [CheckpointRef(s, twin) for s in (1, 2)], config, f"{out}/features"))
    stage(out, "done")

def stage(out, name):
    with open(f"{out}/stage", "a") as sink:
        sink.write(f"{name} {time.perf_counter()}\\n")

def stages(out):
    return [line.split() for line in open(f"{out}/stage")]

def attempt(out, seconds, workers):
    child = os.fork()
    if not child:
        try:
            job(out, workers)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return stages(out)[-1][0]

for out in ("once", "killed"):
    os.makedirs(f"{folder}/{out}")
child = os.fork()  # undisturbed, and as cold as those that are killed
if not child:
    job(f"{folder}/once", 0)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
marks = [float(at) for _, at in stages(f"{folder}/once")]
spent, features = marks[1] - marks[0], marks[3] - marks[1]
rng, seen, out = random.Random(0), [], f"{folder}/killed"
for number in range(int(kills)):
    # the first ones early: a machine that was busy while the undisturbed run was timed is faster now
    seconds = rng.uniform(0.05, 0.35 if number < 5 else 0.95) * spent
    if os.path.exists(f"{out}/pool/pool.json"):
        seconds = rng.uniform(0.1, 0.4) * features
    elif number >= int(kills) // 2:
        seconds = 2 * spent + rng.uniform(0.1, 0.4) * features
    seen.append(attempt(out, seconds, workers=2 * (number % 5 == 4)))
    if seen[-1] == "done":  # the machine is faster by now: features anew, and killed sooner
        shutil.rmtree(f"{out}/features")
        features /= 2
job(out, 0)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anywhere")
    return write_records(folder, *make_records(ROWS, seed=11)), str(folder / "images")


def run(source, tiny_model, folder):
    command = [*python_line(), "-c", SCRIPT, *source, tiny_model, str(folder), str(KILLS)]
    said = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout.splitlines()[-1])


def test_twenty_kills_at_random_moments_leave_what_one_run_leaves(source, tiny_model, tmp_path):
    met = run(source, tiny_model, tmp_path)
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
