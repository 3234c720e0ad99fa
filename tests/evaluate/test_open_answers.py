"""Answers to open questions: no score is claimed, and what is written is what `vinnow judge` takes."""

import json

import pytest
from endpoint import completion, serving
from judged_bench import judging, write_bench
from pictures import make_records, write_records
from typer.testing import CliRunner
from vinnow.evaluate.config import EvalConfig, OpenConfig
from vinnow.evaluate.open_answers import answer_open
from vinnow.evaluate.remote.evaluation import RemoteEvalConfig
from vinnow.pipelines.cli.main import app
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.refusals import read_refused
from vinnow.store.tables import ANSWERS, read_rows


@pytest.fixture(scope="module")
def open_pool(tmp_path_factory):
    """Six questions with ids, and one without."""
    folder = tmp_path_factory.mktemp("open")
    records, pictures = make_records(7)
    for number, record in enumerate(records[:6]):
        record["question_id"] = number
    source = write_records(folder, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_checkpoint_answers_and_nothing_is_scored(open_pool, tiny_model, tmp_path):
    values = {"model": tiny_model, "pool": open_pool, "run": "r1", "max_new_tokens": 5, "max_refused": 0.2}
    report = answer_open(OpenConfig.parse(values), str(tmp_path), here=True)
    assert (report.rows, report.refused, report.reasons) == (6, 1, {"unscorable": 1})
    assert not hasattr(report, "accuracy")
    assert not (tmp_path / "evals.parquet").exists()
    assert "score" not in ANSWERS.names
    assert "question_id" in read_refused(str(tmp_path), "open")["detail"][0].as_py()
    rows = read_rows(report.path, ANSWERS).to_pylist()
    records = {str(r.sample_id): r for r in Pool(open_pool).take(Pool(open_pool).ids())}
    for row, line in zip(rows, lines_of(tmp_path / "answers.jsonl"), strict=True):
        record = records[row["sample"]]
        assert row["question"] == str(record.extra["question_id"])
        assert row["prompt"] == record.conversations[0]["value"].replace("<image>", "").strip()
        assert line == {
            "question_id": row["question"],
            "prompt": row["prompt"],
            "text": row["answer"],
            "model_id": "r1",
            "metadata": {"category": record.task, "reference": record.conversations[1]["value"]},
        }
    assert answer_open(OpenConfig.parse(values), str(tmp_path), here=True).parts == 0


def test_a_served_model_s_answers_go_to_the_judge(open_pool, tmp_path):
    write_bench(tmp_path / "bench")

    def answer(handler, body):
        handler.send(200, json.dumps(completion("model says so")).encode())

    with serving(default=answer) as server:
        words = ["--pool", open_pool, "--engine", "openai", "--base-url", server.url, "--api-model", "m"]
        words = ["evaluate", *words, "--benchmark", "open", "--set", "max_refused=0.2", "--out", str(tmp_path / "out")]
        told = CliRunner().invoke(app, words)
        assert told.exit_code == 0, told.exception
        assert "6 answers, which have no scores until they are judged" in told.output
        assert {b["max_tokens"] for b in server.bodies} == {1024}
    answers = str(tmp_path / "out" / "answers.jsonl")
    with serving(default=judging(lambda first, second: "8 4" if "reference" in first else "4 8")) as server:
        words = ["judge", answers, "--files", str(tmp_path / "bench"), "--base-url", server.url, "--api-model", "gpt"]
        told = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "judged"), "--json"])
        assert told.exit_code == 0, told.exception
    scores = json.loads(told.stdout)["scores"]["all"]
    assert (scores["relative"], scores["questions"]) == (pytest.approx(50), 6)


def test_open_is_no_benchmark_that_scores():
    for kind, values in (
        (EvalConfig, {"model": "m", "run": "r"}),
        (RemoteEvalConfig, {"endpoint": {"base_url": "http://localhost", "model": "m"}}),
    ):
        with pytest.raises(InputError, match="no scores until"):
            kind.parse({"pool": "p", "benchmark": "open"} | values)
