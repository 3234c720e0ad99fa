"""A cluster of several raylets on this machine, whose nodes a test adds and loses, and commands that join it.

The head has no CPU and no memory to give: whatever is placed lies on nodes that can be lost. Nothing here sleeps for a
result: `until` waits for what can be seen.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from commands import vinnow_line
from vinnow.actors.forks.start import forked_workers

# how fast a lost node is noticed; a busy machine may still answer late
RAY = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
}
STORE = 80_000_000  # bytes of shared memory of each node
PATIENCE = 200.0  # s: of a machine that does much else


class Nodes:
    """`address`: what commands join; nodes are those of `ray.cluster_utils.Cluster`."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._before = {name: os.environ.get(name) for name in RAY}
        os.environ.update(RAY)
        head = {"num_cpus": 0, "memory": 1000, "object_store_memory": STORE}
        # Ray Train asks the dashboard which trainings live, and frees what dead ones held
        head |= {"include_dashboard": True, "dashboard_port": 0}
        with forked_workers(True):
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address

    def add(self, cpus=1):
        """Add a node (to be called on the main thread)."""
        with forked_workers(True):
            return self._cluster.add_node(num_cpus=cpus, object_store_memory=STORE)

    def have(self, count, cpus=1):
        """Return exactly so many nodes beside the head, all of them idle."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda n: n.node_id)
        for node in nodes[count:]:
            self.crash(node)
        nodes = nodes[:count] + [self.add(cpus) for _ in range(count - len(nodes))]
        self.idle()
        return nodes

    def all(self):
        """Return the nodes beside the head."""
        return list(self._cluster.worker_nodes)

    def crash(self, node) -> None:
        """Lose a node as its machine would be lost: all of its processes at once, no goodbye."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        lost = [raylet, *raylet.children(recursive=True)]
        lost += [psutil.Process(a["Pid"]) for a in self.actors("", node) if psutil.pid_exists(a["Pid"])]
        for process in lost:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._cluster.remove_node(node, allow_graceful=False)
        until(lambda: len(self._cluster.global_state._live_node_ids()) == 1 + len(self._cluster.worker_nodes))

    def actors(self, name, node=None):
        """Return the living actors whose class is called so, of a node or of all."""
        table = self._cluster.global_state.actor_table(None).values()
        alive = [a for a in table if a["State"] == "ALIVE" and name in a["ActorClassName"]]
        return [a for a in alive if node is None or a["Address"]["NodeID"] == node.node_id]

    def node_of(self, pid):
        """Return the node on which a process is an actor."""
        ids = {a["Address"]["NodeID"] for a in self.actors("") if a["Pid"] == pid}
        return next((n for n in self._cluster.worker_nodes if n.node_id in ids), None)

    def held(self):
        """Return what is not free: actors, placement groups, CPUs that somebody has."""
        state = self._cluster.global_state
        groups = [g["state"] for g in state.placement_group_table().values() if g["state"] != "REMOVED"]
        total = sum(n["Resources"].get("CPU", 0) for n in state.node_table() if n["Alive"])
        free = sum(r.get("CPU", 0) for r in state.available_resources_per_node().values())
        # Ray Data keeps three detached ones, which take nothing
        return [a["ActorClassName"] for a in self.actors("") if not a["IsDetached"]], groups, total - free

    def idle(self):
        """Wait until nobody holds anything: a job that ended has left nothing behind."""
        until(lambda: self.held() == ([], [], 0), told=self.held)

    def start(self, *arguments, **environment) -> "Command":
        """Start a command that joins the cluster."""
        return Command(arguments, {"RAY_ADDRESS": self.address, **environment})

    def shutdown(self):
        self._cluster.shutdown()
        for name, value in self._before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class Command:
    """`vinnow …` under way; what it says goes to a file."""

    def __init__(self, arguments, environment) -> None:
        self._said = tempfile.NamedTemporaryFile("w+", prefix="said-", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            vinnow_line(*arguments),
            env=os.environ | environment,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )

    def said(self):
        """Return what it has said, in one line."""
        return " ".join(Path(self._said.name).read_text().split())

    def until(self, condition):
        """Wait for what can be seen while it runs."""

        def seen():
            value = condition()
            assert value or self.process.poll() is None, f"it ended first ({self.process.returncode}): {self.said()}"
            return value

        return until(seen, told=self.said)

    def kill(self):
        """`kill -9`, of the driver alone."""
        own = self.process.pid
        for process in [*psutil.Process(own).children(recursive=True), psutil.Process(own)]:
            process.kill()
        self.process.wait()

    def end(self, code=0):
        """Wait for its end, and return what it said."""
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it does not end: {self.said()}") from None
        assert self.process.returncode == code, self.said()
        return self.said()


def has_state(training):
    """Say whether Ray Train has noted a state of the training in this folder, to go on from."""
    note = Path(training) / "ray/checkpoint_manager_snapshot.json"
    return note.exists() and "checkpoint_dir_name" in note.read_text()


def until(condition, told=lambda: ""):
    """Wait until something is true, and return it."""
    begin = time.monotonic()
    while not (value := condition()):
        assert time.monotonic() - begin < PATIENCE, told()
        time.sleep(0.01)
    return value
