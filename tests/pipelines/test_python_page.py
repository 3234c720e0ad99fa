"""docs/python.md and the README's example are true when run, block behind block, in a folder of the files they name."""

import contextlib
import re
from pathlib import Path

import pytest
from pictures import make_records, write_records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path, twin_path, monkeypatch):
    """A folder with `data.json`, `target.json`, `images` and `model`; the test works in it."""
    records, pictures = make_records(20)
    Path(write_records(tmp_path, records, pictures)).rename(tmp_path / "data.json")
    Path(write_records(tmp_path, records[:4], {})).rename(tmp_path / "target.json")
    (tmp_path / "model").symlink_to(twin_path)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize(
    ("page", "count", "files", "words"),
    [
        ("README.md", 1, ["chosen/picks/diverse-10pct.json"], "2 rows in chosen/picks/diverse-10pct.parquet"),
        ("docs/python.md", 4, ["chosen/scores/less.parquet", "tuned/model", "asked-after/evals.parquet"], "4 rows in"),
    ],
)
def test_the_page_s_python_runs_and_leaves_what_it_says(place, capsys, page, count, files, words):
    found, scope = blocks(page), {}
    assert len(found) == count
    for number, block in enumerate(found):
        exec(compile(block, f"{page}, block {number}", "exec"), scope)
    assert all((place / file).exists() for file in files)
    assert words in capsys.readouterr().out
