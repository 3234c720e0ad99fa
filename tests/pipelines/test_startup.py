"""Commands that only read what is on disk start without the libraries that compute."""

import json
import os
import subprocess
import sys

import pytest
from pictures import make_records, write_records
from vinnow.models.family.of_llava.connectors import CONNECTORS
from vinnow.models.specs import CONNECTOR_KINDS
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.opening import start

HEAVY = ("torch", "ray", "transformers", "deepspeed", "peft", "sklearn", "faiss")
RUN = """
import json, sys
from vinnow.pipelines.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
with open({out!r}, "w") as sink:
    json.dump([n for n in {heavy!r} if n in sys.modules], sink)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_pool):
    """A source of records, and a run's folder whose run has not begun."""
    folder = tmp_path_factory.mktemp("startup")
    source = write_records(folder, *make_records(8))
    values = {
        "out": str(folder / "run"),
        "pool": {"source": source, "image_root": str(folder / "images")},
        "test": {"source": source},
        "model": {"twin": {}},
        "selectors": [{"name": "random"}],
        "budgets": ["50%"],
        "finetune": {"parts": ["projector"]},
    }
    start(resolve(values))
    return {"source": source, "images": str(folder / "images"), "run": str(folder / "run"), "pool": tiny_pool}


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "train --help",
        "serve --help",
        "--version",
        "status {run}",
        "doctor {source} --images {images}",
        "ingest {source} --images {images} --out {out}/pool",
        "select --pool {pool} --selector random --budget 50% --out {out}",
        "export {pool} --out {out}/all.json",
    ],
)
def test_a_command_that_only_reads_loads_neither_torch_nor_ray(command, place, tmp_path):
    line = command.format(out=tmp_path, **place).split()
    seen = tmp_path / "seen.json"
    code = RUN.format(out=str(seen), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code, *line], capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(seen.read_text()) == []


def test_specs_know_every_connector():
    assert set(CONNECTOR_KINDS) == set(CONNECTORS)
