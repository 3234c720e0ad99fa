"""`init`, `selectors`, `twin`, `compare`, `export`'s suffixes, shell completion: each by the real command."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pictures import make_records, write_records
from typer.testing import CliRunner
from vinnow.models.load import load
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.template import Start, text_of
from vinnow.select import registry
from vinnow.store.errors import InputError
from vinnow.store.tables import EVALS, write_rows


def told(*arguments):
    """Run in this process; return what goes to stdout."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


def answers(path, right, run="r", benchmark="exact_match"):
    n = len(right)
    columns = {"run": [run] * n, "benchmark": [benchmark] * n, "task": ["t"] * n, "sample": [f"s{i}" for i in range(n)]}
    scores = {"correct": right, "score": [float(r) for r in right], "answer": ["a"] * n, "reference": ["b"] * n}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(str(path), pa.table(columns | scores), EVALS)


def test_init_writes_a_run_that_plan_reads(tmp_path, tiny_model):
    source = write_records(tmp_path, *make_records(40))
    asked = ["--images", tmp_path / "images", "--model", tiny_model, "--test", source, "--target", source]
    file = tmp_path / "my run.yaml"
    assert str(file) in told("init", source, *asked, "--run", tmp_path / "run: 1", "--out", file)
    run = resolve(yaml.safe_load(file.read_text()))
    assert (run.pool.source, run.model.path, run.out) == (source, tiny_model, str(tmp_path / "run: 1"))
    assert [s.name for s in run.selectors] == ["random", "less", "xmas"]
    small = ["--set", "proxy.max_len=256", "--set", "finetune.max_len=256", "--set", "evaluate.max_len=256"]
    small += [p for i in (0, 1) for p in ("--set", f"features.{i}.max_len=256")]
    plan = json.loads(told("plan", file, "--gpus", "0", "--json", *small))
    assert plan["summary"]["money"] >= 0
    assert "# what every other one has to beat" in file.read_text()
    assert str(file) in refused("init", source, "--out", file)


def test_init_leaves_places_that_plan_names(tmp_path):
    text = text_of(Start("data.json"), "run.yaml")
    assert yaml.safe_load(text)["model"]["path"] == "PATH/TO/LLAVA"
    (tmp_path / "run.yaml").write_text(text)
    assert "PATH/TO" in refused("plan", tmp_path / "run.yaml")
    odd = yaml.safe_load(text_of(Start("a: b #c", images="- x", out="runs/{y}"), "run.yaml"))
    assert (odd["pool"]["source"], odd["pool"]["image_root"], odd["out"]) == ("a: b #c", "- x", "runs/{y}")


def test_selectors_lists_every_method():
    facts = {row["name"]: row for row in json.loads(told("selectors", "--json"))}
    assert sorted(facts) == registry.names()
    assert facts["less"]["needs"] == ["gradient", "targets"]
    assert "aggregate" in facts["less"]["fields"]
    shown = told("selectors")
    assert all(name in shown for name in facts)
    assert all(row["about"] for row in facts.values())


def test_twin_builds_a_model_from_a_pools_words(tmp_path, tiny_pool):
    said = told("twin", "--pool", tiny_pool, "--out", tmp_path / "twin", "--set", "image=32", "--set", "layers=1")
    assert "4 tokens per picture" in said
    assert load(str(tmp_path / "twin")).model.config.text_config.num_hidden_layers == 1
    assert "hiden" in refused("twin", "--pool", tiny_pool, "--out", tmp_path / "x", "--set", "hiden=3")


def test_twin_takes_no_folder_that_holds_a_model_of_yours(tmp_path, tiny_pool):
    for name in ("config.json", "model.safetensors", "data.json"):
        (tmp_path / name).write_text("mine")
    assert "nothing shows that 'twin' made them" in refused("twin", "--pool", tiny_pool, "--out", tmp_path)
    assert {f.read_text() for f in tmp_path.iterdir()} == {"mine"}


def test_features_refuses_what_its_kind_does_not_read(tmp_path, tiny_pool, tiny_model):
    asked = ["features", "--pool", tiny_pool, "--checkpoint", f"1={tiny_model}", "--out", tmp_path / "f", "--gpus", "0"]
    assert "is for --kind influence" in refused(*asked, "--kind", "loss", "--target-pool", tiny_pool)
    assert "adam and less_adam" in refused(*asked, "--kind", "loss", "--optimizer", "1=nowhere")
    assert "mode 'sgd' reads none" in refused(*asked, "--optimizer", "1=nowhere")
    assert not (tmp_path / "f").exists()


def test_select_writes_into_no_folder_but_its_own(tmp_path, tiny_pool):
    asked = ["select", "--pool", tiny_pool, "--selector", "random", "--budget", "5", "--out"]
    mine = tmp_path / "mine/picks/random-5.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (tmp_path / "run/picks").mkdir(parents=True)
    (tmp_path / "run/.vinnow.json").write_text('{"stage": "run"}')
    (tmp_path / "notes/todo").mkdir(parents=True)
    assert "'random-5.json'" in refused(*asked, tmp_path / "mine")
    assert "was made by 'run'" in refused(*asked, tmp_path / "run")
    assert "holds other files ('todo')" in refused(*asked, tmp_path / "notes")
    assert "is to be read" in refused(*asked, tiny_pool)
    assert (mine.read_text(), os.listdir(tmp_path / "notes")) == ("mine", ["todo"])
    told(*asked, tmp_path / "new")
    told(*asked[:-1], "--seed", "1", "--out", tmp_path / "new")
    assert len(list((tmp_path / "new/picks").glob("*.json"))) == 3  # two picks' records and the mark


def test_compare_holds_evaluations_against_the_first(tmp_path):
    rng = np.random.default_rng(0)
    right = (rng.random(400) < 0.5).tolist()
    better = [r or bool(rng.random() < 0.4) for r in right]
    answers(tmp_path / "a" / "evals.parquet", right)
    answers(tmp_path / "b" / "evals.parquet", better, run="other")
    first, second = json.loads(told("compare", tmp_path / "a", tmp_path / "b" / "evals.parquet", "--json"))
    assert (first["difference"], second["verdict"]) == (None, "better")
    assert second["difference"] == pytest.approx((sum(better) - sum(right)) / 400)
    assert second["low"] < second["difference"] < second["high"]
    assert "better" in told("compare", tmp_path / "a", tmp_path / "b")
    assert "two evaluations or more" in refused("compare", tmp_path / "a")
    assert "no evaluation at" in refused("compare", tmp_path / "a", tmp_path / "none")
    answers(tmp_path / "c" / "evals.parquet", right[:9])
    assert "in common" in refused("compare", tmp_path / "a", tmp_path / "c")
    answers(tmp_path / "d" / "evals.parquet", right, benchmark="yes_no")
    assert "several benchmarks" in refused("compare", tmp_path / "a", tmp_path / "d")


def test_a_suffix_of_export_means_its_format(tmp_path, tiny_pool):
    for name in ("p.parquet", "l.json", "l.jsonl"):
        told("export", tiny_pool, "--out", tmp_path / name)
    rows, listed = pq.read_table(tmp_path / "p.parquet"), json.loads((tmp_path / "l.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert rows.num_rows == len(listed) == len(lines) > 0
    assert lines == listed
    for name, form, words in (
        ("x.csv", None, "export writes .json, .jsonl, .parquet"),
        ("x", None, "a name without a suffix"),
        ("x.json", "parquet", "is the name of llava or sharegpt"),
        ("x.parquet", "llava", "is the name of parquet"),
        ("x.json", "lava", "did you mean 'llava'"),
    ):
        asked = ["--format", form] if form else []
        assert words in refused("export", tiny_pool, "--out", tmp_path / name, *asked)
        assert not (tmp_path / name).exists()


def test_a_shell_can_complete():
    environment = os.environ | {"_TYPER_COMPLETE_ARGS": "vinnow sel", "_VINNOW_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": "vinnow sel", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['vinnow']; from vinnow.pipelines.cli.main import app; app(prog_name='vinnow')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert sorted(done.stdout.split()) == ["select", "selectors"], done.stderr
