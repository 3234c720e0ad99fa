"""What a training worker's input costs: our loader against Ray Data, from pool and JPEG files to collated micro-batches.

Both make micro-batches of 16: token ids, labels, pictures as uint8 [3, 336, 336], by the same encoder. Ours
(`train/data.py`) takes rows by position, in an order that is a function of (ids, seed, epoch); a thread or two processes
prepare them. Ray Data shuffles the rows, cuts blocks of 16 and encodes them in two actors, as its guide for training does.
Rows per second, seconds for the epoch with its start, the peak memory of all processes, and `resume`: from a start inside
the epoch (60 %) to the next batch there. Ray Data has no such place: it makes the batches before it again.
`take_16_of_large`: fetching 16 records at random positions from a pool of 665,298 rows (no pictures), milliseconds.
`python benchmarks/loading.py` writes benchmarks/results/loading.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _measure import RESULTS, one_side, versions, write
from training import BATCH, write_model, write_pool
from vinnow.pool.reader import Pool
from vinnow.store.arrays import Array
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, MicroBatches, load_processor, stream

SKIPPED, LARGE = 0.6, 665_298


def config_of(asked: argparse.Namespace) -> TrainConfig:
    """Return the training that the rows are for: its lengths and orders are LLaVA-1.5's."""
    values = {"model": asked.model, "pool": asked.pool, "global_batch": 128, "micro_batch": BATCH}
    return TrainConfig.parse(
        values | {"loader_workers": asked.loaders, "loader_threads": 2 if not asked.loaders else 1}
    )


def ours(asked: argparse.Namespace) -> dict[str, Any]:
    """Go through an epoch, then begin inside it."""
    config = config_of(asked)
    rows = Pool(asked.pool).rows
    steps, count = rows // config.global_batch, config.accumulation
    epoch = _through(stream(MicroBatches(config, asked.out, 0), range(steps * count)))
    begin, first = time.perf_counter(), int(steps * SKIPPED) * count
    next(iter(stream(MicroBatches(config, asked.out, 0), range(first, first + count))))
    return epoch | {"resume_s": time.perf_counter() - begin}


class Prepare:
    """Ray Data's actor: a block of records in, one micro-batch out."""

    def __init__(self, config: TrainConfig, out: str) -> None:
        source = MicroBatches(config, out, 0)
        self.batches: Batches = source.opened()[0]
        self.positions = {int(i): n for n, i in enumerate(self.batches.rows.ids)}

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """Encode them; the pictures are decoded here."""
        positions = np.array([self.positions[int(i)] for i in block["sample_id"]])
        batch = self.batches.make(positions, normalised=False)
        pixels = batch["media"].get("pixel_values")
        # one row a block: its arrays differ in shape from block to block
        row = {"ids": batch["input_ids"].numpy(), "labels": batch["labels"].numpy()}
        row["pixels"] = np.zeros(0, np.uint8) if pixels is None else pixels.numpy()
        return {k: _one(v) for k, v in row.items()} | {"rows": np.array([len(positions)])}


def ray_data(asked: argparse.Namespace) -> dict[str, Any]:
    """The same epoch by Ray Data, shuffled anew; records travel by id, as Parquet columns."""
    import ray

    ray.init(num_cpus=4, object_store_memory=1_000_000_000, include_dashboard=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    config = config_of(asked)
    files = sorted(str(p) for p in Path(asked.pool).glob("part-*.parquet"))
    dataset = (
        ray.data.read_parquet(files, columns=["sample_id"])
        .random_shuffle(seed=0)
        .map_batches(
            Prepare,
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=2),
            fn_constructor_args=(config, asked.out),
        )
    )
    epoch = _through(dataset.iter_batches(batch_size=1, prefetch_batches=4))
    begin, skipped = time.perf_counter(), int(epoch["batches"] * SKIPPED)
    batches = iter(dataset.iter_batches(batch_size=1, prefetch_batches=4))
    for _ in range(skipped + 1):
        next(batches)
    return epoch | {"resume_s": time.perf_counter() - begin}


def take(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds in which 16 random records come from the large pool."""
    pool, rng, spent = Pool(asked.pool), np.random.default_rng(0), []
    ids = pool.ids()
    for _ in range(60):
        wanted = rng.choice(ids, BATCH, replace=False)
        begin = time.perf_counter()
        pool.take(wanted)
        spent.append(time.perf_counter() - begin)
    return {"median_ms": 1e3 * float(np.median(spent[10:])), "rows": len(ids)}


SIDES = {"ours": ours, "ray data": ray_data, "take": take}


def _through(batches: Any) -> dict[str, Any]:
    """Take all batches; the rate is that of the second half, when buffers filled at the start are used up."""
    begin = time.perf_counter()
    seen: list[tuple[float, int]] = []
    for batch in batches:
        seen.append((time.perf_counter(), int(batch["rows"][0]) if "rows" in batch else len(batch["input_ids"])))
    half = len(seen) // 2
    rows, spent = sum(n for _, n in seen[half + 1 :]), seen[-1][0] - seen[half][0]
    start, whole = seen[0][0] - begin, seen[-1][0] - begin
    return {"rows_per_s": rows / spent, "start_s": start, "epoch_s": whole, "batches": len(seen)}


def _one(array: Array) -> Array:
    held = np.empty(1, object)
    held[0] = array
    return held


def main() -> None:
    """Measure every side in a process of its own and write the row."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=str(RESULTS / "loading.json"))
    arguments.add_argument("--rows", type=int, default=3072)
    arguments.add_argument("--large", type=int, default=LARGE)
    arguments.add_argument("--side", choices=list(SIDES))
    arguments.add_argument("--model")
    arguments.add_argument("--pool")
    arguments.add_argument("--loaders", type=int, default=0)
    asked = arguments.parse_args()
    if asked.side:
        print(json.dumps(SIDES[asked.side](asked)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, pool = write_model(folder, tiny=True), write_pool(folder / "pool", asked.rows, realistic=True)
        load_processor(model)
        arguments_of_side = ("--model", model, "--pool", pool, "--out", name)
        sides = {
            "ours, a thread": one_side(__file__, "--side", "ours", *arguments_of_side),
            "ours, 2 processes": one_side(__file__, "--side", "ours", "--loaders", "2", *arguments_of_side),
            "Ray Data, 2 actors": one_side(__file__, "--side", "ray data", *arguments_of_side),
        }
        maker = str(Path(__file__).parent / "make_pool.py")
        subprocess.run([sys.executable, maker, str(folder / "large"), "--rows", str(asked.large)], check=True)
        large = large_pool(folder / "large")
        take_row = one_side(__file__, "--side", "take", "--pool", large)
    result = {
        "claim": "a training worker's input, from pool and JPEG files to micro-batches of 16: our loader against Ray Data",
        "ratio": sides["Ray Data, 2 actors"]["epoch_s"] / sides["ours, 2 processes"]["epoch_s"],
        "sides": sides,
        "take_16_of_large": take_row,
        "machine": f"{os.cpu_count()} CPU cores",
        "versions": versions("ray", "torch", "pyarrow"),
    }
    write(result, asked.out)


def large_pool(folder: Path) -> str:
    """Ingest the large pool without looking at pictures; returns it."""
    from vinnow.pool.ingest import IngestConfig, ingest

    source = next(folder.glob("*.json"))
    ingest(IngestConfig(source=str(source), check_images="none"), str(folder / "pool"))
    return str(folder / "pool")


if __name__ == "__main__":
    main()
