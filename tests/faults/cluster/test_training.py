"""A training of two workers on two nodes, one of which is lost: it goes on from its last state, to the same model."""

import json

import pytest
import torch
import yaml
from nodes import has_state
from vinnow.models.load import load
from vinnow.train.run import TrainReport

# each is a whole command or three, on a machine that may do much else
pytestmark = pytest.mark.timeout(900)
STEPS, STATES = 24, 4
TRAINING = {
    **{"parts": ["projector"], "global_batch": 8, "micro_batch": 4, "workers": 2, "lr": 1e-3, "max_len": 256},
    **{"max_steps": STEPS, "resume_steps": STATES},
}


@pytest.fixture(scope="module")
def recipe(tiny_pool, tiny_model, tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "train.yaml"
    file.write_text(yaml.safe_dump(TRAINING | {"model": tiny_model, "pool": tiny_pool}))
    return file


def steps(out):
    log = out / "log.jsonl"
    return [json.loads(row)["step"] for row in log.read_text().splitlines()] if log.exists() else []


def test_a_node_of_a_training_is_lost(nodes, recipe, tmp_path, account):
    nodes.have(2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    nodes.start("train", recipe, "--out", whole).end()
    nodes.idle()
    command = nodes.start("train", recipe, "--out", cut)
    # rank 0's node
    command.until(lambda: has_state(cut) and len(steps(cut)) > STATES)
    lost = nodes.node_of(json.loads((cut / "engine.json").read_text())["pid"])
    nodes.crash(lost)
    assert len(steps(cut)) < STEPS
    command.until(lambda: "a node is gone from the cluster; there is 2 nodes with 0 GPUs and 1 CPU" in command.said())
    nodes.add()
    command.until(lambda: "a node has come; there is 3 nodes with 0 GPUs and 2 CPUs in all now" in command.said())
    said = command.end()
    mine, other = TrainReport.read(str(cut)), TrainReport.read(str(whole))
    ((first, again),) = mine.restarts
    assert first % STATES == 0
    assert first >= STATES
    assert (
        f"cut off once (a worker, a node or the driver was lost): it went on after step {first}; {again} step" in said
    )
    assert steps(cut) == list(range(1, STEPS + 1))
    account("steps", steps(cut), STEPS, f"{again} steps")
    # the same float operations in the same order: equal to the last digit
    assert mine.curve == other.curve
    weights, others = (load(r.model).model.state_dict() for r in (mine, other))
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert other.restarts == []
    nodes.idle()
