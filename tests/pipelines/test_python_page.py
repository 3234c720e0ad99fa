"""docs/python.md and the README's example are true when run, block behind block, in a folder of the files they name."""

import contextlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from commands import python_line
from pictures import make_records, write_records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path, tiny_model, monkeypatch):
    """A folder with `data.json`, `target.json`, `images` and `model`; the test works in it."""
    records, pictures = make_records(20)
    Path(write_records(tmp_path, records, pictures)).rename(tmp_path / "data.json")
    Path(write_records(tmp_path, records[:4], {})).rename(tmp_path / "target.json")
    (tmp_path / "model").symlink_to(tiny_model)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)


def test_the_readme_s_example_runs(place, capsys):
    (block,) = blocks("README.md")
    exec(compile(block, "README.md", "exec"), {})
    assert (place / "chosen/picks/diverse-10pct.json").exists()
    assert "2 rows in chosen/picks/diverse-10pct.parquet" in capsys.readouterr().out


AFTER = """
import json
rows = vinnow.compare(["asked-before", "asked-after"])
print(json.dumps([report.steps, report.rows, before.rows, after.rows, len(rows)]))
"""


def test_the_page_runs_from_its_first_block_to_its_last(place):
    """In a process of its own: a training leaves a process group behind."""
    page_blocks = blocks("docs/python.md")
    assert len(page_blocks) == 4
    done = subprocess.run(
        [*python_line(), "-c", "\n".join([*page_blocks, AFTER])], capture_output=True, text=True, cwd=place
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert any(line.startswith("4 rows in chosen/picks/less-20pct.parquet") for line in lines)
    assert json.loads(lines[-1]) == [2, 4, 4, 4, 2]
    assert all((place / f).exists() for f in ("chosen/scores/less.parquet", "tuned/model", "asked-after/evals.parquet"))
