"""Two drivers on one output: the second is refused with who holds it, before it computes; a dead one holds nothing."""

import json
import subprocess

import psutil
import pytest
import yaml
from captions import write_coco
from commands import python_line
from endpoint import says, serving
from foreign import one_line, vinnow
from nodes import Command, until
from vinnow.store.lock import LOCK

# each is a whole command or three, on a machine that may do much else
pytestmark = pytest.mark.timeout(900)
TRAINING = {"parts": ["projector"], "global_batch": 8, "micro_batch": 8, "max_len": 256, "max_steps": 2}
STAGES = {"features": "features gradient", "train": "train", "evaluate": "evaluate answers", "run": "run"}


@pytest.fixture
def lines(tiny_pool, tiny_model, tmp_path):
    """A command line of each that writes for long, by name, and the folder that it holds."""
    out = tmp_path / "out"
    training = TRAINING | {"model": tiny_model, "pool": tiny_pool}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(training))
    (tmp_path / "run.yaml").write_text(
        json.dumps(
            {
                **{n: {"source": f"{tmp_path}/records.json", "image_root": None} for n in ("pool", "test")},
                **{"out": str(out), "model": {"twin": {}}, "selectors": [{"name": "random"}], "budgets": ["50%"]},
                "finetune": TRAINING,
            }
        )
    )
    talk = [{"from": ("human", "gpt")[i % 2], "value": f"word {i}"} for i in range(2)]
    (tmp_path / "records.json").write_text(json.dumps([{"conversations": talk, "id": i} for i in range(99)]))
    pooled = ["--pool", tiny_pool]
    return {
        "features": (["features", *pooled, "--checkpoint", f"1={tiny_model}", "--out", out], out / "gradient"),
        "train": (["train", tmp_path / "train.yaml", "--out", out], out),
        "evaluate": (["evaluate", *pooled, "--model", tiny_model, "--out", out], out),
        "run": (["run", tmp_path / "run.yaml"], out),
    }


def refused(line, folder, holder, stage):
    """Hold a second driver to its law, and return what it said."""
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    said = one_line(vinnow(*line), folder)
    assert f"is being written by {stage!r} (process {holder.pid} on " in said
    assert f": vinnow {line[0]} " in said
    assert said.endswith("Wait for it, or name another output folder.")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    return said


@pytest.mark.parametrize("name", STAGES)
def test_the_second_of_two_commands_is_refused(nodes, lines, name, monkeypatch):
    """The first is frozen while it holds the folder; then it is killed, and its lock holds nobody up."""
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("the second one wanted Ray"))
    nodes.have(1)
    line, folder = lines[name]
    first = nodes.start(*line)
    first.until(lambda: (folder / LOCK).exists() and (folder / LOCK).read_text().endswith("}"))
    driver = psutil.Process(json.loads((folder / LOCK).read_text())["pid"])
    driver.suspend()
    until(lambda: driver.status() == psutil.STATUS_STOPPED)
    refused(line, folder, driver, STAGES[name])
    first.kill()
    if name == "run":
        assert nodes.start(*line).end()
    nodes.idle()


def test_the_second_of_two_that_ask_an_endpoint_is_refused(tmp_path):
    """`generate` would pay twice for the same answers."""
    captions, _ = write_coco(tmp_path, 3)
    out = tmp_path / "made"
    line = ["generate", "conversation", captions, "--model", "m", "--out", out, "--base-url"]
    with serving(default=says("Hello.", wait=3600)) as server:
        first = Command([*line, server.url], {})
        first.until(lambda: len(server.requests) == 3)
        holder = psutil.Process(json.loads((out / LOCK).read_text())["pid"])
        refused([*line, server.url], out, holder, "generate")
        assert len(server.requests) == 3
        first.kill()


def test_a_second_select_is_refused_while_one_writes(tiny_pool, tmp_path):
    """It is done in a moment, so what holds the folder here only holds it."""
    out = tmp_path / "out"
    code = f"""
import sys
from vinnow.store.claim import claim
sys.argv = ["vinnow", "select", "--out", {str(out)!r}]
with claim({str(out)!r}, "select"):
    print("held", flush=True)
    sys.stdin.read()
"""
    held = [*python_line(), "-c", code]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        line = ["select", "--pool", tiny_pool, "--selector", "random", "--budget", "20%", "--out", out]
        refused(line, out, psutil.Process(json.loads((out / LOCK).read_text())["pid"]), "select")
        first.stdin.close()
    assert vinnow(*line).code == 0
