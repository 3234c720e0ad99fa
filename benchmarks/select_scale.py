"""A whole selection at 665,298 rows on a CPU: JSON → pool → (synthetic) features → scores → picks → export.

`python benchmarks/select_scale.py` writes benchmarks/results/select_scale.json. The JSON has mix665k's composition
(`make_pool.py`); features are full-size tables of numbers with clusters in them, written by the store itself: gradients
8192 × float16 at one checkpoint, trajectories 5 × float32 at four. Every step runs in a process of its own; its peak
memory counts its children's. LESS is measured beside reading the same files once with `pyarrow.dataset`,
in one run, the two one after the other.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, one_side, versions, write

ROWS, TASKS, DIM, STEPS = 665_298, 57, 8192, range(4)
BUDGETS = ("1%", "5%", "10%", "20%", "50%")


def ingest_step(folder: Path) -> dict[str, Any]:
    """JSON → pool, no picture looked at."""
    from vinnow.pool.ingest import IngestConfig, ingest

    report = ingest(IngestConfig(source=str(folder / "mix.json"), check_images="none"), str(folder / "pool"))
    return {"rows": report.rows, "refused": report.refused}


def features_step(folder: Path) -> dict[str, Any]:
    """Feature tables of every row, and targets of 57 tasks."""
    from make_pool import write_features
    from vinnow.pool.reader import Pool
    from vinnow.store.features import FeatureBatch, FeatureSet, write_shard

    pool = Pool(str(folder / "pool"))
    write_features(pool, folder / "features", "gradient", range(1))
    write_features(pool, folder / "features", "trajectory", STEPS)
    key = FeatureSet(folder / "features", "gradient").key(0)
    vec_MD = np.random.default_rng(9).normal(size=(10 * TASKS, DIM)).astype(np.float32)
    names = np.array([f"task {i % TASKS:02d}" for i in range(len(vec_MD))])
    ids = np.arange(len(vec_MD), dtype=np.uint64)
    write_shard(
        folder / "targets", key, "part-000000", FeatureBatch(ids, ids.astype(np.int32), vec_MD, names), "float32"
    )
    return {"gib": sum(f.stat().st_size for f in (folder / "features").rglob("*.parquet")) / 2**30}


def read_step(folder: Path) -> dict[str, Any]:
    """The gradient files once, by pyarrow.dataset."""
    import pyarrow.dataset as ds

    data = ds.dataset(str(folder / "features" / "gradient"), format="parquet")
    begin = time.perf_counter()
    scanner = data.scanner(batch_size=4096, batch_readahead=4, fragment_readahead=2)
    rows = sum(batch.num_rows for batch in scanner.to_batches())
    return {"rows": rows, "read_s": time.perf_counter() - begin}


def score_step(name: str, **config: Any) -> Callable[[Path], dict[str, Any]]:
    """Scores of one selector, on disk."""

    def work(folder: Path) -> dict[str, Any]:
        from vinnow.select import registry, run

        begin = time.perf_counter()
        view = _view(folder, name)
        opened = time.perf_counter()
        scores = run.load_scores(view, registry.make(name, config), 0, str(folder))
        return {"rows": scores.num_rows, "view_s": opened - begin, "score_s": time.perf_counter() - opened}

    return work


def picks_step(folder: Path) -> dict[str, Any]:
    """Picks at five budgets by three selectors, from ready scores."""
    from vinnow.select import registry, run
    from vinnow.store.tables import SCORES, read_rows

    seconds: dict[str, float] = {}
    for name in ("less", "xmas", "stratified"):
        scores, selector = read_rows(folder / "scores" / f"{name}.parquet", SCORES), registry.make(name)
        begin = time.perf_counter()
        for budget in BUDGETS:
            wanted = run.budget_rows(budget, ROWS if scores.num_rows == ROWS else scores.num_rows)
            assert selector.pick(scores, wanted, 0).num_rows == wanted
        seconds[name] = time.perf_counter() - begin
    return {"pick_seconds": seconds, "in_all": sum(seconds.values())}


def export_step(folder: Path) -> dict[str, Any]:
    """The picks of LESS at 5 % as LLaVA's own JSON."""
    from vinnow.pipelines.runs.picking import export_picks
    from vinnow.select import run

    path = run.select(_view(folder, "less"), "less", {}, ["5%"], 0, str(folder))["5%"]
    return {"mib": Path(export_picks(str(folder / "pool"), path)).stat().st_size / 2**20}


def _view(folder: Path, name: str) -> Any:
    from vinnow.pipelines.runs.picking import make_view
    from vinnow.select import registry

    needs = registry.make(name).needs
    features = str(folder / "features") if needs.features else None
    return make_view(str(folder / "pool"), features, str(folder / "targets"), needs)


STEPS_OF = {
    "ingest": ingest_step,
    "features": features_step,
    "read": read_step,
    "less": score_step("less"),
    "xmas": score_step("xmas", niter=10),
    "stratified": score_step("stratified"),
    "picks": picks_step,
    "export": export_step,
}


def run_step(name: str, folder: str) -> dict[str, Any]:
    """Run one step in its own process; returns its seconds, peak memory in GiB, and what it says of itself."""
    step_row = one_side(__file__, "--step", name, "--folder", folder)
    print(name, step_row, file=sys.stderr, flush=True)
    return step_row


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=str(RESULTS / "select_scale.json"))
    arguments.add_argument("--step", choices=list(STEPS_OF))
    arguments.add_argument("--folder")
    arguments.add_argument("--rows", type=int, default=ROWS)
    asked = arguments.parse_args()
    if asked.step:
        begin = time.perf_counter()
        steps = STEPS_OF[asked.step](Path(asked.folder))
        print(json.dumps(steps | {"seconds": time.perf_counter() - begin}))
        return
    from make_pool import write_json

    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        write_json(Path(name) / "mix.json", asked.rows)
        steps = {step: run_step(step, name) for step in STEPS_OF}
        # again, the other way round: what was read last is in memory, as it was for LESS
        again = run_step("read", name)
    steps["read"]["read_s"] = min(steps["read"]["read_s"], again["read_s"])
    result = {
        "claim": "selection at 665,298 rows on a CPU: LESS scores beside reading the same files, picks, memory",
        "ratio": steps["less"]["score_s"] / steps["read"]["read_s"],
        "rows": asked.rows,
        "steps": steps,
        "machine": f"{os.cpu_count()} CPU cores",
        "versions": versions("numpy", "pyarrow", "faiss-cpu"),
    }
    write(result, asked.out)


if __name__ == "__main__":
    main()
