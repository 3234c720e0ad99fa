"""What a sweep costs beside its trainings: seconds per trial, warm (one process stays) and cold (Ray Train, Ray Data).

Trials of a two-layer model on generated pictures, a few steps each, so that nearly all is start-up, checks, saving and
loading. Own cost = wall time of `run_sweep`, starting its processes included, less the seconds of the training steps, over
the trials; answering 32 questions counts as own cost. Cold: the same trials marked as such, fewer of them. `memory`: what
the process held (GB) after its second and after its last trial; `processes`: how many did the warm trials.
`python benchmarks/sweep_overhead.py [--gpu] [--trials 20] [--concurrent 1]` writes benchmarks/results/sweep_overhead.json
(sweep_overhead_gpu.json).
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import psutil

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import torch
from _measure import RESULTS, versions, write
from _rows import PICTURES, WORDS, ingested, write_pictures
from vinnow.actors.cluster import ensure_ray
from vinnow.evaluate.config import EvalConfig
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.specs import TinyModelConfig
from vinnow.pipelines.runs import warm
from vinnow.pipelines.runs.config import RunConfig, resolve
from vinnow.pipelines.runs.sweep import Trial, run_sweep
from vinnow.pipelines.runs.sweeping import tuning
from vinnow.store.files import read_json
from vinnow.train.config import TrainConfig
from vinnow.train.run import TrainReport


def prepare(folder: Path) -> tuple[str, str, str]:
    """Write a pool of 256 rows, one of 32 questions, and a model; return their folders."""
    rng, pools = np.random.default_rng(0), []
    for name, rows in (("pool", 256), ("test", 32)):
        write_pictures(folder / name, rng)
        records = []
        for i in range(rows):
            question, answer = (" ".join(rng.choice(WORDS, n)) for n in (8, 2))
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
            records.append({"id": str(i), "image": f"{i % PICTURES}.jpg", "conversations": turns})
        pools.append(ingested(folder / name, records))
    texts = [" ".join(WORDS) + " USER: ASSISTANT: . , '"] * 50
    return pools[0], pools[1], build_tiny_model(str(folder / "twin"), texts, TinyModelConfig())


def trials_of(out: str, places: tuple[str, str, str], asked: argparse.Namespace, count: int) -> list[Trial]:
    """Return trials that differ in their seed."""
    pool, test, model = places
    base = {"model": model, "pool": pool, "global_batch": 16, "micro_batch": 16, "lr": 1e-3, "max_steps": 8}
    where = {"use_gpu": True, "precision": "bfloat16"} if asked.gpu else {}
    on = {"gpus_per_actor": 1, "precision": "bfloat16"} if asked.gpu else {}
    trials = []
    for seed in range(count):
        folder = os.path.join(out, "sweep", f"t{seed}")
        scoring = EvalConfig(model=f"{folder}/train/model", pool=test, run=f"t{seed}", max_new_tokens=4, **on)
        training = TrainConfig.parse(base | where | {"seed": seed})
        trials.append(Trial(f"t{seed}", "random", "10%", seed, folder, training, scoring))
    return trials


def run_config(folder: Path, out: str, concurrent: int) -> RunConfig:
    """Return a run's config, for its folder, its Ray and how many trials run at a time."""
    source = str(folder / "pool" / "data.json")
    values = {"pool": {"source": source}, "test": {"source": source}, "model": {"twin": {}}, "out": out}
    values |= {"selectors": [{"name": "random"}], "budgets": ["10%"], "finetune": {"parts": ["projector"]}}
    return resolve(values | {"sweep": {"concurrent": concurrent}, "ray": {"dashboard": False}})


def measure(config: RunConfig, trials: list[Trial]) -> dict[str, float]:
    """Run a sweep; return seconds per trial, in all and without its steps, processes and their memory."""
    held: dict[str, float] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            for trial in trials:
                facts = Path(trial.folder, "train", "engine.json")
                if facts.exists() and trial.name not in held and Path(trial.folder, "result.json").exists():
                    pid = read_json(facts)["pid"]
                    held[trial.name] = psutil.Process(pid).memory_info().rss / 1e9 if psutil.pid_exists(pid) else 0.0

    thread = threading.Thread(target=watch)
    thread.start()
    begin = time.perf_counter()
    run_sweep(config, trials)
    wall = time.perf_counter() - begin
    stop.set()
    thread.join()
    reports = [TrainReport.read(f"{t.folder}/train") for t in trials]
    lanes = config.sweep.concurrent
    kept = [v for v in held.values() if v]
    return {
        "trials": len(trials),
        "wall": round(wall, 2),
        "own": round((wall * lanes - sum(r.seconds for r in reports)) / len(trials), 3),
        "processes": len({r.engine["pid"] for r in reports}),
        "memory": [round(kept[min(1, len(kept) - 1)], 3), round(kept[-1], 3)] if kept else [],
    }


def main() -> None:
    """Measure both sides."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--cold", type=int, default=4)
    parser.add_argument("--concurrent", type=int, default=1)
    parser.add_argument("--out")
    asked = parser.parse_args()
    name = "sweep_overhead_gpu" if asked.gpu else "sweep_overhead"
    row: dict = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        places = prepare(folder)
        for side, count in (("warm", asked.trials), ("cold", asked.cold)):
            if not count:
                continue
            out = str(folder / side)
            os.makedirs(out)
            config = run_config(folder, out, asked.concurrent)
            ensure_ray(config.ray)
            stays = {"is_warm": lambda trial, side=side: side == "warm"}
            with mock.patch.multiple(warm, **stays), mock.patch.multiple(tuning, **stays):
                row[side] = measure(config, trials_of(out, places, asked, count))
            print(side, row[side], flush=True)
    row["ratio"] = round(row["cold"]["own"] / row["warm"]["own"], 2) if "cold" in row else None
    row["claim"] = "seconds of a sweep beside its training steps, per trial"
    row["machine"] = torch.cuda.get_device_name() if asked.gpu else f"{os.cpu_count()} CPU cores"
    row |= {"concurrent": asked.concurrent, "versions": versions("ray", "torch", "deepspeed")}
    write(row, asked.out or RESULTS / f"{name}.json")


if __name__ == "__main__":
    main()
