"""Training LLaVA-1.5-7B's shape: our Ray Train + DeepSpeed step against a bare Hugging Face + PEFT loop, in one run.

Random weights, LoRA r = 128 on every Linear of the LLM, and the projector, bf16, real JPEG files. The bare loop gets the
same rows, collated beforehand and lying in pinned memory, and torch's fused AdamW on bf16 weights; ours decodes pictures,
keeps float32 master weights and writes its log. `fixed`: every row has 776 tokens, a step is 16. `realistic`: log-normal
lengths, 6 % without a picture, a step is 8 × 16, gradient checkpointing; the bare loop takes rows as they come, ours groups
them by modality and length as LLaVA does.
`python benchmarks/training.py` measures both on one GPU, to benchmarks/results/training.json; `--recipes` other kinds
of training (training_recipes.json), `--gpus 2` one GPU against two (training_scaling.json). `--tiny` tries it on a CPU.
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
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions, write
from vinnow.actors.cluster import RayConfig, ensure_ray
from vinnow.models.load import DTYPES, load_processor
from vinnow.models.parts import LORA_TARGETS
from vinnow.models.tiny import TwinConfig, build_twin
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.templates import TEMPLATES
from vinnow.store.errors import VinnowError
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, Rows
from vinnow.train.order import Order
from vinnow.train.run import train

TEXT = "the a red blue cat dog stands on under near table chair what colour is how many things do you see"
WORDS = TEXT.split()
# a micro-batch; its number in a step of realistic rows; rows of the first steps, which are not counted
TOKENS, BATCH, MANY, WARM = 776, 16, 8, 64
LORA = {"parts": ["projector", "lora"], "lora": {"r": 128, "alpha": 256, "dropout": 0.05}}
MORES = {"rank": 4, "positions": "f4+l5"}


def write_pool(folder: Path, rows: int, realistic: bool) -> str:
    """Write LLaVA records with pictures of 640 × 480, and ingest them; returns the pool."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for i in range(64):
        low = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(low).resize((640, 480)).save(folder / "images" / f"{i}.jpg")
    records = []
    for i in range(rows):
        # a word is a token or two; fixed rows are cut at 776
        length = max(20, int(np.exp(rng.normal(5.3, 0.7)))) if realistic else 400
        asked, said = (" ".join(rng.choice(WORDS, n)) for n in (12, length))
        image = not (realistic and rng.random() < 0.06)
        turns = [{"from": "human", "value": "<image>\n" * image + asked}, {"from": "gpt", "value": said}]
        records.append({"id": str(i), "conversations": turns} | ({"image": f"{i % 64}.jpg"} if image else {}))
    (folder / "data.json").write_text(json.dumps(records))
    ingest(IngestConfig(source=str(folder / "data.json"), image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


def write_model(folder: Path, tiny: bool) -> str:
    """Write the model with random weights and a tokenizer that knows the pool's words; returns its folder."""
    texts = [" ".join(WORDS) + " USER: ASSISTANT: . , '", TEMPLATES["v1"].system] * 50
    twin = build_twin(str(folder / "twin"), texts, TwinConfig(image=336, patch=14, max_len=4096))
    if tiny:
        return twin
    from _llava7b import config_7b, on_gpu

    processor, config = load_processor(twin), config_7b()
    config.image_token_index = config.image_token_id = processor.image_token_id
    model = on_gpu(config)
    model.save_pretrained(str(folder / "base"))
    processor.save_pretrained(str(folder / "base"))
    del model
    torch.cuda.empty_cache()
    return str(folder / "base")


def make_config(where: dict[str, Any], realistic: bool, changes: dict[str, Any]) -> TrainConfig:
    """Return a training of some steps on one of the pools."""
    size = BATCH * changes.get("workers", 1) * (MANY if realistic else 1)
    base = {"model": where["model"], "pool": where["realistic" if realistic else "fixed"], "lr": 1e-5}
    base |= {"use_gpu": where["gpu"], "loader_workers": 4, "precision": "bfloat16"}
    base |= {"max_len": 2048 if realistic else TOKENS, "max_steps": where["steps"] // (4 if realistic else 1)}
    base |= {"global_batch": size, "micro_batch": BATCH}
    return TrainConfig.parse(base | LORA | changes)


def ours(where: dict[str, Any], name: str, realistic: bool = False, **changes: Any) -> dict[str, Any]:
    """Train by vinnow; returns rows and tokens a second after the first steps, and the peak memory of a GPU."""
    out = where["folder"] / name.replace(" ", "-")
    config = make_config(where, realistic, changes)
    begin = time.time()
    report = train(config, str(out))
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rest = rows[-(-WARM * config.workers // config.global_batch) :]
    spent = sum(r["seconds"] for r in rest)
    found = {
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
    print(name, json.dumps(found), flush=True)
    return found


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
    made = [batches.make(order.micro_batch(s, a, 0)) for s in range(steps) for a in range(count)]
    names = ("input_ids", "attention_mask", "labels", "pixel_values")
    made = [{n: b[n].pin_memory() if config.use_gpu else b[n] for n in names if b[n] is not None} for b in made]
    model.train()
    spent, tokens, losses = [], [], []
    for number, batch in enumerate(made):
        begin = time.perf_counter()
        moved = {n: v.to(device, dtype if n == "pixel_values" else None, non_blocking=True) for n, v in batch.items()}
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
    found = json.loads(done.stdout.splitlines()[-1])
    print("bare", realistic, json.dumps(found), flush=True)
    return found


def out_of_memory(where: dict[str, Any]) -> str:
    """Ask for more than a GPU has, and return what is said."""
    try:
        ours(where, "too much", micro_batch=128, global_batch=128, max_steps=1)
    except VinnowError as error:
        return str(error)
    return "it fitted"


def one_gpu(where: dict[str, Any]) -> dict[str, Any]:
    """Return ours beside the bare loop."""
    found = {
        "bare": bare_side(where),
        "ours": ours(where, "ours"),
        "compiled": ours(where, "compiled", compile=True),
        # 16 rows of up to 2,048 tokens do not fit without it
        "bare, realistic": bare_side(where, True, gradient_checkpointing=True),
        "ours, realistic": ours(where, "realistic", True, gradient_checkpointing=True),
        "compiled, realistic": ours(where, "compiled realistic", True, gradient_checkpointing=True, compile=True),
    }
    # a fixed row has as many tokens on both sides; of realistic ones the first steps, which are left out, differ
    rate = {name: row["tokens_per_s"] for name, row in found.items()}
    kinds = [(side, kind) for side in ("ours", "compiled") for kind in ("", ", realistic")]
    ratios = {f"{side} / bare{kind}": rate[side + kind] / rate["bare" + kind] for side, kind in kinds}
    return {
        "claim": "a training step of LLaVA-1.5-7B's shape, LoRA r=128 + projector, 776 tokens, batch 16, bf16",
        "ratio": ratios["ours / bare"],
        "ratios": ratios,
        "rows": found,
    }


def recipes(where: dict[str, Any]) -> dict[str, Any]:
    """Return the other kinds of training on one GPU, and what is said when its memory runs out."""
    found = {
        "LoRA r=128, ZeRO-2": ours(where, "lora"),
        "QLoRA r=64, nf4": ours(where, "qlora", quantise="nf4", lora={"r": 64, "alpha": 16, "dropout": 0.05}),
        "LoRA r=128, ZeRO-3": ours(where, "zero3", zero_stage=3),
        "MoReS r=4": ours(where, "mores", parts=["projector", "mores"], mores=MORES, lora=None),
        "connector only": ours(where, "connector", parts=["projector"], lora=None),
    }
    return {
        "claim": "kinds of training of LLaVA-1.5-7B's shape on one GPU, 776 tokens, batch 16, bf16",
        "ratio": found["QLoRA r=64, nf4"]["samples_per_s"] / found["LoRA r=128, ZeRO-2"]["samples_per_s"],
        "rows": found,
        "out_of_memory": out_of_memory(where) if where["gpu"] else None,
    }


def several_gpus(where: dict[str, Any], gpus: int) -> dict[str, Any]:
    """Return one GPU against several, and what fits several alone."""
    full = {"parts": ["projector", "language_model"], "lora": None, "zero_stage": 3, "gradient_checkpointing": True}
    found = {
        "ZeRO-2 LoRA, 1": ours(where, "one"),
        f"ZeRO-2 LoRA, {gpus}": ours(where, "two", workers=gpus),
        f"ZeRO-3 LoRA, {gpus}": ours(where, "zero3", workers=gpus, zero_stage=3),
        f"ZeRO-2 QLoRA, {gpus}": ours(where, "qlora", workers=gpus, quantise="nf4"),
        f"ZeRO-3 in full, checkpointing, {gpus}": ours(where, "full", workers=gpus, **full),
    }
    return {
        "claim": f"ZeRO-2 LoRA r=128 of LLaVA-1.5-7B's shape on {gpus} GPUs of one host (nccl) against 1",
        "ratio": found[f"ZeRO-2 LoRA, {gpus}"]["samples_per_s"] / found["ZeRO-2 LoRA, 1"]["samples_per_s"],
        "rows": found,
    }


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out")
    arguments.add_argument("--gpus", type=int, default=1)
    arguments.add_argument("--recipes", action="store_true", help="other kinds of training instead of the bare loop")
    arguments.add_argument("--folder", help="keep the model here, for the next run")
    arguments.add_argument("--steps", type=int, default=16)
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--bare")
    asked = arguments.parse_args()
    if asked.bare:
        print(json.dumps(bare(TrainConfig.parse(json.loads(asked.bare)))))
        return
    if not asked.tiny and torch.cuda.device_count() < asked.gpus:
        print(f"benchmarks/training.py needs {asked.gpus} CUDA GPUs of at least 120 GB; skipped")
        return
    with tempfile.TemporaryDirectory() as name:
        folder, kept, begin = Path(name), Path(asked.folder or name), time.time()
        rows = asked.steps * BATCH * max(asked.gpus, MANY // 4)
        where = {"folder": folder, "steps": asked.steps, "gpu": torch.cuda.is_available()}
        done = kept / "base" / "processor_config.json"  # written last
        where["model"] = str(kept / "base") if done.is_file() else write_model(kept, asked.tiny)
        where["fixed"] = write_pool(folder / "fixed", rows, realistic=False)
        where["realistic"] = write_pool(folder / "realistic", rows, realistic=True)
        print(f"model and pools written in {time.time() - begin:.0f} s", flush=True)
        ensure_ray(RayConfig(object_store_mb=400 if asked.tiny else 8_000, dashboard=False))
        if asked.gpus > 1:
            kind, result = "_scaling", several_gpus(where, asked.gpus)
        else:
            kind, result = ("_recipes", recipes(where)) if asked.recipes else ("", one_gpu(where))
    name = torch.cuda.get_device_name() if where["gpu"] else "CPU, tiny: no result"
    result["machine"] = f"{asked.gpus} x {name}, {os.cpu_count()} CPU cores"
    result["versions"] = versions("torch", "transformers", "peft", "deepspeed", "ray")
    write(result, asked.out or RESULTS / f"training{kind}.json")


if __name__ == "__main__":
    main()
