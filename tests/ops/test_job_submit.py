"""A selection as a Ray job: a head of its own, the package brought by `py_modules`, picks at the end."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from heads import BIN, Head
from vinnow.store.tables import PICKS, read_rows

ROOT = Path(__file__).parents[2]
JOB_S = 90


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The package as a job brings it: its folders and root files in a folder that must be called vinnow."""
    target = tmp_path_factory.mktemp("job") / "vinnow"
    beside = {"tests", "benchmarks", "docs", "runs", "build"}
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")

    def ignored(folder: str, names: list[str]) -> set[str]:
        return set(left_out(folder, names)) | (beside & set(names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, target, ignore=ignored)
    return target


def submit(head: Head, package: Path, cwd: Path, *command: str) -> subprocess.Popen[str]:
    """Begin `ray job submit`, which stays until the job's end; its exit code is the job's."""
    line = [str(BIN / "ray"), "job", "submit", "--address", head.address]
    line += ["--runtime-env-json", json.dumps({"py_modules": [str(package)]}), "--", *command]
    return subprocess.Popen(line, env=head.env(), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def selecting(pool: str, selector: str, out: Path) -> str:
    """Return the command of a selection."""
    return f"python -m vinnow select --pool {pool} --selector {selector} --budget 10% --budget 25 --out {out}"


@pytest.mark.slow
def test_a_submitted_selection_writes_its_picks_and_a_wrong_one_fails_with_the_near_name(
    head, package, tiny_pool, tmp_path
):
    """Both at a time: a job's start is most of what it takes."""
    which = "python -c 'import vinnow.pool.reader as r; print(r.__file__)'"
    out, none = tmp_path / "out", tmp_path / "none"
    right = submit(head, package, tmp_path, "sh", "-c", f"{which} && {selecting(tiny_pool, 'random', out)}")
    wrong = submit(head, package, tmp_path, *selecting(tiny_pool, "randon", none).split())
    said, refused = right.communicate(timeout=JOB_S)[0], wrong.communicate(timeout=JOB_S)[0]
    assert right.returncode == 0, said
    assert "succeeded" in said
    # unpacked by Ray below its own folder, not the installed tree of the repository
    where = next(line for line in said.splitlines() if line.strip().endswith("pool/reader.py"))
    assert "runtime_resources" in where
    assert str(ROOT) not in where
    for name, rows in (("random-10pct", 6), ("random-25", 25)):
        assert read_rows(str(out / "picks" / f"{name}.parquet"), PICKS).num_rows == rows
        assert len(json.loads((out / "picks" / f"{name}.json").read_text())) == rows
    assert wrong.returncode != 0
    assert "did you mean 'random'" in refused
    assert "Traceback" not in refused.split("did you mean")[0]
    assert not none.exists()
