"""Progress of work that blocks the driver (Ray Train, Ray Tune): read from what it leaves on disk."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from .progress import bar

LOG = "log.jsonl"


@contextmanager
def watching(what: str, unit: str, look: Callable[[], tuple[int, int]], every: float = 1.0) -> Iterator[None]:
    """Show `look()` = (done, total) while the body runs, for work that blocks the driver."""
    stop = threading.Event()
    with bar(what, unit) as tell:

        def watch() -> None:
            while not stop.wait(every):
                tell(*look())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            tell(*look())


def training_bar(what: str, out: str) -> AbstractContextManager[None]:
    """Show the steps of the training whose folder is `out`, from the log that its rank 0 writes."""
    return watching(f"train {what}", "steps", lambda: last_step(out))


def last_step(out: str) -> tuple[int, int]:
    """Return (step, steps in all) from the end of a training's log; (0, 0) before there is one."""
    path = os.path.join(out, LOG)
    if not os.path.isfile(path):
        return 0, 0
    with open(path, "rb") as source:
        source.seek(max(0, os.path.getsize(path) - 4096))
        lines = source.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        # a line may be half written, or anything: whoever needs the log says what is wrong with it
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            row = json.loads(line)
            return int(row["step"]), int(row.get("total_steps", 0))
    return 0, 0
