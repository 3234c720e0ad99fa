"""Nodes that come and go under a driver, told as it happens: a run that waits for another one looks idle else."""

import logging
import threading
import time

from .capacity import connected, describe

# heard on stderr by whoever sets up no logging
log = logging.getLogger("vinnow.nodes")
# s between looks
_LOOK = 2.0


def watch_nodes() -> None:
    """Tell of every node of the connected cluster that comes or goes, until Ray is shut down."""
    threading.Thread(target=_watch, name="node-watch", daemon=True).start()


def _watch() -> None:
    import ray

    before: set[str] | None = None
    while ray.is_initialized():
        try:
            alive = {n["NodeID"] for n in ray.nodes() if n["Alive"]}
            there = describe(connected())
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError, AttributeError):
            return  # the cluster is going away, or this process is: `cluster.py` tells of the first
        for line in [] if before is None else changes(len(before - alive), len(alive - before), there):
            log.warning("%s", line)
        before = alive
        time.sleep(_LOOK)


def changes(gone: int, come: int, there: str) -> list[str]:
    """Return what to say of so many nodes that are gone and that have come; `there`: what the cluster has now."""
    lines, now = [], time.strftime("%H:%M:%S")
    if gone:
        nodes = "a node is" if gone == 1 else f"{gone:,} nodes are"
        lines.append(
            f"{now} {nodes} gone from the cluster; there is {there} now. What ran there is begun again where there is "
            "room, and waits where there is none."
        )
    if come:
        lines.append(f"{now} {'a node has' if come == 1 else f'{come:,} nodes have'} come; there is {there} now.")
    return lines
