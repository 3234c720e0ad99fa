"""Where Ray Train's workers begin.

Apart from the loop: Ray's controller of a training imports what it hands to them, and would load torch and all model
classes before it starts the first.
"""

from typing import Any

from ..store.importing import uncollected
from ..store.meters import export_to


def worker_loop(values: dict[str, Any]) -> None:
    """Run one of Ray Train's workers, with plain values. Raises: as `loop.run_worker`."""
    from ray.util import metrics

    export_to(metrics)
    with uncollected():
        import deepspeed  # noqa: F401

        from .config import TrainConfig
        from .loop import run_worker
        from .session import RaySession

    run_worker(TrainConfig.parse(values["config"]), str(values["out"]), RaySession())
