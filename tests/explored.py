"""What a report explores, of a small pool with pictures that was ingested, scored and chosen from; its texts by `say`."""

import numpy as np
from pictures import make_records, write_records
from vinnow.pipelines.report.explorer.gathering import explore, read_chosen
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.select.rows import picks_table, scores_table
from vinnow.store.batches import FeatureBatch
from vinnow.store.features import write_shard
from vinnow.store.keys import FeatureKey
from vinnow.store.tables import PICKS, SCORES, write_rows

SELECTORS, BUDGETS, SEEDS = ("random", "less", "diverse"), (6, 20), (0, 1)


def lay_run(folder, rows=60, say=lambda text: text):
    """Lay out a pool of `rows` rows, an embedding of 6 numbers, scores, and picks of three selectors; returns the pool.

    Random has scores of its own for each seed, the two others have one file for both.
    """
    records, pictures = make_records(rows)
    for record in records:
        record["source"], record["task"] = say(record["source"]), say(record["task"])
        for turn in record["conversations"]:
            turn["value"] = say(turn["value"])
    source = write_records(folder, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    pool = Pool(str(folder / "pool"))
    ids, rng = pool.ids(), np.random.default_rng(0)
    key = FeatureKey(kind="embedding", dim=6, pool=pool.digest, model="0" * 16, checkpoint=3, recipe="{}")
    vec = rng.normal(size=(rows, 6)).astype(np.float32) * np.arange(6, 0, -1, dtype=np.float32)
    kept = np.arange(rows) % 7 != 3  # some rows were refused
    batch = FeatureBatch(ids[kept], np.ones(kept.sum(), np.int32), vec[kept], norm=np.ones(kept.sum(), np.float32))
    write_shard(folder / "features", key, "part-000000", batch, "float32")
    for name in SELECTORS:
        for seed in SEEDS if name == "random" else SEEDS[:1]:
            score = np.round(rng.normal(size=rows), 2)
            suffix = f"-s{seed}" if seed else ""
            scores = scores_table(ids, "", np.zeros(rows, np.int64), score)
            write_rows(folder / "scores" / f"{name}{suffix}.parquet", scores, SCORES)
            best = np.lexsort((ids, -score))
            for budget in BUDGETS:
                for called in (seed,) if name == "random" else SEEDS:
                    picked = best[:budget]
                    table = picks_table(ids[picked], 0 * picked, score[picked], name, budget, called)
                    write_rows(folder / "picks" / f"{name}-{budget}-s{called}.parquet", table, PICKS)
    return pool


def explored_of(folder, rows=60, say=lambda text: text, held=1200):
    """Return what the explorer shows of such a run, with selectors and budgets as `say` has them."""
    from dataclasses import replace

    from vinnow.pipelines.report.gather import read_picks

    pool = lay_run(folder, rows, say)
    chosen = read_chosen(str(folder), pool, None, read_picks(str(folder), None, []))
    choices = [replace(c, selector=say(c.selector), budget=say(c.budget)) for c in chosen.choices]
    scored = [replace(s, selector=say(s.selector)) for s in chosen.scored]
    return explore(str(folder), pool, replace(chosen, choices=choices, scored=scored), held)
