"""Configs shown by name: their YAML parses back to the defaults, their words are the page's, and a typo is named."""

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.configs import classes, commented, config_of, names
from vinnow.pipelines.runs.config import RunConfig, resolve
from vinnow.store.config import Config, Section
from vinnow.store.errors import InputError

ROOT = Path(__file__).parents[2]


def tree(config):
    """Every field of a config and of those inside it, whoever wrote them."""
    if isinstance(config, (list, tuple)):
        return [tree(v) for v in config]
    if not isinstance(config, Config):
        return config
    return {n: tree(getattr(config, n)) for n in type(config).model_fields}


@pytest.mark.parametrize("name", names())
def test_a_printed_config_parses_back_to_the_defaults(name):
    config = config_of(name)
    text = commented(config)
    again = type(config).parse(yaml.safe_load(text) or {})
    assert tree(again) == tree(config)
    for field in type(config).model_fields.values():
        assert " ".join(field.description.split()[:2]) in text
    own = classes().get(name)
    if own is not None and not any(f.is_required() or f.examples for f in own.model_fields.values()):
        assert tree(again) == tree(own())


def test_a_printed_run_is_a_run_once_it_is_filled_in():
    values = yaml.safe_load(commented(config_of("run")))
    with pytest.raises(InputError, match="4 places are still to be filled in"):
        resolve(values)
    values = yaml.safe_load(commented(config_of("run")))
    run = resolve(values, ["out=o", "pool.source=p", "test.source=t", "model.path=m"])
    assert (run.pool.source, run.finetune.lr, run.evaluate.benchmark) == ("p", 2e-5, "exact_match")


def test_a_recipe_is_printed_with_its_numbers():
    values = yaml.safe_load(commented(config_of("llava15-lora")))
    assert (values["lora"]["alpha"], values["lr"], values["max_steps"]) == (256, 2e-4, None)


def test_names_stand_for_one_thing_each():
    assert len(set(names())) == len(names())
    with pytest.raises(InputError, match="did you mean 'gradient'"):
        config_of("gradeint")


def test_every_section_of_a_run_is_shown_or_says_where_it_is():
    nested = {n for n, f in RunConfig.model_fields.items() if n not in {"out", "seed", "seeds", "budgets", "devices"}}
    assert nested - set(names()) == {"features"}
    with pytest.raises(InputError, match=r"ask for one of them: embedding, .*gradient"):
        config_of("features")


def test_the_command_prints_it():
    said = CliRunner().invoke(app, ["config", "less"])
    assert said.exit_code == 0
    assert yaml.safe_load(said.stdout)["aggregate"] == "max"
    assert "# max (LESS), mean, or vote" in said.stdout


def test_the_page_is_the_fields_own():
    spec = importlib.util.spec_from_file_location("config_page", ROOT / "benchmarks" / "_config_page.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run: python benchmarks/_config_page.py"


def test_a_section_is_kept_as_it_was_written():
    class Numbers(Section):
        share: float = 0.5
        rows: list[int] = []
        name: str = "n"

    config = Numbers.parse({"rows": [1], "share": 1})
    assert (config.share, repr(config.model_dump()["share"])) == (1.0, "1")
    assert list(config.model_dump()) == ["rows", "share"]
    assert config.model_copy(update={"share": 0.25}).model_dump() == {"rows": [1], "share": 0.25}
