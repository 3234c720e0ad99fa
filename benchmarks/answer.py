"""The answer of a large sweep: 1,000 trials of 5,000 answers each, from what lies on disk to terminal, CSV and Parquet.

Twice: by 3 seeds (333 choices) and by one (999), which has the more comparisons. Answers are made up; `reading` is of the
run's folder, `headline` intervals, tests and Holm, `answer` costs and files; `cpu` what the cores worked for all three.
`python benchmarks/answer.py` writes benchmarks/results/answer.json.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _measure import RESULTS, one_side, versions, write

TRIALS, ANSWERS, BUDGETS = 1000, 5000, ("1%", "2%", "5%", "10%", "20%", "30%", "40%", "50%", "60%")


def make_run(folder: Path, seeds: int) -> dict[str, Any]:
    """Lay out results and answers of as many trials, and the config that names them."""
    from vinnow.store.tables import EVALS, write_rows

    rng, tables = np.random.default_rng(0), []
    labels = [f"s{n}" for n in range(TRIALS // seeds // len(BUDGETS) - 1)]
    cells = [(s, b, n) for s in ["random", *labels] for b in BUDGETS for n in range(seeds)]
    cells += [("full", "100%", n) for n in range(seeds)]
    lean_N = rng.normal(0, 1, ANSWERS) + rng.normal(0, 1, ANSWERS // 3 + 1).repeat(3)[:ANSWERS]
    common = {n: pa.array([""] * ANSWERS) for n in ("answer", "reference")}
    common |= {
        "benchmark": pa.array(["exact_match"] * ANSWERS),
        "sample": pa.array([f"{i:016x}" for i in range(ANSWERS)]),
    }
    common |= {"task": pa.array([f"task {i % 9}" for i in range(ANSWERS)])}
    common |= {"cluster": pa.array([f"bytes:{i // 3:016x}" for i in range(ANSWERS)])}
    for selector, budget, seed in cells:
        name = f"{selector}-{budget.replace('%', 'pct')}-s{seed}"
        place = folder / "sweep" / name
        place.mkdir(parents=True)
        rows = 665_298 * int(budget[:-1]) // 100
        result = {"selector": selector, "budget": budget, "seed": seed, "rows": rows, "run": name, "name": name}
        result |= {"train_seconds": rows / 10, "eval_seconds": 60.0}
        (place / "result.json").write_text(json.dumps(result))
        right_N = rng.normal(0.5 + 0.1 * rng.random(), 1, ANSWERS) > lean_N
        columns = common | {"run": pa.array([name] * ANSWERS), "correct": right_N, "score": right_N.astype(float)}
        tables.append(pa.table(columns).select(EVALS.names).cast(EVALS))
    write_rows(folder / "evals.parquet", pa.concat_tables(tables), EVALS)
    sections = [{"name": "random"}, *({"name": "stratified", "label": n} for n in labels)]
    config: dict[str, Any] = {
        "out": str(folder),
        "pool": {"source": "p"},
        "test": {"source": "t"},
        "model": {"path": "m"},
    }
    config |= {"selectors": sections, "budgets": list(BUDGETS), "seeds": list(range(seeds)), "finetune": {"workers": 4}}
    (folder / "run.json").write_text(json.dumps({"digest": "0" * 16, "version": "0", "config": config}))
    return {"trials": len(cells)}


def answer(folder: Path) -> dict[str, Any]:
    """Make the answer of a folder; returns seconds of each step, imports apart."""
    from rich.console import Console
    from vinnow.pipelines.report.answer import answers
    from vinnow.pipelines.report.answer_files import write_answer
    from vinnow.pipelines.report.gather import gather
    from vinnow.pipelines.report.headline import headline
    from vinnow.pipelines.report.terminal import headline_table

    begin, cpu = time.perf_counter(), time.process_time()
    data = gather(str(folder))
    read = time.perf_counter()
    rows = headline(data.trials)
    known = time.perf_counter()
    write_answer(str(folder), answers(rows, data))
    Console(file=io.StringIO(), width=80).print(headline_table(data, rows))
    end = time.perf_counter()
    told = {"reading": read - begin, "headline": known - read, "answer": end - known, "seconds": end - begin}
    told["cpu"] = time.process_time() - cpu
    compared = sum(r.against_random is not None for r in rows)
    return told | {"choices": len(rows), "comparisons": compared}


def main() -> None:
    """Lay the runs out and make their answers, each in a process of its own, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where the data is made; a temporary folder when left out")
    parser.add_argument("--step", choices=("make", "answer"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default=str(RESULTS / "answer.json"))
    asked = parser.parse_args()
    if asked.step:
        folder = Path(asked.folder)
        print(json.dumps(make_run(folder, asked.seeds) if asked.step == "make" else answer(folder)))
        return
    sides = {}
    for seeds in (3, 1):
        with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
            step = ("--folder", temporary, "--seeds", str(seeds), "--step")
            laid = one_side(__file__, *step, "make")
            sides[f"{seeds} seed{'s' * (seeds > 1)}"] = {"trials": laid["trials"]} | one_side(__file__, *step, "answer")
    row = {
        "claim": f"the answer of {TRIALS:,} trials of {ANSWERS:,} answers: at most 60 s of one core and 2 GiB",
        "ratio": max(s["cpu"] for s in sides.values()) / 60,
        "sides": sides,
        "machine": f"{os.cpu_count()} cores",
        "load_average": os.getloadavg()[0],
        "versions": versions("numpy", "scipy", "pyarrow"),
    }
    write(row, asked.out)


if __name__ == "__main__":
    main()
