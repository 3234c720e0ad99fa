"""The benchmark of families on a tiny model: every side runs, and the row and the table say what they must."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def families(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("families_benchmark", ROOT / "benchmarks" / "families.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # a training sets them
        monkeypatch.setenv(name, "0")
    return module


def test_every_side_is_measured_beside_the_plain_one(families, tmp_path, monkeypatch, capsys):
    out = tmp_path / "row.json"
    small = ["--rank", "4", "--micro", "2", "--rows", "4", "--steps", "1", "--seconds", "0"]
    monkeypatch.setattr(
        sys, "argv", ["families", "--tiny", "--family", "qwen3_vl", "--out", str(out), "--peak", "1", *small]
    )
    families.main()
    row, said = json.loads(out.read_text()), capsys.readouterr().out
    assert list(row["ratios"]) == list(families.SIDES)
    assert all(ratio > 0 for ratio in row["ratios"].values())
    assert row["ran"].keys() == {"the lean decoder"}
    for name, rate in row["rows_per_s"].items():
        assert row["mfu"][name] == pytest.approx(rate * row["tflop_per_row"][name])
    assert row["tokens_per_row"] > row["image_tokens_per_row"] >= 4
    table = said.rsplit("\n\n", 1)[1].splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| gradients", "| trajectories", "| training"]


def test_a_side_that_is_not_known_is_refused(families, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["families", "--tiny", "--sides", "gradient"])
    with pytest.raises(SystemExit, match="not gradient"):
        families.main()
