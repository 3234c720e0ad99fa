"""The Python API gives what the command line gives: the same files, tables and errors."""

import filecmp
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import official_files
import pyarrow as pa
import pytest
import vinnow
from pictures import make_records, write_records
from typer.testing import CliRunner
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.pipelines.cli.main import app
from vinnow.store.features import FeatureSet
from vinnow.store.tables import PICKS, POOL, SCORES, read_rows

SMALL = {"projection": {"dim": 64}, "rows_per_part": 32, "token_budget": 900}


def command(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


@pytest.fixture(scope="module")
def stores(tiny_pool, target_pool, tiny_model, tmp_path_factory):
    """Gradients of pool and targets at two steps, by the API."""
    out, models = tmp_path_factory.mktemp("api"), {1: tiny_model, 2: tiny_model}
    ours = vinnow.features(tiny_pool, models, str(out / "features"), **SMALL)
    aims = vinnow.features(vinnow.open_pool(target_pool), models, str(out / "targets"), targets=True, **SMALL)
    return ours, aims


def test_importing_loads_nothing_that_computes():
    code = (
        "import sys, vinnow; names = set(sys.modules); vinnow.pick; later = set(sys.modules); import json;"
        "print(json.dumps([[n for n in ('numpy', 'pyarrow', 'pydantic') if n in names],"
        "[n for n in ('torch', 'ray', 'transformers', 'deepspeed') if n in later]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], []]


def test_every_name_is_there_and_a_wrong_one_is_told():
    for name in vinnow.__all__:
        assert getattr(vinnow, name).__doc__, name
    assert set(vinnow.__all__) <= set(dir(vinnow))
    with pytest.raises(AttributeError, match=r"no attribute 'pik'; it offers .*pick"):
        vinnow.pik  # noqa: B018


def test_ingest_opens_the_pool_that_the_command_makes(tmp_path):
    records, pictures = make_records(12)
    records[3]["image"] = "pics/none.png"
    source = write_records(tmp_path, records, pictures)
    pool = vinnow.ingest(source, str(tmp_path / "ours"), str(tmp_path / "images"), max_refused=0.2)
    command("ingest", source, "--out", tmp_path / "theirs", "--images", tmp_path / "images", "--set", "max_refused=0.2")
    theirs = vinnow.open_pool(str(tmp_path / "theirs"))
    assert pool.digest == theirs.digest
    assert pool.table().equals(theirs.table())
    assert (len(pool), pool.usage.refused) == (11, {"image_missing": 1})
    assert "11 rows used, 1 refused (image_missing 1" in repr(pool)
    assert pool.refused()["reason"].to_pylist() == ["image_missing"]
    with pytest.raises(vinnow.InputError, match="over max_refused"):
        vinnow.ingest(source, str(tmp_path / "strict"), str(tmp_path / "images"))
    with pytest.raises(vinnow.InputError, match="unknown field 'formt'"):
        vinnow.ingest(source, str(tmp_path / "x"), formt="llava")


def test_a_pool_is_read_by_columns_batches_records_and_pictures(tiny_pool):
    pool = vinnow.open_pool(tiny_pool)
    assert pool.columns == POOL.names
    batches = list(pool.batches(25))
    assert all(isinstance(b, pa.RecordBatch) for b in batches)
    assert [b.num_rows for b in batches] == [25, 25, 10]
    assert pa.Table.from_batches(batches).equals(pool.table())
    some = pool.table(["task", "sample_id"])
    assert some.column_names == ["task", "sample_id"]
    assert some["sample_id"].to_pylist() == pool.ids().tolist()
    shown = pool.ids()[pool.has_image()][0]
    record = pool.record(int(shown))
    (picture,) = pool.pictures(int(shown))
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    assert record.conversations[0]["from"] == "human"
    assert pool.pictures(int(pool.ids()[~pool.has_image()][0])) == []
    for call in (lambda: pool.record(1), lambda: pool.table(["tsk"]), lambda: list(pool.batches(0))):
        with pytest.raises(vinnow.InputError):
            call()
    with pytest.raises(vinnow.InputError, match="no finished pool"):
        vinnow.open_pool("/nowhere")


def test_features_are_those_of_the_stream_to_the_last_bit(tiny_pool, tiny_model, stores, tmp_path):
    ours, aims = stores
    config = FeatureConfig(kind="gradient", **SMALL)
    run_inline(
        make_spec(tiny_pool, [CheckpointRef(1, tiny_model), CheckpointRef(2, tiny_model)], config, str(tmp_path))
    )
    theirs = FeatureSet(tmp_path, "gradient").load(2)
    table = ours.table(2)
    assert np.array_equal(np.stack(table["vec"].to_numpy()), theirs.vec)
    assert np.array_equal(table["sample_id"].to_numpy(), theirs.ids)
    assert ours.steps() == [1, 2]
    assert ours.report.usage.used == 60
    assert FeatureSet(aims.root, "gradient").load(1).vec.shape == (9, 64)
    assert "steps 1, 2" in repr(vinnow.open_features(ours.root, "gradient"))
    for wrong in ({"kind": "gradiant"}, {"wich": "lora"}, {"kind": "influence"}):
        with pytest.raises(vinnow.InputError):
            vinnow.features(tiny_pool, tiny_model, str(tmp_path / "no"), **wrong)
    with pytest.raises(vinnow.InputError, match="not 'first'"):
        vinnow.features(tiny_pool, {"first": tiny_model}, str(tmp_path / "no"))
    with pytest.raises(vinnow.InputError, match="no 'loss' features"):
        vinnow.open_features(ours.root, "loss")


def test_features_on_ray_are_those_of_this_process(tiny_pool, tiny_model, ray_cluster, tmp_path):
    here = vinnow.features(tiny_pool, tiny_model, str(tmp_path / "here"), "loss", rows_per_part=32)
    actors = vinnow.ActorResources(actors=1)
    there = vinnow.features(tiny_pool, tiny_model, str(tmp_path / "there"), "loss", actors, rows_per_part=32)
    assert there.table(0).equals(here.table(0))


@pytest.mark.parametrize(("selector", "config"), [("random", {}), ("less", {"aggregate": "mean"})])
def test_scores_and_picks_are_the_files_of_the_command(tiny_pool, stores, tmp_path, selector, config):
    ours, aims = stores
    reading = {} if selector == "random" else {"features": ours, "targets": aims, "config": config}
    scores = vinnow.score(tiny_pool, selector, str(tmp_path / "ours"), seed=3, **reading)
    picks = vinnow.pick(tiny_pool, selector, "10%", str(tmp_path / "ours"), seed=3, **reading)
    words = ["--pool", tiny_pool, "--selector", selector, "--budget", "10%", "--seed", 3, "--out", tmp_path / "theirs"]
    if reading:
        words += ["--features", ours.root, "--targets", aims.root, "--set", "aggregate=mean"]
    output = command("select", *words)
    compared = filecmp.dircmp(tmp_path / "ours", tmp_path / "theirs")
    assert not compared.left_only
    assert not compared.right_only
    name = f"{selector}-s3.parquet" if selector == "random" else f"{selector}.parquet"
    assert scores.equals(read_rows(tmp_path / "theirs" / "scores" / name, SCORES))
    for ending in ("parquet", "json"):
        file = f"picks/{selector}-10pct-s3.{ending}"
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    assert picks.table.schema.equals(PICKS)
    assert len(picks) == 6 == len(json.loads(Path(picks.records).read_text()))
    assert picks.ids.tolist() == picks.table.sort_by("rank")["sample_id"].to_pylist()
    assert all(line in output for line in picks.told)
    if reading:
        assert any("checkpoints weigh the same" in line for line in picks.told)
        assert picks.told[0] in repr(picks)


def test_what_a_choice_cannot_read_is_refused(tiny_pool, stores, tmp_path):
    out = str(tmp_path)
    for wrong, words in (
        ({"selector": "randon"}, "did you mean 'random'"),
        ({"selector": "random", "features": "nosuch"}, "'nosuch': no such feature store"),
        ({"selector": "less", "features": stores[0]}, "target"),
        ({"selector": "less", "config": {"agregate": "max"}}, "agregate'; did you mean 'aggregate'"),
    ):
        with pytest.raises(vinnow.InputError, match=words):
            vinnow.pick(tiny_pool, budget=5, out=out, **wrong)
    with pytest.raises(TypeError, match="sed"):
        vinnow.pick(tiny_pool, "random", 5, out, sed=1)
    table = vinnow.score(tiny_pool, "random", out)
    frame = pytest.importorskip("pandas").DataFrame
    assert isinstance(table.to_pandas(), frame)


def test_a_recipe_and_a_benchmark_that_are_none_are_named(tiny_pool, tiny_model, tmp_path):
    with pytest.raises(vinnow.InputError, match="did you mean 'llava15-lora'"):
        vinnow.fine_tune("llava15-lore", tiny_model, tiny_pool, str(tmp_path / "x"))
    with pytest.raises(vinnow.InputError, match="unknown field 'lrr'"):
        vinnow.fine_tune("llava15-pretrain", tiny_model, tiny_pool, str(tmp_path / "x"), lrr=1)
    with pytest.raises(vinnow.InputError, match="did you mean 'yes_no'"):
        vinnow.ask(tiny_model, tiny_pool, str(tmp_path / "x"), "yes_now")


def test_official_files_are_asked_as_the_command_asks_them(tiny_model, tmp_path):
    files = official_files.pope(tmp_path / "pope")
    report = vinnow.ask(tiny_model, files=str(files), out=str(tmp_path / "a"), benchmark="pope", max_new_tokens=2)
    assert (report.rows, report.metrics["headline"]) == (12, "mean F1")
    # the pool that it made, asked as a pool: the same answers
    again = vinnow.ask(tiny_model, str(tmp_path / "a/pool"), str(tmp_path / "b"), "pope", max_new_tokens=2)
    assert (again.metrics, again.by_task) == (report.metrics, report.by_task)
    (row,) = [r for r in vinnow.compare([str(tmp_path / "a"), str(tmp_path / "b")]) if r["difference"] is not None]
    assert (row["difference"], row["questions"]) == (0, 12)
    bench = official_files.llava_bench(tmp_path / "bench")
    answers = vinnow.ask(tiny_model, files=str(bench), out=str(tmp_path / "c"), benchmark="open", max_new_tokens=2)
    assert (answers.rows, len((tmp_path / "c/answers.jsonl").read_text().splitlines())) == (6, 6)


def test_questions_come_from_one_place(tiny_pool, tiny_model, tmp_path):
    for arguments, words in (
        ({"out": "x"}, "name one of them"),
        ({"pool": tiny_pool, "files": "f", "out": "x"}, "name one of them"),
        ({"pool": tiny_pool, "images": "i", "out": "x"}, "goes with files"),
        ({"pool": tiny_pool}, "out=… names the folder"),
        ({"files": str(tmp_path), "out": str(tmp_path / "x")}, "'exact_match' has no official files"),
    ):
        with pytest.raises(vinnow.InputError, match=words):
            vinnow.ask(tiny_model, **arguments)
    assert not (tmp_path / "x").exists()
