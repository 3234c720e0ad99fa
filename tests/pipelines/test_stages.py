"""One list of stages: run, plan, status and report go through it, and show the same names in the same order."""

import os

import pytest
from pictures import make_records, write_records
from vinnow.pipelines.report.gather import gather
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.run import run_stages
from vinnow.pipelines.runs.stages import stages_of
from vinnow.pipelines.runs.status import status

STEP = {"max_len": 256, "global_batch": 8, "micro_batch": 8, "max_steps": 3}
GRADIENT = {"kind": "gradient", "projection": {"dim": 32}}
TWIN = {"model": {"twin": {}}}
KINDS = {
    "all of them": TWIN
    | {
        "captions": None,
        "target": None,
        "warmup": [{"name": "stage1", "train": STEP}, {"name": "again", "data": "pool", "train": STEP}],
        "proxy": STEP | {"checkpoint_count": 2},
        "features": [GRADIENT, {"kind": "influence", "which": "projector"}, {"kind": "loss", "name": "blind"}],
        "selectors": [{"name": "random"}, {"name": "less"}],
    },
    "without a proxy": TWIN | {"features": [{"kind": "embedding"}], "selectors": [{"name": "diverse"}]},
    "no features, variants": TWIN
    | {
        "selectors": [{"name": "random"}],
        "finetune": {"variants": {"a": {}, "b": {"parts": ["projector"]}}} | STEP,
        "sweep": {"full": True},
    },
    "a model of the user's": {
        "model": None,
        "proxy": STEP | {"checkpoint_count": 1},
        "selectors": [{"name": "random"}],
    },
}


@pytest.fixture
def values(tmp_path):
    source = write_records(tmp_path, *make_records(12))
    pool = {"source": source, "image_root": str(tmp_path / "images")}
    base = {"out": str(tmp_path / "out"), "pool": pool, "test": pool, "budgets": ["50%"], "finetune": STEP}

    def of(kind, tiny_model):
        sections = {"captions": pool, "target": pool, "model": {"path": tiny_model}}
        return base | {k: sections[k] if v is None else v for k, v in KINDS[kind].items()}

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_run_plan_status_and_report_name_the_same_stages(kind, values, tiny_model, monkeypatch):
    config = resolve(values(kind, tiny_model))
    stages = stages_of(config)
    names = [s.name for s in stages]
    assert len(set(names)) == len(names) >= 4
    for number, stage in enumerate(stages):
        assert set(stage.needs) <= set(names[:number]), stage.name
    assert list(dict.fromkeys(line.within for line in make_plan(config))) == names
    done = []
    for stage in stages:  # what each does is other tests' matter

        def run(self, run):
            done.append(self.name)
            run.stage(self.name, {}, lambda record: None)

        monkeypatch.setattr(type(stage), "run", run)
        monkeypatch.setattr(type(stage), "check", lambda self, run: None)
    run_stages(config, report=False)
    assert done == names
    assert sorted(os.listdir(f"{config.out}/stages")) == sorted(f"{n}.json" for n in names)
    assert [s.name for s in status(config.out)] == names
    assert [s.name for s in gather(config.out).stages] == names
