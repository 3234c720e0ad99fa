"""A whole run of a Mistral twin on ScienceQA's layout, small: pool → stage 1 → proxy → features → picks → stage 2 by
recipe → evaluation → report; and again, doing nothing. And one without a proxy, with two fine-tunes of one choice."""

import importlib.util
import json
import os
import time
from pathlib import Path

import pytest
import yaml
from pictures import make_records, write_records
from pydantic import BaseModel
from safetensors.torch import load_file
from vinnow.pipelines.report.gather import gather
from vinnow.pipelines.report.headline import headline
from vinnow.pipelines.runs.config import RunConfig, SelectorSection, load_run, resolve
from vinnow.pipelines.runs.opening import start
from vinnow.pipelines.runs.picking import select_all
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.rates import PlanConfig, load_rates, rate_for
from vinnow.pipelines.runs.run import run_stages
from vinnow.pipelines.runs.status import status
from vinnow.pipelines.runs.training_stage import learning_rates
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, VinnowError
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, PICKS, read_rows

STEP = {"max_len": 256, "lr": 1e-3, "global_batch": 8, "micro_batch": 8, "max_steps": 3}


# what the published recipes cannot be on a CPU
CPU = {
    "use_gpu": False,
    "workers": 1,
    "precision": "float32",
    "zero_stage": 2,
    "gradient_checkpointing": False,
    "loader_workers": 0,
}


def scienceqa(folder, rows, seed):
    """Write generated problems in the official layout; returns the section that ingests them."""
    file = Path(__file__).parents[2] / "benchmarks/make_scienceqa.py"
    spec = importlib.util.spec_from_file_location("make_scienceqa", file)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return {"source": maker.write(str(folder), rows, seed), "split": "train", "layout": "test"}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A run's plain values, on 60 + 9 + 9 + 8 rows."""
    folder = tmp_path_factory.mktemp("run")
    pools = {name: scienceqa(folder / name, rows, seed) for name, rows, seed in (("pool", 60, 0), ("test", 9, 7))}
    for name, rows, turns in (("target", 9, None), ("captions", 10, 2)):
        (folder / name).mkdir()
        records, pictures = make_records(rows, seed=99)
        if turns:  # the plain template takes one picture and one answer
            records = [r | {"conversations": r["conversations"][:turns]} for r in records if "image" in r]
        source = write_records(folder / name, records, pictures)
        pools[name] = {"source": source, "image_root": str(folder / name / "images")}
    stage1 = {"recipe": "llava-mistral-scienceqa-projector"} | CPU | STEP
    return pools | {
        "out": str(folder / "out"),
        "model": {"twin": {"llm": "mistral"}},
        "warmup": [{"name": "stage1", "train": stage1}],
        "proxy": STEP | {"checkpoint_count": 2, "resume_steps": 1},
        "features": [
            {"kind": "gradient", "projection": {"dim": 64}, "rows_per_part": 30},
            {"kind": "trajectory", "rows_per_part": 30},
            {"kind": "embedding", "template": "mistral_instruct", "rows_per_part": 30},
        ],
        "selectors": [
            {"name": "less", "config": {"targets": ["shape"]}},
            {"name": "xmas"},
            {"name": "scienceqa_prune"},
            {"name": "diverse"},
        ],
        "budgets": ["20%"],
        "finetune": {"recipe": "llava-mistral-scienceqa"} | CPU | STEP,
        "evaluate": {
            "benchmark": "option_letter", "template": "mistral_instruct", "max_len": 256, "max_new_tokens": 2,
        },
        "sweep": {"concurrent": 2, "full": False},
    }  # fmt: skip


# one choice is trained by three recipes
VARIANTS = {
    "connector-only": {"recipe": "connector-only"},
    "mores": {"recipe": "mores-2nd-stage"},
    "stage2": {"recipe": "llava-mistral-scienceqa"},
}


def test_a_whole_run_and_a_second_one(values, ray_cluster):
    # one selector's rows are trained on; the others pick from what the run has left
    trained, others = values["selectors"][3:], values["selectors"][:3]
    finetune = {"variants": VARIANTS, "template": "mistral_instruct"} | CPU | STEP
    written = json.dumps(values | {"selectors": trained, "finetune": finetune})
    config = resolve(json.loads(written))
    path, out = run_stages(config), config.out
    check_report(path)
    evals = read_rows(f"{out}/evals.parquet", EVALS)
    assert evals.num_rows == 27
    assert len(set(evals["run"].to_pylist())) == 3
    assert set(evals["reference"].to_pylist()) <= set("ABCDE")
    check_models(out)
    stages = sorted(f.removesuffix(".json") for f in os.listdir(f"{out}/stages"))
    assert stages == [
        "features-embedding", "features-gradient", "features-trajectory", "ingest-captions", "ingest-pool",
        "ingest-target", "ingest-test", "proxy", "select", "sweep", "targets-gradient", "twin", "warmup-stage1",
    ]  # fmt: skip
    check_status(config, stages)
    told = {f"{out}/{n}" for n in ("report.html", "answer.csv", "answer.parquet")}  # written anew
    before = {f: os.stat(f).st_mtime_ns for f in every_file(out) if f not in told}
    begin = time.perf_counter()
    run_stages(config)
    assert time.perf_counter() - begin < 15
    assert {f: os.stat(f).st_mtime_ns for f in every_file(out) if f not in told} == before
    changed = resolve(json.loads(written), ["finetune.lr=0.5"])
    with pytest.raises(InputError, match=r"finetune\.variants\.mores\.lr: was 0\.001, is 0\.5"):
        run_stages(changed)
    plan = {line.stage: line for line in make_plan(config)}
    assert all(line.done for line in plan.values() if not line.stage.startswith("sweep-"))
    check_prices(plan, out)
    rates = learning_rates(start(config))
    assert list(rates) == [2, 3]
    select_all(config.model_copy(update={"selectors": [SelectorSection(**s) for s in others]}), out, rates)
    for selector in ("less", "xmas", "scienceqa_prune", "diverse"):
        picks = read_rows(f"{out}/picks/{selector}-20pct.parquet", PICKS)
        records = read_json(f"{out}/picks/{selector}-20pct.json")
        assert picks.num_rows == len(records) == 12


def check_models(out):
    """Hold both stages to the recipe: which weights of a Mistral each changed, in which template."""
    folders = {
        "start": "twin",
        "stage1": "train/warmup-stage1/model",
        "stage2": "sweep/diverse-20pct-s0-stage2/train/model",
    }
    assert read_json(f"{out}/{folders['stage2']}/config.json")["text_config"]["model_type"] == "mistral"
    weights = {name: load_file(f"{out}/{path}/model.safetensors") for name, path in folders.items()}

    def changed(before, after):
        return {k.split(".")[0] for k, v in weights[before].items() if not v.equal(weights[after][k])}

    assert changed("start", "stage1") == {"multi_modal_projector"}
    saved = read_json(f"{out}/sweep/diverse-20pct-s0-stage2/train/config.json")
    assert (saved["template"], saved["epochs"], saved["max_steps"], saved["weight_decay"]) == (
        "mistral_instruct",
        15,
        3,
        0,
    )
    assert changed("stage1", "stage2") == {"multi_modal_projector", "language_model"}
    compositions = {one.field: one for one in gather(out).composition}
    assert sum(compositions["subject"].pool.values()) == sum(compositions["image"].pool.values()) == 60
    assert {sum(c.values()) for one in compositions.values() for c in one.choices.values()} == {12}


def check_report(path):
    """MoReS and connector-only stand side by side, trained on the same rows and asked the same questions."""
    sweep = Path(path).parent / "sweep"
    results = {n: read_json(sweep / f"diverse-20pct-s0-{n}/result.json") for n in VARIANTS}
    assert [r["variant"] for r in results.values()] == list(VARIANTS)
    assert [os.path.isfile(f"{r['model']}/mores.json") for r in results.values()] == [False, True, False]
    configs = [read_json(sweep / f"diverse-20pct-s0-{n}/train/config.json") for n in VARIANTS]
    assert len({c["picks"] for c in configs}) == 1
    rows = headline(gather(str(Path(path).parent)).trials)
    assert [(r.name, r.questions) for r in rows] == [(f"diverse, {n}", 9) for n in VARIANTS]
    assert [r.against_first is None for r in rows] == [True, False, False]
    page = Path(path).read_text()
    assert len(page) > 5000
    assert "On the same rows, against connector-only: mores at diverse 20% (" in page


def test_mores_and_connector_only_are_planned_on_the_same_rows_without_a_proxy(values, tiny_model, tmp_path):
    cpu = {"template": "v1"} | CPU | STEP
    fields = {n: values[n] for n in ("pool", "test")} | {"out": str(tmp_path), "budgets": [8], "model.path": tiny_model}
    fields |= {f"finetune.{k}": v for k, v in cpu.items()}
    config = load_run("mores-vs-connector", [f"{k}={json.dumps(v)}" for k, v in fields.items()])
    lines = {line.stage: line for line in make_plan(config)}
    sweep = ["sweep-full-100%-connector-only", "sweep-full-100%-mores"]
    assert {*sweep, "sweep-random-8-connector-only", "sweep-random-8-mores"} <= set(lines)
    assert not {"proxy", "warmup-stage1"} & set(lines)


def test_a_section_takes_a_recipe_under_its_own_fields(values):
    written = json.loads(json.dumps(values))
    stage2 = {"finetune": {"recipe": "llava15-lora", "lora": {"r": 4}, "lr": 1e-3}}
    tuned = resolve(written | stage2).finetune.model_dump()
    assert tuned["lora"] == {"r": 4, "alpha": 256, "dropout": 0.05}
    assert (tuned["lr"], tuned["projector_lr"], tuned["global_batch"], "recipe" in tuned) == (1e-3, 2e-5, 128, False)
    # the run is what its numbers say, whoever wrote them down
    assert resolve(written | {"finetune": tuned}).digest() == resolve(written | stage2).digest()
    both = {"lr": 3e-3, "recipe": "connector-only", "variants": {"a": {}, "b": {"recipe": "mores-2nd-stage", "lr": 1}}}
    variants = resolve(written | {"finetune": both}).finetune.model_dump()["variants"]
    assert {n: (v["lr"], v["parts"]) for n, v in variants.items()} == {
        "a": (3e-3, ["projector"]), "b": (1, ["projector", "mores"]),
    }  # fmt: skip
    again = resolve(written | {"finetune": {"variants": variants}})
    assert again.digest() == resolve(written | {"finetune": both}).digest()


def test_the_scienceqa_recipe_has_the_published_numbers(values, tmp_path):
    assert load_run("scienceqa-mistral").budgets == [1000]
    fields = {n: values[n] for n in ("pool", "test", "captions", "model")} | {
        "out": str(tmp_path / "new"),
        "budgets": [40],
    }
    config = load_run("scienceqa-mistral", [f"{k}={json.dumps(v)}" for k, v in fields.items()])
    lines = {line.stage: line for line in make_plan(config)}
    assert "proxy" not in lines
    assert (lines["features-embedding"].rows, lines["features-embedding"].price.row == {}) == (60, False)
    names = ("lr", "global_batch", "epochs", "weight_decay", "template")
    first, second = ({n: lines[s].config[n] for n in names} for s in ("warmup-stage1", "sweep-scienceqa_prune-40"))
    assert first == dict(zip(names, (1e-3, 64, 1, 0, "plain")))
    assert second == dict(zip(names, (2e-5, 32, 15, 0, "mistral_instruct")))
    assert lines["sweep-diverse-40"].steps == 30


def check_status(config, stages):
    """Every stage is known and done; one that lost its manifest is under way, as after a kill."""
    rows = status(config.out)
    assert sorted(s.name for s in rows) == stages
    assert {s.state for s in rows} == {"done"}
    by_name = {s.name: s for s in rows}
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
    from vinnow.pipelines.runs.sweep import Trial, run_sweep
    from vinnow.pool.ingest import ingest
    from vinnow.train.config import TrainConfig

    config = resolve(json.loads(json.dumps(values | {"out": str(tmp_path)})))
    ingest(config.test, str(tmp_path / "test"))
    asked = config.evaluate.job(model="/nowhere", pool=str(tmp_path / "test"), run="r")
    broken = Trial(
        "bad-1", "random", "1", 0, str(tmp_path / "bad"), TrainConfig(model="/nowhere", pool="/nowhere"), asked
    )
    with pytest.raises(VinnowError, match=r"bad-1: .*no checkpoint at"):
        run_sweep(config, [broken])


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


def whole(config):
    """Return a run's tree with every field of its sections, also of those that nobody wrote."""
    tree = config.model_dump(mode="json")
    if config.proxy is not None:
        tree["proxy"] = config.proxy.recipe().model_dump(mode="json")
    for name, section in config.finetune.by_name().items():
        recipe = section.recipe().model_dump(mode="json")
        tree["finetune"] = tree["finetune"] | (
            {"variants": tree["finetune"]["variants"] | {name: recipe}} if name else recipe
        )
    for stage, section in zip(tree["warmup"], config.warmup, strict=True):
        stage["train"] = section.train.recipe().model_dump(mode="json")
    return tree | {"evaluate": config.evaluate.recipe().model_dump(mode="json")}


@pytest.mark.parametrize("proxy", [True, False])
def test_every_knob_changes_the_plan(values, tmp_path, proxy):
    """A knob that the plan does not show reaches no room; also without a proxy, and with two fine-tunes."""
    run_values = values | {"out": str(tmp_path / "new"), "plan": {"tflops": 100}}
    if not proxy:
        run_values |= {"proxy": None, "features": values["features"][2:], "selectors": [{"name": "diverse"}]}
        run_values |= {"finetune": {"variants": {"a": {}, "b": {"lr": 1e-4}}} | values["finetune"]}
    config = resolve(json.loads(json.dumps(run_values)))
    shown = repr(make_plan(config))
    tried, refused = 0, []
    for path, other in flips(whole(config)):
        tree = whole(config)
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
        ("selectors.9.name=less", "no place in a list of 4"),
        ("proxy.global_batch=7", "accumulation"),
        ("features.1.kind=loss", "needs 'trajectory' features"),
        ("evaluate.benchmark=exact", "did you mean 'exact_match'"),
        ("model.path=x", "exactly one"),
        ("target=null", "no `target` section"),
        ("selectors.1.name=less", "listed twice"),
        ("nonsense", "a.b=c"),
        (
            "finetune.recipe=llava-mistral-sciencqa",
            "finetune 'llava-mistral-sciencqa'; did you mean 'llava-mistral-scienceqa'",
        ),
        ("warmup.0.train.recipe=3", "warmup.0.train.recipe wants the name"),
        ("proxy=null", "selector 'less' goes by gradient features at a proxy's checkpoints"),
        ("finetune.variants=[1]", "NAME: {fields of a training}"),
        ("finetune.variants={a/b: {}}", "'a/b' is no name"),
        ("finetune.variants={a: {epoch: 3}}", "unknown field 'finetune.variants.a.epoch'; did you mean 'epochs'"),
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
