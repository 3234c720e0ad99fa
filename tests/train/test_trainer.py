"""Ray Train without the processes that would have nothing to do."""

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.callbacks import BackendSetupCallback, DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from vinnow.train import trainer


def callbacks():
    ours = trainer.Trainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))
    return [type(c) for c in ours._create_default_callbacks()]


@pytest.mark.parametrize("dashboard", [True, False])
def test_a_cleaner_that_could_ask_nobody_is_not_started(ray_cluster, monkeypatch, dashboard):
    if dashboard:
        monkeypatch.setattr(trainer.worker._global_node, "_webui_url", "127.0.0.1:8265")
    kinds = callbacks()
    assert (trainer.Cleaner in kinds) == dashboard
    assert PlacementGroupCleanerCallback not in kinds
    assert DatasetsCallback not in kinds
    assert BackendSetupCallback in kinds


def test_a_cluster_elsewhere_keeps_its_cleaner(monkeypatch):
    monkeypatch.setattr(trainer.worker, "_global_node", None)
    assert trainer.Cleaner in callbacks()
