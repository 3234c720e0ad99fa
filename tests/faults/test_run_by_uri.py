"""A whole run in a bucket: pool, features, picks, two trials, the report, killed while a trial trains and gone on with."""

import json
import os
import subprocess
import time

import psutil
import pytest
from buckets import OTHERS, bucket
from commands import forks, python_line
from finished import STEP, values_of
from vinnow.evaluate.config import TABLE
from vinnow.pipelines.runs.by_uri import refuse_by_uri
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.status import status
from vinnow.store.errors import InputError
from vinnow.store.facts import read_lines
from vinnow.store.files import exists, join, read_bytes, read_json
from vinnow.store.folders import names
from vinnow.store.tables import EVALS, read_rows

OUT = "s3://bucket/first"
TRIALS = ("diverse-20pct-s0", "random-20pct-s0")
# more than a moment: the kill is to find one at work
STEPS = 24


def values(folder):
    kept = {k: v for k, v in values_of(folder).items() if k not in ("proxy", "target")}
    return kept | {
        "out": OUT,
        "features": [{"kind": "embedding"}],
        "selectors": [{"name": "random"}, {"name": "diverse"}],
        "finetune": STEP | {"max_steps": STEPS, "resume_steps": 4},
        "ray": {"num_cpus": 2, "object_store_mb": 200, "dashboard": False},
    }


@pytest.fixture
def there(monkeypatch, tmp_path):
    with bucket("bucket") as variables:
        for name in (*OTHERS, "RAY_ADDRESS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (variables | {"VINNOW_CACHE": str(tmp_path / "cache")}).items():
            monkeypatch.setenv(name, value)
        yield


def start(folder):
    line = [*python_line(), "-m", "vinnow", "run", str(folder / "run.yaml")]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": folder}
    return subprocess.Popen(line, start_new_session=True, **options)


def kill(process):
    """End a command and all of its Ray at once, as a machine that is gone."""
    below = [*psutil.Process(process.pid).children(recursive=True), *forks()]
    for one in (psutil.Process(process.pid), *below):
        if one.is_running():
            one.kill()
    psutil.wait_procs(below, timeout=10)
    process.wait(10)


def steps_there():
    """The states of trials that are whole."""
    places = [join(OUT, "sweep", t, "train/states") for t in TRIALS]
    return [s for p in places for s in names(p) if exists(join(p, s, "progress.json"))]


@pytest.mark.slow
def test_a_run_in_a_bucket_is_killed_and_goes_on(there, tmp_path):
    (tmp_path / "run.yaml").write_text(json.dumps(values(tmp_path / "data")))
    process, begin = start(tmp_path), time.monotonic()
    while not steps_there():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() - begin < 200, "no trial trains"
        time.sleep(0.05)
    kill(process)
    assert not any(exists(join(OUT, "sweep", t, "train/train.json")) for t in TRIALS)
    again = start(tmp_path)
    said, _ = again.communicate(timeout=250)
    assert again.returncode == 0, said
    assert {line.split()[1] for line in said.splitlines() if line.startswith("already")} == {
        *("ingest-pool", "ingest-test", "twin", "features-embedding", "select"),
    }
    assert [s.state for s in status(OUT)] == ["done"] * 6
    assert read_rows(join(OUT, TABLE), EVALS).num_rows == 18
    restarts = []
    for trial in TRIALS:
        folder = join(OUT, "sweep", trial)
        assert read_json(join(folder, "result.json"))["model"] == join(folder, "train/model")
        rows = read_lines(join(folder, "train/log.jsonl"), "step", "", step=int)
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert {"config.json", "model.safetensors"} <= set(names(join(folder, "train/model")))
        assert names(join(folder, "train/states")) == []
        restarts += read_json(join(folder, "train/train.json"))["restarts"]
    assert restarts, "no trial went on from a state"
    assert b"<!doctype html>" in read_bytes(join(OUT, "report.html"))[:100].lower()
    # all of it is there, and nothing here but what was fetched
    assert sorted(os.listdir(tmp_path)) == ["cache", "data", "run.yaml"]
    assert os.listdir(tmp_path / "cache/work") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": [{"kind": "influence"}]}, "features 'influence' (kind influence)"),
        ({"finetune": STEP | {"trackers": ["mlflow"]}}, "finetune.trackers: mlflow"),
        ({"sweep": {"trackers": ["wandb"]}}, "sweep.trackers: wandb"),
    ],
)
def test_what_cannot_lie_there_is_refused_by_name(change, words, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    whole = values(tmp_path) | {"target": values_of(tmp_path / "more")["target"], "selectors": [{"name": "random"}]}
    with pytest.raises(InputError) as error:
        refuse_by_uri(resolve(whole | change))
    assert words in str(error.value)
    refuse_by_uri(resolve(whole | change | {"out": str(tmp_path / "out")}))
