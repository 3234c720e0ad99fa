"""What the benchmarks share: timing work on a GPU, and the row that each leaves."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], Any], rounds: int = 5, warm: int = 2) -> float:
    """Return the median seconds of one call on the GPU; `warm` calls go before."""
    for _ in range(warm):
        work()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def watched(*command: str) -> tuple[float, float, str]:
    """Run a command; returns its seconds, the peak memory of it and its children in GiB (PSS, every 50 ms), its output."""
    begin, peak = time.perf_counter(), 0
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while child.poll() is None:
        peak = max(peak, _memory(child.pid))
        time.sleep(0.05)
    said = child.communicate()[0]
    if child.returncode:
        raise SystemExit(f"a side failed with exit code {child.returncode}: {' '.join(command)[:200]}")
    return time.perf_counter() - begin, peak / 2**30, said


def one_side(script: str, *arguments: str) -> dict[str, Any]:
    """Run one side of a benchmark as a process of its own; returns the JSON that it prints last, and its `peak_gib`."""
    _, peak, said = watched(sys.executable, script, *arguments)
    return json.loads(said.splitlines()[-1]) | {"peak_gib": peak}


def _memory(pid: int) -> int:
    import psutil

    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.NoSuchProcess:  # it has just ended
        return total
    return total


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of these packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def write(row: dict[str, Any], out: str | Path) -> None:
    """Write a benchmark's row and print it."""
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(row, indent=2) + "\n")
    print(json.dumps(row, indent=2))
