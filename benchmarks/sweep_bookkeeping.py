"""What a sweep of 1,000 trials costs beside its trainings: seconds a trial and memory, with stubs for training and answers.

A worker's process leaves at once what a training leaves (its report, its model's name) and answers that were made before:
this is the only part that is no real one. Picks, trials and their order, Tune with its loggers and callbacks, results,
gathering, status and the report's gathering are what every run has. 5 selectors × 8 budgets × 25 seeds, of a pool of 2,000
rows; the picks are drawn here. `seconds`: of each part, per trial; `peak_gib`: of the driver alone (its highest RSS).
`python benchmarks/sweep_bookkeeping.py [--trials 1000] [--concurrent 2]` writes benchmarks/results/sweep_bookkeeping.json.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import pyarrow as pa
from _measure import RESULTS, versions, write
from _rows import WORDS, ingested
from vinnow import __version__
from vinnow.actors.cluster import ensure_ray
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.specs import TinyModelConfig
from vinnow.pipelines.report.gather import gather
from vinnow.pipelines.runs import trial as trials_room
from vinnow.pipelines.runs import warm
from vinnow.pipelines.runs.choices import picked
from vinnow.pipelines.runs.config import RunConfig, resolve
from vinnow.pipelines.runs.opening import start
from vinnow.pipelines.runs.status import status
from vinnow.pipelines.runs.sweep import trials_of
from vinnow.pipelines.runs.sweep_stage import sweep_trials
from vinnow.pool.reader import Pool
from vinnow.select.run import budget_rows, picks_file
from vinnow.store.files import write_json
from vinnow.store.manifest import Manifest
from vinnow.store.tables import EVALS, PICKS, write_rows
from vinnow.train.run import REPORT

ROWS, QUESTIONS = 2000, 100
SELECTORS = ("random", "a", "b", "c", "d")


class Stub(warm.WarmTrial):
    """A process of a sweep in which trainings and answers are there at once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Put the stub into this process."""
        super().setup(config)
        trials_room.train, trials_room.ask = _trained, _asked


def _trained(config: Any, out: str, *_: Any) -> Any:
    from vinnow.train.run import TrainReport

    os.makedirs(out, exist_ok=True)
    model = os.path.join(out, "model")
    report = {"model": model, "steps": 3, "rows": 9, "loss": 1.0, "seconds": 0.0, "wall_seconds": 0.0}
    write_json(os.path.join(out, REPORT), report | {"rows_per_second": 1.0, "tokens": 9, "refused": 0})
    return TrainReport(**report, rows_per_second=1.0, tokens=9, refused=0)


def _asked(config: Any, trial: str, more: str, here: bool) -> Any:
    from vinnow.evaluate.config import EvalReport

    rng = np.random.default_rng(abs(hash(trial)) % 2**32)
    right = rng.random(QUESTIONS) < 0.7
    ids = [str(i) for i in Pool(config.pool).ids()]
    columns = {"run": [config.run] * QUESTIONS, "benchmark": ["exact_match"] * QUESTIONS, "task": ["t"] * QUESTIONS}
    columns |= {"sample": ids, "correct": right, "score": right.astype(float), "answer": ["x"] * QUESTIONS}
    columns |= {"reference": ["y"] * QUESTIONS, "cluster": [f"row:{i}" for i in ids]}
    folder = os.path.join(trial, "eval")
    table = pa.table(columns, schema=EVALS)
    write_rows(os.path.join(folder, "evals.parquet"), table, EVALS)
    key = {"pool": Pool(config.pool).digest}
    write_json(os.path.join(folder, "evals.json"), {"key": key, "refused": 0, "reasons": {}, "seconds": 0.0})
    return EvalReport(folder, QUESTIONS, accuracy=float(right.mean()), by_task={"t": float(right.mean())})


def prepared(folder: Path, count: int, concurrent: int) -> tuple[RunConfig, str]:
    """Make pools, a model and the config of a run with so many trials; returns the config and the model's folder."""
    rng = np.random.default_rng(0)
    for name, rows in (("pool", ROWS), ("test", QUESTIONS)):
        (folder / name / "images").mkdir(parents=True)
        said = [" ".join(rng.choice(WORDS, 12)) for _ in range(rows)]
        turns = [[{"from": "human", "value": s}, {"from": "gpt", "value": s[:9]}] for s in said]
        ingested(folder / name, [{"id": str(i), "conversations": t} for i, t in enumerate(turns)])
    seeds = count // (len(SELECTORS) * 8)
    values = {n: {"source": str(folder / n / "data.json")} for n in ("pool", "test")}
    values |= {"model": {"twin": {}}, "out": str(folder / "run"), "finetune": {"parts": ["projector"]}}
    values |= {"selectors": [{"name": "random", "label": s} for s in SELECTORS], "seeds": list(range(seeds))}
    values |= {"budgets": [f"{n}%" for n in (5, 10, 15, 20, 25, 30, 35, 40)]}
    values |= {"sweep": {"full": False, "concurrent": concurrent}, "ray": {"dashboard": False, "object_store_mb": 200}}
    texts = [" ".join(WORDS) + " USER: ASSISTANT: . , '"] * 50
    return resolve(values), build_tiny_model(str(folder / "twin"), texts, TinyModelConfig())


def choose(config: RunConfig, folder: Path) -> dict[tuple[str, str, int], str]:
    """Put the pools into the run's folder and draw its picks."""
    for name in ("pool", "test"):
        os.symlink(folder / name / "pool", Path(config.out) / name)
    ids, picks = Pool(f"{config.out}/pool").ids(), {}
    rng = np.random.default_rng(1)
    for choice in picked(config):
        rows = budget_rows(choice.budget, len(ids))
        path = f"{config.out}/picks/{picks_file(choice.selector, choice.budget, choice.seed)}"
        same = {"selector": [choice.selector] * rows, "budget": [rows] * rows, "seed": [choice.seed] * rows}
        order = {"sample_id": rng.choice(ids, rows, replace=False), "rank": range(rows)}
        write_rows(path, pa.table(order | {"group": [0] * rows, "score": [0.0] * rows} | same, schema=PICKS), PICKS)
        picks[choice.selector, choice.budget, choice.seed] = path
    return picks


def measure(count: int, concurrent: int) -> dict[str, Any]:
    """Return seconds of each part, per trial, and the driver's highest memory."""
    took: dict[str, float] = {}

    def timed(name: str, work: Any) -> Any:
        begin = time.perf_counter()
        result = work()
        took[name] = time.perf_counter() - begin
        return result

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, model = prepared(folder, count, concurrent)
        run = start(config)
        picks = choose(config, folder)
        ensure_ray(config.ray)
        trials = timed("trials", lambda: trials_of(config, picks, model))
        assert len(trials) == count, len(trials)
        with mock.patch("vinnow.pipelines.runs.sweeping.tuning.WarmTrial", Stub):
            timed("sweep", lambda: sweep_trials(run, trials))
        again = timed("again", lambda: trials_of(config, picks, model))
        timed("nothing to do", lambda: sweep_trials(run, again))
        timed("status", lambda: status(config.out))
        data = timed("report's gathering", lambda: gather(config.out))
        assert len(data.trials) == count, len(data.trials)
        assert Manifest(config.out, __version__).read("sweep")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    each = {name: round(seconds / count, 4) for name, seconds in took.items()}
    return {"trials": count, "seconds": each, "each": round(sum(took.values()) / count, 4), "peak_gib": round(peak, 2)}


def main() -> None:
    """Measure, with a tenth of the trials beside, to see what grows faster than they do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--out")
    asked = parser.parse_args()
    row: dict[str, Any] = {"claim": "seconds of a sweep's bookkeeping, per trial, when trainings take none"}
    row |= measure(asked.trials, asked.concurrent)
    print(json.dumps(row), flush=True)
    row |= {"concurrent": asked.concurrent, "machine": f"{os.cpu_count()} CPU cores", "versions": versions("ray")}
    write(row, asked.out or RESULTS / "sweep_bookkeeping.json")


if __name__ == "__main__":
    main()
