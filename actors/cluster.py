"""Connecting to Ray: the cluster that is there, or a small local one, which listens on loopback and asks for a token."""

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from ..store.config import Config
from ..store.errors import InputError
from .forks.start import forked_workers
from .node_watch import watch_nodes
from .surroundings import Kills, check_surroundings, not_started


class RayConfig(Config):
    """Where to run: a cluster, or a local Ray."""

    address: str | None = Field(
        None,
        description="The cluster; null: a local Ray, unless RAY_ADDRESS names a cluster; `auto`: the one that is "
        "there.",
    )
    num_cpus: int | None = Field(None, ge=1, description="CPUs that the local Ray may hand out; null: all.")
    num_gpus: int | None = Field(None, ge=0, description="GPUs that it may; null: all.")
    object_store_mb: int = Field(1000, ge=80, description="Its shared memory in MB.")
    dashboard: bool = Field(True, description="Start its dashboard.")
    fork: bool | None = Field(
        None,
        description="Fork its worker processes from one that has imported their libraries: each starts in 1 s, not 6; "
        "null: where this machine has no GPU, which no fork of a process may use that has seen it.",
    )


# what a command line wants done before Ray is started or joined, and when it is gone; a library's user has none
before_start: list[Callable[[], None]] = []
when_lost: list[Callable[[str], None]] = []
# seconds between looks, and how long a cluster elsewhere may be silent: as long as Ray's own clients wait for it
_LOOK, _SILENT = 2.0, 45.0


def ensure_ray(config: RayConfig) -> None:
    """Connect once; later calls in the same process do nothing. A named cluster takes the caller's own token settings.

    Raises:
        InputError: the named cluster cannot be reached, or the local one's token cannot be written.
        VinnowError: the local one does not start, or could not go on: no room, too few files, processes or memory.
    """
    import ray

    quiet()
    if ray.is_initialized():
        return
    for call in before_start:
        call()
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
        _watch(_silent_cluster(ray.get_runtime_context().gcs_address))
        watch_nodes()
        return
    _keep_to_loopback()
    if os.environ.get("RAY_AUTH_MODE", "token").lower() == "token":
        keep_token(Path.home() / ".ray" / "auth_token")
    check_surroundings()
    # a process of each training that would look whether nodes are taken away: there is this one alone
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        with forked_workers(config.fork):
            ray.init(
                # without it Ray would join whatever cluster a file in /tmp names
                address="local",
                num_cpus=config.num_cpus,
                num_gpus=config.num_gpus,
                object_store_memory=config.object_store_mb * 1_000_000,
                # without it nobody frees the CPUs of a training inside a trial whose process is killed (spec: Ray §3)
                include_dashboard=config.dashboard,
                dashboard_host="127.0.0.1",
                **options,
            )
    except Exception as error:  # of a daemon that does not come up Ray raises no narrower class
        raise not_started(error) from error
    _watch(_dead_daemons())


def _watch(looks: Iterator[str]) -> None:
    """Tell `when_lost` of the first fault that `looks` yields ("" is none): a driver would wait for long."""

    def watch() -> None:
        import ray

        for fault in looks:
            if not ray.is_initialized():
                return
            if fault:
                for call in when_lost:
                    call(fault)
                return
            time.sleep(_LOOK)

    if when_lost:
        threading.Thread(target=watch, name="ray-watch", daemon=True).start()


def _dead_daemons() -> Iterator[str]:
    """Look at the daemons of the Ray that this process has started."""
    from ray._private import worker

    node: Any = worker._global_node
    logs = node.get_logs_dir_path()
    processes: dict[str, list[Any]] = node.all_processes
    started = {kind: [i.process for i in of] for kind, of in processes.items()}
    daemons = {kind: started.get(kind, []) for kind in ("gcs_server", "raylet")}
    kills = Kills(os.path.join(logs, "raylet.out"))
    while True:
        dead = [kind for kind, of in daemons.items() if any(p.poll() is not None for p in of)]
        yield f"Ray's {dead[0]} has ended (its logs: {logs})." if dead else kills.fault(time.monotonic())


def _silent_cluster(address: str) -> Iterator[str]:
    """Look whether a cluster's GCS takes connections."""
    host, _, port = address.rpartition(":")
    heard = time.monotonic()
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK).close()
            heard = time.monotonic()
        except OSError:
            pass
        silent = time.monotonic() - heard
        yield f"Ray's cluster at {address} has not answered for {silent:.0f} s." if silent > _SILENT else ""


def _keep_to_loopback() -> None:
    """Have a local Ray take 127.0.0.1 as its address: else all of its ports but the dashboard's are open to the net.

    Ray replaces a `_node_ip_address` of 127.0.0.1 by the outer one; this is its own switch, on by default where it has no
    multi-node clusters.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def keep_token(path: Path) -> None:
    """Make the token that Ray reads from `path` if there is none, and have nobody else read it: Ray would write it for all.

    A token that the environment names (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH) is left to whoever made it.

    Raises:
        InputError: it cannot be written.
    """
    from ray._private.authentication.authentication_token_generator import generate_new_authentication_token

    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    own = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with open(os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as sink:
                sink.write(generate_new_authentication_token())
            try:
                os.link(own, path)  # whole, and only if no other run was first
            except FileExistsError:
                pass
            finally:
                own.unlink()
        status = path.stat()
        if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise InputError(
            f"Ray's token cannot be kept in {str(path)!r}: {error}. Set RAY_AUTH_TOKEN_PATH to a file that only you read."
        ) from error


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
