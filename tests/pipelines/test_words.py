"""What goes where: results on stdout, whole and as JSON when asked; progress and faults on stderr."""

import json
import os
import subprocess

import pytest
import yaml
from commands import vinnow_line
from pictures import make_records, write_records
from vinnow.pipelines.progress import plain, show, show_json

LONG = "a-source-whose-name-is-longer-than-a-line-of-a-terminal-of-eighty-columns-and-must-be-read-whole-anyway"


def vinnow(*arguments):
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "RAY_ADDRESS", "FORCE_COLOR")}
    return subprocess.run(vinnow_line(*arguments), capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A source with one refused row, a pool of it, and a run's YAML."""
    folder = tmp_path_factory.mktemp("words")
    records, pictures = make_records(12)
    for record in records:
        record["source"] = LONG
    records.append({"id": "lost", "image": "no/such.png", "conversations": records[0]["conversations"]})
    source = write_records(folder, records, pictures)
    root = str(folder / "images")
    values = {
        "out": str(folder / "run"),
        "pool": {"source": source, "image_root": root, "max_refused": 0.5},
        "test": {"source": source, "image_root": root, "max_refused": 0.5},
        "model": {"twin": {}},
        "selectors": [{"name": "random"}],
        "budgets": ["50%"],
        "finetune": {"parts": ["projector"], "max_len": 256},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    done = vinnow("ingest", source, "--images", root, "--out", folder / "pool", "--set", "max_refused=0.5")
    assert done.returncode == 0, done.stderr
    assert "12 rows used, 1 refused" in done.stdout
    assert "ingest: 13 rows in" in done.stderr  # progress
    assert "ingest:" not in done.stdout
    return {"folder": folder, "source": source, "images": root, "run": folder / "run.yaml", "pool": folder / "pool"}


def test_a_plan_in_a_file_is_whole(place):
    done = vinnow("plan", place["run"])
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith("computing on ")
    assert second.startswith(f"{place['folder']}/run: ")
    assert f"{place['source']}" in done.stdout.replace("\n", " ")
    assert "…" not in done.stdout
    plan = json.loads(vinnow("plan", place["run"], "--json").stdout)
    assert plan["summary"]["total"] > 0
    assert [s["stage"] for s in plan["stages"]][:2] == ["ingest-pool", "ingest-test"]


def test_status_of_a_folder_in_a_file(place, tmp_path):
    from vinnow.pipelines.runs.config import load_run
    from vinnow.pipelines.runs.opening import start

    start(load_run(str(place["run"]), [f"out={tmp_path / 'run'}"]))
    done = vinnow("status", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ingest-pool" in done.stdout
    stages = json.loads(vinnow("status", tmp_path / "run", "--json").stdout)
    assert stages[0]["name"] == "ingest-pool"


def test_doctor_says_all_of_a_long_name(place, tmp_path):
    done = vinnow("doctor", place["source"], "--images", place["images"])
    assert done.returncode == 1
    assert LONG in done.stdout
    asked = ("doctor", place["source"], "--images", place["images"], "--json")
    assert json.loads(vinnow(*asked).stdout)["refused"] == 1
    both = vinnow(*asked, tmp_path / "found.json")
    assert LONG in both.stdout
    assert json.loads((tmp_path / "found.json").read_text())["refused"] == 1
    odd = vinnow("doctor", place["source"], tmp_path / "other.json")
    assert odd.returncode == 2
    assert "one too many" in odd.stderr


def test_select_names_its_files_on_stdout(place, tmp_path):
    asked = ("select", "--pool", place["pool"], "--selector", "random", "--budget", "50%", "--out", tmp_path)
    done = vinnow(*asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"random 50%: 6 rows, {tmp_path}/picks/random-50pct.parquet" in done.stdout
    (picks,) = json.loads(vinnow(*asked, "--json").stdout)
    assert (picks["rows"], picks["picks"]) == (6, f"{tmp_path}/picks/random-50pct.parquet")


def test_a_fault_is_on_stderr_alone(place):
    done = vinnow("status", place["folder"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


def test_text_is_no_control_character_and_json_no_nan(capsys):
    assert plain("a\x1b[31mb\nc\x07") == "a\\x1b[31mb\nc\\x07"
    show("task '\x1b]0;title\x07'")
    show_json({"a": float("nan"), "b": [float("inf"), 1.5]})
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert json.loads(out.split("\n", 1)[1]) == {"a": None, "b": [None, 1.5]}


def test_libraries_tell_nothing_among_the_results(place, tmp_path, monkeypatch):
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)  # without it DeepSpeed says on stdout that it found no GPU
    done = vinnow("twin", "--pool", place["pool"], "--out", tmp_path / "twin", "--set", "image=32", "--set", "layers=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'twin'}: 4 tokens per picture\n"
