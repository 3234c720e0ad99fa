"""Progress of work that blocks the driver (Ray Train, Ray Tune): read from what it leaves on disk."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from ...store.files import exists, join, read_from
from ...store.folders import is_folder
from ..progress import bar

LOG = "log.jsonl"
# there when a trial is done, and when its training is (`train.run.REPORT`)
RESULT, TRAINED = "result.json", "train.json"
# what a trial that ended by an error of ours tells Tune in the place of a result
FAILED = "failed"


@contextmanager
def watching(
    what: str, unit: str, look: Callable[[], tuple[int, int, str]], waiting: str = "", every: float = 1.0
) -> Iterator[None]:
    """Show `look()` = (done, total, note) while the body runs, for work that blocks the driver."""
    stop = threading.Event()
    with bar(what, unit, waiting) as tell:

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
    waiting = "no step yet: workers start, load the model, read the rows"
    return watching(f"train {what}", "steps", lambda: last_step(out), waiting)


def last_step(out: str) -> tuple[int, int, str]:
    """Return (step, steps in all, its loss in words) from the end of a training's log; (0, 0, "") before there is one."""
    path = join(out, LOG)
    if not exists(path):
        return 0, 0, ""
    lines = read_from(path, -4096).decode(errors="replace").splitlines()
    for line in reversed(lines):
        # a line may be half written, or anything: whoever needs the log says what is wrong with it
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            row = json.loads(line)
            loss = f"loss {row['loss']:.4f}" if isinstance(row.get("loss"), float) else ""
            return int(row["step"]), int(row.get("total_steps", 0)), loss
    return 0, 0, ""


def under_way(folder: str) -> str:
    """Say how far the trial in a folder is; nothing of one that has not begun, or is done."""
    if not is_folder(folder) or exists(join(folder, RESULT)):
        return ""
    name, training = os.path.basename(folder.rstrip("/")), join(folder, "train")
    if exists(join(training, TRAINED)):
        return f"{name} answers questions"
    step, steps, loss = last_step(training)
    return f"{name} at step {step:,}/{steps:,}, {loss}" if step else f"{name} starts"


class Looker:
    """How far a sweep is, from its trials' folders; one that was seen to be done is not looked at again."""

    def __init__(self, folders: list[str]) -> None:
        self._folders, self._all = list(folders), len(folders)

    def look(self) -> tuple[int, int, str]:
        """Return how many trials are done, of how many, and how far those are that run."""
        self._folders = [f for f in self._folders if not exists(join(f, RESULT))]
        return self._all - len(self._folders), self._all, "; ".join(s for f in self._folders if (s := under_way(f)))
