"""A real Prometheus, of Debian's package, that scrapes a Ray which is about to start; and what it answers."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: ray
  file_sd_configs: [{{files: ['{found}'], refresh_interval: 1s}}]
"""
# what a Ray is to be told so that it hands out its numbers as often
OFTEN = {"RAY_metrics_report_interval_ms": "500"}


def binary() -> str:
    """Where it is; a test is skipped without it, but fails in CI, which installs it."""
    path = shutil.which("prometheus")
    if path is None:
        reason = "no Prometheus here: apt-get install prometheus"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return path


@contextmanager
def started(folder: Path, ray_tmp: Path):
    """Start one on loopback that scrapes the Ray of this RAY_TMPDIR; yields its address, and ends with the body."""
    folder.mkdir(parents=True)
    # Ray writes it when its dashboard is up
    (folder / "prometheus.yml").write_text(CONFIG.format(found=ray_tmp / "ray" / "prom_metrics_service_discovery.json"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [binary(), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*line, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def ask(address: str, path: str, **fields: str):
    """Return what its API answers."""
    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(fields)}"
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return json.load(reply)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{fields}: {error.read().decode()}") from error


def series(address: str, expr: str, begin: float):
    """Return a query's lines since `begin`, a value a second: [(labels, [values])]."""
    data = ask(address, "query_range", query=expr, start=str(begin), end=str(time.time()), step="1")
    return [(line["metric"], [float(value) for _, value in line["values"]]) for line in data["result"]]
