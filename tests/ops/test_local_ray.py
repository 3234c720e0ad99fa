"""The local Ray: no port beyond loopback, a token that nobody else reads; a named cluster is joined as it is."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from vinnow.actors.cluster import RayConfig, ensure_ray, keep_token
from vinnow.store.errors import InputError

PARENT = Path(__file__).parents[3]
STARTED = """
import json, os, sys, time, urllib.error, urllib.request
sys.path.insert(0, {parent!r})
import psutil, ray
from vinnow.actors.cluster import RayConfig, ensure_ray

def status(**headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

ensure_ray(RayConfig(num_cpus=1, object_store_mb=80))
double = ray.remote(lambda x: 2 * x)
answer = ray.get(double.remote(21))
url = "http://" + ray._private.worker.global_worker.node.webui_url + "/api/cluster_status"
token = open(os.path.expanduser("~/.ray/auth_token")).read()
here = psutil.Process()
ports = [c for p in [here, *here.children(recursive=True)] for c in p.net_connections("tcp") if c.status == "LISTEN"]
said = dict(answer=answer, hosts=sorted(set(c.laddr.ip for c in ports)), ports=len(ports))
said |= dict(bare=status(), token=status(Authorization="Bearer " + token), wrong=status(Authorization="Bearer 0"))
print(json.dumps(said))
ray.shutdown()
"""


@pytest.mark.slow
def test_a_local_ray_listens_on_loopback_and_wants_its_token(tmp_path):
    gone = ("RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    env = {k: v for k, v in os.environ.items() if k not in gone} | {"HOME": str(tmp_path)}
    script = STARTED.format(parent=str(PARENT))
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["answer"] == 42
    assert said["ports"] >= 5
    assert {h.removeprefix("::ffff:") for h in said["hosts"]} == {"127.0.0.1"}
    assert (said["bare"], said["wrong"], said["token"]) == (401, 403, 200)
    token = tmp_path / ".ray/auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert [p.name for p in token.parent.iterdir()] == ["auth_token"]


def test_a_token_that_is_there_is_kept_and_closed(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "auth_token"
    path.write_text("mine")
    path.chmod(0o644)
    keep_token(path)
    assert path.read_text() == "mine"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Set RAY_AUTH_TOKEN_PATH"):
        keep_token(tmp_path / "file/auth_token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    keep_token(tmp_path / "none/auth_token")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("named", ["config", "environment"])
def test_a_named_cluster_is_joined_as_it_is(tmp_path, monkeypatch, named):
    import ray
    from ray._private import ray_constants

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, raising=False)
    if named == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    asked: list[dict] = []
    before = ray_constants.ENABLE_RAY_CLUSTER
    ensure_ray(RayConfig(address="10.0.0.1:6379" if named == "config" else None))
    assert [o["address"] for o in asked] == ["10.0.0.1:6379"]
    assert not asked[0].keys() & {"_node_ip_address", "dashboard_host"}
    assert ray_constants.ENABLE_RAY_CLUSTER is before
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ
    assert not list(tmp_path.iterdir())
