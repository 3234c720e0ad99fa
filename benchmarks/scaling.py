"""The whole feature stage on 1 and on 2 GPUs of one host: pool on disk, loaders, actor pool, store; rows per second.

Random weights, real JPEG files, some 776 tokens per row: gradients of LLaVA-1.5-7B's shape with a LoRA adapter, or
trajectories of XMAS's 1.95B proxy shape. What starts up (Ray, reading weights) is left out: rows are counted from when
every actor has finished a part until the first one has none left. `python benchmarks/scaling.py [--kind trajectory]` writes
benchmarks/results/scaling.json (scaling_trajectory.json); fewer than 2 GPUs: it says so.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _llava7b import config_7b, fill_b
from _measure import RESULTS, versions, write
from _rows import PICTURES, WORDS, ingested, write_pictures, write_random
from vinnow.actors.cluster import RayConfig, ensure_ray
from vinnow.actors.config import ActorResources, CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_features
from vinnow.models.family.of_llava.llms import LORA_TARGETS
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.load import load_processor
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.specs import TinyModelConfig


def write_pool(folder: Path, rows: int) -> str:
    """Write LLaVA records with pictures of 640 × 480, and ingest them; returns the pool."""
    rng = np.random.default_rng(0)
    write_pictures(folder, rng)
    records = []
    for i in range(rows):
        question, answer = (" ".join(rng.choice(WORDS, n)) for n in (28, 56))
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        records.append({"id": str(i), "image": f"{i % PICTURES}.jpg", "conversations": turns})
    return ingested(folder, records)


def write_processor(folder: Path):
    """Return a processor whose tokenizer knows the pool's words and whose pictures become 576 tokens."""
    texts = [" ".join(WORDS) + " USER: ASSISTANT: . , '"] * 50
    return load_processor(build_tiny_model(str(folder / "twin"), texts, TinyModelConfig(image=336, patch=14)))


def write_proxy(folder: Path) -> str:
    """Write the proxy; returns its folder."""
    from trajectories import proxy_config

    write_random(proxy_config(), write_processor(folder), folder / "proxy")
    torch.cuda.empty_cache()
    return str(folder / "proxy")


def write_adapter(folder: Path) -> str:
    """Write the 7B model and a LoRA adapter on it; returns the adapter's folder."""
    from peft import LoraConfig, get_peft_model

    processor, base = write_processor(folder), str(folder / "base")
    model = write_random(config_7b(), processor, folder / "base")
    wrapped = get_peft_model(model, LoraConfig(r=128, lora_alpha=256, target_modules=LORA_TARGETS))
    fill_b(wrapped)
    wrapped.peft_config["default"].base_model_name_or_path = base
    wrapped.save_pretrained(str(folder / "adapter"))
    processor.save_pretrained(str(folder / "adapter"))
    del model, wrapped
    torch.cuda.empty_cache()
    return str(folder / "adapter")


def rate(spec, gpus: int) -> dict[str, float]:
    """Run the stage on so many GPUs; returns rows and tokens per second while all of them were at work."""
    begin = time.time()
    resources = ActorResources(actors=gpus, gpus_per_actor=1, cpus_per_actor=1, loaders=6 * gpus, threads=2)
    report = run_features(spec, resources)
    parts = sorted(Path(spec.out).rglob("part-*.parquet"), key=lambda p: p.stat().st_mtime)
    done = [p.stat().st_mtime for p in parts]
    # the first parts wait for the slowest start, during the last ones a GPU may be idle
    window = done[2 * gpus : len(done) - gpus + 1]
    rows = spec.config.rows_per_part * (len(window) - 1)
    seconds = window[-1] - window[0]
    tokens = report.tokens / report.rows
    return {
        "rows_per_s": rows / seconds,
        "tokens_per_row": tokens,
        "window_s": seconds,
        "startup_s": done[0] - begin,
        "rows": report.rows,
    }


GRADIENT = FeatureConfig(
    which="projector+lora",
    projection=ProjectionConfig(kind="sjlt"),
    precision="bfloat16",
    dtype="float16",
    token_budget=16 * 800,
    max_rows=16,
    rows_per_part=64,
)
TRAJECTORY = FeatureConfig(
    kind="trajectory", precision="bfloat16", token_budget=32 * 800, max_rows=32, rows_per_part=128
)
# kind: config, how its checkpoint is written, rows for 2 GPUs, claim
KINDS = {
    "gradient": (
        GRADIENT,
        write_adapter,
        1536,
        "the feature stage (projector + LoRA gradients, sjlt, 7B shape) on 2 GPUs of one host against 1",
    ),
    "trajectory": (
        TRAJECTORY,
        write_proxy,
        10240,
        "the feature stage (attention trajectories, 1.95B proxy shape) on 2 GPUs of one host against 1",
    ),
}


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kind", choices=list(KINDS), default="gradient")
    arguments.add_argument("--out")
    arguments.add_argument("--rows", type=int)
    asked = arguments.parse_args()
    config, write_checkpoint, rows, claim = KINDS[asked.kind]
    rows = asked.rows or rows
    gpus = torch.cuda.device_count()
    if gpus < 2:
        print("benchmarks/scaling.py needs 2 CUDA GPUs of at least 80 GB; skipped")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.time()
        checkpoint = write_checkpoint(folder)
        print(f"checkpoint written in {time.time() - begin:.0f} s", flush=True)
        ensure_ray(RayConfig(object_store_mb=16_000, dashboard=False))
        rates = {}
        for n, pool in ((2, write_pool(folder / "whole", rows)), (1, write_pool(folder / "half", rows // 2))):
            spec = make_spec(pool, [CheckpointRef(1, checkpoint)], config, str(folder / f"features-{n}"))
            rates[n] = rate(spec, n)
            print(n, rates[n], flush=True)
    result = {
        "claim": claim,
        "ratio": rates[2]["rows_per_s"] / rates[1]["rows_per_s"],
        "gpus": rates,
        "machine": f"{gpus} x {torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores",
        "versions": versions("torch"),
    }
    name = "scaling" if asked.kind == "gradient" else f"scaling_{asked.kind}"
    write(result, asked.out or RESULTS / f"{name}.json")


if __name__ == "__main__":
    main()
