"""What `pool/blocks.py` and `pool/workers.py` earn against `concurrent.futures.ProcessPoolExecutor`, both sides in one run.

`ours`: blocks of text, cut in this process and parsed in children on pipes. `pool`: the same blocks, a plain process
pool in the children's place. `plain`: no blocks either: this process parses, a plain pool checks lists of 1,024 records.
All make the same pool (its digest is compared). Two kinds of source: the demo's real records with every picture decoded,
and records of mix665k's shape (`make_pool.py`) without pictures, where parsing is the work. Each side is a process of its
own, in turn, twice; a figure is the better round. And what is no figure of speed: how many processes of a side are left
twenty seconds after its parent was killed, and whether a script without a main guard can ingest at all.
`python benchmarks/ingest_workers.py` makes the data in a temporary folder, and writes its row to benchmarks/results/.
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _measure import RESULTS, one_side, versions, write
from make_pool import write_json
from vinnow.pipelines.demo.easy_vqa import DemoDataConfig, build
from vinnow.pool import examine
from vinnow.pool.blocks import Block
from vinnow.pool.draft import Draft, draft, draft_block
from vinnow.pool.image_checks import Look, LookConfig, look_at
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.json_stream import iter_records

WORKERS, RECORDS, ROWS = 2, 1024, 200_000
SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from ingest_workers import use
from vinnow.pool.ingest import IngestConfig, ingest
use({side!r})
config = IngestConfig(source={source!r}, image_root={images!r}, check_images={check!r}, workers=2, max_refused=1)
print("digest", ingest(config, {out!r}).digest)
"""


class PlainPool:
    """A `ProcessPoolExecutor` behind the calls of `pool.workers.Workers`."""

    def __init__(self, number: int, tokenizer: str | None, pictures: LookConfig) -> None:
        self._pictures, self.window = pictures, 3 * number
        # not forked: Arrow's threads run in this process already
        self._pool = ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))

    def submit(self, block: Block) -> Future[Draft]:
        """Draft a block."""
        return self._pool.submit(draft_block, block, None, self._pictures.root)

    def submit_records(self, values: list[Any]) -> Future[Draft]:
        """Draft parsed records."""
        return self._pool.submit(draft, values, None, self._pictures.root)

    def look(self, images: list[str]) -> Future[list[Look]]:
        """Look at pictures."""
        return self._pool.submit(look_at, self._pictures, images)

    def draft(self, values: list[Any]) -> Draft:
        """Draft parsed records in this process."""
        return draft(values, None, self._pictures.root)

    def __enter__(self) -> "PlainPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def whole_records(config: IngestConfig, workers: PlainPool) -> Iterator[tuple[int, Draft]]:
    """Parse here, check there: what `examine._drafts` would be without blocks."""
    waiting: deque[tuple[int, Future[Draft]]] = deque()
    row = 0
    records = iter_records(config.source)
    while values := list(islice(records, RECORDS)):
        waiting.append((row, workers.submit_records(values)))
        row += len(values)
        if len(waiting) >= workers.window:
            first, future = waiting.popleft()
            yield first, future.result()
    yield from ((first, future.result()) for first, future in waiting)


def use(side: str) -> None:
    """Have ingest in this process work as one of the sides does."""
    if side != "ours":
        examine.Workers = PlainPool
    if side == "plain":
        examine._drafts = whole_records


def ingest_once(asked: argparse.Namespace) -> dict[str, Any]:
    """Ingest as a side does; returns its seconds and what it made."""
    use(asked.side)
    config = IngestConfig(
        source=asked.source, image_root=asked.images, check_images=asked.check, workers=WORKERS, max_refused=1
    )
    begin = time.perf_counter()
    report = ingest(config, f"{asked.folder}/{time.time_ns()}")
    seconds, cpu = time.perf_counter() - begin, sum(os.times()[:4])
    return {"seconds": seconds, "cpu_seconds": cpu, "rows": report.rows, "digest": report.digest}


def compare(arguments: list[str], rounds: int) -> dict[str, Any]:
    """Return each side's better round, and how many times as long as ours the others took."""
    sides: dict[str, list[dict[str, Any]]] = {"ours": [], "pool": [], "plain": []}
    for _ in range(rounds):
        for side, rows in sides.items():
            rows.append(one_side(__file__, "--side", side, *arguments))
    digests = {row["digest"] for rows in sides.values() for row in rows}
    if len(digests) != 1:
        raise SystemExit(f"the sides made different pools: {digests}")
    best = {side: min(rows, key=lambda row: row["seconds"]) for side, rows in sides.items()}
    return {
        "ratio": {side: best[side]["seconds"] / best["ours"]["seconds"] for side in ("pool", "plain")},
        "rows": best["ours"]["rows"],
        "seconds": {side: row["seconds"] for side, row in best.items()},
        # of all processes, imports too: what other work on the machine does not change
        "cpu_seconds": {side: min(row["cpu_seconds"] for row in rows) for side, rows in sides.items()},
        "peak_gib": {side: max(row["peak_gib"] for row in rows) for side, rows in sides.items()},
    }


def survivors(script: Path) -> int:
    """Kill a script three seconds into its ingest; return how many of its processes are left twenty seconds later."""
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    end = time.monotonic() + 60
    while len(children) < WORKERS and time.monotonic() < end and parent.poll() is None:
        time.sleep(0.2)
        children = psutil.Process(parent.pid).children(recursive=True)
    time.sleep(3)
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 20
    while (left := [child for child in children if _lives(child)]) and time.monotonic() < end:
        time.sleep(0.2)
    for child in left:
        child.kill()
    return len(left)


def _lives(process: psutil.Process) -> bool:
    """Say whether a process still holds anything: one that has ended may wait for ever to be taken note of."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def without_guard(script: Path) -> bool:
    """Say whether a script without a main guard ingests."""
    try:
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and done.stdout.count("digest") == 1


def surroundings(folder: Path, demo: dict[str, str]) -> dict[str, Any]:
    """Return what a kill leaves and whether a plain script works, by side."""
    rows: dict[str, Any] = {"left_after_a_kill": {}, "without_main_guard": {}}
    for side in ("ours", "pool"):
        script, guarded = folder / f"{side}.py", folder / f"{side}_guarded.py"
        code = SCRIPT.format(here=str(Path(__file__).parent), side=side, out=str(folder / side), **demo)
        script.write_text(code)
        lines = code.strip().splitlines()
        guarded.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in lines))
        rows["left_after_a_kill"][side] = survivors(guarded)
        rows["without_main_guard"][side] = without_guard(script)
    return rows


def main() -> None:
    """Measure every side in a process of its own and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("side", "source", "images", "check", "folder"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", default=str(RESULTS / "ingest_workers.json"))
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(ingest_once(asked)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
        folder = Path(temporary)
        data = build(str(folder / "demo"), DemoDataConfig())
        demo = {"source": data.train, "images": data.images, "check": "decode"}
        pictured = [word for name, value in demo.items() for word in (f"--{name}", value)]
        texts = ["--source", write_json(folder / "mix.json", asked.rows), "--check", "none"]
        row = {
            "claim": "blocks of text and children on pipes against a plain process pool: a pool made on 2 cores",
            "demo": compare([*pictured, "--folder", temporary], asked.rounds),
            "texts": compare([*texts, "--folder", temporary], asked.rounds),
            **surroundings(folder, demo),
            "machine": f"{os.cpu_count()} cores",
            "load_average": os.getloadavg()[2],
            "versions": versions("pyarrow", "pillow"),
        }
    write(row, asked.out)


if __name__ == "__main__":
    main()
