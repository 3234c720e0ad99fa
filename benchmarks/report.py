"""A report of a run over 665,298 rows: how long it takes from what lies on disk to `report.html`, and how large that is.

The pool has mix665k's composition (`make_pool.py`); scores and picks are full-size tables of five selectors at three
budgets, two of them made by the selectors themselves (`random` with three seeds, `xmas` over trajectories of four
checkpoints), three of random numbers; embeddings of 4096 numbers are mapped; nine fine-tunes of 5,000 answers each stand in
the headline; the records that are shown have pictures of 640 × 480. `--run DIR` reports of a finished run instead (the
demo's, say), on a copy; `--made DIR` of one that `--step make --folder DIR` laid out.
`python benchmarks/report.py` writes benchmarks/results/report.json.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _measure import RESULTS, one_side, versions, write
from make_pool import ROWS, write_features, write_json, write_pictures

BUDGETS, STEPS, ANSWERS = ("1%", "5%", "20%"), range(1, 5), 5000
SCORED = ("less", "diverse", "perplexity_middle")


def make_run(folder: Path, rows: int) -> dict[str, Any]:
    """Lay out what a finished run leaves: pool, trajectories, scores, picks, answers."""
    from vinnow.pipelines.runs.picking import make_view
    from vinnow.pool.ingest import IngestConfig, ingest
    from vinnow.pool.reader import Pool
    from vinnow.select.needs import Needs
    from vinnow.select.rows import picks_table, scores_table
    from vinnow.select.run import select
    from vinnow.store.tables import PICKS, SCORES, write_rows

    (folder / "images").mkdir()
    source = write_json(folder / "mix.json", rows)
    ingest(IngestConfig(source=source, image_root=str(folder / "images"), check_images="none"), str(folder / "pool"))
    pool = Pool(str(folder / "pool"))
    write_features(pool, folder / "features", "trajectory", STEPS)
    write_features(pool, folder / "features", "embedding", STEPS[-1:])
    for name, needs, config in (("random", Needs(), {}), ("xmas", Needs(("trajectory",)), {"niter": 2})):
        features = str(folder / "features") if needs.features else None
        select(make_view(str(folder / "pool"), features, None, needs), name, config, list(BUDGETS), 0, str(folder))
    ids, rng = pool.ids(), np.random.default_rng(0)
    for name in SCORED:
        score_N, none_N = np.round(rng.normal(size=len(ids)), 4), np.zeros(len(ids), np.int64)
        notes = {"zero_rows": {"1": int((score_N == 0).sum())}}
        write_rows(folder / "scores" / f"{name}.parquet", scores_table(ids, "mean", none_N, score_N, notes), SCORES)
        order = np.argsort(-score_N, kind="stable")
        for budget in BUDGETS:
            taken = order[: rows * int(budget[:-1]) // 100]
            picks = picks_table(ids[taken], none_N[taken], score_N[taken], name, len(taken), 0)
            write_rows(folder / "picks" / f"{name}-{budget[:-1]}pct-s0.parquet", picks, PICKS)
    view = make_view(str(folder / "pool"), None, None, Needs())
    for seed in (1, 2):
        select(view, "random", {}, list(BUDGETS), seed, str(folder))
    write_answers(folder, rows, rng)
    return {"rows": pool.rows, "pictures": write_shown(folder, pool)}


def write_shown(folder: Path, pool: Any) -> int:
    """Write the pictures of those records that the report holds, as many files as it will open; returns how many."""
    from vinnow.pipelines.report.explorer.gathering import read_chosen
    from vinnow.pipelines.report.explorer.sample import sample_of
    from vinnow.pipelines.report.gather import read_picks

    chosen = read_chosen(str(folder), pool, None, read_picks(str(folder), None, []))
    names = {n for record in pool.take(chosen.ids_N[sample_of(chosen).held_H]) for n in record.images}
    write_pictures(sorted(names), folder / "images")
    return len(names)


def write_answers(folder: Path, rows: int, rng: np.random.Generator) -> None:
    """Write a result and its answers for each of three selectors at each budget."""
    from vinnow.store.tables import EVALS, write_rows

    tables = []
    for selector in ("random", "less", "xmas"):
        for budget in BUDGETS:
            name = f"{selector}-{budget[:-1]}pct-s0"
            (folder / "sweep" / name).mkdir(parents=True)
            cells = {"selector": selector, "budget": budget, "seed": 0, "rows": rows * int(budget[:-1]) // 100}
            result = cells | {"train_seconds": 900.0, "eval_seconds": 60.0, "run": name}
            (folder / "sweep" / name / "result.json").write_text(json.dumps(result))
            right = rng.random(ANSWERS) < 0.5
            columns: dict[str, Any] = {n: [""] * ANSWERS for n in ("answer", "reference")}
            columns |= {"run": [name] * ANSWERS, "benchmark": ["exact_match"] * ANSWERS, "correct": right}
            columns |= {"task": [f"task {i % 9}" for i in range(ANSWERS)], "score": right.astype(float)}
            columns["sample"] = [str(i) for i in range(ANSWERS)]
            columns["cluster"] = [f"path:{i // 3}.jpg" for i in range(ANSWERS)]
            tables.append(pa.table(columns).select(EVALS.names).cast(EVALS))
    write_rows(folder / "evals.parquet", pa.concat_tables(tables), EVALS)


def report(folder: Path) -> dict[str, Any]:
    """Make the report of a folder; returns seconds (imports apart) and megabytes."""
    from plotly.offline import get_plotlyjs
    from vinnow.pipelines.report.build import build_report
    from vinnow.pipelines.report.gather import gather

    begin = time.perf_counter()
    data = gather(str(folder))
    read = time.perf_counter() - begin
    path = Path(build_report(str(folder), data))
    seconds, text = time.perf_counter() - begin, path.read_text()
    return {
        "seconds": seconds,
        "of which reading": read,
        "megabytes": path.stat().st_size / 1e6,
        "megabytes without the charts' library": len(text.replace(get_plotlyjs(), "").encode()) / 1e6,
        "charts": text.count('class="chart"'),
    }


def main() -> None:
    """Make the run and its report, each in a process of its own, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--run", help="report of this run's folder, on a copy, and print it; writes no row")
    parser.add_argument("--folder", help="where the data is made; a temporary folder when left out")
    parser.add_argument("--made", help="a folder that `--step make` has filled; it is not made again")
    parser.add_argument("--step", choices=("make", "report"))
    parser.add_argument("--out", default=str(RESULTS / "report.json"))
    asked = parser.parse_args()
    if asked.step:
        folder = Path(asked.folder)
        print(json.dumps(make_run(folder, asked.rows) if asked.step == "make" else report(folder)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
        folder = Path(temporary) / "run"
        if asked.run:
            shutil.copytree(asked.run, folder, ignore=shutil.ignore_patterns("checkpoint*", "*.safetensors"))
            print(json.dumps(one_side(__file__, "--step", "report", "--folder", str(folder)), indent=2))
            return
        if asked.made:
            folder = Path(asked.made)
            laid = {"rows": json.loads((folder / "pool" / "pool.json").read_text())["rows"]}
        else:
            folder.mkdir()
            laid = one_side(__file__, "--step", "make", "--folder", str(folder), "--rows", str(asked.rows))
        measured = one_side(__file__, "--step", "report", "--folder", str(folder))
    row = {
        "claim": "a report of a run over mix665k's rows: at most 60 s, 2 GiB and 15 MB",
        "ratio": measured["seconds"] / 60,
        "rows": laid["rows"],
        **measured,
        "machine": f"{os.cpu_count()} cores",
        "load_average": os.getloadavg()[2],
        "versions": versions("plotly", "jinja2", "pyarrow"),
    }
    write(row, asked.out)


if __name__ == "__main__":
    main()
