"""Names that become parts of paths: none leaves its folder, wherever it was written."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from vinnow.models.intact import check_files
from vinnow.pipelines.runs import select_stage
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.stage import Run
from vinnow.select.run import budget_rows
from vinnow.store.batches import FeatureBatch
from vinnow.store.errors import DamagedError, InputError
from vinnow.store.features import step_folder, write_shard
from vinnow.store.keys import FeatureKey
from vinnow.store.manifest import Manifest
from vinnow.store.names import is_name, path_part, place_in
from vinnow.store.refusals import write_refused
from vinnow.store.tries import begin
from vinnow.train.run import REPORT, TrainReport

BAD = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "../x",
    "/etc",
    "a\\b",
    "a\0",
    "a\nb",
    "a b",
    "a..b",
    "é",
    "x" * 129,
    "a:b",
    None,
    1,
]
GOOD = ["a", "warmup-1", "x" * 128, "checkpoint-100", "less-10pct.parquet", "0.5", "_a", "A-b_C.d"]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_part_of_a_path_is_refused_by_its_field(name):
    assert not is_name(name)
    with pytest.raises(InputError, match=r"the field: .* is no name; take letters"):
        path_part(name, "the field")


@pytest.mark.parametrize("name", GOOD)
def test_plain_names_pass(name):
    assert path_part(name, "the field") == name


def run(**changed: object) -> dict:
    pool = {"source": "a.json"}
    plain = {"out": "o", "pool": pool, "test": pool, "captions": pool, "model": {"path": "m"}, "budgets": [1]}
    plain["selectors"] = [{"name": "random"}]
    return plain | {"finetune": {"recipe": "llava15-lora"}} | changed


def warmup(*names: object) -> dict:
    train = {"recipe": "llava15-lora"}
    return {"warmup": [{"name": n, "train": train} for n in names]}


@pytest.mark.parametrize("name", ["../../x", "", "a/b", ".x", "x" * 129])
@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("warmup.0.name", lambda name: warmup(name)),
        ("selectors.0.name", lambda name: {"selectors": [{"name": name}]}),
        ("finetune.variants", lambda name: {"finetune": {"variants": {name: {}}}}),
    ],
)
def test_names_in_a_run_are_refused_by_field(field, changed, name):
    with pytest.raises(InputError, match=field):
        resolve(run(**changed(name)))


def test_two_warm_ups_are_not_one_folder():
    with pytest.raises(InputError, match="'stage1' is there twice"):
        resolve(run(**warmup("stage1", "Stage1")))


@pytest.mark.parametrize("budget", ["1/3%", "10/1", "٣٠%", "+5%"])
def test_a_budget_is_written_in_plain_digits(budget):
    with pytest.raises(InputError, match="a budget is a number"):
        budget_rows(budget, 100)
    assert budget_rows("10.5%", 1000) == 105


def test_the_store_writes_nowhere_else(tmp_path):
    key = FeatureKey(kind="../gradient", dim=2, pool="p", model="m", checkpoint=1, recipe="{}")
    batch = FeatureBatch(np.array([1], np.uint64), np.array([1], np.int32), np.ones((1, 2), np.float32))
    with pytest.raises(InputError, match="kind: "):
        write_shard(tmp_path / "s", key, "part-0", batch)
    with pytest.raises(InputError, match="kind: "):
        step_folder(tmp_path, "a/b", 1)
    for write in (
        lambda: write_refused(tmp_path, "loss", 1, "../p", []),
        lambda: begin(tmp_path, "loss", "../p", 3, ""),
    ):
        with pytest.raises(InputError, match="part: "):
            write()
    assert not list(tmp_path.rglob("*"))


def test_a_place_that_a_manifest_names_lies_in_its_folder(tmp_path):
    here = tmp_path / "moved"
    (here / "model").mkdir(parents=True)
    assert place_in(str(here), str(here / "model"), "m.json") == f"{here}/model"
    assert place_in(str(here), str(here / "gone"), "m.json") == f"{here}/gone"  # its reader says that it is not there
    assert place_in(str(here), "/old/place/model", "m.json") == f"{here}/model"
    for path in ("../../x", f"{here}/../model", "/etc/passwd", "", None, 3, f"{here}/.x", "..", f"{here}/a/model2"):
        with pytest.raises(DamagedError, match=r"'m\.json' names"):
            place_in(str(here), path, "m.json")


@pytest.mark.parametrize("field", ["model", "best", "checkpoints"])
def test_a_report_leads_to_no_other_folder(tmp_path, field):
    facts = {
        "steps": 1,
        "rows": 1,
        "loss": 1,
        "seconds": 1,
        "wall_seconds": 1,
        "rows_per_second": 1,
        "tokens": 1,
        "refused": 0,
    }
    checkpoint = {"step": 1, "path": f"{tmp_path}/checkpoint-1", "lr": 0.1}
    facts |= {"model": f"{tmp_path}/model", "best": f"{tmp_path}/best", "checkpoints": [checkpoint]}
    (tmp_path / REPORT).write_text(json.dumps(facts))
    assert TrainReport.read(str(tmp_path)).checkpoints[0].path == f"{tmp_path}/checkpoint-1"
    assert TrainReport.read(os.path.relpath(tmp_path)).model == f"{tmp_path}/model"
    away = [checkpoint | {"path": "../../x"}] if field == "checkpoints" else "../../x"
    (tmp_path / REPORT).write_text(json.dumps(facts | {field: away}))
    with pytest.raises(DamagedError, match=f"{REPORT}' names '../../x'"):
        TrainReport.read(str(tmp_path))


@pytest.mark.parametrize("shard", ["../model.safetensors", "/tmp/x.safetensors", "a/b.safetensors", 3])
def test_an_index_names_files_of_its_folder_alone(tmp_path, shard):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(DamagedError, match=r"index\.json' names"):
        check_files(tmp_path)


def test_picks_of_a_run_lie_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(select_stage, "Pool", lambda path: SimpleNamespace(digest="d", rows=1))
    done = Run(resolve(run(out=str(tmp_path))), Manifest(tmp_path, "0"))
    inputs = {"selectors": repr(done.config.selectors), "budgets": "[1]", "seeds": "[0]", "pool": "d"}
    for path, sound in ((f"{tmp_path}/picks/random-1.parquet", True), ("../../picks/x", False), ("/etc/passwd", False)):
        with done.manifest.stage("select", inputs) as record:
            record.facts["picks"] = {"random|1|0": path}
        if sound:
            assert select_stage.pick(done, None) == {("random", "1", 0): path}
            continue
        with pytest.raises(DamagedError, match=r"stages/select\.json' names"):
            select_stage.pick(done, None)
