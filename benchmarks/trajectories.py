"""Attention trajectories on one GPU: ours, the plain forward that they ride on, and the published way.

XMAS's proxy shape (StableLM-2-1.6B + CLIP-L/336, random weights), bf16. `python benchmarks/trajectories.py` measures all
sides in one run and writes benchmarks/results/trajectories.json. The published way is our own re-creation (spec: XMAS §3,
§9): hooks that keep every q and k, whole L × L scores in float16 for all layers, batches of 8 in pool order, eager
attention that returns its weights, randomised SVD, one copy to the host a sample, the LM head; a pass for each checkpoint.
"""

import argparse
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record
from transformers import LlavaConfig, StableLmConfig

sys.path.insert(0, str(Path(__file__).parent))
from _llava7b import IMAGE_ID, SIDE, batch_of, clip, on_gpu, realistic, row
from _measure import RESULTS, seconds, versions, write
from vinnow.models.forward import last_hidden, on_device, seen_once
from vinnow.models.taps import attention, singular
from vinnow.models.taps.attention import AttentionTap
from vinnow.pool.batching import token_batches

TOKENS, BATCH, K = 776, 32, 5


def proxy_config() -> LlavaConfig:
    """Return the proxy's config."""
    text = StableLmConfig(
        vocab_size=100352,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=32,
        num_key_value_heads=32,
        use_qkv_bias=True,
        partial_rotary_factor=0.25,
        max_position_embeddings=4096,
    )
    return LlavaConfig(vision_config=clip(), text_config=text, image_token_index=IMAGE_ID, vision_feature_layer=-2)


def build(seed: int, attn: str = "sdpa"):
    """Return the proxy with random weights, bf16 on the GPU."""
    return on_gpu(proxy_config(), seed, attn).eval().requires_grad_(False)


@torch.no_grad()
def plain(model, batches) -> None:
    """The forward pass without LM head."""
    for batch in batches:
        last_hidden(model, batch)


def ours(taps, batches) -> list[np.ndarray]:
    """Every checkpoint's values of every batch; the tower runs once."""
    out = [[] for _ in taps]
    for batch in batches:
        if len(taps) > 1 and batch["media"]:
            batch = batch | {"seen": seen_once(taps[0].model, batch["media"])}
        for values, tap in zip(out, taps, strict=True):
            values.append(tap.tensors(batch))
    for tap in taps:
        tap.settle()
    return [np.concatenate([v.cpu().numpy() for v in values]) for values in out]


@torch.no_grad()
def published(model, batches) -> list[list[float]]:
    """One checkpoint, as the released code does it."""
    kept: list[torch.Tensor] = []
    modules = [m for n, m in model.model.language_model.named_modules() if n.endswith(("q_proj", "k_proj"))]
    hooks = [m.register_forward_hook(lambda m, a, out: kept.append(out.to(torch.float16))) for m in modules]
    rows = []
    for batch in batches:
        model(input_ids=batch["input_ids"], **batch["media"], output_attentions=True, use_cache=False)
        total = None
        for q, k in zip(kept[::2], kept[1::2], strict=True):
            scores = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
            total = scores if total is None else total + scores
        kept.clear()
        block = total[:, 612:, 35:611].float()
        if min(block.shape) >= K:
            rows += [v.cpu().tolist() for v in torch.svd_lowrank(torch.nan_to_num(block), q=K, niter=2)[1]]
        torch.cuda.empty_cache()
    for hook in hooks:
        hook.remove()
    return rows


def jpegs(count: int) -> list[bytes]:
    """Return pictures of 640 × 480 as JPEG."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        low = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((640, 480))
        out = io.BytesIO()
        low.save(out, "JPEG")
        files.append(out.getvalue())
    return files


def decode(data: bytes) -> np.ndarray:
    """Decode and resize as a processor does: float32 [3, H, W]."""
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (np.asarray(picture, np.float32).transpose(2, 0, 1) / 255 - 0.45) / 0.27


def with_pictures(rows, files, threads: int):
    """Decode every row's picture from its JPEG."""
    with ThreadPoolExecutor(threads) as pool:
        pictures = list(pool.map(lambda i: decode(files[i % len(files)]), range(len(rows))))
    return [(r, None if p is None else d) for (r, p), d in zip(rows, pictures, strict=True)]


def batches_of(rows, model, budget: int):
    """Length-sorted batches under a token budget, on the device."""
    sizes = [len(r.input_ids) for r in rows]
    return [on_device(batch_of([rows[i] for i in take]), model) for take in token_batches(sizes, budget, 64)]


def singular_values(model, batch) -> dict[str, float]:
    """Return the largest relative error against svdvals in float64 of the same blocks, and what each way costs per row.

    `left_to_exact`: the share of rows that iteration did not settle.
    """
    tap, blocks = AttentionTap(model, K), []
    keep, attention.gram = attention.gram, lambda block: blocks.append(block) or keep(block)
    got = tap(batch)
    attention.gram = keep
    expected = torch.linalg.svdvals(blocks[0].double()).cpu().numpy()[:, :K]
    matrix = keep(blocks[0])
    return {
        "largest_relative_error": float((np.abs(got - expected) / expected).max()),
        "left_to_exact": float(singular.iterated(matrix, K)[1].float().mean()),
        "gram_ms": seconds(lambda: keep(blocks[0])) / len(matrix) * 1e3,
        "iterated_ms": seconds(lambda: singular.iterated(matrix, K)) / len(matrix) * 1e3,
        "exact_ms": seconds(lambda: singular.exact(matrix, K), 2, 1) / len(matrix) * 1e3,
    }


def profile(tap, batch) -> None:
    """Print the kernels that take the most time."""
    with record(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        tap(batch)
    table = profiler.key_averages()
    print(table.table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60))


def measure(profiled: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds per row of every side, and what its singular values are worth."""
    models = [build(seed) for seed in range(4)]
    for other in models[1:]:
        other.model.vision_tower = models[0].model.vision_tower
    model = models[0]
    fixed = [on_device(batch_of([row(i, TOKENS) for i in range(BATCH)]), model)]
    tap, heads = AttentionTap(model, K), AttentionTap(model, K, "heads")
    spent = {"plain forward": seconds(lambda: plain(model, fixed)) / BATCH}
    spent["ours, flat"] = seconds(lambda: ours([tap], fixed)) / BATCH
    spent["ours, heads"] = seconds(lambda: ours([heads], fixed)) / BATCH
    wrong = singular_values(model, fixed[0])
    if profiled:
        profile(tap, fixed[0])
    rows, files, threads = realistic(256), jpegs(64), min(16, os.cpu_count() or 1)
    budget = TOKENS * BATCH
    spent["ours, realistic"] = seconds(lambda: ours([tap], batches_of(rows, model, budget)), 2, 1) / len(rows)
    taps = [AttentionTap(m, K) for m in models]

    def four() -> None:
        ours(taps, batches_of(with_pictures(rows, files, threads), model, budget))

    spent["ours, 4 checkpoints from JPEG"] = seconds(four, 2, 1) / len(rows)
    del models[1:]
    taps.clear()
    torch.cuda.empty_cache()
    eager = build(0, "eager")
    some = rows[:64]

    def theirs(decoded: bool) -> None:
        shown = with_pictures(some, files, threads) if decoded else some
        published(eager, (on_device(batch_of(shown[i : i + 8]), eager) for i in range(0, len(shown), 8)))

    spent["published, realistic"] = seconds(lambda: theirs(False), 2, 1) / len(some)
    spent["published, 4 checkpoints from JPEG"] = 4 * seconds(lambda: theirs(True), 2, 1) / len(some)
    return spent, wrong


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=str(RESULTS / "trajectories.json"))
    arguments.add_argument("--profile", action="store_true")
    asked = arguments.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/trajectories.py needs a CUDA GPU of at least 80 GB; skipped")
        return
    spent, wrong = measure(asked.profile)
    ratios = {
        "ours / plain forward": spent["plain forward"] / spent["ours, flat"],
        "ours (heads) / plain forward": spent["plain forward"] / spent["ours, heads"],
        "ours / published, realistic lengths": spent["published, realistic"] / spent["ours, realistic"],
        "ours / published, 4 checkpoints from JPEG": spent["published, 4 checkpoints from JPEG"]
        / spent["ours, 4 checkpoints from JPEG"],
    }
    result = {
        "claim": "attention trajectories of a 1.95B proxy's shape, 776 tokens and realistic lengths, bf16",
        "ratio": ratios["ours / plain forward"],
        "ratios": {k: round(v, 3) for k, v in ratios.items()},
        "samples_per_s": {k: round(1 / v, 2) for k, v in spent.items()},
        "singular_values": wrong,
        "machine": torch.cuda.get_device_name(),
        "versions": versions("torch", "transformers"),
    }
    write(result, asked.out)


if __name__ == "__main__":
    main()
