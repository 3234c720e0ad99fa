"""Files by what they took in a recorded run, longest first: two processes that share them end together."""

import json
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = TESTS / "seconds.json"


def read_table(table=TABLE):
    """Seconds by a file's path below `tests`; empty before the first recorded run."""
    return json.loads(table.read_text()) if table.exists() else {}


def longest_first(items, seconds):
    """Sort tests in place by their files' seconds; files that no run has recorded come first, those with a Ray before all.

    xdist hands out whole files in this order: a long one that came last would run alone.
    """
    on_ray = {item.path for item in items if "ray_cluster" in item.fixturenames}

    def place(item):
        took = seconds.get(item.path.relative_to(TESTS).as_posix())
        return (took is not None, -(took or 0), took is None and item.path not in on_ray)

    items.sort(key=place)


class Recorder:
    """Adds up what each file's tests took, their fixtures among it, and writes it into the table at the end."""

    def __init__(self, table=TABLE):
        self.table, self.seconds = table, Counter()

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid.split("::")[0].removeprefix("tests/")] += report.duration

    def pytest_sessionfinish(self):
        now = read_table(self.table) | {name: round(took, 1) for name, took in self.seconds.items()}
        rows = {name: now[name] for name in sorted(now) if (TESTS / name).exists()}
        self.table.write_text(json.dumps(rows, indent=0) + "\n")
