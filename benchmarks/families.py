"""Families beside Hugging Face's own code and PEFT on one GPU: gradients, trajectories and training steps of one model.

Qwen2.5-VL-7B's and Qwen3-VL-8B's shapes with random weights drawn on the device (nothing is downloaded), bf16, LoRA on
every Linear of the decoder's layers, rows of pictures that become 256 to 1,260 image tokens and some 80 words of text,
batches under one budget of tokens. Both sides have the same batches in one run:

- gradients: our per-sample gradients (sjlt) ÷ a plain forward and backward pass of PEFT's model, by turns, rows a second;
- trajectories: `flat` ÷ a plain forward pass without LM head, by turns;
- training: the step of `vinnow train` (one worker, DeepSpeed, pictures from JPEG, its log) ÷ a bare loop of Hugging Face's
  forward, PEFT and torch's fused AdamW, whose batches lie ready in memory.

`python benchmarks/families.py --family qwen3_vl` writes benchmarks/results/families_qwen3_vl.json and prints a table;
`--tiny` tries all of it on a CPU. MFU: FLOP of the row by models/cost.py ÷ time ÷ the card's peak.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _families import PUBLISHED, Bench, peak_of, prepare, row_size, take_turns
from _measure import RESULTS, versions, write
from peft import LoraConfig, get_peft_model
from vinnow.models.components import lora_targets
from vinnow.models.cost import RowSize, Sketch, forward_flop, gradient_flop, training_flop_per_row, trajectory_flop
from vinnow.models.encoding import default_template
from vinnow.models.forward import last_hidden, on_device
from vinnow.models.load import Loaded, load_processor
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.registry import family_of
from vinnow.models.shape import shape_of
from vinnow.models.taps.attention import AttentionTap
from vinnow.models.taps.gradients import GradientTap
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, Rows
from vinnow.train.order import Order
from vinnow.train.solo import Bases, fit_here

SIDES = ("gradients", "trajectories", "training")
# what the issue asks of each ratio
BARS = {"gradients": 1.15, "trajectories": 0.9, "training": 1.0}
DIM, WARM = 8192, 3


def with_lora(model: Any, rank: int) -> Any:
    """Return PEFT's model; B is not zero, or dA would be."""
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=lora_targets(model, None))
    wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False)
    wrapped.to(next(model.parameters()).dtype)
    for name, parameter in wrapped.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.01)
    return wrapped.eval()


def free() -> None:
    """Let go of what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gradients(model: Any, batches: list[dict[str, Any]], seconds: float) -> tuple[dict[str, float], dict[str, Any]]:
    """Return seconds of a pass of ours and of plain PEFT, with and without a mask of pads; and what ran our decoder."""
    tap, family = GradientTap(model, "lora", ProjectionConfig(kind="sjlt", dim=DIM)), family_of(model)

    def ours() -> None:
        model.requires_grad_(False)
        for batch in batches:
            tap.tensors(batch)

    def plain(mask: bool = True) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
        for batch in batches:
            inputs = family.generating(model, batch)
            inputs = inputs if mask else {n: v for n, v in inputs.items() if n != "attention_mask"}
            model.get_base_model()(**inputs, labels=batch["labels"]).loss.backward()
            model.zero_grad(set_to_none=True)

    # rows are padded on the right, so that a mask of pads changes nothing; who trains gives it all the same
    sides = {"ours": ours, "plain": plain, "plain, no mask": lambda: plain(False)}
    return take_turns(sides, seconds), {"ran": tap.facts()["ran"]}


def trajectories(model: Any, batches: list[dict[str, Any]], seconds: float) -> dict[str, float]:
    """Return seconds of a pass of `flat` trajectories and of the plain forward pass without LM head."""
    model.requires_grad_(False)
    tap = AttentionTap(model, 5, "flat")

    def ours() -> None:
        for batch in batches:
            tap.tensors(batch)
        tap.settle()

    @torch.no_grad()
    def plain() -> None:
        for batch in batches:
            last_hidden(model, batch)

    return take_turns({"ours": ours, "plain": plain}, seconds)


class Drawn(Bases):
    """Hands a training the model that was drawn on the device."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench

    def get(self, config: TrainConfig) -> Loaded:
        """Return it anew: a training puts its adapters into it."""
        return self.bench.load()


def train_config(bench: Bench, asked: argparse.Namespace) -> TrainConfig:
    """Return a training of LoRA alone."""
    gpu = bench.device == "cuda"
    values = {"model": bench.folder, "pool": bench.pool, "template": default_template(bench.folder), "lr": 1e-5}
    values |= {"use_gpu": gpu, "precision": "float32" if bench.tiny else "bfloat16", "loader_workers": 4 if gpu else 0}
    values |= {"parts": ["lora"], "lora": {"r": asked.rank, "alpha": 2 * asked.rank, "dropout": 0.0}, "max_len": 2048}
    values |= {"global_batch": asked.micro, "micro_batch": asked.micro, "max_steps": asked.steps + WARM, "log_steps": 1}
    return TrainConfig.parse(values | {"group_by_modality": False, "epochs": 100.0})


def our_training(bench: Bench, config: TrainConfig, folder: Path) -> float:
    """Return rows a second of our steps, the first ones left out."""
    fit_here(config, str(folder / "trained"), Drawn(bench))
    lines = [json.loads(line) for line in (folder / "trained" / "log.jsonl").read_text().splitlines()][WARM:]
    return config.global_batch * len(lines) / sum(line["seconds"] for line in lines)


def bare_training(bench: Bench, config: TrainConfig) -> float:
    """Return rows a second of the bare loop on the same rows in the same order."""
    torch.set_num_threads(config.threads)
    model = with_lora(bench.load().model, config.lora.r if config.lora else 0)
    family, device, dtype = family_of(model), bench.device, next(model.parameters()).dtype
    chosen = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        chosen += [parameter] if parameter.requires_grad else []
    optimizer = torch.optim.AdamW(chosen, lr=config.lr, fused=config.use_gpu)
    rows = Rows(config)
    order = Order(config, rows.has_image, rows.n_chars)
    batches = Batches(config, rows, load_processor(bench.folder), "/dev/null")
    steps = config.max_steps or 0
    ready = [batches.make(order.micro_batch(step, 0, 0)) for step in range(steps)]
    ready = [family.generating(model, b) | {"labels": b["labels"]} for b in ready]
    ready = [{n: v.pin_memory() if config.use_gpu else v for n, v in b.items()} for b in ready]
    model.train()
    spent = []
    for batch in ready:
        begin = time.perf_counter()
        moved = {n: v.to(device, dtype if v.is_floating_point() else None, non_blocking=True) for n, v in batch.items()}
        loss = model(**moved).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())  # waits, as a loop that logs its loss does
        spent.append(time.perf_counter() - begin)
    return config.micro_batch * len(spent[WARM:]) / sum(spent[WARM:])


def prices(bench: Bench, row: RowSize, rank: int) -> dict[str, float]:
    """Return TFLOP a row of each side."""
    shape = shape_of(bench.config()).with_lora(rank)
    forward, training = forward_flop(shape, row, head=False).total, training_flop_per_row(shape, row, ["lora"]).total
    return {
        "gradients ours": gradient_flop(shape, row, "lora", Sketch("sjlt", DIM)).total,
        "gradients plain": training,
        "gradients plain, no mask": training,
        "trajectories ours": trajectory_flop(shape, row).total,
        "trajectories plain": forward,
        "training ours": training,
        "training plain": training,
    }


def measure(bench: Bench, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return rows a second by side, and what a row is."""
    rows, rates, more = bench.rows(), dict[str, float](), dict[str, Any]()
    wanted = asked.sides.split(",")
    if {"gradients", "trajectories"} & set(wanted):
        model = with_lora(bench.load().model, asked.rank)
        batches = [on_device(batch, model) for batch in bench.batches(rows, asked.tokens)]
        more["padding_share"] = 1 - sum(len(r.input_ids) for r in rows) / sum(b["input_ids"].numel() for b in batches)
        if "gradients" in wanted:
            spent, told = gradients(model, batches, asked.seconds)
            rates |= {f"gradients {n}": len(rows) / s for n, s in spent.items()}
            more |= told
        if "trajectories" in wanted:
            spent = trajectories(model, batches, asked.seconds)
            rates |= {f"trajectories {n}": len(rows) / s for n, s in spent.items()}
        del model, batches
        free()
    if "training" in wanted:
        config = train_config(bench, asked)
        rates["training plain"] = bare_training(bench, config)
        free()
        rates["training ours"] = our_training(bench, config, folder)
        free()
    row = row_size(rows, family_of(bench.config()).image_id(bench.config()))
    return {"rates": rates, "row": row, **more}


def result_of(bench: Bench, asked: argparse.Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    """Return the benchmark's row."""
    rates, row, peak = measured.pop("rates"), measured.pop("row"), peak_of(asked.peak)
    price = prices(bench, row, asked.rank)
    ratios = {n: rates[f"{n} ours"] / rates[f"{n} plain"] for n in SIDES if f"{n} ours" in rates}
    gpu = torch.cuda.is_available()
    return {
        "claim": f"{bench.label}'s shape beside Hugging Face and PEFT: LoRA r = {asked.rank}, real picture sizes, bf16",
        "ratio": ratios.get("gradients"),
        "ratios": ratios,
        "bars": {name: BARS[name] for name in ratios},
        "rows_per_s": rates,
        "tflop_per_row": {name: price[name] for name in rates},
        "mfu": {name: rate * price[name] / peak if peak else None for name, rate in rates.items()},
        "peak_tflops": peak,
        "tokens_per_row": row.tokens,
        "image_tokens_per_row": row.shown,
        **measured,
        "machine": torch.cuda.get_device_name() if gpu else "CPU, tiny: no result",
        "versions": versions("torch", "transformers", "peft", "deepspeed"),
    }


def table_of(result: dict[str, Any]) -> str:
    """Return the row as a table in Markdown."""
    lines = [
        "| what | ours, rows/s | plain, rows/s | ratio | bar | MFU, ours | MFU, plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, ratio in result["ratios"].items():
        rates = [result["rows_per_s"][f"{name} {side}"] for side in ("ours", "plain")]
        mfu = [result["mfu"][f"{name} {side}"] for side in ("ours", "plain")]
        shown = ["–" if m is None else f"{m:.2f}" for m in mfu]
        cells = [name, *(f"{r:.2f}" for r in rates), f"{ratio:.2f}", str(result["bars"][name]), *shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write the row and print the table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--family", choices=list(PUBLISHED), default="qwen2_5_vl")
    arguments.add_argument("--sides", default=",".join(SIDES), help="of gradients, trajectories, training")
    arguments.add_argument(
        "--seconds", type=float, default=20.0, help="how long each side of the first two is measured"
    )
    arguments.add_argument("--steps", type=int, default=16, help="training steps that count")
    arguments.add_argument("--rows", type=int, default=40)
    arguments.add_argument("--tokens", type=int, default=4096, help="of a batch, pads included")
    arguments.add_argument("--micro", type=int, default=4, help="rows of a training step")
    arguments.add_argument("--rank", type=int, default=128)
    arguments.add_argument("--peak", type=float, help="TFLOP/s of the card, where it is not known")
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--out")
    asked = arguments.parse_args()
    if unknown := set(asked.sides.split(",")) - set(SIDES):
        raise SystemExit(f"--sides knows {', '.join(SIDES)}, not {', '.join(sorted(unknown))}")
    if not torch.cuda.is_available() and not asked.tiny:
        print("benchmarks/families.py needs a CUDA GPU of at least 80 GB; skipped. --tiny tries it on a CPU.")
        return
    with tempfile.TemporaryDirectory() as name:
        bench = prepare(asked.family, Path(name), asked.tiny, asked.rows)
        result = result_of(bench, asked, measure(bench, asked, Path(name)))
    write(result, asked.out or RESULTS / f"families_{asked.family}.json")
    print(f"\n{result['claim']}; {result['machine']}\n\n{table_of(result)}")


if __name__ == "__main__":
    main()
