"""Ray Train's trainer as a training here needs it: Ctrl-C is its caller's, and processes without work are not started."""

from typing import Any

from ray._private import worker
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from .cleaner import Cleaner


class Trainer(TorchTrainer):
    """Ray Train's, with our workers' rows from `data.py`: it is handed no datasets."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Leave Ctrl-C to whoever runs it: Ray's own handler waits for workers, and ends with 0."""

    def _create_default_callbacks(self) -> list[Any]:
        """Return Ray's own but for those whose process would only cost its start, three seconds of a CPU each."""
        replaced: tuple[type[Any], ...] = (DatasetsCallback, PlacementGroupCleanerCallback)
        callbacks = [c for c in super()._create_default_callbacks() if not isinstance(c, replaced)]
        return [*callbacks, Cleaner()] if _can_ask_for_actors() else callbacks


def _can_ask_for_actors() -> bool:
    """Say whether there is a dashboard to ask whether a controller lives, which the cleaner does; unless known, yes."""
    node: Any = worker._global_node
    return node is None or not node.head or bool(node.webui_url)
