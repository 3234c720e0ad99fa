"""A template that nobody names is the model's: in each stage alone and in a run; LLaVA's stays what it always was."""

import pytest
import vinnow
from foreign import vinnow as command
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.shards import make_spec as make_questions
from vinnow.pipelines.runs.config import resolve
from vinnow.store.errors import InputError
from vinnow.store.files import read_json
from vinnow.train.config import TrainConfig
from vinnow.train.run import _whole

# a family and the template that its tiny model takes where none is named
TAKEN = [("llava", "v1"), ("smolvlm", "own"), ("qwen3_vl", "own")]
LAST = {"finetune": {"max_steps": 2}, "features": [{"kind": "loss"}], "warmup": [{"name": "first", "train": {}}]}


def run_of(model, **sections):
    pool = {"source": "pool.json"}
    values = {"out": "out", "pool": pool, "captions": pool, "test": pool, "model": model}
    return values | {"selectors": [{"name": "random"}], "budgets": ["5%"], **LAST, **sections}


@pytest.mark.parametrize(("name", "taken"), TAKEN)
def test_each_stage_alone_takes_what_goes_with_its_model(name, taken, tiny_of, mixed_pool, tmp_path):
    path = tiny_of(name).path

    def spec(**fields):
        config = FeatureConfig.parse({"kind": "loss"} | fields)
        return make_spec(mixed_pool, [CheckpointRef(0, path)], config, str(tmp_path / "features"))

    assert spec().config.template == taken
    assert spec() == spec(template=taken)
    assert spec(template="plain").config.template == "plain"
    job = {"model": path, "pool": mixed_pool}
    for fields, meant in (({}, taken), ({"template": "v1"}, "v1")):
        asked = make_questions(EvalConfig.parse(job | {"run": "x"} | fields), str(tmp_path / "answers"))
        assert (asked.config.template, asked.key["template"]) == (meant, meant)
        assert _whole(TrainConfig.parse(job | fields)).template == meant


def test_answers_say_the_template_that_was_taken(tiny_of, mixed_pool, tmp_path):
    out = tmp_path / "answers"
    vinnow.ask(tiny_of("smolvlm").path, mixed_pool, str(out), max_new_tokens=2, max_refused=1.0, gpus_per_actor=0)
    assert read_json(str(out / "evals.json"))["key"]["template"] == "own"


@pytest.mark.parametrize(("name", "taken"), TAKEN)
def test_a_run_says_in_each_section_what_is_taken_but_for_llava(name, taken, tiny_of):
    run = resolve(run_of(tiny_of(name).path))
    inputs = [run.warmup[0].train, run.finetune, run.features[0], run.evaluate]
    assert {i.template for i in inputs} == {taken}
    assert "template" in run.finetune.model_dump() or name == "llava"
    if name == "llava":
        assert "template" not in run.finetune.model_dump() | run.evaluate.model_dump()
    named = resolve(run_of(tiny_of(name).path, evaluate={"template": "v1"}, finetune={"variants": {"a": {}}}))
    assert (named.evaluate.template, named.finetune.by_name()["a"].template) == ("v1", taken)


RECIPE = {"recipe": "llava15-lora"}


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"finetune": RECIPE}, "finetune"),
        ({"proxy": RECIPE}, "proxy"),
        ({"finetune": RECIPE | {"variants": {"a": {"template": "own"}, "b": {}}}}, "finetune.variants.b"),
        ({"finetune": {"variants": {"b": {"recipe": "xmas-proxy"}}}}, "finetune.variants.b"),
        ({"warmup": [{"name": "first", "train": RECIPE}]}, "warmup.0.train"),
    ],
)
def test_a_run_refuses_llavas_recipe_for_another_family(sections, where, tiny_of):
    with pytest.raises(InputError, match=rf"^{where}: recipe '.*' names template '.*set template=own"):
        resolve(run_of(tiny_of("smolvlm").path, **sections))
    resolve(run_of(tiny_of("llava").path, **sections))


def test_a_recipe_goes_with_another_family_where_a_template_is_named(tiny_of):
    for template in ("own", "v1"):
        run = resolve(run_of(tiny_of("smolvlm").path, finetune=RECIPE | {"template": template}))
        assert run.finetune.template == template


def test_a_training_alone_refuses_llavas_recipe_for_another_family(tiny_of, mixed_pool, tmp_path):
    path, out = tiny_of("qwen3_vl").path, tmp_path / "out"
    with pytest.raises(InputError, match=r"the recipe names template 'v1', which is LLaVA's.*template=own"):
        vinnow.fine_tune("llava15-lora", path, mixed_pool, str(out))
    words = ["train", "llava15-lora", "--gpus", "0", "--set", f"model={path}", "--set", f"pool={mixed_pool}"]
    said = command(*words, "--out", out)
    assert (said.code, said.trace) == (2, "")
    assert "--set template=own" in said.errors[0]
    assert not out.exists()
