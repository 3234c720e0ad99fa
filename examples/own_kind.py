"""A kind of feature of one's own: `my_kinds/perplexity.py`, found by VINNOW_KINDS, beside the package's loss."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["VINNOW_KINDS"] = str(HERE / "my_kinds")
import numpy as np
import vinnow
from small_data import small_data

pool, _, model, folder = small_data()
loss = vinnow.features(pool, model, f"{folder}/features", "loss", max_len=256)
ours = vinnow.features(pool, model, f"{folder}/features", "perplexity", max_len=256)
values = [np.stack(f.table(0)["vec"].to_numpy())[:, 0] for f in (loss, ours)]
worst = np.abs(np.exp(values[0]) - values[1]).max() / values[1].max()
print(f"{len(values[1])} rows, perplexity {values[1].min():.1f} to {values[1].max():.1f}")
print(f"exp(loss) is the same to {worst:.0e} of it: {bool(worst < 1e-5)}")
