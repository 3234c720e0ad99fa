"""docs/first-benchmark.md is true when followed: its file is a benchmark, and its test passes."""

import re
from pathlib import Path

import pytest
from vinnow.evaluate import registry
from vinnow.evaluate.config import EvalConfig
from vinnow.pool.records import Record

PAGE = Path(__file__).parents[2] / "docs" / "first-benchmark.md"


@pytest.fixture
def blocks(tmp_path, monkeypatch) -> list[str]:
    """The page's blocks of Python, the first one as a file of a folder that the environment lists."""
    code_blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    folder = tmp_path / "my_benchmarks"
    folder.mkdir()
    (folder / "count.py").write_text(code_blocks[0])
    monkeypatch.setenv("VINNOW_BENCHMARKS", str(folder))
    return code_blocks


def test_the_page_is_true(blocks):
    assert "count" in registry.names()
    scope, helpers = {}, {}
    exec(compile(blocks[1], str(PAGE), "exec"), scope)
    exec(compile(blocks[2], str(PAGE), "exec"), helpers)
    assert "record_of" in helpers

    def record_of(question, answer):
        return Record(1, "s", "t", (), [{"from": "human", "value": question}, {"from": "gpt", "value": answer}])

    scope["test_numbers_are_read_in_digits_and_words"](record_of)
    assert EvalConfig(model="m", pool="p", run="r", benchmark="count").benchmark == "count"
