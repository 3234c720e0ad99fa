"""Qwen2.5-VL's tower (7B's shape, random weights): windows of one length attend in one call, beside Hugging Face's loop.

`python benchmarks/qwen_tower.py` on one GPU writes benchmarks/results/qwen_tower.json: 16 pictures of 640 × 480, bf16,
forward and forward + backward, the two ways by turns.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions, write
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLConfig,
)
from vinnow.models.family.of_qwen.lengths import group_lengths

PICTURES, HIGH, WIDE, ROUNDS = 16, 34, 46, 5


def tower():
    """Return the tower on the GPU in bf16."""
    sizes = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = Qwen2_5_VLConfig(vision_config=sizes | {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2_5_VisionTransformerPretrainedModel._from_config(config.vision_config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    return model.eval()


def seconds(model, backward: bool) -> float:
    """Return the time of a pass over the pictures."""
    grid = torch.tensor([[1, HIGH, WIDE]] * PICTURES, device="cuda")
    pixels = torch.randn(PICTURES * HIGH * WIDE, 1176, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    with torch.set_grad_enabled(backward):
        seen = model(pixels, grid_thw=grid).pooler_output
        if backward:
            seen.float().square().mean().backward()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out")
    asked = arguments.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/qwen_tower.py needs a GPU; skipped")
        return
    loop, grouped = tower(), tower()
    group_lengths(grouped)
    took = {}
    for backward in (False, True):
        for model in (loop, grouped):
            seconds(model, backward)  # kernels are chosen
        rounds = [[seconds(m, backward) for m in (loop, grouped)] for _ in range(ROUNDS)]
        took["forward + backward" if backward else "forward"] = [min(r[i] for r in rounds) for i in range(2)]
    result = {
        "claim": "Qwen2.5-VL's tower: Hugging Face's loop over windows ÷ windows of one length in one call, seconds a pass",
        "ratio": took["forward"][0] / took["forward"][1],
        "seconds": {name: {"loop": a, "grouped": b} for name, (a, b) in took.items()},
        "pictures": PICTURES,
        "machine": torch.cuda.get_device_name(),
        "versions": versions("torch", "transformers"),
    }
    print(result)
    write(result, asked.out or RESULTS / "qwen_tower.json")


if __name__ == "__main__":
    main()
