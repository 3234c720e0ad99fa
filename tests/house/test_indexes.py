"""The index pages name every selector, kind of feature and benchmark that there is, and none that is not."""

import re
from pathlib import Path

import pytest
from vinnow.actors import registry as kinds
from vinnow.evaluate import registry as benchmarks
from vinnow.select import registry as selectors

ROOT = Path(__file__).parents[2]
# (page, first cell of the table's head, what must stand in it)
TABLES = [
    ("README.md", "name", selectors),
    ("docs/README.md", "kind of feature", kinds),
    ("docs/README.md", "benchmark", benchmarks),
]


def rows_of(page: str, head: str) -> list[str]:
    """Return the names in the first column of the table with this head."""
    table = re.search(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n?)*)", page, flags=re.M)
    return re.findall(r"^\| `(\w+)` \|", table[1], flags=re.M) if table else []


def test_the_page_of_official_benchmarks_names_those_that_have_files(monkeypatch):
    monkeypatch.delenv("VINNOW_BENCHMARKS", raising=False)
    official = [name for name in benchmarks.names() if benchmarks.find(name).files]
    named = rows_of((ROOT / "docs/evaluation.md").read_text(encoding="utf-8"), "official benchmark")
    assert sorted(named) == official
    assert len(official) >= 3


@pytest.mark.parametrize(("page", "head", "registry"), TABLES, ids=[h for _, h, _ in TABLES])
def test_an_index_names_all_there_is(page, head, registry, monkeypatch):
    for variable in ("VINNOW_METHODS", "VINNOW_KINDS", "VINNOW_BENCHMARKS"):
        monkeypatch.delenv(variable, raising=False)
    named = rows_of((ROOT / page).read_text(encoding="utf-8"), head)
    assert sorted(named) == sorted(registry.names()), f"{page}: its table of {head}s is not what there is"


def test_a_file_without_a_word_is_seen():
    page = "| name | reads |\n|---|---|\n| `one` | – |\n| `two` | x |\n\n| benchmark | x |\n|---|---|\n| `three` | – |"
    assert rows_of(page, "name") == ["one", "two"]
    assert rows_of(page, "benchmark") == ["three"]
    assert rows_of(page, "kind of feature") == []
