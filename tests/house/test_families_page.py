"""docs/families.md says what the tests say: every family and every mark is in it, and nothing else."""

import importlib.util
from pathlib import Path

import pytest
from vinnow.models import registry
from works import Recorder, marked, read_table

ROOT = Path(__file__).parents[2]
AGAIN = 'run `python -m pytest -m "works or refuses" --record-works`, then `python benchmarks/_families_page.py`'


def render(table):
    spec = importlib.util.spec_from_file_location("_families_page", ROOT / "benchmarks" / "_families_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page(table)


def stale(table, names):
    """What the table lacks of the tests' marks and of the families, or has beyond them."""
    lacks = {what: sorted(set(names) ^ set(on)) for what, on in table["works"].items() if set(on) != set(names)}
    other = set(table["works"]) ^ set(marked("works")) | set(table["refuses"]) ^ set(marked("refuses"))
    return lacks, other


def test_the_page_is_of_today(monkeypatch):
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    table = read_table()
    assert stale(table, registry.families()) == ({}, set()), AGAIN
    assert (ROOT / "docs" / "families.md").read_text(encoding="utf-8") == render(table), AGAIN
    assert len(table["works"]) > 15


def test_what_is_stale_is_seen():
    table = read_table()
    lacks, _ = stale(table, [*registry.families(), "another"])
    assert set(lacks) == set(table["works"])
    _, other = stale(table | {"refuses": [*table["refuses"], "what no test says"]}, registry.families())
    assert other == {"what no test says"}


class Report:
    def __init__(self, outcome, *properties):
        self.passed, self.failed, self.when = outcome == "passed", outcome == "failed", "call"
        self.user_properties = list(properties)


@pytest.mark.parametrize(
    ("outcomes", "there"), [(["passed"], True), (["passed", "failed"], False), (["skipped"], True), ([], True)]
)
def test_one_failure_takes_a_word_back_and_a_skipped_test_leaves_it(tmp_path, outcomes, there):
    what, family = marked("works")[0], sorted(registry.families())[0]
    file = tmp_path / "works.json"
    recorder = Recorder(file)
    recorder.pytest_runtest_logreport(Report("passed", ("works", [what, family])))
    recorder.pytest_sessionfinish()
    recorder = Recorder(file)
    for outcome in outcomes:
        recorder.pytest_runtest_logreport(Report(outcome, ("works", [what, family])))
    recorder.pytest_sessionfinish()
    assert (read_table(file)["works"][what] == [family]) is there
