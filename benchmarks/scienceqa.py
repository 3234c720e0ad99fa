"""ScienceQA in 1,000 of 12,726 records: the run recipe `scienceqa-mistral` from pool to report, on a CPU, with a tiny twin.

Records are generated in the official layout (make_scienceqa.py: texts made up, pictures a few shapes), and the
model is a Mistral-shaped LLaVA of random weights: what the choices hold is counted as it would be of the real set,
accuracies only say that every stage works. The recipe's own numbers stay but for those in OVERRIDES.

    python benchmarks/scienceqa.py [--rows N] [--folder SCRATCH] [--out ROW.json]
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import RESULTS, versions, write
from make_scienceqa import ROWS, problems
from make_scienceqa import write as make

TEST_ROWS, CAPTIONS, BUDGET = 500, 1280, 1000
# one process a training, float32, no GPU
CPU = {"use_gpu": False, "workers": 1, "precision": "float32", "gradient_checkpointing": False, "loader_workers": 0}
CPU |= {"cache_mb": 200}
# 3 of the 15 epochs; a random model learns nothing at the recipe's rate of 2e-5, so the twin has the demo's
OVERRIDES: dict[str, Any] = {
    "ray": {"num_cpus": 4, "object_store_mb": 600},
    "model": {"twin": {"llm": "mistral", "init_std": 0.1}},
    "features.0": {"precision": "float32"},
    "actors": {"actors": 2, "gpus_per_actor": 0, "loaders": 0},
    "warmup.0.train": CPU,
    "finetune": CPU | {"zero_stage": 2, "epochs": 3, "lr": 2e-3, "micro_batch": 32},
    "evaluate": {"precision": "float32", "gpus_per_actor": 0, "rows_per_part": TEST_ROWS},
    "sweep.concurrent": 2,
}


def sources(folder: Path, rows: int) -> list[str]:
    """Write the training records, a test set of other records, and captions; return them as `--set` entries."""
    pool = make(str(folder / "sqa"), rows)
    test = make(str(folder / "test"), TEST_ROWS, seed=1)
    shown = [(pid, p) for pid, p in problems(rows) if p["image"]][:CAPTIONS]
    captions = [
        {
            "id": pid,
            "image": f"{pid}/image.png",
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe the picture."},
                {"from": "gpt", "value": f"Shapes on the ground of {p['topic']}."},
            ],
        }
        for pid, p in shown
    ]
    (folder / "captions.json").write_text(json.dumps(captions))
    fields_of_run = {
        "out": str(folder / "run"),
        "pool.source": pool,
        "test": {"source": test, "split": "train", "layout": "test"},
        "captions": {"source": str(folder / "captions.json"), "image_root": str(folder / "sqa/images/train")},
        "model": OVERRIDES["model"],
        "budgets": [min(BUDGET, rows // 4)],
    }
    for place, fields in OVERRIDES.items():
        if place == "model":
            continue
        if isinstance(fields, dict):
            fields_of_run |= {f"{place}.{name}": value for name, value in fields.items()}
        else:
            fields_of_run[place] = fields
    return [f"{name}={json.dumps(value)}" for name, value in fields_of_run.items()]


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """Run the recipe and return its row, from what the run left."""
    from vinnow.pipelines.report.composition import short_rows
    from vinnow.pipelines.report.gather import gather
    from vinnow.pipelines.report.headline import headline
    from vinnow.pipelines.runs.config import load_run
    from vinnow.pipelines.runs.run import run_stages

    sets = sources(folder, rows)
    begin = time.perf_counter()
    config = load_run("scienceqa-mistral", sets)
    run_stages(config)
    seconds = time.perf_counter() - begin
    data = gather(config.out)
    names = ["pool", *(name.rsplit(" ", 1)[0] for name in data.composition[0].choices)]
    assert data.majority is not None
    return {
        "claim": "the two selections of 1,000 and the fine-tunes of LLaVA on Mistral for ScienceQA run from one recipe; "
        "generated records, a tiny random model: counts are what the selectors do, accuracies that it works",
        "recipe": {
            k: getattr(config.finetune, k) for k in ("epochs", "lr", "global_batch", "weight_decay", "template")
        },
        "rows": rows,
        "choices": names,
        "in_short": dict(short_rows(data.composition)),
        "rows_by_value": {
            one.field: {"pool": spread(one.pool)} | {n: spread(c) for n, c in zip(names[1:], one.choices.values())}
            for one in data.composition
        },
        "test_rows": TEST_ROWS,
        "commonest_answer": data.majority.overall,
        "accuracy": {r.selector: [r.accuracy.estimate, r.accuracy.low, r.accuracy.high] for r in headline(data.trials)},
        "seconds": seconds,
        "stages_s": {stage.name: stage.seconds for stage in data.stages},
        "machine": f"{os.cpu_count()} CPU cores",
        "versions": versions("ray", "torch", "transformers", "deepspeed"),
    }


def spread(counts: dict[str, int]) -> list[int]:
    """Return [how many values, rows of the rarest, of the middle one, of the commonest]."""
    ordered = sorted(counts.values())
    return [len(ordered), ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def main() -> None:
    """Run and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=str(RESULTS / "scienceqa.json"))
    arguments.add_argument("--folder", help="where to work; kept if given")
    arguments.add_argument("--rows", type=int, default=ROWS)
    asked = arguments.parse_args()
    if asked.folder:
        write(measure(Path(asked.folder), asked.rows), asked.out)
        return
    with tempfile.TemporaryDirectory() as name:
        write(measure(Path(name), asked.rows), asked.out)


if __name__ == "__main__":
    main()
