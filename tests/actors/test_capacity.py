"""What nobody can give is refused before anything waits for it."""

import logging

import pytest
from vinnow.actors import capacity
from vinnow.actors.capacity import Node, Share, fits, require, startable
from vinnow.actors.pool import Flow, Workers, run_shards
from vinnow.store.errors import InputError


class Never:
    """An actor that is never made."""

    def __call__(self, row):
        return row


def test_shares_must_lie_on_single_nodes():
    assert fits([Share(2, 1, 1)], [Node(2, 1), Node(2, 1)])
    assert not fits([Share(1, 1, 2)], [Node(2, 1), Node(2, 1)])  # two GPUs, on no node together
    assert not fits([Share(3, 1)], [Node(2, 0)])
    assert fits([Share(4, 0.5)], [Node(2, 0)])
    assert fits([Share(1, 8), Share(1, 1, 1)], [Node(8, 0), Node(1, 1)])
    assert fits([Share(0, 9, 9)], [])


def test_a_cluster_that_never_can_says_so(ray_cluster):
    with pytest.raises(
        InputError, match=r"asks for 8 × \(1 GPU, 1 CPU\); there is 1 node with 0 GPUs and .*nothing that"
    ):
        require("training x", [Share(8, 1, 1)], "Set fewer workers.")
    with pytest.raises(InputError, match=r"1000 CPUs.*Set fewer"):
        require("training x", [Share(1, 1000)], "Set fewer workers.")
    require("training x", [Share(1, 1)], "")


def test_a_stage_asks_before_it_waits(ray_cluster, tmp_path):
    flow = Flow("features loss", str(tmp_path), "loss")
    rows = run_shards([{"part": "a", "place": "row 0"}], [Workers(Never, gpus=1)], flow)
    with pytest.raises(InputError, match=r"features loss asks for 1 × \(1 GPU, 1 CPU\)"):
        next(rows)


def test_an_autoscaler_counts_and_is_waited_for(ray_cluster, monkeypatch, caplog):
    monkeypatch.setattr(capacity, "startable", lambda: [Node(16, 1, "gpu_l40s")] * 8)
    with caplog.at_level(logging.WARNING):
        require("training x", [Share(8, 1, 1)], "")
    assert "training x waits for 8 × (1 GPU, 1 CPU), since " in caplog.text
    assert "the autoscaler may start gpu_l40s" in caplog.text
    with pytest.raises(InputError, match="brings at most 8 nodes with 8 GPUs"):
        require("training x", [Share(9, 1, 1)], "")


def test_what_an_autoscaler_may_start_is_read_from_its_config(tmp_path, monkeypatch):
    monkeypatch.setattr(capacity, "_is_ours", lambda: False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = tmp_path / "ray_bootstrap_config.yaml"
    assert startable(path) == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert startable(path) is None
    path.write_text(
        "max_workers: 3\nhead_node_type: head\navailable_node_types:\n"
        "  head: {resources: {CPU: 8}, max_workers: 9}\n"
        "  gpu: {resources: {CPU: 16, GPU: 1}, max_workers: 8}\n"
    )
    assert startable(path) == [Node(16, 1, "gpu")] * 3
    path.write_text("[1, 2]")
    assert startable(path) is None
    monkeypatch.setattr(capacity, "_is_ours", lambda: True)
    assert startable(path) == []
