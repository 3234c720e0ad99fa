"""docs/first-selector.md is true when followed: its file is a selector, and its test passes."""

import re
from pathlib import Path

import pytest
from vinnow.select import registry

PAGE = Path(__file__).parents[2] / "docs" / "first-selector.md"


@pytest.fixture
def blocks(tmp_path, monkeypatch) -> list[str]:
    """The page's blocks of Python, the first one as a file of a folder that the environment lists."""
    listings = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    folder = tmp_path / "my_methods"
    folder.mkdir()
    (folder / "middle.py").write_text(listings[0])
    monkeypatch.setenv("VINNOW_METHODS", str(folder))
    return listings


def test_the_page_is_true(blocks, world, written):
    assert "middle" in registry.names()
    scope = {}
    exec(compile(blocks[1], str(PAGE), "exec"), scope)
    scope["test_middle_takes_the_rows_around_the_median"](world, written)
    (facts,) = (f for f in registry.facts() if f.name == "middle")
    assert (facts.needs, facts.fields, facts.score_means) == (["loss"], ["quantile"], "worth")
