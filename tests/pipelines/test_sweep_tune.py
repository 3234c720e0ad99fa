"""Trials on Ray Tune with less to run on than they ask for together, and what no cluster can give."""

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from commands import python_line
from vinnow.evaluate.config import EvalConfig
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.sweep import run_sweep
from vinnow.pipelines.runs.trial import Trial
from vinnow.store.errors import InputError
from vinnow.train.config import TrainConfig

TESTS = Path(__file__).parents[1]
SCRIPT = """
import json, os, sys, time
tests, folder = sys.argv[1:]
sys.path[:0] = [tests, tests + "/pipelines"]
import ray
from pathlib import Path
from finished import values_of
from vinnow.actors.forks.start import forked_workers
from vinnow.evaluate.config import EvalConfig
from vinnow.pipelines.runs import sweep
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.sweeping import tuning
from vinnow.pipelines.runs.trial import Trial
from vinnow.pool.ingest import ingest
from vinnow.store.files import write_json
from vinnow.train.config import TrainConfig

def trained(values):
    # a trial whose steps alone are left out: Ray Train, its workers and what they hold are real
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    words = json.loads(values["trial"])
    def loop(config):
        import ray, ray.train
        ids = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        assert len(ids) == 1, ids
        start = time.time()
        time.sleep(0.5)
        if ray.train.get_context().get_world_rank() == 0:
            write_json(os.path.join(config["folder"], "held.json"), {"from": start, "to": time.time()})
    DataParallelTrainer(
        loop,
        train_loop_config={"folder": words["folder"]},
        scaling_config=ScalingConfig(num_workers=2, use_gpu=True, resources_per_worker={"CPU": 1, "GPU": 1}),
        run_config=RunConfig(name="ray", storage_path=words["folder"]),
    ).fit()
    result = {"selector": "random", "budget": "1", "seed": words["seed"], "run": words["name"], "rows": 1}
    write_json(os.path.join(words["folder"], "result.json"), result | {"train_seconds": 0.5, "eval_seconds": 0.0})
    from ray import tune
    tune.report({"done": True})

tuning.cold = trained
folder = Path(folder)
values = values_of(folder) | {"sweep": {"concurrent": 3, "full": False}, "seeds": [0, 1, 2]}
config = resolve(values)
ingest(config.test, config.out + "/test")
with forked_workers(True):
    ray.init(address="local", num_cpus=3, num_gpus=2, object_store_memory=200_000_000, include_dashboard=False,
             log_to_driver=False, logging_level="ERROR")
trials = []
for seed in range(3):
    name = f"t{seed}"
    training = TrainConfig(model="m", pool="p", workers=2, use_gpu=True, seed=seed, global_batch=32)
    asked = EvalConfig(model="m", pool=config.out + "/test", run=name)
    trials.append(Trial(name, "random", "1", seed, os.path.join(config.out, "sweep", name), training, asked))
sweep.run_sweep(config, trials)
spans = [json.loads(Path(t.folder, "held.json").read_text()) for t in trials]
print(json.dumps(sorted((s["from"], s["to"]) for s in spans)))
"""


@pytest.mark.timeout(240)
def test_more_trials_than_logical_gpus_wait_for_each_other_and_all_end(tmp_path):
    """Three trials of two workers with a GPU each, and two GPUs: no machine here has one, Ray only counts them."""
    command = [*python_line(), "-c", SCRIPT, str(TESTS), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, timeout=200)
    assert said.returncode == 0, said.stderr[-3000:]
    spans = json.loads(said.stdout.splitlines()[-1])
    assert len(spans) == 3
    assert all(after[0] >= before[1] for before, after in pairwise(spans)), spans


def test_what_no_cluster_here_can_give_is_refused_by_name_before_any_trial_begins(
    tiny_pool, tiny_model, target_pool, ray_cluster, tmp_path
):
    from finished import values_of

    run = resolve(values_of(tmp_path) | {"out": str(tmp_path / "out"), "sweep": {"full": False}})
    training = {
        "model": tiny_model,
        "pool": tiny_pool,
        "global_batch": 8,
        "micro_batch": 1,
        "max_steps": 2,
        "max_len": 256,
    }
    fits = trial_of(run, "fits", training, target_pool)
    for changes, words in (
        ({"workers": 8}, r"trial wide asks for 8 × \(1 CPU\)"),
        ({"use_gpu": True}, r"trial wide asks for 1 × \(1 GPU, 1 CPU\)"),
    ):
        with pytest.raises(InputError, match=words):
            run_sweep(run, [fits, trial_of(run, "wide", training, target_pool, **changes)])
    asking = trial_of(run, "asking", training, target_pool)
    many = asking.evaluate.model_copy(update={"actors": 9, "rows_per_part": 1})
    object.__setattr__(asking, "evaluate", many)
    with pytest.raises(InputError, match=r"answering in trial asking asks for 9 × \(1 CPU\)"):
        run_sweep(run, [fits, asking])
    assert not (tmp_path / "out" / "sweep").exists()


def trial_of(run, name, training, pool, **changes):
    folder = f"{run.out}/sweep/{name}"
    asked = EvalConfig(model=f"{folder}/train/model", pool=pool, run=name, max_new_tokens=4)
    return Trial(name, "random", "10%", 0, folder, TrainConfig.parse(training | changes), asked)
