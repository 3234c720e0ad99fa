"""What names existing runs, features and trials stays: a config that is typed otherwise is no other one."""

import json

import pytest
from vinnow.actors.config import FeatureConfig
from vinnow.actors.kind import kind_of
from vinnow.evaluate.config import EvalConfig
from vinnow.pipelines.blanks import BLANK
from vinnow.pipelines.runs.config import RunConfig, read_yaml, resolve
from vinnow.pipelines.runs.identity import recipe_json
from vinnow.store.files import digest
from vinnow.train.config import ORDER, TrainConfig

# recorded while sections were still plain mappings; runs on disks go by them
RUNS = {
    "demo": "19e32efd1e821b21",
    "less-llava665k": "0f76fd49b29f4623",
    "mores-vs-connector": "4336cdcfa9b8d79a",
    "scienceqa-mistral": "5858db442ff026fe",
    "xmas-llava665k": "4968d04ddef7e443",
}
TRAININGS = {
    "connector-only": "4d41b3ebb0db184c",
    "llava-mistral-scienceqa": "8ae5f42c4c70f5dd",
    "llava-mistral-scienceqa-projector": "fcb322cb91e8b3b2",
    "llava-v1-scienceqa": "a8be60445e2f23eb",
    "llava15-finetune": "51fb672c91a4bd76",
    "llava15-lora": "8e5af02b5e0119b5",
    "llava15-pretrain": "bef9161657bee6ac",
    "llava15-qlora": "565ae7c7222cf358",
    "mores-2nd-stage": "1d42dfac174efe3e",
    "xmas-proxy": "650c4c1c8b23cdbc",
}
KEYS = {
    "embedding": "a921f65a23834254",
    "gradient": "b2837dbfee0d5151",
    "influence": "d647dbed39f5bf57",
    "loss": "543fa03621e18eba",
    "trajectory": "dcac3dadf876a1a8",
}


def filled(value):
    if isinstance(value, dict):
        return {n: filled(v) for n, v in value.items()}
    if isinstance(value, list):
        return [filled(v) for v in value]
    return "x" if isinstance(value, str) and value.startswith(BLANK) else value


def run_of(name):
    values = {k: v for k, v in filled(read_yaml(name)).items() if k != "data"}
    return resolve({"out": "o"} | values)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_keeps_its_name(name):
    run = run_of(name)
    assert run.digest() == RUNS[name]
    # saved and read again it is the same, also in bytes
    saved = run.model_dump(mode="json")
    again = RunConfig.parse(json.loads(json.dumps(saved)))
    assert again.digest() == RUNS[name]
    assert json.dumps(again.model_dump(mode="json")) == json.dumps(saved)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_trial_keeps_its_name(name):
    config = TrainConfig.parse({"model": "m", "pool": "p", "picks": "x", "seed": 3} | read_yaml(name, "train"))
    assert digest("rows", recipe_json(config), "model") == TRAININGS[name]


@pytest.mark.parametrize("kind", KEYS)
def test_features_keep_their_keys(kind):
    assert digest(kind_of(FeatureConfig(kind=kind)).key_recipe({"t": 1}, None)) == KEYS[kind]


def test_saved_forms_hold_the_fields_that_they_held():
    assert set(ORDER) == set(TrainConfig.model_fields)  # a new field: at the end of ORDER, and a digest of its own
    tree = TrainConfig(model="m", pool="p", seed=0).model_dump(mode="json")
    assert digest(json.dumps(tree, sort_keys=True)) == "4bda7d5788ef9377"
    asked = EvalConfig(model="m", pool="p", run="r").model_dump(mode="json")
    assert digest(json.dumps(asked, sort_keys=True)) == "8edbec7bfafcb54b"
