"""The recipe `any-vlm`: a model's folder and records are all that a run needs, for every family of models."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from foreign import vinnow
from mixed import texts, write_mixed
from vinnow.models import registry
from vinnow.pipelines.runs.config import load_run
from vinnow.pipelines.runs.filled import LONGEST, defaults
from vinnow.pipelines.runs.run import run_stages
from vinnow.pool.reader import Pool
from vinnow.pool.templates import NAMES
from vinnow.store.errors import InputError
from vinnow.store.files import read_json

# what makes the recipe small: an eighth of the pool is a step's batch, and few tokens are answered
SMALL = [
    "held_out.test=0.15",
    "held_out.target=0.1",
    "budgets=['20%']",
    "sweep.full=false",
    "evaluate.max_new_tokens=4",
]
SMALL += [f"{s}.{n}" for s in ("proxy", "finetune") for n in ("global_batch=8", "micro_batch=4", "max_steps=2")]
SMALL += [
    "proxy.checkpoint_count=2",
    "features.0.projection.dim=64",
    "ray.object_store_mb=100",
    "actors.inline_parts=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    return [f"pool.source={write_mixed(folder)}", f"pool.image_root={folder / 'images'}"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a family's tiny model, made once."""
    folders = {}

    def get(name):
        if name not in folders:
            folders[name] = registry.families()[name].tiny(str(tmp_path_factory.mktemp(name) / "model"), texts())
        return folders[name]

    return get


def shares(run):
    """Return the share of its source that each pool takes."""
    return {name: getattr(run, name).share for name in ("pool", "target", "test")}


@pytest.mark.parametrize("name", sorted(registry.families()))
def test_a_folder_says_its_template_and_how_long_a_row_may_be(name, tiny):
    said = defaults(tiny(name))
    config = read_json(str(Path(tiny(name), "config.json")))
    limits = [config.get("text_config", config)["max_position_embeddings"]]
    limits.append(read_json(str(Path(tiny(name), "tokenizer_config.json"))).get("model_max_length", LONGEST))
    assert said["max_len"] == min(limits) <= 4096
    assert said["template"] in NAMES
    assert said["image_mode"] == "pad"


def test_the_longest_row_is_bounded_where_a_model_has_none(tmp_path, tiny):
    folder = tmp_path / "long"
    shutil.copytree(tiny("qwen2_5_vl"), folder)
    for file, *places in (
        ("config.json", "text_config", "max_position_embeddings"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        values = section = read_json(str(folder / file))
        for place in places[:-1]:
            section = section[place]
        section[places[-1]] = 128_000
        (folder / file).write_text(json.dumps(values))
    assert defaults(str(folder))["max_len"] == LONGEST == 8192


def test_one_word_fills_all_places_of_the_model(tmp_path, data, tiny):
    sets = [f"model={tiny('qwen2_5_vl')}", *data, f"out={tmp_path}"]
    run = load_run("recipes/any-vlm.yaml", sets)
    assert run == load_run("any-vlm", sets)
    assert run.model.path == tiny("qwen2_5_vl")
    inputs = [run.proxy, run.finetune, run.evaluate, *run.features]
    assert {(i.template, i.max_len, i.image_mode) for i in inputs} == {("own", 512, "pad")}
    assert {f.kind for f in run.features} == {"gradient", "trajectory", "loss"}
    assert shares(run) == {"pool": (0.0, 0.96), "target": (0.96, 0.98), "test": (0.98, 1.0)}
    assert {getattr(run, pool).source for pool in shares(run)} == {run.pool.source}
    # what a run saved says the same, wherever the model is by then
    (tmp_path / "run.json").write_text(json.dumps({"config": run.model_dump(mode="json"), "digest": run.digest()}))
    assert load_run(str(tmp_path / "run.json")) == run


def test_a_source_of_one_s_own_takes_the_place_of_a_share(data, tiny):
    run = load_run("any-vlm", [f"model={tiny('qwen2_5_vl')}", *data, "test.source=test.json", "test.image_root=i"])
    assert (run.test.source, run.test.share, run.test.image_root) == ("test.json", None, "i")
    assert shares(run) == {"pool": (0.0, 0.98), "target": (0.98, 1.0), "test": None}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("model=no-such-folder", "no checkpoint at 'no-such-folder'"),
        ("model={twin: {}}", "is auto, which is asked of model.path"),
        ("held_out={test: 0.6, target: 0.5}", "leave nothing for the pool"),
        ("held_out.tst=0.1", "did you mean 'test'"),
        ("pool.share=[0, 0.5]", "give one of them"),
        ("proxy.max_len=many", "proxy.max_len"),
    ],
)
def test_what_cannot_be_filled_in_is_named(data, tiny, entry, words):
    with pytest.raises(InputError) as error:
        load_run("any-vlm", [f"model={tiny('qwen2_5_vl')}", *data, entry])
    assert words in str(error.value)


def test_what_is_left_open_is_refused_by_its_place():
    with pytest.raises(InputError, match=r"2 places(.|\n)*pool\.source(.|\n)*model\.path"):
        load_run("any-vlm")


def test_a_plan_needs_no_weights(tmp_path, data, tiny):
    bare = tmp_path / "bare"
    shutil.copytree(tiny("qwen2_5_vl"), bare, ignore=shutil.ignore_patterns("*.safetensors"))
    sets = [x for s in [f"model={bare}", *data, f"out={tmp_path / 'out'}", *SMALL] for x in ("--set", s)]
    said = vinnow("plan", "recipes/any-vlm.yaml", "--gpus", "0", *sets)
    assert (said.code, said.trace) == (0, ""), said.text
    assert "holds no weights: this is planned by its settings" in said.text
    assert "sweep-perplexity_middle-20%" in said.text
    assert not (tmp_path / "out").exists()
    refused = vinnow("run", "recipes/any-vlm.yaml", "--gpus", "0", *sets)
    assert refused.code == 2
    assert "it holds no weights in safetensors" in refused.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3"])
def test_a_mixed_pool_goes_from_ingest_to_report(name, tmp_path, data, tiny, ray_cluster):
    out = tmp_path / "out"
    run = load_run("recipes/any-vlm.yaml", [f"model={tiny(name)}", *data, f"out={out}", *SMALL])
    page = Path(run_stages(run)).read_text(encoding="utf-8")
    pools = {n: Pool(str(out / n)) for n in ("pool", "test", "target")}
    assert sum(p.rows for p in pools.values()) == 60
    held = [r for n in ("test", "target") for r in pools[n].take(pools[n].ids())]
    assert {len(r.images) for r in held} >= {0, 1, 3}
    shown = list(pools["pool"].take(pools["pool"].ids()))
    assert {len(r.images) for r in shown} == {0, 1, 3}
    assert any(r.extra.get("system") for r in shown)
    # no row is lost on the way, and no question
    for stage in ("features-gradient", "features-loss", "features-trajectory", "targets-gradient"):
        facts = read_json(str(out / "stages" / f"{stage}.json"))["facts"]
        rows = pools["target" if stage.startswith("targets") else "pool"].rows
        assert (facts["used"], facts["refused"]) == (rows, 0), stage
    for label in ("random", "less", "xmas", "perplexity_middle"):
        trial = out / "sweep" / f"{label}-20pct-s0"
        result = read_json(str(trial / "result.json"))
        assert (result["steps"], result["loss"] > 0) == (2, True)
        asked = pq.read_table(str(trial / "eval" / "evals.parquet"))
        assert set(asked["sample"].to_pylist()) == {str(i) for i in pools["test"].ids()}
        assert set(asked["benchmark"].to_pylist()) == {"word_f1"}
        assert label in page
