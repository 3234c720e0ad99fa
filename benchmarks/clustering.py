"""From stored trajectories to picks at LLaVA's full size, on a CPU: ours beside a re-creation of XMAS's scripts.

665,298 rows (40,688 text-only), 104 checkpoints, K = 1000, 100 iterations, 50 % taken. `python
benchmarks/clustering.py` writes benchmarks/results/clustering.json. Each side runs in a process of its own, one after
the other. Ours reads the feature store (Parquet) and learns from all points; the scripts' way (spec: XMAS §5, §6)
reads one JSON a checkpoint, loops over rows in Python and lets faiss learn from 256 points a cluster. Of its 104 JSON
files (15 GB) FILES are written and read; their seconds are scaled to 104, everything else has all 104 columns.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, one_side, versions, write

ROWS, TEXT, STEPS, TOP, PART, FILES = 665_298, 40_688, 104, 5, 4096, 8
CLUSTERS, NITER, PERCENT = 1000, 100, 50
SHARES = np.array([0.55, 0.2, 0.12, 0.08, 0.05], np.float32)


def ids_and_images(rows: int, text: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids ascending and which rows have an image."""
    rng = np.random.default_rng(0)
    ids = np.unique(rng.integers(0, 2**63, rows + 1000, dtype=np.uint64))[:rows]
    image = np.ones(rows, bool)
    image[rng.choice(rows, text, replace=False)] = False
    return ids, image


def trajectories(rows: int, steps: int) -> np.ndarray:
    """Return x [rows, steps] f32: curves that fall at some 300 speeds from row-wise heights, with noise."""
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 300, rows)
    floor, speed = rng.uniform(8, 40, 300)[kind], rng.uniform(0.5, 30, 300)[kind]
    height = rng.lognormal(4.2, 0.5, rows)
    x_NT = np.empty((rows, steps), np.float32)
    for t in range(steps):
        x_NT[:, t] = floor + height * np.exp(-t / speed) + rng.normal(0, 1.0, rows)
    return np.maximum(x_NT, 0.1)


def write_store(folder: Path, ids: np.ndarray, x_NT: np.ndarray) -> None:
    """Write the trajectories as a feature stage would: parts of PART rows in the pool's (random) order."""
    from vinnow.store.features import FeatureBatch, write_shard
    from vinnow.store.keys import FeatureKey

    order = np.random.default_rng(2).permutation(len(ids))
    for t in range(x_NT.shape[1]):
        key = FeatureKey(kind="trajectory", dim=TOP, pool="0" * 16, model=f"{t:016x}", checkpoint=t, recipe="{}")
        for part, start in enumerate(range(0, len(ids), PART)):
            rows = order[start : start + PART]
            batch = FeatureBatch(ids[rows], np.full(len(rows), 776, np.int32), x_NT[rows, t, None] * SHARES)
            write_shard(folder / "features", key, f"part-{part:06d}", batch, "float32")


def write_json(folder: Path, ids: np.ndarray, x_NT: np.ndarray, files: int) -> None:
    """Write the first `files` checkpoints as `json.dump(…, indent=4)` of {id: [5 floats]} writes them."""
    (folder / "json").mkdir()
    names = [str(i) for i in ids]
    for t in range(files):
        with open(folder / "json" / f"checkpoint-{t}_attn_svd_vals.json", "w") as sink:
            sink.write("{\n")
            for position, (name, values) in enumerate(zip(names, (x_NT[:, t, None] * SHARES).tolist(), strict=True)):
                listed = ",\n        ".join(map(repr, values))
                sink.write(f'    "{name}": [\n        {listed}\n    ]' + (",\n" if position + 1 < len(names) else "\n"))
            sink.write("}")


def ours(folder: Path, seconds: dict[str, float]) -> None:
    """The store → scores and picks on disk."""
    from vinnow.select import run
    from vinnow.select.methods import xmas
    from vinnow.select.needs import Needs
    from vinnow.select.view import View

    cluster = xmas.cluster

    def clustered(*arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return cluster(*arguments)
        finally:
            seconds["k-means"] = time.perf_counter() - begin

    xmas.cluster = clustered
    table = np.load(folder / "rows.npz")
    columns = {"has_image": table["image"]}
    view = View(table["ids"], columns, features_root=str(folder / "features"), needs=Needs(features=("trajectory",)))
    config = {"clusters": CLUSTERS, "niter": NITER}
    begin = time.perf_counter()
    run.select(view, "xmas", config, [f"{PERCENT}%"], 0, str(folder / "ours"))
    seconds["all"] = time.perf_counter() - begin


def published(folder: Path, seconds: dict[str, float]) -> None:
    """The scripts' way: JSON in, loops, default faiss, JSON out."""
    import faiss

    begin = time.perf_counter()
    order, columns = None, []
    for path in sorted((folder / "json").iterdir()):
        with open(path) as source:
            values = json.load(source)
        order = order or list(values)
        columns.append([sum(sorted(values[i], reverse=True)[:TOP]) for i in order])
    read = (time.perf_counter() - begin) / len(columns) * STEPS
    begin = time.perf_counter()
    x_NT = np.stack([columns[t % len(columns)] for t in range(STEPS)], 1).astype(np.float32)
    assert order is not None
    stable = {}
    for i, row in zip(order, x_NT, strict=True):
        stable[i] = float(np.sum(np.abs(row[1:] - row[:-1])))
    x_NT = np.nan_to_num(x_NT)
    kmeans_begin = time.perf_counter()
    kmeans = faiss.Kmeans(STEPS, CLUSTERS, niter=NITER)
    kmeans.train(x_NT)
    _, nearest = kmeans.index.search(x_NT, 1)
    seconds["k-means"] = time.perf_counter() - kmeans_begin
    (folder / "theirs").mkdir()
    cluster = {i: int(c) for i, c in zip(order, nearest[:, 0], strict=True)}
    for name, values in (("stability", stable), ("clusters", cluster)):
        with open(folder / "theirs" / f"{name}.json", "w") as sink:
            json.dump(values, sink, indent=4)
    sample(folder)
    seconds["all"] = read + time.perf_counter() - begin
    seconds["reading JSON, scaled to 104 files"] = read


def sample(folder: Path) -> None:
    """Their second script: both JSON files back in, the water-filling loop, the list of picks out."""
    cluster, stable = (json.loads((folder / "theirs" / f"{n}.json").read_text()) for n in ("clusters", "stability"))
    table = np.load(folder / "rows.npz")
    text = max(cluster.values()) + 1
    cluster.update({str(i): text for i in table["ids"][~table["image"]]})
    members: dict[int, list[str]] = {}
    for i, c in cluster.items():
        members.setdefault(c, []).append(i)
    left, taken = PERCENT * len(cluster) // 100, []
    order = [c for c in sorted(members, key=lambda c: len(members[c])) if len(members[c]) > 2]
    for position, c in enumerate(order):
        quota = left // (len(order) - position)
        if c == text:
            chosen = random.sample(members[c], min(quota, len(members[c])))
        else:
            chosen = sorted(members[c], key=lambda i: stable[i])[:quota]
        left -= len(chosen)
        taken += chosen
    (folder / "theirs" / "picked.json").write_text(json.dumps(taken, indent=4))


def main() -> None:
    """Measure and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=str(RESULTS / "clustering.json"))
    arguments.add_argument("--side", choices=("ours", "published"))
    arguments.add_argument("--folder")
    arguments.add_argument("--rows", type=int, default=ROWS)
    asked = arguments.parse_args()
    if asked.side:
        seconds: dict[str, float] = {}
        {"ours": ours, "published": published}[asked.side](Path(asked.folder), seconds)
        print(json.dumps({"seconds": seconds}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, text = Path(name), round(asked.rows * TEXT / ROWS)
        ids, image = ids_and_images(asked.rows, text)
        np.savez(folder / "rows.npz", ids=ids, image=image)
        x_NT = trajectories(asked.rows, STEPS)
        write_store(folder, ids, x_NT)
        write_json(folder, ids, x_NT, FILES)
        del x_NT
        sides = {n: one_side(__file__, "--side", n, "--folder", name) for n in ("ours", "published")}
    rest = {n: f["seconds"]["all"] - f["seconds"]["k-means"] for n, f in sides.items()}
    result = {
        "claim": "stored trajectories to picks, 665,298 rows of 104 checkpoints, K=1000, 100 iterations, CPU",
        "ratio": rest["published"] / rest["ours"],
        "rows": asked.rows,
        "all_but_kmeans_s": rest,
        "sides": sides,
        "machine": f"{os.cpu_count()} CPU cores",
        "versions": versions("faiss-cpu", "numpy", "pyarrow"),
    }
    write(result, asked.out)


if __name__ == "__main__":
    main()
