"""An endpoint instead of a loaded model: what it is sent, that answers are scored alike, and that none is paid twice."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from endpoint import completion, says, serving, status
from pictures import make_records, write_records
from PIL import ExifTags, Image, ImageOps
from typer.testing import CliRunner
from vinnow.evaluate.benchmark import fair_score
from vinnow.evaluate.registry import find
from vinnow.evaluate.remote import pictures as sent_pictures
from vinnow.evaluate.remote.evaluation import RemoteEvalConfig, evaluate_remote
from vinnow.evaluate.remote.pictures import data_uri
from vinnow.evaluate.remote.reply import Question
from vinnow.pipelines.cli.main import app
from vinnow.pool.images import load_image, read_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.pool.refusals import ImageError
from vinnow.store.errors import InputError, KeyMismatchError
from vinnow.store.refusals import read_refused
from vinnow.store.tables import EVALS, read_rows

PARENT = Path(__file__).parents[4]


def config_for(pool, url, **changes):
    endpoint = {"base_url": url, "model": "m", "backoff_s": 0.01, "timeout_s": 5} | changes.pop("endpoint", {})
    return RemoteEvalConfig.parse({"pool": pool, "rows_per_part": 16, "endpoint": endpoint} | changes)


def asked(body):
    """Return (question's text, its data URIs) of a request."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content, []
    texts = [p["text"] for p in content if p["type"] == "text"]
    return " ".join(texts), [p["image_url"]["url"] for p in content if p["type"] == "image_url"]


def test_rows_are_those_of_any_evaluation_and_a_second_run_asks_nothing(tiny_pool, tmp_path):
    pool = Pool(tiny_pool)
    records = pool.take(pool.ids())
    wanted = {}
    for r in records:
        text = r.conversations[0]["value"].replace("<image>", "").strip()
        images = [
            f"data:image/png;base64,{base64.b64encode(read_image(pool.image_root, i)).decode()}" for i in r.images
        ]
        wanted[str(r.sample_id)] = (text, images)

    def answer(handler, body):
        time.sleep(0.02)
        handler.send(200, json.dumps(completion(f" {asked(body)[0].split()[0]} ")).encode())

    with serving(default=answer) as server:
        report = evaluate_remote(config_for(tiny_pool, server.url), str(tmp_path / "out"))
        assert 1 < server.most <= 16
        n = len(server.requests)
        again = evaluate_remote(config_for(tiny_pool, server.url), str(tmp_path / "out"))
        assert len(server.requests) == n
        (tmp_path / "out" / "evals.json").unlink()
        for part in (tmp_path / "out" / "answers").glob("*.parquet"):
            part.unlink()
        redone = evaluate_remote(config_for(tiny_pool, server.url), str(tmp_path / "out"))
        assert len(server.requests) == n  # all of it out of the cache
    table = read_rows(report.path, EVALS)
    assert [int(s) for s in table["sample"].to_pylist()] == pool.ids().tolist()
    assert set(table["run"].to_pylist()) == {"openai:m"}
    benchmark = find("exact_match")
    for row, record in zip(table.to_pylist(), records, strict=True):
        assert row["answer"] == wanted[row["sample"]][0].split()[0]
        assert row["score"] == fair_score(benchmark, row["answer"], record)
        assert (row["task"], row["reference"]) == (record.task, record.conversations[1]["value"])
    assert {json.dumps(asked(b)) for b in server.bodies} == {json.dumps(list(w)) for w in wanted.values()}
    for body in server.bodies:
        assert (body["model"], body["temperature"], body["max_tokens"], len(body["messages"])) == ("m", 0.0, 8, 1)
    assert (report.rows, report.refused, report.parts, again.parts, again.skipped_parts) == (60, 0, 4, 0, 4)
    assert (redone.accuracy, redone.by_task) == (report.accuracy, report.by_task)
    assert report.key["engine"] == "openai"
    assert server.url not in json.dumps(report.key)


def test_another_model_or_setting_is_refused_and_another_host_is_not(tiny_pool, tmp_path):
    with serving() as server:
        evaluate_remote(config_for(tiny_pool, server.url), str(tmp_path))
        for changes in ({"endpoint": {"model": "n"}}, {"max_new_tokens": 9}, {"endpoint": {"extra": {"top_k": 1}}}):
            with pytest.raises(KeyMismatchError, match="made otherwise"):
                evaluate_remote(config_for(tiny_pool, server.url, **changes), str(tmp_path))
    with serving() as moved:
        evaluate_remote(config_for(tiny_pool, moved.url), str(tmp_path))
        assert moved.requests == []


def test_what_is_no_answer_is_listed_and_counts_as_wrong(tiny_pool, tmp_path):
    answers = [
        says("cut off here", finish="length"),  # an answer, as a local model's that reached its length
        says("", finish="length"),
        says("no.", finish="content_filter"),
        says(""),
        status(400, "too long"),
        *[status(500)] * 2,
    ]
    with serving(*answers) as server:
        config = config_for(
            tiny_pool, server.url, max_refused=0.2, endpoint={"concurrency": 1, "max_tries": 2, "extra": {}}
        )
        report = evaluate_remote(config, str(tmp_path))
        assert report.reasons == {"cut_by_length": 1, "content_filter": 1, "bad_request": 1, "no_answer": 1}
        table = read_rows(report.path, EVALS)
        assert (report.rows, report.refused, table.num_rows) == (60, 4, 60)
        assert table["answer"].to_pylist().count("cut off here") == 1
        rows = {r["reason"]: r for r in read_refused(str(tmp_path), "answers").to_pylist()}
        assert "too long" in rows["bad_request"]["detail"]
        scores = dict(zip(table["sample"].to_pylist(), table["score"].to_pylist(), strict=True))
        assert [scores[str(r["sample_id"])] for r in rows.values()] == [0.0] * 4
        n = len(server.requests)
        again = evaluate_remote(config, str(tmp_path))
        # the shard of the row that no try brought is done again; answers that came, whatever they are, are not asked again
        assert n < len(server.requests) <= n + 2
        assert again.reasons == {"cut_by_length": 1, "content_filter": 1}


def test_too_many_refusals_fail(tiny_pool, tmp_path):
    with serving(default=says("x", finish="content_filter")) as server, pytest.raises(InputError, match="not one row"):
        evaluate_remote(config_for(tiny_pool, server.url), str(tmp_path))


ENDLESS = """
import sys
from vinnow.evaluate.remote.evaluation import RemoteEvalConfig, evaluate_remote
endpoint = {"base_url": sys.argv[2], "model": "m", "concurrency": 4}
evaluate_remote(RemoteEvalConfig.parse({"pool": sys.argv[1], "endpoint": endpoint}), sys.argv[3])
"""


def test_a_kill_pays_nothing_twice(tiny_pool, tmp_path):
    out = str(tmp_path / "out")
    with serving(default=says("red", wait=0.1)) as server:
        command = [sys.executable, "-c", ENDLESS, tiny_pool, server.url, out]
        child = subprocess.Popen(command, cwd=PARENT, env=os.environ | {"PYTHONPATH": str(PARENT)})
        until = time.monotonic() + 120
        while len(server.requests) < 20 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        before = len(server.requests)
        assert before >= 20
        assert not (tmp_path / "out" / "evals.parquet").exists()
        config = RemoteEvalConfig.parse(
            {"pool": tiny_pool, "endpoint": {"base_url": server.url, "model": "m", "concurrency": 4}}
        )
        assert evaluate_remote(config, out).rows == 60
        bodies = [json.dumps(b, sort_keys=True) for b in server.bodies]
        # only what was under way at the kill was sent again
        assert len(bodies) - len(set(bodies)) <= 4
        assert len(bodies) < before + len(set(bodies))


def test_a_question_keeps_its_order():
    uris = ("data:image/png;base64,A", "data:image/png;base64,B")
    parts = Question("user", "<image>\nIs it <image>, or not?", uris).plain()["content"]
    kinds = [p.get("text") or p["image_url"]["url"][-1] for p in parts]
    assert kinds == ["A", "Is it", "B", ", or not?"]
    assert Question("user", "Why?").plain() == {"role": "user", "content": "Why?"}
    with pytest.raises(InputError, match="1 marks"):
        Question("user", "<image> Is it?", uris).plain()


def test_a_picture_goes_as_it_is_or_as_png(tmp_path, monkeypatch):
    picture = Image.new("RGB", (9, 7), (200, 30, 40))
    for name in ("a.jpg", "a.png", "a.webp", "a.bmp"):
        picture.save(tmp_path / name)
    for name, kind in (("a.jpg", "jpeg"), ("a.png", "png"), ("a.webp", "webp")):
        data = base64.b64encode((tmp_path / name).read_bytes()).decode()
        assert data_uri(str(tmp_path), name) == f"data:image/{kind};base64,{data}"
    head, data = data_uri(str(tmp_path), "a.bmp").split(",")
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (head, shown.format, shown.getpixel((1, 1))) == ("data:image/png;base64", "PNG", (200, 30, 40))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    with pytest.raises(ImageError) as cut:
        data_uri(str(tmp_path), "cut.jpg")
    assert cut.value.reason in ("image_truncated", "image_unreadable")
    monkeypatch.setattr(sent_pictures, "MAX_SENT", 50)
    with pytest.raises(ImageError, match="over 50"):
        data_uri(str(tmp_path), "a.bmp")


@pytest.mark.parametrize("pictures", ["white", "black", "published"])
def test_an_endpoint_sees_what_a_local_model_sees(tmp_path, pictures):
    """Whether it heeds EXIF or not: a photograph on its side, transparent parts, 16 bits, a palette."""
    rng = np.random.default_rng(0)
    pixels_HW3 = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
    picture, exif = Image.fromarray(pixels_HW3), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    alpha = Image.fromarray(rng.integers(0, 255, (8, 12), dtype=np.uint8))
    Image.merge("RGBA", (*picture.split(), alpha)).save(tmp_path / "clear.png")
    Image.fromarray(rng.integers(0, 65535, (8, 12), dtype=np.uint16)).save(tmp_path / "deep.png")
    picture.convert("P").save(tmp_path / "palette.png", transparency=3)
    picture.save(tmp_path / "plain.png")
    for name in ("turned.jpg", "clear.png", "deep.png", "palette.png", "plain.png"):
        local = load_image(str(tmp_path), name, pictures=pictures)
        sent = Image.open(io.BytesIO(base64.b64decode(data_uri(str(tmp_path), name, pictures=pictures).split(",")[1])))
        for there in (sent.convert("RGB"), ImageOps.exif_transpose(sent).convert("RGB")):
            assert (there.size, there.tobytes()) == (local.size, local.tobytes()), name
    assert load_image(str(tmp_path), "turned.jpg", pictures=pictures).size == (
        (12, 8) if pictures == "published" else (8, 12)
    )


def test_a_record_s_own_system_prompt_is_sent(tmp_path):
    records, pictures = make_records(4)
    for record in records:
        record["system"] = "Answer in French."
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    with serving() as server:
        evaluate_remote(config_for(str(tmp_path / "pool"), server.url), str(tmp_path / "out"))
    systems = {json.dumps(b["messages"][0]) for b in server.bodies}
    assert systems == {json.dumps({"role": "system", "content": "Answer in French."})}


def run(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_the_command(tiny_pool, tmp_path):
    with serving() as server:
        options = ["--pool", tiny_pool, "--out", tmp_path / "out", "--engine", "openai", "--base-url", server.url]
        told = run(*options, "--api-model", "m", "--set", "endpoint.concurrency=2", "--json")
        assert told.exit_code == 0, told.output
        assert json.loads(told.stdout)["rows"] == 60
        assert server.most <= 2


HERE = ["--engine", "openai", "--base-url", "http://localhost:1", "--api-model", "m"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*HERE, "--model", "x"], "one of them"),
        (HERE[:4], "--api-model"),
        (["--model", "x", "--api-model", "m"], "only --engine openai"),
        (["--engine", "opnai", "--model", "x"], "did you mean 'openai'"),
        ([], "give --model FOLDER"),
        (["--engine", "openai", "--base-url", "http://h.org/v1", "--api-model", "m"], "plain http"),
        ([*HERE, "--gpus", "1"], "its own"),
        ([*HERE, "--benchmark", "imbalance"], "attention"),
        ([*HERE, "--set", "endpoint.model=n"], "give it once"),
        ([*HERE, "--set", "precision=float32"], "unknown field 'precision'"),
    ],
)
def test_options_that_do_not_go_together(tiny_pool, tmp_path, words, said):
    told = run("--pool", tiny_pool, "--out", tmp_path / "out", *words)
    assert told.exit_code != 0
    assert said in str(told.exception)
    assert not (tmp_path / "out").exists()
