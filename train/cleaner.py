"""What frees the workers of a training whose driver is gone. Ray's controller imports it, so it loads no torch."""

from typing import Any

import ray
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner


class Cleaner(PlacementGroupCleanerCallback):
    """Frees what a dead training's workers held, as Ray's own does, but asks this cluster whether that training lives.

    Ray's asks the newest Ray on the machine: with two of them it takes a living training for a dead one, and its workers
    are killed.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Start the process that looks, on the head; it outlives the training."""
        context = ray.get_runtime_context()
        self._controller_actor_id = context.get_actor_id()
        here = {"env_vars": {"RAY_ADDRESS": context.gcs_address}}
        cleaner: Any = (
            ray.remote(PlacementGroupCleaner)
            .options(
                num_cpus=0,
                lifetime="detached",
                resources={HEAD_NODE_RESOURCE_NAME: 0.001},
                scheduling_strategy="DEFAULT",  # not in the placement group of the trial that the training is of
                runtime_env=here,
            )
            .remote(
                controller_actor_id=self._controller_actor_id,
                check_interval_s=self._check_interval_s,
                get_actor_timeout_s=self._get_actor_timeout_s,
                stop_timeout=self._stop_timeout,
            )
        )
        cleaner.start_monitoring.remote()
        self._cleaner = cleaner
