"""A selector of one's own: `my_methods/longest.py`, found by VINNOW_METHODS, picks beside the package's."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["VINNOW_METHODS"] = str(HERE / "my_methods")
import vinnow
from small_data import small_data

pool, _, _, folder = small_data()
for name, config in (("random", {}), ("longest", {}), ("longest", {"per_picture": 10_000})):
    label = "-".join([name, *config])
    picks = vinnow.pick(pool, name, 40, f"{folder}/own_selector", config=config, label=label)
    rows = pool.take(picks.ids)
    characters = sum(len(t["value"]) for r in rows for t in r.conversations) / len(rows)
    print(
        f"{label}: {characters:.0f} characters a record, {sum(bool(r.images) for r in rows)} of {len(rows)} with a picture"
    )
