"""A sweep of 5 selectors × 3 budgets × 3 seeds on the demo's pool, undisturbed, and once more with its driver killed twice.

Both are `vinnow demo --recipe demo-sweep` (or another recipe of the demo's), each in a folder of its own. The driver gets
SIGKILL at two moments drawn by `--seed`: once so many trials have ended, and some seconds into the next. Then both are
compared: answers of every trial, question by question, accuracies, and what `vinnow report` prints.
`python benchmarks/sweep_killed.py [--out runs/killed] [--seed 0] [--recipe demo-sweep] [--set a.b=c]` writes
benchmarks/results/sweep_killed.json, and exits with 1 where anything differs. A folder that is there is gone on with.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions, write
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS, read_rows


def command(out: Path, asked: argparse.Namespace) -> list[str]:
    """Return the command line of a run into a folder."""
    sets = [part for entry in asked.sets or [] for part in ("--set", entry)]
    return [sys.executable, "-m", "vinnow", "demo", "--recipe", asked.recipe, "--out", str(out), *sets]


def results(out: Path) -> dict[str, int]:
    """Return the finished trials, and when each was finished."""
    return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("sweep/*/result.json")}


def killed(line: list[str], out: Path, ended: int, later: float) -> str:
    """Kill a run's driver `later` seconds after so many trials have ended; say where it was."""
    process = subprocess.Popen(line)
    while len(results(out)) < ended:
        if process.poll() is not None:
            raise SystemExit(f"the run ended by itself with {process.returncode} after {len(results(out))} trials")
        time.sleep(0.05)
    time.sleep(later)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return f"{len(results(out))} trials done"


def answers(out: Path) -> dict[str, Any]:
    """Return every trial's accuracy and answers by its name."""
    evals: dict[str, list[Any]] = {}
    for row in read_rows(str(out / "evals.parquet"), EVALS).to_pylist():
        evals.setdefault(row["run"], []).append([row["sample"], row["answer"], row["score"]])
    read = {name: read_json(out / "sweep" / name / "result.json") for name in sorted(results(out))}
    return {name: [r["accuracy"], sorted(evals[r["run"]])] for name, r in read.items()}


def report(out: Path) -> list[str]:
    """Return the table of accuracies and verdicts that the report prints: sentences and tables of cost tell seconds."""
    said = subprocess.run(
        [sys.executable, "-m", "vinnow", "report", str(out)], capture_output=True, text=True, check=True
    )
    return said.stdout.partition("Accuracy on")[2].partition("What it cost")[0].splitlines()


def main() -> None:
    """Run both, compare them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="runs/killed")
    parser.add_argument("--recipe", default="demo-sweep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", dest="sets")
    asked = parser.parse_args()
    once, again, rng = Path(asked.out, "undisturbed"), Path(asked.out, "killed"), random.Random(asked.seed)
    begin = time.perf_counter()
    subprocess.run(command(once, asked), check=True)
    undisturbed, trials = time.perf_counter() - begin, len(results(once))
    first, second = sorted(rng.sample(range(1, trials), 2))
    begin, places, kept = time.perf_counter(), list[str](), dict[str, int]()
    for ended in (first, second):
        if len(results(again)) < trials:
            places.append(killed(command(again, asked), again, ended, rng.uniform(0, 5)))
        assert kept.items() <= results(again).items(), "a finished trial was done again"
        kept = results(again)
    subprocess.run(command(again, asked), check=True)
    seconds = {"undisturbed": round(undisturbed, 1), "killed twice": round(time.perf_counter() - begin, 1)}
    assert kept.items() <= results(again).items(), "a finished trial was done again"
    a, b = answers(once), answers(again)
    differ = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    table = report(once)
    same = bool(table) and table == report(again)
    row = {"claim": "a sweep whose driver is killed twice ends with the table of an undisturbed one", "trials": len(a)}
    row |= {
        "different trials": differ,
        "same report table": same,
        "killed at": places,
        "seconds": seconds,
        "sets": asked.sets or [],
    }
    row |= {"machine": f"{os.cpu_count()} CPU cores", "versions": versions("ray", "torch", "deepspeed")}
    print(json.dumps(row))
    write(row, RESULTS / "sweep_killed.json")
    raise SystemExit(bool(differ) or not same)


if __name__ == "__main__":
    main()
