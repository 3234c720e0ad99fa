"""What once passed in silence: an option that names nothing, a completion script for no command."""

import json
import os
import subprocess
import sys

import pytest
from finished import values_of
from foreign import no_ray, vinnow
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app
from vinnow.store.errors import InputError


@pytest.mark.parametrize("option", ["features", "targets"])
def test_a_feature_store_that_is_not_there_is_refused_though_the_selector_reads_none(tiny_pool, tmp_path, option):
    words = ["--pool", tiny_pool, "--selector", "random", "--budget", "5", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["select", *words, f"--{option}", "nosuch"])
    assert isinstance(result.exception, InputError)
    assert f"--{option} 'nosuch': no such feature store" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["features", "targets"])
@pytest.mark.parametrize("what", ["no path", "an empty folder", "a pool", "a file"])
def test_what_is_no_feature_store_is_refused_though_the_selector_reads_none(tiny_pool, tmp_path, option, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    path = {"no path": "", "an empty folder": tmp_path / "empty", "a pool": tiny_pool, "a file": tmp_path / "file"}[
        what
    ]
    words = ["--pool", tiny_pool, "--selector", "random", "--budget", "5", "--out", tmp_path / "out"]
    said = vinnow("select", *words, f"--{option}", path)
    assert (said.code, said.trace) == (2, "")
    assert f"--{option} {str(path)!r}: no such feature store" in said.errors[0]
    assert not (tmp_path / "out").exists()


def test_a_training_without_a_seed_takes_the_published_one_and_says_it(tiny_pool, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("vinnow.actors.cluster.ensure_ray", no_ray)
    words = ["train", "xmas-proxy", "--gpus", "0", "--out", tmp_path / "out", "--set", f"model={tiny_model}"]
    words += ["--set", f"pool={tiny_pool}", "--set", "precision=float32", "--set", "template=v1"]
    for sets, seed in (([], 42), (["--set", "seed=7"], 7)):
        said = vinnow(*words, *sets)
        assert (said.code, said.errors) == (0, []), said.text
        assert f", seed {seed}\n" in said.text


def test_a_fine_tune_that_would_train_nothing_is_refused_before_a_feature_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("vinnow.actors.cluster.ensure_ray", no_ray)
    values = values_of(tmp_path)
    values["finetune"] = values["finetune"] | {"max_steps": None}
    (tmp_path / "run.yaml").write_text(json.dumps(values))
    planned = vinnow("plan", tmp_path / "run.yaml")
    assert planned.code == 0
    assert "one step with a warm-up trains nothing: `vinnow run` refuses it" in " ".join(planned.text.split())
    said = vinnow("run", tmp_path / "run.yaml")
    assert (said.code, said.trace) == (2, "")
    assert "of 30 rows of the pool, 6 rows (20%): one step would train nothing" in said.errors[0]
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["pool", "stages", "target", "test"]


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"share": [0.5, 0.5001]}, ["pool.share: of 30 rows", "from 50.00% to 50.01%", "set a wider pool.share"]),
        ({"test": 0.0001}, ["held_out.test: of 30 rows", "from 99.99% to 100.00%", "set a larger held_out.test"]),
        ({"target": 0.0001}, ["held_out.target: of 30 rows", "(target.source)"]),
        ({"test": 0.9999}, ["pool: of 30 rows", "set a smaller held_out.test"]),
    ],
)
def test_a_share_that_holds_no_picture_is_named_before_any_is_ingested(tmp_path, command, changed, words):
    values = values_of(tmp_path)
    if "share" in changed:
        values["pool"] |= changed
    else:
        del values[next(iter(changed))]
        values["held_out"] = changed
    (tmp_path / "run.yaml").write_text(json.dumps(values))
    said = vinnow(command, tmp_path / "run.yaml")
    assert (said.code, said.trace) == (2, "")
    assert [w for w in words if w not in " ".join(said.errors[0].split())] == []
    assert not (tmp_path / "out" / "pool").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_the_module_is_the_command_s(shell):
    words = [sys.executable, "-m", "vinnow", "--show-completion", shell]
    # the shell that is named; Typer would else look for one among the parents, and there may be none
    named = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/", env=named).stdout
    assert "python" not in script
    assert "_VINNOW_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        asked = {"_VINNOW_COMPLETE": "complete_bash", "COMP_WORDS": "vinnow sel", "COMP_CWORD": "1"}
        done = subprocess.run(words[:3], capture_output=True, text=True, env=os.environ | asked, cwd="/")
        assert done.stdout.split() == ["selectors", "select"]
