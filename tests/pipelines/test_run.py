"""A whole run on the twin, small: pool → features → picks → fine-tune → evaluation → report; and again, doing nothing."""

import json
import os
import time

import pytest
import yaml
from pictures import make_records, write_records
from pydantic import BaseModel
from vinnow.pipelines.config import RunConfig, load_run, resolve
from vinnow.pipelines.plan import make_plan
from vinnow.pipelines.rates import PlanConfig, load_rates, rate_for
from vinnow.pipelines.status import as_json, status
from vinnow.pipelines.whole import whole_run
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, VinnowError
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, PICKS, read_rows

STEP = {"max_len": 256, "lr": 1e-3, "global_batch": 8, "micro_batch": 8, "max_steps": 3}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A run's plain values, on 60 + 9 + 9 rows."""
    folder = tmp_path_factory.mktemp("run")
    pools = {}
    for name, rows, seed in (("pool", 60, 0), ("target", 9, 99), ("test", 9, 7)):
        (folder / name).mkdir()
        source = write_records(folder / name, *make_records(rows, seed))
        pools[name] = {"source": source, "image_root": str(folder / name / "images")}
    return pools | {
        "out": str(folder / "out"),
        "model": {"twin": {}},
        "warmup": [{"name": "stage1", "data": "pool", "train": STEP | {"parts": ["projector"]}}],
        "proxy": STEP | {"checkpoint_count": 2, "resume_steps": 1},
        "features": [
            {"kind": "gradient", "projection": {"dim": 64}, "rows_per_part": 30},
            {"kind": "trajectory", "rows_per_part": 30},
        ],
        "selectors": [{"name": "less", "config": {"targets": ["shape"]}}, {"name": "xmas"}],
        "budgets": ["20%"],
        "finetune": STEP,
        "evaluate": {"max_len": 256, "max_new_tokens": 2},
        "sweep": {"concurrent": 2, "full": False},
    }


def test_a_whole_run_and_a_second_one(values, ray_cluster):
    config = resolve(json.loads(json.dumps(values)))
    path = whole_run(config)
    out = config.out
    assert os.path.getsize(path) > 5000
    for selector in ("less", "xmas"):
        picks = read_rows(f"{out}/picks/{selector}-20pct.parquet", PICKS)
        records = read_json(f"{out}/picks/{selector}-20pct.json")
        assert picks.num_rows == len(records) == 12
    evals = read_rows(f"{out}/evals.parquet", EVALS)
    assert evals.num_rows == 18
    assert len(set(evals["run"].to_pylist())) == 2
    stages = sorted(f.removesuffix(".json") for f in os.listdir(f"{out}/stages"))
    assert stages == [
        "features-gradient", "features-trajectory", "ingest-pool", "ingest-target", "ingest-test", "proxy", "select",
        "sweep", "targets-gradient", "twin", "warmup-stage1",
    ]  # fmt: skip
    check_status(config, stages)
    before = {f: os.stat(f).st_mtime_ns for f in every_file(out) if "report.html" not in f}
    begin = time.perf_counter()
    whole_run(config)
    assert time.perf_counter() - begin < 15
    assert {f: os.stat(f).st_mtime_ns for f in every_file(out) if "report.html" not in f} == before
    changed = resolve(json.loads(json.dumps(values)), ["finetune.lr=0.5"])
    with pytest.raises(InputError, match=r"finetune\.lr: was 0\.001, is 0\.5"):
        whole_run(changed)
    plan = {line.stage: line for line in make_plan(config)}
    assert all(line.done for line in plan.values() if not line.stage.startswith("sweep-"))
    check_prices(plan, out)


def check_status(config, stages):
    """Every stage is known and done; one that lost its manifest is under way, as after a kill."""
    found = status(config.out)
    assert sorted(s.name for s in found) == stages
    assert {s.state for s in found} == {"done"}
    by_name = {s.name: s for s in found}
    assert (by_name["ingest-pool"].rows, by_name["features-trajectory"].rows, by_name["proxy"].rows) == (60, 120, 60)
    assert all(
        by_name[n].seconds > 0 and by_name[n].bytes > 1000 for n in ("ingest-pool", "features-gradient", "proxy")
    )
    names = ("features-trajectory", "proxy", "ingest-pool", "select")
    for name in names:
        os.rename(f"{config.out}/stages/{name}.json", f"{config.out}/{name}.kept")
    now = {s.name: s for s in status(config.out)}
    for name in names:
        os.rename(f"{config.out}/{name}.kept", f"{config.out}/stages/{name}.json")
    assert {n: s.state for n, s in now.items() if s.state != "done"} == dict.fromkeys(names[:3], "under way") | {
        "select": "waiting"
    }
    assert now["features-trajectory"].detail.startswith("4 parts at 2 checkpoints")
    assert now["proxy"].detail.startswith("step 3, loss ")
    assert now["ingest-pool"].detail.startswith("60 rows so far")
    assert [s["name"] for s in json.loads(as_json(found))] == [s.name for s in found]


def check_prices(plan, out):
    """Hold tokens and bytes of the plan to what the run really computed and left."""
    for stage in ("features-gradient", "targets-gradient", "features-trajectory"):
        facts, line = read_json(f"{out}/stages/{stage}.json")["facts"], plan[stage]
        # a batch is made once for both checkpoints
        assert line.price.tokens * line.rows / 2 == pytest.approx(facts["tokens"] - facts["padded"])
        assert "encoded" in line.price.how[0]
    for stage in ("warmup-stage1", "proxy"):
        weights = [f for f in every_file(f"{out}/train/{stage}") if f.endswith((".safetensors", ".pt"))]
        assert plan[stage].bytes == pytest.approx(sum(map(os.path.getsize, weights)), rel=0.05)


def every_file(folder):
    return [os.path.join(root, f) for root, _, files in os.walk(folder) for f in files]


def test_a_failed_trial_is_named_and_the_others_stay(values, ray_cluster, tmp_path):
    from vinnow.pipelines.sweep import Trial, run_sweep
    from vinnow.train.config import TrainConfig

    config = resolve(json.loads(json.dumps(values | {"out": str(tmp_path)})))
    broken = Trial(
        "bad-1", "random", "1", 0, str(tmp_path / "bad"), TrainConfig(model="/nowhere", pool="/nowhere"), _eval(config)
    )
    with pytest.raises(VinnowError, match=r"bad-1: .*no checkpoint at"):
        run_sweep(config, [broken])


def _eval(config):
    from vinnow.pipelines.config import eval_config

    return eval_config(config.evaluate, model="/nowhere", pool="/nowhere", run="r")


def test_the_plan_counts_rows_steps_and_bytes(values, tmp_path):
    config = resolve(json.loads(json.dumps(values | {"out": str(tmp_path / "new")})))
    plan = {line.stage: line for line in make_plan(config)}
    assert plan["ingest-pool"].rows == 60
    assert plan["proxy"].steps == 3
    assert plan["features-gradient"].rows == 120
    assert plan["features-gradient"].bytes == 120 * 64 * 4
    assert plan["sweep-less-20%"].rows == 12
    assert not any(line.done for line in plan.values())
    assert not os.path.exists(config.out)
    assert "estimated from the characters of 60 rows" in plan["proxy"].price.how[0]
    assert 16 < plan["proxy"].price.tokens < 256
    assert plan["proxy"].price.tflop == pytest.approx(3 * 8 * sum(plan["proxy"].price.row.values()), rel=1e-3)
    # two checkpoints of the proxy; a gradient costs a backward pass more than a trajectory's forward pass
    gradient, path = plan["features-gradient"].price, plan["features-trajectory"].price
    assert gradient.tflop == pytest.approx(120 * sum(gradient.row.values()), rel=1e-3)
    assert gradient.tflop > 1.5 * path.tflop
    assert gradient.hours == pytest.approx(
        gradient.tflop / rate_for(load_rates(PlanConfig()), "gradient", "rademacher").tflops / 3600
    )
    assert plan["ingest-pool"].price is None


def flips(tree, path=()):
    """Yield every leaf of a config tree (dicts and lists) with another value that its type allows."""
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        here = (*path, name)
        if isinstance(value, (dict, list)):
            yield from flips(value, here)
        elif isinstance(value, bool):
            yield here, not value
        elif isinstance(value, (int, float)):
            yield here, value * 2 if value else 1


def test_every_knob_changes_the_plan(values, tmp_path):
    """A knob that the plan does not show reaches no room."""
    config = resolve(json.loads(json.dumps(values | {"out": str(tmp_path / "new"), "plan": {"tflops": 100}})))
    shown = repr(make_plan(config))
    tried, refused = 0, []
    for path, other in flips(config.model_dump(mode="json")):
        tree = config.model_dump(mode="json")
        here = tree
        for name in path[:-1]:
            here = here[name]
        here[path[-1]] = other
        try:
            changed = RunConfig.model_validate(tree)
            plan = make_plan(changed)
        except ValueError:  # a value that the config itself refuses
            refused.append(path)
            continue
        tried += 1
        assert repr(plan) != shown, f"{path} does nothing"
    assert tried > 60
    assert len(refused) < 20, refused


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("budget=[3]", "did you mean 'budgets'"),
        ("finetune.epoch=3", "unknown field 'finetune.epoch'; did you mean 'epochs'"),
        ("finetune.picks=x", "filled in by the run"),
        ("selectors.0.name=lesz", "did you mean 'less'"),
        ("selectors.9.name=less", "no place in a list of 2"),
        ("proxy.global_batch=7", "accumulation"),
        ("features.1.kind=loss", "needs 'trajectory' features"),
        ("evaluate.benchmark=exact", "did you mean 'exact_match'"),
        ("model.path=x", "exactly one"),
        ("target=null", "no `target` section"),
        ("selectors.1.name=less", "listed twice"),
        ("nonsense", "a.b=c"),
    ],
)
def test_config_errors_name_the_field_and_the_nearest_right_one(values, entry, words):
    with pytest.raises(InputError) as caught:
        resolve(json.loads(json.dumps(values)), [entry])
    assert words in str(caught.value)


def test_a_run_file_is_read_and_overridden(values, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    assert load_run(str(tmp_path / "run.yaml"), ["seed=3"]).seed == 3
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not YAML"):
        load_run(str(tmp_path / "broken.yaml"))
    assert issubclass(RunConfig, BaseModel)
    with pytest.raises(InputError, match="no finished pool"):
        Pool(str(tmp_path))
