"""Evaluations whose answers are hidden have no scores: they are not compared as if they had."""

import json

import pyarrow as pa
import pytest
from vinnow.pipelines.comparing import compared
from vinnow.store.errors import InputError
from vinnow.store.tables import EVALS, write_rows


def evaluation(folder, metrics):
    folder.mkdir()
    columns = {"run": "r", "benchmark": "vqav2", "task": "t", "correct": False, "score": 0.0, "answer": "a"}
    rows = [columns | {"sample": f"s{i}", "reference": "", "cluster": f"path:{i}"} for i in range(9)]
    write_rows(str(folder / "evals.parquet"), pa.Table.from_pylist(rows, EVALS), EVALS)
    (folder / "evals.json").write_text(json.dumps({"metrics": metrics}))
    return str(folder)


def test_a_submission_is_not_compared(tmp_path):
    hidden = {"headline": "accuracy", "value": None, "parts": {}, "notes": []}
    known = evaluation(tmp_path / "known", hidden | {"value": 0.0})
    older = evaluation(tmp_path / "older", {})
    submitted = evaluation(tmp_path / "submitted", hidden)
    assert [row["verdict"] for row in compared([known, older])][1:] == ["cannot tell"]
    for names in ([known, submitted], [submitted, known]):
        with pytest.raises(InputError, match=r"submitted.*has no scores: the answers of this test set are hidden"):
            compared(names)
