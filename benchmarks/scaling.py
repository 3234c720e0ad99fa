"""The whole feature stage on 1 and on 2 GPUs of one host: pool on disk, loaders, actor pool, store; rows per second.

Random weights, real JPEG files, some 776 tokens per row: gradients of LLaVA-1.5-7B's shape with a LoRA adapter, or
trajectories of XMAS's 1.95B proxy shape, or gradients of Qwen2.5-VL-7B's shape and merger. What starts
up (Ray, reading weights) is left out: rows are counted from when
every actor has finished a part until the first one has none left. In that time the driver says how much of it each GPU had
a kernel running (utilisation, five times a second): the rest it waited. `python benchmarks/scaling.py [--kind trajectory]`
writes benchmarks/results/scaling.json (scaling_trajectory.json); fewer than 2 GPUs: it says so.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
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


def write_qwen(folder: Path) -> str:
    """Write Qwen2.5-VL of 7B's shape, random weights; returns its folder. Pictures of 640 × 480 become some 391 tokens."""
    from transformers import AutoConfig, Qwen2_5_VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from vinnow.models.registry import families

    family = families()["qwen2_5_vl"]
    tiny = family.tiny(str(folder / "tiny"), [" ".join(WORDS)] * 50)
    processor, small = family.load_processor(Path(tiny)), AutoConfig.from_pretrained(tiny)
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    text |= {"num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 32768}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}}
    names = ("image_token_id", "vision_start_token_id", "vision_end_token_id", "video_token_id")
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **{n: getattr(small, n) for n in names})
    processor.image_processor = Qwen2VLImageProcessorPil()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = family.class_of(config)._from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(str(folder / "qwen"))
    processor.save_pretrained(str(folder / "qwen"))
    del model
    torch.cuda.empty_cache()
    return str(folder / "qwen")


class Busy(threading.Thread):
    """Asks the driver how busy each GPU is, five times a second: (time, share of it with a kernel running, by GPU)."""

    ASK = "nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits --loop-ms=200"

    def __init__(self, gpus: int) -> None:
        super().__init__(daemon=True)
        self.gpus, self.seen = gpus, list[tuple[float, list[float]]]()
        self.process = subprocess.Popen(self.ASK.split(), stdout=subprocess.PIPE, text=True)
        self.start()

    def run(self) -> None:
        """Read until the process ends."""
        lines: list[float] = []
        for line in self.process.stdout or ():
            lines.append(float(line) / 100)
            if len(lines) == torch.cuda.device_count():
                self.seen.append((time.time(), lines[: self.gpus]))
                lines = []

    def idle(self, first: float, last: float) -> float:
        """Return the mean share of the time from `first` to `last` in which a GPU waited."""
        self.process.terminate()
        shares = [s for when, s in self.seen if first <= when <= last]
        return 1 - float(np.mean(shares))


def rate(spec, gpus: int) -> dict[str, float]:
    """Run the stage on so many GPUs; returns rows and tokens per second while all of them were at work."""
    begin, busy = time.time(), Busy(gpus)
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
        "gpu_waits": busy.idle(window[0], window[-1]),
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
QWEN = GRADIENT.model_copy(update={"which": "projector"})
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
    "qwen": (
        QWEN,
        write_qwen,
        1536,
        "the feature stage (merger gradients, sjlt, Qwen2.5-VL-7B's shape) on 2 GPUs of one host against 1",
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
