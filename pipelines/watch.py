"""A progress bar over a training: reads the log that rank 0 writes, since `fit()` blocks the driver."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .progress import bar

LOG = "log.jsonl"


@contextmanager
def training_bar(what: str, out: str, every: float = 1.0) -> Iterator[None]:
    """Show the steps of the training whose folder is `out`, while the body runs."""
    stop = threading.Event()
    with bar(f"train {what}", "steps") as tell:

        def watch() -> None:
            while not stop.wait(every):
                tell(*last_step(out))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            tell(*last_step(out))


def last_step(out: str) -> tuple[int, int]:
    """Return (step, steps in all) from the end of a training's log; (0, 0) before there is one."""
    path = os.path.join(out, LOG)
    if not os.path.isfile(path):
        return 0, 0
    with open(path, "rb") as source:
        source.seek(max(0, os.path.getsize(path) - 4096))
        lines = source.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith("{") and line.endswith("}"):
            row = json.loads(line)
            if "step" in row:
                return int(row["step"]), int(row.get("total_steps", 0))
    return 0, 0
