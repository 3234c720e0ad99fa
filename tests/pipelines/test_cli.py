"""The command line: every bad input is a clear line and exit code 2, never a traceback as the only word."""

import json
import os
import subprocess

import pyarrow.parquet as pq
import pytest
from commands import vinnow_line
from pictures import make_records, write_records
from typer.testing import CliRunner
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.pipelines.cli.main import app
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.tables import PICKS, read_rows


def vinnow(*arguments):
    """Run the real command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"COLUMNS": "400"}
    done = subprocess.run(vinnow_line(*arguments), capture_output=True, text=True, env=environment, cwd="/")
    return done.returncode, done.stderr + done.stdout


def refused(*arguments):
    """Run in this process: the error that `main` would print."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


@pytest.fixture(scope="module")
def features(tiny_pool, tiny_model, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("features"))
    for step in (1, 2):
        run_inline(make_spec(tiny_pool, [CheckpointRef(step, tiny_model)], FeatureConfig(kind="trajectory"), out))
    return out


def test_the_process_edge_prints_one_line_and_exits_with_2(tiny_pool, tmp_path):
    code, said = vinnow("select", "--pool", tiny_pool, "--selector", "randon", "--budget", 5, "--out", tmp_path)
    assert code == 2
    assert "error: unknown selector 'randon'; did you mean 'random'?" in said
    assert "Traceback" not in said


def test_selecting_writes_picks_and_llava_records(tiny_pool, features, tmp_path):
    for selector in ("random", "xmas"):
        arguments = [
            "--pool",
            tiny_pool,
            "--selector",
            selector,
            "--budget",
            "10",
            "--budget",
            "50%",
            "--out",
            tmp_path,
        ]
        result = CliRunner().invoke(app, ["select", *map(str, arguments), "--features", features])
        assert result.exit_code == 0, result.output
        for label, rows in (("10", 10), ("50pct", 30)):
            picks = read_rows(tmp_path / "picks" / f"{selector}-{label}.parquet", PICKS)
            records = json.loads((tmp_path / "picks" / f"{selector}-{label}.json").read_text())
            assert picks.num_rows == len(records) == rows
            by_id = dict(zip(Pool(tiny_pool).ids().tolist(), Pool(tiny_pool).take(Pool(tiny_pool).ids()), strict=True))
            for sample, record in zip(picks["sample_id"].to_pylist(), records, strict=True):
                assert record["conversations"] == by_id[sample].conversations
                assert [record[k] for k in ("image",) if k in record] == list(by_id[sample].images)
                assert record["id"] == by_id[sample].extra["id"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--selector", "random", "--budget", "0"], "picks nothing"),
        (["--selector", "random", "--budget", "61"], "above the pool's 60"),
        (["--selector", "random", "--budget", "200%"], "more than the whole pool"),
        (["--selector", "random", "--budget", "many"], "number of rows or a share"),
        (["--selector", "stratified", "--budget", "5", "--set", "colum=task"], "did you mean 'column'"),
        (["--selector", "less", "--budget", "5"], "--features"),
        (["--selector", "xmas", "--budget", "5", "--set", "text_policy=some"], "text_policy"),
    ],
)
def test_bad_selections_are_explained(tiny_pool, tmp_path, arguments, words):
    assert words in refused("select", "--pool", tiny_pool, "--out", tmp_path, *arguments)


def test_bad_features_are_explained(tiny_pool, target_pool, tiny_model, features, tmp_path):
    base = ["features", "--pool", tiny_pool, "--out", tmp_path]
    assert "no such folder" in refused(*base, "--checkpoint", "1=/nowhere")
    assert "STEP=FOLDER" in refused(*base, "--checkpoint", tiny_model)
    assert "did you mean 'token_budget'" in refused(*base, "--checkpoint", f"1={tiny_model}", "--set", "tokenbudget=1")
    assert "no finished pool" in refused(*base[:2], tmp_path, *base[3:], "--checkpoint", f"1={tiny_model}")
    # made for another pool, and made by another model
    select = ["select", "--selector", "xmas", "--budget", "3", "--out", tmp_path, "--features", features]
    assert "not in this pool" in refused(*select, "--pool", target_pool) or "another" in refused(
        *select, "--pool", target_pool
    )
    here = ["features", "--pool", tiny_pool, "--kind", "trajectory", "--out", features]
    other = model_of_another_seed(tmp_path)
    said = refused(*here, "--checkpoint", f"1={other}")
    assert "another key" in said
    assert "model:" in said


def model_of_another_seed(tmp_path):
    from vinnow.models.family.of_llava.tiny import build_tiny_model
    from vinnow.models.specs import TinyModelConfig

    return build_tiny_model(str(tmp_path / "other"), ["what color is the shape?"] * 5, TinyModelConfig(seed=7))


def test_evaluating_and_training_what_is_not_there_is_explained(tiny_pool, tmp_path):
    assert "no checkpoint at" in refused("evaluate", "--model", "/nowhere", "--pool", tiny_pool, "--out", tmp_path)
    assert "no run config" in refused("train", "nothing.yaml", "--out", tmp_path)
    assert "no run config" in refused("plan", "demoo")
    assert "no run.json" in refused("report", tmp_path)


def test_the_doctor_counts_and_says_by_its_exit_code(tmp_path):
    records, pictures = make_records(10)
    source = write_records(tmp_path, records, pictures)
    arguments = ["doctor", source, "--images", str(tmp_path / "images"), "--json", str(tmp_path / "found.json")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    records[0]["image"] = "nowhere.png"
    write_records(tmp_path, records, pictures)
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert json.loads((tmp_path / "found.json").read_text())["reasons"] == {"image_missing": 1}


def test_ingest_says_what_it_did(tmp_path):
    records, pictures = make_records(10)
    records[3]["conversations"][0]["from"] = "robot"
    source = write_records(tmp_path, records, pictures)
    result = CliRunner().invoke(
        app,
        [
            "ingest",
            source,
            "--images",
            str(tmp_path / "images"),
            "--out",
            str(tmp_path / "p"),
            "--set",
            "max_refused=0.1",
        ],
    )
    assert result.exit_code == 0, result.output
    said = result.output.replace("\n", "")
    assert "9 rows used, 1 refused (" in said
    assert f"; listed in {tmp_path}/p/refused.parquet)" in said
    assert pq.read_table(tmp_path / "p" / "refused.parquet")["reason"].to_pylist() == ["bad_role"]


def test_every_command_has_help():
    for command in (
        "ingest",
        "doctor",
        "train",
        "features",
        "select",
        "evaluate",
        "plan",
        "run",
        "sweep",
        "report",
        "demo",
    ):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert len(result.output) > 300
