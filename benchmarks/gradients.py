"""Per-sample gradients at the speed of training, on one GPU: ours, a plain Hugging Face LoRA step, and LESS's way.

LLaVA-1.5-7B's shape with random weights, bf16, LoRA r = 128 on every Linear of the LLM, and the projector; 776 tokens,
batch 16.
`python benchmarks/gradients.py` measures all sides in one run, prints a table and writes benchmarks/results/gradients.json.
LESS's way is our own re-creation: batch 1, autograd, the flat gradient in fp16, 16 of them against random signs in blocks.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _llava7b import batch_of, build, realistic, row
from _measure import RESULTS, seconds, versions, write
from vinnow.models.components import parameters_of, pick_linears
from vinnow.models.forward import on_device
from vinnow.models.moments import Moments
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.projections.targets import Norms, Targets
from vinnow.models.taps.gradients import GradientTap
from vinnow.models.taps.modes import make_transform
from vinnow.pool.batching import token_batches

TOKENS, BATCH, WHICH = 776, 16, "projector+lora"
NAMES = ("input_ids", "attention_mask", "labels")
# spec: LESS §6.3, at 790 TFLOP/s: forward, backward and per-sample gradients of LoRA and projector
FLOOR_MS = 29.4
PROJECTIONS = {
    "sjlt": ProjectionConfig(kind="sjlt"),
    "rademacher": ProjectionConfig(kind="rademacher"),
    "kron": ProjectionConfig(kind="kron"),
}


def trainable(model) -> list[torch.nn.Parameter]:
    """Let LoRA and the projector require gradients, and return them in the model's order."""
    chosen = []
    for name, p in model.named_parameters():
        p.requires_grad_(".lora_" in name or "multi_modal_projector" in name)
        if p.requires_grad:
            chosen.append(p)
    return chosen


def plain_step(model, batch) -> None:
    """A plain training step's forward and backward, as Hugging Face and PEFT do it."""
    model.get_base_model()(**{n: batch[n] for n in NAMES}, **batch["media"]).loss.backward()
    for p in model.parameters():
        p.grad = None


def less_way(model, batches, parameters) -> tuple[float, float]:
    """Return LESS's seconds per row for the gradients, and for the projection (16 rows per call, 8192 columns)."""
    flats = []

    def gradient(batch):
        model.get_base_model()(**{n: batch[n] for n in NAMES}, **batch["media"]).loss.backward()
        flat = torch.cat([p.grad.view(-1) for p in parameters])
        for p in parameters:
            p.grad = None
        return flat.to(torch.float16)

    gradient(batches[0])
    torch.cuda.synchronize()
    begin = time.perf_counter()
    flats = torch.stack([gradient(b) for b in batches])
    torch.cuda.synchronize()
    took = (time.perf_counter() - begin) / len(batches)
    # 128 columns at a time as LESS sets it; in stretches, or one block would need 87 GB
    columns, stretch = 128, 1 << 24
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    blocks = 4  # of 64: all cost the same
    for _ in range(blocks):
        out = torch.zeros(len(batches), columns, device="cuda")
        for start in range(0, flats.shape[1], stretch):
            part = flats[:, start : start + stretch]
            signs = torch.empty(part.shape[1], columns, device="cuda", dtype=torch.float16)
            signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
            out += (part @ signs).float()
    torch.cuda.synchronize()
    return took, (time.perf_counter() - begin) * (8192 / columns / blocks) / len(batches)


def fidelity(model, rows, batch) -> dict[str, float]:
    """Return the smallest cosines with a float32 copy of the model at batch 1, over 2 rows: ours, and plain bf16's.

    All go through one projection. What bf16 loses in the forward pass, both lose.
    """
    tap = GradientTap(model, WHICH, PROJECTIONS["sjlt"])
    ours = tap.tensors(batch)[:2].float()
    cosines = {"ours": 1.0, "plain bf16": 1.0}
    plain = torch.cat([_by_autograd(model, tap.sink, row) for row in rows[:2]])
    model.float()
    truth = torch.cat([_by_autograd(model, tap.sink, row) for row in rows[:2]])
    model.to(torch.bfloat16)
    for name, vectors in (("ours", ours), ("plain bf16", plain)):
        cosines[name] = float(torch.cosine_similarity(vectors, truth).min())
    cosines["ours against plain bf16"] = float(torch.cosine_similarity(ours, plain).min())
    return cosines


def _by_autograd(model, sink, row) -> torch.Tensor:
    trainable(model)
    one = on_device(batch_of([row]), model)
    model.get_base_model()(**{n: one[n] for n in NAMES}, **one["media"]).loss.backward()
    sink.start(1, torch.device("cuda"), torch.float32)
    for name, p in parameters_of(pick_linears(model, WHICH)).items():
        sink.add(name, p.grad.flatten()[None])
        p.grad = None
    model.requires_grad_(False)
    return sink.finish()


def lengths_row(tap) -> dict[str, float]:
    """Return tokens per second on realistic lengths: parts of 256 rows, batches by token budget from sorted rows."""
    rows = realistic(256)
    sizes = [len(r.input_ids) for r in rows]
    batches = [batch_of([rows[i] for i in take]) for take in token_batches(sizes, TOKENS * BATCH, 64)]
    padded = sum(b["input_ids"].numel() for b in batches)

    def work():
        for b in batches:
            tap.tensors(b)

    took = seconds(work, rounds=2)
    return {
        "tokens_per_s": sum(sizes) / took,
        "padding_share": 1 - sum(sizes) / padded,
        "mean_tokens": sum(sizes) / 256,
    }


def profile(tap, batch) -> None:
    """Print the kernels that take the most time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    tap.tensors(batch)
    with record(activities=[ProfilerActivity.CUDA]) as profiler:
        tap.tensors(batch)
        torch.cuda.synchronize()
    print(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=70))


def random_means(model, tasks: int) -> dict[str, torch.Tensor]:
    """Return made-up target means, held on the GPU as real ones are."""
    sizes = GradientTap(model, WHICH, Norms()).sizes()
    return {n: torch.randn(tasks, size, device="cuda", dtype=torch.bfloat16) for n, size in sizes.items()}


def random_moments(model) -> Moments:
    """Return made-up Adam moments in float32, as an optimizer holds them."""
    shapes = {n: p.shape for n, p in GradientTap(model, WHICH, Norms()).parameters().items()}
    first = {n: torch.randn(shape, device="cuda") * 1e-4 for n, shape in shapes.items()}
    second = {n: torch.rand(shape, device="cuda") * 1e-8 for n, shape in shapes.items()}
    return Moments(first, second, 100, (0.9, 0.999), 1e-8, "made up")


def our_ways(model, batch, profiled: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds per row of each projection, and the peak memory in GB."""
    spent, memory = {}, {}
    for name, config in PROJECTIONS.items():
        tap = GradientTap(model, WHICH, config)
        assert tap.decoder is not None
        torch.cuda.reset_peak_memory_stats()
        spent[name] = seconds(lambda tap=tap: tap.tensors(batch)) / BATCH
        memory[name] = torch.cuda.max_memory_allocated() / 1e9
        if profiled and name != "kron":
            profile(tap, batch)
    taps = {
        "norms": lambda: GradientTap(model, WHICH, Norms()),
        "targets (22)": lambda: GradientTap(model, WHICH, Targets(random_means(model, 22))),
        "sjlt, adam": lambda: GradientTap(
            model, WHICH, PROJECTIONS["sjlt"], make_transform("adam", random_moments(model))
        ),
        "projector, rademacher": lambda: GradientTap(model, "projector", PROJECTIONS["rademacher"]),
    }
    for name, make in taps.items():
        tap = make()
        spent[name] = seconds(lambda tap=tap: tap.tensors(batch)) / BATCH
    generic = GradientTap(model, WHICH, PROJECTIONS["sjlt"], fast=False)
    spent["sjlt, Hugging Face's forward"] = seconds(lambda: generic.tensors(batch), rounds=2) / BATCH
    return spent, memory


def ratios(spent: dict[str, float], lengths: dict[str, float]) -> dict[str, float]:
    """Return what the issue's bars are about."""
    return {
        "sjlt / plain forward+backward": spent["plain"] / spent["sjlt"],
        "rademacher / plain forward+backward": spent["plain"] / spent["rademacher"],
        "kron / plain forward+backward": spent["plain"] / spent["kron"],
        "sjlt / LESS's way": spent["less"] / spent["sjlt"],
        "sjlt / LESS's gradients alone": spent["less_gradients"] / spent["sjlt"],
        "share of the floor (sjlt)": FLOOR_MS / 1e3 / spent["sjlt"],
        "share of the floor (plain)": FLOOR_MS / 1e3 / spent["plain"],
        "realistic / fixed tokens per s": lengths["tokens_per_s"] * spent["sjlt"] / TOKENS,
    }


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=str(RESULTS / "gradients.json"))
    arguments.add_argument("--profile", action="store_true")
    asked = arguments.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/gradients.py needs a CUDA GPU of at least 120 GB; skipped")
        return
    model = build()
    fixed = [row(i, TOKENS) for i in range(BATCH)]
    batch = batch_of(fixed)
    ready = on_device(batch, model)
    parameters = trainable(model)
    spent = {"plain": seconds(lambda: plain_step(model, ready)) / BATCH}
    spent["plain_batch_1"] = seconds(lambda: plain_step(model, on_device(batch_of(fixed[:1]), model)))
    gradients, projection = less_way(model, [on_device(batch_of([r]), model) for r in fixed], parameters)
    spent |= {"less_gradients": gradients, "less_projection": projection, "less": gradients + projection}
    torch.cuda.empty_cache()
    ours, memory = our_ways(model, batch, asked.profile)
    spent |= ours
    lengths = lengths_row(GradientTap(model, WHICH, PROJECTIONS["sjlt"]))
    cosines = fidelity(model, fixed, batch)
    shown = ratios(spent, lengths)
    result = {
        "claim": "per-sample LoRA + projector gradients of LLaVA-1.5-7B's shape, 776 tokens, batch 16, bf16",
        "ratio": shown["sjlt / plain forward+backward"],
        "ratios": {k: round(v, 3) for k, v in shown.items()},
        "ms_per_sample": {k: round(v * 1e3, 2) for k, v in spent.items()},
        "samples_per_s": {k: round(1 / v, 2) for k, v in spent.items()},
        "cosine_with_float32": cosines,
        "peak_gb": memory,
        "realistic_lengths": lengths,
        "machine": torch.cuda.get_device_name(),
        "versions": versions("torch", "transformers", "peft"),
    }
    write(result, asked.out)


if __name__ == "__main__":
    main()
