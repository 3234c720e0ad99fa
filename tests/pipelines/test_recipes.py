"""Run recipes: published constants, blanks that are refused until they are filled, and the page that shows their plans."""

import importlib.util
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner
from vinnow.actors.kind import kind_of
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.runs.config import load_run
from vinnow.store.errors import InputError

ROOT = Path(__file__).parents[2]
RECIPES = {p.stem for p in (ROOT / "pipelines" / "recipes").glob("*.yaml")}
POOLS = ("pool.source", "pool.image_root", "test.source", "test.image_root", "model.path")
BLANKS = {"less-llava665k": (*POOLS, "target.source", "target.image_root"), "xmas-llava665k": POOLS}


def filled(name):
    return load_run(name, [f"{place}=x" for place in BLANKS[name]])


@pytest.mark.parametrize("name", BLANKS)
def test_a_blank_is_refused_with_its_place_and_the_way_out(name):
    with pytest.raises(InputError, match="still to be filled in") as refused:
        load_run(name)
    said = str(refused.value)
    assert all(f"  {place}: " in said for place in BLANKS[name])
    assert "Say each with --set pool.source=" in said
    with pytest.raises(InputError, match=r"1 places .*\n  model\.path: "):
        load_run(name, [f"{place}=x" for place in BLANKS[name] if place != "model.path"])
    for command in ("plan", "run", "sweep"):
        result = CliRunner().invoke(app, [command, name, "--gpus", "0"])
        assert isinstance(result.exception, InputError)
        assert "still to be filled in" in str(result.exception)


def test_less_has_its_published_constants():
    run = filled("less-llava665k")
    proxy = run.proxy
    lora = proxy.lora
    assert (lora.r, lora.alpha, lora.dropout, proxy.parts) == (128, 512, 0.1, ["lora"])
    assert (proxy.lr, proxy.schedule, proxy.warmup_ratio, proxy.weight_decay) == (2e-5, "linear", 0.03, 0)
    assert (proxy.global_batch, proxy.checkpoint_count, proxy.save_moments) == (128, 4, True)
    # 4 epochs over 5 %
    assert abs(proxy.planned_steps(665_298) - 4 * 0.05 * 665_298 / 128) < 1
    (feature,) = run.features
    assert (feature.which, feature.mode, feature.unit_rows) == ("lora", "less_adam", True)
    assert (feature.projection.kind, feature.projection.dim, feature.projection.seed) == ("rademacher", 8192, 0)
    assert kind_of(feature).for_targets().mode == "sgd"
    assert [(s.name, s.config) for s in run.selectors] == [("random", {}), ("less", {"aggregate": "max"})]
    tuned = run.finetune
    assert (tuned.lora.r, tuned.lora.alpha, tuned.lr, tuned.projector_lr, tuned.global_batch) == (
        128,
        256,
        2e-4,
        2e-5,
        128,
    )


def test_xmas_has_its_published_constants():
    run = filled("xmas-llava665k")
    proxy = run.proxy
    assert (proxy.lr, proxy.global_batch, proxy.micro_batch, proxy.workers, proxy.template) == (2e-5, 32, 8, 4, "phi")
    assert len(proxy.kept_checkpoints(proxy.planned_steps(665_298))) == 103
    assert run.seed == 42
    (feature,) = run.features
    assert (feature.kind, feature.top_k, feature.template, feature.image_mode) == ("trajectory", 5, "phi", "square")
    config = next(s.config for s in run.selectors if s.name == "xmas")
    assert (config["clusters"], config["niter"], config["train_points"]) == (1000, 100, 256 * 1000)
    assert (config["text_policy"], config["smallest_cluster"], config["scale"]) == ("cluster", 3, "raw")
    assert run.budgets == ["20%", "50%"]


def test_the_page_shows_what_plan_says_now():
    spec = importlib.util.spec_from_file_location("recipe_plans", ROOT / "benchmarks" / "_recipe_plans.py")
    plans = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(plans)
    sys.path[:] = before
    page = plans.PAGE.read_text(encoding="utf-8")
    assert {m[2] for m in plans.BLOCK.finditer(page)} == RECIPES - {
        "demo",
        "demo-sweep",
        "any-vlm",
    }  # of the user's model
    assert plans.filled(page) == page, "run: python benchmarks/_recipe_plans.py"
