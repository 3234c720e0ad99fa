"""Connecting to Ray: the cluster that is there, or a small local one."""

import os
from typing import Any

from pydantic import Field

from ..store.config import Config
from ..store.errors import InputError


class RayConfig(Config):
    """Where to run. `address`: None starts a local Ray unless `RAY_ADDRESS` names a cluster; `auto` needs one.

    `num_cpus` is how many CPUs the local Ray may hand out (None: all); `object_store_mb` its shared memory.
    """

    address: str | None = None
    num_cpus: int | None = Field(None, ge=1)
    num_gpus: int | None = Field(None, ge=0)
    object_store_mb: int = Field(1000, ge=80)
    dashboard: bool = True


def ensure_ray(config: RayConfig) -> None:
    """Connect once; later calls in the same process do nothing. The dashboard binds to loopback.

    Raises:
        InputError: the named cluster cannot be reached.
    """
    import ray

    quiet()
    if ray.is_initialized():
        return
    # Train's controller polls every 2 s by default, and each report waits for it
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    address = config.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address:
        try:
            ray.init(address=address, **options)
        except ConnectionError as error:
            raise InputError(
                f"no Ray cluster at {address!r}: {error}. Start one, or leave ray.address empty."
            ) from error
        return
    ray.init(
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        object_store_memory=config.object_store_mb * 1_000_000,
        # Tune needs it: without a dashboard a stopped trial keeps its placement group (spec: Ray §3)
        include_dashboard=config.dashboard,
        dashboard_host="127.0.0.1",
        **options,
    )


def quiet() -> None:
    """Leave progress to our own bars and errors to our own words.

    Ray Data would log a block of lines every ten seconds, and what an actor raised with all its wrapping; we raise the
    same, and keep its trace in a file (`pool.py`).
    """
    import logging

    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # else an actor's error comes inside one of Ray's, and what it was is lost on the way to the driver
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
