"""What a stage asks of a cluster, held against what it has: what nobody can give is refused before anything waits for it.

A cluster that `ray up` made keeps its node types in `~/ray_bootstrap_config.yaml` on the head, where drivers run: what its
autoscaler may start counts as had, and that is told. On Kubernetes nobody here knows what may be started: it is waited for.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.errors import InputError

# where the autoscaler of `ray up` keeps its config (Ray: cluster launcher)
BOOTSTRAP = "~/ray_bootstrap_config.yaml"
# heard on stderr by whoever sets up no logging
log = logging.getLogger("vinnow.capacity")


@dataclass(frozen=True)
class Share:
    """What one of `count` workers or actors takes of a node."""

    count: int
    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        parts = [f"{n:g} {unit}{'s' if n != 1 else ''}" for n, unit in ((self.gpus, "GPU"), (self.cpus, "CPU")) if n]
        return f"{self.count} × ({', '.join(parts) or 'nothing'})"


@dataclass(frozen=True)
class Node:
    """What a node has, or would have; `kind`: the autoscaler's name for it."""

    cpus: float
    gpus: float
    kind: str = ""


def require(what: str, shares: Sequence[Share], way_out: str) -> None:
    """Return if the connected cluster can hold all shares at one time; what must be started first is logged.

    Raises:
        InputError: it never can; says what was asked, what is there, and `way_out`.
    """
    nodes = connected()
    if fits(shares, nodes):
        return
    asked, there = _asked(shares), describe(nodes)
    more = startable()
    if more is None or fits(shares, [*nodes, *more]):
        kinds = sorted({n.kind for n in more or []})
        who = f"the autoscaler may start {', '.join(kinds)}" if kinds else "Kubernetes may start more"
        log.warning("%s waits for %s, since %s: there is %s; %s.", what, asked, time.strftime("%H:%M:%S"), there, who)
        return
    raise InputError(lacking(what, shares, nodes, more, way_out))


def connected() -> list[Node]:
    """Return the nodes of the cluster that this process is connected to."""
    import ray

    alive = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    return [Node(r.get("CPU", 0.0), r.get("GPU", 0.0)) for r in alive]


def lacking(what: str, shares: Sequence[Share], nodes: Sequence[Node], more: Sequence[Node], way_out: str) -> str:
    """Return what to say of shares that nodes, and those that an autoscaler may start, cannot hold."""
    brings = "and nothing that would start more" if not more else f"and the autoscaler brings at most {describe(more)}"
    return f"{what} asks for {_asked(shares)}; there is {describe(nodes)}, {brings}. {way_out}"


def _asked(shares: Sequence[Share]) -> str:
    return " and ".join(str(s) for s in shares if s.count)


def fits(shares: Sequence[Share], nodes: Sequence[Node]) -> bool:
    """Say whether nodes hold all shares at once; the largest share first, each on the first node with room."""
    free = [[n.gpus, n.cpus] for n in sorted(nodes, key=lambda n: (n.gpus, n.cpus))]
    for share in sorted(shares, key=lambda s: (-s.gpus, -s.cpus)):
        for _ in range(share.count):
            room = next((f for f in free if f[0] >= share.gpus - 1e-9 and f[1] >= share.cpus - 1e-9), None)
            if room is None:
                return False
            room[0], room[1] = room[0] - share.gpus, room[1] - share.cpus
    return True


def describe(nodes: Sequence[Node]) -> str:
    """Return nodes in words: how many, and what they have in all."""
    cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    count = f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    return f"{count} with {gpus:g} GPU{'s' if gpus != 1 else ''} and {cpus:g} CPU{'s' if cpus != 1 else ''} in all"


def startable(bootstrap: str | os.PathLike[str] = BOOTSTRAP) -> list[Node] | None:
    """Return the nodes that an autoscaler may add to a cluster that vinnow has joined; None where that is not known."""
    import yaml

    path = Path(bootstrap).expanduser()
    if _is_ours():
        return []
    if not path.is_file():
        return None if "KUBERNETES_SERVICE_HOST" in os.environ else []
    try:
        config = yaml.safe_load(path.read_text())
        return _types(config)
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):  # a config of something else
        return None


def _types(config: dict[str, Any]) -> list[Node]:
    nodes: list[Node] = []
    for name, kind in config["available_node_types"].items():
        has = kind.get("resources") or {}
        if name != config.get("head_node_type"):
            nodes += [Node(has.get("CPU", 0), has.get("GPU", 0), name)] * int(kind.get("max_workers", 0))
    return nodes[: max(int(config.get("max_workers", len(nodes))), 0)]


def _is_ours() -> bool:
    """Say whether this process has started the Ray that it is connected to."""
    from ray._private.worker import _global_node

    return _global_node is not None and _global_node.head
