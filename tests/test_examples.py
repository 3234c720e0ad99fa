"""Every example runs, in this process, and says what it should; all of them in one folder."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from vinnow.actors import registry as kinds
from vinnow.select import registry as methods

EXAMPLES = Path(__file__).parents[1] / "examples"
SAID = {
    "score_and_pick": r"(?s)rows used, none refused.*'values': 'color'.*\(64, 64\).*gradient features in .*steps 0 .*"
    r"'target': 'color'.*\d+ rows in .*less-10pct.parquet.*colour questions: [\d.]+ of the picks",
    "own_selector": r"(?s)random: (\d+) char.*longest: (\d+) char.*longest-per_picture: .* 40 of 40 with a picture",
    "own_kind": r"(?s)\d+ rows, perplexity .*the same to .*: True",
    "compare_picks": r"(?s)shared: \d+ of 50 rows.*random: .*color \d+.*diverse: .*color \d+",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("examples"))


@pytest.mark.parametrize("name", SAID)
def test_an_example_says_what_it_should(name, folder, monkeypatch, capsys):
    path = EXAMPLES / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), folder])
    monkeypatch.setattr(sys, "path", list(sys.path))
    for variable in ("VINNOW_METHODS", "VINNOW_KINDS"):
        monkeypatch.setenv(variable, "")  # put back behind what the example sets
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    match = re.search(SAID[name], said)
    assert match, said
    if name == "own_selector":
        assert int(match[1]) < int(match[2])


def test_all_examples_are_run_and_none_is_left_behind():
    assert {p.stem for p in EXAMPLES.glob("*.py")} - {"small_data"} == set(SAID)
    assert "longest" not in methods.names()
    assert "perplexity" not in kinds.names()
