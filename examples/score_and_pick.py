"""Score and pick, cell by cell, as in a notebook: a look at the pool, gradients, LESS aimed at colour questions."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import vinnow
from small_data import small_data

pool, target, model, folder = small_data()

# %% the pool: columns as numpy or Arrow, records and pictures by id
print(repr(pool))
print(pool.table(["task"])["task"].value_counts().to_pylist())
shown = int(pool.ids()[pool.has_image()][0])
print(pool.record(shown).conversations[0]["value"], pool.pictures(shown)[0].size)

# %% features: in this process; `on=vinnow.ActorResources(actors=8, gpus_per_actor=1)` is a pool of actors
small = {"projection": {"dim": 256}, "max_len": 256}
gradients = vinnow.features(pool, model, f"{folder}/features", **small)
aims = vinnow.features(target, model, f"{folder}/targets", targets=True, **small)
print(gradients, gradients.table(0).schema.names)

# %% scores of every row (Arrow; `.to_pandas()` gives a frame), then picks for two budgets
reading = {"features": gradients, "targets": aims, "config": {"targets": ["color"]}}
scores = vinnow.score(pool, "less", f"{folder}/less", **reading)
print(scores.sort_by([("score", "descending")]).slice(0, 3).to_pylist())
for budget in ("10%", "25%"):
    picks = vinnow.pick(pool, "less", budget, f"{folder}/less", **reading)
    print(repr(picks))
    # of 1, how many of the chosen records begin with a colour question, beside all
    kinds = [r.task for r in pool.take(picks.ids)]
    print(f"colour questions: {kinds.count('color') / len(kinds):.2f} of the picks, ", end="")
    print(f"{(pool.column('task') == 'color').mean():.2f} of the pool")
