"""Training LLaVA-1.5-7B's shape: our Ray Train + DeepSpeed step against a bare Hugging Face + PEFT loop, in one run.

Random weights, LoRA r = 128 on every Linear of the LLM, and the projector, bf16, real JPEG files. The bare loop gets the
same rows, collated beforehand and lying in pinned memory, and torch's fused AdamW on bf16 weights; ours decodes pictures,
keeps float32 master weights and writes its log. `fixed`: every row has 776 tokens, a step is 16. `realistic`: log-normal
lengths, 6 % without a picture, a step is 8 × 16, gradient checkpointing; the bare loop takes rows as they come, ours groups
them by modality and length as LLaVA does.
`python benchmarks/training.py` measures every side that the GPUs at hand allow and writes benchmarks/results/training.json;
`--sides "ours;bare"` measures some again. `--tiny` tries it on a CPU.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions
from _rows import PICTURES, WORDS, ingested, write_pictures, write_random
from vinnow.actors.cluster import RayConfig, ensure_ray
from vinnow.models.family.of_llava.llms import LORA_TARGETS
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.load import DTYPES, load_processor
from vinnow.models.specs import TinyModelConfig
from vinnow.pool.templates import TEMPLATES
from vinnow.store.errors import VinnowError
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, Rows
from vinnow.train.order import Order
from vinnow.train.run import train

# a micro-batch; its number in a step of realistic rows; rows of the first steps, which are not counted
TOKENS, BATCH, MANY, WARM = 776, 16, 8, 64
LORA = {"parts": ["projector", "lora"], "lora": {"r": 128, "alpha": 256, "dropout": 0.05}}


def write_pool(folder: Path, rows: int, realistic: bool) -> str:
    """Write LLaVA records with pictures of 640 × 480, and ingest them; returns the pool."""
    rng = np.random.default_rng(0)
    write_pictures(folder, rng)
    records = []
    for i in range(rows):
        # a word is a token or two; fixed rows are cut at 776
        length = max(20, int(np.exp(rng.normal(5.3, 0.7)))) if realistic else 400
        asked, said = (" ".join(rng.choice(WORDS, n)) for n in (12, length))
        image = not (realistic and rng.random() < 0.06)
        turns = [{"from": "human", "value": "<image>\n" * image + asked}, {"from": "gpt", "value": said}]
        records.append({"id": str(i), "conversations": turns} | ({"image": f"{i % PICTURES}.jpg"} if image else {}))
    return ingested(folder, records)


def write_model(folder: Path, tiny: bool) -> str:
    """Write the model with random weights and a tokenizer that knows the pool's words; returns its folder."""
    texts = [" ".join(WORDS) + " USER: ASSISTANT: . , '", TEMPLATES["v1"].system] * 50
    twin = build_tiny_model(str(folder / "twin"), texts, TinyModelConfig(image=336, patch=14, max_len=4096))
    if tiny:
        return twin
    from _llava7b import config_7b

    write_random(config_7b(), load_processor(twin), folder / "base")
    torch.cuda.empty_cache()
    return str(folder / "base")


def make_config(where: dict[str, Any], realistic: bool, changes: dict[str, Any]) -> TrainConfig:
    """Return a training of some steps on one of the pools."""
    size = BATCH * changes.get("workers", 1) * (MANY if realistic else 1)
    base = {"model": where["model"], "pool": where["realistic" if realistic else "fixed"], "lr": 1e-5}
    base |= {"use_gpu": where["gpu"], "loader_workers": where["loaders"], "precision": "bfloat16"}
    base |= {"max_len": 2048 if realistic else TOKENS, "max_steps": where["steps"] // (4 if realistic else 1)}
    base |= {"global_batch": size, "micro_batch": BATCH}
    return TrainConfig.parse(base | LORA | changes)


def ours(where: dict[str, Any], name: str, realistic: bool = False, **changes: Any) -> dict[str, Any]:
    """Train by vinnow; returns rows and tokens per second after the first steps, and the peak memory of a GPU."""
    out = where["folder"] / name.replace(" ", "-")
    config = make_config(where, realistic, changes)
    begin = time.time()
    report = train(config, str(out))
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rest = rows[-(-WARM * config.workers // config.global_batch) :]
    spent = sum(r["seconds"] for r in rest)
    row = {
        "samples_per_s": config.global_batch * len(rest) / spent,
        "tokens_per_s": sum(r["tokens"] for r in rest) / spent,
        "peak_gb": report.gpu_gb,
        "first_loss": rows[0]["loss"],
        "trained": report.engine["trainable"],
        "wall_s": time.time() - begin,
        "zero": config.zero_stage,
        "workers": config.workers,
    }
    shutil.rmtree(out)
    print(name, json.dumps(row), flush=True)
    return row


def bare(config: TrainConfig) -> dict[str, Any]:
    """The other side: Hugging Face's forward and loss, PEFT's adapters, torch's AdamW; batches wait in memory."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlavaForConditionalGeneration

    device, dtype = "cuda" if config.use_gpu else "cpu", DTYPES[config.precision]
    torch.manual_seed(config.seed)
    model = LlavaForConditionalGeneration.from_pretrained(config.model, dtype=dtype).to(device)
    assert config.lora is not None
    lora = LoraConfig(r=config.lora.r, lora_alpha=config.lora.alpha, lora_dropout=0.05, target_modules=LORA_TARGETS)
    model = get_peft_model(model, lora, autocast_adapter_dtype=False).to(dtype)
    for name, p in model.named_parameters():
        p.requires_grad_(".lora_" in name or "multi_modal_projector" in name)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr=config.lr, fused=config.use_gpu)
    rows = Rows(config)
    order = Order(config.model_copy(update={"group_by_modality": False}), rows.has_image, rows.n_chars)
    batches = Batches(config, rows, load_processor(config.model), "/dev/null")
    steps = config.planned_steps(len(rows.ids))
    count, first = config.accumulation, WARM // config.global_batch * config.accumulation or config.accumulation
    ready = [batches.make(order.micro_batch(s, a, 0)) for s in range(steps) for a in range(count)]
    names = ("input_ids", "attention_mask", "labels")
    ready = [{n: b[n] for n in names} | b["media"] for b in ready]
    ready = [{n: v.pin_memory() if config.use_gpu else v for n, v in b.items()} for b in ready]
    model.train()
    spent, tokens, losses = [], [], []
    for number, batch in enumerate(ready):
        begin = time.perf_counter()
        moved = {n: v.to(device, dtype if v.is_floating_point() else None, non_blocking=True) for n, v in batch.items()}
        loss = model(**moved).loss
        (loss / count).backward()
        if (number + 1) % count == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss))  # waits, as a loop that logs its loss does
        spent.append(time.perf_counter() - begin)
        tokens.append(int(batch["attention_mask"].sum()))
    return {
        "samples_per_s": config.micro_batch * len(spent[first:]) / sum(spent[first:]),
        "tokens_per_s": sum(tokens[first:]) / sum(spent[first:]),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if config.use_gpu else None,
        "first_loss": losses[0],
    }


def bare_side(where: dict[str, Any], realistic: bool = False, **changes: Any) -> dict[str, Any]:
    """Run the bare loop in a process of its own."""
    config = make_config(where, realistic, changes)
    command = [sys.executable, __file__, "--bare", config.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the bare loop failed:\n{done.stderr[-3000:]}")
    row = json.loads(done.stdout.splitlines()[-1])
    print("bare", realistic, json.dumps(row), flush=True)
    return row


QLORA = {"lora": {"r": 64, "alpha": 16, "dropout": 0.05}, "quantise": "nf4"}
STEER = {"parts": ["projector", "mores"], "mores": {"rank": 4, "positions": "f4+l5"}, "lora": None}
# 16 realistic rows of up to 2,048 tokens do not fit without it
CHECKPOINTING = {"gradient_checkpointing": True}
IN_FULL = {"parts": ["projector", "language_model"], "lora": None, "zero_stage": 3} | CHECKPOINTING
# name: changes to the config; "bare …" is the other side, "… realistic" has the other rows
SIDES: dict[str, dict[str, Any]] = {
    "bare": {},
    "ours": {},
    "compiled": {"compile": True},
    "two GPUs": {"workers": 2},
    "two GPUs, ZeRO-3": {"workers": 2, "zero_stage": 3},
    "two GPUs, ZeRO-3 in full": {"workers": 2} | IN_FULL,
    "QLoRA": QLORA,
    "ZeRO-3": {"zero_stage": 3},
    "MoReS": STEER,
    "connector only": {"parts": ["projector"], "lora": None},
    "bare, realistic": CHECKPOINTING,
    "ours, realistic": CHECKPOINTING,
    "compiled, realistic": CHECKPOINTING | {"compile": True},
    "too much": {"micro_batch": 128, "global_batch": 128, "max_steps": 1, "warmup_ratio": 0.0},
}
RATIOS = {
    "ours / bare": ("ours", "bare"),
    "compiled / bare": ("compiled", "bare"),
    "two GPUs / one": ("two GPUs", "ours"),
    "ours / bare, realistic": ("ours, realistic", "bare, realistic"),
    "compiled / bare, realistic": ("compiled, realistic", "bare, realistic"),
}


def measure(where: dict[str, Any], name: str) -> dict[str, Any]:
    """Run one side."""
    changes, realistic = SIDES[name], "realistic" in name
    if name.startswith("bare"):
        return bare_side(where, realistic, **changes)
    try:
        return ours(where, name, realistic, **changes)
    except VinnowError as error:
        if name != "too much":
            raise
        return {"said": str(error)}


def main() -> None:
    """Measure the sides that were asked for and write each into the row as it is done."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=str(RESULTS / "training.json"))
    arguments.add_argument("--sides", help="names, separated by semicolons; without it all that the GPUs allow")
    arguments.add_argument("--steps", type=int, default=16)
    arguments.add_argument("--folder", help="keep the model here, for the next run")
    arguments.add_argument("--loaders", type=int, default=4, help="loader_workers of ours")
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--bare")
    asked = arguments.parse_args()
    if asked.bare:
        print(json.dumps(bare(TrainConfig.parse(json.loads(asked.bare)))))
        return
    gpus = torch.cuda.device_count()
    if not gpus and not asked.tiny:
        print("benchmarks/training.py needs a CUDA GPU of at least 120 GB, two for some rows; skipped")
        return
    possible = [n for n, changes in SIDES.items() if changes.get("workers", 1) <= max(1, gpus)]
    sides = asked.sides.split(";") if asked.sides else possible
    kept = {"rows": {}}
    if asked.sides and Path(asked.out).is_file():
        kept = json.loads(Path(asked.out).read_text())
    machine = f"{torch.cuda.get_device_name() if gpus else 'CPU, tiny: no result'}, {os.cpu_count()} CPU cores"
    with tempfile.TemporaryDirectory() as name:
        where = prepare(Path(name), Path(asked.folder or name), asked.steps, asked.tiny)
        where["loaders"] = asked.loaders
        ensure_ray(RayConfig(object_store_mb=400 if asked.tiny else 8_000, dashboard=False))
        for side in sides:
            kept["rows"][side] = measure(where, side)
            ours_first = {n: kept["rows"][n]["tokens_per_s"] for n in kept["rows"] if n != "too much"}
            # a fixed row has as many tokens on both sides; of realistic ones the first steps, which do not count, differ
            kept["ratios"] = {
                n: ours_first[a] / ours_first[b] for n, (a, b) in RATIOS.items() if {a, b} <= set(ours_first)
            }
            kept["ratio"] = kept["ratios"].get("ours / bare")
            kept["claim"] = "training steps of LLaVA-1.5-7B's shape, LoRA r=128 + projector, 776 tokens, 16 rows, bf16"
            kept["machine"] = machine
            kept["versions"] = versions("torch", "transformers", "peft", "deepspeed", "ray")
            Path(asked.out).write_text(json.dumps(kept, indent=2) + "\n")
    print(json.dumps(kept, indent=2))


def prepare(folder: Path, kept: Path, steps: int, tiny: bool) -> dict[str, Any]:
    """Write the model, unless an earlier run has left it, and both pools; returns where all is."""
    begin, most = time.time(), steps * BATCH * 2
    where: dict[str, Any] = {"folder": folder, "steps": steps, "gpu": torch.cuda.is_available()}
    done = kept / "base" / "processor_config.json"  # written last
    where["model"] = str(kept / "base") if done.is_file() else write_model(kept, tiny)
    where["fixed"] = write_pool(folder / "fixed", most, realistic=False)
    where["realistic"] = write_pool(folder / "realistic", most, realistic=True)
    print(f"model and pools written in {time.time() - begin:.0f} s", flush=True)
    return where


if __name__ == "__main__":
    main()
