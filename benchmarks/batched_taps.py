"""Batched per-sample gradients against batch-1 autograd, on the tiny twin, on this machine's CPU; both sides in one run.

`python benchmarks/batched_taps.py` writes a row to `benchmarks/results/batched_taps.json`, ratio first. Inputs are random
token ids and pixels (not zeros) with lengths as of the demo; medians over rounds that alternate the two sides.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from vinnow.models.components import pick_linears
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.load import load
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.specs import TinyModelConfig
from vinnow.models.taps.gradients import GradientTap
from vinnow.pool.collate import collate
from vinnow.pool.encode import Encoded
from vinnow.pool.templates import TEMPLATES

ROWS, ROUNDS = 64, 5


def samples(model):
    """Return rows of 16 image tokens and 20–90 of text, their last 2–12 tokens trained."""
    rng = np.random.default_rng(0)
    tokens = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2
    side, vocab = model.config.vision_config.image_size, model.config.text_config.vocab_size
    rows = []
    for i in range(ROWS):
        text = rng.integers(10, vocab, rng.integers(20, 90))
        ids = np.concatenate([np.full(tokens, model.config.image_token_id), text])
        labels = np.full(len(ids), -100)
        trained = int(rng.integers(2, 12))
        labels[-trained:] = ids[-trained:]
        picture = {"pixel_values": rng.normal(size=(1, 3, side, side)).astype(np.float32)}
        rows.append(Encoded(i, ids, labels, ("x",), media=(picture,)))
    return rows


def one_by_one(model, rows, parameters):
    """The research scripts' way: batch 1, a backward pass, the flat gradient of the chosen parameters."""
    grads = []
    for row in rows:
        batch = collate([row], 0)
        names = ("input_ids", "attention_mask", "labels")
        loss = model(**{n: batch[n] for n in names}, **batch["media"]).loss
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(grads)


def main():
    """Measure and write the row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        texts = [t.system for t in TEMPLATES.values()] * 5
        path = build_tiny_model(folder, texts, TinyModelConfig(hidden=96, layers=3, ffn=192))
        batched, single = load(path).model, load(path).model
    rows = samples(batched)
    tap = GradientTap(batched, "projector", ProjectionConfig(kind="none"))
    linears = pick_linears(single, "projector").values()
    parameters = [p for m in linears for p in (m.weight, m.bias)]
    for p in single.parameters():
        p.requires_grad_(False)
    for p in parameters:
        p.requires_grad_(True)
    seconds = {"batched": [], "one by one": []}
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        mine = tap.tensors(collate(rows, 0))
        seconds["batched"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        other = one_by_one(single, rows, parameters)
        seconds["one by one"].append(time.perf_counter() - begin)
    error = float(((mine - other).norm(dim=1) / other.norm(dim=1)).max())
    assert error < 1e-4, error
    a, b = (statistics.median(seconds[k]) for k in ("batched", "one by one"))
    row = {
        "claim": "batched exact per-sample gradients (projector, no projection) against batch-1 autograd, tiny twin, CPU",
        "ratio": round(b / a, 2),
        "batched_rows_per_s": round(ROWS / a, 1),
        "one_by_one_rows_per_s": round(ROWS / b, 1),
        "largest_relative_error": error,
        "machine": f"{platform.machine()}, 1 thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    out = Path(__file__).parent / "results" / "batched_taps.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(row, indent=2) + "\n")
    json.dump(row, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
