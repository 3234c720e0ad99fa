"""Captions to records through a real endpoint on loopback: what is asked, kept, refused, paid, and what a kill leaves."""

import json
import os
import shlex
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from captions import CONVERSATION, DETAIL, REASONING, answer_of, answers, write_coco
from commands import vinnow_line
from endpoint import completion, says, serving, status
from house.test_readme import shell_lines
from typer.testing import CliRunner
from vinnow.evaluate.remote.client import EndpointError
from vinnow.evaluate.remote.limits import BudgetError
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.generate.config import GenerateConfig
from vinnow.pipelines.generate.run import foresee, generate
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError

ROOT = Path(__file__).parents[3]


def config_of(server, folder, n=20, **fields):
    captions, instances = write_coco(folder, n)
    endpoint = {"base_url": server.url, "model": "m", "backoff_s": 0.01} | fields.pop("endpoint", {})
    values = {"kind": "mix", "source": captions, "instances": instances, "endpoint": endpoint} | fields
    return GenerateConfig.parse(values)


def refused(out):
    return pq.read_table(f"{out}/refused.parquet").to_pylist()


def test_from_captions_to_a_pool(tmp_path):
    """End to end: what is written is what ingest takes, row for row, with its pictures."""
    out = str(tmp_path / "made")
    with serving(default=answers) as server:
        config = config_of(server, tmp_path, 158, max_refused=0)
        report = generate(config, out)
        assert len(server.requests) == 158
    assert report.kinds == {"conversation": 58, "detail": 23, "reasoning": 77}
    assert (report.reasons, report.told) == ({}, {})
    records = json.loads(Path(report.records).read_text())
    assert [r["image"] for r in records] == [f"{i:012d}.jpg" for i in range(158)]
    for record in records:
        first, *later = record["conversations"]
        assert first["value"].startswith("<image>\n")
        assert not any("<image>" in turn["value"] for turn in later)
    of_kind = {r["task"]: [t["value"] for t in r["conversations"]] for r in records}
    assert of_kind["conversation"] == ["<image>\nWhat is in the grass?", "A red ball.", "Who runs?", "A dog runs."]
    assert of_kind["detail"][1:] == [DETAIL]
    assert of_kind["reasoning"][0] == "<image>\nWhat will happen next?"

    write_pictures = tmp_path / "pictures"
    write_pictures.mkdir()
    write_coco(write_pictures, 158, pictures=True)
    root = str(write_pictures / "images")
    done = ingest(IngestConfig(source=report.records, image_root=root, max_refused=0), str(tmp_path / "pool"))
    assert (done.rows, done.refused) == (158, 0)
    pool = Pool(str(tmp_path / "pool"))
    assert Counter(pool.column("task")) == {"conversation": 58, "detail": 23, "reasoning": 77}
    assert pool.has_image().all()


def test_what_is_asked(tmp_path):
    with serving(default=answers) as server:
        generate(config_of(server, tmp_path, 1, kind="reasoning"), str(tmp_path / "made"))
        (body,) = server.bodies
    roles = [m["role"] for m in body["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert body["messages"][-1]["content"].endswith("seen 1.\n\ndog: [0.100, 0.300, 0.600, 0.800]")
    assert body["max_tokens"] == 1536


def test_a_second_run_pays_nothing_and_writes_the_same(tmp_path):
    out = tmp_path / "made"
    with serving(default=answers) as server:
        config = config_of(server, tmp_path)
        first = generate(config, str(out))
        before = {n: (out / n).read_bytes() for n in ("records.json", "refused.parquet")}
        generate(config, str(out))
        assert len(server.requests) == 20
        assert {n: (out / n).read_bytes() for n in before} == before
        # checks and the length of data may change: nothing is asked again
        again = generate(config.model_copy(update={"words": {"detail": (1, 5)}, "max_refused": 1.0}), str(out))
        assert len(server.requests) == 20
        assert again.reasons == {"wrong_length": first.kinds["detail"]}


def test_a_smaller_limit_takes_no_records_away(tmp_path):
    out = tmp_path / "made"
    with serving(default=answers) as server:
        config = config_of(server, tmp_path, limit=4)
        generate(config, str(out))
        before = (out / "records.json").read_bytes()
        fewer = config.model_copy(update={"limit": 2})
        for act in (generate, foresee):
            with pytest.raises(InputError, match=r"limit=2 is for fewer than the 4 prompts .*delete records.json"):
                act(fewer, str(out))
        assert (out / "records.json").read_bytes() == before
        (out / "records.json").unlink()
        assert sum(generate(fewer, str(out)).kinds.values()) == 2
        assert len(server.requests) == 4


def test_refused_answers_are_kept_with_their_texts(tmp_path):
    bad = [
        says("Half", finish="length"),
        says("no form at all"),
        says(REASONING.replace("ball", "ball (see the caption)")),
        says(REASONING.replace("What will", "At [0.123, 0.5, 0.6, 0.7], what will")),
        says(CONVERSATION),
        says("Question:\nWhy?\n===\nAnswer:\nSo."),
        status(400, "too long"),
    ]
    out = str(tmp_path / "made")
    with serving(*bad, default=answers) as server:
        config = config_of(server, tmp_path, 20, kind="reasoning", max_refused=0.5, endpoint={"concurrency": 1})
        report = generate(config, out)
        assert (report.kinds, sum(report.reasons.values())) == ({"reasoning": 13}, 7)
        rows = refused(out)
        assert [r["reason"] for r in rows] == [
            "cut_by_length",
            "bad_form",
            "talks_of_captions",
            "quotes_coordinates",
            "bad_form",
            "wrong_length",
            "bad_request",
        ]
        assert [r["text"] for r in rows][:2] == ["Half", "no form at all"]
        assert rows[4]["text"] == CONVERSATION
        assert "too long" in rows[6]["detail"]
        # only what has no answer is asked again
        report = generate(config, out)
        assert len(server.requests) == 21
        assert report.kinds == {"reasoning": 14}


def test_too_many_refused_is_an_error_and_leaves_no_records(tmp_path):
    out = tmp_path / "made"
    with serving(default=answers) as server:
        config = config_of(server, tmp_path, 10, kind="detail", max_refused=0.05)
        generate(config, str(out))
        with pytest.raises(InputError, match=r"100.0%|not one row"):
            generate(config.model_copy(update={"words": {"detail": (1, 2)}}), str(out))
    assert not (out / "records.json").exists()
    assert {r["reason"] for r in refused(out)} == {"wrong_length"}


def test_pictures_that_nothing_is_known_of_are_not_asked_about(tmp_path):
    rows = [{"image": f"{i}.jpg", "width": 9, "height": 9, "captions": [f"Dog {i}."] * (i != 3)} for i in range(9)]
    rows.append(7)
    (tmp_path / "t.json").write_text(json.dumps(rows))
    with serving(default=answers) as server:
        endpoint = {"base_url": server.url, "model": "m"}
        values = {"kind": "conversation", "source": str(tmp_path / "t.json"), "endpoint": endpoint, "max_refused": 0.2}
        report = generate(GenerateConfig.parse(values), str(tmp_path / "made"))
        assert len(server.requests) == 8
        assert report.reasons == {"no_captions": 1, "bad_subject": 1}
        with pytest.raises(InputError, match="shows the model boxes"):
            generate(GenerateConfig.parse(values | {"kind": "detail"}), str(tmp_path / "made"))


def test_what_ends_the_job_ends_it_soon(tmp_path):
    with serving(default=status(401, "bad key")) as server:
        with pytest.raises(EndpointError, match=r"401.*bad key"):
            generate(config_of(server, tmp_path, 200, endpoint={"concurrency": 4}), str(tmp_path / "made"))
        assert len(server.requests) <= 4
    assert not (tmp_path / "made" / "records.json").exists()


def test_a_cap_says_what_is_left_and_a_larger_one_goes_on(tmp_path):
    out = str(tmp_path / "made")

    def priced(handler, body):
        handler.send(200, json.dumps(completion(answer_of(body), usage=(0, 1))).encode())

    prices = {"price_out": 1e6, "concurrency": 2}
    with serving(default=priced) as server:
        capped = config_of(server, tmp_path, 40, endpoint=prices | {"max_cost": 20}, sampling={"max_tokens": 4})
        with pytest.raises(BudgetError, match=r"^(\d+) of 40 prompts are left\. .*max_cost=20") as raised:
            generate(capped, out)
        asked = len(server.requests)
        assert 15 <= asked <= 20
        assert int(str(raised.value).split()[0]) == 40 - asked
        more = config_of(server, tmp_path, 40, endpoint=prices | {"max_cost": 100}, sampling={"max_tokens": 4})
        report = generate(more, out)
        assert len(server.requests) == 40
        assert report.spent == 40


def command(server, folder, out, *more):
    return [
        *vinnow_line("generate", "mix", f"{folder}/captions.json"),
        *("--instances", f"{folder}/instances.json", "--base-url", server.url, "--model", "m", "--out", str(out)),
        *("--set", "endpoint.concurrency=4", *more),
    ]


def test_a_killed_run_goes_on_and_pays_nothing_twice(tmp_path):
    """The server counts: each prompt is asked once, but for those that were under way at a kill, and paid once.

    It honours `Idempotency-Key`: one that is known gets the answer that is there, or a 409 while it is being made.
    """
    write_coco(tmp_path, 60)
    kills, out = [8, 25], tmp_path / "made"
    paid, done = Counter(), set()

    def slow(handler, body):
        name, prompt = handler.headers["Idempotency-Key"], json.dumps(body["messages"])
        if paid[name, prompt] and name not in done:
            status(409)(handler, body)
            return
        if name not in done:
            paid[name, prompt] += 1
            time.sleep(0.05)
            done.add(name)
        answers(handler, body)

    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
    with serving(default=slow) as server:
        for kill in kills:
            child = subprocess.Popen(command(server, tmp_path, out), env=environment, cwd="/", stderr=subprocess.PIPE)
            until = time.monotonic() + 90
            while len(server.requests) < kill and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            assert not (out / "records.json").exists()
        done_run = subprocess.run(
            command(server, tmp_path, out), env=environment, cwd="/", capture_output=True, text=True
        )
        assert done_run.returncode == 0, done_run.stderr
        asked = Counter(json.dumps(b["messages"]) for b in server.bodies)
    assert len(asked) == 60
    assert {prompt for _, prompt in paid} == asked.keys()
    assert len(paid) == sum(paid.values()) == 60
    report = json.loads((out / "generate.json").read_text())
    assert 1 <= report["left_under_way"] <= 4
    assert report["left_under_way"] <= report["under_way"] <= 4 * len(kills)
    assert f"{report['left_under_way']} requests were under way when a run was killed" in done_run.stdout
    assert len(json.loads((out / "records.json").read_text())) == 60


def test_the_command_tells_and_refuses(tmp_path):
    write_coco(tmp_path, 20)
    source = [str(tmp_path / "captions.json"), "--instances", str(tmp_path / "instances.json"), "--out"]

    def run(*arguments):
        return CliRunner().invoke(app, ["generate", *map(str, arguments)])

    with serving(default=answers) as server:
        where = ["--base-url", server.url, "--model", "m"]
        price = ["--set", "endpoint.price_in=2", "--set", "endpoint.price_out=2"]
        dry = run("mix", *source, tmp_path / "dry", *where, *price, "--dry-run", "--mix", "conversation=1,detail=1")
        assert dry.exit_code == 0, dry.output
        assert "conversation 10, detail 10; 0 prompts are answered already" in dry.output
        assert "[system]\nYou look at one picture." in dry.output
        assert not (tmp_path / "dry").exists()
        assert not server.requests
        done = run("detail", *source, tmp_path / "made", *where, "--json", "--set", "limit=5")
        assert json.loads(done.stdout)["kinds"] == {"detail": 5}
        said = run("detail", *source, tmp_path / "made", *where).output
        assert "detail 20; 15 answers were asked for now" in said
        assert "20 rows used, none refused" in said
        for arguments, error in [
            (["detail", *source, tmp_path / "x", *where, "--mix", "detail=1"], "--mix is for"),
            (["mix", *source, tmp_path / "x", *where, "--mix", "detail"], "--mix wants"),
            (["mix", *source, tmp_path / "x", *where, "--mix", "detale=1"], "mix.detale"),
            (["mixed", *source, tmp_path / "x", *where], "kind"),
            (["mix", *source, tmp_path / "x", "--model", "m"], "base_url"),
            (["mix", *source, tmp_path, *where], "lies in the output folder"),
            (["mix", *source, tmp_path / "x", *where, "--api-key-env", "sk-KEY"], "NAME of an environment variable"),
        ]:
            result = run(*arguments)
            assert isinstance(result.exception, InputError), result.output
            assert error in str(result.exception)
            assert "sk-KEY" not in str(result.exception)


def test_the_readme_command_runs(tmp_path):
    """The README's own line, with the port of the test's endpoint."""
    (line,) = [x for x in shell_lines((ROOT / "README.md").read_text()) if x.startswith("vinnow generate")]
    write_coco(tmp_path, 8)
    with serving(default=answers) as server:
        words = [server.url if w == "http://127.0.0.1:8000/v1" else w for w in shlex.split(line)[1:]]
        assert server.url in words
        environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
        ran = subprocess.run(vinnow_line(*words), cwd=tmp_path, env=environment, capture_output=True)
        assert ran.returncode == 0, ran.stderr
        assert len(server.requests) == 8
    assert len(json.loads((tmp_path / "generated" / "records.json").read_text())) == 8
