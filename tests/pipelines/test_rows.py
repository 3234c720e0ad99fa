"""What a run, its plan, its status and `vinnow select` say of rows that were lost."""

import json
import shutil
from dataclasses import replace

import pytest
from pictures import make_records, write_records
from stages import ingest_pools, make_features
from typer.testing import CliRunner
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.runs import select_stage
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.opening import start
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.samples import look
from vinnow.pipelines.runs.select_stage import pick
from vinnow.pipelines.runs.status import status
from vinnow.pipelines.runs.sweep import refused_lines
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.store.errors import DamagedError, InputError
from vinnow.store.features import FeatureSet
from vinnow.store.manifest import StageRecord
from vinnow.store.usage import Usage


def said(result):
    return " ".join(result.output.split())


@pytest.fixture
def folder(tmp_path):
    records, pictures = make_records(20)
    records[3]["conversations"][0]["from"] = "system?"
    write_records(tmp_path, records, pictures)
    return tmp_path


def run_of(folder, sets=(), **pool):
    section = {"source": str(folder / "records.json"), "image_root": str(folder / "images")}
    values = {
        "out": str(folder / "run"),
        "pool": section | pool,
        "test": section,
        "model": {"twin": {}},
        "features": [{"kind": "loss"}],
        "selectors": [{"name": "random"}],
        "budgets": [5],
        "finetune": {},
    }
    return resolve(json.loads(json.dumps(values)), list(sets))


def test_the_limit_and_the_pictures_place_make_no_other_run(folder):
    base = run_of(folder)
    same = run_of(folder, ["features.0.max_refused=1", "features.0.image_root=/moved"], max_refused=0.5)
    assert same.digest() == base.digest()
    with start(base).manifest.stage("ingest-pool", {}):
        pass
    start(same)
    other = run_of(folder, image_root=str(folder))
    with pytest.raises(InputError, match=r"pool\.image_root: was .*") as error:
        start(other)
    assert "max_refused" not in str(error.value)


def test_a_run_tells_what_each_stage_refused(folder, capfd):
    run = start(run_of(folder, ["test.max_refused=0.05"], max_refused=0.05))
    ingest_pools(run)
    shown = " ".join(capfd.readouterr().err.split())
    assert f"19 rows used, 1 refused (bad_role 1; listed in {folder}/run/pool/refused.parquet)" in shown
    stages = {s.name: s for s in status(run.out)}
    assert (stages["ingest-pool"].rows, stages["ingest-pool"].refused) == (19, 1)
    assert stages["ingest-pool"].detail.startswith("19 rows used, 1 refused (bad_role 1; listed in")
    assert run.manifest.read("ingest-pool").facts["reasons"] == {"bad_role": 1}


def test_a_stage_that_lost_too_many_is_not_done_and_goes_on_under_a_larger_limit(folder):
    with pytest.raises(InputError, match=r"ingest of .*over max_refused \(1.0%\): bad_role 1"):
        ingest_pools(start(run_of(folder, max_refused=0.01)))
    stages = {s.name: s for s in status(str(folder / "run"))}
    assert (stages["ingest-pool"].state, "refused too many rows" in stages["ingest-pool"].detail) == ("under way", True)
    ingest_pools(start(run_of(folder, max_refused=0.2)))
    assert status(str(folder / "run"))[0].state == "done"


def test_pictures_that_are_back_are_used_or_told(folder, capfd):
    lost, moved = folder / "images/pics/2.png", folder / "moved.png"
    lost.rename(moved)
    run = start(run_of(folder, ["test.max_refused=0.2"], max_refused=0.2))
    ingest_pools(run)
    assert run.manifest.read("ingest-pool").facts["reasons"] == {"bad_role": 1, "image_missing": 1}
    capfd.readouterr()
    ingest_pools(run)
    assert "can be by now" not in capfd.readouterr().err
    moved.rename(lost)
    ingest_pools(run)
    shown = " ".join(capfd.readouterr().err.split())
    assert (
        "ingest-pool: 1 pictures that could not be read can be by now. Picks and trainings were made without" in shown
    )
    assert run.manifest.read("ingest-pool").facts["used"] == 18


def test_a_run_takes_its_features_up_again_until_it_has_picked(folder, ray_cluster, tiny_model, capfd):
    run = start(run_of(folder, ["features.0.max_refused=0.2"], max_refused=0.2))
    ingest_pools(run)
    lost, moved = folder / "images/pics/2.png", folder / "moved.png"
    lost.rename(moved)
    checkpoints = [CheckpointRef(0, tiny_model)]
    make_features(run, checkpoints)
    reasons = lambda: run.manifest.read("features-loss").facts["reasons"]  # noqa: E731
    assert reasons() == {"image_missing": 1}
    with run.manifest.stage("select", {}):
        pass
    moved.rename(lost)
    capfd.readouterr()
    make_features(run, checkpoints)
    assert "features-loss: 1 parts have rows whose pictures can be read by now" in " ".join(
        capfd.readouterr().err.split()
    )
    assert reasons() == {"image_missing": 1}
    run.manifest.undo("select")
    make_features(run, checkpoints)
    assert (reasons(), run.manifest.read("features-loss").facts["used"]) == ({}, 19)


def test_damaged_features_are_made_anew_by_the_run_s_next_try(folder, ray_cluster, tiny_model, monkeypatch):
    run = start(run_of(folder, max_refused=0.2))
    ingest_pools(run)
    make_features(run, [CheckpointRef(0, tiny_model)])
    (part,) = (folder / "run/features/loss").rglob("part-*.parquet")
    sound = part.read_bytes()
    part.write_bytes(sound[:-40])

    def reads(config, out, weights, *_):
        FeatureSet(f"{out}/features", "loss").load(0)
        return {}

    monkeypatch.setattr(select_stage, "select_all", reads)
    with pytest.raises(DamagedError, match=r"part-.*is damaged.*In a run: run it again"):
        pick(run, None)
    make_features(run, [CheckpointRef(0, tiny_model)])
    monkeypatch.undo()
    assert list(pick(run, None)) == [("random", "5", 0)]
    assert FeatureSet(folder / "run/features", "loss").load(0).vec.shape == (19, 1)


def test_an_account_is_read_as_it_was_written():
    record = StageRecord("proxy", "", {})
    assert record.usage() is None
    usage = Usage(380, {"image_missing": 20}, "OUT/refused-rank*.jsonl")
    record.account(usage)
    assert record.usage() == usage
    assert record.facts["refused"] == 20


def test_a_plan_says_what_would_be_refused(folder):
    note = next(line.note for line in make_plan(run_of(folder)) if line.stage == "ingest-pool")
    assert note.startswith("of a sample, 19 rows used, 1 refused (bad_role 1")
    assert "ingest would stop" not in note
    shutil.rmtree(folder / "images/pics")
    note = next(line.note for line in make_plan(run_of(folder)) if line.stage == "ingest-pool")
    assert "image_missing 15" in note
    assert note.endswith("over max_refused (5.0%), so ingest would stop")
    with pytest.raises(InputError, match="imagse' is not there"):
        make_plan(run_of(folder, image_root=str(folder / "imagse")))
    (folder / "bad.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"none of 2 sampled rows is usable \(not_an_object 2\)"):
        look(IngestConfig(source=str(folder / "bad.json")), str(folder / "nowhere"))


def test_a_sweep_tells_what_its_trials_did_not_use():
    whole = {"name": "less-10pct-s0", "model": "run/sweep/less-10pct-s0/train/model", "reasons": {}, "not_asked": 0}
    assert refused_lines([whole, {"name": "older", "model": "m"}]) == []
    lost = whole | {"used": 90, "reasons": {"image_missing": 10}, "listed": "X", "not_asked": 3}
    assert refused_lines([lost]) == [
        "less-10pct-s0: trained on 90 rows used, 10 refused (image_missing 10; listed in X)",
        "less-10pct-s0: 3 questions could not be asked; listed in run/sweep/less-10pct-s0/eval/refused",
    ]


def test_select_tells_which_rows_it_could_not_choose_from(folder, tiny_model):
    pool, out = str(folder / "pool"), str(folder / "features")
    config = IngestConfig(source=str(folder / "records.json"), image_root=str(folder / "images"))
    ingest(config, pool)
    (folder / "images/pics/0.png").unlink()
    features = FeatureConfig(kind="trajectory", max_refused=1)
    run_inline(make_spec(pool, [CheckpointRef(s, tiny_model) for s in (1, 2)], features, out))
    asked = ["select", "--pool", pool, "--features", out, "--selector", "xmas", "--out", str(folder / "chosen")]
    result = CliRunner().invoke(app, [*asked, "--budget", "5", "--max-refused", "0.06"])
    assert result.exit_code == 0, result.output
    assert f"18 rows used, 1 refused (image_missing 1; listed in {out}/refused/trajectory)" in said(result)
    result = CliRunner().invoke(app, [*asked, "--budget", "5"])
    assert "select by trajectory: 5.3% of the rows were refused" in str(result.exception)


def test_features_print_parts_and_rows_and_fail_without_starting_ray(folder, tiny_model, monkeypatch):
    pool, out = str(folder / "pool"), str(folder / "features")
    ingest(IngestConfig(source=str(folder / "records.json"), image_root=str(folder / "images")), pool)
    spec = make_spec(pool, [CheckpointRef(1, tiny_model)], FeatureConfig(kind="loss"), out)
    run_inline(spec)
    monkeypatch.setattr("vinnow.actors.cluster.ensure_ray", lambda config: pytest.fail("started Ray"))
    asked = ["features", "--pool", pool, "--checkpoint", f"1={tiny_model}", "--kind", "loss", "--out", out]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "0 parts written, 1 were there" in said(result)
    assert "19 rows used, none refused" in said(result)
    # pictures gone for good: the same call goes on saying so
    (folder / "images").rename(folder / "moved")
    shutil.rmtree(out)
    result = CliRunner().invoke(app, asked)
    assert "is not there" in str(result.exception)
    assert result.exit_code != 0
    run_inline(replace(spec, config=spec.config.model_copy(update={"image_root": str(folder / "moved")})))
    assert CliRunner().invoke(app, [*asked, "--images", str(folder / "moved")]).exit_code == 0
