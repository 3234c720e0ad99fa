"""How faithful scores are after projecting and quantising gradients: against exact, un-projected ones, on a trained model.

`python benchmarks/fidelity.py --run runs/demo` takes the last checkpoint of a run's proxy (`make demo` leaves one), up to
2,000 rows of its pool and its target set, and gradients of every Linear of projector and LLM. For each projection and each
storage: Spearman's correlation of LESS's scores (cosine with each target task's mean, then the maximum) with the exact
ones, and the overlap of the best 5 %. Writes benchmarks/results/fidelity.json. Axes: N rows, M targets, T tasks, K columns.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, versions, write
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.stream import make_spec
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.projections.targets import Means, Norms, Targets
from vinnow.models.taps.gradients import GradientTap
from vinnow.pool.reader import Pool
from vinnow.store.quantise import roundtrip

WHICH = r"re:(multi_modal_projector|language_model\.layers)\..*(linear_\d|_proj)$"
ROWS = 2000
# seeds of each projection: one draw moves every score alike, through its target mean
SEEDS = 3
# seeds of each projection: one draw moves every score alike, through its target mean
SEEDS = 3
PROJECTIONS = {
    "rademacher": [{"kind": "rademacher", "dim": d} for d in (512, 2048, 8192)],
    "sjlt": [
        {"kind": "sjlt", "dim": d, "nonzeros": s} for d, s in ((512, 1), (512, 4), (2048, 2), (8192, 1), (8192, 2))
    ],
    "kron": [{"kind": "kron", "dim": d} for d in (512, 2048, 8192)],
}
STORED = ("float16", "int8", "bit1")


class Rows:
    """A pool's rows as batches for taps; tasks by row."""

    def __init__(self, pool: str, checkpoint: str, most: int) -> None:
        config = FeatureConfig(kind="loss", max_len=256, rows_per_part=512, token_budget=32_768, max_rows=256)
        self.actor = FeatureActor(make_spec(pool, [CheckpointRef(1, checkpoint)], config, "unused"))
        parts = [self.actor.loader.load(p.name) for p in Pool(pool).shards(512)[: -(-most // 512)]]
        self.parts, self.model = parts, self.actor.first
        self.tasks = np.concatenate([np.array(p.tasks, object) for p in parts])

    def __len__(self) -> int:
        return len(self.tasks)

    def run(self, sink, before=lambda positions: None) -> np.ndarray:
        """Return a sink's vectors [N, K]; `before` hears which rows come next."""
        tap = GradientTap(self.model, WHICH, sink)
        out, start = np.zeros((len(self), tap.dim)), 0
        for part in self.parts:
            for rows, batch in self.actor.batches(part, {"tokens": 0, "padded": 0}):
                positions = start + np.array(rows)
                before(positions)
                out[positions] = tap(batch)
            start += len(part.encoded)
        return out


def unit(vec_NK: np.ndarray) -> np.ndarray:
    """Return rows of length 1; rows of zeros stay."""
    norm = np.linalg.norm(vec_NK, axis=1, keepdims=True)
    return np.divide(vec_NK, norm, out=np.zeros_like(vec_NK), where=norm > 0)


def exact(pool: Rows, targets: Rows, names: list[str]) -> tuple[np.ndarray, int]:
    """Return the exact scores [N, T] and how many elements a gradient has."""
    norm_M = targets.run(Norms())[:, 0]
    sink = Means(len(names))
    weights = np.stack([(targets.tasks == t) / norm_M / (targets.tasks == t).sum() for t in names], 1)

    def before(positions: np.ndarray) -> None:
        sink.weights_BK = torch.from_numpy(weights[positions])

    targets.run(sink, before)
    products = pool.run(Targets(sink.sums))
    return products / pool.run(Norms()), sum(s.shape[1] for s in sink.sums.values())


def agreement(got_NT: np.ndarray, exact_NT: np.ndarray) -> dict[str, float]:
    """Compare scores: the tasks' mean Spearman correlation, that of the maximum, and the overlap of its best 5 %."""
    best = max(1, len(got_NT) // 20)
    got, want = got_NT.max(1), exact_NT.max(1)
    same = np.intersect1d(np.argsort(-got, kind="stable")[:best], np.argsort(-want, kind="stable")[:best])
    return {
        "spearman": round(float(spearmanr(got, want)[0]), 4),
        "spearman_by_task": round(float(np.mean([spearmanr(a, b)[0] for a, b in zip(got_NT.T, exact_NT.T)])), 4),
        "top_5_percent_overlap": round(len(same) / best, 4),
        "cosine_error_sd": round(float((got_NT - exact_NT).std()), 5),
    }


def main() -> None:
    """Measure and write the table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--run", default="runs/demo")
    arguments.add_argument("--out", default=str(RESULTS / "fidelity.json"))
    asked = arguments.parse_args()
    checkpoints = sorted(
        Path(asked.run, "train", "proxy").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1])
    )
    if not checkpoints:
        print(f"benchmarks/fidelity.py needs a finished run in {asked.run!r} (make demo); skipped")
        return
    torch.set_num_threads(2)
    pool = Rows(f"{asked.run}/pool", str(checkpoints[-1]), ROWS)
    targets = Rows(f"{asked.run}/target", str(checkpoints[-1]), ROWS)
    names = sorted(set(targets.tasks.tolist()))
    exact_NT, elements = exact(pool, targets, names)
    table = []
    for settings in [s for family in PROJECTIONS.values() for s in family]:
        stores = ("float32", *STORED) if settings["dim"] == 8192 else ("float32",)
        agreements: dict[str, list[dict[str, float]]] = {stored: [] for stored in stores}
        for seed in range(SEEDS):
            config = ProjectionConfig(**settings, seed=seed)
            rows_NK, target_MK = unit(pool.run(config)), unit(targets.run(config))
            means_TK = np.stack([target_MK[targets.tasks == t].mean(0) for t in names])
            for stored in stores:
                kept_NK = unit(roundtrip(rows_NK.astype(np.float32), stored).astype(np.float64))
                agreements[stored].append(agreement(kept_NK @ means_TK.T, exact_NT))
        for stored, rows in agreements.items():
            means = {k: round(float(np.mean([r[k] for r in rows])), 4) for k in rows[0]}
            spread = round(float(np.std([r["spearman"] for r in rows])), 4)
            table.append(settings | {"stored": stored} | means | {"spearman_sd": spread})
            print(table[-1], flush=True)
    result = {
        "claim": "scores from projected and quantised gradients against exact ones, a trained tiny LLaVA, easy-VQA rows",
        "ratio": next(r["spearman"] for r in table if r["kind"] == "sjlt" and r["dim"] == 8192 and r["nonzeros"] == 2),
        "rows": len(pool),
        "targets": len(targets),
        "tasks": names,
        "elements": elements,
        "projection_seeds": SEEDS,
        "table": table,
        "versions": versions("torch"),
    }
    write(result, asked.out)


if __name__ == "__main__":
    main()
