"""`vinnow submit` and `vinnow status --address`: a head that asks for a token, real jobs, a terminal that goes away."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from finished import values_of
from vinnow.pipelines.jobs.client import address_of, in_the_clear, next_id
from vinnow.pipelines.jobs.parcel import RUN, pack, pack_code, variables
from vinnow.pipelines.runs.config import load_run
from vinnow.store.errors import InputError

PARENT = Path(__file__).parents[3]
JOB_S = 120


@pytest.fixture
def run(tmp_path):
    """A run's plain values, all places of which are full paths."""
    return values_of(tmp_path / "data")


def written(folder, values):
    (folder / "run.yaml").write_text(json.dumps(values))
    return str(folder / "run.yaml")


def test_a_parcel_is_the_run_and_the_recipes_beside_it(tmp_path, run, monkeypatch):
    (tmp_path / "mine.yaml").write_text("lr: 0.5\nmax_steps: 2\n")
    run["finetune"] = {"recipe": "mine.yaml", "max_len": 128}
    monkeypatch.chdir(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    parcel = pack(written(tmp_path, run), ["seeds=[3]", "model.path=org/name", "model.twin=null"], str(work))
    assert sorted(str(p.relative_to(work)) for p in work.rglob("*") if p.is_file()) == ["recipes/0-mine.yaml", RUN]
    here = load_run(str(tmp_path / "run.yaml"), ["seeds=[3]", "model.path=org/name", "model.twin=null"])
    monkeypatch.chdir(work)  # as the job begins
    (tmp_path / "mine.yaml").unlink()
    assert load_run(RUN) == here
    assert here.finetune.recipe().lr == 0.5
    assert parcel.out == run["out"]
    assert f"pool.source: {run['pool']['source']}" in parcel.here


def test_what_a_model_elsewhere_is_to_say_is_asked_there(tmp_path):
    sets = ["model=/shared/model-of-the-cluster", "pool.source=s3://bucket/data.json", "out=s3://bucket/run"]
    pack("any-vlm", sets, str(tmp_path))
    packed = json.loads((tmp_path / RUN).read_text())
    assert packed["model"] == {"path": "/shared/model-of-the-cluster"}
    assert packed["proxy"]["max_len"] == packed["evaluate"]["template"] == "auto"
    with pytest.raises(InputError, match=r"model\.path: 'model'"):
        pack("any-vlm", ["model=model", *sets[1:]], str(tmp_path))


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ("out=runs/first", "out: 'runs/first'"),
        ("pool.source=data.json", "pool.source: 'data.json'"),
        ("test.image_root=images", "test.image_root: 'images'"),
        ("model={path: ./llava}", "model.path: './llava'"),
        ("budgets=[]", "budgets is an empty list"),
        ("out='FILL IN: a folder'", "still to be filled in"),
    ],
)
def test_what_a_cluster_cannot_see_is_refused_by_its_field(tmp_path, run, sets, words):
    with pytest.raises(InputError) as error:
        pack(written(tmp_path, run), [sets], str(tmp_path))
    assert words in str(error.value)


def test_variables_go_by_name_and_secrets_do_not(monkeypatch):
    monkeypatch.setenv("HF_HOME", "/shared/hf")
    assert variables(["HF_HOME"]) == {"HF_HOME": "/shared/hf"}
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "DB_PASSWORD", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "s3cr3t")
        with pytest.raises(InputError) as error:
            variables([name])
        assert "s3cr3t" not in str(error.value)
    with pytest.raises(InputError, match="not set here"):
        variables(["NOT_THERE_AT_ALL"])
    with pytest.raises(InputError) as error:
        variables(["X=s3cr3t"])
    assert "s3cr3t" not in str(error.value)


def test_where_jobs_go(monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert address_of(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265/")
    assert address_of(None) == "http://10.0.0.1:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://ray.example")
    assert address_of(None) == "https://ray.example"
    assert address_of("http://127.0.0.1:1") == "http://127.0.0.1:1"
    for wrong in ("10.0.0.1:6379", "ray://10.0.0.1:10001", "http://"):
        with pytest.raises(InputError, match="no URL of a cluster's job API"):
            address_of(wrong)
    with pytest.raises(InputError) as error:
        address_of("https://me:s3cr3t@ray.example")
    assert "s3cr3t" not in str(error.value)
    assert in_the_clear("http://10.0.0.1:8265")
    assert not in_the_clear("http://127.0.0.1:8265")
    assert next_id("s3://bucket/my run", []).startswith("vinnow-my-run-")


def test_the_code_that_goes_along_is_the_package_alone(tmp_path):
    folder = Path(pack_code(str(tmp_path)))
    assert folder.name == "vinnow"
    assert (folder / "pipelines/runs/rates.json").is_file()
    assert (folder / "pipelines/recipes/demo.yaml").is_file()
    assert {p.name for p in folder.iterdir()} & {".git", ".venv", "tests", "docs", "runs"} == set()
    assert sum(p.stat().st_size for p in folder.rglob("*")) < 20e6


def start(head, cwd, *arguments):
    """Begin a command of ours in a process of its own."""
    line = [sys.executable, "-m", "vinnow", *map(str, arguments), "--address", head.address]
    env = head.env(PYTHONPATH=str(PARENT))
    return subprocess.Popen(line, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    said, told = process.communicate(timeout=JOB_S)
    return process.returncode, said, told


def status(head, cwd, name):
    code, said, told = ended(start(head, cwd, "status", name, "--json"))
    assert code == 0, told
    return json.loads(said)


@pytest.mark.slow
def test_jobs_end_as_their_runs_do_and_outlive_who_sent_them(head, tmp_path, run):
    """One job that fails, and one that is watched, left alone, asked for, refused a second time, and stopped."""
    wrong = run | {"out": str(tmp_path / "none"), "pool": {"source": str(tmp_path / "nothing.json")}}
    (tmp_path / "wrong").mkdir()
    failing = start(head, tmp_path, "submit", written(tmp_path / "wrong", wrong), "--code")
    watched = start(head, tmp_path, "submit", written(tmp_path, run), "--code", "--set", "finetune.max_steps=2000")
    lines = iter(watched.stdout.readline, "")
    assert any("ingest-pool" in line or "30 rows" in line for line in lines) or watched.stderr.read()
    watched.send_signal(signal.SIGINT)
    code, _, told = ended(watched)
    assert code == 130, told
    (job,) = {word for word in told.split() if word.startswith("vinnow-out-")}
    assert f"The job goes on: `vinnow status {job}" in told
    again = start(head, tmp_path, "submit", written(tmp_path, run), "--no-wait")
    afar = status(head, tmp_path, run["out"])
    assert afar["job"] | {"seconds": 0, "message": ""} == {
        **{"job": job, "status": "RUNNING", "out": run["out"]},
        **{"seconds": 0, "message": ""},
    }
    assert {s["name"]: s["state"] for s in afar["stages"]}["ingest-pool"] == "done"
    code, said, told = ended(again)
    assert (code, said) == (2, "")
    assert f"job {job} does {run['out']} already" in told
    code, said, told = ended(failing)
    assert code == 1
    assert "nothing.json" in said
    assert "failed with exit code 2" in told
    subprocess.run(["ray", "job", "stop", job, "--address", head.address], env=head.env(), check=True, timeout=60)
    # nothing but the runs' own jobs is left in the list, and no secret in what is kept of them
    listed = subprocess.run(
        ["ray", "job", "list", "--address", head.address], env=head.env(), capture_output=True, text=True, timeout=60
    ).stdout
    assert "vinnow_asks" not in listed
    assert "STOPPED" in listed
    assert "RUNNING" not in listed
    assert head.token.read_text() not in listed


@pytest.mark.slow
def test_a_cluster_that_is_not_there_or_wants_another_token_is_named(head, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text("f" * 64)
    wrong.chmod(0o600)
    began = time.monotonic()
    for env, url, words in (
        ({"RAY_AUTH_TOKEN_PATH": str(wrong)}, head.address, "does not take this token"),
        ({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}, head.address, "there is none"),
        ({}, "http://127.0.0.1:9", "no cluster's job API answers at http://127.0.0.1:9"),
    ):
        line = [sys.executable, "-m", "vinnow", "status", "some-job", "--address", url]
        more = head.env(PYTHONPATH=str(PARENT)) | env
        done = subprocess.run(line, env=more, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "f" * 64 not in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert os.path.exists(wrong)
    assert time.monotonic() - began < JOB_S
