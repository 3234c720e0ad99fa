"""Two selectors' picks beside each other: how many rows they share (and two random choices would), and what they are of."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pyarrow.compute as pc
import vinnow
from small_data import small_data

pool, _, model, folder = small_data()
BUDGET = 50
embeddings = vinnow.features(pool, model, f"{folder}/features", "embedding", max_len=256)
chosen = {
    "random": vinnow.pick(pool, "random", BUDGET, f"{folder}/compare"),
    "diverse": vinnow.pick(pool, "diverse", BUDGET, f"{folder}/compare", features=embeddings),
}
shared = len(set(chosen["random"].ids.tolist()) & set(chosen["diverse"].ids.tolist()))
print(f"shared: {shared} of {BUDGET} rows; two random choices share {BUDGET * BUDGET / len(pool):.1f} on average")
tasks = pool.table(["sample_id", "task"])
for name, picks in chosen.items():
    table = picks.table.join(tasks, "sample_id")
    counts = sorted(table.group_by("task").aggregate([([], "count_all")]).to_pylist(), key=lambda r: r["task"])
    print(f"{name}: " + ", ".join(f"{r['task']} {r['count_all']}" for r in counts))
    assert pc.sum(table["rank"]).as_py() == BUDGET * (BUDGET - 1) // 2
