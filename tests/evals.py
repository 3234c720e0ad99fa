"""EVALS tables made by hand, and answers that are alike inside of a picture."""

import numpy as np
import pyarrow as pa
from vinnow.store.tables import EVALS


def evals(scores, samples=None, run="r", clusters=None, benchmark="b"):
    """One run's answers; `clusters`: a key per question, None where it is not known (left out: of one picture each)."""
    n = len(scores)
    samples = samples or [str(i) for i in range(n)]
    table = {
        "run": [run] * n,
        "benchmark": [benchmark] * n,
        "task": ["t"] * n,
        "sample": samples,
        "correct": [s == 1 for s in scores],
        "score": [float(s) for s in scores],
        "answer": [""] * n,
        "reference": [""] * n,
        "cluster": [f"path:{s}" for s in samples]
        if clusters is None
        else [c if c is None else str(c) for c in clusters],
    }
    return pa.table(table, schema=EVALS)


def alike(shape, odds, correlation, rng):
    """Differences in {-1, 0, 1} [pictures, questions], with a correlation inside of a picture; `odds` of -1, 0 and 1.

    Each question takes its picture's own value with the square root of the correlation, else a fresh one.
    """
    values = np.array([-1, 0, 1])
    own = rng.choice(values, size=(shape[0], 1), p=odds)
    fresh = rng.choice(values, size=shape, p=odds)
    return np.where(rng.random(shape) < np.sqrt(correlation), own, fresh)
