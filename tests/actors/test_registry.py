"""Kinds are found by scanning a folder; clashes, typos, half-made ones and other kinds' fields are named."""

import subprocess
import sys

import pytest
from pydantic import ValidationError
from vinnow.actors import registry
from vinnow.actors.config import FeatureConfig
from vinnow.pipelines.runs.config import RunConfig
from vinnow.store.errors import InputError

NOTHING = """
from typing import Literal
from vinnow.actors.config import FeatureConfig
from vinnow.actors.kind import Kind

class Nothing(Kind):
    name = {name!r}
    class Config(FeatureConfig):
        kind: Literal[{name!r}] = {name!r}
    def dim(self, hidden, tasks): return 1
    def recipe(self): return {{}}
    def tap(self, model, spec, number): ...
    def cost(self, shape, row, tasks): ...

KIND = Nothing
"""


@pytest.fixture
def kinds(tmp_path, monkeypatch):
    """A folder for files of one's own, listed in the environment."""
    monkeypatch.setenv("VINNOW_KINDS", str(tmp_path))
    return tmp_path


def test_a_new_kind_is_one_file(kinds):
    (kinds / "mine.py").write_text(NOTHING.format(name="mine"))
    assert set(registry.names()) >= {"mine", "gradient"}
    config = FeatureConfig.parse({"kind": "mine", "max_len": 64})
    assert type(config) is registry.find("mine").Config


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "KIND = ItsClass"),
        (NOTHING.format(name="loss"), r"two kinds are called 'loss': .*loss\.py and .*mine\.py"),
        (NOTHING.format(name="a/b"), "'a/b'"),
        (NOTHING.format(name="half").replace("def recipe", "def _recipe"), "Nothing lacks recipe"),
        (NOTHING.format(name="half").replace("kind: Literal['half'] = 'half'", "more: int = 1"), "Literal.'half'."),
        (NOTHING.format(name="half").replace("(FeatureConfig)", ""), "is a FeatureConfig"),
    ],
)
def test_a_file_that_is_no_kind_is_named(kinds, code, message):
    (kinds / "mine.py").write_text(code)
    with pytest.raises(InputError, match=message) as caught:
        registry.names()
    assert "mine.py" in str(caught.value)


def test_an_unknown_kind_names_its_neighbours():
    with pytest.raises(
        InputError, match=r"kind: unknown kind of feature 'los'; did you mean 'loss'\? Known: .*gradient"
    ):
        FeatureConfig.parse({"kind": "los"})
    with pytest.raises(ValidationError, match="did you mean 'gradient'"):
        FeatureConfig(kind="gradeint")
    for odd in (None, 3, ["loss"], {}):
        with pytest.raises(InputError, match="unknown kind of feature"):
            FeatureConfig.parse({"kind": odd})


def test_fields_of_other_kinds_are_refused_by_name():
    with pytest.raises(ValidationError) as caught:
        FeatureConfig(kind="loss", top_k=9, which="nonsense", mode="adam")
    assert {e["loc"] for e in caught.value.errors()} == {("top_k",), ("which",), ("mode",)}
    with pytest.raises(InputError, match=r"unknown field 'tok_k'; did you mean 'top_k'"):
        FeatureConfig.parse({"kind": "trajectory", "tok_k": 9})


def test_in_a_run_they_are_named_with_their_place():
    run = {"out": "-", "pool": {"source": "-"}, "test": {"source": "-"}, "model": {"twin": {}}, "selectors": []}
    run |= {"budgets": [], "finetune": {}}
    features = [
        {"kind": "loss"},
        {"kind": "embedding", "poling": "text"},
        {"kind": "loss", "top_k": 9},
        {"kind": "los"},
    ]
    with pytest.raises(InputError) as caught:
        RunConfig.parse(run | {"features": features})
    said = str(caught.value).splitlines()
    assert said[0].startswith("unknown field 'features.1.poling'; did you mean 'pooling'")
    assert said[1].startswith("unknown field 'features.2.top_k'")
    assert said[2].startswith("features.3.kind: unknown kind of feature 'los'; did you mean 'loss'")


def test_a_run_keeps_what_its_features_are():
    run = {"out": "-", "pool": {"source": "-"}, "test": {"source": "-"}, "model": {"twin": {}}, "selectors": []}
    run |= {
        "budgets": [],
        "finetune": {},
        "features": [{"kind": "trajectory", "top_k": 3}, {"projection": {"dim": 64}}],
    }
    config = RunConfig.parse(run)
    assert config.features[0].top_k == 3
    again = RunConfig.parse(config.model_dump(mode="json"))
    assert again == config
    assert [type(f) for f in again.features] == [registry.find(k).Config for k in ("trajectory", "gradient")]


def test_kinds_are_found_without_torch_or_ray():
    code = "import sys; from vinnow.actors import registry; from vinnow.actors.config import FeatureConfig; "
    code += "found = [FeatureConfig(kind=n).kind for n in registry.names()]; "
    code += "print(found, {'ray', 'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == f"{registry.names()} set()"
