"""The questions that decide which choices go on, apart from those that verdicts are made of.

Whoever keeps what was best on some questions finds it better on these than it is. So a share of the test set's pictures is
set apart: its questions decide, and are in no verdict. Questions about one picture are on one side, as they are right and
wrong together. The side is a hash of the picture: it stays when the test set becomes longer.
"""

from hashlib import blake2b

import numpy as np
import pyarrow as pa

from ....store.arrays import Array


def deciding(evals: pa.Table, share: float) -> Array:
    """Return which rows of an EVALS table are of the questions that decide [N] (bool)."""
    samples, clusters = evals["sample"].to_pylist(), evals["cluster"].to_pylist()
    limit, sides = int(share * 2**32), dict[str, bool]()
    rows = []
    for sample, cluster in zip(samples, clusters, strict=True):
        name = cluster or f"row:{sample}"
        if name not in sides:
            sides[name] = int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little") < limit
        rows.append(sides[name])
    return np.array(rows, dtype=bool)


def for_verdicts(evals: pa.Table, share: float) -> pa.Table:
    """Return the rows of an EVALS table that decided nothing."""
    return evals.filter(pa.array(~deciding(evals, share)))


def score_of(evals: pa.Table, share: float) -> float | None:
    """Return a trial's mean score on the questions that decide; None where there is none."""
    rows = deciding(evals, share)
    return float(evals["score"].to_numpy()[rows].mean()) if rows.any() else None
