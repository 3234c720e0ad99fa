"""A judge over HTTP: both orders mapped back, failures listed, the official way's −1, and nothing paid twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from endpoint import completion, says, serving, status
from judged_bench import judging, sides, write_bench, write_lines
from typer.testing import CliRunner
from vinnow.evaluate.judging.config import JudgeConfig
from vinnow.evaluate.judging.run import judge
from vinnow.pipelines.cli.main import app
from vinnow.store.errors import DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError
from vinnow.store.tables import JUDGED, read_rows

PARENT = Path(__file__).parents[4]


def config_for(tmp_path, url, **changes):
    endpoint = {"base_url": url, "model": "gpt", "backoff_s": 0.01, "timeout_s": 5} | changes.pop("endpoint", {})
    files = tmp_path / "bench"
    values = {"answers": str(files / "model.jsonl"), "files": str(files), "endpoint": endpoint}
    return JudgeConfig.parse(values | changes)


def prefers_first(first, second):
    """The better one is the reference; Assistant 1 gets two points for its place."""
    return f"{(8 if 'reference' in first else 4) + 2} {8 if 'reference' in second else 4}\nsince"


def test_both_orders_are_asked_and_mapped_back(tmp_path):
    write_bench(tmp_path / "bench")
    with serving(default=judging(prefers_first)) as server:
        report = judge(config_for(tmp_path, server.url), str(tmp_path / "out"))
        assert len(server.requests) == 12
        again = judge(config_for(tmp_path, server.url), str(tmp_path / "out"))
        assert len(server.requests) == 12
    rows = read_rows(report.path, JUDGED).to_pylist()
    assert {(r["order"], r["score"], r["reference_score"]) for r in rows} == {
        ("reference_first", 4.0, 10.0),
        ("model_first", 6.0, 8.0),
    }
    assert sorted({r["sample"] for r in rows}) == list("012345")
    assert {(r["cluster"], r["task"]) for r in rows if r["sample"] in "14"} == {("001.jpg", "detail")}
    assert all(r["text"].endswith("since") and r["answer"] == f"model {r['sample']}" for r in rows)
    # a place's two points are in both orders, so that they do not tell: (4 + 6) / 2 of (10 + 8) / 2
    assert report.scores["all"]["relative"] == pytest.approx(100 * 5 / 9)
    assert report.by_order == {"reference_first": pytest.approx(40), "model_first": pytest.approx(75)}
    assert set(report.scores) == {"conv", "detail", "complex", "all"}
    assert (report.failed, again.requests, again.scores) == (0, 0, report.scores)
    assert {sides(b) for b in server.bodies} >= {("reference 2", "model 2"), ("model 2", "reference 2")}
    assert {b["temperature"] for b in server.bodies} == {0.0}
    saved = json.loads((tmp_path / "out" / "judged.json").read_text())
    assert server.url not in json.dumps(saved)


def test_a_prompt_has_the_released_order_of_parts(tmp_path):
    write_bench(tmp_path / "bench", 1, 1)
    (tmp_path / "rule.txt").write_text("MY RULE\n")
    with serving(default=says("5 5")) as server:
        judge(config_for(tmp_path, server.url, rule=str(tmp_path / "rule.txt")), str(tmp_path / "out"))
    system, user = next(b for b in server.bodies if sides(b)[0].startswith("ref"))["messages"]
    assert user["content"] == (
        "[Context]\nPicture 0.\n\n[Question]\nWhat of 0?\n\n[Assistant 1]\nreference 0\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nmodel 0\n\n[End of Assistant 2]\n\n[System]\nMY RULE\n\n"
    )
    assert system["role"] == "system"


def one_unread(first, second):
    return "I cannot say." if "2" in first else "8 4" if "reference" in first else "4 8"


def test_what_cannot_be_read_counts_for_nobody(tmp_path):
    write_bench(tmp_path / "bench")
    with serving(default=judging(one_unread)) as server:
        with pytest.raises(InputError, match="unread_scores 1"):
            judge(config_for(tmp_path, server.url), str(tmp_path / "out"))
        assert len(server.requests) == 12 + 2 * 2
        report = judge(config_for(tmp_path, server.url, max_refused=0.5), str(tmp_path / "out"))
        assert len(server.requests) == 12 + 2 * 2  # each of those texts was paid for, and is not again
    assert report.asked_again == 4
    assert (report.failed, report.reasons, report.questions) == (1, {"unread_scores": 1}, 6)
    assert report.scores["all"]["questions"] == 5
    assert report.scores["all"]["relative"] == pytest.approx(50)
    assert report.scores["complex"]["questions"] == 1  # questions 2 and 5
    lost = [r for r in read_rows(report.path, JUDGED).to_pylist() if r["reason"]]
    assert [(r["sample"], r["score"], r["text"]) for r in lost] == [("2", None, "I cannot say.")] * 2


def test_a_text_without_scores_is_asked_for_again_with_another_seed(tmp_path):
    """Here the third ask has scores; the same request would have had the same text, out of the cache."""
    write_bench(tmp_path / "bench")
    drawn = []

    def answer(handler, body):
        seed, (first, _) = body.get("seed"), sides(body)
        drawn.append((first, seed, body["temperature"]))
        unread = first == "reference 2" and seed in (None, 1)
        handler.send(
            200, json.dumps(completion("Both are fine." if unread else one_unread(first.replace("2", "1"), _))).encode()
        )

    with serving(default=answer) as server:
        report = judge(config_for(tmp_path, server.url), str(tmp_path / "out"))
        again = judge(config_for(tmp_path, server.url), str(tmp_path / "out"))
        assert len(server.requests) == 14
    assert [(s, t) for f, s, t in drawn if f == "reference 2"] == [(None, 0.0), (1, 0.2), (2, 0.2)]
    assert (report.failed, report.asked_again, again.asked_again, again.requests) == (0, 2, 2, 0)
    assert report.scores["all"]["relative"] == pytest.approx(50)


def test_the_official_way_has_minus_one_in_both_means(tmp_path):
    write_bench(tmp_path / "bench")
    with serving(default=judging(one_unread)) as server:
        report = judge(config_for(tmp_path, server.url, compat="official"), str(tmp_path / "out"))
        assert len(server.requests) == 6
        assert all(sides(b)[0].startswith("reference") for b in server.bodies)
        assert {b["temperature"] for b in server.bodies} == {0.2}
    told = report.scores["all"]
    assert (told["model"], told["reference"], told["questions"]) == ((5 * 4 - 1) / 6, (5 * 8 - 1) / 6, 6)
    assert told["relative"] == pytest.approx(100 * 19 / 39)
    assert report.scores["complex"]["relative"] == pytest.approx(100 * 3 / 7)
    assert (report.failed, report.reasons) == (1, {"unread_scores": 1})
    # in the table it is what it was: none
    assert [r["score"] for r in read_rows(report.path, JUDGED).to_pylist() if r["sample"] == "2"] == [None]


def test_an_answer_that_never_came_is_no_minus_one(tmp_path):
    write_bench(tmp_path / "bench")
    limits = {"max_tries": 1, "concurrency": 1}
    with serving(status(500), default=judging(prefers_first)) as server:
        config = config_for(tmp_path, server.url, compat="official", endpoint=limits)
        with pytest.raises(InputError, match=r"nothing at all of 1 questions, first 0 \(no_answer\)"):
            judge(config, str(tmp_path / "out"))
        assert not (tmp_path / "out" / "judged.json").exists()
        assert judge(config, str(tmp_path / "out")).failed == 0
        assert len(server.requests) == 7


def test_an_answer_that_the_model_lacks(tmp_path):
    answers = write_bench(tmp_path / "bench")
    write_lines(answers, [{"question_id": i, "text": f"model {i}"} for i in range(1, 6)])
    with serving(default=judging(prefers_first)) as server:
        with pytest.raises(InputError, match="lacks 1 answers, first to question 0"):
            judge(config_for(tmp_path, server.url, compat="official"), str(tmp_path / "official"))
        report = judge(config_for(tmp_path, server.url, max_refused=0.2), str(tmp_path / "out"))
        assert len(server.requests) == 10
    assert (report.reasons, report.scores["all"]["questions"]) == ({"unanswered": 1}, 5)


def test_a_cut_off_reason_has_its_scores_and_a_declined_one_has_none(tmp_path):
    write_bench(tmp_path / "bench", 2, 2)
    replies = [
        says("7 8\nbecau", finish="length"),
        *[says("8 7", finish="length")],
        says("8 8", finish="content_filter"),
    ]
    with serving(*replies, default=says("8 8")) as server:
        report = judge(
            config_for(tmp_path, server.url, max_refused=0.5, endpoint={"concurrency": 1}), str(tmp_path / "o")
        )
    assert report.reasons == {"content_filter": 1}
    assert (report.scores["all"]["model"], report.scores["all"]["questions"]) == (8.0, 1)


WORK = """
import sys
from vinnow.evaluate.judging.config import JudgeConfig
from vinnow.evaluate.judging.run import judge
endpoint = {"base_url": sys.argv[2], "model": "gpt", "concurrency": 3}
config = {"answers": sys.argv[1] + "/model.jsonl", "files": sys.argv[1], "endpoint": endpoint}
judge(JudgeConfig.parse(config), sys.argv[3])
"""


def test_a_kill_pays_nothing_twice(tmp_path):
    write_bench(tmp_path / "bench", 30, 10)
    with serving(default=says("8 9", wait=0.1)) as server:
        command = [sys.executable, "-c", WORK, str(tmp_path / "bench"), server.url, str(tmp_path / "out")]
        child = subprocess.Popen(command, cwd=PARENT, env=os.environ | {"PYTHONPATH": str(PARENT)})
        until = time.monotonic() + 120
        while len(server.requests) < 20 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        before = len(server.requests)
        assert 20 <= before < 60
        report = judge(config_for(tmp_path, server.url, endpoint={"concurrency": 3}), str(tmp_path / "out"))
        bodies = [json.dumps(b, sort_keys=True) for b in server.bodies]
        assert len(set(bodies)) == 60
        # what was under way at the kill, no more
        assert len(bodies) <= 63
        assert report.scores["all"]["questions"] == 30


def test_another_judgement_is_refused(tmp_path):
    answers = write_bench(tmp_path / "bench")
    with serving(default=judging(prefers_first)) as server:
        judge(config_for(tmp_path, server.url), str(tmp_path / "out"))
        for changes in ({"endpoint": {"model": "other"}}, {"compat": "official"}, {"temperature": 1.0}):
            with pytest.raises(KeyMismatchError, match="judged otherwise"):
                judge(config_for(tmp_path, server.url, **changes), str(tmp_path / "out"))
        write_lines(answers, [{"question_id": i, "text": "new"} for i in range(6)])
        with pytest.raises(KeyMismatchError, match="answers differ"):
            judge(config_for(tmp_path, server.url), str(tmp_path / "out"))
        assert len(server.requests) == 12


def test_files_that_do_not_fit(tmp_path):
    bench = tmp_path / "bench"
    config = config_for(tmp_path, "http://localhost:1")

    def refused(name, rows, kind, said):
        write_bench(bench)
        write_lines(bench / name, rows)
        with pytest.raises(kind, match=said):
            judge(config, str(tmp_path / "out"))

    one = {"question_id": 0, "text": "x"}
    refused("model.jsonl", [one, one], DuplicateRowsError, "question_id 0 is there twice")
    refused("model.jsonl", [{"question_id": 77, "text": "x"}], InputError, "no question of this benchmark, first '77'")
    refused("model.jsonl", [{"question_id": 0}], InputError, "line 1.*text")
    refused("answers_gpt4.jsonl", [one], MissingRowsError, "5 questions have no row there, first '1'")
    refused("context.jsonl", [], MissingRowsError, "3 pictures")
    refused("questions.jsonl", [], InputError, "no question")
    (bench / "questions.jsonl").unlink()
    with pytest.raises(InputError, match=r"there is no .*questions\.jsonl"):
        judge(config, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    answers = write_bench(tmp_path / "bench")
    with serving(default=judging(prefers_first)) as server:
        words = ["judge", answers, "--files", tmp_path / "bench", "--base-url", server.url, "--api-model", "gpt"]
        words = [*map(str, words), "--out", str(tmp_path / "out")]
        told = CliRunner().invoke(app, words)
        assert told.exit_code == 0, told.output
        assert "55.6" in told.output
        assert "with the model as Assistant 1 alone: 75.0" in told.output
        told = CliRunner().invoke(app, [*words, "--json"])
        assert json.loads(told.stdout)["requests"] == 0
        assert "official" in str(CliRunner().invoke(app, [*words, "--compat", "offical"]).exception)
