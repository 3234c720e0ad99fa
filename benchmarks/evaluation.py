"""Answers per second of LLaVA-7B's shape on one GPU, prompts of 640 tokens: the official loop, `generate` in batches, ours.

    python benchmarks/evaluation.py --out row.json

All sides in one run, weights at random in bfloat16, no end mark, so that all answers have their full length. The official
loop (LLaVA's `model_vqa.py`) asks one question at a time. A forward pass alone is what no way of answering can beat.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from _llava7b import config_7b, on_gpu, row
from _measure import versions, write
from transformers import GenerationConfig
from vinnow.evaluate.sampling import Chooser, Sampling
from vinnow.evaluate.stepper import Stepper
from vinnow.models.registry import family_of
from vinnow.pool.collate import collate

TOKENS, LENGTHS, ROWS = 640, (2, 16, 128), 64


def inputs_of(rows: int) -> dict[str, Any]:
    """Return a left-padded batch on the GPU; prompts differ by some tokens of text."""
    encoded = [row(i, TOKENS - 3 * (i % 4)) for i in range(rows)]
    batch = collate(encoded, 0, side="left")
    media = {n: v.to("cuda", torch.bfloat16) for n, v in batch["media"].items()}
    ids = {n: batch[n].cuda() for n in ("input_ids", "attention_mask")}
    return ids | {"media": media, "pictures": [1] * rows}


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Return the mean seconds of a call after a first one."""
    work()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / rounds


def measure(largest: int) -> tuple[dict[str, float], float]:
    """Return seconds an answer of each side, and the share of first tokens that ours and `generate` have in common."""
    model = on_gpu(config_7b()).eval()
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=None)
    family = family_of(model)
    stepper = Stepper(model, family, 0, [])
    one, many, more = inputs_of(1), inputs_of(ROWS), inputs_of(largest)
    spent: dict[str, float] = {}

    def plain(inputs: dict[str, Any], most: int) -> torch.Tensor:
        with torch.inference_mode():
            new_BT = model.generate(**family.generating(model, inputs), max_new_tokens=most)
        return new_BT[:, inputs["input_ids"].shape[1] :].cpu()

    def ours(inputs: dict[str, Any], most: int) -> torch.Tensor:
        return stepper.search(inputs, most, Chooser([Sampling(max_new_tokens=most)] * len(inputs["input_ids"])), None)

    def forward() -> None:
        with torch.inference_mode():
            model(**family.generating(model, many), logits_to_keep=1, use_cache=False)

    spent["forward"] = seconds(forward, 3) / ROWS
    for most in LENGTHS:
        spent[f"official, {most}"] = seconds(lambda n=most: plain(one, n), 3)
        spent[f"generate, {most}"] = seconds(lambda n=most: plain(many, n), 2) / ROWS
    same = float((ours(many, 8)[:, 0] == plain(many, 8)[:, 0]).float().mean())
    torch.cuda.empty_cache()
    for most in LENGTHS:
        spent[f"ours, {most}"] = seconds(lambda n=most: ours(many, n), 2) / ROWS
    for most in LENGTHS:
        spent[f"ours in {largest} rows, {most}"] = seconds(lambda n=most: ours(more, n), 2) / largest
    return spent, same


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default="benchmarks/results/evaluation.json")
    arguments.add_argument("--rows", type=int, default=96, help="rows of our larger batch")
    asked = arguments.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/evaluation.py needs a CUDA GPU of at least 80 GB; skipped")
        return
    spent, same = measure(asked.rows)
    ratios = {
        f"{ours} / {side}, {n} tokens": spent[f"{side}, {n}"] / spent[f"{ours}, {n}"]
        for ours in ("ours", f"ours in {asked.rows} rows")
        for side in ("official", "generate")
        for n in LENGTHS
    }
    result = {
        "claim": "answers per second of LLaVA-7B's shape, prompts of 640 tokens, one GPU, bf16",
        "ratio": ratios[f"ours in {asked.rows} rows / generate, 128 tokens"],
        "ratios": {k: round(v, 3) for k, v in ratios.items()},
        "answers_per_s": {k: round(1 / v, 2) for k, v in spent.items()},
        "first_tokens_as_generate": same,
        "rows": {"generate": ROWS, "ours": ROWS, "ours, larger": asked.rows},
        "machine": torch.cuda.get_device_name(),
        "versions": versions("torch", "transformers"),
    }
    write(result, asked.out)


if __name__ == "__main__":
    main()
